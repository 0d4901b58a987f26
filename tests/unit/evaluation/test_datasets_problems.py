# SPDX-License-Identifier: Apache-2.0
"""Broken datasets: what is wrong is told with file and key, and only that is left out."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL", reason="datasets need the extra [evaluation]")
pytest.importorskip("tqdm", reason="datasets need the extra [evaluation]")
pytest.importorskip("cv2", reason="datasets need the extra [evaluation]")
pytest.importorskip("pycocotools.mask", reason="the trees' run lengths")

from tests.support import dataset_trees as trees

from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.problems import DatasetError

Change = Callable[[Path], None]


def in_json(name: str, change: Callable[[Any], object]) -> Change:
    """Change the value of a JSON file in place."""

    def apply(root: Path) -> None:
        value = json.loads((root / name).read_text("utf-8"))
        change(value)
        trees.write_json(root / name, value)

    return apply


def in_text(name: str, old: str, new: str) -> Change:
    """Replace a text in a file, once."""

    def apply(root: Path) -> None:
        text = (root / name).read_text("utf-8")
        assert old in text, f"{old!r} is not in {name}"
        (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return apply


def put(*path: Any) -> Callable[[Any], None]:
    """Set the value (the last argument) at the keys before it."""

    def apply(value: Any) -> None:
        *keys, last, new = path
        for key in keys:
            value = value[key]
        value[last] = new

    return apply


def drop(*path: Any) -> Callable[[Any], None]:
    """Remove the last key below those before it."""

    def apply(value: Any) -> None:
        *keys, last = path
        for key in keys:
            value = value[key]
        del value[last]

    return apply


@dataclass(frozen=True, kw_only=True)
class Case:
    tree: str
    change: Change
    file: str  # the problem's, below the root
    key: str
    words: str
    spoilt: frozenset[str]  # episodes that are left out


def case(
    tree: str, change: Change, file: str, key: str, words: str, spoilt: Iterable[str]
) -> Case:
    return Case(
        tree=tree, change=change, file=file, key=key, words=words, spoilt=frozenset(spoilt)
    )


META = "meta_expressions_valid_.json"
VIDEO = "MOSE/0a1b"
EXPRESSIONS = f"videos/{VIDEO}/expressions"
MEVIS = "valid_u/meta_expressions.json"
MEVIS_FIRST = ("0ab4afe7fb46/0", "0ab4afe7fb46/1")
GREF = "grefcoco/grefs(unc).json"
COCO = "COCO_train2014_000000000072"
SAV = "sav_000/sav_000009_manual.json"


def at(*names: Any) -> tuple[Any, ...]:
    return ("videos", VIDEO, "expressions", *names)


CASES = {
    "blank expression": case(
        "revos",
        in_json(META, put(*at("0", "exp", "  "))),
        META,
        f"{EXPRESSIONS}/0/exp",
        "is empty",
        [f"{VIDEO}/0"],
    ),
    "no expression text": case(
        "revos",
        in_json(META, drop(*at("0", "exp"))),
        META,
        f"{EXPRESSIONS}/0/exp",
        "is missing",
        [f"{VIDEO}/0"],
    ),
    "unknown annotation": case(
        "revos",
        in_json(META, put(*at("0", "anno_id", [7, 77]))),
        META,
        f"{EXPRESSIONS}/0/anno_id",
        "annotation '77': .*mask_dict.json: 77: is missing",
        [f"{VIDEO}/0"],
    ),
    "annotations no list of ids": case(
        "revos",
        in_json(META, put(*at("1", "anno_id", [[8]]))),
        META,
        f"{EXPRESSIONS}/1/anno_id",
        r"expected an id .*got \[8\]",
        [f"{VIDEO}/1"],
    ),
    "expression no object": case(
        "revos",
        in_json(META, put(*at("2", 5))),
        META,
        f"{EXPRESSIONS}/2",
        "expected an object, got 5",
        [f"{VIDEO}/2"],
    ),
    "unknown type": case(
        "revos",
        in_json(META, put(*at("1", "type_id", 3))),
        META,
        f"{EXPRESSIONS}/1/type_id",
        "expected 0, 1 or 2, got 3",
        [f"{VIDEO}/1"],
    ),
    "RLE of another size": case(
        "revos",
        in_json("mask_dict.json", put("7", 3, "size", [40, 30])),
        META,
        f"{EXPRESSIONS}/0/anno_id",
        r"mask_dict.json: 7/3: the RLE has the size \[40, 30\], expected \[30, 40\]",
        [f"{VIDEO}/0"],
    ),
    "RLE no record": case(
        "revos",
        in_json("mask_dict.json", put("7", 3, "PPP")),
        META,
        f"{EXPRESSIONS}/0/anno_id",
        "mask_dict.json: 7/3: expected an RLE",
        [f"{VIDEO}/0"],
    ),
    "masks of fewer frames": case(
        "revos",
        in_json("mask_dict.json", drop("8", 0)),
        META,
        f"{EXPRESSIONS}/1/anno_id",
        "mask_dict.json: 8: has 5 masks, expected one for each of 6 frames",
        [f"{VIDEO}/0", f"{VIDEO}/1"],
    ),
    "foreground of fewer frames": case(
        "revos",
        in_json("mask_dict_foreground.json", drop(VIDEO, "masks_rle", 0)),
        "mask_dict_foreground.json",
        f"{VIDEO}/masks_rle",
        "has 5 masks",
        [],
    ),
    "annotation twice": case(
        "revos",
        in_text("mask_dict.json", '{"7":', '{"8": [], "7":'),
        "mask_dict.json",
        "8",
        "stands twice",
        [f"{VIDEO}/0", f"{VIDEO}/1"],
    ),
    "expression twice": case(
        "revos",
        in_text(META, '"1": {', '"0": {"exp": "x"}, "1": {'),
        META,
        f"{EXPRESSIONS}/0",
        "stands twice",
        [f"{VIDEO}/0"],
    ),
    "frame missing": case(
        "mevis",
        lambda root: (root / "valid_u/JPEGImages/0ab4afe7fb46/00003.jpg").unlink(),
        "valid_u/JPEGImages/0ab4afe7fb46",
        "00003",
        "no picture '00003'; 1 of 6 are missing",
        MEVIS_FIRST,
    ),
    "video missing": case(
        "mevis",
        lambda root: shutil.rmtree(root / "valid_u/JPEGImages/0ab4afe7fb46"),
        "valid_u/JPEGImages/0ab4afe7fb46",
        "",
        "cannot be listed",
        MEVIS_FIRST,
    ),
    "first frame empty": case(
        "mevis",
        lambda root: (root / "valid_u/JPEGImages/0ab4afe7fb46/00000.jpg").write_bytes(b""),
        "valid_u/JPEGImages/0ab4afe7fb46/00000.jpg",
        "",
        "is no readable picture",
        MEVIS_FIRST,
    ),
    "frame listed twice": case(
        "mevis",
        in_json(MEVIS, put("videos", "0ab4afe7fb46", "frames", 1, "00000")),
        MEVIS,
        "videos/0ab4afe7fb46/frames",
        "frame '00000' stands twice",
        MEVIS_FIRST,
    ),
    "frame outside": case(
        "mevis",
        in_json(MEVIS, put("videos", "0ab4afe7fb46", "frames", 1, "../00001")),
        MEVIS,
        "videos/0ab4afe7fb46/frames",
        "no plain file name",
        MEVIS_FIRST,
    ),
    "video outside": case(
        "mevis",
        in_text(MEVIS, '"0ab4afe7fb46": {', '"../valid_u/JPEGImages/0ab4afe7fb46": {'),
        MEVIS,
        "videos/../valid_u/JPEGImages/0ab4afe7fb46",
        "no plain file name",
        MEVIS_FIRST,
    ),
    "no frames": case(
        "mevis",
        in_json(MEVIS, put("videos", "0ab4afe7fb46", "frames", [])),
        MEVIS,
        "videos/0ab4afe7fb46/frames",
        "expected a list of frame names, got none",
        MEVIS_FIRST,
    ),
    "no expressions": case(
        "mevis",
        in_json(MEVIS, put("videos", "0ab4afe7fb46", "expressions", {})),
        MEVIS,
        "videos/0ab4afe7fb46/expressions",
        "is empty",
        MEVIS_FIRST,
    ),
    "truths overlap": case(
        "own fevos",
        in_json(
            "meta_expressions_val.json",
            put("videos", "v1", "expressions", "1", "truths", 1, "from_frame", 1),
        ),
        "meta_expressions_val.json",
        "videos/v1/expressions/1/truths/1",
        "expected 2 <= from_frame < until_frame <= 6, got 1 and 4",
        ["v1/1"],
    ),
    "truth behind the end": case(
        "own fevos",
        in_json(
            "meta_expressions_val.json",
            put("videos", "v1", "expressions", "1", "truths", 2, "until_frame", 7),
        ),
        "meta_expressions_val.json",
        "videos/v1/expressions/1/truths/2",
        "got 5 and 7",
        ["v1/1"],
    ),
    "unknown kind of question": case(
        "own fevos",
        in_json(
            "meta_expressions_val.json", put("videos", "v1", "expressions", "0", "type", "guess")
        ),
        "meta_expressions_val.json",
        "videos/v1/expressions/0/type",
        "expected one of referring, .*got 'guess'",
        ["v1/0"],
    ),
    "rate of nothing": case(
        "own fevos",
        in_json("meta_expressions_val.json", put("videos", "v1", "rate_hz", 0)),
        "meta_expressions_val.json",
        "videos/v1/rate_hz",
        "expected a rate in",
        ["v1/0", "v1/1", "v1/2"],
    ),
    "rationale of no question": case(
        "own fevos",
        in_json("reasoning_data.json", drop("records", 0, "exp_id")),
        "reasoning_data.json",
        "records/0/exp_id",
        "is missing",
        [],
    ),
    "rationales truncated": case(
        "own fevos",
        lambda root: (root / "reasoning_data.json").write_text('{"records": ['),
        "reasoning_data.json",
        "",
        "no whole JSON",
        [],
    ),
    "object unknown": case(
        "ref_youtube_vos",
        in_text("meta_expressions/train/meta_expressions.json", '"obj_id": "2"', '"obj_id": 3'),
        "meta_expressions/train/meta_expressions.json",
        "videos/00f88c4f0a/expressions/1/obj_id",
        "object '3' is none of the video's: 1, 2",
        ["00f88c4f0a/1"],
    ),
    "label map missing": case(
        "ref_youtube_vos",
        lambda root: (root / "train/Annotations/00f88c4f0a/00010.png").unlink(),
        "train/Annotations/00f88c4f0a",
        "00010",
        "no mask '00010'; 1 of 6 are missing",
        ["00f88c4f0a/0", "00f88c4f0a/1"],
    ),
    "mask of no frame": case(
        "reason_vos",
        lambda root: trees.write_binary(
            root / "Annotations/BURST_12_abc_1", ["00009"], [trees.square(1, 0)]
        ),
        "meta_expressions.json",
        "videos/12_abc/expressions/0/obj_id",
        "mask '00009' belongs to no frame",
        ["12_abc/1/0", "12_abc/1/1"],
    ),
    "no masks of an object": case(
        "reason_vos",
        lambda root: shutil.rmtree(root / "Annotations/BURST_12_abc_2"),
        "meta_expressions.json",
        "videos/12_abc/expressions/2/obj_id",
        "object '2': .*BURST_12_abc_2: cannot be listed",
        ["12_abc/2/0", "12_abc/2/1"],
    ),
    "ids in a list twice": case(
        "reason_vos",
        in_json("meta_expressions.json", put("videos", "12_abc", "expressions", 1, "exp_id", 0)),
        "",
        "12_abc/1/0",
        "this id stands 2 times",
        ["12_abc/1/0", "12_abc/1/1"],
    ),
    "text without an object": case(
        "ref_davis_classic texts",
        in_text("davis_text_annotations/Davis17_annot1.txt", "dog-scale 2", "dog-scale 3"),
        "davis_text_annotations/Davis17_annot1.txt",
        "dogs-scale/2",
        "has no expression of this object",
        ["dogs-scale/4"],
    ),
    "text of another form": case(
        "ref_davis_classic texts",
        in_text("davis_text_annotations/Davis17_annot1_full_video.txt", "dog-scale 1", "dog 1 x"),
        "davis_text_annotations/Davis17_annot1_full_video.txt",
        "line 1",
        "expected SEQUENCE OBJECT",
        ["dogs-scale/1"],
    ),
    "sequence missing": case(
        "davis2017",
        in_text("ImageSets/2017/val.txt", "goat", "goat\nsheep"),
        "JPEGImages/480p/sheep",
        "",
        "cannot be listed",
        [],
    ),
    "masks of a missing object in SA-V": case(
        "sa_v train",
        in_json(SAV, drop("masklet", 2, 1)),
        SAV,
        "masklet/2",
        "expected 2 RLEs",
        ["sav_000009"],
    ),
    "more masks than frames in SA-V": case(
        "sa_v train",
        in_json(SAV, put("video_frame_count", 20)),
        SAV,
        "masklet",
        "has 6 annotated frames, expected every fourth of 20",
        ["sav_000009"],
    ),
    "polygons missing": case(
        "reason_seg",
        lambda root: (root / "val/street.json").unlink(),
        "val/street.json",
        "",
        "is missing",
        ["street/0"],
    ),
    "corner without y": case(
        "reason_seg",
        lambda root: trees.write_json(
            root / "val/street.json",
            {"shapes": [{"label": "target", "points": [[1]]}], "text": ["x"]},
        ),
        "val/street.json",
        "shapes/0/points",
        "expected a list of corners",
        ["street/0"],
    ),
    "annotation of no image": case(
        "grefcoco",
        in_json(GREF, put(0, "ann_id", [501, 9])),
        GREF,
        "0",
        "annotation '9' is not in instances.json",
        [f"{COCO}/20"],
    ),
    "image missing": case(
        "grefcoco",
        in_json("grefcoco/instances.json", put("images", 0, "file_name", "other.jpg")),
        f"{trees.TRAIN2014}/other.jpg",
        "",
        "is missing",
        [f"{COCO}/20", f"{COCO}/21"],
    ),
    "image beyond all bounds": case(
        "grefcoco",
        in_json("grefcoco/instances.json", put("images", 0, "width", 10**9)),
        "grefcoco/instances.json",
        "images/0",
        r"expected sides of 1 to 16384 pixels, got \(1000000000, 30\)",
        [f"{COCO}/20", f"{COCO}/21"],
    ),
    "blank sentence": case(
        "grefcoco",
        in_json(GREF, put(1, "sentences", 0, "sent", "")),
        GREF,
        "1/sentences/0/sent",
        "is empty",
        [f"{COCO}/21"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_listed_and_only_that_is_left_out(name: str, tmp_path: Path) -> None:
    one = CASES[name]
    form, split, write = trees.TREES[one.tree]
    truths = write(tmp_path)
    one.change(tmp_path)
    dataset = read_dataset(tmp_path, form, split=split)
    places = {(p.file, p.key) for p in dataset.problems}
    file = str(tmp_path / one.file) if one.file else str(tmp_path)
    assert (file, one.key) in places
    expected = next(p for p in dataset.problems if (p.file, p.key) == (file, one.key))
    assert re.search(one.words, expected.message), expected
    left = {episode.id for episode in dataset.episodes}
    assert left == set(truths) - one.spoilt
    for episode in dataset.episodes:  # what is left is whole
        for position, mask in truths[episode.id].items():
            np.testing.assert_array_equal(episode.truth(position), mask)
    with pytest.raises(DatasetError) as caught:
        read_dataset(tmp_path, form, split=split, strict=True)
    assert caught.value.problem in dataset.problems


@pytest.mark.parametrize(
    ("tree", "file"),
    [
        ("revos", META),
        ("revos", "mask_dict.json"),
        ("grefcoco", "grefcoco/instances.json"),
        ("davis2017", "ImageSets/2017/val.txt"),
        ("refcoco", "refcoco/refs(unc).p"),
        ("ref_davis pickled", "valid/mask_dict.pkl"),
    ],
)
def test_without_its_main_files_nothing_is_read(tree: str, file: str, tmp_path: Path) -> None:
    form, split, write = trees.TREES[tree]
    write(tmp_path)
    path = tmp_path / file
    if path.suffix != ".txt":
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DatasetError, match=r"is no whole (JSON file|pickle)") as caught:
            read_dataset(tmp_path, form, split=split)
        assert caught.value.problem.file == str(path)
    if tree != "ref_davis pickled":  # without it the label maps count
        path.unlink()
        with pytest.raises(DatasetError, match="cannot be read"):
            read_dataset(tmp_path, form, split=split)


def test_no_folder_and_an_empty_split_are_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: is no folder, expected the root"):
        read_dataset(tmp_path / "nowhere", "mevis")
    trees.write_refcoco(tmp_path)
    dataset = read_dataset(tmp_path, "refcoco", split="testB")
    assert dataset.episodes == ()
    assert [p.message for p in dataset.problems] == ["has no episode in the split 'testB'"]


def test_the_numbers_of_a_pickle_must_fit_the_expressions(tmp_path: Path) -> None:
    trees.write_ref_davis_pickled(tmp_path)
    path = tmp_path / "valid/mask_dict.pkl"
    masks = pickle.loads(path.read_bytes())  # noqa: S301 (made above)
    masks["24"] = masks["0"]
    path.write_bytes(pickle.dumps(masks))
    dataset = read_dataset(tmp_path, "ref_davis")
    assert [p.message for p in dataset.problems] == [
        "has 25 numbers, expected one for each of 24 expressions"
    ]
    meta = tmp_path / "meta_expressions/valid/meta_expressions.json"
    in_text(str(meta), '"0": {', '"0": {}, "0": {')(Path("/"))
    with pytest.raises(DatasetError, match="repeated keys"):
        read_dataset(tmp_path, "ref_davis")
