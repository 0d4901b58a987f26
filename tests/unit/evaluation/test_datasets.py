# SPDX-License-Identifier: Apache-2.0
"""Datasets in their official forms: what is read, what is scored, what is not judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="datasets need the extra [evaluation]")
pytest.importorskip("tqdm", reason="datasets need the extra [evaluation]")
coco = pytest.importorskip("pycocotools.mask", reason="the reference of run lengths")
cv2 = pytest.importorskip("cv2", reason="datasets need the extra [evaluation]")

from tests.support import dataset_trees as trees  # noqa: E402
from tests.support.matroska import write_matroska  # noqa: E402

from foreseg.errors import ConfigError  # noqa: E402
from foreseg.geometry import BoxXyxy  # noqa: E402
from foreseg_evaluation.datasets import FORMS, annotator_of, read_dataset  # noqa: E402
from foreseg_evaluation.datasets.pictures import picture_size, read_image  # noqa: E402
from foreseg_evaluation.datasets.polygons import mask_from_polygons  # noqa: E402
from foreseg_evaluation.episode import Dataset, Evidence, QuestionKind  # noqa: E402
from foreseg_evaluation.problems import DatasetError  # noqa: E402

# pycocotools' __array__ has no `copy`:
# https://numpy.org/devdocs/numpy_2_0_migration_guide.html#adapting-to-changes-in-the-copy-keyword
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
GREY_TOLERANCE = 3  # of JPEG


def read(name: str, root: Path, *, strict: bool = True) -> tuple[Dataset, trees.Truths]:
    form, split, write = trees.TREES[name]
    truths = write(root)
    is_strict = strict and name != "sa_v train"  # its MP4 is missing
    return read_dataset(root, form, split=split, strict=is_strict), truths


@pytest.mark.parametrize("name", trees.TREES)
def test_every_form_gives_its_true_masks_and_frames_back(name: str, tmp_path: Path) -> None:
    dataset, truths = read(name, tmp_path)
    assert {episode.id for episode in dataset.episodes} == set(truths)
    for episode in dataset.episodes:
        expected = truths[episode.id]
        assert episode.annotated == tuple(expected)
        assert set(episode.scored) <= set(episode.annotated)
        assert episode.size_wh == trees.SIZE_WH
        for position, mask in expected.items():
            np.testing.assert_array_equal(episode.truth(position), mask, err_msg=episode.id)
        if name == "sa_v train":
            continue
        for position in (0, episode.num_frames - 1):
            image = episode.image(position)
            assert image.shape == (*trees.SIZE_WH[::-1], 3)
            assert abs(int(image.mean()) - trees.grey_of(position)) <= GREY_TOLERANCE


@pytest.mark.parametrize("name", trees.TREES)
def test_what_a_mac_puts_beside_every_file_is_no_part_of_a_dataset(
    name: str, tmp_path: Path
) -> None:
    clean, truths = read(name, tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(4092))
        if path.is_dir():
            (path / ".AppleDouble").mkdir()
    form, split, _ = trees.TREES[name]
    dataset = read_dataset(tmp_path, form, split=split, strict=name != "sa_v train")
    assert dataset.problems == clean.problems
    for episode in dataset.episodes:
        for position, mask in truths[episode.id].items():
            np.testing.assert_array_equal(episode.truth(position), mask, err_msg=episode.id)
    assert len(dataset.episodes) == len(clean.episodes)


@pytest.mark.parametrize(
    "name",
    [n for n in trees.TREES if n not in {"sa_v train", "reason_seg", "ref_youtube_vos valid"}],
)
def test_without_any_frame_the_masks_are_still_read(name: str, tmp_path: Path) -> None:
    form, split, write = trees.TREES[name]
    truths = write(tmp_path)
    with_frames = read_dataset(tmp_path, form, split=split, strict=True)
    for folder in [*tmp_path.rglob("JPEGImages*"), *tmp_path.glob("images")]:
        shutil.rmtree(folder)
    dataset = read_dataset(tmp_path, form, split=split, strict=True, wants_frames=False)
    assert any("is not there" in line for line in dataset.assumptions)
    for episode, other in zip(dataset.episodes, with_frames.episodes, strict=True):
        assert (episode.id, episode.scored, episode.size_wh) == (
            other.id, other.scored, other.size_wh,
        )  # fmt: skip
        assert episode.frame_names == other.frame_names[: episode.num_frames]
        for position, mask in truths[episode.id].items():
            np.testing.assert_array_equal(episode.truth(position), mask, err_msg=episode.id)
        with pytest.raises(DatasetError, match="is not here"):
            episode.image(0)
    with pytest.raises(DatasetError):  # a system would have nothing to look at
        read_dataset(tmp_path, form, split=split, strict=True)


def test_every_form_has_a_tree() -> None:
    own = {"drawings"}  # written by foreseg-sim: tests/unit/simulation holds both ends together
    assert {form for form, _, _ in trees.TREES.values()} == set(FORMS) - own
    for form in FORMS.values():
        assert form.default_split in form.splits


@pytest.mark.parametrize("name", ["davis2016", "davis2017"])
def test_davis_drops_the_first_and_the_last_frame(name: str, tmp_path: Path) -> None:
    dataset, _ = read(name, tmp_path)
    assert dataset.episodes[0].scored == (1, 2, 3, 4)
    assert dataset.episodes[0].question is None
    assert dataset.episodes[0].rate_hz == 24.0


def test_davis2017_has_as_many_objects_as_its_first_map_and_no_void(tmp_path: Path) -> None:
    dataset, _ = read("davis2017", tmp_path)  # frame 1 has a row of 255
    episode = dataset.episodes[0]
    assert episode.object_ids == ("1", "2")
    assert episode.media.void(1) is None
    np.testing.assert_array_equal(episode.media.mask("2", 1), trees.square(2, 1))


@pytest.mark.parametrize("name", ["ref_davis_classic", "ref_davis_classic texts"])
def test_the_classic_protocol_judges_no_void_and_has_four_sets(name: str, tmp_path: Path) -> None:
    dataset, _ = read(name, tmp_path)
    for k in range(4):
        chosen = [e for e in dataset.episodes if annotator_of(e.expression_id) == k]
        assert [e.spans[0].object_ids for e in chosen] == [("1",), ("2",)]
    void = dataset.episodes[0].media.void(1)
    assert void is not None
    assert void[-1].all()
    assert not void[:-1].any()
    assert dataset.episodes[0].scored == tuple(range(6))


def test_the_classic_texts_are_repaired_and_in_their_encodings(tmp_path: Path) -> None:
    dataset, _ = read("ref_davis_classic texts", tmp_path)
    texts = {e.expression_id: e.question.text for e in dataset.episodes if e.question}
    assert texts["0"] == "a caf\u00e9 1 1"
    assert texts["7"] == "a caf\u00e9 2 2_full_video"


def test_sa_v_counts_at_24_hz_and_drops_the_outer_annotated_frames(tmp_path: Path) -> None:
    for name in ("sa_v", "sa_v train"):
        dataset, _ = read(name, tmp_path / name)
        episode = dataset.episodes[0]
        assert (episode.num_frames, episode.rate_hz) == (22, 24.0)
        assert episode.scored == (4, 8, 12, 16)
        assert episode.media.mask(episode.object_ids[1], 3) is None
        hidden = episode.media.mask(episode.object_ids[1], 4 * trees.HIDDEN_AT)
        assert hidden is not None
        assert not hidden.any()


def test_sa_v_reads_frames_of_its_mp4_in_any_order(tmp_path: Path) -> None:
    truths = trees.write_sa_v_train(tmp_path)
    path = tmp_path / "sav_000/sav_000009.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, trees.SIZE_WH)
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MP4")
    for t in range(21):  # the file lacks its last frame
        writer.write(np.full((*trees.SIZE_WH[::-1], 3), 20 + 10 * t, dtype=np.uint8))
    writer.release()
    episode = read_dataset(tmp_path, "sa_v", split="train", strict=True).episodes[0]
    assert set(truths) == {episode.id}
    for position in (3, 4, 20, 0, 7):
        assert abs(float(episode.image(position).mean()) - (20 + 10 * position)) < 5
    with pytest.raises(DatasetError, match=r"sav_000009.mp4: frame 21: cannot be decoded"):
        episode.image(21)


def test_a_damaged_frame_of_an_mp4_does_not_shift_those_behind_it(tmp_path: Path) -> None:
    trees.write_sa_v_train(tmp_path)
    greys = [np.full((*trees.SIZE_WH[::-1], 3), 20 + 10 * t, dtype=np.uint8) for t in range(22)]
    jpegs = [cv2.imencode(".jpg", grey)[1].tobytes() for grey in greys]
    jpegs[5] = jpegs[5][:40]
    stamps_ms = [round(t * 1000 / 24) for t in range(22)]
    path = tmp_path / "sav_000/sav_000009.mp4"
    write_matroska(path, jpegs, stamps_ms, trees.SIZE_WH, duration_ms=917, rate_hz=24)
    episode = read_dataset(tmp_path, "sa_v", split="train", strict=True).episodes[0]
    assert abs(float(episode.image(4).mean()) - 60) < 5
    for position in (6, 5, 21):
        with pytest.raises(DatasetError, match=r"frame 5: cannot be decoded"):
            episode.image(position)


def test_revos_kinds_and_its_foreground(tmp_path: Path) -> None:
    dataset, _ = read("revos", tmp_path)
    kinds = [e.question.kind for e in dataset.episodes if e.question]
    assert kinds == [QuestionKind.REFERRING, QuestionKind.REASONING, QuestionKind.NO_TARGET]
    union = trees.over_time((1, 2))
    assert not any("foreground" in text for text in dataset.assumptions)
    (tmp_path / "mask_dict_foreground.json").unlink()
    without = read_dataset(tmp_path, "revos", strict=True)
    assert any("foreground" in text for text in without.assumptions)
    for one in (dataset, without):  # also of the expression without a target
        for position, mask in union.items():
            np.testing.assert_array_equal(one.episodes[2].media.foreground(position), mask)


def test_mevis_valid_has_no_truth(tmp_path: Path) -> None:
    trees.write_mevis(tmp_path, "valid")
    (tmp_path / "valid/mask_dict.json").unlink()
    path = tmp_path / "valid/meta_expressions.json"
    meta = json.loads(path.read_text("utf-8"))
    for video in meta["videos"].values():
        video["expressions"] = {k: {"exp": v["exp"]} for k, v in video["expressions"].items()}
    trees.write_json(path, meta)
    dataset = read_dataset(tmp_path, "mevis", split="valid", strict=True)
    assert len(dataset.episodes) == 4
    for episode in dataset.episodes:
        assert episode.annotated == episode.scored == episode.object_ids == episode.spans == ()
        assert episode.question is not None
        assert episode.question.kind is QuestionKind.REFERRING
        assert episode.media.foreground(0) is None


def test_the_simulations_own_keys_are_read(tmp_path: Path) -> None:
    dataset, _ = read("own fevos", tmp_path)
    told, asked, none = dataset.episodes
    assert told.question is not None
    assert asked.question is not None
    assert none.question is not None
    assert told.question.kind is QuestionKind.DESCRIPTIVE
    assert asked.question.kind is QuestionKind.FORESIGHT
    assert none.question.kind is QuestionKind.NO_TARGET
    assert (asked.question.skill, asked.question.difficulty) == ("rebound", "hard")
    assert asked.question.rationale == "It rolls on. So it falls."
    assert told.question.rationale == ""
    assert asked.rate_hz == 15.0
    assert [(s.first, s.end, s.object_ids, s.answer) for s in asked.spans] == [
        (0, 2, ("31",), "left"),
        (2, 4, (), ""),
        (5, 6, ("32",), "right"),
    ]
    assert asked.scored == (0, 1, 2, 3, 5)  # nothing is judged between the truths
    assert asked.annotated == tuple(range(6))
    assert dataset.assumptions == ()


def test_a_video_may_name_annotations_that_no_expression_does(tmp_path: Path) -> None:
    trees.write_fevos(tmp_path)
    path = tmp_path / "meta_expressions_val.json"
    meta = json.loads(path.read_text("utf-8"))
    del meta["videos"]["v1"]["expressions"]["1"]  # the only one that names 32
    trees.write_json(path, meta)
    assert read_dataset(tmp_path, "fevos").episodes[0].object_ids == ("31",)
    meta["videos"]["v1"]["anno_id"] = [31, 32, 33]
    trees.write_json(path, meta)
    dataset = read_dataset(tmp_path, "fevos")
    assert dataset.episodes[0].object_ids == ("31", "32")
    np.testing.assert_array_equal(dataset.episodes[0].truth(0), trees.square(1, 0))
    places = [(Path(p.file).name, p.key) for p in dataset.problems]
    assert places == [(path.name, "videos/v1/anno_id")]  # 33 has no masks


def test_official_fevos_asks_for_foresight_and_its_rate_is_a_guess(tmp_path: Path) -> None:
    dataset, _ = read("fevos", tmp_path)
    question = dataset.episodes[0].question
    assert question is not None
    assert (question.kind, question.answer) == (QuestionKind.FORESIGHT, "the left")
    assert dataset.episodes[0].rate_hz == 6.0
    assert any("6 Hz" in text for text in dataset.assumptions)


@pytest.mark.parametrize(
    "records",
    [
        [{"video_id": "v1", "question": "Which will fall?", "cot": "Both lean."}],
        {"v1": {"1": "Both lean."}},
        {"videos": {"v1": {"1": {"reasoning": "Both lean."}}}},
    ],
)
def test_rationales_of_unknown_forms_are_found(tmp_path: Path, records: object) -> None:
    trees.write_fevos(tmp_path)
    trees.write_json(tmp_path / "reasoning_data.json", records)
    dataset = read_dataset(tmp_path, "fevos", strict=True)
    rationales = [e.question.rationale for e in dataset.episodes if e.question]
    assert rationales == ["", "Both lean."]
    assert any("1 of 1 records" in text for text in dataset.assumptions)


def test_the_evidence_of_a_chain_of_thought_is_kept_as_positions(tmp_path: Path) -> None:
    trees.write_own_fevos(tmp_path)
    path = tmp_path / "reasoning_data.json"
    records = json.loads(path.read_text("utf-8"))
    evidence = {
        "keyframe": "00003",
        "frames": ["00002", "00000"],
        "boxes": {"00003": [1, 2, 5, 4]},
    }
    records["records"][0]["evidence"] = evidence
    trees.write_json(path, records)
    found = {
        e.id: e.question and e.question.evidence for e in read_dataset(tmp_path, "fevos").episodes
    }
    expected = Evidence(keyframe=3, frames=(0, 2), boxes={3: BoxXyxy(1, 2, 5, 4)})
    assert found == {"v1/0": None, "v1/1": expected, "v1/2": None}


@pytest.mark.parametrize(
    ("evidence", "key", "told"),
    [
        ({"frames": ["00003"]}, "keyframe", "is missing"),
        ({"keyframe": "00009"}, "keyframe", "names the frame '00009'"),
        ({"keyframe": "00003", "boxes": {"00003": [1, 2, 3]}}, "boxes/00003", "x0 < x1"),
        ({"keyframe": "00003", "boxes": {"00003": [5, 2, 1, 4]}}, "boxes/00003", "x0 < x1"),
        ("00003", "", "expected an object"),
    ],
)
def test_evidence_that_cannot_be_is_told_and_the_question_stays(
    tmp_path: Path, evidence: object, key: str, told: str
) -> None:
    trees.write_own_fevos(tmp_path)
    path = tmp_path / "reasoning_data.json"
    records = json.loads(path.read_text("utf-8"))
    records["records"][0]["evidence"] = evidence
    trees.write_json(path, records)
    dataset = read_dataset(tmp_path, "fevos")
    question = dataset.episodes[1].question
    assert question is not None
    assert (question.evidence, question.rationale) == (None, "It rolls on. So it falls.")
    (problem,) = dataset.problems
    assert problem.key == "/".join(["records/0/evidence", *([key] if key else [])])
    assert told in problem.message


def test_expressions_may_be_a_list_ids_texts_and_frames_unsorted(tmp_path: Path) -> None:
    truths = trees.write_mevis(tmp_path)
    path = tmp_path / "valid_u/meta_expressions.json"
    masks_path = tmp_path / "valid_u/mask_dict.json"
    meta, masks = json.loads(path.read_text("utf-8")), json.loads(masks_path.read_text("utf-8"))
    for video in meta["videos"].values():
        video["expressions"] = list(video["expressions"].values())
        video["frames"].reverse()
        for expression in video["expressions"]:
            expression["anno_id"] = [str(i) for i in expression["anno_id"]]
    runs = np.asfortranarray(coco.decode(masks["1"][0])).reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(runs)) + 1
    masks["1"][0]["counts"] = np.diff([0, *edges, runs.size]).tolist()
    trees.write_json(path, meta)
    trees.write_json(masks_path, {k: v[::-1] for k, v in masks.items()})
    dataset = read_dataset(tmp_path, "mevis", strict=True)
    assert {e.id for e in dataset.episodes} == set(truths)
    for episode in dataset.episodes:
        assert episode.frame_names == tuple(trees.frame_names())
        for position, mask in truths[episode.id].items():
            np.testing.assert_array_equal(episode.truth(position), mask)
    assert any("in order" in text for text in dataset.assumptions)


def test_ref_youtube_vos_valid_is_cut_by_the_test_split(tmp_path: Path) -> None:
    dataset, _ = read("ref_youtube_vos valid", tmp_path)
    assert {e.video for e in dataset.episodes} == {"0062f687f1"}
    assert dataset.episodes[0].annotated == ()
    shutil.rmtree(tmp_path / "meta_expressions/test")
    uncut = read_dataset(tmp_path, "ref_youtube_vos")
    assert any("every listed video counts as valid" in text for text in uncut.assumptions)
    assert ["ffff0001" in problem.file for problem in uncut.problems] == [True]


def test_frame_rates_are_the_forms_or_the_callers(tmp_path: Path) -> None:
    dataset, _ = read("ref_youtube_vos", tmp_path / "a")
    assert dataset.episodes[0].rate_hz == 6.0  # every fifth frame of 30 Hz
    trees.write_own_fevos(tmp_path / "b")
    assert read_dataset(tmp_path / "b", "fevos", rate_hz=3).episodes[0].rate_hz == 3


def test_reason_seg_paints_small_on_large_and_ignores(tmp_path: Path) -> None:
    dataset, _ = read("reason_seg", tmp_path)
    episode = dataset.episodes[0]
    void = episode.media.void(0)
    assert void is not None
    assert void.sum() == 7 * 7 - 3 * 3
    assert episode.question is not None
    assert episode.question.text == "what is wet \u2013 or dry?"
    assert episode.num_frames == 1


def test_grefcoco_has_questions_without_a_target(tmp_path: Path) -> None:
    dataset, _ = read("grefcoco", tmp_path)
    assert [e.question.kind for e in dataset.episodes if e.question] == [
        QuestionKind.REFERRING,
        QuestionKind.NO_TARGET,
    ]
    assert dataset.episodes[0].question is not None
    assert dataset.episodes[0].question.text == "box 20"


def test_google_stands_in_for_umd(tmp_path: Path) -> None:
    truths = trees.write_refcoco(tmp_path, "refcocog", "refs(google).p")
    dataset = read_dataset(tmp_path, "refcocog", strict=True)
    assert {e.id for e in dataset.episodes} == set(truths)
    assert any("Google" in text for text in dataset.assumptions)


def test_polygons_are_filled_as_pycocotools_fills_them() -> None:
    rng = np.random.default_rng(0)
    for number in range(300):
        width, height = (int(v) for v in rng.integers(1, 60, 2))
        corners = rng.uniform(-8, 1, (int(rng.integers(3, 12)), 2))
        corners += rng.uniform(0, 1, corners.shape) * [width + 12, height + 12]
        if number % 3 == 0:
            corners = np.round(corners)
        if number % 5 == 0:
            corners[1] = corners[0]
        polygon = corners.reshape(-1).tolist()
        expected = coco.decode(coco.merge(coco.frPyObjects([polygon], height, width)))
        found = mask_from_polygons([polygon], (width, height))
        np.testing.assert_array_equal(found, expected.astype(bool), err_msg=str(polygon))


def test_pictures_are_turned_as_their_exif_tag_says(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (20, 10), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    path = tmp_path / "turned.jpg"
    picture.save(path, exif=exif, quality=95)
    assert picture_size(path) == (10, 20)
    image = read_image(path, (10, 20))
    assert image[:8].mean() > 200
    assert image[12:].mean() < 50
    by_opencv = cv2.imread(str(path))
    assert np.abs(image.astype(int) - by_opencv.astype(int)).max() < 20


@pytest.mark.parametrize(
    ("form", "split", "rate_hz", "words"),
    [
        ("coco", "", None, "'coco' is not known, expected one of fevos"),
        ("mevis", "test", None, "no split 'test', expected one of train, valid_u"),
        ("mevis", "", 0.0, "rate_hz must be in"),
        ("mevis", "", float("nan"), "rate_hz must be in"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    tmp_path: Path, form: str, split: str, rate_hz: float | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_dataset(tmp_path, form, split=split, rate_hz=rate_hz)


def test_the_real_sa_v_file_decodes_as_pycocotools_decodes_it(tmp_path: Path) -> None:
    path = SHARED / "sav_000001_manual.json"
    if not path.exists():
        pytest.skip("../shared/data is not beside the project")
    shutil.copy(path, tmp_path)
    dataset = read_dataset(tmp_path, "sa_v", split="train")
    assert [(Path(p.file).name, p.key) for p in dataset.problems] == [("sav_000001.mp4", "")]
    episode = dataset.episodes[0]
    assert (len(episode.annotated), episode.num_frames, episode.size_wh) == (121, 483, (480, 848))
    rows = json.loads(path.read_text("utf-8"))["masklet"]
    for index in (0, 60, 113, 120):
        for column, object_id in enumerate(episode.object_ids):
            expected = coco.decode(rows[index][column]).astype(bool)
            np.testing.assert_array_equal(episode.media.mask(object_id, 4 * index), expected)
    with pytest.raises(DatasetError, match=r"sav_000001.mp4: is missing"):
        episode.image(0)


def test_the_real_ref_youtube_vos_list_is_read(tmp_path: Path) -> None:
    path = SHARED / "refytvos_valid_meta_expressions_excerpt.json"
    if not path.exists():
        pytest.skip("../shared/data is not beside the project")
    meta = json.loads(path.read_text("utf-8"))["videos"]
    target = tmp_path / "meta_expressions/valid/meta_expressions.json"
    target.parent.mkdir(parents=True)
    shutil.copy(path, target)
    for name, video in meta.items():
        trees.write_frames(tmp_path / "valid/JPEGImages" / name, video["frames"])
    dataset = read_dataset(tmp_path, "ref_youtube_vos", strict=True)
    assert len(dataset.episodes) == sum(len(video["expressions"]) for video in meta.values())
    episode = dataset.episodes[0]
    assert episode.id == "0062f687f1/0"
    assert episode.question is not None
    assert episode.question.text == "a dog is with its puppies on the cloth"
    assert episode.stamp_ns(6) == 1_000_000_000


def test_the_real_davis_clip_is_read_as_davis_2016(tmp_path: Path) -> None:
    clip = SHARED / "clips/davis16_car-roundabout"
    if not clip.exists():
        pytest.skip("../shared/data is not beside the project")
    for room, source in (("JPEGImages", "frames"), ("Annotations", "masks")):
        (tmp_path / room / "480p").mkdir(parents=True)
        target = tmp_path / room / "480p/car-roundabout"
        target.symlink_to((clip / source).resolve(), target_is_directory=True)
    (tmp_path / "ImageSets/2016").mkdir(parents=True)
    (tmp_path / "ImageSets/2016/val.txt").write_text("car-roundabout\n")
    episode = read_dataset(tmp_path, "davis2016", strict=True).episodes[0]
    assert (episode.size_wh, len(episode.scored)) == ((854, 480), 73)
    raw = cv2.imread(str(clip / "masks/00010.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(episode.truth(10), raw == 255)
    assert episode.image(10).shape == (480, 854, 3)
