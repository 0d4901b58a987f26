# SPDX-License-Identifier: Apache-2.0
"""[SEG] models from a dataset on disk to a folder that answers, on tiny real architectures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="training is TRL's: the extra [train]")
pytest.importorskip("datasets", reason="trainers take rows of datasets")
pytest.importorskip("cv2", reason="the simulation draws with OpenCV")
import numpy as np
import torch
from safetensors.torch import load_file
from tests.support.sam2_models import tiny_hiera
from tests.support.tiny_vlm import save_tiny_vlm

from foreseg import cli
from foreseg.dialogue import AnswerDone, FramesWanted, NoTarget, Query, QueryId, TargetsFound
from foreseg.errors import ConfigError, InputError
from foreseg.frames import FrameWindow
from foreseg.reasoner.exchange import checked_ask
from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.episode import Episode
from foreseg_simulation.generation import Command, generate
from foreseg_simulation.worlds import World
from foreseg_torch.reasoner import transformers_reasoner
from foreseg_torch.seg.store import assemble_seg_vlm, load_seg_vlm
from foreseg_torch.vlm.loading import Precision, vlm_parts
from foreseg_training.cli import main
from foreseg_training.samples import numbering, window_at
from foreseg_training.vlm.recipe import read_recipe
from foreseg_training.vlm.seg_grpo import train_seg_grpo
from foreseg_training.vlm.seg_model import check_can_be_saved
from foreseg_training.vlm.seg_sft import train_seg_sft

pytestmark = pytest.mark.filterwarnings(  # peft and TRL ask transformers 5.23 by its older names
    "ignore:.*checkpointing.* is deprecated:FutureWarning"
)
TINY = {"max_steps": "2", "batch_size": "2", "per_device": "2", "max_completion_tokens": "4"}
SAID = "<think>So.</think><answer>It is [SEG].</answer>"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds") / "shapes"
    generate(
        Command(
            worlds=(World.SHAPES,), clips=2, streams=0, seed=3, split="train", size_wh=(160, 120)
        ),
        out,
    )
    return out


@pytest.fixture(scope="module")
def episodes(worlds: Path) -> tuple[Episode, ...]:
    return read_dataset(worlds, "fevos", split="train").episodes


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("parts")
    save_tiny_vlm(folder / "vlm")
    tiny_hiera().save_pretrained(folder / "sam2")
    return folder


def assembled(parts: Path, folder: Path, method: str) -> Path:
    assemble_seg_vlm(
        str(parts / "vlm"), parts / "sam2", folder, method=method, precision=Precision.FP32
    )
    return folder


@pytest.fixture(scope="module")
def start(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assembled(parts, tmp_path_factory.mktemp("fevos") / "made", "fevos")


@pytest.fixture(scope="module")
def trained(
    start: Path, episodes: tuple[Episode, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """FeVOS's first stage, under adapters."""
    recipe = read_recipe("fevos-sft-tiny", {**TINY, "save_steps": "1", "learning_rate": "0.01"})
    return train_seg_sft(recipe, start, episodes, tmp_path_factory.mktemp("sft"))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in folder.rglob("*.safetensors"):
        part = path.parent.name if path.parent != folder else "projection"
        found |= {f"{part} {name}": tensor for name, tensor in load_file(path).items()}
    return found


def differing(a: Path, b: Path) -> set[str]:
    """Names of tensors that two folders have with other values."""
    one, other = tensors(a), tensors(b)
    assert set(one) == set(other)
    return {name for name in one if not torch.equal(one[name].float(), other[name].float())}


def answered(folder: Path, episodes: tuple[Episode, ...]) -> list[TargetsFound | NoTarget]:
    """What the robot's reasoner makes of a trained folder; its method stands in the card."""
    reasoner = transformers_reasoner({"model": str(folder), "precision": "fp32", "device": "cpu"})
    episode = episodes[0]
    assert episode.question is not None
    place = numbering(np.random.default_rng(0), 0, 1)
    query = Query(id=QueryId("q"), text=episode.question.text, max_reasoning_tokens=4)
    stream = checked_ask(reasoner, query, window_at(episode, (0, 5, 10), place))
    part, found = next(stream), []
    while not isinstance(part, AnswerDone):
        found.append(part)
        more: FrameWindow | None = None
        if isinstance(part, FramesWanted):
            more = window_at(episode, [int(i) for i in part.indices], place)
        part = stream.send(more)
    return [part for part in found if isinstance(part, (TargetsFound, NoTarget))]


