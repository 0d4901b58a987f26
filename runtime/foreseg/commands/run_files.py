# SPDX-License-Identifier: Apache-2.0
"""The files of `foreseg run`: masks, tracks, answers, overlay, contact sheet, filmstrips, summary.

An `Output` of the pipeline that writes frame by frame; knows nothing of players or workers.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from foreseg.commands.filmstrips import Filmstrips, is_same_asking
from foreseg.commands.observed_files import ObservedFiles
from foreseg.commands.questions import QuestionFrames, Questions, RunTrace
from foreseg.commands.storyboard import Scene, Storyboard
from foreseg.config import Config
from foreseg.dialogue import Answer, QueryId
from foreseg.driving.executor import Executor, PublishedMasks
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA
from foreseg.media.captions import (
    Banner,
    banner_from_answer,
    banner_while_asking,
    overlay_labels,
    with_others,
    words_of,
)
from foreseg.media.newest_answers import NewestAnswers
from foreseg.media.overlay import draw_overlay
from foreseg.media.pace import Pace
from foreseg.media.sinks import OverlayVideoWriter, write_image, write_palette_png
from foreseg.pipeline.following import MAX_FOLLOWED
from foreseg.pipeline.tracks import Track
from foreseg.prompts import ObjectId

NS = 1_000_000_000
MAX_RECENT = MAX_FOLLOWED  # so many answers may come again
_SOMETIMES = ("overlay.mp4", "contact_sheet.png", "summary.json")
_MASK_NAME = re.compile(r"\d{6,}\.png")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shown:
    """A frame as it was published last; it may be published once more with more masks."""

    index: int
    stamp_ns: int
    record: dict[str, object]  # its line in tracks.jsonl
    visible: frozenset[ObjectId]
    has_masks: bool
    scene: Scene | None  # drawn, if somebody wants this frame


class RunFiles:
    """Opens the files, takes what is published, and closes them in order.

    A frame's line, and its picture in the overlay, are written when the next one comes: once,
    with all that was published of it.

    Raises:
        InputError: the folder cannot be made or written.
    """

    def __init__(
        self,
        out: Path,
        queries: Mapping[QueryId, str],
        *,
        video_hz: float | None,
        has_rationale: bool = False,
        filmstrips: Path | None = None,
        observed: Path | None = None,
        counted: Collection[ObjectId] = (),
    ) -> None:
        """`video_hz` None = no overlay video; `filmstrips` None = no picture of each answer.

        Likewise `observed`, the folder for the masks of each answer's window. `counted` are the
        objects of whom `num_shown` tells.
        """
        self.out = out
        self.num_masks = 0
        self.num_visible = 0  # frames with at least one mask
        self.num_shown: Counter[ObjectId] = Counter()  # frames with a mask of an object
        self.answers: list[Answer] = []
        self.first_masks_ns: dict[int, int] = {}  # which answer -> stamp of its first masks
        self._queries = dict(queries)
        self._has_rationale = has_rationale
        self._questions: Questions | None = None
        self._newest = NewestAnswers()
        self._storyboard = Storyboard()
        self._is_event = False
        self._counted = frozenset(counted)
        self._shown: _Shown | None = None
        self._origin_ns: int | None = None
        self._filmstrips = None if filmstrips is None else Filmstrips(filmstrips)
        self._observed = None if observed is None else ObservedFiles(observed)
        try:
            (out / "masks").mkdir(parents=True, exist_ok=True)
            _remove_old_run(out)
            self._answers_file: IO[str] = (out / "answers.jsonl").open("w", encoding="utf-8")
            self._tracks_file: IO[str] = (out / "tracks.jsonl").open("w", encoding="utf-8")
        except OSError as error:
            msg = f"cannot write into {out}: {error.strerror or error}; give another --out"
            raise InputError(msg) from error
        self._pace = None if video_hz is None else Pace(video_hz)
        self._video = (
            None if video_hz is None else OverlayVideoWriter(out / "overlay.mp4", video_hz)
        )

    def open_trace(self, config: Config, executor: Executor) -> RunTrace:
        """Make trace.jsonl; what it is told of questions goes into pictures, too."""
        self._questions = Questions(executor)
        return RunTrace(self._questions, self.out / "trace.jsonl", config, DEFAULT_CAMERA)

    def publish_masks(self, masks: PublishedMasks) -> None:
        """Take one frame; its mask is written at once, in place of an earlier one of it."""
        index = int(masks.frame.index)
        if self._shown is not None and self._shown.index != index:
            self._write_shown(masks.frame.stamp_ns)
        if self._origin_ns is None:
            self._origin_ns = masks.frame.stamp_ns
        write_palette_png(self.out / "masks" / f"{index:06d}.png", masks.label_map)
        self._note_first_masks(masks)
        if self._filmstrips is not None:
            self._filmstrips.add_masks(masks, index)
        seconds = (masks.frame.stamp_ns - self._origin_ns) / NS
        self._shown = _Shown(
            index=index,
            stamp_ns=masks.frame.stamp_ns,
            record={
                "frame": index,
                "time_s": round(seconds, 6),
                "tracks": [_track_record(track) for track in masks.tracks],
            },
            visible=frozenset(t.object_id for t in masks.tracks if t.area_px),
            has_masks=bool(masks.label_map.any()),
            scene=self._scene(masks, index, seconds),
        )

    def publish_answer(self, answer: Answer) -> None:
        """Write one answer, while the frames of its question are held."""
        self.write_answer(answer, self.frames_of(answer))

    def frames_of(self, answer: Answer) -> QuestionFrames | None:
        """Copies of the frames of an answer that shall be shown: its keyframe, or more."""
        if self._questions is None:
            return None
        return self._questions.frames_of(answer, keyframe_only=self._filmstrips is None)

    def write_answer(self, answer: Answer, frames: QuestionFrames | None) -> None:
        """Write one answer; one that comes again with more of it takes its own place."""
        if self._observed is not None:
            self._observed.add(answer)
        keyframe = frames.keyframe_of(answer) if frames is not None else None
        self._newest.take(answer, keyframe)
        whole, answer = answer, replace(answer, observed=())
        known = [i for i in self._recent() if is_same_asking(self.answers[i], answer)]
        if known:
            self.answers[known[-1]] = answer
        else:
            self.answers.append(answer)
        later = self.answers[known[-1] + 1 :] if known else []
        is_last = all(other.query_id != answer.query_id for other in later)
        if self._filmstrips is not None and is_last:
            self._filmstrips.add_answer(whole, frames)
        self._is_event = True
        record = answer_record(answer, self._origin_ns or 0)
        self._answers_file.write(json.dumps(record) + "\n")
        self._answers_file.flush()

    @property
    def num_observed(self) -> int:
        """Windows whose masks are written."""
        return 0 if self._observed is None else self._observed.num_windows

    def close(self) -> None:
        """Finish the files, the contact sheet among them: each, though another cannot be.

        Raises:
            OSError: one cannot be written to its end.
        """
        with ExitStack() as stack:  # from the last to the first
            stack.callback(self._answers_file.close)
            stack.callback(self._tracks_file.close)
            if self._filmstrips is not None:
                stack.callback(self._filmstrips.close)
            if self._video is not None:
                stack.callback(self._video.close)
            self._write_shown(None)
            sheet = self._storyboard.sheet()
            if sheet is not None:
                write_image(self.out / "contact_sheet.png", sheet)

    def write_summary(self, record: Mapping[str, object]) -> None:
        """Write summary.json."""
        text = json.dumps(dict(record), indent=2, allow_nan=False) + "\n"
        (self.out / "summary.json").write_text(text, encoding="utf-8")

    def _write_shown(self, next_ns: int | None) -> None:
        """Nothing more will be published of the newest frame; `next_ns` is the next one's stamp."""
        shown, self._shown = self._shown, None
        if shown is None:
            return
        self.num_masks += 1
        self.num_visible += shown.has_masks
        self.num_shown.update(shown.visible & self._counted)
        self._tracks_file.write(json.dumps(shown.record) + "\n")
        if shown.scene is None:
            return
        if self._video is not None and self._pace is not None:
            for _ in range(self._pace.times(shown.stamp_ns, next_ns)):
                self._video.write(shown.scene.image)
        self._storyboard.add(shown.scene)

    def _scene(self, masks: PublishedMasks, index: int, seconds: float) -> Scene | None:
        """The overlay, if somebody wants this frame's."""
        before = None if self._shown is None else self._shown.scene  # of this very frame
        is_event = self._is_event or (before is not None and before.is_event)
        is_wanted = self._video is not None or is_event or self._storyboard.wants(index)
        if masks.image is None or not is_wanted:
            return before
        labels = overlay_labels(masks.tracks)
        inset = self._newest.inset(masks.frame, labels)
        drawn = draw_overlay(masks.image, masks.label_map, labels, self._banner(masks), inset)
        caption = f"{seconds:.1f} s, frame {index}"
        if is_event and self.answers:
            caption += f": {words_of(self.answers[-1])}"
        elif masks.tracks:
            states = ", ".join(f"{t.object_id} {t.state.name.lower()}" for t in masks.tracks[:3])
            caption += f": {states}"
        self._is_event = False
        return Scene(index=index, image=drawn, caption=caption, is_event=is_event)

    def _note_first_masks(self, masks: PublishedMasks) -> None:
        shown = {track.object_id for track in masks.tracks}
        for i in self._recent():
            answer = self.answers[i]
            is_after = masks.frame.stamp_ns >= answer.answered_stamp_ns
            if (
                i not in self.first_masks_ns
                and is_after
                and not shown.isdisjoint(answer.object_ids)
            ):
                self.first_masks_ns[i] = masks.frame.stamp_ns

    def _recent(self) -> range:
        """Which answers are still looked at: those that may come again, or have no masks yet."""
        return range(max(0, len(self.answers) - MAX_RECENT), len(self.answers))

    def _banner(self, masks: PublishedMasks) -> Banner | None:
        banner = None
        if self.answers:
            banner = banner_from_answer(self.answers[-1], masks.frame.stamp_ns)
            banner = banner if self._has_rationale else replace(banner, rationale="")
        elif self._queries:
            banner = Banner(query=next(iter(self._queries.values())))
        asking = None if self._questions is None else self._questions.current
        banner = banner if asking is None else banner_while_asking(asking, banner)
        if banner is None:
            return None
        shown = {query_id for track in masks.tracks for query_id in track.query_ids}
        ids = shown.union(self._queries)
        return with_others(banner, self._newest.of_queries(masks.frame.camera, ids))


