# SPDX-License-Identifier: Apache-2.0
"""What viewers cost the tracker: frame to mask with none and with many, in turns.

    python benchmarks/viewers.py --viewers 20 --rounds 5 --seconds 12

The viewers are a process of their own that takes pictures as fast as they come, on this machine, too:
so what they take of its processors counts against us. One object, the nano tracker on one thread.

Three measures of a frame: the clock from its arrival to its masks; the same less the time in which the
pipeline's two threads waited for a processor (Linux, `schedstat`), which a machine with other work spoils less,
and which has all that they wait for the server's threads in this process; and their processor time.
Rounds come in pairs, and the median over pairs of their ratios stands beside that of all frames together.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreseg.clock import SystemClock
from foreseg.commands.options import config_from_words
from foreseg.commands.run_report import load_tracker
from foreseg.driving.executor import Executor, PublishedMasks
from foreseg.driving.worker import Worker
from foreseg.frames import DEFAULT_CAMERA, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg_simulation.foresight import SceneConfig
from foreseg_simulation.scenes import make_scene
from foreseg_view.board import Board
from foreseg_view.hub import MAX_VIEWERS
from foreseg_view.server import ViewServer
from foreseg_view.worker_host import WorkerHost

FloatArray = NDArray[np.float64]
NUM_FRAMES = 60  # kept, and played forth and back
VIEWERS = """
import asyncio, json, sys
from websockets.asyncio.client import connect

async def look(url, counts, number):
    async with connect(url, compression=None, max_size=None) as live:
        while True:
            await live.send(json.dumps({"type": "ready", "side": 640}))
            while not isinstance(await live.recv(), bytes):
                pass
            counts[number] += 1

