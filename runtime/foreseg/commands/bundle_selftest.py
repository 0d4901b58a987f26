# SPDX-License-Identifier: Apache-2.0
"""`foreseg bundle bench BUNDLE --selftest`: do the engines here compute what the export measured?

Golden inputs through every engine, then the drawn clip through the tracker, both held against what
the bundle's golden file says of the reference. A reasoner, where one is named, is asked about drawn
scenes. Needs no torch, unless that reasoner does. Does not time anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foreseg.engines.load import Bundle
from foreseg.engines.manifest import OutputParity, read_piece
from foreseg.errors import EngineError
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.load import build_reasoner
from foreseg.reasoner.scene_check import SceneCheck, check_reasoner
from foreseg.tracker.drawn_clip import Clip, moving_shapes
from foreseg.tracker.golden import GoldenData, check_step, golden_from_bytes, overlaps, track_clip


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceCheck:
    """One engine on its golden inputs."""

    name: str
    precision: str
    provider: str
    outputs: tuple[OutputParity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What was found; `passed` is the export's own gate, on this machine.

    `failure` says why the clip could not be tracked, such as values that are not finite; "" if it
    was.
    """

    pieces: tuple[PieceCheck, ...]
    frames: int
    masks: int
    min_iou: float
    mean_iou: float
    gate_mean_iou: float
    passed: bool
    failure: str = ""


def self_test(
    bundle: Bundle, folder: Path, on_frame: Callable[[], object] = lambda: None
) -> SelfTest:
    """Hold a bundle's engines against its golden file.

    Args:
        bundle: opened, on the back-end to be tested.
        folder: where its golden file lies.
        on_frame: called after each frame of the clip.

    Raises:
        EngineError: there is no golden file (of a checkpoint), it is damaged or lacks a piece, or
            this machine draws another clip than the one that exported the bundle.
    """
    manifest = bundle.manifest
    golden, clip = _golden(bundle, folder)
    pieces = tuple(
        PieceCheck(
            name=step.piece,
            precision=manifest.piece(step.piece).precision,
            provider=bundle.engine(step.piece).provider,
            outputs=check_step(bundle.engine(step.piece), step, max_rows=bundle.max_rows),
        )
        for step in golden.steps
    )
    failure, ious = "", []
    try:
        tracked = track_clip(bundle, clip, on_frame)
        ious = [iou for _, _, iou in overlaps(tracked.masks, golden.masks)]
    except EngineError as error:  # a result, too: to be reported beside the pieces' numbers
        failure = str(error)
    gate = manifest.parity.gate_mean_iou
    mean_iou = sum(ious) / len(ious) if ious else 0.0
    is_finite = all(math.isfinite(o.max_abs) for piece in pieces for o in piece.outputs)
    return SelfTest(
        pieces=pieces,
        frames=len(clip.frames),
        masks=len(ious),
        min_iou=min(ious, default=0.0),
        mean_iou=mean_iou,
        gate_mean_iou=gate,
        passed=is_finite and not failure and mean_iou >= gate,
        failure=failure,
    )


def _golden(bundle: Bundle, folder: Path) -> tuple[GoldenData, Clip]:
    """A bundle's golden data, and the clip that its masks are of."""
    manifest = bundle.manifest
    if not manifest.golden.file:
        msg = (
            f"{manifest.name} has no golden data to be held against: torch runs the checkpoint,"
            " which is the reference itself; leave --selftest out"
        )
        raise EngineError(msg)
    where = str(folder / manifest.golden.file)
    golden = golden_from_bytes(read_piece(folder, manifest.golden), where)
    lacking = {engine.name for engine in bundle.engines} - {step.piece for step in golden.steps}
    if lacking:
        msg = f"{where} has no golden inputs for {sorted(lacking)}: export the bundle again"
        raise EngineError(msg)
    clip = moving_shapes(frames=len(golden.masks))
    if clip.sha256() != golden.clip_sha256:
        msg = (
            f"{where} was made of another clip than this foreseg draws: use the foreseg that"
            " exported the bundle, or export it again"
        )
        raise EngineError(msg)
    return golden, clip


def print_self_test(found: SelfTest) -> None:
    """Tables for the operator."""
    print("\ngolden inputs, difference from the reference")
    print(f"{'output':<34}{'precision':>10}{'max abs':>12}{'RMS':>12}{'of RMS':>12}  provider")
    for piece in found.pieces:
        for output in piece.outputs:
            name = f"{piece.name}: {output.name}"
            print(
                f"{name:<34}{piece.precision:>10}{output.max_abs:>12.3g}{output.rms:>12.3g}"
                f"{output.reference_rms:>12.3g}  {piece.provider}"
            )
    if found.failure:
        print(f"\nself-test NOT PASSED: {found.failure}")
        return
    print(
        f"\nself-test {'passed' if found.passed else 'NOT PASSED'}: mean mask IoU"
        f" {found.mean_iou:.5f} (gate {found.gate_mean_iou:g}), smallest {found.min_iou:.5f},"
        f" {found.masks} masks, {found.frames} frames"
    )


def asked_reasoner(kind: str) -> SceneCheck:
    """Build a reasoner in this process and ask it about drawn scenes; told as it answers.

    Raises:
        ConfigError: no such reasoner, or it cannot be built.
    """
    print(f"\nasking {kind} about drawn scenes")
    found = check_reasoner(build_reasoner(ReasonerSpec(kind=kind)), report=print)
    print(found.caution or f"reasoner passed: IoU at least {found.worst_iou:.2f}")
    return found
