# SPDX-License-Identifier: Apache-2.0
"""Three ways to track one clip with one set of weights, each in a process of its own.

foreseg on its engines; `transformers`' Sam2VideoModel streaming; the `sam2` package's video
predictor, fed one frame at a time. Each step takes an RGB frame and gives masks at source size.
Knows nothing of what is compared, nor in which order.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import numpy as np

from foreseg.commands.bundle_bench import (
    SIZE_WH,
    drawn_frame,
    drawn_prompts,
    peak_memory_bytes,
    timed,
)
from foreseg.engines.load import load_bundle
from foreseg.engines.manifest import Sam2Geometry
from foreseg.frames import Frame
from foreseg.masks import Mask, MaskRle, mask_from_rle
from foreseg.tracker.base import TrackKey
from foreseg.tracker.postprocess import logits_at_source
from foreseg.tracker.preprocess import import_cv2, pixels_from_image, points_from_prompt
from foreseg.tracker.sam2 import Sam2Tracker

NAMES = ("foreseg", "transformers", "sam2")  # all in float32
LOWER = " bf16"  # of a peer's name: in torch's autocast to bfloat16
BEST = "foreseg best"  # on what `foreseg-export build --target x86` chose
_ENDLESS = 1_000_000  # frames that the stream says it has


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The weights, twice: as a checkpoint and as the bundle that was made of it."""

    checkpoint: Path
    bundle: str
    threads: int
    built: str = ""  # the bundle with engines that were chosen for this processor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One frame of one contender."""

    whole_ms: float  # RGB frame to masks at source size
    inside_ms: float  # what the engines or the network took of it
    masks: np.ndarray  # (N, H, W / 8) bool, packed


class Contender(Protocol):
    """A tracker, prompted on frame 0."""

    def start(self, objects: int) -> None:
        """Forget everything, and prompt so many objects with boxes on frame 0."""

    def step(self, frame: Frame) -> tuple[float, Sequence[Mask | MaskRle]]:
        """Track the next frame: what the network took of it in ms, and the masks."""


class Foreseg:
    """Our tracker on a bundle; boxes, run-length code and label map are made besides."""

    def __init__(self, job: Job, *, best: bool = False) -> None:
        bundle = job.built if best else job.bundle
        backend = "openvino" if best else "cpu"
        opened = load_bundle(bundle, backend=backend, threads=job.threads)
        self._bundle, self._engines = timed(opened)

    def start(self, objects: int) -> None:
        """See `Contender`."""
        self._tracker = Sam2Tracker(self._bundle, max_objects=objects)
        self._keys = [TrackKey(str(i)) for i in range(objects)]
        for key, prompt in zip(self._keys, drawn_prompts(objects), strict=True):
            self._tracker.prompt(drawn_frame(0), key, prompt)
        self._taken_ms()

    def step(self, frame: Frame) -> tuple[float, Sequence[MaskRle]]:
        """See `Contender`."""
        result = self._tracker.track(frame, self._keys)
        return self._taken_ms(), [tracked.mask for tracked in result.objects]

    def _taken_ms(self) -> float:
        return sum(engine.taken_ms() for engine in self._engines)


class Transformers:
    """`transformers`' streaming."""

    def __init__(self, job: Job) -> None:
        self._model, self._geometry = _opened(job)

    def start(self, objects: int) -> None:
        """See `Contender`."""
        from foreseg_torch.tracker.sam2_reference import Sam2Reference

        self._reference = Sam2Reference(self._model)
        for i, prompt in enumerate(drawn_prompts(objects)):
            points = points_from_prompt(prompt, SIZE_WH, self._geometry.image_size)
            self._reference.prompt_points(i, points.coords, points.labels)
        self.step(drawn_frame(0))

    def step(self, frame: Frame) -> tuple[float, Sequence[Mask]]:
        """See `Contender`."""
        pixels = pixels_from_image(frame.image, self._geometry)
        start = time.perf_counter_ns()
        logits, _ = self._reference.step(pixels)
        taken_ms = (time.perf_counter_ns() - start) / 1e6
        return taken_ms, [logits_at_source(one, SIZE_WH) > 0 for one in logits]


