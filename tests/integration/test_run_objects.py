# SPDX-License-Identifier: Apache-2.0
"""Many objects on one frame of a file, given by boxes or by an answer: each gets its mask there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.scene import COLOURS, box_of, image_of

from foreseg import cli
from foreseg.driving.trace import replay

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

SIZE_WH = (160, 120)
NUM_FRAMES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images."""
    folder = tmp_path_factory.mktemp("frames")
    for number in range(NUM_FRAMES):
        cv2.imwrite(str(folder / f"{number}.png"), image_of(number, SIZE_WH)[:, :, ::-1])
    return folder


def boxes_at(number: int) -> list[str]:
    words = []
    for name in COLOURS:
        corners = ",".join(f"{value:g}" for value in box_of(name, number, SIZE_WH))
        words += ["--box", f"{corners}@{number}:{name}"]
    return words


def objects_by_frame(out: Path) -> list[tuple[int, list[str]]]:
    lines = (out / "tracks.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["frame"], [t["object_id"] for t in r["tracks"] if t["area_px"]]) for r in records]


def labels_of(out: Path, number: int) -> set[int]:
    mask = cv2.imread(str(out / "masks" / f"{number:06d}.png"), cv2.IMREAD_UNCHANGED)
    return {tuple(colour) for colour in np.unique(mask.reshape(-1, mask.shape[-1]), axis=0)}


def test_points_and_mask_files_point_as_boxes_do(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is a prompt of its own kind for another square; a mask of another size is refused."""
    first, second, third = (box_of(name, 2, SIZE_WH) for name in list(COLOURS)[:3])
    mask = np.zeros(SIZE_WH[::-1], np.uint8)
    mask[round(third[1]) : round(third[3]), round(third[0]) : round(third[2])] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    clicked = ((first[0] + first[2]) / 2, (first[1] + first[3]) / 2)
    out = tmp_path / "out"
    arguments = ["run", str(folder), "--no-video", "--out", str(out)]
    arguments += ["--point", f"{clicked[0]},{clicked[1]}@2:clicked"]
    arguments += ["--box", ",".join(f"{value:g}" for value in second) + "@2:boxed"]
    arguments += ["--not-point", f"{second[0] - 4:g},{second[1] - 4:g}@2:boxed"]
    arguments += ["--mask", f"{tmp_path / 'mask.png'}@2:masked"]
    assert cli.main(arguments) == cli.DONE
    names = {"clicked", "boxed", "masked"}
    assert [set(shown) for _, shown in objects_by_frame(out)[2:]] == [names] * (NUM_FRAMES - 2)
    found = cv2.imread(str(out / "masks" / "000002.png")).any(axis=2)
    assert found[mask > 0].mean() > 0.9

    cv2.imwrite(str(tmp_path / "small.png"), mask[:50, :50] | 255)
    arguments = ["run", str(folder), "--mask", f"{tmp_path / 'small.png'}@0", "--out", str(out)]
    assert cli.main(arguments) == cli.BAD_INPUT
    assert "small.png@0: a mask prompt wants 160 x 120 pixels" in capsys.readouterr().err


@pytest.mark.parametrize("number", [0, 3, NUM_FRAMES - 1])
def test_every_box_of_a_frame_has_its_mask_from_that_frame_on(
    folder: Path, tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(folder), *boxes_at(number), "--no-video", "--out", str(tmp_path)]
    assert cli.main(arguments) == cli.DONE
    shown = objects_by_frame(tmp_path)
    assert shown[:number] == [(i, []) for i in range(number)]
    assert shown[number:] == [(i, list(COLOURS)) for i in range(number, NUM_FRAMES)]
    assert len(labels_of(tmp_path, number)) == 1 + len(COLOURS)
    num_left = NUM_FRAMES - number
    told = f"masks on {num_left} frame" + ("s" if num_left > 1 else "")
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["objects"] == dict.fromkeys(COLOURS, told)
    assert summary["frames_with_objects"] == num_left
    assert f"{num_left} with masks" in capsys.readouterr().out
    assert replay(tmp_path / "trace.jsonl").first_difference == ""


def test_every_box_of_a_single_image_has_its_mask(folder: Path, tmp_path: Path) -> None:
    image = str(folder / "0.png")
    arguments = ["run", image, *boxes_at(0), "--no-video", "--out", str(tmp_path)]
    assert cli.main(arguments) == cli.DONE
    assert objects_by_frame(tmp_path) == [(0, list(COLOURS))]
    assert len(labels_of(tmp_path, 0)) == 1 + len(COLOURS)


@pytest.mark.parametrize("source", ["", "0.png"])
def test_an_answer_about_the_last_frame_is_shown_on_it(
    folder: Path, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reasoner = "tests.support.pointing_reasoner:make"
    arguments = ["run", str(folder / source), "--query", "which is red?", "--reasoner", reasoner]
    arguments += [*boxes_at(0)[-2:], "--set", "scheduler.warm_up_s=0.2", "--out", str(tmp_path)]
    num_frames = 1 if source else NUM_FRAMES
    assert cli.main(arguments) == cli.DONE
    shown = objects_by_frame(tmp_path)
    assert [index for index, _ in shown] == list(range(num_frames))
    assert shown[-1][1] == ["green", "object-1"]
    assert "0 with masks" not in capsys.readouterr().out
    if not source:
        video = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
        assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == NUM_FRAMES
        video.release()


def test_a_box_of_which_no_frame_shows_a_mask_is_said_to_have_none(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(folder), "--max-frames", "1", "--box", "140,100,141,101@0:floor"]
    assert cli.main([*arguments, "--no-video", "--out", str(tmp_path)]) == cli.DONE
    num_shown = sum("floor" in names for _, names in objects_by_frame(tmp_path))
    words = f"object 'floor': masks on {num_shown} frame"
    assert words in capsys.readouterr().out


def test_a_run_without_a_video_does_not_keep_that_of_the_run_before(
    folder: Path, tmp_path: Path
) -> None:
    words = ["run", str(folder), *boxes_at(0), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert (tmp_path / "out" / "overlay.mp4").is_file()
    assert cli.main([*words, "--no-video"]) == 0
    assert not (tmp_path / "out" / "overlay.mp4").exists()
