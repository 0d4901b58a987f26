# SPDX-License-Identifier: Apache-2.0
"""Opens an engine bundle: checks its manifest and hashes, then hands each graph to a back-end.

The graphs of a bundle run on every back-end of ONNX Runtime, whatever device it was exported for.
Engines that TensorRT built of them are used by the back-end `tensorrt` only, and what was chosen
piece by piece for a processor by `openvino`; `auto` takes whichever is there.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.resources
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

from foreseg.config import TrackerConfig
from foreseg.engines.base import Engine
from foreseg.engines.built import built_folders
from foreseg.engines.chosen import chosen_folders
from foreseg.engines.chosen_opening import open_chosen
from foreseg.engines.cuda import open_cuda
from foreseg.engines.cuda_memory import CudaDevice
from foreseg.engines.local_device import local_device
from foreseg.engines.manifest import Manifest, Piece, read_manifest, read_piece
from foreseg.engines.onnx import KEPT_UP_TO_PX, OnnxEngine, Provider
from foreseg.engines.onnx_providers import (
    cache_folder,
    cache_prefix,
    cuda_provider,
    tensorrt_provider,
    tensorrt_version,
)
from foreseg.engines.processor import this_processor
from foreseg.engines.sam2_specs import check_geometry
from foreseg.engines.store import Device, HostStore, Store
from foreseg.engines.tensorrt_opening import installed_modules, open_built
from foreseg.errors import ConfigError, EngineError, ForesegError, MissingExtraError
from foreseg.files import user_path

SHIPPED_BUNDLES = {"nano": "nano_tracker"}  # name -> folder in foreseg/models

_log = logging.getLogger(__name__)


class Backend(Enum):
    """What executes a bundle."""

    CPU = "cpu"  # ONNX Runtime
    CUDA = "cuda"  # ONNX Runtime
    ONNX_TENSORRT = "onnx-tensorrt"  # ONNX Runtime, which builds engines at the first start
    TENSORRT = "tensorrt"  # engines that `foreseg-export build` made
    OPENVINO = "openvino"  # each piece on what `foreseg-export build --target x86` chose for it
    AUTO = "auto"  # whichever of these two was built, else the graphs on ONNX Runtime
    TORCH = "torch"  # what is opened is a checkpoint, not a bundle


# what is tried instead, in this order, where that is allowed
FALLBACKS: dict[Backend, tuple[Backend, ...]] = {
    Backend.CPU: (),
    Backend.CUDA: (Backend.CPU,),
    Backend.ONNX_TENSORRT: (Backend.CUDA, Backend.CPU),
    Backend.TENSORRT: (Backend.CUDA, Backend.CPU),
    Backend.OPENVINO: (Backend.CPU,),
    Backend.AUTO: (),  # `_order` knows
    Backend.TORCH: (),
}
# in another package: loaded only if asked for
TORCH_MODULE, TORCH_FUNCTION = "foreseg_export.torch_bundle", "bundle_from_checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """What was asked for, what runs, and why these differ."""

    asked: Backend = Backend.CPU
    used: Backend = Backend.CPU
    reason: str = ""  # "" where they are equal

    def __str__(self) -> str:
        if not self.reason:
            return self.used.value
        return f"{self.used.value} instead of {self.asked.value}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """An opened bundle: its manifest, and its engines in the manifest's order."""

    manifest: Manifest
    engines: tuple[Engine, ...]
    device: Device | None = None  # whose memory the engines share; None: they run on the host
    max_rows: int | None = None  # that the engines take in one launch; None: any number
    backend: BackendChoice = BackendChoice()

    def engine(self, name: str) -> Engine:
        """The engine of this piece.

        Raises:
            EngineError: if the bundle has no such piece.
        """
        for engine in self.engines:
            if engine.name == name:
                return engine
        msg = (
            f"bundle {self.manifest.name!r} has no piece {name!r},"
            f" only {[e.name for e in self.engines]}"
        )
        raise EngineError(msg)

    def make_store(self, rows: int, slots: int, shape: tuple[int, ...]) -> Store:
        """Room for arrays where the engines run."""
        if self.device is None:
            return HostStore(rows, slots, shape)
        return self.device.make_store(rows, slots, shape)

    def close(self) -> None:
        """Close every engine, then their device."""
        for engine in self.engines:
            engine.close()
        if self.device is not None:
            self.device.close()

    def __enter__(self) -> Bundle:  # noqa: PYI034 (Self is younger than Python 3.10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def bundle_folder(path_or_name: str | Path) -> Path:
    """The folder of a shipped bundle's name ("nano"), or the path itself, from `~` on, too."""
    folder = SHIPPED_BUNDLES.get(str(path_or_name))
    if folder is None:
        return user_path(path_or_name)
    return Path(str(importlib.resources.files("foreseg") / "models" / folder))