def answer_record(answer: Answer, origin_ns: int = 0) -> dict[str, object]:
    """An answer as JSON-able values; seconds count from `origin_ns`."""
    has_keyframe = answer.keyframe_index is not None
    has_horizon = answer.valid_until_stamp_ns != 0
    return {
        "query_id": answer.query_id,
        "query": answer.query_text,
        "status": answer.status.name,
        "text": answer.text,
        "reason": answer.reason,
        "rationale": answer.rationale,
        "confidence": None if math.isnan(answer.confidence) else answer.confidence,
        "keyframe_index": answer.keyframe_index,
        "keyframe_s": _seconds(answer.keyframe_stamp_ns, origin_ns) if has_keyframe else None,
        "asked_s": _seconds(answer.asked_stamp_ns, origin_ns),
        "answered_s": _seconds(answer.answered_stamp_ns, origin_ns),
        "valid_until_s": _seconds(answer.valid_until_stamp_ns, origin_ns) if has_horizon else None,
        "outcome": answer.outcome.name if has_horizon else None,
        "latency_s": round(answer.latency_s, 6),
        "object_ids": list(answer.object_ids),
        "boxes": [None if p.box is None else list(p.box) for p in answer.prompts],
    }


def _remove_old_run(out: Path) -> None:
    """A shorter run must not be mixed with the one before; others' files stay.

    Raises:
        InputError: there are masks that no run of ours wrote.
    """
    old = [path for path in (out / "masks").iterdir() if not path.name.startswith(".")]
    is_ours = (out / "tracks.jsonl").is_file() and all(_MASK_NAME.fullmatch(p.name) for p in old)
    if old and not is_ours:
        msg = f"{out / 'masks'} holds files that are not foreseg's; give another --out"
        raise InputError(msg)
    for path in old:
        path.unlink()
    if (out / "tracks.jsonl").is_file():
        for name in _SOMETIMES:  # a run without them must not show those of the one before
            (out / name).unlink(missing_ok=True)


def _track_record(track: Track) -> dict[str, object]:
    return {
        "object_id": track.object_id,
        "index": track.index,
        "state": track.state.name,
        "score": round(track.score, 4),
        "box": None if track.box is None else list(track.box),
        "area_px": track.area_px,
        "answer_age_s": round(track.answer_age_s, 4),
        "catching_up": track.catching_up,
        "query_ids": list(track.query_ids),
    }


def _seconds(stamp_ns: int, origin_ns: int) -> float:
    return round((stamp_ns - origin_ns) / NS, 6)
