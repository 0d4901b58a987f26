# SPDX-License-Identifier: Apache-2.0
"""Whether anything grows with the stream: hours of frames and thousands of questions, on a simulated clock.

    python benchmarks/soak.py --plot soak.svg                            # 100,000 frames, 10,000 questions
    python benchmarks/soak.py --tracker nano --minutes 60                # until an hour of the clock is over

A drawn scene is played forth and back through the pipeline of the robot. Each question adds a query of its own to
`kinematic`, of which one in ten stands for a while and is removed. The tracker repeats its masks, which costs nothing; with
`--tracker nano` it is the shipped one. At every hundredth of the run the garbage is collected, and memory, handles, threads,
shared memory, Python's blocks and processor time a frame are read. The run fails where the last quarter has more than the second.
^C ends it with what there is by then.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from foreseg.commands.bundle_bench import writable_file, write_text
from foreseg.commands.options import config_from_words
from foreseg.commands.run_report import load_tracker
from foreseg.config import Config
from foreseg.dialogue import Answer, Query, QueryId
from foreseg.driving.executor import Executor, PublishedMasks
from foreseg.driving.player import Latencies, Player
from foreseg.engines.processor import this_processor
from foreseg.errors import ForesegError, InputError
from foreseg.frames import DEFAULT_CAMERA, U8Array
from foreseg.pipeline.events import RequestId
from foreseg.pipeline.state import State
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.load import build_reasoner
from foreseg.tracker.base import Tracker
from foreseg_evaluation.baselines import repeat_tracker
from foreseg_simulation.foresight import SceneConfig
from foreseg_simulation.scenes import make_scene

SIZE_WH, RATE_HZ = (160, 120), 15.0
NUM_DRAWN = 450  # kept, and played forth and back
NUM_SAMPLES = 100
MS = 1_000_000
LATENCIES = Latencies(tracker_ns=15 * MS, reasoner_ns=300 * MS)
WORDS = ("what moves?", "what will leave the view next?", "which object will the ball hit next?")
STANDS_EVERY, STANDS_FOR = 10, 3  # of ten questions one stands, until as many more were asked
PERIOD_S = 2.0
INTERRUPTED = 130
SELF = Path("/proc/self")
SHARED = "/dev/shm/"  # noqa: S108 (it is read in names)
NEWLINE = "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is there after so many frames."""

    frames: int
    memory_mb: float
    handles: int
    threads: int
    shared_mb: float
    blocks: int  # that Python has allocated
    frame_ms: float  # processor time a frame, since the last sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """By how much the last quarter may exceed the second one: times, and then plus."""

    times: float = 1.0
    plus: float = 0.0


LIMITS = {
    "memory_mb": Limit(plus=3.0),
    "handles": Limit(),
    "threads": Limit(),
    "shared_mb": Limit(),
    "blocks": Limit(times=1.01, plus=500.0),
    "frame_ms": Limit(times=1.25),
}


class Counted:
    """An output that counts."""

    def __init__(self) -> None:
        self.masks = 0
        self.answers: dict[str, int] = {}

    def publish_masks(self, masks: PublishedMasks) -> None:
        """Count it if it has an object."""
        self.masks += bool(masks.tracks)

    def publish_answer(self, answer: Answer) -> None:
        """Count it by what it came to."""
        self.answers[answer.status.name] = self.answers.get(answer.status.name, 0) + 1


