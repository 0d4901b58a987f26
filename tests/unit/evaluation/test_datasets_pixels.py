# SPDX-License-Identifier: Apache-2.0
"""What is wrong with pixels shows when they are read: told with file and key, then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

image_module = pytest.importorskip("PIL.Image", reason="datasets need the extra [evaluation]")
pytest.importorskip("tqdm", reason="datasets need the extra [evaluation]")
pytest.importorskip("cv2", reason="datasets need the extra [evaluation]")
pytest.importorskip("pycocotools.mask", reason="the trees' run lengths")

from tests.support import dataset_trees as trees  # noqa: E402
from tests.unit.evaluation.test_datasets_problems import in_json, put  # noqa: E402

from foreseg.errors import InputError  # noqa: E402
from foreseg_evaluation.datasets import read_dataset  # noqa: E402
from foreseg_evaluation.datasets.pictures import read_image  # noqa: E402
from foreseg_evaluation.problems import DatasetError  # noqa: E402


def test_runs_that_do_not_fill_the_mask_are_told_when_decoded(tmp_path: Path) -> None:
    trees.write_revos(tmp_path)
    in_json("mask_dict.json", put("8", 3, "counts", "o0"))(tmp_path)
    in_json("mask_dict.json", put("8", 4, "counts", [3, 4]))(tmp_path)
    in_json("mask_dict.json", put("8", 5, "counts", ["3"]))(tmp_path)
    episode = read_dataset(tmp_path, "revos", strict=True).episodes[1]
    assert episode.truth(0).any()
    for position, words in (
        (3, "run"),
        (4, "run lengths sum to 7, expected"),
        (5, "whole number"),
    ):
        with pytest.raises(DatasetError, match=words) as caught:
            episode.truth(position)
        assert caught.value.problem.file == str(tmp_path / "mask_dict.json")
        assert caught.value.problem.key == f"8/{position}"


def test_pictures_that_end_early_or_have_another_size_are_told(tmp_path: Path) -> None:
    trees.write_davis2017(tmp_path)
    frames = tmp_path / "JPEGImages/480p/goat"
    maps = tmp_path / "Annotations/480p/goat"
    episode = read_dataset(tmp_path, "davis2017", strict=True).episodes[0]
    data = (frames / "00002.jpg").read_bytes()
    (frames / "00002.jpg").write_bytes(data[: len(data) * 2 // 3])
    trees.write_frames(frames, ["00003"], (41, 30))
    (frames / "00004.jpg").unlink()
    trees.write_binary(maps, ["00002"], [np.zeros((30, 39), dtype=np.bool_)])
    image_module.new("RGB", trees.SIZE_WH).save(maps / "00003.png")
    for position, words in (
        (2, "no readable picture"),
        (3, "is 41x30, expected 40x30"),
        (4, "no readable"),
    ):
        with pytest.raises(DatasetError, match=words) as caught:
            episode.image(position)
        assert caught.value.problem.file == str(frames / f"0000{position}.jpg")
    for position, words in ((2, "is 39x30, expected 40x30"), (3, "is in colour")):
        with pytest.raises(DatasetError, match=words) as caught:
            episode.truth(position)
        assert caught.value.problem.file == str(maps / f"0000{position}.png")


def test_polygons_that_cannot_be_are_told(tmp_path: Path) -> None:
    trees.write_grefcoco(tmp_path)
    for polygon in ([1, 2, 3, 4], [1, 2, 3, 4, 5, 1e300], [1, 2, 3, 4, 5]):
        change = put("annotations", 1, "segmentation", [[0, 0, 3, 0, 0, 3], polygon])
        in_json("grefcoco/instances.json", change)(tmp_path)
        episode = read_dataset(tmp_path, "grefcoco", strict=True).episodes[0]
        with pytest.raises(DatasetError, match="three or more corners") as caught:
            episode.truth(0)
        assert caught.value.problem.key == "annotations/1/segmentation/1"


def test_positions_and_objects_that_are_none_are_refused(tmp_path: Path) -> None:
    trees.write_davis2017(tmp_path)
    media = read_dataset(tmp_path, "davis2017").episodes[0].media
    for position in (-1, 6):
        with pytest.raises(InputError, match="outside of 6 frames"):
            media.image(position)
        with pytest.raises(InputError, match="outside of 6 frames"):
            media.mask("1", position)
    with pytest.raises(InputError, match="object '3' is none of"):
        media.mask("3", 0)


def test_an_exif_block_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    exif = image_module.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    path = tmp_path / "x.jpg"
    image_module.new("RGB", trees.SIZE_WH).save(path, exif=exif)
    data = path.read_bytes()
    broken = data.replace(b"\x01\x0f\x00\x02", b"\x01\x00\x00\x02", 1)  # a width that is a text
    assert broken != data
    path.write_bytes(broken)
    with pytest.raises(DatasetError, match="no readable picture") as caught:
        read_image(path, trees.SIZE_WH[::-1])
    assert caught.value.problem.file == str(path)
