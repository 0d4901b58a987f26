# SPDX-License-Identifier: Apache-2.0
"""The command line as an operator uses it: files in, files out, one sentence for a mistake."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from foreseg import cli
from foreseg.commands.camera_run import play_camera
from foreseg.commands.checks import probe
from foreseg.commands.default_reasoner import default_kind
from foreseg.commands.options import RunOptions, config_from_words
from foreseg.commands.pointing import box_from_words
from foreseg.commands.progress import ProgressBar
from foreseg.commands.run_files import RunFiles
from foreseg.commands.storyboard import NUM_CELLS, Scene, Storyboard
from foreseg.config import Config
from foreseg.driving.trace import replay
from foreseg.errors import ConfigError, MissingExtraError
from foreseg.media.closing import Closing
from foreseg.media.sources import SourceFrame, SourceItem, SourceLost

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

SIZE_WH = (160, 120)
NUM_FRAMES = 36
RATE_HZ = 30.0
BOX = (10, 50, 34, 74)  # of the red square on frame 0


def image_at(index: int) -> np.ndarray:
    """A red square that moves to the right over a floor with some texture; RGB."""
    image = np.random.default_rng(7).integers(80, 100, (*SIZE_WH[::-1], 3)).astype(np.uint8)
    x0, y0, x1, y1 = BOX
    image[y0:y1, x0 + 2 * index : x1 + 2 * index] = (220, 40, 40)
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE_HZ, SIZE_WH)
    for index in range(NUM_FRAMES):
        writer.write(image_at(index)[:, :, ::-1])
    writer.release()
    return path


@pytest.fixture(scope="module")
def finished(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one whole run: a query and a named box."""
    out = tmp_path_factory.mktemp("run") / "out"
    box = ",".join(map(str, BOX)) + "@0:square"
    arguments = ["run", str(clip), "--query", "what is moving?", "--box", box, "--out", str(out)]
    assert cli.main(arguments) == cli.DONE
    return out


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_run_writes_every_file(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "answers.jsonl",
        "contact_sheet.png",
        "masks",
        "overlay.mp4",
        "summary.json",
        "trace.jsonl",
        "tracks.jsonl",
    }
    summary = json.loads((finished / "summary.json").read_text("utf-8"))
    assert (summary["frames_in"], summary["masks_out"]) == (NUM_FRAMES, NUM_FRAMES)
    assert summary["drops"] == {}
    assert summary["objects"] == {"square": f"masks on {NUM_FRAMES} frames"}
    assert summary["unanswered"] == {}
    assert [answer["status"] for answer in summary["answers"]] == ["OK"]
    video = cv2.VideoCapture(str(finished / "overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == NUM_FRAMES
    video.release()


def test_every_frame_has_a_palette_mask_and_the_box_has_its_own_from_its_frame_on(
    finished: Path,
) -> None:
    paths = sorted((finished / "masks").iterdir())
    assert [path.name for path in paths] == [f"{i:06d}.png" for i in range(NUM_FRAMES)]
    tracks = lines_of(finished / "tracks.jsonl")
    assert [record["frame"] for record in tracks] == list(range(NUM_FRAMES))
    named = next(track for track in tracks[0]["tracks"] if track["object_id"] == "square")
    labels = cv2.imread(str(paths[0]), cv2.IMREAD_GRAYSCALE)
    assert labels.shape == SIZE_WH[::-1]
    x0, y0, x1, y1 = BOX
    assert labels[(y0 + y1) // 2, (x0 + x1) // 2] > 0
    assert named["area_px"] > 0.4 * (x1 - x0) * (y1 - y0)


def test_an_answer_names_its_keyframe_and_its_objects(finished: Path) -> None:
    (answer,) = lines_of(finished / "answers.jsonl")
    assert answer["query"] == "what is moving?"
    assert 0 < answer["keyframe_index"] < NUM_FRAMES
    assert len(answer["object_ids"]) == 1


def test_a_trace_replays_to_identical_commands(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["replay", str(finished / "trace.jsonl")]) == cli.DONE
    text = capsys.readouterr().out
    assert "commands: identical" in text
    assert "'what is moving?'" in text
    assert replay(finished / "trace.jsonl").first_difference == ""


def test_a_tampered_trace_differs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (finished / "trace.jsonl").read_text("utf-8").splitlines()
    number = next(i for i, line in enumerate(lines) if '"PublishMasks"' in line)
    record = json.loads(lines[number])
    record["commands"] = []
    lines[number] = json.dumps(record)
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert cli.main(["replay", str(path)]) == cli.FAILED
    assert f"DIFFER, line {number + 1}" in capsys.readouterr().out


def test_a_single_image_is_asked_about_and_a_box_on_it_masked(tmp_path: Path) -> None:
    image, out = tmp_path / "one.png", tmp_path / "out"
    cv2.imwrite(str(image), image_at(0)[:, :, ::-1])
    box = ",".join(map(str, BOX)) + "@0"
    arguments = ["run", str(image), "--query", "the red square", "--box", box]
    assert cli.main([*arguments, "--out", str(out)]) == cli.DONE
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert (summary["frames_in"], len(summary["answers"])) == (1, 1)
    assert [path.name for path in (out / "masks").iterdir()] == ["000000.png"]
    assert cv2.imread(str(out / "masks" / "000000.png"), cv2.IMREAD_GRAYSCALE).any()
    assert (out / "contact_sheet.png").is_file()


def test_a_clip_shorter_than_the_warm_up_is_asked_before_it_ends(
    clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["run", str(clip), "--query", "what is moving?", "--max-frames", "24"]
    assert cli.main([*arguments, "--no-video", "--out", str(out)]) == cli.DONE
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["frames_in"] == 24
    assert len(summary["answers"]) == 1
    assert not (out / "overlay.mp4").exists()


class PacedCamera(Closing):
    """A camera double at a camera's pace, with one outage."""

    name, num_frames, rate_hz = "camera 0", None, RATE_HZ

    def __iter__(self) -> Iterator[SourceItem]:
        pace = threading.Event()
        for index in itertools.count():
            pace.wait(1 / RATE_HZ)
            if index == 5:
                yield SourceLost(reason="camera 0 gives no frame", attempt=1, retry_in_s=0.5)
            image = image_at(index % 50)
            yield SourceFrame(image=image, stamp_ns=round((index + 1) * 1e9 / RATE_HZ))


def test_a_camera_runs_in_real_time_and_its_box_is_on_its_own_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RunOptions(
        source="0",
        queries=(),
        prompts=(box_from_words(",".join(map(str, BOX)) + "@0:square", 1),),
        config=Config(),
        out=tmp_path,
        has_video=True,
        max_frames=45,
        is_live=True,
    )
    files = RunFiles(tmp_path, {}, video_hz=RATE_HZ, counted=["square"])
    report = play_camera(options, PacedCamera(), files)
    files.close()
    assert report.num_frames == 45
    assert not report.is_interrupted
    (reply,) = report.objects.values()
    assert reply is not None
    assert reply.success
    assert report.counters["frames_in"] > 30
    assert files.num_visible == files.num_shown["square"] > 0
    assert (tmp_path / "overlay.mp4").stat().st_size > 0
    assert replay(tmp_path / "trace.jsonl").first_difference == ""
    assert "camera 0 gives no frame; again in 0.5 s" in capsys.readouterr().err


def test_a_folder_that_holds_others_masks_is_left_alone(clip: Path, tmp_path: Path) -> None:
    others = tmp_path / "masks" / "00000.png"
    others.parent.mkdir()
    others.write_bytes(b"precious")
    assert cli.main(["run", str(clip), "--query", "a", "--out", str(tmp_path)]) == cli.BAD_INPUT
    assert others.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nosuch.mp4", "--query", "a"], "no file, folder or camera 'nosuch.mp4'"),
        (["{text}", "--query", "a"], "as a video"),
        (["{clip}", "--query", " "], "a query wants some text"),
        (["{clip}", "--query", "a" * 100_000], "at most 2000 characters, got 100000"),
        (["{clip}"], "nothing to look for"),
        (["{clip}", "--box", "1,2,3@0"], "a box wants x0,y0,x1,y1@frame"),
        (["{clip}", "--box", "a,b,c,d@0"], "a box wants x0,y0,x1,y1@frame"),
        (["{clip}", "--box", "30,2,3,8@0"], "finite x0 < x1"),
        (["{clip}", "--box", "500,500,600,600@3"], "outside the image of 160 x 120 pixels"),
        (["{clip}", "--box", "1,1,9,9@36"], "clip.mp4 ends at frame 35"),
        (["{clip}", "--box", "1,1,9,9@5", "--max-frames", "5"], "--max-frames 5 ends the run at"),
        (["{clip}", "--query", "a", "--set", "no.such=1"], "unknown parameter 'no.such'"),
        (["{clip}", "--query", "a", "--set", "tracker.threads=many"], "wants int, got 'many'"),
        (["{clip}", "--query", "a", "--period", "-1"], "period_s wants"),
        (["{clip}", "--query", "a", "--max-frames", "0"], "at least 1, got 0"),
        (["{clip}", "--query", "a", "--bundle", "nosuch"], "no engine bundle in nosuch"),
        (["{clip}", "--query", "a", "--reasoner", "oracle"], "got 'oracle'"),
        (["{clip}", "--query", "a", "--out", "{text}"], "cannot write into"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "words.txt"
    text.write_text("no video")
    given = [word.format(clip=clip, text=text) for word in arguments]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    assert cli.main(["run", *given]) == cli.BAD_INPUT
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert sentence in said[0]


def test_words_that_argparse_refuses_are_one_sentence_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["run"]) == cli.BAD_INPUT
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert cli.main(["replay", "/dev/null"]) == cli.BAD_INPUT
    assert "has no whole line" in capsys.readouterr().err


def test_doctor_says_that_the_core_can_run_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == cli.DONE
    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is True
    levels = {check["name"]: check["level"] for check in report["checks"]}
    for name in ("ONNX Runtime", "nano bundle", "OpenCV"):
        assert levels[name] == "OK"
    assert levels["nano reasoner"] == ("OK" if default_kind() == "nano" else "MISSING")
    assert "language models" in levels
    for check in report["checks"]:
        assert check["level"] == "OK" or check["advice"], check


def test_a_package_that_crashes_its_interpreter_crashes_a_probe_only() -> None:
    assert probe("import os; os.abort()").error
    assert probe("import no_such_package").error.endswith("'no_such_package'")
    assert probe("print('a', 'b')").words == ("a", "b")


def test_bundles_are_inspected_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bundle", "verify", "nano"]) == cli.DONE
    assert "intact" in capsys.readouterr().out
    assert cli.main(["bundle", "inspect", "nano", "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["family"] == "sam2"
    assert cli.main(["bundle", "verify", str(tmp_path)]) == cli.BAD_INPUT


def test_help_is_fast_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from foreseg import cli; cli.main(['--help']);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PATH": ""},
    )
    assert not {"cv2", "onnxruntime", "torch", "rclpy", "numpy"} & set(done.stderr.split())


def test_settings_are_read_by_their_types() -> None:
    config = config_from_words(["tracker.threads=2", "scheduler.warm_up_s=0", "tracker.bundle=x"])
    assert (config.tracker.threads, config.scheduler.warm_up_s) == (2, 0.0)
    for words in ("tracker.threads", "tracker.threads=1.5", "tracker.threads=0"):
        with pytest.raises(ConfigError):
            config_from_words([words])


def test_a_storyboard_is_bounded_even_and_keeps_events_and_the_end() -> None:
    board = Storyboard()
    image = np.zeros((12, 16, 3), np.uint8)
    for index in range(1000):
        is_event = index in (131, 640)
        board.add(Scene(index=index, image=image, caption="", is_event=is_event))
    chosen = [scene.index for scene in board.scenes()]
    assert len(chosen) == NUM_CELLS
    assert {131, 640, 999} <= set(chosen)
    assert chosen == sorted(chosen)
    assert max(b - a for a, b in pairwise(chosen)) < 260
    assert len(board._even) <= 2 * NUM_CELLS
    assert Storyboard().sheet() is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def bar_over(stream: io.StringIO) -> str:
    bar = ProgressBar(100, stream=stream)
    for count in range(1, 101):
        bar.update(count, "tracking" if count == 50 else None)
        if count == 70:
            bar.say("a camera came back")
    bar.close(100)
    return stream.getvalue()


def test_a_progress_bar_tells_a_terminal_all_and_a_log_a_whole_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bar_over(io.StringIO()) == "a camera came back\n"  # over before a line is due
    monkeypatch.setattr("foreseg.commands.progress.REDRAW_S", 0.0)
    assert "100/100" in bar_over(Terminal()).split("\r")[-1]
    monkeypatch.setattr("foreseg.commands.progress.LOG_PERIOD_S", 0.0)
    lines = bar_over(io.StringIO()).splitlines()
    assert "a camera came back" in lines
    assert "100/100" in lines[-1]
    assert lines[-1].endswith("tracking]")
    assert not any("\r" in line for line in lines)


def test_without_tqdm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingExtraError, match=r"foreseg\[video\]"):
        ProgressBar(1)
