# SPDX-License-Identifier: Apache-2.0
"""The script that tells where thoughts go wrong: what of a thought it gives, and what it counts."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

for name in ("torch", "transformers", "cv2"):
    pytest.importorskip(name, reason="of foreseg's extra train")

TRUE = (
    "<think>Here: [20, 11] the cup [20, 11], [81, 42] the ball [9, 40]. The ball: 6[75, 40], 8[81, 42]."
    " It moves right 6 down 2. Before: [9, 40] the can. Ahead, the ball: [87, 44]. Near it: [20, 11] the cup."
    " The ball is rolling to the right. So the ball will hit the cup next. At [20, 11].</think>\n"
    '<answer>{"keyframe_timestamp": 3, "bbox_2d_list": [[10, 1, 30, 21]]}</answer>'
)
NONE = '<think>Here: [5, 5] the mug [5, 5]. Nothing fits.</think>\n<answer>{"no_target": "nothing in the frames fits"}</answer>'


@pytest.fixture(scope="module")
def thoughts() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "nano_thoughts.py"
    spec = importlib.util.spec_from_file_location("benchmark_nano_thoughts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_thought_is_given_part_by_part(thoughts: ModuleType) -> None:
    points = thoughts.points_of(TRUE)
    assert list(points) == list(thoughts.POINTS)
    parts = [TRUE[a:b] for a, b in zip(points.values(), [*points.values()][1:], strict=False)]
    begins = ("<think>Here:", "The ball: 6[", "Before:", "Ahead,", "The ball is rolling")
    assert [part.startswith(begin) for part, begin in zip(parts, begins, strict=True)] == [
        True
    ] * 5
    assert TRUE[points["the whole thought"] :].startswith("\n<answer>")
    short = thoughts.points_of(NONE)
    assert {short[point] for point in thoughts.POINTS[1:-1]} == {NONE.index("Nothing fits")}


def test_right_answers_names_and_things_are_counted_apart(thoughts: ModuleType) -> None:
    assert thoughts.shares([TRUE, NONE], [TRUE, NONE]) == (1.0, 1.0, 1.0, 1.0)
    other_frame = TRUE.replace('"keyframe_timestamp": 3', '"keyframe_timestamp": 4')
    assert thoughts.shares([other_frame], [TRUE])[:3] == (0.0, 1.0, 1.0)
    other_name = TRUE.replace("hit the cup", "hit the can")
    assert thoughts.shares([other_name], [TRUE])[:3] == (1.0, 1.0, 0.0)
    broken = TRUE.replace("[[10, 1, 30, 21]]", '["no box"]')
    assert thoughts.shares([broken, "no answer", TRUE], [TRUE, TRUE, NONE]) == (
        0.0, 0.0, 0.5, 0.0,
    )  # fmt: skip
    assert math.isnan(thoughts.shares([TRUE], [TRUE])[3])
    moved = TRUE.replace("[20, 11] the cup [", "[26, 11] the cup [").replace(
        "the ball [9", "the can [9"
    )
    assert thoughts.shares_of_things([moved], [TRUE]) == (0.5, 0.0)
    assert thoughts.shares_of_things([TRUE], [TRUE]) == (1.0, 1.0)
