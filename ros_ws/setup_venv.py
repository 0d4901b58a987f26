# SPDX-License-Identifier: Apache-2.0
"""Set up `.venv`: ROS 2 Jazzy from PyPI wheels, foreseg_msgs built into it, and foreseg itself.

It lies in the ROS workspace because most of it does there what apt and colcon do on a robot.
Standard library only; parses on any Python 3.7, so that an old one gets a sentence, not a traceback.
Each step leaves a stamp with a hash of what it was made from: a second run only compares hashes.

    python3 ros_ws/setup_venv.py            # what `make demo` needs
    python3 ros_ws/setup_venv.py --with dev # also what `make test` needs
    python3 ros_ws/setup_venv.py --interfaces FOLDER # also another interface package's sources
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import IO

OLDEST, NEWEST = (3, 10), (3, 12)
ROOT = Path(__file__).resolve().parent.parent
INTERFACES = ROOT / "ros_ws" / "src" / "foreseg_msgs"
# Extras that every set-up installs: the demo's, and what foreseg_msgs is built with.
BASE_EXTRAS = ("demo", "ros-build")
FREE_BYTES = {"demo": 1_500_000_000, "dev": 4_000_000_000}  # measured 0.7 and 2.1 GB, and room
APT_LINE = "sudo apt install python3-venv python3-dev build-essential cmake make"
# Variables that lead a build or an interpreter into another installation: the wheels' own
# bootstrapper guards itself with the first, and a sourced ROS sets most of the others.
LEAKING = (
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "ROS_DISTRO",
    "ROS_VERSION",
    "ROS_PYTHON_VERSION",
)


class SetupError(Exception):
    """What the user has to do, in one sentence."""


def main() -> int:
    """Run all steps that are not up to date."""
    parser = argparse.ArgumentParser(description="Set up the virtual environment of foreseg.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="default: .venv")
    parser.add_argument("--with", dest="extras", action="append", default=[], metavar="EXTRA")
    parser.add_argument(
        "--interfaces",
        type=_package_folder,
        action="append",
        default=[],
        metavar="FOLDER",
        help="sources of a package of ROS interfaces to build as well, as vision_msgs",
    )
    arguments = parser.parse_args()
    try:
        _use_fitting_python()
        extras, interfaces = tuple(arguments.extras), tuple(arguments.interfaces)
        VenvSetup(arguments.venv.absolute(), extras, interfaces).run()
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


class VenvSetup:
    """The steps, in order; each is skipped when its stamp fits."""

    def __init__(
        self, venv: Path, extras: tuple[str, ...], interfaces: tuple[Path, ...] = ()
    ) -> None:
        self.venv = venv
        self.interfaces = (INTERFACES, *interfaces)
        self.python = venv / "bin" / "python"
        self.extras = extras
        self.state = venv / "foreseg-setup"
        self.log = self.state / "setup.log"
        self.env = {k: v for k, v in os.environ.items() if k not in LEAKING}
        self.env.update(
            VIRTUAL_ENV=str(venv),
            PATH=f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            AMENT_PREFIX_PATH=str(venv),
            CMAKE_PREFIX_PATH=str(venv),
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_NO_INPUT="1",
        )

    def run(self) -> None:
        """Bring everything up to date; prints nothing but one line if it is."""
        started = time.monotonic()
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as lock:
            if not _try_lock(lock):
                print("waiting for another set-up of the same environment ...", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            num_done = self._run_steps()
        if num_done:
            print(f"set-up done in {time.monotonic() - started:.0f} s ({self.venv})", flush=True)

    def _run_steps(self) -> int:
        python_hash = _hash_of([sys.version, sys.base_prefix, str(self.venv)])
        if not (self._is_done("python", python_hash) and self.python.exists()):
            self._check_tools()
            self._check_disk()
            self._make_venv()
            self._mark_done("python", python_hash)
            fresh = True
        else:
            fresh = False
        package_hash = _hash_of([python_hash, *_texts_of(self._package_files()), *_packages()])
        missing = [
            extra
            for extra in (*BASE_EXTRAS, *self.extras)
            if not self._is_done(f"pip-{extra}", package_hash)
        ]
        if missing:
            self._check_disk()
            self._install(missing)
            for extra in missing:
                self._mark_done(f"pip-{extra}", package_hash)
        num_built = sum(self._bring_interfaces(each, python_hash) for each in self.interfaces)
        self._register_package()
        return int(fresh) + int(bool(missing)) + num_built

    def _bring_interfaces(self, source: Path, python_hash: str) -> bool:
        """Build a package of interfaces if its sources have changed; whether they had."""
        content_hash = _hash_of([python_hash, *_texts_of(sorted(_files(source)))])
        if self._is_done(source.name, content_hash):
            return False
        self._check_tools()
        self._build_interfaces(source)
        self._mark_done(source.name, content_hash)
        return True

    # Steps

    def _make_venv(self) -> None:
        self._say(f"making {self.venv.name} with Python {sys.version.split()[0]}")
        try:
            import ensurepip  # noqa: F401 (Debian splits both off)
            import venv
        except ImportError as error:
            msg = f"this Python has no venv module ({error}); {APT_LINE}"
            raise SetupError(msg) from error
        for entry in self.venv.iterdir():
            if entry == self.state:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for stamp in self.state.glob("*.stamp"):
            stamp.unlink()
        shutil.rmtree(self.state / "build", ignore_errors=True)
        for manifest in self.state.glob("install_manifest*.txt"):
            manifest.unlink()
        self.log.write_text("", "utf-8")
        try:
            builder = venv.EnvBuilder(with_pip=False, symlinks=True)
            builder.create(self.venv)
        except OSError as error:
            msg = f"cannot write {self.venv}: {error.strerror}"
            raise SetupError(msg) from error
        (self.venv / "COLCON_IGNORE").touch()
        self._call([self.python, "-m", "ensurepip", "--upgrade", "--default-pip"])

    def _install(self, extras: list[str]) -> None:
        self._say(f"installing packages for {', '.join(extras)} (minutes the first time)")
        self._call(
            [
                *(self.python, "-m", "pip", "install", "--retries", "2"),
                *("--progress-bar", "off", "-c", ROOT / "constraints.txt"),
                *("-e", f"{ROOT}[{','.join(extras)}]"),
            ],
        )

    def _build_interfaces(self, source: Path) -> None:
        self._say(f"building the ROS interfaces {source.name} (about a minute)")
        self._repair_exported_paths()
        manifest = self._manifest_of(source)
        self._remove_old_interfaces(manifest)
        build = self.state / "build" / source.name
        shutil.rmtree(build, ignore_errors=True)
        for command in build_commands(source, build, self.venv, self.python):
            self._call(command)
        shutil.copy(build / "install_manifest.txt", manifest)
        shutil.rmtree(build)

    def _manifest_of(self, source: Path) -> Path:
        """Where the names of the files stand that a package has put into the environment."""
        name = "" if source == INTERFACES else f"_{source.name}"
        return self.state / f"install_manifest{name}.txt"

    def _register_package(self) -> None:
        """Put the ament index entry in place: an editable install leaves data_files out.

        Files are linked one by one, because `ros2 launch` looks into no folder that is a link.
        """
        share = self.venv / "share"
        launch = share / "foreseg" / "launch"
        links = {
            share / "ament_index/resource_index/packages/foreseg": ROOT / "resource/foreseg",
            share / "foreseg/package.xml": ROOT / "package.xml",
            # where `ros2 run` and launch_ros look for executables
            self.venv / "lib/foreseg/foreseg_node": self.venv / "bin/foreseg_node",
            self.venv / "lib/foreseg/foreseg_view": self.venv / "bin/foreseg_view",
        }
        for pattern in ("*.launch.py", "params/*"):
            for path in (ROOT / "launch").glob(pattern):
                links[launch / path.relative_to(ROOT / "launch")] = path
        if launch.is_symlink():  # an older set-up's
            launch.unlink()
        for old in launch.rglob("*"):
            if old.is_symlink() and old not in links:
                old.unlink()
        for link, target in links.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_symlink() or link.exists():
                link.unlink()
            link.symlink_to(target)

    # Parts of steps

    def _repair_exported_paths(self) -> None:
        """Point the wheels' cmake exports, which name their build machine, to this Python."""
        numpy_include = subprocess.run(
            [str(self.python), "-c", "import numpy; print(numpy.get_include())"],
            env=self.env,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()
        python_include = sysconfig.get_paths()["include"]
        numpy_path = re.compile(r"/opt/python/cp\d+-cp\d+/lib/[^;\"]*?/numpy/_?core/include")
        python_path = re.compile(r"/opt/python/cp\d+-cp\d+/include/python\d+\.\d+")
        for path in (self.venv / "share").glob("*/cmake/*.cmake"):
            old = path.read_text("utf-8")
            new = numpy_path.sub(lambda _: numpy_include, old)
            new = python_path.sub(lambda _: python_include, new)
            if new != old:
                path.write_text(new, "utf-8")

    def _remove_old_interfaces(self, manifest: Path) -> None:
        if not manifest.is_file():
            return
        for line in manifest.read_text("utf-8").splitlines():
            path = Path(line)
            if self.venv in path.parents:
                path.unlink(missing_ok=True)
        manifest.unlink()

    # Checks

    def _check_tools(self) -> None:
        header = Path(sysconfig.get_paths()["include"]) / "Python.h"
        absent = [
            what
            for what, present in {
                "cmake": shutil.which("cmake"),
                "make": shutil.which("make"),
                "a C compiler": shutil.which("cc") or shutil.which("gcc"),
                "a C++ compiler": shutil.which("c++") or shutil.which("g++"),
                f"the headers of Python {sys.version_info[0]}.{sys.version_info[1]}": (
                    header.is_file()
                ),
            }.items()
            if not present
        ]
        if absent:
            msg = f"building the ROS interfaces needs {', '.join(absent)}; {APT_LINE}"
            raise SetupError(msg)
        if sys.platform != "linux" or os.uname().machine != "x86_64":
            msg = (
                "the ROS wheels exist for Linux x86_64 only; on a robot use ROS 2 from apt and"
                " `cd ros_ws && colcon build --base-paths .. src`"
            )
            raise SetupError(msg)

    def _check_disk(self) -> None:
        wanted = max(FREE_BYTES.get(extra, 0) for extra in ("demo", *self.extras))
        free = shutil.disk_usage(self.state).free
        if free < wanted:
            msg = f"{self.venv} needs {wanted / 1e9:.1f} GB free, the disk has {free / 1e9:.1f} GB"
            raise SetupError(msg)

    # Stamps, progress, subprocesses

    def _package_files(self) -> list[Path]:
        names = ("setup.py", "setup.cfg", "pyproject.toml", "constraints.txt")
        return [ROOT / name for name in names]

    def _is_done(self, step: str, content_hash: str) -> bool:
        stamp = self.state / f"{step}.stamp"
        return stamp.is_file() and stamp.read_text("utf-8") == content_hash

    def _mark_done(self, step: str, content_hash: str) -> None:
        (self.state / f"{step}.stamp").write_text(content_hash, "utf-8")

    def _say(self, text: str) -> None:
        print(f"set-up: {text}", flush=True)

    def _call(self, command: list[object]) -> None:
        """Run a command; its output goes to the log, its newest line to the terminal."""
        words = [str(word) for word in command]
        progress = Progress()
        lines: list[str] = []
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(words)}\n")
            process = subprocess.Popen(
                words,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            try:
                for line in process.stdout or ():
                    log.write(line)
                    lines.append(line.rstrip())
                    progress.show(lines[-1])
            except BaseException:
                process.terminate()
                process.wait()
                raise
            finally:
                progress.clear()
        if process.wait() != 0:
            raise SetupError(_cause_of(words, lines, self.log))


class Progress:
    """One line that changes on a terminal; a line every few seconds elsewhere."""

    INTERVAL_S = 10.0

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._shown = time.monotonic()

    def show(self, line: str) -> None:
        """Show the newest line of a command's output, if it says anything."""
        if "directory" in line or not line.strip():  # make enters and leaves many
            return
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K  {line[: width - 2]}", end="", flush=True)
        elif time.monotonic() - self._shown >= self.INTERVAL_S:
            print(f"  {line[:100]}", flush=True)
            self._shown = time.monotonic()

    def clear(self) -> None:
        """Leave an empty line behind."""
        if self._live:
            print("\r\033[K", end="", flush=True)


def build_commands(
    source: Path, build: Path, prefix: Path, python: Path
) -> tuple[list[object], ...]:
    """What configures, builds and installs a package of ROS interfaces against the wheels."""
    return (
        [
            *("cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release"),
            *("-DBUILD_TESTING=OFF", f"-DCMAKE_INSTALL_PREFIX={prefix}"),
            f"-DPython3_EXECUTABLE={python}",
        ],
        ["cmake", "--build", build, "-j", str(min(os.cpu_count() or 1, 4))],
        ["cmake", "--install", build],
    )


def _cause_of(words: list[str], lines: list[str], log: Path) -> str:
    """One sentence about a command that failed."""
    text = "\n".join(lines)
    if re.search(r"No space left on device|Disk quota exceeded", text):
        return f"the disk is full; free some space and run it again (log: {log})"
    if re.search(
        r"NewConnectionError|NameResolutionError|Max retries exceeded|Network is unreachable"
        r"|Temporary failure in name resolution|ConnectTimeoutError|ProxyError|SSLError",
        text,
    ):
        return f"pip cannot reach the package index; check the network or the proxy (log: {log})"
    unmet = re.search(r"No matching distribution found for (.+)", text)
    if unmet:
        return f"the package index has no {unmet.group(1)} for this Python (log: {log})"
    tail = "\n".join(f"  | {line}" for line in lines[-12:])
    return f"`{' '.join(words[:4])} ...` failed (log: {log}); it ended with\n{tail}"


def _package_folder(text: str) -> Path:
    folder = Path(text).absolute()
    if not (folder / "CMakeLists.txt").is_file():
        msg = f"wants a folder with a package's CMakeLists.txt, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return folder


def _use_fitting_python() -> None:
    """Go on in a Python that fits, if the one that runs this does not."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and _runs(found):
            os.execv(found, [found, *sys.argv])  # noqa: S606 (the same script, no shell)
    version = ".".join(str(n) for n in sys.version_info[:3])
    msg = (
        f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} is wanted, this is {version}"
        " and no other was found; install one and run `make PYTHON=python3.11 ...`"
    )
    raise SetupError(msg)


def _runs(python: str) -> bool:
    """Version managers leave launchers on PATH for versions that are not active."""
    done = subprocess.run(
        [python, "-c", ""], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return done.returncode == 0


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _packages() -> list[str]:
    """The source roots' packages: a new one has to be mapped into the environment."""
    found = [*ROOT.glob("*/foreseg*/__init__.py"), *ROOT.glob("ros_ws/src/*/foreseg*/__init__.py")]
    return sorted(str(path.parent.relative_to(ROOT)) for path in found)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _texts_of(paths: list[Path]) -> list[str]:
    return [
        f"{os.path.relpath(path, ROOT)}\n{path.read_text('utf-8', 'replace')}"
        for path in paths
        if path.is_file()
    ]


def _hash_of(texts: list[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
