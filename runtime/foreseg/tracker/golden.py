# SPDX-License-Identifier: Apache-2.0
"""Golden data: real inputs and the reference's outputs, by which a device checks its engines.

A bundle carries one step's inputs and outputs of each piece, and the reference's masks of the
drawn clip, so that nothing but numpy is needed. Does not know what the reference was.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.base import Array, Engine, Tensor, TensorSpec, on_host
from foreseg.engines.load import Bundle
from foreseg.engines.manifest import OutputParity
from foreseg.errors import EngineError
from foreseg.masks import Mask, MaskRle, mask_from_rle, mask_iou
from foreseg.tracker.base import TrackKey
from foreseg.tracker.drawn_clip import Clip
from foreseg.tracker.sam2 import Sam2Tracker

F32 = NDArray[np.float32]
MaskRows = tuple[tuple[MaskRle, ...], ...]  # frames of objects

GOLDEN_FILE = "golden.npz"
MIN_AREA_PX = 400  # of a reference's mask, for its overlap to count


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoldenStep:
    """One step of one piece: what went in, and what the reference made of it."""

    piece: str
    inputs: Mapping[str, Array]  # floats are exact in float16
    outputs: Mapping[str, F32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoldenData:
    """The content of a bundle's golden file."""

    steps: tuple[GoldenStep, ...]
    masks: MaskRows  # the reference's, of the drawn clip
    clip_sha256: str  # of the clip's pixels


class RecordingEngine:
    """An engine that keeps a copy of the inputs of its newest run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.provider = engine.name, engine.provider
        self.inputs: tuple[TensorSpec, ...] = engine.inputs
        self.outputs: tuple[TensorSpec, ...] = engine.outputs
        self.newest: dict[str, Array] = {}

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run, and keep the inputs."""
        self.newest = {name: on_host(value).copy() for name, value in inputs.items()}
        return self._engine.run(inputs, keep=keep)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackedClip:
    """What a bundle made of a clip."""

    logits: F32  # (T, N, m, m)
    masks: MaskRows


def track_clip(
    bundle: Bundle, clip: Clip, on_frame: Callable[[], object] = lambda: None
) -> TrackedClip:
    """Prompt every object on the first frame and track all to the last one."""
    tracker = Sam2Tracker(bundle, max_objects=len(clip.prompts))
    keys = [TrackKey(str(i)) for i in range(len(clip.prompts))]
    logits, masks = [], []
    for index in range(len(clip.frames)):
        frame = clip.frame(index)
        if index == 0:
            for key, prompt in zip(keys, clip.prompts, strict=True):
                tracker.prompt(frame, key, prompt)
        result = tracker.track(frame, keys)
        logits.append(np.stack([tracker.logits_of(key) for key in keys]))
        masks.append(tuple(tracked.mask for tracked in result.objects))
        on_frame()
    return TrackedClip(logits=np.stack(logits), masks=tuple(masks))


def overlaps(got: MaskRows, wanted: MaskRows) -> list[tuple[int, int, float]]:
    """(frame, object, IoU) of the masks that the reference has large enough."""
    found = []
    for t, (row, wanted_row) in enumerate(zip(got, wanted, strict=True)):
        for i, (mask, reference) in enumerate(zip(row, wanted_row, strict=True)):
            truth: Mask = mask_from_rle(reference)
            if np.count_nonzero(truth) >= MIN_AREA_PX:
                found.append((t, i, mask_iou(mask_from_rle(mask), truth)))
    return found


def check_step(
    engine: Engine, step: GoldenStep, *, max_rows: int | None = None
) -> tuple[OutputParity, ...]:
    """Run one golden step and measure every output.

    Args:
        engine: to be checked.
        step: of its piece.
        max_rows: that the engine takes in one launch; the step's others are left out.

    Raises:
        EngineError: the engine takes or gives other tensors.
    """
    step = _first_rows(engine, step, max_rows)
    got = engine.run(step.inputs)
    if got.keys() != step.outputs.keys():
        msg = f"engine {engine.name!r} gives {sorted(got)}, the golden data {sorted(step.outputs)}"
        raise EngineError(msg)
    return tuple(
        _parity(name, on_host(got[name]), wanted) for name, wanted in step.outputs.items()
    )


def _first_rows(engine: Engine, step: GoldenStep, count: int | None) -> GoldenStep:
    by_row = {spec.name for spec in (*engine.inputs, *engine.outputs) if spec.shape[:1] == ("B",)}
    return replace(
        step,
        inputs={n: v[:count] if n in by_row else v for n, v in step.inputs.items()},
        outputs={n: v[:count] if n in by_row else v for n, v in step.outputs.items()},
    )


def _parity(name: str, got: Array, wanted: F32) -> OutputParity:
    if got.shape != wanted.shape:
        msg = f"output {name!r} has shape {got.shape}, the golden data {wanted.shape}"
        raise EngineError(msg)
    difference = got.astype(np.float64) - wanted
    return OutputParity(
        name=name,
        max_abs=float(np.abs(difference).max()),
        rms=root_mean_square(difference),
        reference_rms=root_mean_square(wanted),
    )


def root_mean_square(values: NDArray[np.float32] | NDArray[np.float64]) -> float:
    """Of all elements, summed in float64."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def rounded(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs whose floats a float16 holds exactly."""
    return {
        name: value.astype(np.float16).astype(np.float32) if value.dtype == np.float32 else value
        for name, value in inputs.items()
    }


def golden_bytes(golden: GoldenData) -> bytes:
    """The content of a golden file, a compressed npz; the same data gives the same bytes."""
    first = golden.masks[0][0]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "clip_sha256", np.asarray(golden.clip_sha256))
        _add(archive, "size_wh", np.asarray((first.width, first.height), np.int32))
        counts = [[mask.counts for mask in row] for row in golden.masks]
        _add(archive, "masks", np.asarray(counts))
        for step in golden.steps:
            for name, value in step.inputs.items():
                is_float = value.dtype == np.float32
                stored = value.astype(np.float16) if is_float else value
                _add(archive, f"{step.piece}/in/{name}", stored)
            for name, output in step.outputs.items():
                _add(archive, f"{step.piece}/out/{name}", output)
    return file.getvalue()


def _add(archive: zipfile.ZipFile, name: str, value: Array | NDArray[np.str_]) -> None:
    with archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array(member, value, allow_pickle=False)


def golden_from_bytes(content: bytes, where: str) -> GoldenData:
    """Read a golden file.

    Raises:
        EngineError: it is damaged.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        w, h = (int(v) for v in arrays["size_wh"])
        rows = arrays["masks"].tolist()
        clip_sha256 = str(arrays["clip_sha256"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        msg = f"{where} holds no golden data: {error}"
        raise EngineError(msg) from error
    pieces = dict.fromkeys(name.split("/")[0] for name in arrays if "/" in name)
    return GoldenData(
        steps=tuple(
            GoldenStep(
                piece=piece,
                inputs={
                    name: value.astype(np.float32) if value.dtype == np.float16 else value
                    for name, value in _under(arrays, f"{piece}/in/").items()
                },
                outputs={
                    name: value.astype(np.float32)
                    for name, value in _under(arrays, f"{piece}/out/").items()
                },
            )
            for piece in pieces
        ),
        masks=tuple(
            tuple(MaskRle(height=h, width=w, counts=str(counts)) for counts in row) for row in rows
        ),
        clip_sha256=clip_sha256,
    )


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {
        name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)
    }
