# SPDX-License-Identifier: Apache-2.0
"""Makes an engine bundle of a SAM2 or EdgeTAM video checkpoint: cut, trace, lower, measure, write.

A bundle appears under its name whole or not at all. Its graphs are plain ONNX whatever it is meant
for: the precision lies in the graph, and engines are built of it afterwards.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import importlib.metadata
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from foreseg.engines.load import Bundle
from foreseg.engines.manifest import (
    FORMAT_VERSION,
    Calibration,
    Golden,
    Manifest,
    Parity,
    Piece,
    Sam2Geometry,
    Sensitivity,
    sha256_of,
    write_manifest,
)
from foreseg.engines.onnx import OnnxEngine
from foreseg.errors import EngineError, InputError
from foreseg.tracker.drawn_clip import CLIP_FRAMES, moving_shapes
from foreseg.tracker.golden import (
    GOLDEN_FILE,
    GoldenData,
    GoldenStep,
    MaskRows,
    check_step,
    golden_bytes,
)
from foreseg_export.calibration import calibration_pixels
from foreseg_export.checkpoints import Checkpoint, open_checkpoint
from foreseg_export.graphs import (
    OPSET,
    PIECE_NAMES,
    PieceSpec,
    export_piece,
    num_nodes,
    piece_specs,
    store_half,
)
from foreseg_export.int8_graph import INT8_PIECE
from foreseg_export.parity import GATES, Judge, golden_steps
from foreseg_export.parity_page import PAGE_NAME, write_page
from foreseg_export.precision import lowered_pieces, quantise
from foreseg_export.targets import MAX_OBJECTS
from foreseg_torch.tracker.sam2_half import in_half
from foreseg_torch.tracker.video_models import VideoModel, cut, family_of, memory_tokens

_EXPORTERS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy")

F32 = NDArray[np.float32]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to make. `stored` is the precision of large weights of float32 graphs in the files."""

    name: str
    target: str = "cpu"
    precision: str = "fp32"
    stored: str = "fp32"
    image_size: int | None = None  # side of the model input, px; None: the checkpoint's
    memory_slots: int | None = None  # frames an object remembers; None: the checkpoint's
    max_objects: int = 8  # rows in one launch of an engine that is built of it
    calibration: tuple[str, ...] = ()  # clips; none: a drawn one
    calibration_method: str = "percentile"
    gate: float | None = None  # mean mask IoU; None: that of the precision
    frames: int = CLIP_FRAMES  # of the parity clip
    fall_back: bool = True  # raise the pieces that break masks to float32
    allow_failed_parity: bool = False  # for untrained weights, whose masks are noise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """One form of a piece, in a scratch file."""

    name: str
    precision: str
    stored: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shop:
    """What all steps share."""

    checkpoint: Checkpoint
    options: ExportOptions
    geometry: Sam2Geometry
    modules: Mapping[str, nn.Module]
    specs: Mapping[str, PieceSpec]
    calibration: tuple[list[F32], Calibration] | None  # None: nothing becomes int8
    scratch: Path
    report: Report
    # what was measured, by the names of the pieces that were lowered
    measured: dict[frozenset[str], tuple[Parity, MaskRows]]


