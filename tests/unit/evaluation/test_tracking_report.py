# SPDX-License-Identifier: Apache-2.0
"""The tracking report: clips from disk, baselines that do what they say, one table."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="the report needs the extra [evaluation]")
image_module = pytest.importorskip("PIL.Image", reason="the report reads palettes with pillow")

from foreseg_evaluation.absence import absence_score  # noqa: E402
from foreseg_evaluation.clips import ObjectClip, read_clip, read_labels  # noqa: E402
from foreseg_evaluation.prompt_forms import (  # noqa: E402
    PromptForm,
    box_around,
    ellipse_in_box,
    prompt_of,
)
from foreseg_evaluation.tracking import (  # noqa: E402
    Followed,
    repeat_ellipse,
    repeat_first_mask,
    score_method,
    warp_by_flow,
)
from foreseg_evaluation.tracking_report import format_table, main, report  # noqa: E402
from foreseg_simulation.shapes.wandering import WanderingConfig, wander  # noqa: E402
from foreseg_simulation.write_clips import promptable_objects, write_clip  # noqa: E402


def sliding_clip(num_frames: int = 8, step_px: int = 3) -> ObjectClip:
    """A textured square that slides over a textured floor."""
    rng = np.random.default_rng(1)
    floor = cv2.resize(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), (160, 120))
    square = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (36, 36))
    images, masks = [], []
    for t in range(num_frames):
        image, mask = floor.copy(), np.zeros((120, 160), dtype=bool)
        x = 30 + step_px * t
        image[40:76, x : x + 36] = square
        mask[40:76, x : x + 36] = True
        images.append(image)
        masks.append(mask)
    return ObjectClip(name="sliding", images=tuple(images), masks=tuple(masks))


def test_a_perfect_method_scores_one() -> None:
    clip = sliding_clip()
    truth = Followed(masks=[m for m in clip.masks if m is not None])
    score = score_method(lambda _images, _first: truth, clip)
    assert (score.prompted_j, score.tracked_j, score.j_and_f) == (1.0, 1.0, 1.0)
    assert not score.is_occluded


def test_flow_follows_what_slides_and_repeating_does_not() -> None:
    clip = sliding_clip()
    flow = score_method(warp_by_flow, clip)
    repeat = score_method(repeat_first_mask, clip)
    assert flow.tracked_j > repeat.tracked_j + 0.1


def test_frames_without_annotation_are_not_scored() -> None:
    clip = sliding_clip()
    first, *others = clip.masks
    sparse = ObjectClip(name=clip.name, images=clip.images, masks=(first, *[None] * 6, others[-1]))
    score = score_method(repeat_first_mask, sparse)
    full = score_method(repeat_first_mask, clip)
    assert score.tracked_j < full.tracked_j


def test_box_runs_along_the_outer_pixel_edges() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[3:5, 7:11] = True
    assert box_around(mask) == (7.0, 3.0, 11.0, 5.0)


def test_written_clips_are_read_back_exactly(tmp_path: Path) -> None:
    frames = list(itertools.islice(wander(3, WanderingConfig(size_wh=(160, 120))), 4))
    objects = promptable_objects(frames[0])
    write_clip(tmp_path / "clip", frames, objects)
    for path in sorted((tmp_path / "clip").glob("*/*")):  # as a Mac leaves it
        path.with_name(f"._{path.name}").write_bytes(bytes(8))
    clips = read_clip(tmp_path / "clip", num_frames=3)
    assert [clip.name for clip in clips] == [f"clip/{i + 1}" for i in range(len(objects))]
    for clip, k in zip(clips, objects, strict=True):
        assert len(clip.images) == 3
        for frame, image, mask in zip(frames, clip.images, clip.masks, strict=False):
            assert np.array_equal(image, frame.image)
            assert np.array_equal(mask, frame.instance_ids == k)


def test_palette_gives_indices_and_a_lone_255_is_an_object(tmp_path: Path) -> None:
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[2:4, 2:5] = 2
    picture = image_module.fromarray(labels)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "palette.png")
    assert np.array_equal(read_labels(tmp_path / "palette.png"), labels)
    for name, values in (("lone", (0, 255)), ("void", (0, 1, 255))):
        (tmp_path / name / "frames").mkdir(parents=True)
        (tmp_path / name / "masks").mkdir()
        grey = np.resize(np.array(values, dtype=np.uint8), (6, 8))
        cv2.imwrite(str(tmp_path / name / "frames" / "0.png"), np.zeros((6, 8, 3), np.uint8))
        cv2.imwrite(str(tmp_path / name / "masks" / "0.png"), grey)
    assert [clip.name for clip in read_clip(tmp_path / "lone")] == ["lone/255"]
    assert [clip.name for clip in read_clip(tmp_path / "void")] == ["void/1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--backend", "gpu", "."], "a back-end is one of"),
        (["--bundle", "nosuch", "."], "no engine bundle in nosuch"),
        (["nosuch"], "No such file or directory: 'nosuch'"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_report_has_one_row_per_method(tmp_path: Path) -> None:
    frames = list(itertools.islice(wander(4, WanderingConfig(size_wh=(160, 120))), 4))
    write_clip(tmp_path / "held_out" / "a", frames, promptable_objects(frames[0]))
    methods = {"repeat": repeat_first_mask, "flow": warp_by_flow}
    lines = report(tmp_path / "held_out", methods, 3).splitlines()
    assert lines[0].startswith("### held_out: ")
    assert [line.split(" | ")[0] for line in lines[3:]] == ["| repeat", "| flow"]


def test_the_ellipse_is_what_a_box_says_of_a_disc() -> None:
    disc = cv2.circle(np.zeros((60, 80), np.uint8), (40, 30), 20, 1, -1).astype(bool)
    ellipse = ellipse_in_box(disc)
    assert (disc & ellipse).sum() / (disc | ellipse).sum() > 0.95
    assert box_around(ellipse) == box_around(disc)
    square = np.pad(np.ones((20, 20), bool), 5)
    assert ellipse_in_box(square).sum() == pytest.approx(np.pi / 4 * 400, rel=0.03)


@pytest.mark.parametrize("shape", ["ring", "bar", "whole picture"])
def test_prompts_point_at_the_object_and_beside_it(shape: str) -> None:
    mask = np.zeros((40, 50), bool)
    if shape == "ring":
        mask[5:35, 5:35] = True
        mask[12:28, 12:28] = False
    elif shape == "bar":
        mask[10:14, 5:45] = True
    else:
        mask[:] = True
    click = prompt_of(PromptForm.CLICK, mask)
    assert len(click.points) == 1
    assert mask[int(click.points[0].y), int(click.points[0].x)]
    both = prompt_of(PromptForm.BOX_POINTS, mask)
    assert both.box == prompt_of(PromptForm.BOX, mask).box
    assert [int(point.label) for point in both.points] == [1, 0]
    if shape != "whole picture":
        assert not mask[int(both.points[1].y), int(both.points[1].x)]
    assert prompt_of(PromptForm.MASK, mask).mask is not None
    both.checked((50, 40))


def test_absence_is_judged_by_rank_and_at_the_threshold() -> None:
    score = absence_score([5, 2, -1, -3, 1, -2], [True, True, True, False, False, False])
    # of nine pairs, -1 loses to 1: 8 are right
    assert score.auroc == pytest.approx(8 / 9)
    assert (score.num_absent, score.num_visible) == (3, 3)
    assert score.absent_found == pytest.approx(2 / 3)
    assert score.visible_lost == pytest.approx(1 / 3)
    tied = absence_score([1, 1], [True, False])
    assert tied.auroc == 0.5
    assert np.isnan(absence_score([1.0], [True]).auroc)
    with pytest.raises(ValueError, match="one truth"):
        absence_score([1.0], [])


def test_an_object_that_leaves_gets_a_table_of_absence() -> None:
    clip = sliding_clip()
    away = ObjectClip(
        name="away",
        images=clip.images,
        masks=(*clip.masks[:5], *[np.zeros((120, 160), bool)] * 3),
    )
    said = Followed(masks=[clip.masks[0]] * 8, object_logits=[3, 3, 3, 3, -1, 2, -4, -4])
    score = score_method(lambda _images, _first: said, away)
    assert score.presence == (
        *(((3.0, True),) * 3), (-1.0, True), (2.0, False), (-4.0, False), (-4.0, False),
    )  # fmt: skip
    table = format_table("x", {"said": [score], "repeat": [score_method(repeat_first_mask, away)]})
    assert "| said | 3 / 4 | 0.917 | 66.7 | 25.0 |" in table  # 11 of 12 pairs
    assert "| repeat | 3" not in table


def test_photographs_get_a_table_by_source(tmp_path: Path) -> None:
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("cats_1", "cats_2", "dogs_1"):
        ids = np.zeros((60, 80), np.uint8)
        ids[20:40, 20:50] = 1
        ids[0, 0] = 2  # too small to count
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.jpg"), np.zeros((60, 80, 3), np.uint8))
        picture = image_module.fromarray(ids)
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        picture.save(tmp_path / "masks" / f"{name}.png")
    methods = {"ellipse": repeat_ellipse, "repeat": repeat_first_mask}
    lines = report(tmp_path, methods, None).splitlines()
    assert lines[0].endswith(": 3 objects in photographs, J on the prompted frame")
    assert lines[1] == "| method | all | cats (2) | dogs (1) |"
    assert lines[3].startswith("| ellipse | 7")
    assert len(lines) == 4


def test_coloured_labels_are_refused(tmp_path: Path) -> None:
    picture = np.zeros((6, 8, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "colour.png"), picture)
    with pytest.raises(OSError, match="mode RGB"):
        read_labels(tmp_path / "colour.png")


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no clip"):
        report(tmp_path, {"repeat": repeat_first_mask}, None)


def test_what_cannot_be_used_is_counted_named_and_left_out(tmp_path: Path) -> None:
    ids = np.zeros((60, 80), np.uint8)
    ids[20:40, 20:50] = 1
    masks = {
        "a_coloured": np.stack([ids] * 3, axis=2),
        "a_empty": np.zeros_like(ids),
        "a_good": ids,
        "a_missing": None,
        "a_small": ids[::2, ::2],
    }
    for name, mask in masks.items():
        clip = tmp_path / "clips" / name
        for folder in (clip / "frames", clip / "masks", tmp_path / "photos", tmp_path / "masks"):
            folder.mkdir(parents=True, exist_ok=True)
        for picture in (tmp_path / "photos" / name, clip / "frames" / "0", clip / "frames" / "1"):
            cv2.imwrite(f"{picture}.jpg", np.zeros((60, 80, 3), np.uint8))
        for labels in (tmp_path / "masks" / name, clip / "masks" / "0", clip / "masks" / "1"):
            if mask is not None:
                cv2.imwrite(f"{labels}.png", mask)
    (tmp_path / "clips" / "a_still" / "frames").mkdir(parents=True)
    (tmp_path / "clips" / "a_still" / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "clips/a_still/frames/0.jpg"), np.zeros((60, 80, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "clips/a_still/masks/0.png"), ids)
    cv2.imwrite(str(tmp_path / "photos/a_tones.jpg"), np.zeros((60, 80, 3), np.uint8))
    tones = np.tile(np.arange(80, dtype=np.uint8), (60, 1))
    cv2.imwrite(str(tmp_path / "masks/a_tones.png"), tones)
    methods = {"ellipse": repeat_ellipse}
    for text, count in (
        (report(tmp_path, methods, None), 5),
        (report(tmp_path / "clips", methods, None), 5),
    ):
        assert ": 1 objects" in text
        head, _, tail = text.partition(f"\nLeft out, {count}:\n")
        assert head.endswith("|\n")
        lines = tail.splitlines()
        for line, (name, reason) in zip(
            lines,
            [("coloured", "mode RGB"), ("empty", "empty"), ("missing", "o"), ("small", "40x30")],
            strict=False,
        ):
            assert line.startswith(f"- a_{name}")
            assert reason in line
        assert len(lines) == count
        assert lines[-1].startswith(("- a_still", "- a_tones"))
    assert lines[-1] == "- a_still: only its first frame has a mask"


def test_views_and_prompts_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    frames = list(itertools.islice(wander(4, WanderingConfig(size_wh=(160, 120))), 3))
    write_clip(tmp_path / "clip", frames, promptable_objects(frames[0])[:1])
    words = ["--view", "whole", "--view", "window", "--prompt", "box", "--prompt", "mask"]
    main([*words, "--num-frames", "2", str(tmp_path / "clip")])
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[3:7]]
    assert rows == [
        "| tracker, box", "| tracker, box, window", "| tracker, mask", "| tracker, mask, window"
    ]  # fmt: skip
