# SPDX-License-Identifier: Apache-2.0
"""All that touches pixels on the pipeline's behalf: histories, trackers, windows, label maps.

Has no thread and no clock. `worker` drives it with threads, `player` on a simulated clock. Only
`run_job` may be called from another thread than the rest; it works on frames held for the job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from foreseg.config import Config
from foreseg.dialogue import Answer, Query
from foreseg.driving.label_origins import LabelOrigins
from foreseg.errors import ForesegError, InputError
from foreseg.frames import CameraId, Frame, FrameIndex, FrameRef, FrameWindow, U8Array
from foreseg.history.ring import History
from foreseg.history.windows import WindowPolicy
from foreseg.masks import mask_from_rle
from foreseg.pipeline.events import (
    AskId,
    DropStep,
    ForkStep,
    FrameArrived,
    FrameDropped,
    JobId,
    PromoteStep,
    PromptStep,
    PublishMasks,
    SceneChange,
    SceneMeasured,
    StepResult,
    TrackerJob,
    TrackStep,
    WindowTaken,
)
from foreseg.pipeline.scenes import SceneMemory
from foreseg.pipeline.state import StandingQuery
from foreseg.pipeline.step import admit
from foreseg.pipeline.tracks import Track
from foreseg.telemetry import DropCause
from foreseg.tracker.base import FrameMasks, LabelMap, Tracker, TrackKey

_log = logging.getLogger(__name__)

SCENE_PERIOD_NS = 500_000_000  # between two looks at how much a scene has changed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedMasks:
    """One frame's masks as subscribers get them."""

    frame: FrameRef
    image: U8Array | None  # the source frame, valid during the call only; None if evicted
    label_map: LabelMap  # (H, W): 0 background, k = Track.index
    tracks: tuple[Track, ...]


class Output(Protocol):
    """Where published things go; called from the thread that drives the pipeline."""

    def publish_masks(self, masks: PublishedMasks) -> None:
        """A frame's label map and tracks."""

    def publish_answer(self, answer: Answer) -> None:
        """An answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedJob:
    """A tracker job with the frames it needs, held until `finish_job`."""

    job: TrackerJob
    frames: dict[FrameIndex, Frame]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JobOutput:
    """What a job gave: array-free results for the pipeline, and the last step's label map."""

    job_id: JobId
    results: tuple[StepResult, ...]
    masks: FrameMasks | None


