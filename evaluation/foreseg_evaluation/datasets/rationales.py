# SPDX-License-Identifier: Apache-2.0
"""FeVOS' reasoning_data.json: reference chains of thought, and the evidence that they rest on.

The simulation's file is {"format": "foreseg", "records": [...]}. The keys of the official one are
not public: records are looked for in lists and in objects by video and expression, and their
fields under the names that are likely. Does not know: which videos there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foreseg.geometry import BoxXyxy
from foreseg_evaluation.episode import Evidence
from foreseg_evaluation.problems import DatasetError

from .entries import Entry, read_json, wrong
from .reading import Reading

OWN_FORMAT = "foreseg"
_VIDEO = ("video", "video_id", "video_name", "vid")
_EXPRESSION = ("exp_id", "expression_id", "question", "exp", "expression")
_REASONING = ("reasoning", "rationale", "cot", "chain_of_thought", "think")
_MAX_DEPTH = 3  # video, expression, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Rationale:
    """A reference chain of thought, and where its evidence stands in the file, if it does."""

    text: str = ""
    evidence: Entry | None = None


Rationales = Mapping[tuple[str, str], Rationale]  # by video, and by expression id or question


def read_rationales(path: Path, reading: Reading) -> Rationales:
    """Read the rationales of a file that may be absent; what is unclear in it is left out."""
    found: dict[tuple[str, str], Rationale] = {}
    if not path.exists():
        return found
    with reading.skipping():
        root = read_json(path, reading.log)
        is_own = isinstance(root.value, dict) and root.value.get("format") == OWN_FORMAT
        if is_own:
            for _, record in root["records"].entries():
                with reading.skipping():
                    place = (record["video"].ident(), record["exp_id"].ident())
                    text = record["reasoning"].text()
                    found[place] = Rationale(text=text, evidence=record.find("evidence"))
            return found
        count = 0
        for record, names in _records(root, (), 0):
            count += 1
            try:
                text = _first(record, _REASONING).text()
                found[_place(record, names)] = Rationale(text=text)
            except DatasetError:
                continue  # counted below
        reading.log.assume(
            f"{path.name} is of an unknown form: {len(found)} of {count} records were understood"
        )
    return found


def evidence_from(entry: Entry, frame_names: Sequence[str]) -> Evidence:
    """Take `{"keyframe", "frames", "boxes"}`, frames by their names, as positions.

    Args:
        entry: of the simulation's form; the keys of the official file are not public.
        frame_names: of the video, by position.

    Raises:
        DatasetError: a frame that the video has not, or a box that is none.
    """
    positions = {name: position for position, name in enumerate(frame_names)}

    def position_of(named: Entry, name: str) -> int:
        if name not in positions:
            raise wrong(named, f"names the frame {name!r}, which the video has not")
        return positions[name]

    frames, boxes = entry.find("frames"), entry.find("boxes")
    shown = [] if frames is None else [position_of(e, e.ident()) for _, e in frames.entries()]
    about = entry.find("is_about_keyframe")
    named = [] if boxes is None else list(boxes.entries())
    return Evidence(
        keyframe=position_of(entry["keyframe"], entry["keyframe"].ident()),
        frames=tuple(sorted(set(shown))),
        boxes={position_of(box, name): _box(box) for name, box in named},
        is_about_keyframe=about is not None and about.value is True,
    )


def _box(entry: Entry) -> BoxXyxy:
    numbers = [number.number() for _, number in entry.entries()]
    if len(numbers) == 4 and all(map(math.isfinite, numbers)):
        box = BoxXyxy(*numbers)
        if box.area > 0:
            return box
    raise wrong(entry, f"expected x0 < x1 and y0 < y1 of a box, got {entry.value!r:.60}")


def _records(
    entry: Entry, names: tuple[str, ...], depth: int
) -> Iterator[tuple[Entry, tuple[str, ...]]]:
    """Entries with a rationale, or at the bottom, with the names of the objects around them."""
    is_record = isinstance(entry.value, dict) and any(name in entry.value for name in _REASONING)
    if is_record or depth == _MAX_DEPTH or not isinstance(entry.value, (dict, list)):
        yield entry, names
        return
    for name, child in entry.entries():
        around = (*names, name) if isinstance(entry.value, dict) else names
        yield from _records(child, around, depth + 1)


def _place(record: Entry, names: tuple[str, ...]) -> tuple[str, str]:
    try:
        return _first(record, _VIDEO).ident(), _first(record, _EXPRESSION).ident()
    except DatasetError:
        if len(names) < 2:
            raise
        return names[-2], names[-1]


def _first(record: Entry, names: tuple[str, ...]) -> Entry:
    if isinstance(record.value, str) and names is _REASONING:
        return record
    for name in names:
        found = record.find(name)
        if found is not None:
            return found
    raise wrong(record, f"expected one of {', '.join(names)}")