def backend_from_name(name: str) -> Backend:
    """A back-end by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    try:
        return Backend(name)
    except ValueError:
        known = ", ".join(backend.value for backend in Backend)
        msg = f"a back-end is one of {known}, got {name!r}"
        raise ConfigError(msg) from None


def load_bundle(
    path_or_name: str | Path = "nano",
    *,
    backend: Backend | str = Backend.CPU,
    threads: int = 1,
    allow_fallback: bool = False,
) -> Bundle:
    """Open a bundle; every graph's hash is checked before a back-end parses it.

    Args:
        path_or_name: a bundle's folder, or "nano" for the one that is shipped; with `torch` a
            checkpoint.
        backend: what executes it, or its name.
        threads: of the CPU per engine, at least 1.
        allow_fallback: try slower back-ends where this one does not start; the log, and the
            bundle's `backend`, say so.

    Raises:
        ConfigError: no back-end of this name.
        EngineError: missing, damaged, tampered with, newer, its manifest is not that of its
            graphs, or the back-end does not start.
        InputError: no checkpoint for torch.
        MissingExtraError: the back-end's package is not installed.
    """
    asked = backend_from_name(backend) if isinstance(backend, str) else backend
    if asked is Backend.TORCH:
        return _open_torch(str(path_or_name), threads)
    folder = bundle_folder(path_or_name)
    allow_fallback |= asked is Backend.AUTO
    manifest = read_manifest(folder)
    if manifest.flavour != "onnx":
        msg = f"bundle {manifest.name!r} holds {manifest.flavour!r} engines; only 'onnx' runs here"
        raise EngineError(msg)
    graphs = tuple((piece, read_piece(folder, piece)) for piece in manifest.pieces)
    source = _Source(folder=folder, manifest=manifest, graphs=graphs, threads=threads)
    reasons: list[str] = []
    for used in _order(asked, folder, allow_fallback=allow_fallback):
        choice = BackendChoice(asked=asked, used=used, reason="; ".join(reasons))
        try:
            bundle = _open(source, choice)
        except (EngineError, MissingExtraError) as error:
            if not allow_fallback or used is Backend.CPU:
                raise
            reasons.append(f"{used.value} does not start: {error}")
            continue
        try:
            check_geometry(bundle.engines, manifest.geometry)
        except EngineError as error:
            bundle.close()
            msg = f"bundle {folder} does not fit together: {error}; export it again"
            raise EngineError(msg) from error
        level = logging.WARNING if reasons else logging.INFO
        _log.log(
            level, "bundle %r from %s: %d pieces, parity mean IoU %.5f, runs on %s",
            manifest.name, folder, len(bundle.engines), manifest.parity.mean_iou, choice,
        )  # fmt: skip
        return bundle
    msg = f"no back-end opens {folder}: {'; '.join(reasons)}"
    raise EngineError(msg)


def load_configured(config: TrackerConfig) -> Bundle:
    """The bundle that the settings name, on the back-end that they name; see `load_bundle`."""
    return load_bundle(
        config.bundle,
        backend=config.backend,
        threads=config.threads,
        allow_fallback=config.allow_fallback,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Source:
    """A bundle's verified content."""

    folder: Path
    manifest: Manifest
    graphs: tuple[tuple[Piece, bytes], ...]
    threads: int


