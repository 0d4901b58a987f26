# SPDX-License-Identifier: Apache-2.0
"""History push against plain memcpy, into the same kind of cold rotating buffers, in one run.

    python benchmarks/history_push.py [--json FILE]

All sides copy the same images into equally many buffers of the same kind (one array a slot, in
turn, together far larger than the caches), one frame each in turn, after every buffer was written
once. "dense" has the sparse tier switched off; "history" has it at its defaults, with frames
stamped at 30 Hz, so that every 30th push also reduces a frame. Throughput and ratios are of the
thread's CPU time, so that a busy machine does not decide; medians and p99 are of wall time. The
bar is 0.7 of memcpy's throughput for the push into the slots, and no allocation.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))

from foreseg.frames import CameraId, U8Array
from foreseg.history.ring import History

SIZES_WH = ((640, 480), (1920, 1080))
BAR = 0.7
RING_BYTES = 268_435_456  # the default of history.max_bytes
SPARSE_FRAMES = 120  # the default
FRAME_NS = 33_333_333
MAX_GROWTH_BLOCKS = 100  # of Python's allocator; a leak would show once per push


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    size: str
    slots: int
    what: str
    frames: int
    ms_p50: float  # wall
    ms_p99: float  # wall
    gb_s: float  # bytes of all frames over the CPU time of all pushes
    ratio: float  # to memcpy's, of CPU time
    growth_blocks: int  # Python objects more after as many pushes again

    @property
    def passes(self) -> bool:
        """Whether the bar is reached, where there is one."""
        is_fast = self.what != "dense" or self.ratio >= BAR
        return is_fast and self.growth_blocks <= MAX_GROWTH_BLOCKS


def measure(size_wh: tuple[int, int], rounds: int) -> list[Row]:
    width, height = size_wh
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(4)]
    num_bytes = images[0].nbytes
    num = RING_BYTES // num_bytes
    buffers = [np.empty_like(images[0]) for _ in range(num)]
    for buffer in buffers:
        buffer.fill(1)
    dense, history = _warm_history(images[0], num, 0), _warm_history(images[0], num, SPARSE_FRAMES)
    sides: dict[str, Callable[[int, U8Array], object]] = {
        "memcpy": lambda i, image: np.copyto(buffers[i % num], image),
        "dense": lambda i, image: dense.push(image, stamp_ns=i * FRAME_NS, received_ns=i),
        "history": lambda i, image: history.push(image, stamp_ns=i * FRAME_NS, received_ns=i),
    }
    took: dict[str, list[tuple[int, int]]] = {what: [] for what in sides}
    order = list(sides.items())
    for i in range(rounds * num):
        for turn in range(len(sides)):  # each is as often first, when the image is not yet cached
            what, side = order[(i + turn) % len(order)]
            wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
            side(i, images[i % len(images)])
            cpu = time.thread_time_ns() - cpu
            took[what].append((time.perf_counter_ns() - wall, cpu))
    growths = {
        "memcpy": 0,
        "dense": _growth(dense, images[0]),
        "history": _growth(history, images[0]),
    }
    memcpy_ns = sum(cpu for _, cpu in took["memcpy"])
    rows = []
    for what, pairs in took.items():
        wall_ms = np.array([wall for wall, _ in pairs]) / 1e6
        cpu_ns = sum(cpu for _, cpu in pairs)
        rows.append(
            Row(
                size=f"{width}x{height}",
                slots=num,
                what=what,
                frames=len(pairs),
                ms_p50=float(np.median(wall_ms)),
                ms_p99=float(np.quantile(wall_ms, 0.99)),
                gb_s=num_bytes * len(pairs) / cpu_ns,
                ratio=memcpy_ns / cpu_ns,
                growth_blocks=growths[what],
            )
        )
    return rows


def _warm_history(image: U8Array, num: int, sparse_frames: int) -> History:
    """A history in which every slot of both tiers was written once."""
    history = History(
        camera=CameraId("c"), max_bytes=RING_BYTES, max_frames=num, sparse_frames=sparse_frames
    )
    for i in range(-num - sparse_frames, 0):
        history.push(image, stamp_ns=i * 2_000_000_000, received_ns=0)
    return history


def _growth(history: History, image: U8Array) -> int:
    """Blocks that Python holds more after 1000 further pushes, every tenth one sparse."""
    start_ns = 10**15
    blocks = []
    for i in range(2500):
        history.push(image, stamp_ns=start_ns + i * 100_000_000, received_ns=start_ns + i)
        if i in (1499, 2499):  # by then every record of both tiers is one of these
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    return blocks[1] - blocks[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6, help="turns of the ring that count")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    args = parser.parse_args()
    rows = [row for size_wh in SIZES_WH for row in measure(size_wh, args.rounds)]
    print(f"history push vs memcpy; {platform.machine()}, 1 thread, numpy {np.__version__}, uint8")
    print(
        f"{'size':>10} {'slots':>6} {'what':>8} {'frames':>7} {'ms p50':>8} {'p99':>8}"
        f" {'GB/s':>6} {'ratio':>6} {'growth':>7}  bar {BAR} on dense"
    )
    for row in rows:
        print(
            f"{row.size:>10} {row.slots:>6} {row.what:>8} {row.frames:>7} {row.ms_p50:>8.3f}"
            f" {row.ms_p99:>8.3f} {row.gb_s:>6.1f} {row.ratio:>6.2f} {row.growth_blocks:>7}"
            f"  {'' if row.what == 'memcpy' else 'ok' if row.passes else 'MISSED'}"
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.passes for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
