# SPDX-License-Identifier: Apache-2.0
"""Generate a dataset: in parallel, resumable, and the same bytes however it was run.

Every clip depends on the command's settings and its own number only. Does not know: the command
line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from foreseg.errors import InputError
from foreseg.work.base import Executor, SerialExecutor

from .clip import Clip, ClipKind, cut_clip, cut_stream
from .fevos_form import PARTS, Json, assemble, part_path, write_json, write_part
from .long_clip import cut_long
from .stories.story import STORY_VERSION
from .worlds import PACES, WORLD_VERSIONS, World, require_world, scene_maker, scenes_of

GENERATOR_VERSION = 2  # 2: the objects' names stand in the expressions' file
SPLITS = ("train", "val", "dev")

_COMMAND = "command.json"
_ATTEMPTS = 40  # scene seeds that may offer nothing to ask, before it counts as an error
_MAX_SEED = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a dataset is made of; equal commands make equal bytes.

    Attributes:
        worlds: which worlds, in this order.
        clips: short clips of each world.
        streams: stream episodes of each world.
        seed: of everything.
        split: "train", "val" or "dev" (for choosing a checkpoint: seeds of its own, but training's
            words and kinds of shape); equal seeds differ between them.
        size_wh: of the frames, pixels, at least 160 x 120.
        longs: long clips of the shapes world's stories.
    """

    worlds: tuple[World, ...]
    clips: int
    streams: int
    seed: int
    split: str
    size_wh: tuple[int, int] = (320, 240)
    longs: int = 0

    def __post_init__(self) -> None:
        counts = (self.clips, self.streams, self.longs)
        if min(counts) < 0 or not sum(counts):
            msg = f"expected clips or streams, got {self.clips} clips and {self.streams} streams"
            msg += f", {self.longs} long clips" if self.longs else ""
            raise InputError(msg)
        if self.longs and World.SHAPES not in self.worlds:
            msg = "long clips are of the shapes world; add it, or leave them out"
            raise InputError(msg)
        if self.split not in SPLITS:
            msg = f"split is {self.split!r}, expected one of {', '.join(SPLITS)}"
            raise InputError(msg)
        if self.seed < 0:
            msg = f"seed is {self.seed}, expected at least 0"
            raise InputError(msg)
        if len(set(self.worlds)) != len(self.worlds) or not self.worlds:
            named = ", ".join(world.value for world in self.worlds) or "none"
            msg = f"expected worlds that differ, got {named}"
            raise InputError(msg)
        if self.size_wh[0] < 160 or self.size_wh[1] < 120:
            msg = f"frames are {self.size_wh[0]}x{self.size_wh[1]}, expected at least 160x120"
            raise InputError(msg)

    def to_json(self) -> Json:
        """What tells one command from another, the versions included."""
        stories = {"longs": self.longs, "stories": STORY_VERSION} if self.longs else {}
        return {
            "generator": GENERATOR_VERSION,
            "worlds": {world.value: WORLD_VERSIONS[world] for world in self.worlds},
            "clips": self.clips,
            "streams": self.streams,
            "seed": self.seed,
            "split": self.split,
            "size_wh": list(self.size_wh),
            **stories,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One clip to make."""

    command: Command
    world: World
    kind: ClipKind
    number: int

    @property
    def video(self) -> str:
        """The clip's name; tells nothing of what is in it."""
        return f"{self.world.value}_{self.kind.value}_{self.number:05d}"

    def entropy(self, number: int) -> list[int]:
        """Seeds for generators: what the clip depends on."""
        place = (list(World).index(self.world), list(ClipKind).index(self.kind), number)
        return [self.command.seed, SPLITS.index(self.command.split), *place]


def generate(command: Command, out: Path, *, executor: Executor | None = None) -> Json:
    """Make what is missing of a dataset, then its files.

    Args:
        command: what it is made of.
        out: its folder.
        executor: what the clips are spread over; None: this process makes them.

    Returns:
        The content of `dataset.json`.

    Raises:
        InputError: if the folder holds something else, or another command's dataset.
        ForesegError: if a world cannot be drawn here.
    """
    for world in command.worlds:
        require_world(world)
    claim(command.to_json(), out)
    jobs = list(jobs_of(command))
    missing = [job for job in jobs if not part_path(out, job.video).is_file()]
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit="clip", disable=None) as bar:
        for _ in _write_made(missing, out, executor or SerialExecutor()):
            bar.update()
    metas = assemble(out, command.split, [job.video for job in jobs])
    summary = {
        "format": "foreseg",
        "version": 1,
        "command": command.to_json(),
        "counts": _counts(metas),
        "share_hard": _share_hard(metas),
    }
    write_json(out / "dataset.json", summary)
    return summary


def jobs_of(command: Command) -> Iterator[Job]:
    """List every clip of a command, world by world, the streams last."""
    for world in command.worlds:
        longs = command.longs if world is World.SHAPES else 0
        counts = {ClipKind.CLIP: command.clips, ClipKind.STREAM: command.streams}
        for kind, count in (*counts.items(), (ClipKind.LONG, longs)):
            for number in range(count):
                yield Job(command=command, world=world, kind=kind, number=number)


