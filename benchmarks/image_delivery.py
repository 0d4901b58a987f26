# SPDX-License-Identifier: Apache-2.0
"""How many images reach another process: the shipped Fast DDS profile beside the defaults.

A publisher and a subscriber in their own processes, on a private domain; the profiles alternate,
so that what else the machine does hits both. Latency is publish() call to callback, on the
monotonic clock that both share. Prints one table:

    .venv/bin/python benchmarks/image_delivery.py [--frames 900] [--size 1920x1080] [--rate 30]
"""

from __future__ import annotations

import argparse
import array
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from foreseg_ros.demo.domains import reserve_domain

ROOT = Path(__file__).resolve().parents[1]
PROFILES = {
    "shipped": {"FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "launch/params/fastdds.xml")},
    "default": {},
}
BAR_PERCENT = 99.0  # of the shipped profile at 1080p, 30 Hz
DISCOVERY_S = 30.0
LAST_FRAMES_S = 1.0  # a subscriber listens on for so long after the end was announced
NS = 1_000_000_000


def main() -> int:
    """Run all rounds, print the table; exit code 1 if the shipped profile misses the bar."""
    options = _options()
    if options.role:
        role = {"publisher": publish, "subscriber": subscribe}[options.role]
        role(options)
        return 0
    results = [
        {"round": number, "profile": name, **run_once(options, PROFILES[name])}
        for number in range(1, options.rounds + 1)
        for name in (PROFILES if number % 2 else reversed(PROFILES))
    ]
    width, height = options.size
    print(
        f"{width}x{height} rgb8 ({width * height * 3 / 1e6:.1f} MB) at {options.rate:g} Hz,"
        f" {options.frames} frames, {options.reliability}, keep last {options.depth};"
        f" {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'profile':8} {'round':>5} {'sent':>6} {'received':>9} {'share':>7}", end="")
    print(f" {'longest gap':>12} {'p50 ms':>7} {'p99 ms':>7} {'sent at Hz':>11}")
    for row in results:
        print(
            f"{row['profile']:8} {row['round']:5d} {row['sent']:6d} {row['received']:9d}"
            f" {row['share_percent']:6.2f}% {row['longest_gap']:12d} {row['p50_ms']:7.1f}"
            f" {row['p99_ms']:7.1f} {row['sent_hz']:11.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    worst = min(row["share_percent"] for row in results if row["profile"] == "shipped")
    print(f"bar: shipped >= {BAR_PERCENT:g} % -> {'met' if worst >= BAR_PERCENT else 'MISSED'}")
    return 0 if worst >= BAR_PERCENT else 1


@lru_cache
def _domain() -> int:
    """One for all runs: those follow one another."""
    return reserve_domain()


def run_once(options: argparse.Namespace, profile: dict[str, str]) -> dict[str, float]:
    """One publisher, one subscriber, one profile."""
    env = {k: v for k, v in os.environ.items() if "DEFAULT_PROFILES_FILE" not in k} | profile
    env["ROS_DOMAIN_ID"] = str(_domain())
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    width, height = options.size
    command = [
        *(sys.executable, str(Path(__file__).resolve()), "--size", f"{width}x{height}"),
        *("--frames", str(options.frames), "--rate", str(options.rate)),
        *("--depth", str(options.depth), "--reliability", options.reliability, "--role"),
    ]
    with (
        subprocess.Popen([*command, "subscriber"], env=env, stdout=subprocess.PIPE) as receiver,
        subprocess.Popen([*command, "publisher"], env=env, stdout=subprocess.PIPE) as sender,
    ):
        sent = json.loads(sender.communicate()[0])
        got = json.loads(receiver.communicate()[0])
    latencies_ms = np.asarray(got["latencies_ns"], dtype=np.float64) / 1e6
    indices = [-1, *got["indices"], sent["sent"]]
    return {
        "sent": sent["sent"],
        "received": len(got["indices"]),
        "share_percent": 100 * len(got["indices"]) / sent["sent"],
        "longest_gap": max(b - a for a, b in itertools.pairwise(indices)) - 1,
        "p50_ms": float(np.percentile(latencies_ms, 50)) if latencies_ms.size else float("nan"),
        "p99_ms": float(np.percentile(latencies_ms, 99)) if latencies_ms.size else float("nan"),
        "sent_hz": sent["hz"],
    }


def publish(options: argparse.Namespace) -> None:
    """Send paced frames, once somebody listens; print what was sent."""
    import rclpy
    from sensor_msgs.msg import Image
    from std_msgs.msg import Empty

    rclpy.init()
    node = rclpy.create_node("image_delivery_publisher")
    images = node.create_publisher(Image, "image", _qos(options))
    ends = node.create_publisher(Empty, "end", 1)
    deadline = time.monotonic() + DISCOVERY_S
    while not (images.get_subscription_count() and ends.get_subscription_count()):
        rclpy.spin_once(node, timeout_sec=0.05)
        if time.monotonic() > deadline:
            sys.exit("no subscriber appeared")
    width, height = options.size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    msg = Image(height=height, width=width, step=width * 3, encoding="rgb8")
    started = time.monotonic_ns()
    for index in range(options.frames):
        due = started + round(index * NS / options.rate)
        time.sleep(max(0, due - time.monotonic_ns()) / NS)
        data = array.array("B")
        data.frombytes(pixels.data.cast("B"))
        msg.data = data
        msg.header.frame_id = str(index)
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(time.monotonic_ns(), NS)
        images.publish(msg)
    seconds = (time.monotonic_ns() - started) / NS
    ends.publish(Empty())
    rclpy.spin_once(node, timeout_sec=LAST_FRAMES_S)
    print(json.dumps({"sent": options.frames, "hz": options.frames / seconds}))
    node.destroy_node()
    rclpy.shutdown()


def subscribe(options: argparse.Namespace) -> None:
    """Note every frame until the end is announced; print indices and latencies."""
    import rclpy
    from sensor_msgs.msg import Image
    from std_msgs.msg import Empty

    rclpy.init()
    node = rclpy.create_node("image_delivery_subscriber")
    indices: list[int] = []
    latencies_ns: list[int] = []
    ended_at: list[float] = []

    def take(msg: Image) -> None:
        now = time.monotonic_ns()
        indices.append(int(msg.header.frame_id))
        latencies_ns.append(now - msg.header.stamp.sec * NS - msg.header.stamp.nanosec)

    node.create_subscription(Image, "image", take, _qos(options))
    node.create_subscription(Empty, "end", lambda _: ended_at.append(time.monotonic()), 1)
    deadline = time.monotonic() + DISCOVERY_S + 3 * options.frames / options.rate
    while time.monotonic() < (ended_at[0] + LAST_FRAMES_S if ended_at else deadline):
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps({"indices": indices, "latencies_ns": latencies_ns}))
    node.destroy_node()
    rclpy.shutdown()


def _qos(options: argparse.Namespace) -> object:
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    reliability = {
        "best_effort": ReliabilityPolicy.BEST_EFFORT,
        "reliable": ReliabilityPolicy.RELIABLE,
    }[options.reliability]
    return QoSProfile(depth=options.depth, reliability=reliability)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=900)
    parser.add_argument("--size", type=_size, default=(1920, 1080), metavar="WxH")
    parser.add_argument("--rate", type=float, default=30.0, metavar="HZ")
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--reliability", choices=["best_effort", "reliable"], default="best_effort"
    )
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--role", choices=["publisher", "subscriber"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
