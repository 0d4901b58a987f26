# SPDX-License-Identifier: Apache-2.0
"""Tracks as detections: each with its box, and the words of the queries that want it as classes.

Records in, records out; `vision_output` makes messages of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from foreseg.dialogue import Answer, AnswerStatus, QueryId
from foreseg.geometry import BoxXyxy
from foreseg.pipeline.tracks import Track
from foreseg.texts import utf8_text

MAX_TEXTS: Final = 1024  # of queries; those that were needed last stay
BACKGROUND: Final = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """An object that is seen on a frame."""

    object_id: str
    classes: tuple[str, ...]  # at least one
    score: float
    box: BoxXyxy


class QueryTexts:
    """The words of the queries that own tracks, as their answers repeat them; for any thread.

    An answer is published before the masks that carry its objects.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: OrderedDict[QueryId, str] = OrderedDict()

    def take(self, answer: Answer) -> None:
        """Note the words of a query that was answered."""
        if answer.status is not AnswerStatus.OK:
            return
        with self._lock:
            self._texts[answer.query_id] = utf8_text(answer.query_text)
            self._texts.move_to_end(answer.query_id)
            if len(self._texts) > MAX_TEXTS:
                self._texts.popitem(last=False)

    def classes_of(self, track: Track) -> tuple[str, ...]:
        """The words of its queries, the first that named it first; its own id where it has none.

        An object that was pointed at has no query. A query whose words are unknown has its id.
        """
        found = []
        with self._lock:
            for query_id in track.query_ids:
                text = self._texts.get(query_id)
                if text:
                    self._texts.move_to_end(query_id)
                found.append(text or str(query_id))
        return tuple(dict.fromkeys(found)) or (str(track.object_id),)


def detections_from_tracks(tracks: Iterable[Track], texts: QueryTexts) -> list[Detection]:
    """Those tracks that are visible, in their order; one that is not has no box."""
    return [
        Detection(
            object_id=track.object_id,
            classes=texts.classes_of(track),
            score=track.score,
            box=track.box,
        )
        for track in tracks
        if track.box is not None
    ]


def names_of_labels(tracks: Iterable[Track], texts: QueryTexts) -> dict[int, str]:
    """Label in the map -> name of its class, the background's among them, ascending."""
    names = {track.index: texts.classes_of(track)[0] for track in tracks}
    return {0: BACKGROUND, **{index: names[index] for index in sorted(names)}}
