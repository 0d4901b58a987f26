# SPDX-License-Identifier: Apache-2.0
"""The whole way by its commands: dataset, SFT, GRPO, four bits, `foreseg run`; with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training wants torch")
pytest.importorskip("trl", reason="training is TRL's: the extra [train]")
pytest.importorskip("bitsandbytes", reason="four bits are bitsandbytes': the extra [vlm]")
pytest.importorskip("cv2", reason="the simulation draws with OpenCV")

from tests.support.tiny_vlm import save_tiny_vlm  # noqa: E402

from foreseg import cli  # noqa: E402
from foreseg_export.cli import main as export  # noqa: E402
from foreseg_simulation.cli import main as simulate  # noqa: E402
from foreseg_training.cli import main as train  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*checkpointing.* is deprecated:FutureWarning"),
]
SHORT = {
    "sft": {"max_steps": 20, "batch_size": 2, "per_device": 2},
    "grpo": {
        "max_steps": 5,
        "batch_size": 1,
        "num_generations": 2,
        "per_device": 2,
        "max_completion_tokens": 12,
    },
}


def trained(stage: str, model: Path, worlds: Path, out: Path) -> Path:
    words = [stage, "--recipe", f"veason-{stage}-tiny", "--model", str(model)]
    words += [f"--set={name}={value}" for name, value in SHORT[stage].items()]
    with pytest.raises(SystemExit) as leaving:
        train([*words, "--dataset", str(worlds), "--form", "fevos", "--out", str(out)])
    assert leaving.value.code == 0
    steps = (out / "metrics.csv").read_text("utf-8").splitlines()[1:]
    assert len(steps) == SHORT[stage]["max_steps"]
    return out / "model"


def test_from_a_dataset_to_masks_in_four_bits(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    worlds = tmp_path / "worlds"
    drawn = ["generate", "--world", "shapes", "--clips", "3", "--seed", "3", "--size", "160x120"]
    assert simulate([*drawn, "--workers", "1", "--out", str(worlds)]) == 0
    start = save_tiny_vlm(tmp_path / "start")
    taught = trained("sft", start, worlds, tmp_path / "sft")
    rewarded = trained("grpo", taught, worlds, tmp_path / "grpo")
    robot = tmp_path / "robot"
    words = ["vlm", "--model", str(rewarded), "--out", str(robot), "--report-tokens", "4"]
    assert export([*words, "--threads", "1"]) == 0
    assert json.loads((robot / "config.json").read_text("utf-8"))["quantization_config"]
    card = json.loads((robot / "method.json").read_text("utf-8"))
    assert (card["method"], card["form"], card["num_frames"]) == ("veason", "think-first", 4)
    settings = {"model": str(robot), "device": "cpu"}
    (tmp_path / "model.json").write_text(json.dumps(settings), "utf-8")
    clip = min((worlds / "JPEGImages").iterdir())
    words = ["run", str(clip), "--reasoner", f"transformers:{tmp_path / 'model.json'}"]
    words += ["--query", "what will the ball hit next?", "--no-video"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == cli.DONE
    (line,) = (tmp_path / "out" / "answers.jsonl").read_text("utf-8").splitlines()
    answer = json.loads(line)
    assert answer["status"] in {"OK", "NO_TARGET", "FAILED"}
    # Twenty steps do not make a model that answers; what it said was read, and is told.
    assert answer["status"] != "FAILED" or "answer" in answer["reason"]
