# SPDX-License-Identifier: Apache-2.0
"""Photographs with masks for training: what is read, what is left out, what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="training clips are drawn with OpenCV")
pytest.importorskip("PIL", reason="masks are read with Pillow")
pytest.importorskip("torch", reason="prompts are tensors")

from PIL import Image  # noqa: E402

from foreseg_training.tracker.batches import (  # noqa: E402
    BatchShape,
    PromptKind,
    correcting_clicks,
    make_batch,
    prompt_points,
)
from foreseg_training.tracker.layers import (  # noqa: E402
    Layer,
    draw_bend,
    draw_ripple,
    matrices_of,
)
from foreseg_training.tracker.photo_clips import PhotoClipMaker  # noqa: E402
from foreseg_training.tracker.photos import cut_out, load, read_photos  # noqa: E402

SIDE = 96


def scene(seed: int, wh: tuple[int, int] = (120, 90)) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture with two discs of plain colours."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(90, 160, (wh[1], wh[0], 3), dtype=np.uint8)
    ids = np.zeros((wh[1], wh[0]), np.uint8)
    for number, centre in ((1, (wh[0] // 3, wh[1] // 2)), (2, (3 * wh[0] // 4, wh[1] // 2))):
        cv2.circle(ids, centre, 17, number, -1)
        picture[ids == number] = (220, 30 * number, 10)
    return picture, ids


def write_photo(folder: Path, name: str, picture: np.ndarray, ids: np.ndarray | None) -> None:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "photos" / f"{name}.jpg"), picture)
    if ids is not None:
        mask = Image.fromarray(ids)
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        mask.save(folder / "masks" / f"{name}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(24):
        write_photo(tmp_path, f"{'cats' if seed % 2 else 'dogs'}_{seed}", *scene(seed))
    return tmp_path


def test_broken_files_are_named_counted_and_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture, ids = scene(99)
    write_photo(folder, "bad_nomask", picture, None)
    write_photo(folder, "bad_empty", picture, np.zeros_like(ids))
    write_photo(folder, "bad_size", picture, ids[:50])
    write_photo(folder, "bad_colour", picture, ids)
    Image.fromarray(picture).save(folder / "masks" / "bad_colour.png")
    write_photo(folder, "bad_grey", picture, ids)
    grey = np.arange(ids.size, dtype=np.int64).reshape(ids.shape) % 200
    Image.fromarray(grey.astype(np.uint8)).save(folder / "masks" / "bad_grey.png")
    write_photo(folder, "bad_cut", picture, ids)
    data = (folder / "masks" / "bad_cut.png").read_bytes()
    (folder / "masks" / "bad_cut.png").write_bytes(data[: len(data) // 2])
    (folder / "photos" / "bad_text.jpg").write_text("no picture")
    (folder / "photos" / "._dogs_0.jpg").write_bytes(b"macOS")
    photos = read_photos(folder)
    assert {source: len(found) for source, found in photos.photos.items()} == {
        "cats": 12,
        "dogs": 12,
    }
    reasons = dict(problem.split(": ", 1) for problem in photos.problems)
    assert reasons["bad_nomask.jpg"] == "has no mask"
    assert reasons["bad_empty.jpg"] == "its mask is empty"
    assert reasons["bad_size.jpg"] == "its mask is 120x50, not 120x90"
    assert "mode RGB" in reasons["bad_colour.jpg"]
    assert "200 values" in reasons["bad_grey.jpg"]
    assert reasons["bad_cut.jpg"].startswith("its mask cannot be used")
    assert reasons["bad_text.jpg"] == "cannot be read as a picture"
    assert len(reasons) == 7
    assert "left out 7 files" in caplog.text
    assert all(f"left out {problem}" in caplog.text for problem in photos.problems)


def test_ids_with_gaps_are_numbered_anew(tmp_path: Path) -> None:
    picture, ids = scene(1)
    write_photo(tmp_path, "a_1", picture, np.where(ids == 2, 30, ids).astype(np.uint8))
    photos = read_photos(tmp_path)
    _, read = load(photos.photos["a"][0])
    assert np.array_equal(read, ids)


@pytest.mark.parametrize("weight", [{"birds": 1.0}, {"cats": -1.0}])
def test_a_weight_that_cannot_be_is_refused(folder: Path, weight: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(weight))):
        read_photos(folder, weight)


def test_a_folder_that_is_missing_or_useless_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_photos(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="nothing was found"):
        read_photos(tmp_path)
    write_photo(tmp_path, "x_1", scene(0)[0], None)
    with pytest.raises(FileNotFoundError, match="has no mask"):
        read_photos(tmp_path)


def test_weights_decide_how_often_a_source_is_drawn(folder: Path) -> None:
    photos = read_photos(folder, {"cats": 3.0})
    rng = np.random.default_rng(0)
    drawn = [photos.draw_photo(rng).source for _ in range(2000)]
    assert drawn.count("cats") / 2000 == pytest.approx(0.75, abs=0.04)


def test_held_out_photographs_never_train(folder: Path) -> None:
    train, held_out = read_photos(folder).split()
    names = [
        {p.picture.name for found in s.photos.values() for p in found} for s in (train, held_out)
    ]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 24
    assert names[1]


def test_of_a_few_photographs_one_selects_and_one_is_refused(tmp_path: Path) -> None:
    write_photo(tmp_path, "cats_1", *scene(1))
    with pytest.raises(ValueError, match="wants 2 photographs"):
        read_photos(tmp_path).split()
    write_photo(tmp_path, "dogs_1", *scene(2))
    with pytest.raises(ValueError, match="got 1"):
        read_photos(tmp_path, {"dogs": 0.0}).split()
    for part in read_photos(tmp_path).split():
        assert sum(map(len, part.photos.values())) == 1
        assert part.draw_photo(np.random.default_rng(0)).picture.is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--photos", "nosuch"], "no folder of photographs"),
        (["--minutes", "-1"], "--minutes wants"),
        (["--minutes", "nan"], "--minutes wants"),
        (["--threads", "0"], "--threads wants at least 1"),
        (["--seed", "-1"], "--seed wants at least 0"),
        (["--image-size", "100"], "multiple of 16"),
        (["--resume"], "has no state.pt"),
        (["--weight", "a"], "--weight wants SOURCE=NUMBER, got 'a'"),
        (["--weight", "cats=nan"], "got cats=nan"),
        (["--weight", "cats=0", "--weight", "dogs=0"], "all sources have a weight of 0"),
    ],
)
def test_a_mistake_is_one_sentence(
    folder: Path,
    tmp_path: Path,
    words: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from foreseg_training.tracker.__main__ import main

    given = [] if "--photos" in words else ["--photos", str(folder)]
    with pytest.raises(SystemExit) as leaving:
        main(["--out", str(tmp_path / "out"), *given, *words])
    assert leaving.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--minutes", "0"], "--minutes wants a finite number above 0, got 0.0"),
        (["--resume"], "has no state.pt"),
        (["--start", "nosuch.safetensors"], "nosuch.safetensors"),
    ],
)
def test_the_subcommand_is_the_module(
    tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from foreseg_training.cli import main as train_main
    from foreseg_training.tracker.__main__ import main as module_main

    lines = []
    for start in (lambda given: train_main(["tracker", *given]), module_main):
        with pytest.raises(SystemExit) as leaving:
            start(["--out", str(tmp_path / "out"), *words])
        assert leaving.value.code == 2
        lines.append(capsys.readouterr().err.splitlines()[-1].partition(": ")[2])
    assert told in lines[0]
    assert lines[0] == lines[1]


def test_a_cutout_file_without_alpha_is_named(folder: Path) -> None:
    (folder / "cutouts").mkdir()
    cv2.imwrite(str(folder / "cutouts" / "box_1.png"), scene(0)[0])
    rgba = np.dstack([scene(0)[0], np.full((90, 120), 255, np.uint8)])
    cv2.imwrite(str(folder / "cutouts" / "box_2.png"), rgba)
    photos = read_photos(folder)
    assert [path.name for path in photos.cutouts] == ["box_2.png"]
    assert photos.problems == ("box_1.png: no RGBA cut-out of at least 300 pixels",)


def test_equal_seeds_draw_equal_clips_and_others_do_not(folder: Path) -> None:
    maker = PhotoClipMaker(photos=read_photos(folder))
    first, again, other = (maker.make(seed, 4, SIDE) for seed in (5, 5, 6))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.instance_ids, again.instance_ids)
    assert not np.array_equal(first.images, other.images)


def test_clips_keep_their_contract(folder: Path) -> None:
    maker = PhotoClipMaker(photos=read_photos(folder))
    for seed in range(40):
        clip = maker.make(seed, 3, SIDE)
        assert clip.images.shape == (3, SIDE, SIDE, 3)
        assert clip.images.dtype == clip.instance_ids.dtype == np.uint8
        assert int(clip.instance_ids.max()) <= len(clip.full_areas_px)
        areas = np.bincount(clip.instance_ids[0].ravel(), minlength=len(clip.full_areas_px) + 1)
        assert all(
            area <= full + 1e-6 for area, full in zip(areas[1:], clip.full_areas_px, strict=False)
        )


def test_exits_make_objects_absent_on_later_frames_and_never_on_the_first(folder: Path) -> None:
    photos = read_photos(folder)
    absent = {}
    for probability in (0.0, 1.0):
        maker = PhotoClipMaker(photos=photos, exit_probability=probability)
        rng = np.random.default_rng(1)
        shape = BatchShape(num_clips=40, num_frames=5, num_objects=2, image_size=SIDE)
        batch = make_batch(rng, maker.make, shape, PromptKind.BOX, (0.5,) * 3, (0.2,) * 3)
        gone = batch.targets.flatten(2).sum(dim=2) == 0
        assert not bool(gone[:, 0].any())
        absent[probability] = float(gone[:, 1:].float().mean())
    assert absent[1.0] > absent[0.0] + 0.1


def test_a_still_layer_draws_the_same_frame_and_its_mask_lies_where_it_is() -> None:
    picture = np.full((20, 20, 3), 200, np.uint8)
    cutout = cut_out(
        np.pad(picture, ((40, 40), (40, 40), (0, 0))), np.pad(np.ones((20, 20), bool), 40)
    )
    assert cutout is not None
    layer = Layer(
        picture=cutout.picture,
        alpha=cutout.alpha,
        ids=None,
        places=np.array([[48.0, 30.0]] * 2, np.float32),
        matrices=matrices_of(np.ones(2), np.zeros(2), np.zeros(2), flip=False),
    )
    frames = [layer.draw(t, SIDE) for t in (0, 1)]
    assert np.array_equal(frames[0][2], frames[1][2])
    ys, xs = np.nonzero(frames[0][2])
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (38, 58, 20, 40)


@pytest.mark.parametrize("kind", ["bend", "ripple"])
def test_deformation_changes_the_shape_and_keeps_most_of_it(kind: str) -> None:
    rng = np.random.default_rng(3)
    layer = Layer(
        picture=np.full((60, 60, 3), 200, np.uint8),
        alpha=np.pad(np.ones((40, 40), np.float32), 10),
        ids=None,
        places=np.array([[48.0, 48.0]] * 6, np.float32),
        matrices=matrices_of(np.ones(6), np.zeros(6), np.zeros(6), flip=False),
        bend=draw_bend(rng, 6) if kind == "bend" else None,
        ripple=draw_ripple(rng, 6) if kind == "ripple" else None,
    )
    masks = [layer.draw(t, SIDE)[2] > 0 for t in range(6)]
    assert any(not np.array_equal(masks[0], mask) for mask in masks[1:])
    assert all(800 < np.count_nonzero(mask) < 3200 for mask in masks)


def test_a_box_with_points_has_its_corners_first() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[30:60, 20:50] = True
    rng = np.random.default_rng(0)
    points, labels = prompt_points(rng, [mask, mask], PromptKind.BOX_POINTS)
    assert points is not None
    assert labels is not None
    assert labels[:, 0, :2].tolist() == [[2, 3], [2, 3]]
    assert labels[:, 0, 2].tolist() == [1, 1]
    assert points.shape[2] == labels.shape[2] >= 3
    assert all(mask[int(y), int(x)] for x, y in points[:, 0, 2].tolist())


def test_correcting_clicks_fall_on_the_error_and_carry_its_sign() -> None:
    truth = np.zeros((3, 40, 40), bool)
    truth[:2, 10:30, 10:30] = True
    said = truth.copy()
    said[0, 10:30, 10:20] = False  # missed the left half
    said[1, 30:38, 10:30] = True  # took too much below
    points, labels = correcting_clicks(np.random.default_rng(0), said, truth)
    (x, y), (u, v), (w, z) = points[:, 0, 0].tolist()
    assert labels.flatten().tolist() == [1, 0, 0]
    assert 10 <= x < 20
    assert 10 <= y < 30
    assert 10 <= u < 30
    assert 30 <= v < 38
    assert 0 <= w < 40
    assert 0 <= z < 40
