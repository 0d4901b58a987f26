# SPDX-License-Identifier: Apache-2.0
"""Interface packages that have no wheel, built from sources that a variable names."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.ros.ros_harness import ROOT

WITHIN_S = 900.0


def run_with_built(
    sources: Path, folder: Path, test_file: Path, *, paths: Sequence[Path] = ()
) -> str:
    """Build a package as foreseg_msgs is built, into a folder, and run a file's tests with it.

    Args:
        sources: of the package.
        folder: for what is built.
        test_file: whose tests are run, but for the slow ones.
        paths: of further Python packages.
    """
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "ros_ws/setup_venv.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    prefix, build, python = folder / "prefix", folder / "build", Path(sys.executable)
    env = script.VenvSetup(Path(sys.prefix), ()).env
    for command in script.build_commands(sources, build, prefix, python):
        _run([str(word) for word in command], env)
    env = dict(os.environ)
    packages = sysconfig.get_paths(vars={"base": ".", "platbase": "."})["purelib"]
    for name, added in (
        ("PYTHONPATH", [prefix / packages, *paths]),
        ("LD_LIBRARY_PATH", [prefix / "lib"]),
        ("AMENT_PREFIX_PATH", [prefix]),
    ):
        env[name] = os.pathsep.join([*map(str, added), *filter(None, [env.get(name)])])
    return _run([sys.executable, "-m", "pytest", "-q", "-m", "not slow", str(test_file)], env)


def _run(command: Sequence[str], env: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        env=env,
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return done.stdout
