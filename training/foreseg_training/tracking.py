# SPDX-License-Identifier: Apache-2.0
"""Boxes of one frame tracked through the shown frames of a video, in worker processes.

The tracker is the robot's, frozen: an engine bundle, by default the shipped nano one on ONNX Runtime.
Frames go to the workers by reference: a worker reads them where the dataset has them. Does not know:
questions, truths, rewards, torch.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from foreseg.config import TrackerConfig
from foreseg.engines.load import load_configured
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.both_ways import track_prompts
from foreseg.tracker.views import tracker_factory
from foreseg.work.ray_cluster import RayExecutor
from foreseg_evaluation.datasets.media import EpisodeMedia
from foreseg_evaluation.episode import Episode
from foreseg_training.executor_pool import ExecutorPool
from foreseg_training.samples import unfit
from foreseg_training.worker_pool import WorkerPool

MIN_ROWS = 8  # of a tracker: most answers have fewer boxes, and it is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackTask:
    """Boxes on one of the shown frames.

    Attributes:
        video: name, as the dataset has it.
        positions: of the shown frames, in order.
        size_wh: (W, H) of a frame.
        keyframe: place in `positions` of the frame that the boxes are on.
        boxes: source pixels, inside the frame.
        prompts: instead of boxes, where there are some.
    """

    video: str
    positions: tuple[int, ...]
    size_wh: tuple[int, int]
    keyframe: int
    boxes: tuple[BoxXyxy, ...]
    prompts: tuple[SpatialPrompt, ...] = ()


Tracked = tuple[MaskRle, ...]  # a mask for each shown frame: the union of the objects


class _Pictures(Protocol):
    def image(self, position: int) -> U8Array: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFile:
    """Where the frames of some videos are, in one file of this run: read one video at a time.

    Attributes:
        path: of the file, written by `write_videos` and by nobody else.
        places: (offset, size) in it by video, bytes.
    """

    path: Path
    places: Mapping[str, tuple[int, int]]

    def read(self, video: str) -> _Pictures:
        """What reads a video's frames.

        Raises:
            InputError: the file does not have it, or is gone.
        """
        if video not in self.places:
            msg = f"{self.path} has no video {video!r}"
            raise InputError(msg)
        offset, size = self.places[video]
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                found: _Pictures = pickle.loads(file.read(size))  # noqa: S301 (this run wrote it)
        except (OSError, pickle.UnpicklingError, EOFError) as error:
            msg = f"{self.path} cannot be read for the video {video!r}: {error}"
            raise InputError(msg) from error
        return found


def write_videos(path: Path, episodes: Iterable[Episode]) -> VideoFile:
    """Note where the frames of episodes are, of those that samples are drawn of.

    No pixel is read, and no mask kept.
    """
    places: dict[str, tuple[int, int]] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(f".{os.getpid()}.partial")
    with partial_path.open("wb") as file:
        for episode in episodes:
            if episode.video not in places and not unfit(episode):
                media = episode.media
                frames = media.frames if isinstance(media, EpisodeMedia) else media
                size = file.write(pickle.dumps(frames))
                places[episode.video] = (file.tell() - size, size)
    partial_path.replace(path)
    return VideoFile(path=path, places=places)


class ShownTracker:
    """Does tasks in a worker: keeps an open bundle, and the frames that it was asked about last.

    Args:
        videos: where frames are.
        config: bundle and back-end.

    Raises:
        ConfigError, EngineError, MissingExtraError: the bundle cannot be opened.
    """

    def __init__(self, videos: VideoFile, config: TrackerConfig) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._videos = videos
        self._bundle = load_configured(config)
        self._make = tracker_factory(self._bundle, config.view)
        self._tracker = self._make(MIN_ROWS)
        self._shown: tuple[str, tuple[int, ...]] | None = None
        self._frames: tuple[Frame, ...] = ()
        self._epoch = 0

    def __call__(self, task: TrackTask) -> Tracked:
        """Track.

        Raises:
            ForesegError: an unreadable frame, or a box that does not fit it.
        """
        if self._shown != (task.video, task.positions):
            self._frames = self._read(task)
            self._shown = (task.video, task.positions)
        prompts = task.prompts or tuple(SpatialPrompt(box=box) for box in task.boxes)
        if len(prompts) > self._tracker.max_objects:
            self._tracker = self._make(len(prompts))
        return track_prompts(self._tracker, self._frames, prompts, task.keyframe)

    def _read(self, task: TrackTask) -> tuple[Frame, ...]:
        pictures = self._videos.read(task.video)
        self._epoch += 1  # frames of two videos are never one to the tracker's cache
        return tuple(
            Frame(ref=self._ref(position, task), image=pictures.image(position))
            for position in task.positions
        )

    def _ref(self, position: int, task: TrackTask) -> FrameRef:
        return FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(position),
            epoch=self._epoch,
            stamp_ns=position,
            received_ns=position,
            size_wh=task.size_wh,
        )


class Tracking(Protocol):
    """Tracks many tasks; a `WorkerPool`, an `ExecutorPool`, or `TrackingHere`."""

    def run(self, tasks: Sequence[TrackTask]) -> Sequence[Tracked | None]:
        """Masks for each task, in their order; None for one that was given up."""


class TrackingHere:
    """Tracks in this process, for a look at a few completions."""

    def __init__(self, videos: VideoFile, config: TrackerConfig) -> None:
        self._work = ShownTracker(videos, config)

    def run(self, tasks: Sequence[TrackTask]) -> Sequence[Tracked | None]:
        """One after the other."""
        return [self._work(task) for task in tasks]


AnyPool = WorkerPool[TrackTask, Tracked] | ExecutorPool[TrackTask, Tracked]


def tracking_pool(
    videos: VideoFile, config: TrackerConfig, *, num_workers: int, task_timeout_s: float
) -> WorkerPool[TrackTask, Tracked]:
    """A pool of trackers; not started yet."""
    return WorkerPool(
        partial(ShownTracker, videos, config),
        num_workers=num_workers,
        task_timeout_s=task_timeout_s,
    )


def ray_tracking_pool(
    videos: VideoFile, config: TrackerConfig, *, address: str, task_timeout_s: float
) -> ExecutorPool[TrackTask, Tracked]:
    """The same on a Ray cluster, whose machines have the videos and the tracker at the same paths."""
    make = partial(ShownTracker, videos, config)
    return ExecutorPool(make, RayExecutor(address), task_timeout_s=task_timeout_s)
