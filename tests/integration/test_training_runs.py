# SPDX-License-Identifier: Apache-2.0
"""Runs of training that can be trusted: as they were, as if never killed, and as one over processes.

The golden figures are those of ten seeded steps in fp32 with one thread. Tolerances are ten times what
other instruction sets of one processor make of them (docs/log.md, 2026-11-29), so that other
processors pass. `python -m tests.support.tiny_training golden` writes them anew.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training wants torch")
pytest.importorskip("trl", reason="training is TRL's: the extra [train]")
pytest.importorskip("datasets", reason="trainers take rows of datasets")
pytest.importorskip("cv2", reason="frames are resized by OpenCV")

from tests.support.tiny_training import (  # noqa: E402
    GOLDEN,
    GOLDEN_FIGURES,
    figures,
    fixed_words,
    train,
)
from transformers import Qwen2_5_VLForConditionalGeneration  # noqa: E402

from foreseg.errors import ConfigError  # noqa: E402
from foreseg_training.runs.checkpoints import checkpoints_of, is_whole  # noqa: E402
from foreseg_training.vlm.rewards_veason import VeasonRewards  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOLERANCES = {"loss": 2e-3, "entropy": 2e-3, "kl": 2e-2, "reward": 1e-6}  # of the figure
GRPO_LOSS = 2e-2  # it is the KL's tenth, and the KL's tolerance

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*checkpointing.* is deprecated:FutureWarning"),
]
Unbroken = dict[str, Path]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """Ten steps of each stage."""
    functions = VeasonRewards.functions
    outs = {stage: tmp_path_factory.mktemp(stage) for stage in ("sft", "grpo")}
    for stage, out in outs.items():
        train(stage, out, {})
    VeasonRewards.functions = functions  # type: ignore[method-assign]
    return outs


@pytest.fixture
def letters_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `train` puts in the place of the rewards goes again."""
    monkeypatch.setattr(VeasonRewards, "functions", VeasonRewards.functions)


def started(*words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """`tiny_training` in a process of its own, or in several that share the work."""
    shared = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [sys.executable, "-m", *(shared if processes > 1 else [])]
    command += ["tests.support.tiny_training", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_ten_seeded_steps_go_as_they_went(unbroken: Unbroken, stage: str) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))[stage]
    record = json.loads((unbroken[stage] / "run.json").read_text("utf-8"))
    about = "as then" if record["data"] == golden["data"] else "other samples or words than then"
    rows = figures(unbroken[stage])
    for name, values in golden["figures"].items():
        tolerance = GRPO_LOSS if (stage, name) == ("grpo", "loss") else TOLERANCES[name]
        found = [float(row[name]) for row in rows]
        wanted = [float(value) for value in values.split()]
        assert found == pytest.approx(wanted, rel=tolerance, abs=1e-6), f"{name}, {about}"


@pytest.mark.parametrize(
    ("stage", "death", "newest"), [("sft", "die_saving=8", "8"), ("grpo", "die_at=6", "4")]
)
def test_a_killed_run_goes_on_as_if_it_never_was(
    unbroken: Unbroken, stage: str, death: str, newest: str, tmp_path: Path, letters_alone: None
) -> None:
    del letters_alone
    ended = started(stage, str(tmp_path), death)
    tmp_path /= stage
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    found = checkpoints_of(tmp_path)
    assert found[-1].name == f"checkpoint-{newest}"
    assert is_whole(found[-1]) == (stage == "grpo")  # SFT was killed while it was written
    assert is_whole(found[0])
    before = figures(tmp_path)
    assert 4 < len(before) < 10

    train(stage, tmp_path, {}, resume=True)
    assert figures(tmp_path) == figures(unbroken[stage])
    weights = [out / "model" / "model.safetensors" for out in (tmp_path, unbroken[stage])]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    card = json.loads((tmp_path / "model" / "run_card.json").read_text("utf-8"))
    assert card["result"]["resumed_after_step"] == 4
    assert card["result"]["steps"] == 10
    assert all(is_whole(path) for path in checkpoints_of(tmp_path))


def test_adapters_go_on_as_if_they_never_were_stopped(tmp_path: Path) -> None:
    changes = {"lora_r": "2", "max_steps": "4", "save_steps": "2", "learning_rate": "0.05"}
    train("sft", tmp_path, changes)
    rows = figures(tmp_path)
    whole = (tmp_path / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-4")
    train("sft", tmp_path, changes, resume=True)
    assert figures(tmp_path) == rows
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == whole


def test_another_run_is_not_gone_on_with(unbroken: Unbroken) -> None:
    out = unbroken["sft"]
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.002, is 0\.1; .*another --out"):
        train("sft", out, {"learning_rate": "0.1"}, resume=True)
    with pytest.raises(ConfigError, match="holds a run already: --resume"):
        train("sft", out, {})
    with pytest.raises(ConfigError, match="nothing to resume from"):
        train("sft", out / "nowhere", {}, resume=True)


def test_two_processes_train_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letters_alone: None
) -> None:
    """Two steps of each stage over gloo; what is said is fixed, for each process draws its own."""
    del letters_alone
    ended = started("sft,grpo", str(tmp_path), "max_steps=2", "words=fixed", processes=2)
    assert ended.returncode == 0, ended.stderr
    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "generate", fixed_words)
    for stage, names in GOLDEN_FIGURES.items():
        train(stage, tmp_path / "one" / stage, {"max_steps": "2"})
        one, two = figures(tmp_path / "one" / stage), figures(tmp_path / stage)
        assert [row["step"] for row in two] == ["1", "2"]
        for name in (*names, "grad_norm", "num_tokens"):
            found = [float(row[name]) for row in two]
            wanted = [float(row[name]) for row in one]
            assert found == pytest.approx(wanted, rel=1e-3, abs=1e-6), (stage, name)
        card = json.loads((tmp_path / stage / "model" / "run_card.json").read_text("utf-8"))
        assert card["hardware"]["processes"] == 2
