# SPDX-License-Identifier: Apache-2.0
"""GRPO of the nano reasoner: what is said by chance, what it is worth, and what is learnt from it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the nano reasoner's training needs torch")
pytest.importorskip("transformers", reason="the nano reasoner is built from transformers")

from tests.support.prepared_nano import GRID_THW, PREPARATION, SMALL  # noqa: E402

from foreseg.errors import InputError  # noqa: E402
from foreseg.methods.grammar import Form  # noqa: E402
from foreseg.methods.veason import NOTHING  # noqa: E402
from foreseg.work.base import SerialExecutor  # noqa: E402
from foreseg_training.nano.architecture import (  # noqa: E402
    build_nano_reasoner,
    save_nano_reasoner,
)
from foreseg_training.nano.batches import Batcher  # noqa: E402
from foreseg_training.nano.features import FrameStore, SeenCollator  # noqa: E402
from foreseg_training.nano.grpo import (  # noqa: E402
    GroupRewards,
    GrpoRun,
    NanoGrpo,
    begin,
    grpo_loss,
    log_probs_of,
    question_of,
    spoken,
    train_grpo,
)
from foreseg_training.nano.held_out import prompt_of  # noqa: E402
from foreseg_training.nano.numbers import number_ids  # noqa: E402
from foreseg_training.nano.preparing import prepare  # noqa: E402
from foreseg_training.nano.rollouts import say  # noqa: E402
from foreseg_training.nano.tokenizer import END  # noqa: E402
from foreseg_training.nano.training import batch_loss  # noqa: E402
from foreseg_training.nano.windows import Window, read_windows, rows_of  # noqa: E402

NUMBERS = NanoGrpo(
    minutes=1e-6, num_questions=2, num_generations=4, max_tokens=12, num_held_out=2, bf16=False
)
BITS = 2e-5  # log-probabilities of float32, by two orders of adding


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("nano")
    prepare(PREPARATION, out, SerialExecutor())
    return out


def run_of(prepared: Path, numbers: NanoGrpo = NUMBERS) -> GrpoRun:
    return begin(numbers, prepared / "start", prepared)[0]


def few_words(run: GrpoRun, words: list[int]) -> None:
    """Let a random model say nothing else."""
    table = run.model.get_input_embeddings().weight
    head = torch.nn.Linear(table.shape[1], table.shape[0])
    with torch.no_grad():
        head.weight.copy_(4 * table)
        head.bias.fill_(-100)
        head.bias[words] = 0
    run.model.lm_head = head


def test_tokens_are_as_likely_as_the_whole_pass_says_while_others_end(prepared: Path) -> None:
    run = run_of(prepared)
    few_words(run, list(range(300, 308)))
    windows = read_windows(prepared / "windows.jsonl")[:3]
    asked = [
        (window, int(choose(window.num_prompt)))
        for window, choose in zip(windows, (np.argmin, np.argmax, np.argmin), strict=True)
    ]
    batch = run.batcher.batch(windows, [prompt_of(w, n, i) for n, (w, i) in enumerate(asked)])
    assert not batch.is_there.all()  # questions are of different lengths

    def said(end_id: int, seed: int) -> list[list[list[int]]]:
        groups = say(
            run.model, batch, GRID_THW, num_each=6, max_tokens=20, end_id=end_id,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        for (window, i), group in zip(asked, groups, strict=True):
            with torch.no_grad():
                own = log_probs_of(run.model, spoken(run.batcher, window, i, group), GRID_THW)
            drawn = torch.tensor([p for one in group for p in one.log_probs])
            assert torch.allclose(own, drawn, atol=BITS), float((own - drawn).abs().max())
        return [[one.ids for one in group] for group in groups]

    endless = said(-1, 0)
    assert {len(ids) for group in endless for ids in group} == {20}
    counted = Counter(token for group in endless for ids in group for token in ids)
    ends = counted.most_common(3)[-1][0]  # neither at once nor hardly ever
    ending = said(ends, 1)
    lengths = [len(ids) for group in ending for ids in group]
    assert len(set(lengths)) > 3, lengths
    for ids in (ids for group in ending for ids in group):
        assert ends not in ids[:-1]
        assert ids[-1] == ends or len(ids) == 20


def test_the_likeliest_tokens_are_those_of_the_models_own_loop(prepared: Path) -> None:
    run = run_of(prepared)
    few_words(run, list(range(300, 400)))
    window = read_windows(prepared / "windows.jsonl")[0]
    batch = run.batcher.batch([window], [prompt_of(window, 0, 0)])
    groups = say(
        run.model, batch, GRID_THW, num_each=2, max_tokens=9, end_id=-1, generator=None
    )  # fmt: skip
    row = rows_of([window])[0]
    row["input_ids"] = row["input_ids"][: row["num_prompt"]]
    image = run.model.config.image_token_id
    store = FrameStore(prepared / "frames.npy")
    rows = SeenCollator(store, GRID_THW, run.tokenizer.pad_token_id, image)([row])
    del rows["labels"]
    out = run.model.generate(**rows, max_new_tokens=9, do_sample=False, eos_token_id=None)
    assert groups[0][0].ids == groups[0][1].ids == out[0, row["num_prompt"] :].tolist()


def test_no_true_completion_is_cut(prepared: Path) -> None:
    lengths = [
        len(ids) - num_prompt
        for name in ("windows", "held_out")
        for window in read_windows(prepared / f"{name}.jsonl")
        for ids, num_prompt in zip(window.asked, window.num_prompt, strict=True)
    ]
    assert 200 < max(lengths) < NanoGrpo().max_tokens


def test_what_is_true_gets_every_reward(prepared: Path) -> None:
    rewards, run = GroupRewards(), run_of(prepared)
    kinds = set()
    for window in read_windows(prepared / "windows.jsonl"):
        for i, truth in enumerate(window.truths):
            ids = window.asked[i][window.num_prompt[i] : -1]
            completion = run.tokenizer.decode(ids)
            question = question_of(completion, truth)
            nothing = question.form.put("<think>x</think>", f"<answer>{NOTHING}</answer>")
            parts = rewards(question, [completion, nothing])
            has_target = any(json.loads(truth)["areas"].values())
            kinds.add((question.form, has_target))
            assert parts["format"] == [2, 2]
            assert parts["no_target"] == [1, 0 if has_target else 1]
            if not has_target:
                assert parts["keyframe"] == parts["spatial"] == [None, None]
                continue
            assert parts["keyframe"][0] >= 0.7
            assert parts["spatial"][0] > 0.6  # whole numbers, of small things
            best, other = rewards.total(parts)
            assert best > other == 2
    assert {form for form, _ in kinds} >= {Form.THINK_FIRST}
    assert {has_target for _, has_target in kinds} == {True, False}
    with pytest.raises(InputError, match="keeps to no form"):
        question_of("well", "")


def test_the_loss_pulls_towards_the_better_and_back_to_the_start(prepared: Path) -> None:
    run = run_of(prepared)
    window = read_windows(prepared / "windows.jsonl")[0]
    (group,) = say(
        run.model, run.batcher.batch([window], [prompt_of(window, 0, 0)]), GRID_THW,
        num_each=2, max_tokens=3, end_id=-1, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    group[1].ids.pop()  # of two tokens
    batch = spoken(run.batcher, window, 0, group)
    own = torch.log(torch.tensor([0.5, 0.5, 0.5, 0.25, 0.25])).requires_grad_()
    advantage = np.array([1.0, -1.0])
    loss, figures = grpo_loss(own, None, advantage, batch, kl_beta=0.0, num_said=2)
    loss.backward()
    assert own.grad.tolist() == pytest.approx([-1 / 6] * 3 + [1 / 4] * 2)
    assert figures == {}
    own.grad = None
    start = own.detach() + torch.tensor([0.0, 0.1, 0.0, 0.0, 0.0])
    loss, figures = grpo_loss(own, start, np.zeros(2), batch, kl_beta=1.0, num_said=2)
    loss.backward()
    assert own.grad[1] == pytest.approx((1 - np.exp(0.1)) / 6, rel=1e-4)
    assert figures["kl"] == pytest.approx((np.exp(0.1) - 1.1) / 5, rel=1e-3)


def two_answers(run: GrpoRun, window: Window) -> Window:
    """A question, once answered by a box and once by nothing, though nothing is true."""
    texts = [
        f"<answer>{answer}</answer>{END}"
        for answer in (NOTHING, '{"keyframe_timestamp": 1, "bbox_2d_list": [[1, 2, 3, 4]]}')
    ]
    said = [run.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    prompt = prompt_of(window, 0, 0).ids
    return dataclasses.replace(
        window,
        asked=tuple((*prompt, *ids) for ids in said),
        num_prompt=(len(prompt),) * 2,
        truths=('{"areas": {"1": 0}, "boxes": {"1": []}}',) * 2,
    )


@pytest.mark.parametrize("is_scaled", [False, True])
def test_who_says_a_box_or_nothing_by_chance_learns_to_say_nothing(
    prepared: Path,
    is_scaled: bool,  # noqa: FBT001 (of pytest)
) -> None:
    numbers = dataclasses.replace(
        NUMBERS,
        num_generations=8,
        max_tokens=20,
        learning_rate=2e-3,
        kl_beta=0.0,
        is_scaled=is_scaled,
    )
    run = run_of(prepared, numbers)
    window = two_answers(run, read_windows(prepared / "windows.jsonl")[0])
    store = FrameStore(prepared / "frames.npy")
    run.batcher = Batcher([window], store, run.tokenizer, num_windows=2, num_asked=2)
    optimiser = torch.optim.AdamW(run.model.parameters(), lr=3e-3)
    for step in range(40):  # until it says both
        batch = run.batcher.draw(np.random.default_rng(step))
        words, sides = batch_loss(run.model, batch, number_ids(run.tokenizer), GRID_THW)
        optimiser.zero_grad()
        (words + sides).backward()
        optimiser.step()
    run.batcher = Batcher([window], store, run.tokenizer, num_windows=2, num_asked=1)
    figures = [run.move() for _ in range(45)]
    while len(figures) < 90 and np.mean([its["no_target"] for its in figures[-10:]]) <= 0.85:
        figures.append(run.move())  # the start has learnt for seconds, not for steps: it varies
    none = [its["no_target"] for its in figures]
    assert 0.1 < np.mean(none[:3]) < 0.8
    assert np.mean(none[-10:]) > 0.85
    assert np.mean([its["reward"] for its in figures[-5:]]) > figures[0]["reward"]


def test_a_run_that_was_saved_goes_on_as_if_nothing_had_happened(
    prepared: Path, tmp_path: Path
) -> None:
    numbers = dataclasses.replace(NUMBERS, learning_rate=1e-3)
    whole, first, second = (run_of(prepared, numbers) for _ in range(3))
    toward_rewards(whole, first, second)
    figures = [whole.move() for _ in range(4)]
    for _ in range(2):
        first.move()
    first.save(tmp_path / "state.pt")
    second.load(tmp_path / "state.pt")
    assert second.spent_s == first.spent_s
    again = [second.move() for _ in range(2)]
    assert any("kl" in its for its in figures[:2])  # something was learnt
    timed = {"seconds", "speaking_s"}
    for one, other in zip(figures[2:], again, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }
    state = whole.model.state_dict()
    for name, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


class ManyWords(GroupRewards):
    """A reward that a random model gets by chance."""

    def __call__(self, question: object, texts: object) -> dict[str, list[float | None]]:
        del question
        return {"format": [float(len(text) % 7) for text in texts]}  # type: ignore[attr-defined]


def toward_rewards(*runs: GrpoRun) -> None:
    for run in runs:
        run.rewards = ManyWords()


def test_a_run_leaves_a_folder_figures_and_a_state_to_go_on_from(
    prepared: Path, tmp_path: Path
) -> None:
    start, out = prepared / "start", tmp_path / "out"
    folder = train_grpo(NUMBERS, start, prepared, out)
    assert (folder / "method.json").read_bytes() == (start / "method.json").read_bytes()
    assert len((out / "metrics.csv").read_text().splitlines()) == 2
    train_grpo(dataclasses.replace(NUMBERS, minutes=2e-6), folder, prepared, out, resume=True)
    spent = torch.load(out / "state.pt", weights_only=True)["spent_s"]
    assert spent >= 2e-6 * 60
    model = build_nano_reasoner(SMALL, run_of(prepared).tokenizer, 7)
    save_nano_reasoner(model, run_of(prepared).tokenizer, tmp_path / "other")
    with pytest.raises(InputError, match="another tower"):
        begin(NUMBERS, tmp_path / "other", prepared)


def test_questions_without_a_truth_are_refused(prepared: Path, tmp_path: Path) -> None:
    for name in ("start", "frames.npy", "held_out.jsonl"):
        (tmp_path / name).symlink_to(prepared / name)
    line = json.loads((prepared / "windows.jsonl").read_text().splitlines()[0])
    del line["truths"]
    (tmp_path / "windows.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match="prepare it anew"):
        begin(NUMBERS, prepared / "start", tmp_path)


def test_numbers_that_cannot_be_are_refused_before_a_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from foreseg_training.cli import main

    for name in ("start/method.json", "data/held_out.jsonl", "out/metrics.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    good = ["--start", f"{tmp_path}/start", "--data", f"{tmp_path}/data", "--out", f"{tmp_path}/o"]
    for words, said in (
        (["--completions", "1"], "--completions wants at least 2, got 1"),
        (["--minutes", "nan"], "--minutes wants a number above 0"),
        (["--kl", "-1"], "--kl wants a number from 0 to 1, got -1.0"),
        (["--start", str(tmp_path)], "--start wants the folder of a nano reasoner"),
        (["--data", str(tmp_path)], "--data wants a folder that foreseg-train nano"),
        (["--out", f"{tmp_path}/out"], "holds a run: --resume goes on with it"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["nano-grpo", *good, *words])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
