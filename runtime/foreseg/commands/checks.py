# SPDX-License-Identifier: Apache-2.0
"""The checks of `foreseg doctor`. A package that crashes on import crashes a probe, not us."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from foreseg import __version__
from foreseg.commands import fast_dds
from foreseg.engines.known_providers import SUFFIX, unused
from foreseg.errors import ConfigError, EngineError

PROBE_TIMEOUT_S = 20.0
TESTED_PYTHONS = ((3, 10), (3, 12))  # inclusive
PARTICIPANTS = 4  # camera, node, client, and one to look
UNNAMED = "unnamed"  # a distro that no environment variable names
JETSON_RELEASE = Path("/etc/nv_tegra_release")


class Level(Enum):
    """How it stands."""

    OK = "OK"
    WARN = "WARN"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line."""

    name: str
    level: Level
    found: str
    advice: str = ""  # what to do
    is_core: bool = False  # without it nothing runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What an interpreter of its own printed; `error` where it failed."""

    words: tuple[str, ...]
    error: str = ""


def run_checks(environment: Mapping[str, str]) -> tuple[Check, ...]:
    """Everything, in the order in which it is wanted."""
    ros = probe(
        "import os, rclpy; from rclpy import get_rmw_implementation_identifier as rmw;"
        f"print(os.environ.get('ROS_DISTRO', '{UNNAMED}'), rmw())"
    )
    return (
        _python(),
        _numpy(),
        _onnxruntime(),
        _processor(),
        _openvino(),
        _bundle(),
        _reasoner(),
        _opencv(),
        _httpx(),
        _language_models(),
        _gpu(),
        _tensorrt(),
        _jetson(),
        _ros(ros),
        _messages(has_ros=not ros.error),
        _profile(environment, ros),
        shared_memory(),
        _cameras(),
    )