class FrameEvictedError(ForesegError):
    """A job needs a frame that the history has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """What an asking may see, and how it is labelled."""

    camera: CameraId
    oldest: FrameIndex  # frame; what lies before is of another stream, or came since
    origin: FrameIndex  # of label 0


class Executor:
    """Histories and trackers of all cameras."""

    def __init__(
        self,
        config: Config,
        cameras: Sequence[CameraId],
        make_tracker: Callable[[int], Tracker],
    ) -> None:
        """Make one history and one tracker a camera.

        Args:
            config: sizes.
            cameras: names.
            make_tracker: given the number of rows, a tracker of its own for each camera.
        """
        rows = config.tracker.max_rows
        settings = config.history
        self._label_type = (
            np.uint8 if config.tracker.max_tracks <= np.iinfo(np.uint8).max else np.uint16
        )
        self._trackers = {camera: make_tracker(rows) for camera in cameras}
        self._histories = {
            camera: History(
                camera=camera,
                max_bytes=settings.max_bytes,
                max_frames=settings.max_frames,
                sparse_hz=settings.sparse_hz,
                sparse_frames=settings.sparse_frames,
                sparse_max_side_px=settings.sparse_max_side_px,
                max_held_frames=settings.max_held_frames,
            )
            for camera in cameras
        }
        self._scenes = {camera: SceneMemory() for camera in cameras}
        self._measured_ns: dict[CameraId, int] = {}
        self._label_origins = LabelOrigins()
        self._askings: dict[AskId, _Asking] = {}
        self._output: JobOutput | None = None

    @property
    def histories(self) -> dict[CameraId, History]:
        """By camera; for reading."""
        return self._histories

    def push(
        self, camera: CameraId, image: U8Array, *, stamp_ns: int, at_ns: int, frame_id: str = ""
    ) -> FrameArrived | FrameDropped:
        """Copy a frame into its history, or refuse its stamp or its form."""
        history = self._histories[camera]
        newest = history.newest
        cause = admit(None if newest is None else newest.ref, stamp_ns)
        if cause is not None:
            return FrameDropped(camera=camera, cause=cause, at_ns=at_ns)
        try:
            frame = history.push(image, stamp_ns=stamp_ns, received_ns=at_ns, frame_id=frame_id)
        except InputError as error:
            _log.warning("a frame of camera %s was refused: %s", camera, error)
            return FrameDropped(camera=camera, cause=DropCause.BAD_IMAGE, at_ns=at_ns)
        oldest = history.oldest_index
        return FrameArrived(
            frame=frame.ref, oldest_index=frame.index if oldest is None else oldest, at_ns=at_ns
        )

    def measure_scene(
        self, event: FrameArrived, queries: Sequence[StandingQuery]
    ) -> SceneMeasured | None:
        """Compare a frame that just came with those last asked about; None if it is not due.

        Once in `SCENE_PERIOD_NS` of stamps, and only for queries that are asked again.
        """
        camera, stamp_ns = event.frame.camera, event.frame.stamp_ns
        since_ns = stamp_ns - self._measured_ns.get(camera, -SCENE_PERIOD_NS)
        newest = self._histories[camera].newest
        if newest is None or 0 <= since_ns < SCENE_PERIOD_NS:
            return None
        self._measured_ns[camera] = stamp_ns
        standing = {e.query.id for e in queries if e.query.period_s and e.query.camera == camera}
        shares = self._scenes[camera].changes(newest.image, standing)
        changes = tuple(SceneChange(query_id=i, share=share) for i, share in shares.items())
        return (
            SceneMeasured(camera=camera, changes=changes, at_ns=event.at_ns) if changes else None
        )

    def take_window(self, ask_id: AskId, query: Query, policy: WindowPolicy) -> FrameWindow:
        """Pick and hold the frames of a first round, all of the present stream; may be empty."""
        camera = query.camera
        newest = self._histories[camera].newest
        if query.period_s and newest is not None:
            self._scenes[camera].remember(query.id, newest.image)
        view = self._histories[camera].view().since_restart()
        timeline = view.timeline
        oldest = timeline[0].index if timeline else FrameIndex(0)
        last = timeline[-1].index if timeline else oldest
        origin = self._label_origins.origin(camera, query.id, oldest, last)
        self._askings[ask_id] = _Asking(camera=camera, oldest=oldest, origin=origin)
        return self._hold(ask_id, policy.select(view))

    def more_frames(self, ask_id: AskId, indices: Sequence[FrameIndex]) -> FrameWindow:
        """Hold the frames that a later round wants; for one that is gone, the nearest there is.

        Each comes with its own true index. What lies before the first window is not given.
        """
        asking = self._askings[ask_id]
        history, oldest = self._histories[asking.camera], asking.oldest
        at_hand = {history.nearest(index, oldest) for index in indices if index >= oldest}
        return self._hold(ask_id, sorted(index for index in at_hand if index is not None))

    def window_taken(self, ask_id: AskId, window: FrameWindow, at_ns: int) -> WindowTaken:
        """The event that tells the pipeline of held frames."""
        frames = tuple(frame.ref for frame in window.frames)
        return WindowTaken(ask_id=ask_id, frames=frames, at_ns=at_ns)

    def release_window(self, ask_id: AskId) -> None:
        """Let go what an asking holds."""
        held = self._askings.pop(ask_id, None)
        if held is not None:
            self._histories[held.camera].release(f"ask-{ask_id}")

    def label_origin(self, ask_id: AskId) -> FrameIndex:
        """From where the labels of an asking count, whose window is held."""
        return self._askings[ask_id].origin

    def newest_frame(self, camera: CameraId) -> FrameRef:
        """The newest frame.

        Raises:
            InputError: unknown camera, or no frame yet.
        """
        if camera not in self._histories:
            msg = f"no camera {camera!r}; cameras are {', '.join(sorted(self._histories))}"
            raise InputError(msg)
        newest = self._histories[camera].newest
        if newest is None:
            msg = f"no frame of camera {camera!r} has come yet"
            raise InputError(msg)
        return newest.ref

    def copy_frame(self, camera: CameraId, index: FrameIndex) -> Frame | None:
        """A frame with pixels of its own, reduced if only a reduced one is left; None: evicted."""
        history = self._histories.get(camera)
        frame = None if history is None else history.get(index)
        return None if frame is None else replace(frame, image=frame.image.copy())

    def find_frame(self, camera: CameraId, stamp_ns: int) -> FrameRef | None:
        """The dense frame with exactly this sensor stamp."""
        if camera not in self._histories:
            return None
        dense = self._histories[camera].view().dense
        return next((ref for ref in reversed(dense) if ref.stamp_ns == stamp_ns), None)

    def prepare_job(self, job: TrackerJob) -> PreparedJob:
        """Hold the frames of a job; copy those that the askings leave no room to hold.

        Raises:
            FrameEvictedError: if one is gone.
        """
        wanted = {s.frame_index for s in job.steps if isinstance(s, (PromptStep, TrackStep))}
        history = self._histories[job.camera]
        frames = {frame.index: frame for frame in history.hold(f"job-{job.id}", sorted(wanted))}
        for index in sorted(wanted - set(frames)):
            frame = history.get(index)
            if frame is None:
                history.release(f"job-{job.id}")
                msg = f"frame {index} has left the history"
                raise FrameEvictedError(msg)
            frames[index] = replace(frame, image=frame.image.copy())
        return PreparedJob(job=job, frames=frames)

    def run_job(self, prepared: PreparedJob) -> JobOutput:
        """Run a job's steps in order; the only method for the tracker's thread.

        Raises:
            ForesegError: if a prompt or row is refused; the steps before it have been done.
        """
        tracker = self._trackers[prepared.job.camera]
        results: list[StepResult] = []
        masks: FrameMasks | None = None
        for item in prepared.job.steps:
            if isinstance(item, TrackStep):
                masks = tracker.track(prepared.frames[item.frame_index], item.keys)
                results.append(StepResult(frame_index=item.frame_index, objects=masks.objects))
            elif isinstance(item, PromptStep):
                tracker.prompt(prepared.frames[item.frame_index], item.key, item.prompt)
            elif isinstance(item, ForkStep):
                tracker.fork(item.source, item.target)
            elif isinstance(item, PromoteStep):
                tracker.promote(item.source, item.target)
            elif isinstance(item, DropStep):
                tracker.drop(item.key)
        return JobOutput(job_id=prepared.job.id, results=tuple(results), masks=masks)

    def finish_job(self, prepared: PreparedJob, output: JobOutput | None) -> None:
        """Let a job's frames go and keep its label map for publishing."""
        self._histories[prepared.job.camera].release(f"job-{prepared.job.id}")
        if output is not None:
            self._output = output

    def render(self, command: PublishMasks) -> PublishedMasks:
        """The label map of a publish command: rows become `Track.index`."""
        frame = self._histories[command.frame.camera].get(command.frame.index)
        width, height = command.frame.size_wh
        output = self._output
        if command.job_id is None or output is None or output.job_id != command.job_id:
            label_map: LabelMap = np.zeros((height, width), dtype=self._label_type)
            _paint_held(label_map, command.tracks)
        else:
            assert output.masks is not None  # noqa: S101 (a job that publishes ends in a track step)
            labels = {track.key: track.index for track in command.tracks}
            label_map = _label_map(output.masks, labels, self._label_type)
        is_full = frame is not None and frame.image.shape[:2] == (height, width)
        return PublishedMasks(
            frame=command.frame,
            image=frame.image if frame is not None and is_full else None,
            label_map=label_map,
            tracks=command.tracks,
        )

    def _hold(self, ask_id: AskId, indices: Sequence[FrameIndex]) -> FrameWindow:
        asking = self._askings[ask_id]
        wanted = [index for index in indices if index >= asking.oldest]
        frames = self._histories[asking.camera].hold(f"ask-{ask_id}", wanted)
        return FrameWindow(frames=frames, origin_index=asking.origin)


def _paint_held(label_map: LabelMap, tracks: Sequence[Track]) -> None:
    """Paint the tracks' last masks; the surer one on top."""
    for track in sorted(tracks, key=lambda track: track.score):
        if track.mask is not None and (track.mask.height, track.mask.width) == label_map.shape:
            label_map[mask_from_rle(track.mask)] = track.index


def _label_map(
    masks: FrameMasks, labels: Mapping[TrackKey, int], label_type: type[np.uint8 | np.uint16]
) -> LabelMap:
    """Rows become labels; where an unpublished row lies on top, what is below it shows."""
    rows = masks.objects
    table = np.array([0, *(labels.get(row.key, 0) for row in rows)], label_type)
    if masks.label_map.dtype == label_type and np.array_equal(table, np.arange(table.size)):
        return masks.label_map  # each row has its own number for a label
    label_map: LabelMap = np.take(table, masks.label_map)
    hidden = [i + 1 for i, row in enumerate(rows) if row.key not in labels]
    if hidden:
        below = np.isin(masks.label_map, hidden)
        for row in sorted(rows, key=lambda row: row.score):
            if row.key in labels:
                label_map[below & mask_from_rle(row.mask)] = labels[row.key]
    return label_map
