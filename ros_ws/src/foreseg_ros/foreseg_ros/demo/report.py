# SPDX-License-Identifier: Apache-2.0
"""The demo's figures: the table that is printed, and summary.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreseg_ros.demo.judging import Judged
from foreseg_ros.demo.parts import PartResult
from foreseg_ros.demo.recording import SeenAnswer

NO_VALUE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFigures:
    """One column of the table."""

    title: str
    frames_sent: int
    frames_in: int  # accepted by the node
    masks_out: int  # received by the client
    mask_hz: float
    tracking_hz: float  # rate of the masks from the first with an object to the last
    p50_ms: float  # from stamp to masks received, of the frames that have objects
    p99_ms: float
    num_published_answers: int
    drops: Mapping[str, int]
    answers: tuple[SeenAnswer, ...]
    judged: tuple[Judged, ...]
    first_age_s: float | None  # of the first answer, when its mask was first seen
    notes: tuple[str, ...]

    @property
    def has_flowed(self) -> bool:
        """True if masks came."""
        return self.masks_out > 0

    @property
    def first(self) -> SeenAnswer | None:
        """The first answer."""
        return self.answers[0] if self.answers else None

    @property
    def j(self) -> float | None:
        """Mean J of the true targets over all judged frames; a wrong answer counts against it."""
        return _mean([j for item in self.judged for j in item.js])

    @property
    def j_first_mask(self) -> float | None:
        """The same of repeating each first mask."""
        return _mean([j for item in self.judged for j in item.first_mask_js])


def figures_of(title: str, result: PartResult, judged: Sequence[Judged] = ()) -> PartFigures:
    """What a part has come to."""
    recording = result.recording
    tracked = sorted(stamp for stamp in recording.latencies_ns if recording.tracks.get(stamp))
    latencies_ms = [recording.latencies_ns[stamp] / 1e6 for stamp in tracked]
    p50, p99 = np.percentile(latencies_ms, [50, 99]) if tracked else (math.nan, math.nan)
    span_s = (tracked[-1] - tracked[0]) / 1e9 if tracked else 0.0
    num_masks = len(recording.latencies_ns)
    drops = {
        name.removeprefix("dropped_"): count
        for name, count in sorted(result.counters.items())
        if name.startswith("dropped_")
    }
    frames_in = result.counters.get("frames_in", 0)
    refused = sum(count for cause, count in drops.items() if cause != "tracker_busy")
    drops["not_received"] = max(0, len(result.sent) - frames_in - refused)
    return PartFigures(
        title=title,
        frames_sent=len(result.sent),
        frames_in=frames_in,
        masks_out=num_masks,
        mask_hz=num_masks / result.seconds if result.seconds else 0.0,
        tracking_hz=(len(tracked) - 1) / span_s if span_s else 0.0,
        num_published_answers=recording.num_published_answers,
        p50_ms=float(p50),
        p99_ms=float(p99),
        drops={cause: count for cause, count in drops.items() if count},
        answers=tuple(recording.answers),
        judged=tuple(judged),
        first_age_s=_first_age_s(result),
        notes=result.notes,
    )


def summary_record(
    scene: PartFigures, clip: PartFigures | None, extra: Mapping[str, object]
) -> dict[str, object]:
    """summary.json: part one's figures at the top, both parts' under `parts`."""
    first = scene.first
    return {
        **_record(scene),
        "query": first.query if first else None,
        "answer": _answer_record(first, scene.first_age_s) if first else None,
        "j_simulated": _rounded(scene.j),
        "j_repeat_first_mask": _rounded(scene.j_first_mask),
        "answers_right": sum(item.is_right for item in scene.judged),
        "answers_judged": len(scene.judged),
        **extra,
        "parts": [
            {"title": part.title, **_record(part), "answers": _answers(part)}
            for part in (scene, clip)
            if part is not None
        ],
    }


def write_summary(path: Path, record: Mapping[str, object]) -> None:
    """As JSON without NaN."""
    path.write_text(json.dumps(dict(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def table(parts: Sequence[PartFigures]) -> str:
    """The figures side by side."""
    rows: list[tuple[str, list[str]]] = [("", [part.title for part in parts])]
    rows += [
        ("frames sent", [str(part.frames_sent) for part in parts]),
        ("frames in", [str(part.frames_in) for part in parts]),
        ("masks out", [f"{part.masks_out} ({part.mask_hz:.1f}/s)" for part in parts]),
        ("rate with objects", [f"{part.tracking_hz:.1f}/s" for part in parts]),
        (
            "glass to mask",
            [f"p50 {part.p50_ms:.0f} ms, p99 {part.p99_ms:.0f} ms" for part in parts],
        ),
        ("drops", [_drops(part) for part in parts]),
    ]
    rows += _answer_rows(parts)
    if any(part.judged for part in parts):
        rows += [
            ("answers right", [_right(part) for part in parts]),
            ("J of the masks", [_j(part.j) for part in parts]),
            ("J, first mask repeated", [_j(part.j_first_mask) for part in parts]),
        ]
    names = max(len(name) for name, _ in rows)
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(parts))]
    lines = [
        "  ".join([name.ljust(names), *(c.ljust(w) for c, w in zip(cells, widths, strict=True))])
        for name, cells in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(line.rstrip() for line in lines)


def _answer_rows(parts: Sequence[PartFigures]) -> list[tuple[str, list[str]]]:
    def cells(of: int) -> list[str]:
        return [_answer_cells(part)[of] for part in parts]

    return [(name, cells(i)) for i, name in enumerate(("query", "answer", "keyframe", "age"))]


def _answer_cells(part: PartFigures) -> tuple[str, str, str, str]:
    first = part.first
    if first is None:
        return (NO_VALUE, "none", NO_VALUE, NO_VALUE)
    age = NO_VALUE if part.first_age_s is None else f"{part.first_age_s:.2f} s at its first mask"
    keyframe = str(first.keyframe_index) if first.is_ok else NO_VALUE
    return (_cut(first.query), _cut(first.words), keyframe, age)


def _record(part: PartFigures) -> dict[str, object]:
    return {
        "frames_sent": part.frames_sent,
        "frames_in": part.frames_in,
        "masks_out": part.masks_out,
        "mask_hz": round(part.mask_hz, 2),
        "mask_hz_with_objects": round(part.tracking_hz, 2),
        "answers_published": part.num_published_answers,
        "glass_to_mask_ms": {"p50": _rounded(part.p50_ms), "p99": _rounded(part.p99_ms)},
        "drops": dict(part.drops),
        "notes": list(part.notes),
    }


def _answers(part: PartFigures) -> list[dict[str, object]]:
    judged = {id(item.answer): item for item in part.judged}
    records = []
    for answer in part.answers:
        record = {"query": answer.query, **_answer_record(answer, None)}
        item = judged.get(id(answer))
        if item is not None:
            record |= {
                "expected": item.expected,
                "named": item.named,
                "is_right": item.is_right,
                "truth_expires_s": round(item.expires_s, 3),
                "j": _rounded(item.j),
                "j_repeat_first_mask": _rounded(item.j_first_mask),
                "frames_judged": len(item.js),
            }
        records.append(record)
    return records


def _answer_record(answer: SeenAnswer, age_s: float | None) -> dict[str, object]:
    return {
        "status": answer.status,
        "text": answer.text,
        "reason": answer.reason,
        "keyframe_index": answer.keyframe_index if answer.is_ok else None,
        "age_s": _rounded(age_s),
        "latency_s": round(answer.latency_s, 4),
        "object_ids": list(answer.object_ids),
    }


def _first_age_s(result: PartResult) -> float | None:
    """The age of the first answer on the first frame that shows its object."""
    answer = next((a for a in result.recording.answers if a.is_ok), None)
    if answer is None:
        return None
    for stamp_ns in sorted(result.recording.tracks):
        for track in result.recording.tracks[stamp_ns]:
            is_after = stamp_ns >= answer.answered_stamp_ns
            if track.object_id in answer.object_ids and is_after:
                return track.answer_age_s
    return None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 4)


def _drops(part: PartFigures) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in part.drops.items()) or "none"


def _j(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.3f}"


def _right(part: PartFigures) -> str:
    if not part.judged:
        return NO_VALUE
    return f"{sum(item.is_right for item in part.judged)} of {len(part.judged)}"


def _cut(text: str, width: int = 44) -> str:
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."
