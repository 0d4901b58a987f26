# SPDX-License-Identifier: Apache-2.0
"""The nano reasoner: its words, its questions, what its tower is taught, and frames seen once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the nano reasoner's training needs torch")
pytest.importorskip("transformers", reason="the nano reasoner is built from transformers")

from foreseg.dialogue import NoTarget, TargetsFound  # noqa: E402
from foreseg.methods.veason import VeasonMethod  # noqa: E402
from foreseg_simulation.recording import image_of  # noqa: E402
from foreseg_simulation.worlds import World  # noqa: E402
from foreseg_torch.vlm.loading import vlm_parts  # noqa: E402
from foreseg_training.nano.architecture import (  # noqa: E402
    NanoReasonerConfig,
    build_nano_reasoner,
    save_nano_reasoner,
)
from foreseg_training.nano.dense import DenseConfig, dense_loss, truth_of, words_of  # noqa: E402
from foreseg_training.nano.features import FrameStore, SeenCollator, SeenFrames  # noqa: E402
from foreseg_training.nano.preparing import FORM_SHARES, Preparation, prepare  # noqa: E402
from foreseg_training.nano.questions import Asked, asked_about  # noqa: E402
from foreseg_training.nano.recordings import Recorder, Recording  # noqa: E402
from foreseg_training.nano.tokenizer import SPECIAL, train_tokenizer  # noqa: E402
from foreseg_training.rewards import grammar_reward  # noqa: E402

SMALL = NanoReasonerConfig(width=64, vision_layers=2, text_layers=2)
PREPARATION = Preparation(
    worlds=(World.SHAPES,),
    num_recordings=3,
    num_held_out=1,
    num_clips=2,
    size_wh=(160, 120),
    model=SMALL,
    dense=DenseConfig(minutes=0.01, batch_size=4),
)


@pytest.fixture(scope="module")
def recordings() -> Sequence[Recording]:
    torch.set_num_threads(1)
    return list(Recorder(size_wh=(160, 120), num_clips=3).record(1, range(3)))


@pytest.fixture(scope="module")
def asked(recordings: Sequence[Recording]) -> list[tuple[VeasonMethod, Asked]]:
    methods = [PREPARATION.method(form) for form in FORM_SHARES]
    rng = np.random.default_rng(0)
    return [
        (method, one)
        for recording in recordings
        for method in methods
        for one in asked_about(recording, [method], rng)
    ]


def test_recordings_are_the_same_again_and_differ_by_number(
    recordings: Sequence[Recording],
) -> None:
    (again,) = Recorder(size_wh=(160, 120), num_clips=3).record(1, [1])
    assert [shot.jpeg for shot in again.shots] == [shot.jpeg for shot in recordings[1].shots]
    assert again.clips == recordings[1].clips
    assert again.shots[0].jpeg != recordings[0].shots[0].jpeg


def test_true_completions_are_what_the_robot_reads_as_the_truth(
    asked: list[tuple[VeasonMethod, Asked]],
) -> None:
    assert {one.form for _, one in asked} == set(FORM_SHARES)
    for method, one in asked:
        assert grammar_reward(one.completion, one.form) == 1
        parsed = method.parse(one.completion.split("<answer>")[1].split("</answer>")[0])
        if not any(one.areas.values()):
            assert parsed.says_none
            continue
        assert parsed.keyframe in one.areas
        assert one.areas[parsed.keyframe] >= 0.7 * max(one.areas.values())
        assert len(parsed.items) == len(one.boxes[parsed.keyframe])
        assert len(one.shots) == len(one.areas)


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
    truth = truth_of([shot], [dict(recording.names)], words, (120, 160))  # a cell a pixel
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
    perfect = torch.cat(
        [truth.there[..., None] * 60 - 30, truth.words * 60 - 30, truth.boxes], dim=-1
    )
    assert float(dense_loss(perfect, truth)) < 1e-6


def test_frames_seen_once_give_the_loss_of_frames_seen_again(
    recordings: Sequence[Recording], asked: list[tuple[VeasonMethod, Asked]], tmp_path: Path
) -> None:
    """The store replaces the tower's work, not what it says: within half precision's steps."""
    from foreseg_torch.vlm.processor import FramesProcessor
    from foreseg_torch.vlm.vision_inputs import prompt_from_messages
    from foreseg_training.nano.dense import encoded

    one = asked[0][1]
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*checkpointing.* is deprecated:FutureWarning")
def test_from_nothing_to_a_folder_that_the_robot_runs(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="training is TRL's: the extra [train]")
    from tests.support.reasoners import window_of

    from foreseg.dialogue import AnswerDone, AnswerFailed, Query, QueryId
    from foreseg_torch.reasoner import transformers_reasoner
    from foreseg_training.nano.training import NanoTraining, train_language

    prepare(PREPARATION, tmp_path)
    assert not (tmp_path / "held_out.partial").exists()  # its end is what says that all is there
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    lessons = [json.loads(line) for line in (tmp_path / "lessons.jsonl").read_text().splitlines()]
    assert (
        max(len(row["frames"]) for row in lessons) <= 3 < min(len(row["frames"]) for row in rows)
    )
    assert (tmp_path / "held_out.jsonl").read_text()
    training = NanoTraining(
        max_steps=2, lesson_steps=1, batch_size=2, save_steps=1, num_held_out=2, bf16=False
    )
    folder = train_language(training, tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "checkpoints" / "checkpoint-2").rename(tmp_path / "gone")
    train_language(training, tmp_path, resume=True)  # from the first step's checkpoint
    assert (folder / "model.safetensors").read_bytes() == whole
    options = {"model": str(folder), "precision": "fp32", "device": "cpu"}
    reasoner = transformers_reasoner(options)
    assert reasoner.window_policy.num_frames == PREPARATION.num_frames  # the card says so
    query = Query(id=QueryId("q"), text="what moves?", max_reasoning_tokens=8)
    parts = list(reasoner.ask(query, window_of(np.zeros((3, 120, 160, 3), np.uint8))))
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
        (["--batch-size", "0"], "--batch-size wants at least 1, got 0"),
        ([], "holds a run: --resume goes on with it"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["nano", "--out", str(tmp_path), *words])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
