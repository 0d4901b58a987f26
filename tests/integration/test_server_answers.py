# SPDX-License-Identifier: Apache-2.0
"""What real servers and models answer in their own ways, through a reasoner over a real server."""

from __future__ import annotations

import numpy as np
import pytest

from foreseg.dialogue import AnswerFailed, TargetsFound
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.load import build_reasoner
from foreseg.reasoner.openai_options import coordinates_of

pytest.importorskip("httpx", reason="needs httpx: pip install 'foreseg[server]'")
pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")

from tests.support import chat_server as chat
from tests.support.chat_server import ChatServer
from tests.support.reasoners import query, window_of


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        *(("Qwen/Qwen3-VL-8B-Instruct", "milli"), ("qwen3-vl:8b", "milli")),
        *(("Qwen/Qwen2-VL-7B-Instruct", "milli"), ("OpenGVLab/InternVL3-8B", "milli")),
        *(("zai-org/GLM-4.1V-9B-Thinking", "milli"), ("Qwen/Qwen2.5-VL-7B-Instruct", "pixels")),
        *(("qwen2.5vl:7b", "pixels"), ("qwen2_5-vl-3b-nf4", "pixels"), ("gpt-5-mini", "pixels")),
    ],
)
def test_a_model_counts_as_its_name_tells_unless_told_otherwise(model: str, expected: str) -> None:
    assert coordinates_of("auto", model).value == expected
    assert coordinates_of("pixels", model).value == "pixels"
    assert coordinates_of("milli", model).value == "milli"


def says_box(box: list[float]) -> chat.Act:
    def text(call: chat.Call) -> str:
        label = chat.newest_label(call)
        return f'```json\n{{"keyframe_timestamp": {label}, "bbox_2d_list": [{box}]}}\n```'

    return chat.says(text)


def test_thousandths_behind_a_server_are_read_as_such_or_refused() -> None:
    box = [156, 172, 244, 328]  # of 640 x 360: 100, 62 to 156, 118
    window = window_of([np.zeros((360, 640, 3), np.uint8)] * 2)
    parts = []
    for model in ("Qwen/Qwen3-VL-8B-Instruct", "a-model"):
        with ChatServer([says_box(box)]) as server:
            options = {"url": server.url, "model": model}
            reasoner = build_reasoner(ReasonerSpec(kind="openai", options=options))
            parts += list(checked_ask(reasoner, query("which one is red?"), window))
    (found,) = [part for part in parts if isinstance(part, TargetsFound)]
    assert found.prompts[0].box is not None
    assert np.allclose(found.prompts[0].box, (99.84, 61.92, 156.16, 118.08))
    (failed,) = [part for part in parts if isinstance(part, AnswerFailed)]
    assert "448 x 252 in pixels" in failed.reason
    assert "milli" in failed.reason
