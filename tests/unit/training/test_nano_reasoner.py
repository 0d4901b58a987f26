# SPDX-License-Identifier: Apache-2.0
"""The nano reasoner: its words, its questions, what its tower is taught, and frames seen once."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the nano reasoner's training needs torch")
pytest.importorskip("transformers", reason="the nano reasoner is built from transformers")

from tests.support.prepared_nano import GRID_THW, PREPARATION, SMALL  # noqa: E402
from transformers import AutoModelForImageTextToText  # noqa: E402

from foreseg.dialogue import NoTarget, TargetsFound  # noqa: E402
from foreseg.errors import InputError  # noqa: E402
from foreseg.methods.veason import VeasonMethod  # noqa: E402
from foreseg.reasoner.prompt_card import card_from_json, words_hash  # noqa: E402
from foreseg.work.base import SerialExecutor  # noqa: E402
from foreseg_simulation.recording import image_of  # noqa: E402
from foreseg_torch.vlm.loading import vlm_parts  # noqa: E402
from foreseg_training.nano import preparing  # noqa: E402
from foreseg_training.nano.architecture import (  # noqa: E402
    NanoReasonerConfig,
    build_nano_reasoner,
    read_nano_reasoner,
    save_nano_reasoner,
)
from foreseg_training.nano.batches import Batcher, Row  # noqa: E402
from foreseg_training.nano.dense import (  # noqa: E402
    DenseConfig,
    DenseSaid,
    ShownFrames,
    dense_loss,
    train_tower,
    truth_of,
    words_of,
)
from foreseg_training.nano.features import FrameStore, SeenCollator, SeenFrames  # noqa: E402
from foreseg_training.nano.held_out import (  # noqa: E402
    HeldOutExam,
    compared,
    true_completion,
)
from foreseg_training.nano.labelled import LabelledFrame, labelled, shaken  # noqa: E402
from foreseg_training.nano.listings import listing_of, places_of  # noqa: E402
from foreseg_training.nano.numbers import (  # noqa: E402
    SPREAD_PX,
    ids_of_words,
    near_numbers,
    number_ids,
)
from foreseg_training.nano.preparing import FORMS, Preparation, prepare  # noqa: E402
from foreseg_training.nano.questions import Asked, asked_about  # noqa: E402
from foreseg_training.nano.recordings import Recorder, Recording  # noqa: E402
from foreseg_training.nano.rollouts import SHARED_ATTENTION  # noqa: E402
from foreseg_training.nano.tokenizer import MAX_NUMBER, SPECIAL, train_tokenizer  # noqa: E402
from foreseg_training.nano.tracks import THOUGHTS  # noqa: E402
from foreseg_training.nano.training import NanoTraining, batch_loss  # noqa: E402
from foreseg_training.nano.windows import read_windows, rows_of, window_of  # noqa: E402


@pytest.fixture(scope="module")
def recordings() -> Sequence[Recording]:
    torch.set_num_threads(1)
    return list(Recorder(size_wh=(160, 120), num_clips=3).record(1, range(3)))


def test_words_come_back_as_they_were_and_phrases_are_one_token() -> None:
    phrase = "First choose the keyframe: it is shown."
    texts = ["<think>The ball rolls.</think>\n<answer>1, 2</answer>"] * 3
    tokenizer = train_tokenizer(texts, [phrase])
    for text in (*texts, phrase, "An örtlich Wort, 漢字 and 511, 900", '{"keyframe_timestamp": 7'):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
    assert len(tokenizer(phrase, add_special_tokens=False).input_ids) == 1
    assert len(tokenizer("17, 203", add_special_tokens=False).input_ids) == 3
    assert len(tokenizer("<|im_end|>", add_special_tokens=False).input_ids) == 1
    assert set(SPECIAL) <= set(tokenizer.all_special_tokens)


def test_the_shipped_geometry_has_a_few_million_parameters() -> None:
    tokenizer = train_tokenizer(["a b c"], [])
    model = build_nano_reasoner(NanoReasonerConfig(), tokenizer, 0)
    assert 2e6 < sum(p.numel() for p in model.parameters()) < 8e6


def test_a_token_is_told_of_the_objects_that_fill_most_of_its_cell(
    recordings: Sequence[Recording],
) -> None:
    words = words_of(recordings)
    recording = recordings[0]
    shot = recording.shots[0]
    truth = truth_of([labelled(shot, recording.names)], words, (120, 160))  # a cell a pixel
    for i, seen in shot.objects.items():
        x0, y0, x1, y1 = seen.box_xyxy
        boxes = torch.tensor([x0 / 160, y0 / 120, x1 / 160, y1 / 120])
        own = (truth.boxes[:, 0] - boxes).abs().amax(dim=1) < 1e-6
        assert int((own & (truth.there[:, 0] > 0)).sum()) == seen.area_px
        told = truth.words[own & (truth.there[:, 0] > 0), 0].unique(dim=0)
        assert len(told) == 1
        assert {w for w, is_said in zip(words, told[0], strict=True) if is_said} == set(
            recording.names[i].split()
        )
    perfect = DenseSaid(
        there=truth.there * 60 - 30,
        words=truth.words * 60 - 30,
        numbers=near_numbers(truth.boxes * torch.tensor([160, 120, 160, 120]))
        .clamp(min=1e-30)
        .log(),
    )
    entropy = 0.5 * math.log(2 * math.pi * math.e * SPREAD_PX**2)  # of a normal distribution
    inside = dense_loss(perfect, truth, (160, 120))
    assert 0.5 * entropy < float(inside) < 1.05 * entropy  # at the edges, half of it


def test_what_is_shaken_is_still_told_where_it_is(recordings: Sequence[Recording]) -> None:
    rng = np.random.default_rng(0)
    frame = labelled(recordings[0].shots[0], recordings[0].names)
    for _ in range(20):
        moved = shaken(frame, rng)
        assert moved.image.shape == frame.image.shape
        assert moved.names
        for name, mask, box in zip(moved.names, moved.masks, moved.boxes, strict=True):
            assert name in frame.names
            rows, columns = np.nonzero(mask)
            assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    sides = LabelledFrame(
        image=frame.image,
        names=["left cup"] * len(frame.masks),
        masks=frame.masks,
        boxes=frame.boxes,
    )
    assert {name for _ in range(20) for name in shaken(sides, rng).names} == {
        "left cup",
        "right cup",
    }


def test_frames_of_a_batch_come_again_or_are_new_each_time(
    recordings: Sequence[Recording], tmp_path: Path
) -> None:
    words = words_of(recordings)
    tokenizer = train_tokenizer([" ".join(words)] * 3, [])
    save_nano_reasoner(build_nano_reasoner(SMALL, tokenizer, 0), tokenizer, tmp_path)
    geometry, pixels = vlm_parts(tmp_path).geometry, PREPARATION.frame_pixels
    config = DenseConfig(batch_size=10, num_known=3, known_share=0.6)
    batches = iter(ShownFrames(recordings, words, geometry, pixels, config))
    known, new = set(), set()
    for _ in range(4):
        patches, truth = next(batches)
        frames = patches.reshape(10, -1).numpy()
        assert len(truth.there) == 10 * 24
        known |= {frame.tobytes() for frame in frames[:6]}
        new |= {frame.tobytes() for frame in frames[6:]}
    assert len(known) <= 3
    assert len(new) == 16
    assert not known & new


def test_stills_are_of_other_scenes_and_few() -> None:
    recorder = Recorder(size_wh=(160, 120), num_clips=0)
    stills = [recorder.still(1, number) for number in range(2)]
    assert [len(still.shots) for still in stills] == [7, 7]
    (same,) = recorder.record(1, [0])
    assert stills[0].shots[0].jpeg != same.shots[0].jpeg
    assert not stills[0].clips
    again = recorder.still(1, 1)
    assert again.shots[3].jpeg == stills[1].shots[3].jpeg


def test_a_number_is_nearly_right_beside_the_true_one() -> None:
    near = near_numbers(torch.tensor([41.0, 41.5, 0.0]))
    assert near.shape == (3, MAX_NUMBER)
    assert torch.allclose(near.sum(dim=-1), torch.ones(3))
    assert int(near[0].argmax()) == 41
    assert near[0, 40] == near[0, 42] < near[0, 41]
    assert near[1, 41] == near[1, 42]
    assert float(near[0, 40] / near[0, 41]) == pytest.approx(math.exp(-0.5 / SPREAD_PX**2))
    tokenizer = train_tokenizer(["a red ball"], [])
    assert tokenizer.decode(number_ids(tokenizer)[[0, 7, 511]]) in {"0 7 511", "07511"}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_words_and_numbers_of_the_table_learn_with_the_tower(
    recordings: Sequence[Recording], tmp_path: Path, num_workers: int
) -> None:
    tokenizer = train_tokenizer([" ".join(words_of(recordings))] * 3, [])
    model = build_nano_reasoner(SMALL, tokenizer, 0)
    save_nano_reasoner(model, tokenizer, tmp_path)
    geometry = vlm_parts(tmp_path).geometry
    before = model.get_input_embeddings().weight.detach().clone()
    config = DenseConfig(minutes=0.01, batch_size=4, bf16=True, num_workers=num_workers)
    train_tower(model, tokenizer, geometry, PREPARATION.frame_pixels, recordings, config)
    moved = (model.get_input_embeddings().weight.detach() - before).abs().sum(dim=1) > 0
    words = set(ids_of_words(tokenizer, words_of(recordings)))
    assert set(moved.nonzero()[:, 0].tolist()) == words | set(number_ids(tokenizer).tolist())
    assert (
        model.lm_head.weight is model.get_input_embeddings().weight
    )  # what is looked for is said


def test_frames_seen_once_give_the_loss_of_frames_seen_again(
    recordings: Sequence[Recording], tmp_path: Path
) -> None:
    """The store replaces the tower's work, not what it says: within half precision's steps."""
    from foreseg_torch.vlm.processor import FramesProcessor
    from foreseg_torch.vlm.vision_inputs import prompt_from_messages
    from foreseg_training.nano.dense import encoded

    methods = {form: PREPARATION.method(form) for form in FORMS}
    one = next(asked_about(recordings[0], methods, np.random.default_rng(0)))[0]
    tokenizer = train_tokenizer([one.completion], [])
    model = build_nano_reasoner(SMALL, tokenizer, 3).eval()
    save_nano_reasoner(model, tokenizer, tmp_path / "start")
    geometry = vlm_parts(tmp_path / "start").geometry
    shots = [recordings[0].shots[i] for i in one.shots]
    text = prompt_from_messages(one.messages, tokenizer, geometry)
    processor = FramesProcessor(tokenizer, geometry, PREPARATION.frame_pixels)
    seen_now = processor(images=[image_of(shot) for shot in shots], text=text, return_tensors="pt")
    labels = seen_now["input_ids"].clone()
    tower = model.model.visual
    with torch.no_grad():
        there = model(**seen_now, labels=labels)
        tokens = list(encoded(model, geometry, PREPARATION.frame_pixels, shots))
        store = FrameStore(tmp_path / "f.npy", (len(shots), *tokens[0].shape))
        store.array[:] = tokens
        collator = SeenCollator(
            store,
            tuple(map(int, seen_now["image_grid_thw"][0])),
            tokenizer.pad_token_id,
            geometry.image_token_id,
        )
        row = {
            "input_ids": seen_now["input_ids"][0].tolist(),
            "num_prompt": 0,
            "frames": list(range(len(shots))),
        }
        model.model.visual = SeenFrames(tower)
        batch = collator([row])
        here = model(**batch)
    assert torch.equal(batch["input_ids"], seen_now["input_ids"])
    assert float(here.loss) == pytest.approx(float(there.loss), rel=1e-3)
    assert torch.allclose(here.logits, there.logits, atol=2e-2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nano")
    prepare(PREPARATION, out, SerialExecutor())
    return out


def test_questions_that_share_their_frames_lose_and_learn_as_each_by_itself(
    prepared: Path,
) -> None:
    start = prepared / "start"
    model = AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32)
    tokenizer, geometry = vlm_parts(start).tokenizer, vlm_parts(start).geometry
    model.model.visual = SeenFrames(model.model.visual)
    store = FrameStore(prepared / "frames.npy")
    windows = [w for w in read_windows(prepared / "windows.jsonl") if len(w.asked) > 1]
    batcher = Batcher(windows[:1], store, tokenizer, num_windows=1, num_asked=99)
    batch = batcher.draw(np.random.default_rng(0))
    assert (batch.side >= 0).any()
    assert set(batch.labels[batch.side >= 0].tolist()) <= set(number_ids(tokenizer).tolist())
    batch.side[:] = -1  # the model's own loss knows no near numbers
    grid = GRID_THW
    words, sides = batch_loss(model, batch, number_ids(tokenizer), grid)
    words.backward()
    shared = [p.grad.clone() for p in model.parameters()]
    assert sides.item() == 0
    model.zero_grad()
    lengths = [len(ids) for ids in windows[0].asked]
    longest = batch.asked.shape[1] == max(lengths)
    alike = [(n > np.mean(lengths)) == longest for n in lengths]  # a batch has no others
    assert sum(alike) == len(batch.asked)
    rows = [row for row, is_drawn in zip(rows_of(windows[:1]), alike, strict=True) if is_drawn]
    collator = SeenCollator(store, grid, tokenizer.pad_token_id, geometry.image_token_id)
    alone = model(**collator(rows)).loss
    alone.backward()
    assert words.item() == pytest.approx(alone.item(), rel=1e-5)
    for one, parameter in zip(shared, model.parameters(), strict=True):
        assert torch.allclose(one, parameter.grad, atol=1e-5 * float(one.abs().max() + 1e-3))


def test_what_is_seen_is_said_of_windows_and_of_a_few_frames(prepared: Path) -> None:
    tokenizer = vlm_parts(prepared / "start").tokenizer
    windows, sightings = (read_windows(prepared / f"{n}.jsonl") for n in ("windows", "sightings"))
    whole = {tuple(window.frames): window for window in windows}
    assert sightings
    for one in sightings:
        (ids,), (first,) = one.asked, one.num_prompt
        assert any(  # it is how one of the window's completions begins
            list(ids) == list(asked[: len(ids)]) and len(asked) > len(ids) and first == begin
            for window in (whole[tuple(one.frames)],)
            for asked, begin in zip(window.asked, window.num_prompt, strict=True)
        )
    glances = read_windows(prepared / "glances.jsonl")
    assert {len(one.frames) for one in glances} == {1, 2, 3}
    assert max(f for one in glances for f in one.frames) > max(
        f for one in windows for f in one.frames
    )  # frames of the other scenes, too
    for one in glances:
        said = tokenizer.decode(list(one.asked[0][one.num_prompt[0] :]))
        assert said.startswith("<think>")
        assert not said.endswith("<|im_end|>")
        assert ("The " in said) <= (len(one.frames) > 1)  # nothing moves on one frame


def test_recordings_of_which_nothing_is_told_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unseen(*arguments: Any) -> Iterator[list[Asked]]:
        for group in asked_about(*arguments):
            yield [dataclasses.replace(one, seen="") for one in group]

    monkeypatch.setattr(preparing, "asked_about", unseen)
    monkeypatch.setattr(preparing, "write_told", lambda *_, **__: None)
    recorder = Recorder(size_wh=PREPARATION.size_wh, num_clips=2)
    drawn = [recorder.recording(1, number) for number in range(2)]
    few = dataclasses.replace(PREPARATION, num_recordings=2)
    with pytest.raises(InputError, match="let more of them be drawn"):
        preparing.prepare_of(few, drawn, tmp_path, [], [])


def test_questions_in_words_alone_go_on_from_what_is_seen(prepared: Path) -> None:
    start = prepared / "start"
    model = AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32)
    tokenizer = vlm_parts(start).tokenizer
    windows = read_windows(prepared / "told.jsonl")
    assert windows
    image = model.config.image_token_id
    for window in windows:
        assert not window.frames
        assert image not in window.beginning
        for ids, first in zip(window.asked, window.num_prompt, strict=True):
            assert "<think>Here: " in tokenizer.decode(list(ids[:first]))
            rest = tokenizer.decode(list(ids[first:]))
            assert rest.endswith("</answer><|im_end|>")
    store = FrameStore(prepared / "frames.npy")
    batcher = Batcher(windows, store, tokenizer, num_windows=2, num_asked=2)
    num_given = num_labels = 0
    bracket = tokenizer.convert_tokens_to_ids("[")
    for window in windows:
        for ids, first, given in zip(window.asked, window.num_prompt, window.given, strict=True):
            here = tokenizer.decode(list(ids[:first]))
            tracks = tokenizer.decode(list(ids[first:])).partition("</think>")[0]
            assert re.search(r"(Here|Gone): [^.]*\. $", here)
            assert not re.search(r"The [a-z ]+: \d+\[", here.partition("<think>")[2])
            row = batcher.batch([window], [Row(0, ids, first, given)]).labels[0]
            unlearnt = [i for i in range(first, len(ids)) if row[i - 1] < 0]
            assert unlearnt == [first + number for number in given]
            assert all(row[i - 1] in (ids[i], -100) for i in range(first, len(ids)))
            said = tokenizer.decode([ids[i] for i in range(first, len(ids)) if i not in unlearnt])
            assert not re.search(r"The [a-z ]+: \d+\[", said)  # no track's beginning
            numbers = [ids[first + n - 1] for n in given if ids[first + n] == bracket]
            learnt = [row[first + n - 2] for n in given if ids[first + n] == bracket]
            assert numbers == learnt, "labels of places are learnt"
            num_labels += len(learnt)
            assert bool(given) == bool(re.search(r"The [a-z ]+: \d+\[", tracks))
            num_given += len(given)
    assert num_given > num_labels > 100
    batch = batcher.draw(np.random.default_rng(1))
    batch.side[:] = -1
    words, _ = batch_loss(model, batch, number_ids(tokenizer), GRID_THW)
    total, count = 0.0, 0
    for owner, ids, there, labels in zip(
        batch.owner, batch.asked, batch.is_there, batch.labels, strict=True
    ):
        whole = torch.cat([batch.beginning[owner], ids[there]])
        logits = model(input_ids=whole[None]).logits[0, len(batch.beginning[owner]) :]
        said = labels[there] >= 0
        total += torch.nn.functional.cross_entropy(
            logits[said], labels[there][said], reduction="sum"
        ).item()
        count += int(said.sum())
    assert words.item() == pytest.approx(total / count, rel=1e-4)


def test_the_exam_asks_held_out_questions_and_finds_true_answers_right(prepared: Path) -> None:
    tokenizer, model = read_nano_reasoner(prepared / "start")
    model.set_attn_implementation(SHARED_ATTENTION)
    model.model.visual = SeenFrames(model.model.visual)
    exam = HeldOutExam(
        prepared, tokenizer, GRID_THW, count=4, bf16=False, num_at_once=2, max_tokens=5
    )
    assert 4 <= len(exam.asked) <= 8
    found = exam.score(model.train())
    assert model.training
    assert (found.count, found.right) == (len(exam.asked), 0.0)  # five tokens are no answer
    truths = [true_completion(tokenizer, *one) for one in exam.asked]
    best = compared(truths, truths)
    assert (best.read, best.right, best.none_false) == (1.0, 1.0, 0.0)


def test_a_batch_has_all_its_windows_and_questions_of_like_length(prepared: Path) -> None:
    tokenizer = vlm_parts(prepared / "start").tokenizer
    windows = read_windows(prepared / "windows.jsonl")
    store = FrameStore(prepared / "frames.npy")
    batcher = Batcher(windows, store, tokenizer, num_windows=3, num_asked=2)
    mean = np.mean([len(ids) for window in windows for ids in window.asked])
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(30):
        chosen, picked = batcher.drawn(rng)
        assert len(chosen) == 3  # GRPO's steps are of so many questions
        assert {owner for owner, _ in picked} == {0, 1, 2}
        assert len({len(window.beginning) for window in chosen}) == 1
        long = {len(chosen[owner].asked[i]) > mean for owner, i in picked}
        assert len(long) == 1
        kinds |= long
    assert kinds == {True, False}


def test_a_listing_says_each_object_of_its_frame_as_answers_do(prepared: Path) -> None:
    tokenizer = vlm_parts(prepared / "start").tokenizer
    recording = next(Recorder(size_wh=(160, 120), num_clips=1).record(1, [0]))
    shot = recording.shots[0]
    rng = np.random.default_rng(0)
    texts = {listing_of(shot, recording.names, (0.5, 0.25), rng) for _ in range(20)}
    assert len(texts) > 1  # in any order
    method = VeasonMethod()
    for text in texts:
        lines = text.splitlines()
        assert len(lines) == len(shot.objects)
        for line in lines:
            name, boxes = line.split(", ", 1)
            (i,) = [i for i, known in recording.names.items() if f" {known}" == name]
            x0, y0, x1, y1 = shot.objects[i].box_xyxy
            said = [round(x0 * 0.5), round(y0 * 0.25), round(x1 * 0.5), round(y1 * 0.25)]
            assert method.parse('{"keyframe_timestamp": 1, ' + boxes).items == (said,)
    windows = read_windows(prepared / "listings.jsonl")
    image = vlm_parts(prepared / "start").geometry.image_token_id
    for window in windows:
        assert len(window.frames) == len(window.asked) == 1
        assert window.beginning.count(image) == 24
        assert list(window.num_prompt) == [1]
    assert len(windows) > 20
    assert "bbox_2d_list" in tokenizer.decode(windows[0].asked[0])


def test_at_a_place_is_the_object_that_is_nearest(prepared: Path) -> None:
    recording = next(iter(Recorder(size_wh=(160, 120), num_clips=1).record(3, [0])))
    shot, names = recording.shots[0], recording.names
    found = places_of(shot, names, (2.0, 2.0), np.random.default_rng(0), 200)
    assert len(found) == 200
    for place, name in found:
        x, y = (int(number) / 2 for number in place.strip("[]").split(", "))
        inside = {
            f" {names[i]}"
            for i, one in shot.objects.items()
            if one.box_xyxy[0] < x < one.box_xyxy[2] and one.box_xyxy[1] < y < one.box_xyxy[3]
        }
        assert not inside or name in inside
    assert {name for _, name in found} == {f" {names[i]}" for i in shot.objects if i in names}
    assert places_of(shot, {}, (2.0, 2.0), np.random.default_rng(0), 3) == []
    windows = read_windows(prepared / "places.jsonl")
    assert {len(window.asked) for window in windows} == {6}
    assert min(count for window in windows for count in window.num_prompt) > 3


def test_what_is_learnt_follows_the_minutes_and_earlier_things_come_back() -> None:
    training = NanoTraining(
        stage_shares=(0.2, 0.04, 0.1),
        review_every=4,
        drill_share=0.0,
        told_share=0.0,
        glance_share=0.0,
        sighting_share=0.0,
    )
    assert [training.stage(0.1, step) for step in range(4)] == ["listings"] * 4
    assert training.stage(0.22, 1) == "places"
    later = [training.stage(0.25, step) for step in range(16)]
    assert later.count("listings") == later.count("places") == 2
    assert set(later) == {"listings", "lessons", "places"}
    last = [training.stage(0.5, step) for step in range(24)]
    assert last.count("windows") == 18
    assert last.count("listings") == last.count("lessons") == last.count("places") == 2
    mixed = dataclasses.replace(training, drill_share=0.5)
    assert {mixed.stage(0.1, step) for step in range(40)} == {"listings"}
    later = [mixed.stage(0.5, step) for step in range(400)]
    assert 195 < later.count("drills") < 205
    assert set(later) == {"listings", "places", "lessons", "windows", "drills"}
    told = dataclasses.replace(mixed, drill_share=0.2, told_share=0.3)
    later = [told.stage(0.5, step) for step in range(400)]
    assert (round(later.count("drills"), -1), round(later.count("told"), -1)) == (80, 120)
    assert "told" not in {told.stage(0.25, step) for step in range(400)}  # not before windows
    seen = dataclasses.replace(told, glance_share=0.1, sighting_share=0.2)
    later = [seen.stage(0.5, step) for step in range(400)]
    assert [
        round(later.count(kind), -1) for kind in ("drills", "told", "glances", "sightings")
    ] == [80, 120, 40, 80]
    assert "glances" not in {seen.stage(0.25, step) for step in range(400)}
    assert training.rate(0.5, 10_000) == training.learning_rate
    assert training.rate(1.0, 10_000) == 0
    assert 0 < training.rate(0.9, 10_000) < training.learning_rate
    assert 0 < training.rate(0.0, 0) < 0.05 * training.learning_rate


def test_the_kept_checkpoint_goes_on_as_it_was_asked() -> None:
    folder = Path(__file__).parents[3] / "training" / "checkpoints" / "nano_reasoner"
    tokenizer, model = read_nano_reasoner(folder)
    assert model.dtype == torch.float32
    assert 6.0e6 < sum(p.numel() for p in model.parameters()) < 6.1e6
    assert len(number_ids(tokenizer)) == MAX_NUMBER
    card = card_from_json((folder / "method.json").read_bytes(), "the card")
    assert card.words == words_hash(Preparation().method(None))  # else it would be asked otherwise


def test_prompts_that_show_other_frames_are_no_window() -> None:
    tokenizer = train_tokenizer(["a"], [])
    end = tokenizer.convert_tokens_to_ids("<|vision_end|>")
    window = window_of([3], [[9, end, 7, 8], [9, end, 6]], [[1], [2, 1]], tokenizer)
    assert (window.beginning, window.asked) == ((9, end), ((7, 8, 1), (6, 2, 1)))
    assert window.num_prompt == (2, 1)
    with pytest.raises(ValueError, match="other frames"):
        window_of([3], [[9, end, 7], [8, end, 7]], [[1], [1]], tokenizer)


@pytest.mark.slow
def test_from_nothing_to_a_folder_that_the_robot_runs(prepared: Path, tmp_path: Path) -> None:
    from tests.support.reasoners import window_of as frames_of

    from foreseg.dialogue import AnswerDone, AnswerFailed, Query, QueryId
    from foreseg_torch.reasoner import transformers_reasoner
    from foreseg_training.nano.training import train_language

    assert not (prepared / "held_out.partial").exists()  # its end is what says that all is there
    windows = read_windows(prepared / "windows.jsonl")
    lessons = read_windows(prepared / "lessons.jsonl")
    assert max(len(w.frames) for w in lessons) <= 3 < min(len(w.frames) for w in windows)
    assert read_windows(prepared / "held_out.jsonl")
    training = NanoTraining(
        minutes=0.02, num_windows=1, num_held_out=2, score_every_s=0.1, bf16=False
    )
    folder = train_language(training, prepared)
    done = torch.load(prepared / "state.pt", weights_only=True)
    assert done["spent_s"] >= 0.02 * 60
    assert not (prepared / "average").exists()
    assert done["averaged"]["count"] >= 1
    further = dataclasses.replace(training, minutes=0.03, start_share=0.25)
    assert train_language(further, prepared, resume=True).parent == prepared
    begun, mixed = (read_nano_reasoner(prepared / name)[1] for name in ("start", "average"))
    assert not torch.equal(begun.lm_head.weight, mixed.lm_head.weight)
    more = torch.load(prepared / "state.pt", weights_only=True)
    assert more["step"] > done["step"]  # went on, and did not begin anew
    assert more["spent_s"] >= 0.03 * 60
    kept = dataclasses.replace(PREPARATION.dense, minutes=0.0)
    onward = dataclasses.replace(PREPARATION, trained=folder, num_recordings=2, seed=5, dense=kept)
    prepare(onward, tmp_path, SerialExecutor())
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "start" / name).read_bytes() == (folder / name).read_bytes()
    assert read_windows(tmp_path / "windows.jsonl") != windows  # of other scenes
    options = {"model": str(folder), "precision": "fp32", "device": "cpu"}
    reasoner = transformers_reasoner(options)
    assert reasoner.window_policy.num_frames == PREPARATION.num_frames  # the card says so
    query = Query(id=QueryId("q"), text="what moves?", max_reasoning_tokens=8)
    parts = list(reasoner.ask(query, frames_of(np.zeros((3, 120, 160, 3), np.uint8))))
    assert isinstance(parts[-1], (AnswerDone, AnswerFailed))
    assert not any(isinstance(part, (NoTarget, TargetsFound)) for part in parts[:-2])


def test_numbers_that_cannot_be_are_refused_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from foreseg_training.cli import main

    (tmp_path / "held_out.jsonl").touch()
    for words, said in (
        (["--recordings", "1"], "--recordings wants at least 2, got 1"),
        (["--dense-minutes", "nan"], "--dense-minutes wants a number above 0"),
        (["--minutes", "0"], "--minutes wants a number above 0"),
        (["--start", str(tmp_path)], "--start wants the folder of a nano reasoner"),
        ([], "holds a run: --resume goes on with it"),
        (["--story-share", "1"], "--story-share wants 0 to less than 1"),
        (["--told", "0"], "--told wants at least 1, got 0"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["nano", "--out", str(tmp_path), *words])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
    for thoughts in (None, "", f"{THOUGHTS - 1}\n"):
        if thoughts is not None:
            (tmp_path / "thoughts.txt").write_text(thoughts, encoding="utf-8")
        with pytest.raises(SystemExit):
            main(["nano", "--out", str(tmp_path), "--resume"])
        assert "was prepared by another foreseg" in capsys.readouterr().err
