# SPDX-License-Identifier: Apache-2.0
"""Recipes: how published models are asked, from a model's name to prompts in source pixels."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from tests.support.language_models import ScriptedModel, in_turn
from tests.support.reasoners import query, window_of

from foreseg.dialogue import FramesWanted, NoTarget, Query, QueryId, TargetsFound
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow, U8Array
from foreseg.history.reduction import reduce_window, squeeze_image
from foreseg.methods.base import AnswerStep, Method, Plan
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import Shape, UnusableAnswer, View
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings
from foreseg.methods.wording import Wording
from foreseg.reasoner.options import MethodOptions, method_from_options
from foreseg.reasoner.recipe import (
    RECIPE,
    SHIPPED,
    chosen_recipe,
    options_with_recipe,
    read_recipe,
    shipped_recipes,
)
from foreseg.reasoner.vlm import VlmReasoner

SIZE_WH = (640, 360)
NAMES = ("method", "num_frames", "image_side_px", "coordinates", "frame_pixels", "query_pixels")
WHOLE = window_of(
    [np.full((*SIZE_WH[::-1], 3), 20 * i, np.uint8) for i in range(8)],
    first=0,
)  # labels 0, 4, 8 ...
RECIPES = {recipe.name: recipe for recipe in shipped_recipes()}


def method_of(name: str) -> Method:
    recipe = RECIPES[name]
    view = View(image_side_px=recipe.image_side_px, shape=Shape(recipe.shape))
    options = MethodOptions(method=recipe.method, num_frames=recipe.num_frames)
    return method_from_options(options, view, recipe.wording)


def asked(plan: Plan, window: FrameWindow) -> AnswerStep:
    """The last step, where frames that are wanted come from a window."""
    sent: FrameWindow | None = None
    while True:
        step = plan.send(sent)
        if isinstance(step, AnswerStep):
            return step
        assert isinstance(step, FramesWanted)
        frames = tuple(f for f in window.frames if f.index in step.indices)
        more = FrameWindow(frames=frames, origin_index=window.origin_index)
        sent = reduce_window(more, step.side_px)


def first(count: int, window: FrameWindow = WHOLE) -> FrameWindow:
    return FrameWindow(frames=window.frames[:count], origin_index=window.origin_index)


def answered(name: str, window: FrameWindow, text: str) -> TargetsFound | NoTarget:
    method = method_of(name)
    step = asked(method.plan(query("the ball"), reduce_window(window, 448)), window)
    part = step.read(text).part
    assert isinstance(part, (TargetsFound, NoTarget)), part
    return part


@pytest.mark.parametrize(
    ("model", "method", "name"),
    [
        ("SitongGong/Veason-R1", "veason", "veason-560"),
        ("./Veason-R1", "veason", "veason-560"),
        ("/cache/models--SitongGong--Veason-R1/snapshots/0f", "veason", "veason-560"),
        ("SitongGong/Veason-R1", "videoseg", None),
        ("Ricky06662/VisionReasoner-7B", "videoseg", "visionreasoner-840"),
        ("Ricky06662/VisionReasoner-7B", None, "visionreasoner-840"),
        ("Ricky06662/VisionReasoner-7B", "veason", None),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "veason", None),  # unknown: asked as ever
        ("", None, None),
    ],
)
def test_a_known_model_is_proposed_its_recipe(
    model: str, method: str | None, name: str | None
) -> None:
    values = {} if method is None else {"method": method}
    recipe = chosen_recipe(values, [model], default_method="veason")
    assert (recipe and recipe.name) == name
    assert chosen_recipe({**values, "recipe": "none"}, [model], default_method="veason") is None


def test_a_folder_carries_its_own_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    content = json.loads((SHIPPED / "veason-560.json").read_text("utf-8"))
    (folder / RECIPE).write_text(json.dumps({**content, "image_side_px": 280}), "utf-8")
    recipe = chosen_recipe({}, [str(folder)], default_method="veason")
    assert recipe is not None
    assert (recipe.name, recipe.image_side_px) == ("my-model", 280)


def test_a_recipe_can_be_named_and_its_method_is_then_taken() -> None:
    recipe = chosen_recipe({"recipe": "visionreasoner-840"}, ["any"], default_method="veason")
    assert recipe is not None
    options = options_with_recipe({"recipe": "visionreasoner-840"}, recipe, NAMES)
    assert options["method"] == "videoseg"
    with pytest.raises(ConfigError, match="of the method videoseg, got 'veason'"):
        chosen_recipe({"recipe": recipe.name, "method": "veason"}, ["any"], default_method="")
    with pytest.raises(ConfigError, match="recipe wants one of auto, none, qwen-grounding"):
        chosen_recipe({"recipe": "veason"}, ["any"], default_method="veason")


def test_budgets_of_pixels_are_raised_to_what_the_recipe_shows() -> None:
    options = options_with_recipe({}, RECIPES["veason-560"], NAMES)
    assert options["frame_pixels"] == 560 * 560
    assert options["query_pixels"] == 8 * 560 * 560
    more = options_with_recipe({"num_frames": 16}, RECIPES["veason-560"], NAMES)
    assert (more["num_frames"], more["query_pixels"]) == (16, 16 * 560 * 560)
    kept = options_with_recipe({"frame_pixels": 1000}, RECIPES["veason-560"], NAMES)
    assert kept["frame_pixels"] == 1000


def test_veason_is_shown_squares_after_their_timestamps_and_then_asked() -> None:
    window = first(8)
    method = method_of("veason-560")
    question = Query(id=QueryId("q"), text="The RED ball.")
    step = asked(method.plan(question, reduce_window(window, 448)), window)
    (message,) = step.request.messages
    shown = [part for part in message.content if not isinstance(part, str)]
    words = [part for part in message.content if isinstance(part, str)]
    assert [image.shape for image in shown] == [(560, 560, 3)] * 8
    assert [int(image[9, 9, 0]) for image in shown] == [20 * i for i in range(8)]
    assert words[:3] == ["(0s)", ", (4s)", ", (8s)"]
    assert words[-1].startswith("These are 8 frames")
    assert 'Find "the red ball"' in words[-1]
    assert "bbox" not in words[-1]  # the policy was given no example
    assert step.form is Form.THINK_FIRST
    assert step.request.max_tokens == 1024


def test_visionreasoner_is_shown_the_target_frame_alone() -> None:
    window = first(1)
    method = method_of("visionreasoner-840")
    question = Query(id=QueryId("q"), text="Which is the ball?")
    step = asked(method.plan(question, reduce_window(window, 448)), window)
    image, words = step.request.messages[0].content
    assert isinstance(image, np.ndarray)
    assert image.shape == (840, 840, 3)
    assert isinstance(words, str)
    assert 'Find "which is the ball" with' in words
    assert step.request.max_tokens == 2048


def test_a_sampler_still_sees_frames_in_their_aspect_and_the_target_comes_alone() -> None:
    view = View(image_side_px=840, shape=Shape.SQUARE)
    settings = VideosegSettings(
        num_rounds=1, view=view, wording=RECIPES["visionreasoner-840"].wording
    )
    said = ["[4, 12]"] * 4 + ["100"] * 4
    model = ScriptedModel(in_turn([*said, '<answer>[{"bbox_2d": [84, 84, 168, 168]}]</answer>']))
    parts = list(VlmReasoner(VideosegMethod(settings), model).ask(query("the ball"), first(6)))
    (found,) = [part for part in parts if isinstance(part, TargetsFound)]
    assert int(found.keyframe_index) == 12
    assert found.prompts[0].box == pytest.approx((64, 36, 128, 72))
    sampler = [p for p in model.requests[0].messages[0].content if not isinstance(p, str)]
    last = [p for p in model.requests[-1].messages[0].content if not isinstance(p, str)]
    assert [image.shape for image in sampler] == [(252, 448, 3)] * 6
    assert [image.shape for image in last] == [(840, 840, 3)]


@pytest.mark.parametrize(
    ("name", "count", "text"),
    [
        ("veason-560", 8, "{'keyframe_timestamp': 8, 'bbox_2d_list': [[280, 140, 350, 210]]}"),
        ("veason-560", 8, '{"keyframe_timestamp": "8", "bbox_2d": [280, 140, 350, 210]}'),
        (
            "visionreasoner-840",
            1,
            '[{"bbox_2d": [420, 210, 525, 315], "point_2d": [470, 260]}]',
        ),
        (
            "qwen-grounding",
            1,
            '```json\n[{"bbox_2d": [322, 91, 402, 136], "label": "ball"}]\n```',
        ),
    ],
)
def test_answers_in_the_published_forms_come_back_to_source_pixels(
    name: str, count: int, text: str
) -> None:
    part = answered(name, first(count), text)
    assert isinstance(part, TargetsFound)
    assert int(part.keyframe_index) == (8 if count > 1 else 0)
    box = part.prompts[0].box
    assert box is not None
    assert box == pytest.approx((320, 90, 400, 135), abs=1.0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("veason-560", '{"keyframe_timestamp": 0, "bbox_2d_list": []}'),
        ("veason-560", '{"keyframe_timestamp": 0, "bbox_2d_list": [[0, 0, 0, 0]]}'),
        ("visionreasoner-840", "[]"),
        ("qwen-grounding", "[]"),
    ],
)
def test_published_ways_to_find_nothing_are_no_target(name: str, text: str) -> None:
    assert isinstance(answered(name, first(1), text), NoTarget)


def test_several_boxes_without_tags_around_thoughts_are_all_read() -> None:
    model = ScriptedModel(
        in_turn(
            ["{'keyframe_timestamp': 4, 'bbox_2d_list': [[0, 0, 56, 56], [56, 56, 112, 112]]}"]
        )
    )
    settings = VeasonSettings(
        num_frames=8,
        view=View(image_side_px=560, shape=Shape.SQUARE),
        wording=RECIPES["veason-560"].wording,
    )
    parts = list(VlmReasoner(VeasonMethod(settings), model).ask(query("balls"), first(8)))
    (found,) = [part for part in parts if isinstance(part, TargetsFound)]
    boxes = [prompt.box for prompt in found.prompts]
    assert boxes == [pytest.approx((0, 0, 64, 36)), pytest.approx((64, 36, 128, 72))]


def test_a_query_cannot_speak_as_the_recipe() -> None:
    wording = Wording(content=("$frames", 'Find "$query".'))
    message = wording.message(query("$num_frames $frames $$"), first(1))
    assert message.content[-1] == 'Find "$num_frames $frames $$".'


def test_a_query_that_wants_its_answer_first_is_refused() -> None:
    question = Query(id=QueryId("q"), text="the ball", answer_first=True)
    with pytest.raises(UnusableAnswer, match="trained think-first"):
        asked(method_of("veason-560").plan(question, first(8)), WHOLE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": "round"}, "shape wants one of aspect, square, got 'round'"),
        ({"method": "visa"}, "method wants one of veason, videoseg, got 'visa'"),
        ({"precision": "fp8"}, "precision wants one of nf4, int8, bf16, fp32, got 'fp8'"),
        ({"coordinates": "inches"}, "coordinates wants one of"),
        ({"form": "verse"}, "form wants one of"),
        ({"num_frames": "8"}, "wants int as num_frames, got '8'"),
        ({"lowers_query": 1}, "wants bool as lowers_query, got 1"),
        ({"content": ["$frames", 3]}, "wants a list of texts as content"),
        ({"content": ["$query"]}, "as one of their parts once"),
        ({"content": ["$frames", "Find it."]}, "want .query in one of their parts"),
        ({"content": ["$frames", "$query in $place"]}, "got another: 'place'"),
        ({"label": "$n"}, "got another: 'n'"),
        ({"answer_tokens": 0}, "answer_tokens wants 1 to"),
        ({"words": "more"}, "wants a JSON object of source, models"),
    ],
)
def test_a_damaged_recipe_is_refused_by_name(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    content = json.loads((SHIPPED / "veason-560.json").read_text("utf-8"))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**content, **change}), "utf-8")
    with pytest.raises(ConfigError, match=said) as error:
        read_recipe(path)
    assert "mine.json" in str(error.value)


def test_every_shipped_recipe_is_one_and_says_where_it_is_from() -> None:
    assert set(RECIPES) == {"veason-560", "visionreasoner-840", "qwen-grounding"}
    assert all(len(recipe.source) > 20 for recipe in RECIPES.values())


def test_a_square_is_squeezed_as_pillow_does_it() -> None:
    image_of = pytest.importorskip("PIL.Image", reason="the other squeeze is Pillow's")
    seed = random.Random(3)
    noise = np.random.default_rng(3)
    for _ in range(4):
        size = (seed.randint(20, 300), seed.randint(20, 300), 3)
        image: U8Array = noise.integers(0, 256, size, np.uint8)
        side = seed.choice((28, 112, 280))
        theirs = np.asarray(image_of.fromarray(image).resize((side, side), image_of.BILINEAR))
        ours = squeeze_image(image, side)
        assert ours.shape == (side, side, 3)
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
