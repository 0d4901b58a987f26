# SPDX-License-Identifier: Apache-2.0
"""The pieces of a SAM2 model as engines that torch runs: the reference, on any device.

For machines where torch is the best runtime as well: TensorRT for RTX has no engines for Hopper.
What is kept stays a torch tensor. Knows nothing of files; the caller opens the checkpoint.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from foreseg.engines.base import (
    Array,
    DType,
    Tensor,
    TensorSpec,
    check_inputs,
    check_kept,
    on_host,
)
from foreseg.engines.load import Backend, BackendChoice, Bundle
from foreseg.engines.manifest import FORMAT_VERSION, Golden, Manifest, Parity, Sam2Geometry
from foreseg.engines.sam2_specs import sam2_specs
from foreseg.engines.store import Store, are_consecutive
from foreseg.errors import EngineError
from foreseg_torch.tracker.video_models import VideoModel, cut, family_of

MAX_ROWS = 8  # told in the manifest; torch takes any number

_log = logging.getLogger(__name__)


class TorchTensor:
    """A `DeviceTensor` that is torch's."""

    __slots__ = ("value",)

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> DType:
        """As numpy names it."""
        return cast("DType", np.dtype(str(self.value.dtype).removeprefix("torch.")))

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.value.numel() * self.value.element_size()

    def numpy(self) -> Array:
        """A copy on the host."""
        return cast("Array", self.value.cpu().numpy().copy())

    def __getitem__(self, index: int) -> TorchTensor:
        """A part along the first axis, not copied."""
        return TorchTensor(self.value[index])


class TorchStore:
    """A `Store` in a torch tensor; views are handed out as `TorchTensor`.

    Args:
        device: where.
        rows: R.
        slots: K.
        shape: of one entry.
    """

    def __init__(
        self, device: torch.device, rows: int, slots: int, shape: tuple[int, ...]
    ) -> None:
        self._values = torch.zeros((rows, slots, *shape), device=device)

    @property
    def num_bytes(self) -> int:
        """Size."""
        return TorchTensor(self._values).nbytes

    def write(self, row: int, slot: int, value: Tensor) -> None:
        """Copy into one slot."""
        self._values[row, slot].copy_(_as_torch(value))

    def read(self, rows: Sequence[int]) -> TorchTensor:
        """These rows."""
        if are_consecutive(rows):
            return TorchTensor(self._values[rows[0] : rows[0] + len(rows)])
        return TorchTensor(self._values[list(rows)])

    def copy(self, source: int, target: int) -> None:
        """Copy a row."""
        self._values[target].copy_(self._values[source])

    def clear(self, row: int) -> None:
        """Set a row to zero."""
        self._values[row].zero_()


class TorchDevice:
    """Where a bundle's torch engines run."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def make_store(self, rows: int, slots: int, shape: tuple[int, ...]) -> Store:
        """Room there."""
        return TorchStore(self.device, rows, slots, shape)

    def close(self) -> None:
        """Nothing to do: torch frees what nobody refers to."""


class TorchEngine:
    """A module as an engine; on a CUDA device its work is queued, as torch does.

    Args:
        name: the piece it is.
        module: in evaluation mode; it is moved to the device.
        inputs: in the order of the module's arguments.
        outputs: in the order of its results, float32 on the outside.
        device: torch's name of it, such as "cpu" or "cuda".
        autocast: compute in this type where torch thinks it safe; None: in float32.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        *,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        device: str = "cpu",
        autocast: torch.dtype | None = None,
    ) -> None:
        self._name = name
        self._device = torch.device(device)
        self._module: nn.Module | None = module.to(self._device)
        self._inputs = inputs
        self._outputs = outputs
        self._autocast = autocast

    @property
    def name(self) -> str:
        """The piece it is."""
        return self._name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` wants."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""
        return self._outputs

    @property
    def provider(self) -> str:
        """Torch's version and the device."""
        kind = "float32" if self._autocast is None else str(self._autocast).removeprefix("torch.")
        return f"torch {torch.__version__} on {self._device}, {kind}"

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run once; see `Engine.run`."""
        if self._module is None:
            msg = f"engine {self._name!r} is closed"
            raise EngineError(msg)
        check_inputs(self._name, self._inputs, inputs)
        check_kept(self._name, self._outputs, keep)
        arguments = [_as_torch(inputs[spec.name]).to(self._device) for spec in self._inputs]
        try:
            with torch.inference_mode(), self._precision():
                results = self._module(*arguments)
        except RuntimeError as error:  # out of memory is one of these
            msg = f"engine {self._name!r} failed in torch: {error}"
            raise EngineError(msg) from error
        values = [results] if isinstance(results, torch.Tensor) else list(results)
        return {
            spec.name: self._result(value, is_kept=spec.name in keep)
            for spec, value in zip(self._outputs, values, strict=True)
        }

    def close(self) -> None:
        """Let the module go."""
        self._module = None

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast)

    def _result(self, value: torch.Tensor, *, is_kept: bool) -> Tensor:
        if value.is_floating_point():
            value = value.float()
        tensor = TorchTensor(value.contiguous())
        return tensor if is_kept else tensor.numpy()


def torch_bundle(
    model: VideoModel,
    geometry: Sam2Geometry,
    *,
    name: str,
    device: str = "cpu",
    autocast: torch.dtype | None = None,
) -> Bundle:
    """A bundle of a model's pieces, for a tracker, without files.

    Args:
        model: of a checkpoint; it is copied.
        geometry: of the model.
        name: of the checkpoint.
        device: torch's name of it.
        autocast: see `TorchEngine`.

    Raises:
        ValueError: for a geometry that the pieces do not cover.
    """
    specs = sam2_specs(geometry)
    engines = tuple(
        TorchEngine(
            piece,
            module,
            inputs=specs[piece][0],
            outputs=specs[piece][1],
            device=device,
            autocast=autocast,
        )
        for piece, module in cut(model).items()
    )
    _log.info("checkpoint %r runs on %s", name, engines[0].provider)
    return Bundle(
        manifest=_manifest(family_of(model), geometry, name, autocast),
        engines=engines,
        device=TorchDevice(torch.device(device)),
        backend=BackendChoice(asked=Backend.TORCH, used=Backend.TORCH),
    )


def _manifest(
    family: str, geometry: Sam2Geometry, name: str, autocast: torch.dtype | None
) -> Manifest:
    """It says that nothing was exported and nothing compared: this is the reference itself."""
    nothing = Parity.not_measured("not exported: torch runs the checkpoint")
    return Manifest(
        format_version=FORMAT_VERSION,
        family=family,
        name=name,
        geometry=geometry,
        target="torch",
        flavour="torch",
        precision="fp32" if autocast is None else str(autocast).removeprefix("torch."),
        max_objects=MAX_ROWS,
        opset=0,
        pieces=(),
        source_name=name,
        source_sha256="",
        exporters=(f"torch {torch.__version__}",),
        parity=nothing,
        sensitivity=(),
        calibration=None,
        golden=Golden(file="", sha256="", num_bytes=0),
        created=dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
    )


def _as_torch(tensor: Tensor) -> torch.Tensor:
    if isinstance(tensor, TorchTensor):
        return tensor.value
    array = on_host(tensor)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
