# SPDX-License-Identifier: Apache-2.0
"""From a dataset on disk to a model that the robot's reasoner runs, on a tiny real architecture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training wants torch")
pytest.importorskip("trl", reason="training is TRL's: the extra [train]")
pytest.importorskip("datasets", reason="trainers take rows of datasets")
pytest.importorskip("cv2", reason="the simulation draws with OpenCV")

from tests.support.tiny_vlm import save_tiny_vlm  # noqa: E402

from foreseg.dialogue import AnswerDone, AnswerFailed, Query, QueryId  # noqa: E402
from foreseg.errors import ConfigError, InputError  # noqa: E402
from foreseg_evaluation.datasets import read_dataset  # noqa: E402
from foreseg_evaluation.episode import Episode  # noqa: E402
from foreseg_simulation.generation import Command, generate  # noqa: E402
from foreseg_simulation.worlds import World  # noqa: E402
from foreseg_torch.reasoner import transformers_reasoner  # noqa: E402
from foreseg_torch.vlm.loading import vlm_parts  # noqa: E402
from foreseg_training.cli import main  # noqa: E402
from foreseg_training.runs.checkpoints import newest_checkpoint  # noqa: E402
from foreseg_training.samples import Filtered, SampleDrawer  # noqa: E402
from foreseg_training.vlm.grpo import train_grpo  # noqa: E402
from foreseg_training.vlm.recipe import read_recipe  # noqa: E402
from foreseg_training.vlm.sft import train_sft  # noqa: E402

pytestmark = pytest.mark.filterwarnings(  # peft and TRL ask transformers 5.23 by its older names
    "ignore:.*checkpointing.* is deprecated:FutureWarning"
)
TINY = {"max_steps": "2", "batch_size": "2", "per_device": "2"}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds") / "shapes"
    generate(
        Command(
            worlds=(World.SHAPES,), clips=3, streams=0, seed=3, split="train", size_wh=(160, 120)
        ),
        out,
    )
    return out


@pytest.fixture(scope="module")
def episodes(worlds: Path) -> tuple[Episode, ...]:
    return read_dataset(worlds, "fevos", split="train").episodes


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny_vlm(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, start: Path, episodes: tuple[Episode, ...]
) -> Path:
    out = tmp_path_factory.mktemp("sft")
    changes = {**TINY, "save_steps": "1"}
    return train_sft(read_recipe("veason-sft-tiny", changes), start, episodes, out)


def differing(a: Path, b: Path) -> set[str]:
    """Names of tensors that two folders have with other values."""
    from safetensors.torch import load_file

    one, other = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert set(one) == set(other)
    return {name for name in one if not torch.equal(one[name].float(), other[name].float())}


def asked(folder: Path, episodes: tuple[Episode, ...], **options: object) -> list[object]:
    """What the robot's reasoner makes of a trained folder."""
    values = {"model": str(folder), "precision": "fp32", "device": "cpu", **options}
    reasoner = transformers_reasoner(values)
    drawer = SampleDrawer(num_frames=4, label_offset=0)
    sample = next(drawer.draw(episodes, 0, Filtered()))
    query = Query(id=QueryId("q"), text=sample.query.text, max_reasoning_tokens=8)
    return list(reasoner.ask(query, sample.window))


def test_sft_trains_the_language_model_alone(start: Path, trained: Path) -> None:
    changed = differing(start, trained)
    assert changed
    assert not any("visual" in name for name in changed)
    card = read_recipe(str(trained / "recipe.yaml"))
    assert (card.stage, card.max_steps) == ("sft", 2)
    assert not list(trained.parent.glob("rows*"))


def test_what_was_trained_runs_in_the_reasoner_as_its_card_says(
    trained: Path, episodes: tuple[Episode, ...]
) -> None:
    last = asked(trained, episodes)[-1]
    assert isinstance(last, (AnswerDone, AnswerFailed))
    with pytest.raises(ConfigError, match="trained with form 'think-first'"):
        asked(trained, episodes, form="answer-only")
    with pytest.raises(ConfigError, match="trained with num_frames 4"):
        asked(trained, episodes, num_frames=6)


