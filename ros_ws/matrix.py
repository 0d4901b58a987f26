# SPDX-License-Identifier: Apache-2.0
"""Run the tests of the node on each ROS 2 distribution whose wheels PyPI has; `make matrix`.

Each distribution gets an environment of its own, build/matrix/NAME, with foreseg_msgs built into it
and without torch: what needs that is skipped there. Words after `--` go to pytest.

    python3 ros_ws/matrix.py                    # all
    python3 ros_ws/matrix.py kilted -- -k guard # one, some tests
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from setup_venv import ROOT, SetupError, VenvSetup

PLACE = ROOT / "build" / "matrix"
# The demo's extras without the wheels of Jazzy, and what runs tests.
EXTRAS = ("cpu", "nano", "video", "simulation", "evaluation", "view", "bags")
TOOLS = ("catkin-pkg", "empy", "hypothesis", "pycocotools", "pytest", "pytest-xdist")
LISTED = """
from importlib.metadata import requires
print(*(line for line in requires("foreseg") if line.startswith("ros-jazzy-")), sep="\\n")
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One release of ROS 2: which of Jazzy's packages it has no more, and what it wants besides."""

    gone: frozenset[str] = frozenset()
    more: frozenset[str] = frozenset()
    missing: str = ""  # why nothing can be run


DISTRIBUTIONS = {
    "humble": Distribution(missing="PyPI has no wheels of it (no ros-humble-rclpy)"),
    "jazzy": Distribution(),
    "kilted": Distribution(
        gone=frozenset({"python-cmake-module"}), more=frozenset({"ament-cmake-ros-core"})
    ),
}


class DistributionSetup(VenvSetup):
    """The set-up, with the wheels of a distribution in the place of Jazzy's."""

    def __init__(self, name: str) -> None:
        super().__init__(PLACE / name, ())
        self.name = name

    def _install(self, extras: list[str]) -> None:
        del extras
        self._say(f"installing packages for {self.name} (minutes the first time)")
        ours = f"{ROOT}[{','.join(EXTRAS)}]"
        self._pip("-e", ours, *TOOLS)
        listed = subprocess.run(
            [str(self.python), "-c", LISTED],
            env=self.env,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        its = DISTRIBUTIONS[self.name]
        names = (set(re.findall(r"ros-jazzy-([a-z-]+)", listed)) - its.gone) | its.more
        self._pip(*(f"ros-{self.name}-{name}" for name in sorted(names)))

    def _pip(self, *wanted: str) -> None:
        """Install; within the constraints, but for those on Jazzy's own packages."""
        pins = self.state / "constraints.txt"
        lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        pins.write_text("\n".join(line for line in lines if not line.startswith("ros-")), "utf-8")
        options = ("--retries", "2", "--progress-bar", "off", "-c", pins)
        self._call([self.python, "-m", "pip", "install", *options, *wanted])


def main() -> int:
    """Set up and test each; the exit code is 1 if a test failed anywhere."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description="Test the node on several ROS 2 distributions.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DISTRIBUTIONS))
    names = parser.parse_args(words[:cut]).names or list(DISTRIBUTIONS)
    unknown = sorted(set(names) - set(DISTRIBUTIONS))
    if unknown:
        parser.error(f"expected of {', '.join(DISTRIBUTIONS)}, got {', '.join(unknown)}")
    results = {name: _tested(name, words[cut + 1 :]) for name in names}
    for name, result in results.items():
        print(f"{name}: {result}")
    return int(any(result.startswith("FAILED") for result in results.values()))


def _tested(name: str, words: list[str]) -> str:
    """Whether the tests passed on a distribution, in a line."""
    if DISTRIBUTIONS[name].missing:
        return f"not run: {DISTRIBUTIONS[name].missing}"
    made = DistributionSetup(name)
    made.venv.mkdir(parents=True, exist_ok=True)
    try:
        made.run()
    except SetupError as error:
        return f"FAILED: {error}"
    tests = [] if any(word.startswith("tests/") for word in words) else ["tests/ros"]
    code = subprocess.run(
        [str(made.python), "-m", "pytest", *words, *tests],
        env={**made.env, "ROS_DISTRO": name, "PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
        check=False,
        stdin=subprocess.DEVNULL,
    ).returncode
    return "passed" if code == os.EX_OK else f"FAILED: pytest ended with {code}"


if __name__ == "__main__":
    raise SystemExit(main())