def export_sam2(
    checkpoint_path: Path, out: Path, options: ExportOptions, report: Report = lambda _: None
) -> Manifest:
    """Export a checkpoint to the new folder `out`.

    Raises:
        InputError: no usable checkpoint, `out` exists or cannot be written, a calibration clip
            without a frame, or an option does not fit.
        StreamError: a calibration clip cannot be opened or read.
        EngineError: the parity gate was not passed; nothing is written.
    """
    _check(options, out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            folder = Path(scratch) / "bundle"
            folder.mkdir()
            manifest = _fill(_shop(checkpoint_path, options, Path(scratch), report), folder)
            folder.rename(out)
    except OSError as error:
        place = error.filename or out
        msg = f"nothing is exported to {out}: {error.strerror or error} ({place})"
        raise InputError(msg) from error
    return manifest


def geometry_of(checkpoint: Checkpoint) -> Sam2Geometry:
    """The sizes that the runtime needs, read from the model."""
    model, config = checkpoint.model, checkpoint.model.config
    kernel = model.mask_downsample
    several = bool(config.multimask_output_in_sam)
    return Sam2Geometry(
        image_size=int(model.image_size),
        feature_size=int(model.backbone_feature_sizes[-1][0]),
        mask_size=int(model.image_size) // 4,
        hidden_channels=int(model.hidden_dim),
        memory_tokens=memory_tokens(model),
        memory_channels=int(model.mem_dim),
        num_recent=int(model.num_maskmem) - 1,
        num_pointers=int(config.max_object_pointers_in_encoder),
        multimask_min_points=int(config.multimask_min_pt_num) if several else 1,
        multimask_max_points=int(config.multimask_max_pt_num) if several else 0,
        multimask_in_tracking=several and bool(config.multimask_output_for_tracking),
        pixel_mean=checkpoint.pixel_mean,
        pixel_std=checkpoint.pixel_std,
        mask_kernel=tuple(float(v) for v in kernel.weight.detach().flatten()),
        mask_bias=float(kernel.bias.detach()[0]),
    )


def _check(options: ExportOptions, out: Path) -> None:
    if out.exists():
        msg = f"{out} exists: remove it, or choose another folder"
        raise InputError(msg)
    if options.gate is not None and not 0 < options.gate <= 1:
        msg = f"a gate wants a mask IoU above 0 and at most 1, got {options.gate}"
        raise InputError(msg)
    if not 1 <= options.max_objects <= MAX_OBJECTS:
        msg = f"a launch takes 1 to {MAX_OBJECTS} objects, got {options.max_objects}"
        raise InputError(msg)
    if options.calibration and options.precision != "int8":
        msg = f"calibration clips are for int8, the precision is {options.precision}"
        raise InputError(msg)


def _shop(checkpoint_path: Path, options: ExportOptions, scratch: Path, report: Report) -> _Shop:
    """All that can be wrong with the input shows here, before minutes are spent on it."""
    checkpoint = open_checkpoint(
        checkpoint_path, image_size=options.image_size, memory_slots=options.memory_slots
    )
    model = checkpoint.model
    report(
        f"checkpoint {checkpoint.name}: {_num_parameters(model)} parameters, input"
        f" {model.image_size} px, {model.num_maskmem} memory slots"
    )
    try:
        modules = cut(model)
    except ValueError as error:
        msg = f"checkpoint {checkpoint.name} cannot be exported: {error}"
        raise InputError(msg) from error
    geometry, calibration = geometry_of(checkpoint), None
    if "int8" in lowered_pieces(options.precision, options.target).values():
        calibration = calibration_pixels(
            options.calibration, geometry, method=options.calibration_method
        )
    return _Shop(
        checkpoint=checkpoint,
        options=options,
        geometry=geometry,
        modules=modules,
        specs=piece_specs(model),
        calibration=calibration,
        scratch=scratch,
        report=report,
        measured={},
    )


def _fill(shop: _Shop, folder: Path) -> Manifest:
    """Everything of the bundle, in its folder."""
    options, model = shop.options, shop.checkpoint.model
    plain = _trace_all(shop)
    lowered = _lower(shop)
    clip = moving_shapes(frames=options.frames)
    draft = _draft(shop)
    with _opened(draft, tuple(plain.values())) as bundle:
        steps = golden_steps(shop.modules, bundle, clip)
    gate = GATES[options.precision] if options.gate is None else options.gate
    with tqdm(total=len(clip.frames), desc="reference", disable=None, leave=False) as bar:
        judge = Judge(model, shop.geometry, clip, gate=gate, on_frame=bar.update)
    sensitivity = _sensitivity(shop, draft, judge, plain, lowered)
    chosen, parity, masks = _choose(shop, draft, judge, plain, lowered, sensitivity)
    golden = GoldenData(steps=steps, masks=judge.masks, clip_sha256=clip.sha256())
    manifest = dataclasses.replace(
        draft,
        pieces=_placed(chosen, steps, folder),
        parity=parity,
        sensitivity=sensitivity,
        golden=_write_golden(folder, golden),
        calibration=shop.calibration[1]
        if shop.calibration and "int8" in {g.precision for g in chosen}
        else None,
    )
    write_manifest(folder, manifest)
    write_page(folder, manifest, clip, wanted=judge.masks, got=masks)
    shop.report(
        f"golden data {manifest.golden.num_bytes / 1e6:.2f} MB, {PAGE_NAME}"
        f" {(folder / PAGE_NAME).stat().st_size / 1e6:.2f} MB"
    )
    return manifest


def _trace_all(shop: _Shop) -> dict[str, _Graph]:
    """Every piece in float32."""
    stored = shop.options.stored
    graphs = {}
    for i, name in enumerate(PIECE_NAMES):
        start = time.monotonic()
        path = shop.scratch / f"{name}.fp32.onnx"
        export_piece(shop.modules[name], shop.specs[name], path)
        if stored == "fp16":
            whole, path = path, shop.scratch / f"{name}.stored.onnx"
            store_half(whole, path)
        graph = _Graph(name=name, precision="fp32", stored=stored, path=path)
        _tell(shop, f"[{i + 1}/{len(PIECE_NAMES)}] {name}", graph, start)
        graphs[name] = graph
    return graphs


def _lower(shop: _Shop) -> dict[str, _Graph]:
    """The pieces that the precision lowers."""
    plan = lowered_pieces(shop.options.precision, shop.options.target)
    graphs = {}
    for i, (name, precision) in enumerate(plan.items()):
        start = time.monotonic()
        path = shop.scratch / f"{name}.{precision}.onnx"
        if shop.calibration is not None and name == INT8_PIECE:
            pixels, about = shop.calibration
            bar = tqdm(pixels, desc="calibration", disable=None, leave=False)
            quantise(shop.scratch / f"{name}.fp32.onnx", path, bar, method=about.method)
        else:
            export_piece(in_half(shop.modules[name]), shop.specs[name], path)
        graphs[name] = _Graph(name=name, precision=precision, stored=precision, path=path)
        _tell(shop, f"[{i + 1}/{len(plan)}] {name} {precision}", graphs[name], start)
    return graphs


def _tell(shop: _Shop, what: str, graph: _Graph, start: float) -> None:
    took, size = time.monotonic() - start, graph.path.stat().st_size / 1e6
    shop.report(f"{what}: {took:.1f} s, {size:.2f} MB, {num_nodes(graph.path)} nodes")


def _opened(draft: Manifest, graphs: Sequence[_Graph]) -> Bundle:
    """These graphs as a bundle, on the CPU."""
    return Bundle(
        manifest=draft, engines=tuple(OnnxEngine(g.name, g.path.read_bytes()) for g in graphs)
    )


def _sensitivity(
    shop: _Shop,
    draft: Manifest,
    judge: Judge,
    plain: Mapping[str, _Graph],
    lowered: Mapping[str, _Graph],
) -> tuple[Sensitivity, ...]:
    """What each lowered piece does to the masks, alone."""
    found = []
    for name, graph in lowered.items():
        parity, _ = _judged(
            shop, draft, judge, {**plain, name: graph}, f"{name} {graph.precision}"
        )
        found.append(
            Sensitivity(
                piece=name,
                precision=graph.precision,
                min_iou=parity.min_iou,
                mean_iou=parity.mean_iou,
            )
        )
        shop.report(
            f"sensitivity of {name} {graph.precision}: mask IoU mean {parity.mean_iou:.5f},"
            f" min {parity.min_iou:.5f}"
        )
    return tuple(found)


def _choose(
    shop: _Shop,
    draft: Manifest,
    judge: Judge,
    plain: Mapping[str, _Graph],
    lowered: Mapping[str, _Graph],
    sensitivity: Sequence[Sensitivity],
) -> tuple[tuple[_Graph, ...], Parity, MaskRows]:
    """The graphs that pass the gate: lowered ones go back to float32, most harmful first.

    Raises:
        EngineError: the gate is not passed, and may not be failed.
    """
    options = shop.options
    chosen = {**plain, **lowered}
    harmful = [s.piece for s in sorted(sensitivity, key=lambda s: s.mean_iou)]
    while True:
        parity, masks = _judged(shop, draft, judge, chosen, "parity")
        shop.report(
            f"parity over {parity.frames} frames, {parity.objects} objects:"
            f" logits max abs {parity.max_abs_logit:.2e}, RMS {parity.rms_logit:.2e}"
            f" (reference RMS {parity.reference_rms_logit:.2f}); mask IoU mean"
            f" {parity.mean_iou:.5f}, min {parity.min_iou:.5f} over {parity.masks} masks"
        )
        if parity.passed or options.allow_failed_parity:
            return tuple(chosen.values()), parity, masks
        if not (options.fall_back and harmful):
            break
        name = harmful.pop(0)
        shop.report(f"gate {parity.gate_mean_iou:g} not passed: {name} goes back to fp32")
        chosen[name] = plain[name]
    msg = (
        f"parity gate not passed: mean mask IoU {parity.mean_iou:.5f} over {parity.masks} masks"
        f" of at least {parity.min_area_px} px, wanted {parity.gate_mean_iou}"
    )
    raise EngineError(msg)


def _judged(
    shop: _Shop, draft: Manifest, judge: Judge, graphs: Mapping[str, _Graph], what: str
) -> tuple[Parity, MaskRows]:
    """Measure these graphs, once."""
    key = frozenset(graph.name for graph in graphs.values() if graph.precision != "fp32")
    if key not in shop.measured:
        num_frames = len(judge.clip.frames)
        with (
            _opened(draft, tuple(graphs.values())) as bundle,
            tqdm(total=num_frames, desc=what, disable=None, leave=False) as bar,
        ):
            shop.measured[key] = judge.measure(bundle, bar.update)
    return shop.measured[key]


def _placed(
    graphs: Sequence[_Graph], steps: Sequence[GoldenStep], folder: Path
) -> tuple[Piece, ...]:
    """The chosen graphs in the bundle's folder, each held against its golden step."""
    pieces = []
    for graph, step in zip(graphs, steps, strict=True):
        path = folder / f"{graph.name}.onnx"
        shutil.copyfile(graph.path, path)
        engine = OnnxEngine(graph.name, path.read_bytes())
        pieces.append(
            Piece(
                name=graph.name,
                file=path.name,
                precision=graph.precision,
                stored=graph.stored,
                sha256=sha256_of(path),
                num_bytes=path.stat().st_size,
                outputs=check_step(engine, step),
            )
        )
        engine.close()
    return tuple(pieces)


def _write_golden(folder: Path, golden: GoldenData) -> Golden:
    content = golden_bytes(golden)
    (folder / GOLDEN_FILE).write_bytes(content)
    return Golden(
        file=GOLDEN_FILE,
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
    )


def _draft(shop: _Shop) -> Manifest:
    """The manifest without what is only known when the graphs are measured."""
    checkpoint, options = shop.checkpoint, shop.options
    return Manifest(
        format_version=FORMAT_VERSION,
        family=family_of(checkpoint.model),
        name=options.name,
        geometry=shop.geometry,
        target=options.target,
        flavour="onnx",
        precision=options.precision,
        max_objects=options.max_objects,
        opset=OPSET,
        pieces=(),
        source_name=checkpoint.name,
        source_sha256=sha256_of(checkpoint.path),
        exporters=tuple(f"{name} {importlib.metadata.version(name)}" for name in _EXPORTERS),
        parity=Parity.not_measured("not yet"),
        sensitivity=(),
        calibration=None,
        golden=Golden(file="", sha256="", num_bytes=0),
        created=dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
    )


def _num_parameters(model: VideoModel) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M"
