# SPDX-License-Identifier: Apache-2.0
"""`foreseg-eval` from a dataset to a report: resumed, sharded, crashed, and with wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="evaluation needs the extra [evaluation]")
pytest.importorskip("jinja2", reason="evaluation needs the extra [evaluation]")

from PIL import Image
from tests.support.dataset_trees import TREES

import foreseg_evaluation.run as running
from foreseg.errors import ConfigError
from foreseg.history.windows import RecentWindow
from foreseg.masks import rle_from_mask
from foreseg.work.processes import ProcessExecutor
from foreseg_evaluation.cli import finish, main
from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.episode import Episode
from foreseg_evaluation.results import TARGET, read_results, result_path
from foreseg_evaluation.run import Protocol, RunSpec, run
from foreseg_evaluation.system import SystemConfig
from foreseg_simulation.cli import main as simulate

CLIPS = 3


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds") / "shapes"
    words = f"generate --world shapes --clips {CLIPS} --seed 5 --split val --size 160x120"
    simulate([*words.split(), "--workers", "1", "--out", str(out)])
    return out


def evaluate(worlds: Path, out: Path, *words: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["--dataset", str(worlds), "--form", "fevos", "--split", "val", "--out", str(out),
              *words])  # fmt: skip
    return int(exit_.value.code or 0)


def results_of(out: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((out / "results.json").read_text())
    return record


@pytest.mark.parametrize("protocol", ["offline", "streaming"])
def test_a_run_writes_figures_table_and_page(worlds: Path, tmp_path: Path, protocol: str) -> None:
    out = tmp_path / "run"
    assert evaluate(worlds, out, "--system", "oracle-prompt", "--protocol", protocol) == 0
    record = results_of(out)
    assert 40 < float(record["j_and_f"]) <= 100  # type: ignore[arg-type]
    assert record["j_and_f"] == pytest.approx((record["j"] + record["f"]) / 2)  # type: ignore[operator]
    lines = (out / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + len(read_results(out)) > CLIPS
    page = (out / "report.html").read_text()
    assert "oracle-prompt" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_what_does_not_apply_is_not_told_as_a_number(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--system", "oracle-prompt", "--protocol", "streaming", "--max-episodes", "1"]
    assert evaluate(worlds, tmp_path / "run", *words) == 0
    out = capsys.readouterr().out
    assert "nan" not in out.lower().split()
    assert "resamples" not in out  # one episode has no spread
    assert "0 failed" not in out
    answered = read_results(tmp_path / "run")[0].answered
    assert " s: " in answered["over_time"]


def test_a_run_goes_on_where_it_stopped(
    worlds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert evaluate(worlds, out, "--system", "repeat-first-mask") == 0
    whole = results_of(out)
    paths = sorted((out / "episodes").glob("*.json"))
    paths[0].unlink()
    paths[1].write_text(paths[1].read_text()[:50])  # cut off
    evaluated = []
    original = running.Evaluator.evaluate

    def noted(self, episode):  # noqa: ANN001, ANN202
        evaluated.append(episode.id)
        return original(self, episode)

    monkeypatch.setattr(running.Evaluator, "evaluate", noted)
    assert evaluate(worlds, out, "--system", "repeat-first-mask") == 0
    assert len(evaluated) == 2
    again = results_of(out)
    assert again["j_and_f"] == whole["j_and_f"]


def test_another_run_in_the_same_folder_is_refused(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert evaluate(worlds, out, "--system", "repeat-first-mask") == 0
    assert evaluate(worlds, out, "--system", "random-box") == 2
    assert "system was 'repeat-first-mask', is 'random-box'" in capsys.readouterr().err


def test_shards_merge_to_the_whole(worlds: Path, tmp_path: Path) -> None:
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    shards = [tmp_path / "a", tmp_path / "b"]
    assert evaluate(worlds, whole, "--system", "repeat-first-mask") == 0
    for i, shard in enumerate(shards):
        words = ["--system", "repeat-first-mask", "--shard", f"{i}/2"]
        assert evaluate(worlds, shard, *words) == 0
    with pytest.raises(SystemExit) as exit_:
        main(["--merge", *map(str, shards), "--out", str(merged), "--compare", str(whole)])
    assert exit_.value.code == 0
    assert results_of(merged)["j_and_f"] == results_of(whole)["j_and_f"]
    assert len(read_results(merged)) == len(read_results(whole))


def test_a_crash_is_a_failed_episode_and_no_zero(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(worlds, broken)
    dataset = read_dataset(broken, "fevos", split="val")
    victim = dataset.episodes[0]
    frame = broken / "JPEGImages" / victim.video / f"{victim.frame_names[2]}.jpg"
    frame.write_bytes(b"no picture")
    out = tmp_path / "run"
    assert evaluate(broken, out, "--system", "flow-warp") == 0
    failed = [result for result in read_results(out) if not result.is_scored]
    assert {result.video for result in failed} == {victim.video}
    assert frame.name in failed[0].error
    assert results_of(out)["failed"] == len(failed)
    assert victim.id in capsys.readouterr().out
    assert evaluate(broken, tmp_path / "strict", "--system", "flow-warp", "--strict") == 2
    assert frame.name in capsys.readouterr().err


class Killer:
    """A reasoner whose process dies."""

    def __init__(self, options: object) -> None:
        del options

    window_policy = RecentWindow(num_frames=1)

    def ask(self, query: object, window: object) -> object:
        del query, window
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_the_death_of_a_process_is_a_failed_episode(worlds: Path, tmp_path: Path) -> None:
    system = SystemConfig(
        name="killer", reasoner="tests.integration.test_foreseg_eval:Killer", tracker="repeat"
    )
    spec = RunSpec(dataset=worlds, form="fevos", split="val", system=system, max_episodes=2)
    run(spec, tmp_path / "run", executor=ProcessExecutor(2))
    results = read_results(tmp_path / "run")
    assert [result.status for result in results] == ["failed", "failed"]
    assert "process died" in results[0].error


def test_an_old_failure_does_not_pass_for_done_where_a_process_dies(
    worlds: Path, tmp_path: Path
) -> None:
    system = SystemConfig(
        name="killer", reasoner="tests.integration.test_foreseg_eval:Killer", tracker="repeat"
    )
    spec = RunSpec(dataset=worlds, form="fevos", split="val", system=system, max_episodes=2)
    for episode in running.chosen(spec, read_dataset(worlds, "fevos", split="val")):
        running.write_result(tmp_path / "run", running.failed_result(episode, "long ago"))
    run(spec, tmp_path / "run", executor=ProcessExecutor(2))
    errors = {result.error for result in read_results(tmp_path / "run")}
    assert len(errors) == 1
    assert "process died" in errors.pop()


def test_several_processes_give_what_one_gives(worlds: Path, tmp_path: Path) -> None:
    for name, workers in (("one", "1"), ("two", "2")):
        words = ["--system", "repeat-first-mask", "--workers", workers]
        assert evaluate(worlds, tmp_path / name, *words) == 0
    assert results_of(tmp_path / "one")["j_and_f"] == results_of(tmp_path / "two")["j_and_f"]


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("tree", [name for name in TREES if name != "ref_youtube_vos valid"])
def test_every_form_is_evaluated(tree: str, protocol: Protocol, tmp_path: Path) -> None:
    form, split, write = TREES[tree]
    write(tmp_path / "data")
    system = SystemConfig(name="truth", reasoner="oracle_first_mask", tracker="repeat")
    spec = RunSpec(
        dataset=tmp_path / "data", form=form, split=split, system=system, protocol=protocol
    )
    run(spec, tmp_path / "run")
    if tree == "sa_v train":  # its film is not there: frames are missing, and the run says so
        assert all("mp4" in result.error for result in read_results(tmp_path / "run"))
        return
    assert finish(tmp_path / "run") == 0
    assert results_of(tmp_path / "run")["failed"] == 0


@pytest.mark.parametrize("tree", ["davis2016", "davis2017", "sa_v"])
def test_objects_that_were_followed_elsewhere_are_scored(tree: str, tmp_path: Path) -> None:
    form, split, write = TREES[tree]
    write(tmp_path / "data")
    for episode in read_dataset(tmp_path / "data", form, split=split).episodes:
        for position in episode.annotated:
            name = f"{episode.frame_names[position]}.png"
            labels = np.zeros(episode.size_wh[::-1], dtype=np.uint8)
            for object_id in episode.object_ids:
                mask = episode.media.mask(object_id, position)
                assert mask is not None
                labels[mask] = int(object_id)
                one = tmp_path / "answers" / episode.video / object_id / name
                if tree == "sa_v":
                    one.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask.astype(np.uint8) * 255).save(one)
            if tree != "sa_v":
                (tmp_path / "answers" / episode.video).mkdir(parents=True, exist_ok=True)
                Image.fromarray(labels).save(tmp_path / "answers" / episode.video / name)
    spec = RunSpec(
        dataset=tmp_path / "data", form=form, split=split, predictions=tmp_path / "answers"
    )
    run(spec, tmp_path / "run")
    assert finish(tmp_path / "run") == 0
    assert results_of(tmp_path / "run")["j_and_f"] == 100.0


@pytest.mark.parametrize("tree", ["davis2016", "davis2017", "sa_v"])
@pytest.mark.parametrize("name", ["kinematic", "nano", "oracle-prompt", "majority-answer"])
def test_a_system_that_only_answers_is_refused_where_nothing_is_asked(
    tree: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, split, write = TREES[tree]
    write(tmp_path / "data")
    words = ["--dataset", str(tmp_path / "data"), "--form", form, "--split", split]
    for protocol in ("offline", "streaming"):
        with pytest.raises(SystemExit) as exit_:
            main(
                [*words, "--system", name, "--protocol", protocol, "--out", str(tmp_path / "run")]
            )
        assert exit_.value.code == 2
        assert "first-frame-mask" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_split_without_truth_is_refused(tmp_path: Path) -> None:
    form, split, write = TREES["ref_youtube_vos valid"]
    write(tmp_path / "data")
    system = SystemConfig(name="truth", reasoner="random_box", tracker="repeat")
    spec = RunSpec(dataset=tmp_path / "data", form=form, split=split, system=system)
    with pytest.raises(ConfigError, match="'valid' comes without truth"):
        run(spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def truth_files(worlds: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The truth itself as predictions, in both official forms."""
    pngs, path = tmp_path / "pngs", tmp_path / "results.json"
    videos: dict[str, dict[str, object]] = {}
    for episode in read_dataset(worlds, "fevos", split="val").episodes:
        folder = pngs / episode.video / episode.expression_id
        folder.mkdir(parents=True)
        rows = []
        for position in range(episode.num_frames):
            mask = episode.truth(position)
            picture = Image.fromarray(mask.astype(np.uint8) * 255)
            picture.save(folder / f"{episode.frame_names[position]}.png")
            rle = rle_from_mask(mask)
            size = [rle.height, rle.width]
            rows.append({"size": size, "counts": rle.counts} if rle.counts else None)
        entry = {"prediction_masks": rows}
        videos.setdefault(episode.video, {})[episode.expression_id] = entry
    path.write_text(json.dumps(videos))
    return pngs, path