def test_sft_trains_words_projection_decoder_and_the_tokens_rows_alone(
    start: Path, trained: Path
) -> None:
    changed = differing(start, trained)
    assert any("q_proj.weight" in name for name in changed)
    assert {"projection 0.weight", "projection 2.weight"} <= changed
    assert any("mask_decoder" in name for name in changed)
    rest = ("visual", "vision_encoder", "prompt_encoder", "memory", "layernorm")
    assert not [name for name in changed if any(part in name for part in rest)]
    token_id = load_seg_vlm(trained, precision=Precision.FP32, device="cpu").model.token_id
    before, after = tensors(start), tensors(trained)
    for table in ("embed_tokens.weight", "lm_head.weight"):
        (name,) = (name for name in before if name.endswith(table))
        rows = (before[name] != after[name]).any(dim=1).nonzero().flatten().tolist()
        assert rows == [token_id]


def test_the_folder_is_marked_as_trained_and_carries_its_card(trained: Path) -> None:
    assert json.loads((trained / "seg.json").read_text("utf-8"))["is_trained"]
    card = json.loads((trained / "method.json").read_text("utf-8"))
    assert (card["method"], card["form"], card["num_frames"]) == ("fevos", "think-first", 3)
    assert read_recipe(str(trained / "recipe.yaml")).max_steps == 2
    assert not [p for p in trained.rglob("*") if p.name.startswith("adapter")]


def test_what_was_trained_answers_as_its_card_says(
    trained: Path, episodes: tuple[Episode, ...]
) -> None:
    (found,) = answered(trained, episodes)
    assert isinstance(found, NoTarget) or found.prompts[0].mask is not None
    options = {"model": str(trained), "device": "cpu", "decode_side_px": 512}
    with pytest.raises(ConfigError, match="trained with decode_side_px 256"):
        transformers_reasoner(options)
    with pytest.raises(ConfigError, match="trained with num_frames 3"):
        transformers_reasoner({"model": str(trained), "device": "cpu", "num_frames": 5})


