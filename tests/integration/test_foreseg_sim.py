# SPDX-License-Identifier: Apache-2.0
"""`foreseg-sim` from the command line: equal bytes, resumed runs, and mistakes in one sentence."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

cv2 = pytest.importorskip("cv2", reason="the worlds draw with OpenCV")

from foreseg.masks import MaskRle, mask_from_rle  # noqa: E402
from foreseg_simulation.cli import main  # noqa: E402
from foreseg_simulation.fevos_form import part_path  # noqa: E402
from foreseg_simulation.generation import Command, generate  # noqa: E402
from foreseg_simulation.worlds import World  # noqa: E402

SIZE = ["--size", "160x120"]
SMALL = ["generate", "--clips", "5", "--streams", "1", "--seed", "4", "--split", "val", *SIZE]


def content(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sim") / "set"
    assert main([*SMALL, "--out", str(out), "--workers", "1"]) == 0
    return out


def loaded(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_two_workers_and_a_resumed_run_make_the_same_bytes(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert main([*SMALL, "--out", str(other), "--workers", "2"]) == 0
    assert content(other) == content(made)
    part_path(other, "shapes_clip_00002").unlink()  # as if interrupted: frames, but no record
    stale = other / "JPEGImages" / "shapes_clip_00002" / "00099.jpg"
    stale.write_bytes(b"of a broken run")
    (other / "mask_dict.json").unlink()
    kept = part_path(other, "shapes_clip_00001").stat().st_mtime_ns
    assert main([*SMALL, "--out", str(other), "--workers", "1"]) == 0
    assert content(other) == content(made)
    assert part_path(other, "shapes_clip_00001").stat().st_mtime_ns == kept


def test_another_seed_or_split_makes_other_clips(made: Path, tmp_path: Path) -> None:
    base = content(made)
    for split, seed in (("val", 5), ("train", 4)):
        out = tmp_path / f"{split}{seed}"
        command = Command(
            worlds=(World.SHAPES,), clips=2, streams=0, seed=seed, split=split, size_wh=(160, 120)
        )
        generate(command, out)
        frames = {k: v for k, v in content(out).items() if k.endswith(".jpg")}
        assert frames
        assert not set(frames.values()) & set(base.values())


def test_the_files_have_fevos_form_and_agree_with_each_other(made: Path) -> None:
    meta = loaded(made / "meta_expressions_val.json")["videos"]
    masks = loaded(made / "mask_dict.json")
    records = loaded(made / "reasoning_data.json")
    assert (records["format"], records["version"]) == ("foreseg", 1)
    by_expression = {(r["video"], r["exp_id"]): r for r in records["records"]}
    assert [video["vid_id"] for video in meta.values()] == list(range(6))
    for name, video in meta.items():
        files = sorted(p.stem for p in (made / "JPEGImages" / name).iterdir())
        assert files == video["frames"]
        assert cv2.imread(str(made / "JPEGImages" / name / "00000.jpg")).shape == (120, 160, 3)
        assert video["kind"] in name
        for exp_id, expression in video["expressions"].items():
            check_expression(video, expression, masks)
            record = by_expression.pop((name, exp_id))
            check_record(record, expression, video, masks)
    assert by_expression == {}


def check_expression(video: Any, expression: Any, masks: Any) -> None:
    assert set(expression) >= {"exp", "ans", "obj_id", "anno_id", "type", "skill", "difficulty"}
    assert len(expression["obj_id"]) == len(expression["anno_id"])
    for anno_id in expression["anno_id"]:
        assert len(masks[str(anno_id)]) == len(video["frames"])
        assert any(masks[str(anno_id)])
    if video["kind"] == "clip":
        assert (expression["type"] == "no_target") == (expression["anno_id"] == [])
        assert "truths" not in expression
        return
    spans = expression["truths"]
    assert (spans[0]["obj_id"], spans[0]["anno_id"]) == (
        expression["obj_id"],
        expression["anno_id"],
    )
    assert spans[-1]["until_frame"] <= len(video["frames"])
    assert all(len(span["anno_id"]) == len(span["obj_id"]) for span in spans)


def check_record(record: Any, expression: Any, video: Any, masks: Any) -> None:
    assert (record["question"], record["answer"]) == (expression["exp"], expression["ans"])
    assert record["reasoning"].endswith(".")
    evidence = record["evidence"]
    assert {*evidence["frames"], evidence["keyframe"]} <= set(video["frames"])
    if len(expression["anno_id"]) != 1:
        return
    per_frame = masks[str(expression["anno_id"][0])]
    for frame, (x0, y0, x1, y1) in evidence["boxes"].items():
        rle = per_frame[video["frames"].index(frame)]
        mask = mask_from_rle(
            MaskRle(height=rle["size"][0], width=rle["size"][1], counts=rle["counts"])
        )
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
    assert evidence["keyframe"] in evidence["boxes"]


def test_names_and_numbers_do_not_tell_the_answer(made: Path) -> None:
    for name, video in loaded(made / "meta_expressions_val.json")["videos"].items():
        assert name.split("_")[:-1] == ["shapes", video["kind"]]
        assert video["frames"] == [f"{i:05d}" for i in range(len(video["frames"]))]


def test_the_summary_says_what_was_made(made: Path) -> None:
    summary = loaded(made / "dataset.json")
    assert summary["command"]["worlds"] == {"shapes": 1}
    assert summary["counts"]["kinds"] == {"clip": 5, "stream": 1}
    assert 0 <= summary["share_hard"]["clip"] <= 1


def test_a_folder_of_another_command_is_refused_with_what_differs(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(made)
    assert main(["generate", "--clips", "7", "--out", str(made), *SIZE]) == 2
    said = capsys.readouterr().err
    assert "clips 5 there, 7 asked for" in said
    assert "seed 4 there, 0 asked for" in said
    assert content(made) == before
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["generate", "--clips", "1", "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage"),
        (["generate", "--out", "x"], "expected clips or streams"),
        (["generate", "--out", "x", "--clips", "one"], "invalid int"),
        (["generate", "--out", "x", "--clips", "1", "--size", "wide"], "'wide' is no size"),
        (["generate", "--out", "x", "--clips", "1", "--size", "20x20"], "at least 160x120"),
        (["generate", "--out", "x", "--clips", "1", "--world", "moon"], "'moon'"),
        (["generate", "--out", "x", "--clips", "1", "--workers", "0"], "at least 1"),
        (["generate", "--out", "x", "--clips", "1", "--seed", "-1"], "seed is -1"),
        (["generate", "--out", "x", "--clips", "-1"], "-1 clips"),
        (["generate", "--out", "x", "--clips", "1", *["--world", "shapes"] * 2], "differ"),
        (["generate", "--out", "x", "--preset", "val-v1", "--clips", "3"], "leave out --clips"),
        (["preview", "--out", "x.gif"], "expected .png or .mp4"),
        (["preview", "--out", "x.png", "--scene", "moon"], "'moon'"),
        (["preview", "--out", "x.png", "--seed", "-3"], "seed is -3"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    heard = capsys.readouterr()
    assert said in heard.err + heard.out
    assert "Traceback" not in heard.err
    assert list(tmp_path.iterdir()) == []


def test_a_world_that_cannot_be_drawn_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    out = tmp_path / "set"
    assert main(["generate", "--world", "tabletop", "--clips", "1", "--out", str(out)]) == 2
    assert "mujoco" in capsys.readouterr().err
    assert not out.exists()


def test_previews_are_drawn_and_scenes_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, video = tmp_path / "deep" / "sheet.png", tmp_path / "film.mp4"
    assert main(["preview", "--scene", "hit_habit", "--out", str(sheet)]) == 0
    assert cv2.imread(str(sheet)).shape[1] == 4 * 240
    assert main(["preview", "--scene", "leave", "--out", str(video)]) == 0
    assert cv2.VideoCapture(str(video)).read()[1].shape[1] == 640
    assert main(["scenes"]) == 0
    assert "shapes hit_lamp" in capsys.readouterr().out
