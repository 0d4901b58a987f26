# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind: figures, checkpoints that are whole, its page, its card, its faults."""

from __future__ import annotations

import errno
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="callbacks are for torch's trainers")
pytest.importorskip("PIL", reason="the page has Pillow's pictures")
from PIL import Image  # noqa: E402
from safetensors import SafetensorError  # noqa: E402

from foreseg.errors import ConfigError, InputError  # noqa: E402
from foreseg_training.runs import faults  # noqa: E402
from foreseg_training.runs.checkpoints import (  # noqa: E402
    MARK,
    is_whole,
    mark_whole,
    newest_checkpoint,
    remove_halves,
)
from foreseg_training.runs.completions_page import CompletionsPage, Said, Shown  # noqa: E402
from foreseg_training.runs.metrics_file import MetricsFile  # noqa: E402
from foreseg_training.runs.progress import Progress, clock_of  # noqa: E402
from foreseg_training.runs.run_card import (  # noqa: E402
    as_text,
    licence_of,
    rows_digest,
    weights_digest,
    write_card,
)
from foreseg_training.runs.telemetry import Telemetry  # noqa: E402
from foreseg_training.runs.watched_rewards import WatchedRewards  # noqa: E402
from foreseg_training.runs.whole_file import whole_folder, write_whole  # noqa: E402
from foreseg_training.vlm.recipe import Recipe  # noqa: E402
from foreseg_training.vlm.run import Run  # noqa: E402

ACCELERATE = Path(faults.__file__).resolve().parents[1] / "accelerate"


def checkpoint(out: Path, step: int) -> Path:
    folder = out / "checkpoints" / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "inner" / "rng_state.pth").write_bytes(b"state")
    return folder


def state(step: int, **values: object) -> SimpleNamespace:
    given = {"global_step": step, "max_steps": 20, "is_world_process_zero": True}
    return SimpleNamespace(**{**given, "num_input_tokens_seen": 0, **values})


def test_the_newest_whole_checkpoint_is_taken_and_halves_are_removed(tmp_path: Path) -> None:
    for step in (5, 10, 20):
        folder = checkpoint(tmp_path, step)
        if step < 20:  # killed while the last was written
            mark_whole(folder)
    assert newest_checkpoint(tmp_path).name == "checkpoint-10"
    remove_halves(tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint-10",
        "checkpoint-5",
    ]


def test_a_run_that_died_in_its_first_checkpoint_may_begin_again(tmp_path: Path) -> None:
    half = checkpoint(tmp_path / "out", 2)
    with pytest.raises(ConfigError, match="only 1 that were not finished"):
        Run(Recipe(stage="sft"), tmp_path / "model", tmp_path / "out", resume=True)
    assert Run(Recipe(stage="sft"), tmp_path / "model", tmp_path / "out").checkpoint is None
    mark_whole(half)
    (half / "model.safetensors").unlink()  # it may be mended: nothing is removed for a new run
    with pytest.raises(ConfigError, match="holds a run already"):
        Run(Recipe(stage="sft"), tmp_path / "model", tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "lost", "no mark", "half a mark", "a list"])
def test_a_checkpoint_that_lost_something_is_not_whole(tmp_path: Path, damage: str) -> None:
    folder = checkpoint(tmp_path, 3)
    mark_whole(folder)
    assert is_whole(folder)
    if damage == "cut":
        (folder / "model.safetensors").write_bytes(b"wei")
    elif damage == "lost":
        (folder / "inner" / "rng_state.pth").unlink()
    elif damage == "no mark":
        (folder / MARK).unlink()
    else:
        (folder / MARK).write_text("{" if damage == "half a mark" else "[1]", "utf-8")
    assert not is_whole(folder)
    with pytest.raises(ConfigError, match="only 1 that were not finished"):
        newest_checkpoint(tmp_path)


def test_rows_after_the_checkpoint_are_written_once(tmp_path: Path) -> None:
    table = MetricsFile(tmp_path / "metrics.csv")
    table.begin(0)
    for step in range(1, 6):
        table.put(step, {"loss": step / 3, "kl": None})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("6,0.")  # killed in the middle of a line
    table = MetricsFile(tmp_path / "metrics.csv")
    assert table.begin(3) == {"step": "3", "loss": "1", "kl": ""}
    table.put(4, {"loss": 0.5, "kl": 0.25, "reward": 2.0})
    rows = table.rows()
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0] == {"step": "1", "loss": repr(1 / 3), "kl": "", "reward": ""}
    assert rows[3] == {"step": "4", "loss": "0.5", "kl": "0.25", "reward": "2"}


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\nmany,1\n", "utf-8")
    with pytest.raises(InputError, match="no table of figures by step"):
        MetricsFile(tmp_path / "metrics.csv").begin(0)


