# SPDX-License-Identifier: Apache-2.0
"""The self-check of a reasoner: drawn scenes, what counts, and what is left beside the weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.support.language_models import ScriptedModel, words_of
from tests.support.reasoners import Scripted

from foreseg.dialogue import (
    AnswerDone,
    FramesWanted,
    Query,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import InputError
from foreseg.frames import FrameWindow
from foreseg.language.base import LanguageRequest
from foreseg.masks import rle_from_mask
from foreseg.methods.grounding import Shape, View
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import AnswerStream, ReasonerSpec, caution_in
from foreseg.reasoner.load import build_reasoner
from foreseg.reasoner.recipe import SHIPPED, read_recipe
from foreseg.reasoner.scene_check import (
    CHECK,
    SIZE_WH,
    caution_of,
    check_reasoner,
    scenes,
    write_check,
)
from foreseg.reasoner.vlm import VlmReasoner

TRUE_BOXES = {"the red ball": (100, 190, 241, 331), "the box": (390, 300, 540, 420)}


def boxes(request: LanguageRequest, size_wh: tuple[int, int]) -> str:
    """The true boxes in units of frames of this size, in the published form."""
    words = words_of(request)
    name = next(name for name in TRUE_BOXES if name in words)
    box = np.multiply(TRUE_BOXES[name], [size_wh[0] / SIZE_WH[0], size_wh[1] / SIZE_WH[1]] * 2)
    labels = re.findall(r"\((\d+)s\)|<(\d+)>", words)
    label = next(int(a or b) for a, b in labels)
    return f"<think>There.</think><answer>{json.dumps(answer(label, box.tolist()))}</answer>"


def answer(label: int, box: list[float]) -> dict[str, object]:
    return {"keyframe_timestamp": label, "bbox_2d_list": [[round(n) for n in box]]}


def veason(size_wh: tuple[int, int], view: View, *, is_published: bool = False) -> VlmReasoner:
    wording = read_recipe(SHIPPED / "veason-560.json").wording if is_published else None
    method = VeasonMethod(VeasonSettings(view=view, wording=wording))
    return VlmReasoner(method, ScriptedModel(lambda request: boxes(request, size_wh)))


def test_a_model_that_sees_is_checked_in_its_own_units() -> None:
    square = View(image_side_px=560, shape=Shape.SQUARE)
    told: list[str] = []
    found = check_reasoner(veason((560, 560), square, is_published=True), report=told.append)
    assert found.is_checked
    assert found.worst_iou > 0.95
    assert found.caution == ""
    assert [answer.kind for answer in found.answers] == ["box", "box"]
    assert all("There." in answer.text and answer.tokens > 0 for answer in found.answers)
    assert told[0].startswith("the red ball: box, IoU ")


def test_a_model_that_is_asked_in_other_units_is_found_out() -> None:
    found = check_reasoner(veason((560, 560), View()))  # it counts in squares, we in 448 x 336
    assert not found.is_checked
    assert "UNCHECKED" in found.caution
    assert "at least 0.5 is wanted" in found.caution


def test_masks_are_compared_as_masks_with_frames_that_were_wanted_larger() -> None:
    sizes = []

    def segment(query: Query, window: FrameWindow) -> AnswerStream:
        more = yield FramesWanted(indices=window.indices, side_px=1024)
        assert more is not None
        sizes.extend(frame.image.shape for frame in more.frames)
        yield RationalePart(text="It is [SEG].")
        scene = next(scene for scene in scenes() if scene.query == query.text)
        prompt = SpatialPrompt(mask=rle_from_mask(scene.truth))
        yield TargetsFound(keyframe_index=window.newest.index, prompts=(prompt,))
        yield AnswerDone(tokens=3)

    found = check_reasoner(Scripted(segment))
    assert [answer.kind for answer in found.answers] == ["mask", "mask"]
    assert found.worst_iou == 1.0
    assert set(sizes) == {(480, 640, 3)}


def test_the_worse_of_two_answers_counts() -> None:
    def one_eyed(_query: Query, window: FrameWindow) -> AnswerStream:
        prompt = SpatialPrompt(mask=rle_from_mask(scenes()[0].truth))
        yield TargetsFound(keyframe_index=window.newest.index, prompts=(prompt,))
        yield AnswerDone()

    found = check_reasoner(Scripted(one_eyed))
    assert [round(answer.iou) for answer in found.answers] == [1, 0]
    assert not found.is_checked


def test_no_answer_is_told_with_its_reason() -> None:
    model = ScriptedModel(lambda _request: "I would rather talk about the weather.")
    found = check_reasoner(VlmReasoner(VeasonMethod(), model))
    assert not found.is_checked
    assert found.answers[0].kind == ""
    assert "no list or object" in found.answers[0].text


def test_a_reasoner_without_weights_sees_the_scenes_too() -> None:
    pytest.importorskip("cv2", reason="the kinematic reasoner finds regions with it")
    assert check_reasoner(build_reasoner(ReasonerSpec(kind="kinematic"))).is_checked


def test_what_was_found_stays_beside_the_weights(tmp_path: Path) -> None:
    assert caution_of(tmp_path) == ""  # never checked: nothing is known
    write_check(tmp_path, check_reasoner(veason((560, 560), View())))
    assert caution_of(tmp_path).startswith("UNCHECKED: on drawn scenes")
    good = veason((448, 336), View())
    write_check(tmp_path, check_reasoner(good))
    assert caution_of(tmp_path) == ""
    assert caution_in(good) == ""


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"answers": [{"iou": 1}]}', "\x00"])
def test_a_damaged_check_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / CHECK).write_text(content, "utf-8")
    with pytest.raises(InputError, match=r"check\.json cannot be read.*check the model again"):
        caution_of(tmp_path)
