# SPDX-License-Identifier: Apache-2.0
"""Makes an engine bundle of a SAM2 or EdgeTAM video checkpoint: cut, export, compare, write the manifest.

A bundle appears under its name whole or not at all. This first form writes plain ONNX for the
target "cpu", in float32 arithmetic.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foreseg.engines.load import load_bundle
from foreseg.engines.manifest import (
    FORMAT_VERSION,
    Manifest,
    Parity,
    Piece,
    Sam2Geometry,
    sha256_of,
    write_manifest,
)
from foreseg.errors import EngineError, InputError
from foreseg_export.checkpoints import Checkpoint, open_checkpoint
from foreseg_export.graphs import OPSET, export_piece, piece_specs
from foreseg_export.parity import GATE_MEAN_IOU, compare, moving_shapes
from foreseg_torch.video_models import VideoModel, cut, family_of, memory_tokens

TARGETS = ("cpu",)
PRECISIONS = ("fp32",)
STORED = ("fp32", "fp16")

_EXPORTERS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to make. `stored` is the precision of large weights in the files."""

    name: str
    target: str = "cpu"
    precision: str = "fp32"
    stored: str = "fp32"
    image_size: int | None = None  # side of the model input, px; None: the checkpoint's
    memory_slots: int | None = None  # frames an object remembers; None: the checkpoint's
    frames: int = 20  # of the parity clip
    allow_failed_parity: bool = False  # for untrained weights, whose masks are noise


def export_sam2(
    checkpoint_path: Path,
    out: Path,
    options: ExportOptions,
    report: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export a checkpoint to the new folder `out`.

    Raises:
        InputError: no usable checkpoint, or `out` exists.
        EngineError: the parity gate was not passed; nothing is written.
    """
    if out.exists():
        msg = f"{out} exists: remove it, or choose another folder"
        raise InputError(msg)
    checkpoint = open_checkpoint(
        checkpoint_path, image_size=options.image_size, memory_slots=options.memory_slots
    )
    model = checkpoint.model
    report(
        f"checkpoint {checkpoint.name}: {_num_parameters(model)} parameters, input"
        f" {model.image_size} px, {model.num_maskmem} memory slots"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        pieces = _export_pieces(checkpoint, folder, options, report)
        manifest = _manifest(checkpoint, options, pieces)
        write_manifest(folder, manifest)
        parity = _measure(checkpoint, folder, options, report)
        manifest = dataclasses.replace(manifest, parity=parity)
        write_manifest(folder, manifest)
        folder.rename(out)
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


def _export_pieces(
    checkpoint: Checkpoint, folder: Path, options: ExportOptions, report: Callable[[str], None]
) -> tuple[Piece, ...]:
    try:
        modules = cut(checkpoint.model)
    except ValueError as error:
        msg = f"checkpoint {checkpoint.name} cannot be exported: {error}"
        raise InputError(msg) from error
    specs = piece_specs(checkpoint.model)
    pieces = []
    for i, (name, module) in enumerate(modules.items()):
        start = time.monotonic()
        path = folder / f"{name}.onnx"
        export_piece(module, specs[name], path, stored=options.stored)
        num_bytes = path.stat().st_size
        took = time.monotonic() - start
        report(f"[{i + 1}/{len(modules)}] {name}: {took:.1f} s, {num_bytes / 1e6:.2f} MB")
        pieces.append(
            Piece(
                name=name,
                file=path.name,
                precision=options.precision,
                stored=options.stored,
                sha256=sha256_of(path),
                num_bytes=num_bytes,
            )
        )
    return tuple(pieces)


def _measure(
    checkpoint: Checkpoint, folder: Path, options: ExportOptions, report: Callable[[str], None]
) -> Parity:
    """Load the bundle as a user would, and hold it against the reference."""
    with load_bundle(folder, targets=TARGETS) as bundle:
        parity = compare(checkpoint.model, bundle, moving_shapes(frames=options.frames))
    report(
        f"parity over {parity.frames} frames, {parity.objects} objects:"
        f" logits max abs {parity.max_abs_logit:.2e}, RMS {parity.rms_logit:.2e}"
        f" (reference RMS {parity.reference_rms_logit:.2f});"
        f" mask IoU mean {parity.mean_iou:.5f}, min {parity.min_iou:.5f} over {parity.masks} masks"
    )
    if not parity.passed and not options.allow_failed_parity:
        msg = (
            f"parity gate not passed: mean mask IoU {parity.mean_iou:.5f} over {parity.masks} masks"
            f" of at least {parity.min_area_px} px, wanted {parity.gate_mean_iou}"
        )
        raise EngineError(msg)
    return parity


def _manifest(
    checkpoint: Checkpoint, options: ExportOptions, pieces: tuple[Piece, ...]
) -> Manifest:
    return Manifest(
        format_version=FORMAT_VERSION,
        family=family_of(checkpoint.model),
        name=options.name,
        geometry=geometry_of(checkpoint),
        target=options.target,
        flavour="onnx",
        opset=OPSET,
        pieces=pieces,
        source_name=checkpoint.name,
        source_sha256=sha256_of(checkpoint.path),
        exporters=tuple(f"{name} {importlib.metadata.version(name)}" for name in _EXPORTERS),
        parity=_not_measured(),
        created=dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
    )


def _not_measured() -> Parity:
    """Stands in the manifest while the bundle is loaded to be measured; never in a finished one."""
    return Parity(
        reference="",
        frames=0,
        objects=0,
        masks=0,
        min_area_px=0,
        max_abs_logit=0.0,
        rms_logit=0.0,
        reference_rms_logit=0.0,
        min_iou=0.0,
        mean_iou=0.0,
        gate_mean_iou=GATE_MEAN_IOU,
    )


def _num_parameters(model: VideoModel) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M"