def test_without_a_terminal_a_line_comes_every_few_steps() -> None:
    stream = io.StringIO()
    progress = Progress(25, 0, stream=stream, every=10)
    for step in range(1, 26):
        figures = {"loss": 0.123456, "rewards/format/mean": 1.5, "kl": None, "seconds": 6.0}
        progress.put(step, figures)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/25,", "10/25,", "20/25,", "25/25,"]
    assert lines[1] == "step 10/25, 0:01:30 left: loss 0.1235, format 1.5"


def test_on_a_terminal_it_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(3, 1, stream=stream)
    progress.put(2, {"loss": 2.0})
    progress.put(3, {"loss": 1.0})
    progress.close()
    assert "3/3" in stream.getvalue()
    assert "\n" not in stream.getvalue().rstrip("\n")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00:00"), (59.6, "0:01:00"), (90_061, "25:01:01")]
)
def test_time_left(seconds: float, shown: str) -> None:
    assert clock_of(seconds) == shown


def test_tokens_are_counted_on_after_a_resume(tmp_path: Path) -> None:
    table = MetricsFile(tmp_path / "metrics.csv")
    times = iter(range(0, 100, 2))
    for start, seen in ((0, 100), (1, 300)):
        telemetry = Telemetry(table, clock=lambda: float(next(times)))
        telemetry.on_train_begin(None, state(start), None)
        telemetry.on_log(None, state(start + 1), None, {"loss": 1.0, "num_tokens": seen})
        telemetry.on_log(None, state(start + 1), None, {"train_runtime": 1.0})
        telemetry.on_train_end(None, state(start + 1), None)
    assert [(row["num_tokens"], row["tokens_per_s"]) for row in table.rows()] == [
        ("100", "50"),
        ("400", "150"),
    ]


@pytest.mark.parametrize(
    ("logs", "told"),
    [
        ({"loss": math.nan, "grad_norm": 1.0}, "the loss is nan at step 7: lower learning_rate"),
        ({"loss": 1.0, "grad_norm": math.inf}, "the gradient's norm is inf at step 7"),
    ],
)
def test_a_run_stops_at_figures_that_are_none(
    tmp_path: Path, logs: dict[str, float], told: str
) -> None:
    telemetry = Telemetry(MetricsFile(tmp_path / "metrics.csv"))
    telemetry.on_train_begin(None, state(0), None)
    with pytest.raises(InputError, match=told):
        telemetry.on_log(None, state(7), None, logs)
    telemetry.close()


def shown(step: int, text: str, count: int = 1) -> Shown:
    return Shown(
        step=step,
        id="a/0",
        asked="what falls?",
        pictures=[Image.new("RGB", (640, 480), (255, 0, 0))],
        said=[Said(text=text, rewards={"format": 1.0, "spatial": None})] * count,
    )


def test_the_page_escapes_what_was_said_and_keeps_the_last(tmp_path: Path) -> None:
    page = CompletionsPage(tmp_path / "completions.html", keep=5)
    page.begin(0)
    page.add([shown(1, "<script>alert(1)</script>\n\x00\ud800", 2)])
    text = (tmp_path / "completions.html").read_text("utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#10;\ufffd?" in text
    assert "format <b>1.000</b>, spatial <b>does not apply</b>" in text
    for step in (2, 3):
        page.add([shown(step, f"said {step}", 2)])
    text = (tmp_path / "completions.html").read_text("utf-8")
    assert "alert" not in text
    assert text.index("said 3") < text.index("said 2")
    assert text.count("data:image/jpeg;base64,") == 2
    assert len(text) < 20_000

    again = CompletionsPage(tmp_path / "completions.html", keep=5)
    again.begin(2)
    again.add([shown(3, "said again")])
    text = (tmp_path / "completions.html").read_text("utf-8")
    assert "said 2" in text
    assert "said 3" not in text


def given(count: int = 2, **values: object) -> dict[str, Any]:
    said = [[{"role": "assistant", "content": f"said {i}"}] for i in range(count)]
    asked = [[{"role": "user", "content": [{"type": "text", "text": "what?"}]}]] * count
    base = {"prompts": asked, "completions": said, "id": ["clip/0"] * count}
    return {**base, "trainer_state": state(4), **values}


def test_rewards_are_put_on_the_page_every_few_steps(tmp_path: Path) -> None:
    def first(completions: list[object], **_: object) -> list[float | None]:
        return [0.25 for _ in completions]

    def second(completions: list[object], **_: object) -> list[float | None]:
        return [None for _ in completions]

    page = CompletionsPage(tmp_path / "page.html")
    watched = WatchedRewards([first, second], page, every=4)
    assert [f.__name__ for f in watched.functions] == ["first", "second"]
    for step in (3, 4):
        scores = [f(**given(trainer_state=state(step))) for f in watched.functions]
        assert scores == [[0.25, 0.25], [None, None]]
        assert (tmp_path / "page.html").exists() == (step == 4)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "step 4, clip/0" in text
    assert text.count("first <b>0.250</b>, second <b>does not apply</b>") == 2


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_reward_that_is_no_number_names_sample_and_reward(score: float) -> None:
    def odd(completions: list[object], **_: object) -> list[float | None]:
        return [0.0, score][: len(completions)]

    (watched,) = WatchedRewards([odd], None, every=1).functions
    with pytest.raises(
        InputError, match=r"the reward odd is (nan|inf) for the sample clip/0, .*'said 1'"
    ):
        watched(**given())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
            r"lower per_device \(now 8\), num_frames \(now 6\)",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "or train adapters"),
        (MemoryError(), "num_generations"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (
            SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
            "the disk is full",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"),
            "--resume goes on",
        ),
    ],
)
def test_faults_of_the_machine_are_one_sentence(
    error: Exception, told: str, tmp_path: Path
) -> None:
    numbers = {
        "stage": "grpo",
        "per_device": 8,
        "num_frames": 6,
        "num_generations": 4,
        "lora_r": 0,
    }
    with pytest.raises(InputError, match=told) as caught, faults.told(numbers, tmp_path):
        raise error
    assert "\n" not in str(caught.value)


