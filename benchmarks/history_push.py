# SPDX-License-Identifier: Apache-2.0
"""History push against plain memcpy, into the same kind of cold rotating buffers, in one run.

    python benchmarks/history_push.py [--json FILE]

Both sides copy the same image into equally many buffers of the same kind (one array a slot, in
turn, together far larger than the caches), in alternating rounds, after every buffer was written
once. The bar is 0.7 of memcpy's throughput and no allocation. The sparse tier takes part at its
default rate, with frames stamped at 30 Hz. Throughput and ratio are of the thread's CPU time, so
that a busy machine does not decide; the medians and p99 are of wall time.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import tracemalloc
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))

from foreseg.frames import CameraId
from foreseg.history import History

SIZES_WH = ((640, 480), (1920, 1080))
BAR = 0.7
RING_BYTES = 268_435_456  # the default of history.max_bytes
SPARSE_FRAMES = 120  # the default
FRAME_NS = 33_333_333
MAX_GROWTH_BYTES = 65_536  # records that differ in the digits of their integers; a frame is more


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    size: str
    slots: int
    pushes: int
    memcpy_ms_p50: float
    memcpy_ms_p99: float
    push_ms_p50: float
    push_ms_p99: float
    memcpy_gb_s: float  # bytes of all frames over the CPU time of all copies
    push_gb_s: float
    ratio: float  # of throughputs
    ratio_p50: float  # of median times
    growth_bytes: int  # traced memory over one more turn of the ring

    @property
    def passes(self) -> bool:
        """Whether the bar is reached."""
        return self.ratio >= BAR and self.growth_bytes <= MAX_GROWTH_BYTES


def measure(size_wh: tuple[int, int], rounds: int) -> Row:
    width, height = size_wh
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(4)]
    num = RING_BYTES // images[0].nbytes
    history = History(camera=CameraId("c"), max_bytes=RING_BYTES, max_frames=num)
    buffers = [np.empty_like(images[0]) for _ in range(num)]
    took_push: list[tuple[int, int]] = []
    took_copy: list[tuple[int, int]] = []
    for i in range(SPARSE_FRAMES + num):  # every slot of both tiers is written once
        history.push(images[0], stamp_ns=(i - SPARSE_FRAMES - num) * 2_000_000_000, received_ns=0)
    pushed = 0
    for turn in range(rounds + 1):
        for i, buffer in enumerate(buffers):
            image = images[i % len(images)]
            start = read_ns()
            np.copyto(buffer, image)
            took = elapsed_ns(start)
            took_copy += [took] if turn else []  # the first turn warms up
        for i in range(num):
            image = images[i % len(images)]
            start = read_ns()
            history.push(image, stamp_ns=pushed * FRAME_NS, received_ns=0)
            took = elapsed_ns(start)
            pushed += 1
            took_push += [took] if turn else []
    growth = traced_growth(history, images[0], pushed)
    (copy, copy_cpu), (push, push_cpu) = np.array(took_copy).T, np.array(took_push).T
    total = images[0].nbytes * len(push)
    return Row(
        size=f"{width}x{height}",
        slots=num,
        pushes=len(push),
        memcpy_ms_p50=float(np.median(copy)) / 1e6,
        memcpy_ms_p99=float(np.quantile(copy, 0.99)) / 1e6,
        push_ms_p50=float(np.median(push)) / 1e6,
        push_ms_p99=float(np.quantile(push, 0.99)) / 1e6,
        memcpy_gb_s=total / float(copy_cpu.sum()),
        push_gb_s=total / float(push_cpu.sum()),
        ratio=float(copy_cpu.sum() / push_cpu.sum()),
        ratio_p50=float(np.median(copy) / np.median(push)),
        growth_bytes=growth,
    )


def read_ns() -> tuple[int, int]:
    """Wall time and the thread's CPU time."""
    return time.perf_counter_ns(), time.thread_time_ns()


def elapsed_ns(start: tuple[int, int]) -> tuple[int, int]:
    """Both since `start`."""
    cpu = time.thread_time_ns()
    return time.perf_counter_ns() - start[0], cpu - start[1]


def traced_growth(history: History, image: np.ndarray, pushed: int) -> int:
    """Bytes that Python and numpy hold more after another turn, the sparse tier full as well."""
    period_ns = 2_000_000_000
    for i in range(150):  # fills the sparse tier
        history.push(image, stamp_ns=pushed * FRAME_NS + i * period_ns, received_ns=0)
    tracemalloc.start()
    stamp_ns = pushed * FRAME_NS + 150 * period_ns
    for i in range(600):  # old records, made untraced, give way to traced ones
        history.push(image, stamp_ns=stamp_ns + i * period_ns, received_ns=0)
    before, _ = tracemalloc.get_traced_memory()
    for i in range(600, 1200):
        history.push(image, stamp_ns=stamp_ns + i * period_ns, received_ns=0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6, help="turns of the ring that count")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    args = parser.parse_args()
    rows = [measure(size_wh, args.rounds) for size_wh in SIZES_WH]
    print(f"history push vs memcpy; {platform.machine()}, 1 thread, numpy {np.__version__}, uint8")
    print(
        f"{'size':>10} {'slots':>6} {'pushes':>7} {'memcpy ms p50/p99':>18} {'push ms p50/p99':>18}"
        f" {'GB/s':>12} {'ratio':>6} {'ratio p50':>9} {'growth B':>8}  bar {BAR}"
    )
    for row in rows:
        print(
            f"{row.size:>10} {row.slots:>6} {row.pushes:>7}"
            f" {row.memcpy_ms_p50:>9.3f} / {row.memcpy_ms_p99:<6.3f}"
            f" {row.push_ms_p50:>9.3f} / {row.push_ms_p99:<6.3f}"
            f" {row.memcpy_gb_s:>5.1f} {row.push_gb_s:>6.1f} {row.ratio:>6.2f}"
            f" {row.ratio_p50:>9.2f} {row.growth_bytes:>8}  {'ok' if row.passes else 'MISSED'}"
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.passes for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
