# SPDX-License-Identifier: Apache-2.0
"""`foreseg record`: declared without ROS, which is imported when it runs."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
from pathlib import Path

from foreseg.clock import SystemClock
from foreseg.errors import ConfigError, InputError
from foreseg_ros.record.writer import BagWriter

POLL_S = 0.2  # a signal is seen within this
MAX_MB = 1_000_000
MAX_DURATION_S = 30 * 86400.0


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "record",
        help="record what a node sees and says into a bag (MCAP), until Ctrl-C",
        description="Records the images, masks, tracks, answers and diagnostics of a running node as"
        " an MCAP bag, for `foreseg replay`, `ros2 bag` and Foxglove.",
    )
    add = parser.add_argument
    add("--node", default="/foreseg", metavar="NAME", help="the node's full name (/foreseg)")
    add("--out", default="foreseg_bag", metavar="DIR", help="the bag's folder; it must be new")
    add("--duration", type=float, metavar="S", help="end after S seconds")
    add("--max-mb", type=int, default=10_000, metavar="MB", help="end after so much (10000)")
    add("--compress", action="store_true", help="compress each chunk with zstd")
    add("--overlay", action="store_true", help="~/overlay, too, which is drawn only for that")
    add("--also", action="append", default=[], metavar="TOPIC", help="another topic, such as /tf")
    parser.set_defaults(handler=record)


def record(arguments: argparse.Namespace) -> int:
    """Record until a signal, the time or the size ends it; 1 if nothing came.

    Raises:
        ConfigError: ROS 2 is not there.
        InputError: a number out of range, or a place that cannot be written.
        MissingExtraError: rosbags is not installed.
    """
    duration_s, max_mb = arguments.duration, arguments.max_mb
    if duration_s is not None and not (
        math.isfinite(duration_s) and 0 < duration_s <= MAX_DURATION_S
    ):
        msg = (
            f"--duration wants a number above 0 and at most {MAX_DURATION_S:.0f}, got {duration_s}"
        )
        raise InputError(msg)
    if not 1 <= max_mb <= MAX_MB:
        msg = f"--max-mb wants 1 to {MAX_MB}, got {max_mb}"
        raise InputError(msg)
    try:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from foreseg_ros.record.recorder import Recorder
    except ImportError as error:
        msg = f"recording wants ROS 2 ({error}): source its setup.bash, or use the demo's .venv"
        raise ConfigError(msg) from error
    out = Path(arguments.out).expanduser()
    writer = BagWriter(out, max_bytes=max_mb * 10**6, is_compressed=arguments.compress)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stopping.set())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    recorder = Recorder(arguments.node, writer, has_overlay=arguments.overlay, also=arguments.also)
    executor = SingleThreadedExecutor()
    executor.add_node(recorder)
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    _say(f"recording {arguments.node} into {out}; Ctrl-C ends it")
    try:
        while not (stopping.is_set() or writer.ending):
            executor.spin_once(timeout_sec=POLL_S)
            if duration_s is not None and clock.monotonic_ns() - began_ns >= duration_s * 1e9:
                break
    finally:
        problem = writer.close()
        skipped = recorder.skipped
        executor.shutdown()
        recorder.destroy_node()
        rclpy.try_shutdown()
    return _told(writer, skipped, problem, arguments.node)


def _told(writer: BagWriter, skipped: dict[str, str], problem: str, node: str) -> int:
    """Say what came; the exit code."""
    for topic, count in sorted(writer.counts.items()):
        _say(f"  {count:8d}  {topic}")
    for topic, why in sorted(skipped.items()):
        _say(f"  not recorded: {topic}: {why}")
    for text in filter(None, (writer.ending, problem)):
        sys.stderr.write(f"foreseg: {text}\n")
    if not writer.counts:
        sys.stderr.write(f"foreseg: nothing was recorded: is {node} up and active?\n")
        return 1
    _say(f"wrote {writer.out}: {writer.num_bytes / 1e6:.1f} MB of messages")
    return 1 if problem else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