def make_clip(job: Job) -> tuple[Clip, Json]:
    """Make one clip, and what it was made of."""
    return _make_long(job) if job.kind is ClipKind.LONG else make_clip_of(job, scene_of(job))


def make_clip_of(job: Job, name: str) -> tuple[Clip, Json]:
    """Make a clip of a named scene.

    Raises:
        InputError: if the scene never offers anything to ask.
    """
    make, pace = scene_maker(job.world, name), PACES[job.world]
    is_clip = job.kind is ClipKind.CLIP
    cut, leg_s = (cut_clip, pace.clip_leg_s) if is_clip else (cut_stream, pace.stream_leg_s)
    rng = np.random.default_rng(job.entropy(job.number))
    for _ in range(_ATTEMPTS):
        seed = int(rng.integers(_MAX_SEED))
        clip = cut(make, seed, rng, size_wh=job.command.size_wh, leg_s=leg_s)
        if clip is not None:
            return clip, {"world": job.world.value, "scene": name, "seed": seed}
    msg = f"the scene {name!r} offered nothing to ask with {_ATTEMPTS} seeds for {job.video}; take another seed"
    raise InputError(msg)


def _make_long(job: Job) -> tuple[Clip, Json]:
    rng = np.random.default_rng(job.entropy(job.number))
    command = job.command
    for _ in range(_ATTEMPTS):
        seed = int(rng.integers(_MAX_SEED))
        clip = cut_long(seed, command.split, rng, size_wh=command.size_wh)
        if clip is not None:
            return clip, {"world": job.world.value, "scene": "story", "seed": seed}
    msg = f"no story offered anything to ask with {_ATTEMPTS} seeds for {job.video}"
    raise InputError(msg)


def scene_of(job: Job) -> str:
    """Choose a clip's scene: as many clips of each, in an order that is drawn block by block."""
    names = list(scenes_of(job.world))
    block, place = divmod(job.number, len(names))
    order = np.random.default_rng([*job.entropy(block), 1]).permutation(len(names))
    return names[order[place]]


def _made(job: Job) -> tuple[Clip, Json]:
    """What a worker does; one thread each, for workers share the cores already."""
    cv2.setNumThreads(1)
    return make_clip(job)


def _write_made(jobs: Sequence[Job], out: Path, executor: Executor) -> Iterator[str]:
    """Make parts in any order; only this process writes. What is not begun is dropped at the end."""
    with closing(executor.run(_made, jobs)) as outcomes:
        for outcome in outcomes:
            video = jobs[outcome.index].video
            if outcome.has_died:
                msg = f"whoever made {video} died, every time: out of memory, or crashed in native code"
                raise InputError(msg)
            clip, source = outcome.values[0]
            write_part(out, video, clip, source)
            yield video


def claim(wanted: Json, out: Path) -> None:
    """Note the command in a new folder, or see that it is the same as before.

    Raises:
        InputError: the folder holds something else, or another command's dataset.
    """
    path = out / PARTS / _COMMAND
    if not path.is_file():
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            msg = f"{out} is not empty and holds no dataset of foreseg-sim; choose another folder"
            raise InputError(msg)
        write_json(path, wanted)
        return
    there = json.loads(path.read_text("utf-8"))
    keys = [key for key in {**there, **wanted} if there.get(key) != wanted.get(key)]
    if keys:
        differs = "; ".join(f"{k} {there.get(k)} there, {wanted.get(k)} asked for" for k in keys)
        msg = f"{out} belongs to another command: {differs}; choose another folder"
        raise InputError(msg)


def _counts(metas: Sequence[Json]) -> Json:
    """Count what was written, by kind, scene, type and skill."""
    expressions = [e for meta in metas for e in meta["expressions"].values()]
    return {
        "videos": len(metas),
        "frames": sum(len(meta["frames"]) for meta in metas),
        "expressions": len(expressions),
        "kinds": _tally([meta["kind"] for meta in metas]),
        "scenes": _tally([f"{meta['world']}/{meta['scene']}" for meta in metas]),
        "types": _tally([e["type"] for e in expressions]),
        "skills": _tally([e["skill"] for e in expressions]),
    }


def _tally(words: Sequence[str]) -> dict[str, int]:
    return {word: words.count(word) for word in sorted(set(words))}


def _share_hard(metas: Sequence[Json]) -> Json:
    """Share of the foresight questions that constant velocity gets wrong, by kind."""
    shares = {}
    for kind in ClipKind:
        found = [
            e["difficulty"]
            for meta in metas
            if meta["kind"] == kind.value
            for e in meta["expressions"].values()
            if e["type"] == "foresight"
        ]
        if found:
            shares[kind.value] = round(found.count("hard") / len(found), 3)
    return shares