def test_other_faults_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="sizes differ"), faults.told({}, tmp_path):
        raise RuntimeError("sizes differ")  # noqa: EM101, TRY003


def test_knobs_of_another_stage_are_not_named(tmp_path: Path) -> None:
    numbers = {"stage": "sft", "per_device": 8, "num_generations": 4, "lora_r": 8}
    with pytest.raises(InputError) as caught, faults.told(numbers, tmp_path):
        raise MemoryError
    assert str(caught.value) == "out of memory on this machine: lower per_device (now 8)"


def test_vllm_is_wanted_by_name_where_it_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreseg_training.vlm import arguments
    from foreseg_training.vlm.recipe import read_recipe

    monkeypatch.setattr(arguments.importlib.util, "find_spec", {}.get)
    told = arguments.grpo_arguments(read_recipe("veason-grpo-tiny"), tmp_path, "cpu", [1.0])
    assert "use_vllm" not in told
    recipe = read_recipe("veason-grpo-tiny", {"rollouts": "vllm-colocate"})
    with pytest.raises(ConfigError, match="want the package vllm: pip install vllm"):
        arguments.grpo_arguments(recipe, tmp_path, "cpu", [1.0])
    monkeypatch.setattr(arguments.importlib.util, "find_spec", lambda name: name)
    told = arguments.grpo_arguments(recipe, tmp_path, "cpu", [1.0])
    assert (told["use_vllm"], told["vllm_mode"]) == (True, "colocate")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_absent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults.on_cpu("auto")
    with pytest.raises(ConfigError, match=r"--device cuda wants a GPU, and torch .* sees none"):
        faults.on_cpu("cuda")
    with pytest.raises(ConfigError, match="one of auto, cuda, cpu"):
        faults.on_cpu("tpu")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="accelerate's configuration wants a GPU"):
        faults.on_cpu("auto")
    assert faults.on_cpu("cpu")


def test_a_card_says_what_is_known_and_what_is_not(tmp_path: Path) -> None:
    card = {"recipe": {"seed": 3}, "data": {"licence": licence_of(tmp_path)}, "left out": {}}
    write_card(tmp_path, card)
    assert json.loads((tmp_path / "run_card.json").read_text("utf-8")) == card
    text = (tmp_path / "RUN_CARD.md").read_text("utf-8")
    assert text == as_text(card)
    assert "- licence: unknown" in text
    (tmp_path / "LICENSE").write_text("\n# CC BY 4.0\nmore\n", "utf-8")
    assert licence_of(tmp_path) == "CC BY 4.0 (LICENSE)"


def test_digests_tell_rows_and_weights_apart(tmp_path: Path) -> None:
    rows = [{"id": "a", "truth": "{}"}, {"id": "b", "truth": "{}"}]
    assert rows_digest(rows) == rows_digest([dict(reversed(row.items())) for row in rows])
    assert rows_digest(rows) != rows_digest(rows[::-1])
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / "model.safetensors").write_bytes(bytes(200_000))
    before = weights_digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(199_999) + b"1")
    assert weights_digest(tmp_path) != before


def test_files_and_folders_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "one")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text("utf-8") == "one"
    with whole_folder(tmp_path / "model") as part:
        (part / "x").write_text("1", "utf-8")

    def fill_the_disk() -> None:
        with whole_folder(tmp_path / "model") as part:
            (part / "x").write_text("2", "utf-8")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="cannot be written"):
        fill_the_disk()
    assert (tmp_path / "model" / "x").read_text("utf-8") == "1"
    with whole_folder(tmp_path / "model") as part:
        (part / "y").write_text("3", "utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "model"]
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["y"]


@pytest.mark.parametrize("path", sorted(ACCELERATE.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(path: Path) -> None:
    pytest.importorskip("accelerate", reason="it places what is trained")
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    wanted = {"one": 1, "eight": 8, "two": 16}[path.stem.partition("-")[0]]
    assert config.num_processes == wanted
    assert config.mixed_precision == "no"  # the recipe decides
