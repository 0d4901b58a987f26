# SPDX-License-Identifier: Apache-2.0
"""What the pipeline remembers between two events: frozen records, no pixels, all bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from foreseg.config import Config
from foreseg.dialogue import Answer, ObservedMask, Query, QueryId
from foreseg.frames import CameraId, FrameIndex, FrameRef
from foreseg.pipeline.catch_up import CatchUp, Rates
from foreseg.pipeline.degradation import Ladder
from foreseg.pipeline.events import AskId, ConditioningPrompt, JobStep, RequestId, TrackerJob
from foreseg.pipeline.hindsight import Watched
from foreseg.pipeline.tracks import NS, LabelPool, LiveTrack
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.telemetry import DropCause
from foreseg.tracker.base import TrackKey

RATE_WEIGHT = 0.1  # of a new measurement in a running mean
UNMEASURED_NS = NS / 30  # what a step or a frame is thought to take before there is any


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Prompts on a past or present frame that wait for the tracker: from an answer or a user."""

    camera: CameraId
    keyframe_index: FrameIndex
    keyframe_stamp_ns: int
    object_ids: tuple[ObjectId, ...]
    prompts: tuple[SpatialPrompt, ...]
    beside: tuple[ConditioningPrompt, ...] = ()  # the same objects on other frames
    query_id: QueryId | None = None
    ask_id: AskId | None = None
    answer: Answer | None = None  # published when the hop is done
    request_id: RequestId | None = None  # a user's, completed when the hop is done
    window: tuple[FrameIndex, ...] = ()  # to be segmented afterwards, if that was wanted
    is_alone: bool = False  # hops in a job of its own: one that it shared has failed

    @property
    def last_index(self) -> FrameIndex:
        """The newest frame that is prompted: from there it hops."""
        return max((self.keyframe_index, *(each.frame_index for each in self.beside)))

    def prompted_on(self, object_id: ObjectId) -> tuple[tuple[FrameIndex, SpatialPrompt], ...]:
        """An object's prompts by frame, in the order of the tracker: the newest frame last.

        The keyframe's comes first, or last: a row that has room for two keeps it and the newest.
        """
        number = self.object_ids.index(object_id)
        keyframe = (self.keyframe_index, self.prompts[number])
        others = [(b.frame_index, b.prompt) for b in self.beside if b.object_id == object_id]
        others.sort(key=lambda item: item[0])
        if others and others[-1][0] > self.keyframe_index:
            return (keyframe, *others)
        return (*others, keyframe)


class JobKind(Enum):
    """Why a tracker job runs."""

    LIVE = "live"
    HOP = "hop"
    CATCH_UP = "catch_up"
    JOIN = "join"
    OBSERVE = "observe"
    CHORES = "chores"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """The one job that the tracker has now."""

    job: TrackerJob
    kind: JobKind
    frame: FrameRef  # the newest frame when it began
    arrivals: tuple[Arrival, ...] = ()  # on one keyframe
    catch_up: CatchUp | None = None
    new_catch_ups: tuple[CatchUp, ...] = ()
    observed: AskId | None = None  # whose window is segmented


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The window of an answer on its way through the tracker, in a row of its own."""

    key: TrackKey
    jobs: tuple[tuple[JobStep, ...], ...]  # those that are left
    masks: tuple[ObservedMask, ...] = ()  # those that there are, ascending in frame index


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """An answer of which more will be known: how its foresight turns out, how its window looks."""

    ask_id: AskId
    answer: Answer
    size_wh: tuple[int, int]  # of the picture
    watched: tuple[Watched, ...] | None = None  # a target each; None = no horizon, or it is over
    observation: Observation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraState:
    """One camera's pipeline."""

    camera: CameraId
    labels: LabelPool
    newest: FrameRef | None = None
    first_stamp_ns: int = 0
    oldest_index: FrameIndex = FrameIndex(0)
    dropped: Mapping[DropCause, int] = field(default_factory=dict)  # before they had an index
    served_index: int = -1  # newest frame that was published or given to the tracker
    published_index: int = -1
    served_at_ns: int = 0
    tracks: tuple[LiveTrack, ...] = ()
    catch_ups: tuple[CatchUp, ...] = ()
    chores: tuple[JobStep, ...] = ()  # drops and promotions for the head of the next job
    frame_interval_ns: float = 0.0  # 0 = not measured, here and below: at 30 Hz
    live_step_ns: float = 0.0
    branch_step_ns: float = 0.0  # 0 = not measured: as a live step
    branch_credit: float = 0.0  # branch steps that are due beside the live ones

    @property
    def rates(self) -> Rates:
        """Measured speeds."""
        live_ns = self.live_step_ns or UNMEASURED_NS
        return Rates(
            camera_hz=NS / (self.frame_interval_ns or UNMEASURED_NS),
            live_hz=NS / live_ns,
            branch_hz=NS / (self.branch_step_ns or live_ns),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingQuery:
    """A query that waits to be asked, once or again."""

    query: Query
    due_ns: int
    request_id: RequestId | None = None  # completed with the first answer
    deadline_ns: int | None = None
    num_asked: int = 0
    last_asked_ns: int = 0
    asked_index: int = -1  # the newest frame then: it is asked again about a newer one only


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The one question that the reasoner has now."""

    ask_id: AskId
    query: Query
    asked_ns: int
    asked_stamp_ns: int
    frames: tuple[FrameRef, ...] = ()  # held
    rationale: str = ""
    answer: Answer | None = None  # NO_TARGET kept until the completion ends
    has_arrival: bool = False  # targets were handed on; the hop publishes the answer

    @property
    def is_answered(self) -> bool:
        """True once its answer was delivered, and only the rationale goes on."""
        return self.has_arrival and self.answer is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The whole."""

    config: Config
    cameras: Mapping[CameraId, CameraState] = field(default_factory=dict)
    arrivals: tuple[Arrival, ...] = ()
    running: RunningJob | None = None
    queries: tuple[StandingQuery, ...] = ()
    asking: Asking | None = None
    followed: tuple[Followed, ...] = ()  # answers, the oldest first
    held: tuple[AskId, ...] = ()  # askings whose window is not released yet
    enabled: bool = True
    reasoner_up: bool = False
    reasoner_reason: str = "not started"
    reasoner_caution: str = ""  # what its user should know of its answers
    reasoner_s: float = 0.0  # running mean of answer latencies; 0 = none yet
    counters: Mapping[str, int] = field(default_factory=dict)
    ladder: Ladder = field(default_factory=Ladder)  # what is given up now
    hop_s: float = (
        0.0  # last answer: sensor stamp of its keyframe -> hop published (frames' stamps)
    )
    catch_up_s: float = 0.0  # last catch-up: begun -> joined
    next_job: int = 1
    next_ask: int = 1
    next_object: int = 1

    @property
    def query_ids(self) -> frozenset[QueryId]:
        """Of the queries that stand, or wait for their answer."""
        return frozenset(entry.query.id for entry in self.queries)

    @classmethod
    def start(cls, config: Config, cameras: tuple[CameraId, ...]) -> State:
        """Nothing seen, nothing asked."""
        pool = LabelPool(size=config.tracker.max_tracks)
        return cls(
            config=config,
            cameras={camera: CameraState(camera=camera, labels=pool) for camera in cameras},
        )


def running_mean(mean: float, value: float) -> float:
    """Exponential mean; starts at the first value (mean 0 = none yet)."""
    return value if mean == 0 else mean + RATE_WEIGHT * (value - mean)