class Asking:
    """Questions, evenly over the frames; whoever asks takes its replies."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._asked = 0
        self._standing: list[tuple[int, QueryId]] = []
        self._open: list[RequestId] = []

    @property
    def asked(self) -> int:
        """So many were."""
        return self._asked

    def ask(self) -> None:
        """The next one."""
        number = self._asked
        self._asked += 1
        stands = number % STANDS_EVERY == 0
        query = Query(
            id=QueryId(f"question {number}"),
            text=WORDS[number % len(WORDS)],
            period_s=PERIOD_S if stands else 0.0,
        )
        self._open.append(self._player.ask(query))
        if stands:
            self._standing.append((number + STANDS_FOR, query.id))
        for _, name in itertools.takewhile(lambda one: one[0] <= number, self._standing):
            self._open.append(self._player.remove_query(name))
        self._standing = [one for one in self._standing if one[0] > number]
        self._open = [one for one in self._open if self._player.reply(one) is None]


def frames_of(images: Sequence[U8Array]) -> Iterator[U8Array]:
    """For ever, forth and back."""
    return itertools.cycle([*images, *images[-2:0:-1]])


def drawn() -> list[U8Array]:
    """Frames of a scene."""
    scene = make_scene("leave", 5, SceneConfig(size_wh=SIZE_WH, rate_hz=RATE_HZ))
    return [frame.image for frame in itertools.islice(scene.frames(), NUM_DRAWN)]


def play(
    player: Player, num_frames: int, num_questions: int, deadline_s: float
) -> Iterator[Sample]:
    """Samples, as the frames go by; `deadline_s` is of `time.monotonic`."""
    asking, images = Asking(player), frames_of(drawn())
    every, began = max(1, num_frames // NUM_SAMPLES), time.process_time()
    for number, image in zip(range(num_frames), images, strict=False):
        while asking.asked * num_frames < num_questions * number:
            asking.ask()
        player.feed(DEFAULT_CAMERA, image, round(number * 1e9 / RATE_HZ))
        is_over = time.monotonic() > deadline_s
        if is_over or (number + 1) % every == 0:
            took_ms = (time.process_time() - began) * 1000
            yield sample(number + 1, took_ms / (number % every + 1))
            if is_over:
                return
            began = time.process_time()


def sample(frames: int, frame_ms: float) -> Sample:
    """Of this process, now."""
    gc.collect()
    status = (SELF / "status").read_text("ascii").splitlines()
    resident = next(line for line in status if line.startswith("VmRSS"))
    return Sample(
        frames=frames,
        memory_mb=int(resident.split()[1]) / 1024,
        handles=sum(1 for _ in (SELF / "fd").iterdir()),
        threads=threading.active_count(),
        shared_mb=shared_bytes((SELF / "maps").read_text("utf-8")) / 1e6,
        blocks=sys.getallocatedblocks(),
        frame_ms=frame_ms,
    )


def shared_bytes(maps: str) -> int:
    """Of the shared memory that a process has, by the text of its /proc/PID/maps."""
    ends = [line.split()[0].split("-") for line in maps.splitlines() if SHARED in line]
    return sum(int(end, 16) - int(start, 16) for start, end in ends)


def grown(samples: Sequence[Sample]) -> dict[str, tuple[float, float, bool]]:
    """Of each figure the medians of the second quarter and of the last, and whether that is too much."""
    quarter = max(1, len(samples) // 4)
    found = {}
    for name, limit in LIMITS.items():
        second, last = (
            float(np.median([getattr(one, name) for one in part]))
            for part in (samples[quarter : 2 * quarter] or samples[:1], samples[-quarter:])
        )
        found[name] = (second, last, last > second * limit.times + limit.plus)
    return found


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Each figure over the frames."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(9, 4), layout="constrained", sharex=True)
    for name, its in zip(LIMITS, axes.flat, strict=True):
        values = [getattr(one, name) for one in samples]
        its.plot([one.frames for one in samples], values)
        its.set_title(name.replace("_", ", "))
        its.set_ylim(0, 1.2 * max(*values, 1e-3))
    figure.savefig(path)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table; 1 where something grows, 130 where ^C has ended it before."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--tracker", choices=("repeat", "nano"), default="repeat")
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="at most, by the clock")
    parser.add_argument("--plot", help="the figures over the frames, as a picture")
    parser.add_argument("--json", help="the samples, for machines")
    options = parser.parse_args(arguments)
    try:
        return soak(options)
    except ForesegError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def soak(options: argparse.Namespace) -> int:
    """What `main` does, of options that were read.

    Raises:
        InputError: a number or a file that cannot be.
    """
    if not 8 <= options.frames <= 10**9 or not 0 <= options.questions <= options.frames:
        msg = f"wants at least 8 --frames and no more --questions than these, got {options.frames} and {options.questions}"
        raise InputError(msg)
    if not 0 < options.minutes <= 1e6:
        msg = f"--minutes wants a number above 0, got {options.minutes:g}"
        raise InputError(msg)
    plot, table = (writable_file(name) if name else None for name in (options.plot, options.json))
    config = config_from_words([])
    output = Counted()
    player = Player(
        State.start(config, (DEFAULT_CAMERA,)),
        Executor(config, (DEFAULT_CAMERA,), make_tracker(options.tracker, config)),
        output,
        reasoner=build_reasoner(ReasonerSpec(kind="kinematic")),
        latencies=LATENCIES,
    )
    print(f"{this_processor()}; load {os.getloadavg()[0]:.1f}")
    began = time.monotonic()
    samples: list[Sample] = []
    played = play(player, options.frames, options.questions, began + 60 * options.minutes)
    ended = 0
    try:
        samples.extend(tqdm(played, total=NUM_SAMPLES, unit="%", disable=None))
    except KeyboardInterrupt:
        ended = INTERRUPTED
    if not samples:
        print("interrupted before the first of its looks", file=sys.stderr)
        return ended
    took_s = time.monotonic() - began
    print(
        f"{'interrupted; ' if ended else ''}{samples[-1].frames} frames in {took_s:.0f} s by the clock, {output.masks} with masks;"
        f" answers: {dict(sorted(output.answers.items()))}"
    )
    found = grown(samples)
    print("| | second quarter | last quarter | |\n|---|---|---|---|")
    for name, (second, last, is_too_much) in found.items():
        verdict = "**grows**" if is_too_much else "stays"
        print(f"| {name} | {second:.2f} | {last:.2f} | {verdict} |")
    if table is not None:
        write_text(table, json.dumps([asdict(one) for one in samples]) + NEWLINE)
    if plot is not None:
        draw(samples, plot)
    return 1 if any(is_too_much for _, _, is_too_much in found.values()) else ended


def make_tracker(name: str, config: Config) -> Callable[[int], Tracker]:
    """The shipped one, or one that repeats its masks."""
    return load_tracker(config) if name == "nano" else repeat_tracker


if __name__ == "__main__":
    sys.exit(main())
