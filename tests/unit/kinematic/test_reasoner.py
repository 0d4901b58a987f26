# SPDX-License-Identifier: Apache-2.0
"""The kinematic reasoner on drawn scenes whose future is known, and its grammar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.reasoners import Disc, discs_window, query

from foreseg.dialogue import (
    VERDICTS,
    Abstained,
    AnswerFailed,
    NoTarget,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow
from foreseg.geometry import BoxXyxy, Side, box_iou
from foreseg.history.reduction import reduce_window
from foreseg.kinematic.appearance import colour_name
from foreseg.kinematic.phrases import Description, Extreme, Kind, Request, request_from_text
from foreseg.kinematic.reasoner import KinematicReasoner
from foreseg.kinematic.regions import regions_from_mask
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.load import build_reasoner, known_kinds
from foreseg_simulation.foresight import Topic
from foreseg_simulation.questions import NAMING, WORDINGS

RED, BLUE, GREEN, WHITE = (220, 40, 40), (40, 70, 220), (40, 180, 60), (240, 240, 240)
LAST_S = 8 / 7.5  # the newest frame's time
BALL = Disc(x=50, y=120, radius=14, colour=WHITE, vx=70)
AHEAD = Disc(x=250, y=128, radius=24, colour=RED)
ASIDE = Disc(x=200, y=40, radius=24, colour=BLUE)
BEHIND = Disc(x=24, y=190, radius=18, colour=GREEN)


def verdict(text: str, window: FrameWindow) -> TargetsFound | NoTarget | Abstained:
    for part in KinematicReasoner().ask(query(text), window):
        if isinstance(part, VERDICTS):
            return part
    pytest.fail("no verdict")


def is_about(found: TargetsFound | NoTarget | Abstained, disc: Disc) -> bool:
    if not isinstance(found, TargetsFound):
        return False
    x, y, r = disc.x + disc.vx * LAST_S, disc.y + disc.vy * LAST_S, disc.radius
    box = found.prompts[0].box
    return box is not None and box_iou(box, BoxXyxy(x - r, y - r, x + r, y + r)) > 0.5


SCENE = discs_window(BALL, AHEAD, ASIDE, BEHIND)


@pytest.mark.parametrize(
    "text",
    [
        "What will the ball hit next?",
        "which object will be touched by the ball next",
        "What does the white one collide with?",
        "Which shape is going to be hit first by the white ball?",
    ],
)
def test_the_first_thing_on_the_path_is_hit(text: str) -> None:
    found = verdict(text, SCENE)
    assert is_about(found, AHEAD)
    assert isinstance(found, TargetsFound)
    assert found.confidence > 0.5


def test_the_measured_velocity_is_in_source_pixels_per_second() -> None:
    parts = KinematicReasoner().ask(query("what will the ball hit"), SCENE)
    rationale = next(part.text for part in parts if isinstance(part, RationalePart))
    assert "(+70, +0) px/s" in rationale or "(+70, -0) px/s" in rationale
    # front at 14 + 50 + 75, the red disc's edge at 226: 87 px to go
    assert "in 1.2 s" in rationale or "in 1.3 s" in rationale


def test_a_query_for_a_method_that_it_has_not_fails() -> None:
    question = replace(query("what will the ball hit"), method="veason")
    (failed,) = KinematicReasoner().ask(question, SCENE)
    assert isinstance(failed, AnswerFailed)
    assert "'veason'" in failed.reason


def test_a_reduced_window_gives_boxes_in_source_pixels() -> None:
    assert is_about(verdict("what will the ball hit", reduce_window(SCENE, 120)), AHEAD)


def test_what_has_been_passed_or_lies_aside_is_not_hit() -> None:
    found = verdict("what will the ball hit next", discs_window(BALL, ASIDE, BEHIND))
    assert isinstance(found, NoTarget)
    assert "nothing stands out on its path" in found.reason


def test_two_movers_that_meet() -> None:
    other = Disc(x=300, y=122, radius=16, colour=BLUE, vx=-60)
    found = verdict("what will the white ball collide with", discs_window(BALL, other))
    assert is_about(found, other)


def test_a_colour_chooses_among_movers() -> None:
    blue = Disc(x=40, y=200, radius=14, colour=BLUE, vx=80)
    target = Disc(x=250, y=200, radius=20, colour=GREEN)
    window = discs_window(BALL, AHEAD, blue, target)
    assert is_about(verdict("what will the blue ball hit", window), target)
    assert is_about(verdict("what will the white ball hit", window), AHEAD)
    assert isinstance(verdict("what will the red ball hit", window), NoTarget)


def test_an_unknown_noun_means_the_only_mover_but_with_doubt() -> None:
    found = verdict("what will the car hit next", SCENE)
    assert is_about(found, AHEAD)
    assert isinstance(found, TargetsFound)
    assert found.confidence <= 0.5
    two = discs_window(BALL, AHEAD, Disc(x=40, y=200, radius=14, colour=BLUE, vx=80))
    assert isinstance(verdict("what will the car hit next", two), Abstained)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("which tool will be used next?", SCENE),
        ("why does the ball move?", SCENE),
        ("what will the ball hit", replace(SCENE, frames=SCENE.frames[:2])),
        ("what will the ball hit", replace(SCENE, frames=())),
    ],
)
def test_what_it_cannot_answer_is_no_claim_that_nothing_fits(
    text: str, window: FrameWindow
) -> None:
    found = verdict(text, window)
    assert isinstance(found, Abstained)
    assert found.reason


def test_leaving_reaching_and_speed() -> None:
    slow = Disc(x=230, y=50, radius=14, colour=BLUE, vx=40)
    fast = Disc(x=40, y=190, radius=14, colour=RED, vx=90)
    window = discs_window(slow, fast)
    assert is_about(verdict("what will leave the view first?", window), slow)
    assert is_about(verdict("which object will reach the right side first", window), slow)
    assert is_about(verdict("which object moves fastest?", window), fast)
    assert is_about(verdict("what is moving the slowest", window), slow)
    assert isinstance(verdict("what will reach the top first", window), NoTarget)


def test_what_moves_towards_something() -> None:
    other = Disc(x=250, y=220, radius=14, colour=GREEN, vx=-60)
    found = verdict("what is moving towards the red one", discs_window(BALL, AHEAD, other))
    assert is_about(found, BALL)


def test_everything_that_moves_is_named() -> None:
    other = Disc(x=250, y=60, radius=18, colour=BLUE, vx=-50)
    found = verdict("what is moving?", discs_window(BALL, other, AHEAD))
    assert isinstance(found, TargetsFound)
    assert len(found.prompts) == 2
    assert {"the white region", "the blue region"} == set(found.text.split(" and "))


def test_a_confidence_is_less_than_sure_of_a_short_way_and_a_far_future() -> None:
    slow = Disc(x=240, y=120, radius=14, colour=WHITE, vx=12)  # 13 px within the window
    near = replace(BALL, x=240)
    confidences = []
    for disc in (slow, BALL, near):
        found = verdict("what will leave the view next?", discs_window(disc))
        assert isinstance(found, TargetsFound)
        confidences.append(found.confidence)
    assert confidences == sorted(confidences)
    assert confidences[0] < 0.4
    assert max(confidences) < 0.95


def test_a_colour_is_what_sets_a_thing_off_from_its_surroundings() -> None:
    grey = np.full((60, 80, 3), 120, np.float32)
    car = np.zeros((60, 80), bool)
    car[20:40, 30:50] = True
    grey[20:40, 30:50] = 100  # its shadow and windows, as grey as the road
    grey[22:38, 33:43] = 230  # its roof
    (region,) = regions_from_mask(car, grey, min_area=1, max_area=10_000)
    assert colour_name(region, grey) == "white"


def test_a_still_region_by_its_colour() -> None:
    assert is_about(verdict("the blue one", SCENE), ASIDE)
    assert is_about(verdict("where is the green ball?", SCENE), BEHIND)
    assert isinstance(verdict("the orange one", SCENE), NoTarget)


def test_a_still_scene_has_no_future() -> None:
    found = verdict("what will the ball hit", discs_window(AHEAD, ASIDE))
    assert isinstance(found, NoTarget)
    assert found.reason == "nothing moves"


def turning_window(discs: tuple[Disc, ...], degrees: float) -> FrameWindow:
    """A camera that rolls: no shift explains it."""
    cv2 = pytest.importorskip("cv2", reason="turns the picture")
    window = discs_window(*discs)
    frames = []
    for number, frame in enumerate(window.frames):
        height, width = frame.image.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees * number, 1.2)
        image = cv2.warpAffine(frame.image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
        frames.append(replace(frame, image=image))
    return replace(window, frames=tuple(frames))


@pytest.mark.parametrize(
    "text", ["what will leave the view next?", "what is moving?", "what will the ball hit next?"]
)
def test_a_camera_that_moves_otherwise_is_abstained_from(text: str) -> None:
    window = turning_window((BALL, AHEAD, ASIDE), 1.5)
    found = verdict(text, window)
    assert isinstance(found, Abstained)
    assert found.reason.startswith("the camera moves")
    assert isinstance(verdict("where is the red one?", window), TargetsFound)  # no motion needed


def test_light_that_changes_as_a_whole_is_no_motion() -> None:
    window = discs_window(BALL, AHEAD, ASIDE)
    frames = []
    for number, frame in enumerate(window.frames):
        darker = np.clip(frame.image.astype(np.int16) - 6 * number, 0, 255).astype(np.uint8)
        frames.append(replace(frame, image=darker))
    found = verdict("what will the ball hit next?", replace(window, frames=tuple(frames)))
    assert is_about(found, AHEAD)


def test_a_sliding_camera_is_not_taken_for_motion_of_the_scene() -> None:
    ball = Disc(x=50, y=120, radius=14, colour=WHITE, vx=100)
    window = discs_window(ball, AHEAD, ASIDE, camera_vx=30)
    found = verdict("what will the ball hit next", window)
    assert isinstance(found, TargetsFound)
    box = found.prompts[0].box
    assert box is not None
    assert abs(box.centre_xy[0] - (250 - 32)) < 8  # where it is in the newest frame
    assert abs(box.centre_xy[1] - 128) < 8


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (
            "What will the ball hit next?",
            Request(kind=Kind.CONTACT, subject=Description(shape="ball")),
        ),
        ("Which object will the small red ball bump into?", None),
        ("which thing will leave first", Request(kind=Kind.EXIT)),
        ("What is about to go out of view?", Request(kind=Kind.EXIT)),
        ("what will reach the left edge first", Request(kind=Kind.ARRIVAL, side=Side.LEFT)),
        ("what leaves the view next?", Request(kind=Kind.EXIT)),
        ("which object disappears over the edge first", Request(kind=Kind.EXIT)),
        ("what reaches the left edge first?", Request(kind=Kind.ARRIVAL, side=Side.LEFT)),
        (
            "what does the ball hit next?",
            Request(kind=Kind.CONTACT, subject=Description(shape="ball")),
        ),
        ("what left the view?", None),
        ("what did the ball hit?", None),
        ("which red object leaves the view?", None),
        ("the fastest object", Request(kind=Kind.MOVING, extreme=Extreme.FASTEST)),
        (
            "find the purple star",
            Request(kind=Kind.NAMED, subject=Description(colour="purple", shape="star")),
        ),
        ("What will the ball not hit?", None),
        ("What will the ball hit after the red square?", None),
        ("Which tool will the robot use to hit the nail?", None),
        ("Which red object will the ball hit?", None),
        ("why does the ball move", None),
        ("What will the object that the ball pushes run into?", None),
        ("which is the red one?", Request(kind=Kind.NAMED, subject=Description(colour="red"))),
        ("Which region is black?", Request(kind=Kind.NAMED, subject=Description(colour="black"))),
        ("what is in the box?", None),
        ("which object is not red?", None),
        ("", None),
        ("what will " + "the " * 100 + "ball hit", None),
    ],
)
def test_the_grammar_reads_what_it_knows_and_guesses_nothing(
    text: str, request_: Request | None
) -> None:
    assert request_from_text(text) == request_


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((Kind.CONTACT, text) for text in WORDINGS[Topic.HIT].future),
        *((Kind.EXIT, text) for text in WORDINGS[Topic.LEAVE].future),
        *((Kind.NAMED, text.format(name="red ball")) for text in NAMING),
    ],
)
def test_the_simulators_own_wordings_of_what_it_can_answer_are_read(kind: Kind, text: str) -> None:
    request = request_from_text(text)
    assert request is not None
    assert request.kind is kind


def test_what_the_simulator_asks_of_the_past_or_of_purposes_is_not_read() -> None:
    for topic, wording in WORDINGS.items():
        of_others = () if topic in (Topic.HIT, Topic.LEAVE) else wording.future
        past = [
            text.format(when=when) for text in wording.past for when in ("", " first", " twice")
        ]
        for text in (*of_others, *past, wording.past_all):
            assert request_from_text(text) is None, text


def test_the_kind_is_known_and_takes_options() -> None:
    assert "kinematic" in known_kinds()
    spec = ReasonerSpec(kind="kinematic", options={"num_frames": 5, "stride_s": 0.2})
    policy = build_reasoner(spec).window_policy
    assert (policy.num_frames, policy.stride_s) == (5, 0.2)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"num_frames": 2},
        {"num_frames": "nine"},
        {"num_frames": True},
        {"stride_s": -1.0},
        {"stride_s": float("nan")},
        {"max_side_px": 100_000},
        {"horizon": 3},
    ],
)
def test_options_that_cannot_work_are_refused_with_the_value(
    options: dict[str, str | int | float | bool],
) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=name if name == "horizon" else str(value)):
        build_reasoner(ReasonerSpec(options=options))