class Sam2Package:
    """The `sam2` package's predictor; it enlarges masks to source size itself."""

    def __init__(self, job: Job) -> None:
        from sam2_predictor import predictor_from_model

        model, self._geometry = _opened(job)
        self._predictor = predictor_from_model(model)

    def start(self, objects: int) -> None:
        """See `Contender`."""
        import torch
        from sam2 import sam2_video_predictor

        self._feed = _Feed(self._tensor(drawn_frame(0)))
        loader = mock.patch.object(
            sam2_video_predictor,
            "load_video_frames",
            return_value=(self._feed, SIZE_WH[1], SIZE_WH[0]),
        )
        with loader:  # it reads folders of JPEGs and films: here the frames are handed in
            state = self._predictor.init_state("")
        for i, prompt in enumerate(drawn_prompts(objects)):
            box = torch.tensor(prompt.box, dtype=torch.float32)
            self._predictor.add_new_points_or_box(state, frame_idx=0, obj_id=i, box=box)
        self._stream = self._predictor.propagate_in_video(state)
        next(self._stream)

    def step(self, frame: Frame) -> tuple[float, Sequence[Mask]]:
        """See `Contender`."""
        self._feed.newest = self._tensor(frame)
        start = time.perf_counter_ns()
        _, _, logits = next(self._stream)
        taken_ms = (time.perf_counter_ns() - start) / 1e6
        return taken_ms, list((logits[:, 0] > 0).numpy())

    def _tensor(self, frame: Frame) -> Any:  # noqa: ANN401 (torch only where it is needed)
        import torch

        return torch.from_numpy(pixels_from_image(frame.image, self._geometry))[0]


class _Feed:
    """A film of which only the newest frame is there."""

    def __init__(self, newest: Any) -> None:  # noqa: ANN401
        self.newest = newest

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        return self.newest


_CONTENDERS = {
    "foreseg": Foreseg,
    BEST: partial(Foreseg, best=True),
    "transformers": Transformers,
    "sam2": Sam2Package,
}


def is_installed(name: str) -> bool:
    """True if the package of a contender is there."""
    name = name.removesuffix(LOWER)
    return name in {"foreseg", BEST} or importlib.util.find_spec(name) is not None


def serve(pipe: Connection, name: str, job: Job) -> None:
    """Be one contender: ("start", objects), (index, count) for frames, None to end."""
    os.environ["TQDM_DISABLE"] = "1"  # the predictor draws a bar of its own
    import_cv2().setNumThreads(job.threads)
    contender: Contender = _CONTENDERS[name.removesuffix(LOWER)](job)
    pipe.send(None)
    with _in_bfloat16() if name.endswith(LOWER) else nullcontext():
        while (order := pipe.recv()) is not None:
            if order[0] == "start":
                contender.start(order[1])
                pipe.send(None)
            else:
                index, count = order
                steps = [_timed_step(contender, drawn_frame(index + i)) for i in range(count)]
                pipe.send((steps, peak_memory_bytes()))


def _in_bfloat16() -> AbstractContextManager[Any]:
    import torch

    return torch.autocast("cpu", dtype=torch.bfloat16)


def _timed_step(contender: Contender, frame: Frame) -> Step:
    start = time.perf_counter_ns()
    inside_ms, masks = contender.step(frame)
    whole_ms = (time.perf_counter_ns() - start) / 1e6
    arrays = [mask_from_rle(mask) if isinstance(mask, MaskRle) else mask for mask in masks]
    return Step(
        whole_ms=whole_ms, inside_ms=inside_ms, masks=np.packbits(np.stack(arrays), axis=-1)
    )


def _opened(job: Job) -> tuple[Any, Sam2Geometry]:
    import torch

    from foreseg_export.checkpoints import open_checkpoint
    from foreseg_export.sam2 import geometry_of

    torch.set_num_threads(job.threads)
    checkpoint = open_checkpoint(job.checkpoint)
    return checkpoint.model, geometry_of(checkpoint)