def test_a_checkpoint_of_other_words_is_refused(
    trained: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for path in trained.iterdir():
        (folder / path.name).symlink_to(path)
    card = (trained / "method.json").read_text("utf-8")
    (folder / "method.json").unlink()
    words = card.split('"words": "')[1].split('"')[0]
    (folder / "method.json").write_text(card.replace(words, "0" * 16), "utf-8")
    with pytest.raises(ConfigError, match="other words"):
        asked(folder, episodes)
    (folder / "method.json").write_text('{"method": 7}', "utf-8")
    with pytest.raises(InputError, match=r"method\.json wants method, form"):
        asked(folder, episodes)


def test_a_run_that_was_cut_goes_on_to_the_same_weights(
    start: Path, trained: Path, episodes: tuple[Episode, ...]
) -> None:
    """The first step's checkpoint stands for a run that died after it."""
    out = trained.parent
    newest = newest_checkpoint(out)
    assert newest.name == "checkpoint-2"
    whole = {name: (trained / name).read_bytes() for name in ("model.safetensors",)}
    newest.rename(out / "gone")
    changes = {**TINY, "save_steps": "1"}
    again = train_sft(read_recipe("veason-sft-tiny", changes), start, episodes, out, resume=True)
    assert (again / "model.safetensors").read_bytes() == whole["model.safetensors"]


def test_small_steps_are_not_lost_where_arithmetic_is_narrow(
    start: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    """A step of 1e-6 is below half of a bfloat16 weight's last digit: it would be rounded away."""
    from safetensors.torch import load_file

    changes = {
        **TINY,
        "lora_r": "0",
        "learning_rate": "1e-6",
        "precision": "bf16",
        "schedule": "constant",
    }
    folder = train_sft(read_recipe("veason-sft-tiny", changes), start, episodes, tmp_path)
    before, after = (load_file(p / "model.safetensors") for p in (start, folder))
    name = next(
        n for n in before if n.endswith("layers.0.mlp.down_proj.weight") and "visual" not in n
    )
    moved = (before[name].float() != after[name].float()).float().mean()
    assert moved > 0.9


def test_adapters_are_merged_into_the_saved_model(
    start: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    changes = {**TINY, "lora_r": "2", "lora_targets": "q,v", "learning_rate": "0.01"}
    recipe = read_recipe("veason-sft-tiny", changes)
    folder = train_sft(recipe, start, episodes, tmp_path)
    changed = differing(start, folder)
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}
    assert not any("visual" in name for name in changed)
    assert isinstance(asked(folder, episodes)[-1], (AnswerDone, AnswerFailed))


def test_grpo_goes_on_from_what_sft_made(
    worlds: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"max_steps": 1, "batch_size": 1, "num_generations": 2, "per_device": 2}
    words = ["grpo", "--recipe", "veason-grpo-tiny", "--model", str(trained)]
    words += [f"--set={name}={value}" for name, value in changes.items()]
    with pytest.raises(SystemExit) as leaving:
        main([*words, "--dataset", str(worlds), "--out", str(tmp_path)])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.strip().endswith("model")
    assert not any("visual" in name for name in differing(trained, tmp_path / "model"))
    assert "rewards/consistency/mean" in (tmp_path / "metrics.csv").read_text("utf-8")


def test_a_tracker_that_cannot_start_ends_the_run_before_it_trains(
    worlds: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["grpo", "--recipe", "veason-grpo-tiny", "--model", str(start)]
    words += ["--set=tracker=nosuch", "--dataset", str(worlds), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "foreseg-train:" in x]
    assert "a worker cannot start" in line
    assert "nosuch" in line
    assert not list(tmp_path.glob("rows*"))


def test_show_rewards_scores_true_and_given_completions(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "said.txt"
    said.write_text("<answer>[[1, 2, 3, 4]]</answer>\n", "utf-8")
    for extra, score in (
        ([], "consistency 0."),
        (["--completions", str(said)], "format      0.000"),
    ):
        with pytest.raises(SystemExit) as leaving:
            main(["show-rewards", "--dataset", str(worlds), "--count", "1", *extra])
        assert leaving.value.code == 0
        assert score in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe", "nosuch"], "one of fevos-grpo"),
        (["--recipe", "veason-grpo"], "of the stage grpo, not sft"),
        (["--recipe", "veason-sft", "--set", "lr=1"], "has 'lr'; known are"),
        (["--recipe", "veason-sft", "--set", "epochs=many"], "epochs wants float, got 'many'"),
        (["--recipe", "veason-sft", "--set", "form=loud"], "form wants one of"),
        (["--recipe", "veason-sft", "--set", "epochs"], "--set wants NAME=VALUE"),
        (["--recipe", "veason-sft", "--model", "nosuch"], "nosuch"),
        (["--recipe", "veason-sft-tiny", "--set", "per_device=3"], "cannot be divided by 3"),
        (["--recipe", "veason-sft-tiny", "--set", "per_device=3"], "per_device=2 fits"),
        (["--recipe", "veason-sft-tiny", "--set", "trains=sampler"], "trains wants answer for"),
        (
            ["--recipe", "veason-sft-tiny", "--out", "/proc/nosuch"],
            "--out wants a folder that can",
        ),
        (["--recipe", "veason-sft-tiny", "--out", __file__], "--out wants a folder that can"),
        (
            ["--recipe", "veason-sft-tiny", "--set", "lora_r=2", "--set", "lora_targets=q,x"],
            "lora_targets want some of",
        ),
        (["--recipe", "veason-sft-tiny", "--resume"], "nothing to resume from"),
        (["--recipe", "veason-sft-tiny", "--set", "schedule=nosuch"], "schedule wants one of"),
        (["--recipe", "veason-sft-tiny", "--set", "method=["], "is no YAML"),
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
    given = [
        "sft",
        "--model",
        str(start),
        "--dataset",
        str(worlds),
        "--out",
        str(tmp_path),
        *words,
    ]
    with pytest.raises(SystemExit) as leaving:
        main(given)
    assert leaving.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "foreseg-train:" in line]
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", ".inf"),
        ("epochs", "-1.0"),
        ("epochs", ".nan"),
        ("kl_beta", "-1.0"),
        ("save_steps", "0"),
        ("lora_r", "-1"),
        ("lora_dropout", "7.0"),
        ("seed", "-1"),
        ("warmup_ratio", "-1.0"),
        ("num_generations", "1"),
        ("reward_weights", "{format: abc}"),
        ("reward_weights", "{format: .nan}"),
    ],
)
def test_a_recipe_of_numbers_that_cannot_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        read_recipe("veason-grpo", {name: value})


def test_a_number_may_be_written_as_people_write_it() -> None:
    assert read_recipe("veason-sft", {"learning_rate": "2e-5"}).learning_rate == 2e-5


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_model_that_lacks_weights_is_refused_in_both_stages(
    stage: str,
    start: Path,
    worlds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    folder.mkdir()
    for path in start.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if name.endswith("q_proj.weight"))
    kept = {name: tensor for name, tensor in tensors.items() if name != gone}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    words = [stage, "--recipe", f"veason-{stage}-tiny", "--model", str(folder)]
    with pytest.raises(SystemExit) as leaving:
        main([*words, "--dataset", str(worlds), "--out", str(tmp_path / "out")])
    assert leaving.value.code == 2
    assert "is not whole: it lacks 1 tensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "llama", "vision_config": None}, "wanted is a model of the Qwen-VL kind"),
        ({"hidden_size": 128}, "weights of another architecture than its config.json says"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}
             | {"bnb_4bit_quant_type": "nf4"}},
            "quantised to nf4, which is not trained",
        ),
    ],
)  # fmt: skip
def test_a_model_of_another_architecture_is_refused(
    changes: dict[str, Any],
    told: str,
    start: Path,
    episodes: tuple[Episode, ...],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(start, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if "hidden_size" in changes:
        config["text_config"] |= changes
    else:
        config = {name: value for name, value in {**config, **changes}.items() if value}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match=told):
        train_sft(read_recipe("veason-sft-tiny", TINY), folder, episodes, tmp_path / "out")


def test_a_gpu_is_asked_for_and_absent(
    start: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="--device cuda wants a GPU"):
        train_sft(read_recipe("veason-sft-tiny", TINY), start, episodes, tmp_path, device="cuda")


def test_a_dataset_without_samples_is_refused_with_the_counts(
    start: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    from dataclasses import replace

    mute = [replace(episode, question=None) for episode in episodes]
    with pytest.raises(InputError, match=f"{len(mute)} without a question"):
        train_sft(read_recipe("veason-sft-tiny", TINY), start, mute, tmp_path)


def test_a_dataset_that_lost_its_masks_is_refused(
    start: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    from dataclasses import replace

    lost = [
        replace(episode, spans=tuple(replace(span, object_ids=()) for span in episode.spans))
        for episode in episodes
    ]
    with pytest.raises(InputError, match="no sample has a target, of which to learn where: "):
        train_sft(read_recipe("veason-sft-tiny", TINY), start, lost, tmp_path)


def test_a_model_without_its_tokenizer_is_refused(start: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mute"
    folder.mkdir()
    for path in start.iterdir():
        if not path.name.startswith("tokenizer"):
            (folder / path.name).symlink_to(path)
    with pytest.raises(InputError, match="mute wants the tokenizer of its model"):
        vlm_parts(folder)


def test_a_step_of_more_prompts_than_there_are_is_refused(
    start: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    changes = {"batch_size": "64", "reward_weights": "{format: 1.0}"}
    recipe = read_recipe("veason-grpo-tiny", changes)
    with pytest.raises(InputError, match="one step takes 64 prompts, and there are"):
        train_grpo(recipe, start, episodes, tmp_path, device="cpu")


@pytest.mark.parametrize("place", ["/proc/nosuch", __file__])
def test_where_ratings_cannot_be_written_is_told(
    place: str, worlds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["make-difficulty", "--from-scene", "--dataset", str(worlds), "--out", place])
    assert leaving.value.code == 2
    assert f"foreseg-train: {place} cannot be used: " in capsys.readouterr().err