def test_predictions_made_elsewhere_are_scored_in_both_forms(
    worlds: Path, tmp_path: Path, truth_files: tuple[Path, Path]
) -> None:
    for number, path in enumerate(truth_files):
        out = tmp_path / f"run_{number}"
        assert evaluate(worlds, out, "--predictions", str(path)) == 0
        assert results_of(out)["j_and_f"] == 100.0


def write_official(tree: str, episode: Episode, answers: Path) -> None:
    """The truth as predictions where the benchmark's own evaluator looks for them."""
    for position in episode.scored:
        name = f"{episode.frame_names[position]}.png"
        video, mask = episode.video, episode.truth(position).astype(np.uint8)
        if tree == "reason_vos":
            object_id, expression_id = episode.expression_id.split("/")
            path = answers / f"BURST_{video}_{object_id}" / expression_id / name
            labels = mask * 255
        else:  # one label map a frame for all objects of a set
            number, annotator = divmod(int(episode.expression_id), 4)
            path = answers / f"anno_{annotator}" / video / name
            before = np.array(Image.open(path)) if path.is_file() else np.zeros_like(mask)
            labels = np.where(mask, np.uint8(number + 1), before)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(path)


@pytest.mark.parametrize("tree", ["reason_vos", "ref_davis_classic", "ref_davis_classic texts"])
def test_official_folders_are_scored_without_any_frame(
    tree: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, split, write = TREES[tree]
    write(tmp_path / "data")
    for episode in read_dataset(tmp_path / "data", form, split=split).episodes:
        write_official(tree, episode, tmp_path / "answers")
    for folder in (tmp_path / "data").rglob("JPEGImages"):
        shutil.rmtree(folder)
    words = ["--dataset", str(tmp_path / "data"), "--form", form, "--split", split]
    words += ["--predictions", str(tmp_path / "answers"), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 0
    record = results_of(tmp_path / "run")
    assert (record["j_and_f"], record["failed"]) == (100.0, 0)
    page = (tmp_path / "run" / "report.html").read_text()
    if form == "ref_davis_classic":
        assert "annotator set 3" in page
        assert "annotator set 3: J&F 100.0" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "answers")
    (tmp_path / "answers").mkdir()
    with pytest.raises(SystemExit):
        main([*words[:-1], str(tmp_path / "none")])
    errors = [result.error for result in read_results(tmp_path / "none")]
    assert all("expected masks in" in error for error in errors)


def test_missing_predictions_fail_their_episodes(
    worlds: Path, tmp_path: Path, truth_files: tuple[Path, Path]
) -> None:
    pngs, path = truth_files
    episodes = read_dataset(worlds, "fevos", split="val").episodes
    shutil.rmtree(pngs / episodes[0].video)
    videos = json.loads(path.read_text())
    del videos[episodes[0].video]
    path.write_text(json.dumps(videos))
    for number, source in enumerate(truth_files):
        out = tmp_path / f"run_{number}"
        assert evaluate(worlds, out, "--predictions", str(source)) == 0
        by_id = {result.id: result for result in read_results(out)}
        failed = by_id[episodes[0].id]
        assert not failed.is_scored
        assert episodes[0].video in failed.error
        assert failed.objects == ()


def test_traces_are_scored_in_both_protocols(worlds: Path, tmp_path: Path) -> None:
    from foreseg.config import Config
    from foreseg.driving.trace import TraceWriter
    from foreseg.frames import DEFAULT_CAMERA
    from foreseg_evaluation.system import System, read_system

    dataset = read_dataset(worlds, "fevos", split="val")
    traces = tmp_path / "traces"
    system = System(read_system("oracle-prompt"), dataset)
    for episode in dataset.episodes:
        path = result_path(traces, episode.id).with_suffix(".jsonl")
        writer = TraceWriter(traces / path.name, Config(), (DEFAULT_CAMERA,))
        running.play_episode(system, episode, trace=writer)
        writer.close()
    system.close()
    for protocol in ("offline", "streaming"):
        out = tmp_path / protocol
        words = ["--traces", str(traces), "--protocol", protocol]
        assert evaluate(worlds, out, *words) == 0
        results = read_results(out)
        assert all(result.is_scored for result in results)
        assert ("time_to_first_mask_s" in results[0].scores) == (protocol == "streaming")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--system", "nonsense"], "--system wants"),
        (["--system", "kinematic", "--device", "toaster"], "--device wants"),
        (["--system", "kinematic", "--device", "orin"], "--protocol streaming"),
        (["--system", "kinematic", "--shard", "3/3"], "--shard wants"),
        (["--system", "kinematic", "--workers", "0"], "--workers wants"),
        (["--system", "kinematic", "--max-episodes", "-1"], "--max-episodes wants"),
        ([], "one of --system, --predictions and --traces"),
        (["--predictions", "nowhere"], "nowhere"),
        (["--traces", "nowhere"], "nowhere has none of the 1 traces, such as "),
        (["--predictions", ".", "--protocol", "streaming"], "have no times"),
        (["--system", "kinematic", "--compare", "nowhere"], "nowhere"),
    ],
)
def test_wrong_words_are_one_clear_sentence(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert evaluate(worlds, tmp_path / "run", "--max-episodes", "1", *words) == 2
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--dataset {d} --form spaghetti --system kinematic", "--form wants"),
        ("--dataset {d}/nowhere --form fevos --system kinematic", "nowhere"),
        ("--system kinematic", "--dataset"),
        ("--merge {d} {d}", "holds no run"),
        ("", "holds no run"),
    ],
)
def test_wrong_places_are_one_clear_sentence(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*words.format(d=worlds).split(), "--out", str(tmp_path / "run")])
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_device_is_a_prediction_and_says_so(worlds: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--system", "oracle-prompt", "--protocol", "streaming", "--device", "thor"]
    assert evaluate(worlds, out, *words, "--max-episodes", "2") == 0
    about = json.loads((out / "run.json").read_text())
    assert "Isaac ROS" in about["note"]
    assert "predicted, never run on Jetson AGX Thor" in (out / "report.html").read_text()


def test_the_one_row_of_a_question_is_the_target(worlds: Path, tmp_path: Path) -> None:
    spec = RunSpec(
        dataset=worlds,
        form="fevos",
        split="val",
        protocol=Protocol.OFFLINE,
        system=SystemConfig(name="r", reasoner="random_box", tracker="repeat"),
        max_episodes=1,
    )
    run(spec, tmp_path)
    (result,) = read_results(tmp_path)
    assert [row.object_id for row in result.objects] == [TARGET]
