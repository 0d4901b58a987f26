# SPDX-License-Identifier: Apache-2.0
"""Stories drawn small for training: raw frames and label maps on disk, many questions a drawing.

A folder holds `drawings.json` and, for each story, `NAME.frames.npy` (T, H, W, 3) uint8 RGB,
`NAME.labels.npy` (T, H, W) uint8 (0 background, k object k) and `NAME.json`: names, questions, and
*cuts*, each an even row of the drawn frames. Raw arrays are mapped into memory, so that a sample
costs no decoding. Bounded by bytes. Does not know: who reads it, models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from foreseg.errors import InputError
from foreseg.work.base import Executor, SerialExecutor

from .fevos_form import Json, write_json
from .generation import SPLITS, claim
from .long_clip import best_row
from .stories.asking import Ask, StoryTopic
from .stories.choosing import Posed, areas_of, choose, is_shown
from .stories.story import RATE_HZ, STORY_VERSION, Story, make_story

DRAWINGS_VERSION = 1
INDEX = "drawings.json"

_MAX_SEED = 2**31
_SEED_PLACE = 77  # parts these seeds from those of clips
_NUM_FRAMES = (120, 192)  # observed; at 32 of them an act still shows on several
_WHOLE = 32  # frames of the cut over a whole story
_TAIL = (3, 14)  # stride and frames of the cut before the end
_ACT = (2, 18)  # likewise, of the cut around one act
_LEAD_S = 1.6  # that an act's cut begins before it
_QUESTIONS = 8
_LOCAL = (StoryTopic.FALL_ALL, StoryTopic.FALL_FIRST)  # what the last seconds tell
_NEARBY = (StoryTopic.CAME_WITH, StoryTopic.CAME_AFTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingsCommand:
    """What a folder of drawings is made of; equal commands make equal bytes.

    Attributes:
        stories: how many at most.
        seed: of everything.
        split: as of clips.
        size_wh: of the frames, at least 64 x 48.
        max_bytes: of the arrays; where the stories take more, there are fewer.
    """

    stories: int
    seed: int = 0
    split: str = "train"
    size_wh: tuple[int, int] = (112, 84)
    max_bytes: int = 2_000_000_000

    def __post_init__(self) -> None:
        if self.split not in SPLITS or self.seed < 0:
            msg = f"expected a split of {', '.join(SPLITS)} and a seed of at least 0"
            msg = f"{msg}, got {self.split!r} and {self.seed}"
            raise InputError(msg)
        if self.size_wh[0] < 64 or self.size_wh[1] < 48:
            msg = f"frames are {self.size_wh[0]}x{self.size_wh[1]}, expected at least 64x48"
            raise InputError(msg)
        if self.num_stories < 1:
            msg = f"expected at least one drawing of {self.most_bytes} bytes, got"
            msg = f"{msg} {self.stories} in {self.max_bytes} bytes"
            raise InputError(msg)

    @property
    def most_bytes(self) -> int:
        """What a drawing's arrays take at most."""
        frames = _WHOLE + _TAIL[1] + _ACT[1]
        return frames * self.size_wh[0] * self.size_wh[1] * 4 + 256

    @property
    def num_stories(self) -> int:
        """How many fit."""
        return min(self.stories, self.max_bytes // self.most_bytes)

    def to_json(self) -> Json:
        """What tells one command from another."""
        return {
            "drawings": DRAWINGS_VERSION,
            "stories": STORY_VERSION,
            "count": self.num_stories,
            "seed": self.seed,
            "split": self.split,
            "size_wh": list(self.size_wh),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """An even row of a story's frames."""

    name: str
    first: int
    stride: int
    count: int

    @property
    def frames(self) -> range:
        """Numbers of the story's frames, at `RATE_HZ`."""
        return range(self.first, self.first + self.stride * self.count, self.stride)


def generate_drawings(
    command: DrawingsCommand, out: Path, *, executor: Executor | None = None
) -> Json:
    """Draw what is missing, then write the index; workers write what they draw.

    Returns:
        The content of `drawings.json`: the command, the counts, and the drawings' names.

    Raises:
        InputError: the folder holds something else, or another command's drawings.
    """
    claim(command.to_json(), out)
    numbers = range(command.num_stories)
    missing = [n for n in numbers if not (out / f"{name_of(n)}.json").is_file()]
    bar = tqdm(
        total=len(numbers), initial=len(numbers) - len(missing), unit="drawing", disable=None
    )
    with bar:
        for _ in _made(command, missing, out, executor or SerialExecutor()):
            bar.update()
    episodes, size = 0, 0
    for number in numbers:
        name = name_of(number)
        record = json.loads((out / f"{name}.json").read_text("utf-8"))
        episodes += sum(len(question["cuts"]) for question in record["questions"])
        size += sum((out / f"{name}.{kind}.npy").stat().st_size for kind in ("frames", "labels"))
    index: Json = {
        "format": "foreseg-drawings",
        "version": DRAWINGS_VERSION,
        "command": command.to_json(),
        "counts": {"drawings": len(numbers), "samples": episodes, "bytes": size},
        "drawings": [name_of(number) for number in numbers],
    }
    write_json(out / INDEX, index)
    return index


def name_of(number: int) -> str:
    """A drawing's name; tells nothing of what is in it."""
    return f"story_{number:05d}"


def draw(command: DrawingsCommand, number: int, out: Path) -> None:
    """Draw one story: the arrays first, the record when they are whole."""
    place = [command.seed, SPLITS.index(command.split), _SEED_PLACE, number]
    rng = np.random.default_rng(place)
    width, height = command.size_wh
    story = make_story(
        int(rng.integers(_MAX_SEED)),
        command.split,
        aspect=width / height,
        num_frames=int(rng.integers(_NUM_FRAMES[0], _NUM_FRAMES[1] + 1)),
    )
    cuts = cuts_of(rng, story)
    numbers = sorted({frame for cut in cuts for frame in cut.frames})
    drawn = list(story.draw(np.array(numbers) / RATE_HZ, command.size_wh))
    images = np.stack([image for image, _ in drawn])
    labels = np.stack([ids for _, ids in drawn])
    areas = areas_of(list(labels), len(story.things))
    rows = {cut.name: [numbers.index(frame) for frame in cut.frames] for cut in cuts}

    def fitting(ask: Ask) -> list[Cut]:
        return [
            cut
            for cut in cuts
            if tells(cut, ask, story) and is_shown(ask, areas[rows[cut.name]], width * height)
        ]

    asked = choose(rng, story, _QUESTIONS, lambda ask: bool(fitting(ask)))
    record: Json = {
        "names": {str(i): name for i, name in story.names.items()},
        "story": {"seed": story.seed, "frames": story.num_frames, "acts": list(story.acts)},
        "frames": numbers,
        "cuts": {
            cut.name: {"rows": rows[cut.name], "rate_hz": RATE_HZ / cut.stride} for cut in cuts
        },
        "questions": [
            _question(
                posed, story, {c.name: areas[rows[c.name]] for c in fitting(posed.ask)}, cuts
            )
            for posed in asked
        ],
    }
    np.save(out / f"{name_of(number)}.frames.npy", images)
    np.save(out / f"{name_of(number)}.labels.npy", labels)
    write_json(out / f"{name_of(number)}.json", record)


def cuts_of(rng: np.random.Generator, story: Story) -> list[Cut]:
    """The whole story coarsely, its end, and the time around one act finely."""
    stride = -(-story.num_frames // _WHOLE)
    count = (story.num_frames - 1) // stride + 1
    last = story.num_frames - 1
    cuts = [
        Cut(name="whole", first=last - stride * (count - 1), stride=stride, count=count),
        Cut(name="tail", first=last - _TAIL[0] * (_TAIL[1] - 1), stride=_TAIL[0], count=_TAIL[1]),
    ]
    acts = [ask for ask in story.asks if ask.topic in _NEARBY]
    if acts:
        begin_s = acts[int(rng.integers(len(acts)))].evidence_s[0] - _LEAD_S
        most = last - _ACT[0] * (_ACT[1] - 1)
        first = min(max(round(begin_s * RATE_HZ), 0), most)
        cuts.append(Cut(name="act", first=first, stride=_ACT[0], count=_ACT[1]))
    return cuts


def tells(cut: Cut, ask: Ask, story: Story) -> bool:
    """Whether a cut has all that an answer rests on."""
    if cut.name == "whole":
        return True
    first_s, last_s = cut.frames[0] / RATE_HZ, cut.frames[-1] / RATE_HZ
    is_inside = first_s <= ask.evidence_s[0] and ask.evidence_s[-1] <= last_s
    if ask.topic in _LOCAL:
        return is_inside and cut.name == "tail" and ask.event_s is not None
    if not ask.target_ids:
        return False
    if ask.topic is StoryTopic.CAME_AFTER:
        begun = {c.thing_id: c.time_s for c in story.crossings if c.is_in}
        return is_inside and all(first_s <= begun[i] for i in ask.target_ids)
    return is_inside and ask.topic is StoryTopic.CAME_WITH


def _question(
    posed: Posed, story: Story, areas: dict[str, np.ndarray], cuts: Sequence[Cut]
) -> Json:
    ask = posed.ask
    kind = "no_target"
    if ask.target_ids:
        kind = "descriptive" if ask.event_s is None else "foresight"
    written: Json = {
        "exp": posed.text,
        "ans": posed.answer,
        "obj_id": list(ask.target_ids),
        "type": kind,
        "skill": ask.skill.value,
        "topic": ask.topic.value,
        "difficulty": "hard" if ask.is_hard else "easy",
        "reasoning": " ".join(ask.steps),
        "cuts": {},
    }
    if ask.event_s is not None:
        written["lead_s"] = round(ask.event_s - story.cut_s, 3)
    for cut in cuts:
        if cut.name in areas:
            frames = np.array(cut.frames)
            wanted = [int(np.abs(frames - s * RATE_HZ).argmin()) for s in ask.evidence_s]
            written["cuts"][cut.name] = {
                "evidence": sorted(set(wanted)),
                "keyframe": best_row(ask.target_ids, areas[cut.name], len(frames) - 1),
            }
    return written


def _made(
    command: DrawingsCommand, numbers: Sequence[int], out: Path, executor: Executor
) -> Iterator[None]:
    task = partial(_drawn, command=command, out=out.resolve())
    with closing(executor.run(task, numbers)) as outcomes:
        for outcome in outcomes:
            if outcome.has_died:
                name = name_of(numbers[outcome.index])
                msg = f"whoever drew {name} died, every time: out of memory, or crashed in native code"
                raise InputError(msg)
            yield


def _drawn(number: int, command: DrawingsCommand, out: Path) -> None:
    """What a worker does; one thread each, for workers share the cores already."""
    cv2.setNumThreads(1)
    draw(command, number, out)
