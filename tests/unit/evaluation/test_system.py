# SPDX-License-Identifier: Apache-2.0
"""Systems are read from YAML with clear errors, and every shipped one can be built and asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="evaluation needs the extra [evaluation]")
pytest.importorskip("onnxruntime", reason="the nano tracker runs on ONNX Runtime")

from tests.support.episodes import make_dataset, make_episode, make_objects_episode

from foreseg.config import TrackerConfig
from foreseg.dialogue import AnswerDone, FramesWanted, ObservedMask, Query, TargetsFound
from foreseg.errors import ConfigError
from foreseg.frames import FrameIndex, FrameWindow
from foreseg.geometry import box_from_mask
from foreseg.masks import MaskRle, mask_from_box, mask_from_rle, mask_iou, rle_from_mask
from foreseg.reasoner.base import AnswerStream
from foreseg_evaluation import system as system_module
from foreseg_evaluation.episode import Episode
from foreseg_evaluation.offline import predict_offline
from foreseg_evaluation.reasoners import OracleReasoner, majority_answer
from foreseg_evaluation.results import TARGET
from foreseg_evaluation.streaming import play_episode
from foreseg_evaluation.system import System, SystemConfig, read_system, shipped_systems


@pytest.mark.parametrize("name", shipped_systems())
def test_every_shipped_system_answers_every_position(name: str) -> None:
    episode = make_episode(num_frames=8)
    system = System(read_system(name), make_dataset(episode))
    prediction = predict_offline(system, episode)
    system.close()
    is_ignorant = prediction.spoken.status == "abstained"
    assert sorted(prediction.masks[TARGET]) == ([] if is_ignorant else list(range(8)))
    is_classical = system.config.reasoner in {
        "kinematic",
        "nano",
    }  # nano hands on what it does not know
    assert is_ignorant == is_classical  # not its kind of question
    assert read_system(name).about


def test_masks_that_a_model_drew_itself_are_what_counts_on_their_frames() -> None:
    episode = make_episode(num_frames=8)
    drawn = {i: episode.media.mask("blue", i) for i in (2, 5)}
    masks = tuple(
        ObservedMask(frame_index=FrameIndex(i), mask=rle_from_mask(mask))
        for i, mask in drawn.items()
    )
    system = System(read_system("repeat-first-mask"), make_dataset(episode))

    class Drawing(OracleReasoner):
        def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
            yield FramesWanted(indices=tuple(map(FrameIndex, drawn)))
            stream = super().ask(query, window)
            part = next(stream)
            while not isinstance(part, AnswerDone):
                if isinstance(part, TargetsFound):
                    part = replace(part, masks_by_frame=masks)
                part = stream.send((yield part))
            yield part

    tracked = predict_offline(system, episode).masks[TARGET]
    oracle = system.reasoner(episode, is_live=False)
    assert isinstance(oracle, OracleReasoner)
    system.reasoner = lambda *_, **__: Drawing(  # type: ignore[method-assign]
        episode=episode, keyframe=oracle.keyframe, form=oracle.form, is_live=False
    )
    found = predict_offline(system, episode).masks[TARGET]
    system.close()
    for i in range(8):
        truth = drawn.get(i, mask_from_rle(tracked[i]))
        assert np.array_equal(mask_from_rle(found[i]), truth), i


def j_at(name: str, position: int) -> float:
    episode = make_episode(num_frames=12)
    system = System(read_system(name), make_dataset(episode))
    prediction = predict_offline(system, episode)
    system.close()
    mask = mask_from_rle(prediction.masks[TARGET][position])
    return mask_iou(mask, episode.truth(position))


def test_repeating_is_right_at_first_and_flow_longer() -> None:
    assert j_at("repeat-first-mask", 0) == 1.0
    assert j_at("repeat-first-mask", 11) < 0.4  # eleven pixels of twenty-four further
    assert j_at("flow-warp", 4) > j_at("repeat-first-mask", 4)


def test_the_majority_answer_counts_answers() -> None:
    first, second = make_episode(name="a/0"), make_episode(name="a/1")
    assert majority_answer(make_dataset(first, second)) == "The red one."
    with pytest.raises(ValueError, match="answers in words"):
        majority_answer(make_dataset(make_objects_episode()))


def followed(name: str, episode: Episode, **settings: str) -> Mapping[str, Mapping[int, MaskRle]]:
    config = read_system(name)
    config = replace(config, settings={**config.settings, **settings})
    system = System(config, make_dataset(episode))
    masks = predict_offline(system, episode).masks
    system.close()
    return masks


@pytest.mark.parametrize("name", ["repeat-first-mask", "flow-warp", "first-frame-mask"])
def test_first_masks_are_followed_forward_from_where_an_object_appears(name: str) -> None:
    episode = make_objects_episode()
    masks = followed(name, episode)
    assert min(masks["blue"]) == 0
    assert min(masks["red"]) == 2
    assert mask_iou(mask_from_rle(masks["red"][2]), episode.media.mask("red", 2)) == 1.0  # type: ignore[arg-type]


def test_objects_that_are_given_are_given_as_the_system_says() -> None:
    episode = make_objects_episode()
    size_wh = episode.size_wh
    blue = episode.media.mask("blue", 0)
    assert blue is not None
    box = box_from_mask(blue)
    given = {
        name: dict(System(read_system(name), make_dataset(episode)).first_prompts(episode)[0])
        for name in ("first-frame-mask", "first-frame-box", "random-box")
    }
    assert given["first-frame-mask"]["blue"].mask == rle_from_mask(blue)
    assert given["first-frame-box"]["blue"].box == box
    anywhere = given["random-box"]["blue"].box
    assert anywhere is not None
    assert anywhere != box
    assert followed("random-box", episode)["blue"][4] == rle_from_mask(
        mask_from_box(anywhere, size_wh)
    )
    repeated, random, boxed, masked = (
        followed(name, episode, **{"tracker.view": "whole"})  # zoomed, its box gives its very mask
        for name in ("repeat-first-mask", "random-box", "first-frame-box", "first-frame-mask")
    )
    assert random["blue"] != repeated["blue"]
    assert random["red"][5] != random["blue"][5]  # a box for each object
    assert boxed["blue"] != masked["blue"]


@pytest.mark.parametrize("reasoner", ["kinematic", "oracle_mask", "majority"])
def test_a_reasoner_that_only_answers_questions_cannot_be_given_objects(reasoner: str) -> None:
    config = replace(read_system("first-frame-mask"), reasoner=reasoner, tracker="repeat")
    episode = make_objects_episode()
    system = System(config, make_dataset(make_episode(), episode))
    with pytest.raises(
        ConfigError, match=f"{reasoner}.*oracle_first_mask, oracle_box, random_box"
    ):
        predict_offline(system, episode)
    with pytest.raises(ConfigError, match="asks nothing"):
        play_episode(system, episode)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reasoner: random_box\nreasoner_options: {seed: 3}", "takes no options, got .'seed'"),
        ("reasoner: oracle_box\nsettings: {reasoner.calibration: f.json}", "calibration"),
        ("settings: {tracker.bundle: mine}", "tracker.bundle is the key tracker here"),
        ("settings: {reasoner.kind: mine}", "reasoner.kind is the key reasoner here"),
        ("trackr: nano", "unknown key 'trackr'"),
        ("period_s: soon", "period_s wants float"),
        ("rationale: 1", "rationale wants bool, got 1"),
        ("period_s: true", "period_s wants float, got True"),
        ("period_s: -1", "period_s wants a finite number >= 0"),
        ("latencies: {tracker_ms: -3}", "tracker_ms and reasoner_ms >= 0"),
        ("latencies: {camera_ms: 3}", "camera_ms"),
        ("settings: {scheduler.warmup: 1}", "unknown parameter 'scheduler.warmup'"),
        ("- a list", "wants a mapping"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_wrong_system_file_is_refused_with_its_reason(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words.replace(">=", ".=")):
        read_system(str(path))


@pytest.mark.parametrize("is_wanted", [True, False])
def test_both_protocols_ask_the_same_query(
    *, is_wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Query] = []

    class Listening(OracleReasoner):
        def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
            asked.append(query)
            return super().ask(query, window)

    monkeypatch.setattr(system_module, "OracleReasoner", Listening)
    episode = make_episode(num_frames=8)
    given = read_system("repeat-first-mask")
    config = replace(given, rationale=is_wanted, settings={"scheduler.warm_up_s": 0.0})
    system = System(config, make_dataset(episode))
    spoken = predict_offline(system, episode).spoken
    play_episode(system, episode)
    assert len(asked) >= 2
    assert {(q.text, q.answer_first, q.want_rationale) for q in asked} == {
        ("What will move on?", False, is_wanted)
    }
    assert spoken.shown == (0, 7)  # the newest, and the first that it wanted then


def test_a_system_runs_on_the_back_end_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[TrackerConfig] = []
    monkeypatch.setattr(system_module, "load_configured", opened.append)
    settings = {"tracker.backend": "cuda", "tracker.threads": 2, "tracker.bundle": "unused"}
    config = SystemConfig(name="mine", tracker="my_bundle", settings=settings)
    System(config, make_dataset(make_episode()))
    assert opened == [TrackerConfig(bundle="my_bundle", backend="cuda", threads=2)]


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="kinematic"):
        read_system("nonsense")
