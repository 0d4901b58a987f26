# SPDX-License-Identifier: Apache-2.0
"""What the pipeline is told (events) and what it wants done (commands); array-free records.

Every event carries the monotonic time `at_ns` at which its sender posted it, so the pipeline
needs no clock, and a recorded trace replays to the same commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from foreseg.dialogue import Answer, AnswerPart, Query, QueryId
from foreseg.frames import CameraId, FrameIndex, FrameRef
from foreseg.pipeline.degradation import MachineReadings
from foreseg.pipeline.tracks import Track
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.telemetry import DropCause
from foreseg.tracker.base import TrackedObject, TrackKey

JobId = NewType("JobId", int)
AskId = NewType("AskId", int)
RequestId = NewType("RequestId", int)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditioningPrompt:
    """A prompt for one of the same objects on another frame than the keyframe."""

    object_id: ObjectId
    frame_index: FrameIndex
    prompt: SpatialPrompt  # source pixels of that frame


# ---- steps of a tracker job, run in order ----


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStep:
    """Prompt a row on a frame."""

    frame_index: FrameIndex
    key: TrackKey
    prompt: SpatialPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackStep:
    """Advance rows to a frame."""

    frame_index: FrameIndex
    keys: tuple[TrackKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkStep:
    """Copy a row."""

    source: TrackKey
    target: TrackKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteStep:
    """Let a row take the place of another."""

    source: TrackKey
    target: TrackKey


@dataclass(frozen=True, slots=True, kw_only=True)
class DropStep:
    """Forget a row."""

    key: TrackKey


JobStep = PromptStep | TrackStep | ForkStep | PromoteStep | DropStep


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerJob:
    """What the tracker does next; one job at a time over all cameras."""

    id: JobId
    camera: CameraId
    steps: tuple[JobStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a `TrackStep` gave."""

    frame_index: FrameIndex
    objects: tuple[TrackedObject, ...]


# ---- events ----


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameArrived:
    """A frame is in the history; `oldest_index` is the oldest that the dense ring still has."""

    frame: FrameRef
    oldest_index: FrameIndex
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDropped:
    """A frame was refused before it got an index."""

    camera: CameraId
    cause: DropCause
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerFinished:
    """A job is done; `results` has one entry for each of its track steps, in order."""

    job_id: JobId
    results: tuple[StepResult, ...]
    elapsed_ns: int
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerFailed:
    """A job broke off; rows that it had begun are to be thought of as gone."""

    job_id: JobId
    reason: str
    is_evicted: bool  # a frame of the job had left the history
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAdded:
    """A user asks; `timeout_s` 0 = no deadline of the user's.

    With `wants_answer` the reply comes with the first answer, else as soon as the query is
    accepted or refused.
    """

    query: Query
    request_id: RequestId
    wants_answer: bool = False
    timeout_s: float = 0.0
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRemoved:
    """A user no longer wants an answer."""

    query_id: QueryId
    request_id: RequestId
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectsAdded:
    """A user points at objects on a frame; None = the newest. A known id is refined."""

    camera: CameraId
    frame_index: FrameIndex | None
    frame_stamp_ns: int = 0  # of that frame; unused for the newest
    object_ids: tuple[ObjectId, ...]  # "" = make one
    prompts: tuple[SpatialPrompt, ...]
    beside: tuple[ConditioningPrompt, ...] = ()  # of the objects that are named, on other frames
    request_id: RequestId
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRemoved:
    """A user drops an object."""

    object_id: ObjectId
    request_id: RequestId
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetRequested:
    """Forget all tracks; standing queries stay and are asked anew."""

    request_id: RequestId
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableSet:
    """Go on or pause: a paused pipeline drops frames and asks nothing."""

    enabled: bool
    request_id: RequestId
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTaken:
    """The frames that were picked for an asking (or wanted in a later round) and are now held."""

    ask_id: AskId
    frames: tuple[FrameRef, ...]
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneChange:
    """How much of the picture has changed since a query was last asked."""

    query_id: QueryId
    share: float  # 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneMeasured:
    """The newest frame was compared with those that standing queries were last asked about."""

    camera: CameraId
    changes: tuple[SceneChange, ...]
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPartArrived:
    """The reasoner said something."""

    ask_id: AskId
    part: AnswerPart
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonerChanged:
    """The reasoner process came up, or is down for a reason."""

    is_up: bool
    reason: str
    at_ns: int
    caution: str = ""  # of one that is up: what its user should know of its answers


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRead:
    """How the machine is."""

    readings: MachineReadings
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed."""

    at_ns: int


Request = QueryAdded | QueryRemoved | ObjectsAdded | ObjectRemoved | ResetRequested | EnableSet
Event = (
    Request
    | FrameArrived
    | FrameDropped
    | TrackerFinished
    | TrackerFailed
    | WindowTaken
    | SceneMeasured
    | AnswerPartArrived
    | ReasonerChanged
    | MachineRead
    | Tick
)

# ---- commands ----


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTracker:
    """Run a job; its end comes back as `TrackerFinished` or `TrackerFailed`."""

    job: TrackerJob


@dataclass(frozen=True, slots=True, kw_only=True)
class AskReasoner:
    """Pick and hold a window, send it; `WindowTaken` and `AnswerPartArrived` come back."""

    ask_id: AskId
    query: Query


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsk:
    """Stop an asking; parts that still come are ignored."""

    ask_id: AskId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseWindow:
    """The frames that an asking holds are needed no more."""

    ask_id: AskId


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishMasks:
    """Publish a frame's label map and tracks.

    `job_id` None = no job ran on this frame: without tracks an empty map, else their last masks.
    """

    frame: FrameRef
    job_id: JobId | None
    tracks: tuple[Track, ...]  # those with a row in the job's last track step, by label


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishAnswer:
    """Publish an answer."""

    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Complete a user's request."""

    request_id: RequestId
    success: bool
    message: str = ""
    query_id: QueryId | None = None
    answer: Answer | None = None
    object_ids: tuple[ObjectId, ...] = ()
    label_indices: tuple[int, ...] = ()


Command = (
    RunTracker | AskReasoner | CancelAsk | ReleaseWindow | PublishMasks | PublishAnswer | Reply
)