async def main(url, num, seconds):
    counts = [0] * num
    tasks = [asyncio.create_task(look(url, counts, n)) for n in range(num)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    print(sum(counts) / num / seconds)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


PIPELINE = ("foreseg-loop", "foreseg-tracker")
MEASURES = ("clock", "clock less waiting for a processor", "processor time")


class Output:
    """Hands on to the board, and notes what each frame took."""

    def __init__(self, board: Board) -> None:
        self.took_ms: list[tuple[float, float, float]] = []  # as MEASURES has them
        self._board = board
        self._clock = SystemClock()
        self._last = (0, 0)

    def publish_masks(self, masks: PublishedMasks) -> None:
        """One frame, in the pipeline's thread."""
        self._board.publish_masks(masks)
        clock_ms = (self._clock.monotonic_ns() - masks.frame.received_ns) / 1e6
        now = ran_and_waited_ns()
        ran_ms, queued_ms = ((new - old) / 1e6 for new, old in zip(now, self._last, strict=True))
        self._last = now
        if masks.tracks:
            self.took_ms.append((clock_ms, max(0.0, clock_ms - queued_ms), ran_ms))

    def publish_answer(self, _: object) -> None:
        """Nothing is asked."""


def ran_and_waited_ns() -> tuple[int, int]:
    """The pipeline's threads until now: processor time, and time of waiting for one (0 where no kernel tells)."""
    ran = waited = 0
    for thread in threading.enumerate():
        path = Path(f"/proc/self/task/{thread.native_id}/schedstat")
        if thread.name in PIPELINE and path.exists():
            words = path.read_text("ascii").split()
            ran, waited = ran + int(words[0]), waited + int(words[1])
    return ran, waited


def feed(worker: Worker, frames: list[U8Array], hz: float, stopping: threading.Event) -> None:
    """Frames at a steady rate, forth and back."""
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    for number in itertools.count():
        rank = number % (2 * len(frames) - 2)
        image = frames[rank if rank < len(frames) else 2 * len(frames) - 2 - rank]
        due_ns = began_ns + round(number / hz * 1e9)
        if stopping.wait(max(0, due_ns - clock.monotonic_ns()) / 1e9):
            return
        worker.submit_frame(DEFAULT_CAMERA, image, 1 + round(number / hz * 1e9))


def main() -> None:
    """Print one line a round, and the ratio over all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=20, help=f"1 to {MAX_VIEWERS}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0, help="of a round")
    parser.add_argument("--hz", type=float, default=10.0, help="of the camera")
    wanted = parser.parse_args()
    for name, most in (("viewers", MAX_VIEWERS), ("rounds", 100), ("seconds", 600), ("hz", 100)):
        value = getattr(wanted, name)
        if not 1 <= value <= most:
            parser.error(f"--{name} wants 1 to {most}, got {value:g}")
    scene = make_scene("hit", 3, SceneConfig(size_wh=(640, 480), rate_hz=wanted.hz))
    frames = [frame.image for frame in itertools.islice(scene.frames(), NUM_FRAMES)]
    config = config_from_words(["tracker.threads=1"])
    executor = Executor(config, (DEFAULT_CAMERA,), load_tracker(config))
    board = Board()
    output = Output(board)
    worker = Worker(config, (DEFAULT_CAMERA,), executor, output)
    server = ViewServer(board, WorkerHost(worker, "bench"), address="127.0.0.1", port=0)
    worker.start()
    server.start()
    stopping = threading.Event()
    feeding = threading.Thread(target=feed, args=(worker, frames, wanted.hz, stopping))
    feeding.start()
    try:
        stopping.wait(2.0)
        box = SpatialPrompt(box=BoxXyxy(60, 290, 150, 390))
        worker.requests.add_objects(DEFAULT_CAMERA, [(ObjectId("it"), box)], print)
        stopping.wait(3.0)
        measure(wanted, output, f"ws://127.0.0.1:{server.port}/api/live", stopping)
    finally:
        stopping.set()
        feeding.join()
        server.stop()
        worker.stop()


def measure(
    wanted: argparse.Namespace, output: Output, url: str, stopping: threading.Event
) -> None:
    """Rounds without and with viewers, in turns."""
    rounds: dict[bool, list[FloatArray]] = {False: [], True: []}
    for number in range(2 * wanted.rounds):
        has_viewers = number % 2 == 1
        words = [sys.executable, "-c", VIEWERS, url, str(wanted.viewers), str(wanted.seconds)]
        output.took_ms.clear()
        if has_viewers:
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            seen = f", {float(done.stdout):.1f} pictures/s each"
        else:
            stopping.wait(wanted.seconds)
            seen = ""
        values = np.array(output.took_ms, dtype=np.float64).reshape(-1, len(MEASURES))
        if not len(values):
            sys.exit("no frame was tracked in this round: give more --seconds, or less --hz")
        rounds[has_viewers].append(values)
        p50, p99 = np.percentile(values[:, 0], [50, 99])
        label = f"{wanted.viewers if has_viewers else 0:3d} viewers"
        print(
            f"{label}: {len(values)} frames, p50 {p50:.1f} ms, p99 {p99:.1f} ms{seen}", flush=True
        )
    for rank, name in enumerate(MEASURES):
        for share in (50, 99):
            print(f"{name}, p{share}: {compared(rounds, rank, share)}")
    load = Path("/proc/loadavg").read_text("ascii").split()[0]
    counts = " and ".join(str(sum(map(len, rounds[key]))) for key in (False, True))
    print(
        f"{counts} frames at {wanted.hz:g} Hz; {processor()}, {os.cpu_count()} cores, load {load}"
    )


def compared(rounds: dict[bool, list[FloatArray]], rank: int, share: int) -> str:
    """A percentile without and with viewers: of all frames, and the median over pairs of rounds."""
    alone, watched = (
        float(np.percentile(np.concatenate(rounds[key])[:, rank], share)) for key in (False, True)
    )
    pairs = zip(rounds[False], rounds[True], strict=True)
    ratios = [
        np.percentile(b[:, rank], share) / np.percentile(a[:, rank], share) for a, b in pairs
    ]
    return (
        f"{alone:.1f} -> {watched:.1f} ms, {watched / alone:.2f} times"
        f" (median of {len(ratios)} pairs of rounds: {np.median(ratios):.2f})"
    )


def processor() -> str:
    """Its name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "a processor")


if __name__ == "__main__":
    main()