def _order(asked: Backend, folder: Path, *, allow_fallback: bool) -> tuple[Backend, ...]:
    """What is tried, one after the other; of `auto` all that was built of a bundle for here."""
    if asked is not Backend.AUTO:
        return (asked, *(FALLBACKS[asked] if allow_fallback else ()))
    found = []
    if built_folders(folder) and local_device() is not None:
        found.append(Backend.TENSORRT)
    if chosen_folders(folder):
        found.append(Backend.OPENVINO)
    return (*found, Backend.CPU)  # whether those are fresh shows when they open


def _open(source: _Source, choice: BackendChoice) -> Bundle:
    if choice.used is Backend.TENSORRT:
        return _open_tensorrt(source, choice)
    if choice.used is Backend.OPENVINO:
        chosen = open_chosen(source.folder, source.manifest, this_processor(), source.threads)
        return Bundle(manifest=source.manifest, engines=chosen, backend=choice)
    if choice.used is Backend.CPU:
        gives_back = source.manifest.geometry.image_size > KEPT_UP_TO_PX
        engines = tuple(
            OnnxEngine(piece.name, graph, threads=source.threads, gives_back=gives_back)
            for piece, graph in source.graphs
        )
        return Bundle(manifest=source.manifest, engines=engines, backend=choice)
    on_device: list[OnnxEngine] = []
    with contextlib.ExitStack() as undo:  # engines before the stream that they run on
        cuda = open_cuda()
        undo.callback(cuda.close)
        device = CudaDevice(cuda)
        undo.callback(device.close)
        for piece, graph in source.graphs:
            engine = OnnxEngine(
                piece.name,
                graph,
                providers=_providers(source, piece, graph, choice.used, device),
                threads=source.threads,
                device=device,
            )
            undo.callback(engine.close)
            on_device.append(engine)
        undo.pop_all()
    has_profile = choice.used is Backend.ONNX_TENSORRT
    return Bundle(
        manifest=source.manifest,
        engines=tuple(on_device),
        device=device,
        max_rows=source.manifest.max_objects if has_profile else None,
        backend=choice,
    )


def _providers(
    source: _Source, piece: Piece, graph: bytes, backend: Backend, device: CudaDevice
) -> tuple[Provider, ...]:
    """On a device; CUDA takes what TensorRT's provider leaves."""
    cuda = cuda_provider(device.stream)
    if backend is Backend.CUDA:
        return (cuda,)
    plain = OnnxEngine(piece.name, graph)  # tells the inputs
    plain.close()
    first = tensorrt_provider(
        piece,
        plain.inputs,
        max_rows=source.manifest.max_objects,
        stream=device.stream,
        cache=cache_folder(source.folder),
        prefix=cache_prefix(piece, tensorrt_version(), device.cuda.device),
    )
    return (first, cuda)


def _open_torch(checkpoint: str, threads: int) -> Bundle:
    try:
        module = importlib.import_module(TORCH_MODULE)
    except ModuleNotFoundError as error:
        package, extra = error.name or "torch", "export"
        raise MissingExtraError(package, extra, "running a checkpoint with torch") from error
    open_bundle: Callable[[str, int], Bundle] = getattr(module, TORCH_FUNCTION)
    return open_bundle(checkpoint, threads)


def _open_tensorrt(source: _Source, choice: BackendChoice) -> Bundle:
    modules = installed_modules()
    cuda = open_cuda()
    try:
        device, built, engines = open_built(source.folder, source.manifest, cuda, modules)
    except ForesegError:
        cuda.close()
        raise
    return Bundle(
        manifest=source.manifest,
        engines=engines,
        device=device,
        max_rows=built.max_rows,
        backend=choice,
    )
