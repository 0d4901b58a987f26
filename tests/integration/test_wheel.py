# SPDX-License-Identifier: Apache-2.0
"""The wheel alone, without the repository: built from an archive of the sources, as pip does it.

No network and no pip: the wheel is unpacked, and Python finds foreseg there and nowhere else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.support.scene import box_of, image_of

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")
pytest.importorskip("wheel", reason="the wheel is built without build isolation")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE_WH = (160, 120)
NUM_FRAMES = 6
TRACKER = ("decoder", "image_encoder", "memory_attention", "memory_encoder")
# Run with -c in the unpacked wheel's folder: the first entry of sys.path, before site-packages.
PROGRAM = "import sys; from foreseg.cli import main; sys.exit(main())"


def setup_py(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "setup.py", "-q", *arguments], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source archive, which itself is built from the repository."""
    base = tmp_path_factory.mktemp("wheel")
    setup_py(ROOT, "egg_info", "--egg-base", str(base), "sdist", "--dist-dir", str(base))
    (archive,) = base.glob("*.tar.gz")
    subprocess.run(["tar", "xzf", str(archive), "-C", str(base)], check=True)  # noqa: S607
    setup_py(base / archive.name.removesuffix(".tar.gz"), "bdist_wheel", "--dist-dir", str(base))
    (built,) = base.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was unpacked into."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder)
    return folder


def run(installed: Path, elsewhere: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`foreseg ARGUMENTS` from the wheel, in a folder that has nothing to do with it."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(installed)},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_source_archive_loses_nothing_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    tracked = subprocess.run(
        ["git", "ls-files"],  # noqa: S607
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    if not tracked:
        pytest.skip("no git here")
    (share,) = {name.partition("/share/")[0] for name in names if "/share/" in name}
    roots = ("runtime", "export", "training", "evaluation", "simulation")
    roots += ("ros_ws/src/foreseg_ros",)
    kept_out = {"parity.html", "README.md"}
    missing = []
    for name in tracked:
        path = Path(name)
        root = next((r for r in roots if name.startswith(f"{r}/foreseg")), None)
        if root and path.name not in kept_out:
            missing += [name] if str(path.relative_to(root)) not in names else []
        elif name.startswith("launch/") and path.suffix != ".md":
            missing += [name] if f"{share}/share/foreseg/{name}" not in names else []
    assert missing == []


def test_doctor_finds_the_tracker_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hashes match" in done.stdout
    assert str(installed / "foreseg" / "models" / "nano_tracker") in done.stdout
    for piece in TRACKER:
        assert (installed / "foreseg" / "models" / "nano_tracker" / f"{piece}.onnx").is_file()


def test_the_wheel_makes_masks_of_a_video(installed: Path, tmp_path: Path) -> None:
    video = tmp_path / "video"
    video.mkdir()
    for number in range(NUM_FRAMES):
        cv2.imwrite(str(video / f"{number}.png"), image_of(number, SIZE_WH)[:, :, ::-1])
    box = ",".join(f"{value:g}" for value in box_of("red", 0, SIZE_WH))
    done = run(installed, tmp_path, "run", "video", "--box", f"{box}@0:thing", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert summary["frames_with_objects"] == NUM_FRAMES
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == NUM_FRAMES


def test_the_wheel_answers_a_question(installed: Path, tmp_path: Path) -> None:
    """The reasoner is a process of its own: it must find foreseg in the wheel, too."""
    video = tmp_path / "video"
    video.mkdir()
    for number in range(NUM_FRAMES):
        cv2.imwrite(str(video / f"{number}.png"), image_of(number, SIZE_WH)[:, :, ::-1])
    words = ("run", "video", "--query", "what moves?", "--no-video", "--out", "out")
    done = run(installed, tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (answer,) = (tmp_path / "out" / "answers.jsonl").read_text("utf-8").splitlines()
    assert json.loads(answer)["status"] not in {"FAILED", "EVICTED"}, answer
