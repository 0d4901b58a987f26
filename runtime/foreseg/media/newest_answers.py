# SPDX-License-Identifier: Apache-2.0
"""The newest answer of each camera, and its keyframe for a while, as an inset of the overlay.

Holds one reduced frame a camera at most. Knows nothing of where frames come from; `take` may be
called by another thread than the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from foreseg.dialogue import Answer, AnswerStatus, QueryId
from foreseg.frames import CameraId, Frame, FrameIndex, FrameRef
from foreseg.history.reduction import reduce_image
from foreseg.media.captions import OverlayLabel
from foreseg.media.filmstrip import draw_keyframe
from foreseg.media.overlay import Inset, inset_size
from foreseg.media.pen import text_px_of
from foreseg.pipeline.following import MAX_FOLLOWED

SHOWN_NS = 8_000_000_000  # an inset leaves so long after its answer
SIDE_PX = 480  # of the keyframe that is kept
MAX_QUERIES = 16  # whose newest answers are kept, over all cameras

AskingKey = tuple[CameraId, QueryId, int, FrameIndex | None]


@dataclass(slots=True, kw_only=True, eq=False)
class _Kept:
    answer: Answer
    frame: Frame | None  # the keyframe, reduced once it has been shown
    indices: dict[str, int] = field(default_factory=dict)  # object id -> label, once seen


class NewestAnswers:
    """Takes answers as they are published, and shows their keyframes beside the masks."""

    def __init__(self) -> None:
        self._kept: dict[CameraId, _Kept] = {}
        self._by_query: dict[tuple[CameraId, QueryId], Answer] = {}  # the oldest first
        self._seen: deque[AskingKey] = deque(maxlen=MAX_FOLLOWED)  # those that may come again

    def take(self, answer: Answer, keyframe: Frame | None) -> None:
        """An answer as it is published, with a copy of its keyframe's pixels if it is to be shown.

        An answer that is published again does not become the newest by that.
        """
        answer = replace(answer, observed=())
        key, kept = asking_key(answer), self._kept.get(answer.camera)
        self._note_of_query(answer)
        if kept is not None and asking_key(kept.answer) == key:
            kept.answer = answer
        elif key not in self._seen:
            self._seen.append(key)
            is_shown = answer.status is AnswerStatus.OK
            frame = keyframe if is_shown else None
            self._kept[answer.camera] = _Kept(answer=answer, frame=frame)

    def _note_of_query(self, answer: Answer) -> None:
        place = answer.camera, answer.query_id
        before = self._by_query.get(place)
        if before is not None and asking_key(before) == asking_key(answer):
            self._by_query[place] = answer
        elif asking_key(answer) not in self._seen:
            self._by_query.pop(place, None)
            self._by_query[place] = answer
            if len(self._by_query) > MAX_QUERIES:
                del self._by_query[next(iter(self._by_query))]

    def of_queries(self, camera: CameraId, query_ids: Collection[QueryId]) -> list[Answer]:
        """The newest answer of each of these queries that has one, the newest first."""
        kept = list(self._by_query.values())  # another thread may take one meanwhile
        return [a for a in reversed(kept) if a.camera == camera and a.query_id in query_ids]

    def of(self, camera: CameraId) -> Answer | None:
        """The newest answer of a camera, with all that was published of it."""
        kept = self._kept.get(camera)
        return None if kept is None else kept.answer

    def inset(self, shown: FrameRef, labels: Iterable[OverlayLabel]) -> Inset | None:
        """The newest answer's keyframe beside a shown frame, until some time after the answer.

        Boxes, points and masks have the colours of the tracks that the answer named; `labels` are
        those of the shown frame.
        """
        kept = self._kept.get(shown.camera)
        if kept is None or kept.frame is None:
            return None
        answer, stamp_ns = kept.answer, shown.stamp_ns
        ends_ns = answer.answered_stamp_ns + SHOWN_NS
        if not answer.keyframe_stamp_ns <= stamp_ns <= ends_ns:  # before: the stream began anew
            return None
        image = reduce_image(kept.frame.image, SIDE_PX)
        if image is not kept.frame.image:
            kept.frame = replace(kept.frame, image=image)
        for label in labels:
            if label.name in answer.object_ids:
                kept.indices[label.name] = label.index
        drawn = draw_keyframe(
            kept.frame,
            answer,
            kept.indices,
            inset_size(shown.size_wh, kept.frame.ref.size_wh),
            text_px=text_px_of(shown.size_wh[::-1]) // 2,
        )
        return Inset(image=drawn, age_s=(stamp_ns - answer.keyframe_stamp_ns) / 1e9)


def asking_key(answer: Answer) -> AskingKey:
    """The same for an answer that is published once more, with more of it."""
    return answer.camera, answer.query_id, answer.asked_stamp_ns, answer.keyframe_index
