# SPDX-License-Identifier: Apache-2.0
"""The tracking report: clips from disk, baselines that do what they say, one table."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="the report needs the extra [evaluation]")
image_module = pytest.importorskip("PIL.Image", reason="the report reads palettes with pillow")

from foreseg_evaluation.clips import ObjectClip, read_clip, read_labels  # noqa: E402
from foreseg_evaluation.tracking import (  # noqa: E402
    box_around,
    repeat_first_mask,
    score_method,
    warp_by_flow,
)
from foreseg_evaluation.tracking_report import main, report  # noqa: E402
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
    score = score_method(lambda _images, _first: [m for m in clip.masks if m is not None], clip)
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