def probe(code: str, environment: Mapping[str, str] | None = None) -> Probe:
    """Run a line of Python in a process of its own, which may crash or hang."""
    try:
        done = subprocess.run(  # noqa: S603 (our own interpreter and code)
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            env=None if environment is None else dict(environment),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(words=(), error=f"no reply within {PROBE_TIMEOUT_S:g} s")
    except OSError as error:
        return Probe(words=(), error=str(error))
    if done.returncode == 0:
        return Probe(words=tuple(done.stdout.split()))
    lines = done.stderr.strip().splitlines()
    crashed = f"crashed with exit code {done.returncode}"
    return Probe(words=(), error=lines[-1] if lines else crashed)


def _python() -> Check:
    version = sys.version_info[:2]
    is_tested = TESTED_PYTHONS[0] <= version <= TESTED_PYTHONS[1]
    return Check(
        name="Python",
        level=Level.OK if is_tested else Level.WARN,
        found=f"{platform.python_version()} on {platform.machine()}, foreseg {__version__}",
        advice="" if is_tested else "foreseg is meant for Python 3.10 to 3.12",
        is_core=True,
    )


def _numpy() -> Check:
    import numpy as np

    return Check(name="numpy", level=Level.OK, found=np.__version__, is_core=True)


def _onnxruntime() -> Check:
    found = probe("import onnxruntime as o; print(o.__version__, *o.get_available_providers())")
    if found.error:
        return Check(
            name="ONNX Runtime",
            level=Level.MISSING,
            found=found.error,
            advice="pip install 'foreseg[cpu]', or 'foreseg[cuda]' with an NVIDIA GPU, never both",
            is_core=True,
        )
    version, *providers = found.words
    names = ", ".join(name.removesuffix(SUFFIX) for name in providers)
    return Check(
        name="ONNX Runtime",
        level=Level.OK,
        found=f"{version} with {names}",
        advice=unused(tuple(providers)),
        is_core=True,
    )


def _processor() -> Check:
    from foreseg.engines.processor import this_processor

    return Check(name="processor", level=Level.OK, found=str(this_processor()))


def _openvino() -> Check:
    name = "OpenVINO"
    found = probe(
        "from foreseg.engines.openvino_api import import_openvino as load; o = load(); c = o.Core();"
        "print(o.__version__.partition('-')[0], *(d + ':' + ','.join(sorted(c.get_property("
        "d, 'OPTIMIZATION_CAPABILITIES'))) for d in c.available_devices))"
    )
    if found.error:
        advice = "only for a faster tracker on Intel and AMD: pip install 'foreseg[openvino]'"
        return Check(name=name, level=Level.MISSING, found=found.error, advice=advice)
    version, *devices = found.words
    return Check(
        name=name,
        level=Level.OK,
        found=f"{version} with {', '.join(devices).replace(':', ' ') or 'no device'}",
        advice="`foreseg-export build BUNDLE --target x86`, then `tracker.backend: auto`",
    )


def _bundle() -> Check:
    from foreseg.commands.bundle import verify_bundle

    try:
        folder, num_files, num_bytes = verify_bundle("nano")
    except EngineError as error:
        return Check(
            name="nano bundle",
            level=Level.MISSING,
            found=str(error),
            advice="install foreseg again: its shipped models are damaged",
            is_core=True,
        )
    size = f"{num_files} files, {num_bytes / 1e6:.1f} MB, hashes match"
    return Check(name="nano bundle", level=Level.OK, found=f"{size} ({folder})", is_core=True)


def _reasoner() -> Check:
    found = probe(
        "from foreseg.reasoner.base import ReasonerSpec; from foreseg.reasoner.load import"
        " build_reasoner; build_reasoner(ReasonerSpec(kind='nano')); print('opens, hashes match')"
    )
    return _package(
        "nano reasoner", found, "pip install 'foreseg[cpu,nano]'; until then kinematic answers"
    )


def _opencv() -> Check:
    found = probe("import cv2; print(cv2.__version__)")
    return _package(
        "OpenCV", found, "pip install 'foreseg[video]': video files, cameras and overlays need it"
    )


def _httpx() -> Check:
    found = probe("import httpx; print(httpx.__version__)")
    return _package(
        "httpx", found, "pip install 'foreseg[server]': a language model behind a server needs it"
    )


def _language_models() -> Check:
    found = probe(
        "import accelerate, bitsandbytes, jinja2, safetensors, tqdm, torch, transformers;"
        "print('torch', torch.__version__, 'with CUDA' if torch.cuda.is_available() else 'on the CPU',"
        " 'and transformers', transformers.__version__)"
    )
    advice = "only for a language model in this process: pip install 'foreseg[vlm]'"
    return _package("language models", found, advice)


def _gpu() -> Check:
    tool = shutil.which("nvidia-smi")
    advice = "none is needed: the nano tracker runs on a CPU"
    if tool is None:
        return Check(name="CUDA GPU", level=Level.MISSING, found="no nvidia-smi", advice=advice)
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 (the driver's own tool)
            [tool, *query], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
        text = done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    if not text:
        return Check(
            name="CUDA GPU",
            level=Level.WARN,
            found="nvidia-smi finds no GPU",
            advice="is the driver loaded, and the GPU passed into this container?",
        )
    return Check(name="CUDA GPU", level=Level.OK, found="; ".join(text.splitlines()))


def _tensorrt() -> Check:
    found = probe("import tensorrt; print(tensorrt.__version__)")
    advice = "only for TensorRT engines: pip install 'foreseg[tensorrt]', or JetPack's own"
    return _package("TensorRT", found, advice)


def _jetson() -> Check:
    try:
        release = JETSON_RELEASE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Check(name="Jetson", level=Level.OK, found="no: not needed")
    return Check(name="Jetson", level=Level.OK, found=release.splitlines()[0].strip("# "))


def _ros(ros: Probe) -> Check:
    advice = (
        "only for the ROS node: source /opt/ros/<distro>/setup.bash, or run `make venv`, which"
        " brings ROS 2 Jazzy from PyPI"
    )
    if ros.error:
        return Check(name="ROS 2", level=Level.MISSING, found=ros.error, advice=advice)
    distro, rmw = ros.words
    origin = "from wheels or not sourced" if distro == UNNAMED else distro
    return Check(name="ROS 2", level=Level.OK, found=f"rclpy, {origin}, {rmw}")


def _messages(*, has_ros: bool) -> Check:
    found = probe("import foreseg_msgs.srv as s; s.Ask; print('built')")
    advice = "only for the ROS node: colcon build in ros_ws, or `make venv`"
    if has_ros and not found.error:
        return Check(name="foreseg_msgs", level=Level.OK, found="built for this Python")
    return Check(
        name="foreseg_msgs", level=Level.MISSING, found=found.error or "no ROS 2", advice=advice
    )


def _profile(environment: Mapping[str, str], ros: Probe) -> Check:
    name = "Fast DDS profile"
    if ros.error or "fastrtps" not in ros.words[-1]:
        return Check(name=name, level=Level.OK, found="not used here")
    shipped = fast_dds.shipped_profile()
    advice = "images above VGA get lost without it; in every process: export"
    advice += f" {fast_dds.PROFILE_VARIABLES[0]}={shipped or 'launch/params/fastdds.xml'}"
    named = fast_dds.profile_in_force(environment)
    if named is None:
        return Check(name=name, level=Level.WARN, found="not set", advice=advice)
    variable, path = named
    try:
        size = fast_dds.segment_bytes(path)
    except ConfigError as error:
        found = f"{variable}: {error}"
        return Check(name=name, level=Level.WARN, found=found, advice=advice)
    if not size:
        found = f"{path} makes no shared-memory segment larger"
        return Check(name=name, level=Level.WARN, found=found, advice=advice)
    return Check(name=name, level=Level.OK, found=f"{path}, segment {size / 1e6:.0f} MB")


def shared_memory(folder: Path = fast_dds.SHARED_MEMORY) -> Check:
    """Whether there is room for the processes of a robot, and what takes it if not."""
    name, need = str(folder), PARTICIPANTS * fast_dds.PARTICIPANT_BYTES
    try:
        room = fast_dds.room(folder)
    except OSError as error:
        return Check(
            name=name, level=Level.WARN, found=str(error), advice="needed by the ROS node"
        )
    left = fast_dds.abandoned(folder)
    found = f"{room}; {PARTICIPANTS} processes want {need / 1e6:.0f} MB"
    advice = ""
    if left:
        size = sum(path.stat().st_size for path in left)
        found += f"; killed processes left {size / 1e6:.0f} MB in {len(left)} segments"
        advice = "the next start of the node removes what killed processes left"
    if room.free_bytes >= need:
        return Check(name=name, level=Level.OK, found=found, advice=advice)
    if room.total_bytes < need:
        advice = "too small: in a container, docker run --shm-size=1g"
    elif not left:
        advice = "full: look for what fills it (ls -lS /dev/shm)"
    return Check(name=name, level=Level.WARN, found=found, advice=advice)


def _cameras() -> Check:
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Check(
            name="cameras",
            level=Level.MISSING,
            found="no /dev/video*",
            advice="only for `foreseg run 0`: plug one in, or pass it into the container",
        )
    closed = [str(path) for path in devices if not os.access(path, os.R_OK | os.W_OK)]
    found = ", ".join(map(str, devices))
    if closed:
        advice = f"add this user to the group video: {', '.join(closed)} cannot be opened"
        return Check(name="cameras", level=Level.WARN, found=found, advice=advice)
    return Check(name="cameras", level=Level.OK, found=found)


def _package(name: str, found: Probe, advice: str) -> Check:
    if found.error:
        return Check(name=name, level=Level.MISSING, found=found.error, advice=advice)
    return Check(name=name, level=Level.OK, found=" ".join(found.words))