def test_what_was_trained_runs_over_a_clip(trained: Path, worlds: Path, tmp_path: Path) -> None:
    settings = {"model": str(trained), "method": "fevos", "precision": "fp32", "device": "cpu"}
    (tmp_path / "model.json").write_text(json.dumps(settings), "utf-8")
    clip = min((worlds / "JPEGImages").iterdir())
    words = ["run", str(clip), "--reasoner", f"transformers:{tmp_path / 'model.json'}"]
    words += ["--query", "what will the ball hit next?", "--no-video", "--out", str(tmp_path)]
    assert cli.main(words) == cli.DONE
    (line,) = (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["status"] in {"OK", "NO_TARGET"}


def test_a_run_that_was_cut_goes_on_to_the_same_weights(
    start: Path, trained: Path, episodes: tuple[Episode, ...]
) -> None:
    out, whole = trained.parent, tensors(trained)
    (out / "checkpoints" / "checkpoint-2").rename(out / "gone")
    recipe = read_recipe("fevos-sft-tiny", {**TINY, "save_steps": "1", "learning_rate": "0.01"})
    again = tensors(train_seg_sft(recipe, start, episodes, out, resume=True))
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []


def scripted(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    """Let sampling say these in turn, whatever the weights would."""
    from trl import GRPOTrainer

    def generated(self: object, prompt_ids: list[object], *_: object) -> tuple[object, None]:
        words = self.processing_class.tokenizer  # type: ignore[attr-defined]
        said = [[*words(text).input_ids, words.eos_token_id] for text in texts]
        return [said[i % len(said)] for i in range(len(prompt_ids))], None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", generated)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_grpo_scores_what_is_decoded_and_the_mask_loss_trains_the_decoder(
    trained: Path,
    episodes: tuple[Episode, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weight: float,
) -> None:
    scripted(
        monkeypatch, ["<think>So.</think><answer>", SAID, "[ SEG ]", SAID.replace("So", "No")]
    )
    changes = {"max_steps": "1", "mask_loss_weight": str(weight), "learning_rate": "0.01"}
    recipe = read_recipe("fevos-grpo-tiny", changes)
    folder = train_seg_grpo(recipe, trained, episodes, tmp_path)
    header, figures = (tmp_path / "metrics.csv").read_text("utf-8").splitlines()
    told = dict(zip(header.split(","), figures.split(","), strict=True))
    assert float(told["rewards/format/mean"]) == 0.5
    assert 0 <= float(told["rewards/mask/mean"]) <= 0.5
    assert float(told["reward_std"]) > 0
    changed = differing(trained, folder)
    assert any("q_proj.weight" in name for name in changed)
    head = {name for name in changed if "projection" in name or "mask_decoder" in name}
    assert bool(head) is (weight > 0)
    assert ("mask_loss" in told) is (weight > 0)
    assert len(answered(folder, episodes)) == 1


@pytest.mark.parametrize("lora_r", ["2", "0"])
def test_a_second_stage_that_was_cut_goes_on_to_the_same_weights(
    trained: Path,
    episodes: tuple[Episode, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora_r: str,
) -> None:
    """The first step's checkpoint stands for a run that died after it."""
    scripted(monkeypatch, [SAID, "[ SEG ]"])
    changes = {"max_steps": "2", "save_steps": "1", "num_generations": "2", "per_device": "2"}
    changes |= {"mask_loss_weight": "1.0", "learning_rate": "0.01", "lora_r": lora_r}
    recipe = read_recipe("fevos-grpo-tiny", changes)
    folder = train_seg_grpo(recipe, trained, episodes, tmp_path)
    whole, table = tensors(folder), (tmp_path / "metrics.csv").read_text("utf-8")
    assert any("mask_decoder" in name for name in differing(trained, folder))
    (tmp_path / "checkpoints" / "checkpoint-2").rename(tmp_path / "gone")
    again = tensors(train_seg_grpo(recipe, trained, episodes, tmp_path, resume=True))
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
    rows = [text.splitlines() for text in (table, (tmp_path / "metrics.csv").read_text("utf-8"))]
    losses = [[line.split(",")[1] for line in lines] for lines in rows]
    assert losses[0] == losses[1]


def test_a_model_that_segments_is_told_from_a_language_model(start: Path) -> None:
    with pytest.raises(InputError, match="is a model that segments, of visa or fevos"):
        vlm_parts(start)


def test_rewards_are_refused_for_a_form_that_was_not_taught(
    trained: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    recipe = read_recipe("fevos-grpo-tiny", {"form": "answer-only"})
    with pytest.raises(ConfigError, match="was trained with form think-first, the recipe says"):
        train_seg_grpo(recipe, trained, episodes, tmp_path)


def test_visa_is_trained_whole_by_the_command_and_answers(
    parts: Path,
    worlds: Path,
    episodes: tuple[Episode, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = assembled(parts, tmp_path / "made", "visa")
    words = ["sft", "--recipe", "visa-sft-tiny", "--model", str(made), "--set=lora_r=0"]
    words += [f"--set={name}={value}" for name, value in TINY.items()]
    with pytest.raises(SystemExit) as leaving:
        main([*words, "--dataset", str(worlds), "--out", str(tmp_path / "run")])
    assert leaving.value.code == 0, capsys.readouterr().err
    folder = tmp_path / "run" / "model"
    changed = differing(made, folder)
    assert any("mask_decoder" in name for name in changed)
    assert not [name for name in changed if "visual" in name or "vision_encoder" in name]
    assert json.loads((folder / "method.json").read_text("utf-8"))["form"] == "bare"
    assert len(answered(folder, episodes)) == 1


def test_text_alone_has_no_rewards_of_masks(
    worlds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["show-rewards", "--recipe", "fevos-grpo", "--dataset", str(worlds)])
    assert leaving.value.code == 2
    assert "rewards of fevos are over decoded masks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--recipe", "visa-sft-tiny"],
            "visa wants a folder that `foreseg-export seg` made for it",
        ),
        (["--recipe", "fevos-sft-tiny", "--set", "lora_targets=q,x"], "lora_targets want some of"),
        (["--recipe", "fevos-sft-tiny", "--set", "bce_weight=-1.0"], "bce_weight wants 0 to"),
        (
            ["--recipe", "fevos-grpo-tiny", "--set", "reward_weights={iou: 1.0}"],
            "of the stage grpo",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str],
    told: str,
    worlds: Path,
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["sft", "--model", str(start), "--dataset", str(worlds), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as leaving:
        main([*given, *words])
    assert leaving.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "foreseg-train:" in line]
    assert len(lines) == 1
    assert told in lines[0]


def test_what_could_not_be_saved_is_refused_before_it_is_trained() -> None:
    class Sharded:
        is_fsdp_enabled = True

    recipe = read_recipe("fevos-sft-tiny", {**TINY, "lora_r": "0"})
    with pytest.raises(ConfigError, match="trained under adapters: set lora_r"):
        check_can_be_saved(Sharded(), recipe)
    check_can_be_saved(Sharded(), read_recipe("fevos-sft-tiny", {**TINY, "lora_r": "4"}))
