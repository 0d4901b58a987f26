# SPDX-License-Identifier: Apache-2.0
"""What a thought says first: places of what moved, came or went, and of nothing else."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch", reason="trains: pip install 'foreseg[train]'")

import numpy as np

from foreseg.masks import rle_from_mask
from foreseg_simulation.questions import PastEvent, Topic
from foreseg_simulation.recording import Seen, Shot
from foreseg_training.nano.tracks import (
    MAX_AHEAD,
    MAX_EVENTS,
    MAX_HERE,
    MAX_MOVERS,
    MAX_MOVERS_AHEAD,
    MAX_PLACES,
    NEAR_PX,
    ahead_of,
    at_words,
    events_of,
    given_of,
    here_of,
    near_words,
    told_shots,
    tracks_of,
    way_words,
)

_SIZE = (200, 100)
_MASK = rle_from_mask(np.ones((100, 200), np.bool_))


def shot(at: int = 0, **places: tuple[int, int]) -> Shot:
    """A frame on which things of ten by ten pixels have these centres, by `i1`, `i2`, ..., at second `at`."""
    seen = {
        int(name[1:]): Seen(mask=_MASK, box_xyxy=(x - 5, y - 5, x + 5, y + 5), area_px=100)
        for name, (x, y) in places.items()
    }
    return Shot(stamp_ns=at * 10**9, jpeg=b"", objects=seen, truths=())


def test_the_place_of_what_moves_is_said_frame_by_frame_and_its_last_step() -> None:
    shots = [shot(i1=(10 + 20 * n, 50 - n * n), i2=(150, 50)) for n in range(5)]
    said = tracks_of(shots, {1: "ball", 2: "red cube"}, _SIZE, (0.5, 1.0), [7, 9, 11, 13, 15])
    places = "7[5, 50], 9[15, 49], 11[25, 46], 13[35, 41], 15[45, 34]"
    assert said == f"The ball: {places}. It moves right 10 up 7. "


def test_what_came_or_went_is_said_with_empty_brackets() -> None:
    shots = [shot(i1=(20, 20), i2=(50, 50)), shot(i2=(50, 50)), shot(i2=(50, 50), i3=(90, 90))]
    said = tracks_of(shots, {1: "ball", 2: "cube", 3: "cup"}, _SIZE, (1.0, 1.0), range(3))
    assert (
        said == "The cup: 0[], 1[], 2[90, 90]. The ball: 0[20, 20], 1[], 2[]. "
    )  # what is there comes first


def test_what_was_hidden_for_a_while_did_not_move() -> None:
    shots = [shot(i1=(20, 20)), shot(), shot(i1=(20, 20))]
    assert tracks_of(shots, {1: "ball", 2: "unseen"}, _SIZE, (1.0, 1.0), range(3)) == ""


def test_what_came_to_rest_lies_still() -> None:
    shots = [shot(i1=(20, 20)), shot(i1=(60, 20)), shot(i1=(60, 20))]
    said = tracks_of(shots, {1: "ball"}, _SIZE, (1.0, 1.0), range(3))
    assert said == "The ball: 0[20, 20], 1[60, 20], 2[60, 20]. It lies still. "


@pytest.mark.parametrize("num_things", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("num_shots", [1, 2, 12, 24])
def test_it_stays_short_and_ends_with_the_last_frame(num_things: int, num_shots: int) -> None:
    names = {i: f"thing {i}" for i in range(1, num_things + 1)}
    shots = [shot(**{f"i{i}": (10 + 7 * n + i, 10 * i) for i in names}) for n in range(num_shots)]
    said = tracks_of(shots, names, _SIZE, (1.0, 1.0), range(100, 100 + num_shots))
    assert told_shots(shots, names, _SIZE)[-1] is shots[-1]
    if num_shots == 1:
        assert said == ""
        return
    assert len(re.findall("The ", said)) == min(num_things, MAX_MOVERS)
    assert len(re.findall(r"\[", said)) <= MAX_PLACES
    for sentence in re.findall(r"The [^.]*", said):
        number = int(re.findall("thing ([0-9]+)", sentence)[0])
        last = 10 + 7 * (num_shots - 1) + number
        assert sentence.endswith(f" {99 + num_shots}[{last}, {10 * number}]")
        for label, x in re.findall(r"(\d+)\[(\d+), ", sentence):
            assert int(x) == 10 + 7 * (int(label) - 100) + number


def test_what_moves_on_is_followed_to_the_event_in_steps_of_the_last_two_places() -> None:
    told = [shot(0, i1=(0, 50), i3=(60, 60)), shot(2, i1=(10, 50), i2=(150, 50), i3=(65, 60))]
    later = [shot(2 + n, i1=(10 + 5 * n, 50), i2=(150, 50)) for n in range(1, 8)]
    names = {1: "ball", 2: "red cube", 3: "cup"}
    said = ahead_of(told, later, names, _SIZE, (1.0, 1.0))
    near = "Near it: [65, 60] the cup. "
    assert (
        said
        == f"Ahead, the ball: [20, 50], [30, 50], [40, 50]. {near}Ahead, the cup: [], [], []. "
    )
    assert ahead_of(told, [], names, _SIZE, (1.0, 1.0)) == ""
    assert ahead_of(told[1:], later, names, _SIZE, (1.0, 1.0)) == "", "no step was seen"
    assert ahead_of(told, later[:1], names, _SIZE, (1.0, 1.0)) == "", "half a step off"


def test_nothing_is_said_of_the_way_ahead_of_what_lies_still() -> None:
    told = [shot(0, i1=(10, 50)), shot(1, i1=(10, 50))]
    later = [shot(1 + n, i1=(10 + 20 * n, 50)) for n in range(1, 4)]
    assert ahead_of(told, later, {1: "ball"}, _SIZE, (1.0, 1.0)) == ""


@pytest.mark.parametrize("num_things", [1, 2, 9])
@pytest.mark.parametrize("num_later", [1, 6, 7, 40])
def test_the_way_ahead_stays_short(num_things: int, num_later: int) -> None:
    names = {i: f"thing {i}" for i in range(1, num_things + 1)}
    shots = [
        shot(n, **{f"i{i}": (10 + 9 * n, 10 * i) for i in names}) for n in range(num_later + 2)
    ]
    said = ahead_of(shots[:2], shots[2:], names, _SIZE, (1.0, 1.0))
    assert len(re.findall("Ahead", said)) == min(num_things, MAX_MOVERS_AHEAD)
    assert len(re.findall("Near it", said)) <= len(re.findall("Ahead", said))
    for sentence in re.sub(r"Near it: [^.]*[.]", "", said).strip().split(". "):
        assert len(re.findall(r"\[", sentence)) == min(num_later, MAX_AHEAD)
        assert sentence.split(": ")[1].startswith("[28, ")


def test_what_is_nearest_to_the_way_s_end_is_told_with_its_place() -> None:
    things = [((10, 50), "cup"), ((50, 52), "red cube"), ((48, 90), "van")]
    assert near_words((40, 50), things) == "Near it: [50, 52] the red cube. "
    assert near_words((50, 50 + int(NEAR_PX) + 5), [((50, 52), "cup")]) == ""
    assert near_words(None, things) == near_words((1, 1), []) == ""


def test_a_thought_ends_with_the_places_of_what_was_found() -> None:
    assert at_words([(20, 68)]) == " At [20, 68]."
    assert at_words([(20, 68), (3, 4)]) == " At [20, 68], [3, 4]."
    assert at_words([]) == ""


def test_what_befell_what_is_said_in_order_where_it_was_seen() -> None:
    shots = [
        shot(0, i1=(20, 20), i2=(50, 50)), shot(1, i1=(25, 20), i2=(50, 50)), shot(2, i2=(55, 50)),
    ]  # fmt: skip
    names = {1: "cup", 2: "red cube"}

    def event(target_id: int, position: int) -> PastEvent:
        return PastEvent(topic=Topic.HIT, target_id=target_id, position=position)

    events = [event(1, 3), event(2, 4), event(1, 6), event(9, 4), event(2, 7)]
    said = events_of(shots, [0, 3, 6], events, names, (1.0, 0.5))
    assert said == "Before: [25, 10] the cup, [55, 25] the red cube, [25, 10] the cup. "
    assert events_of(shots, [0, 3, 6], [], names, (1.0, 1.0)) == ""
    events = [event(1, 2), event(1, 0), event(9, 0), event(2, 0)]
    assert events_of(shots, [0, 3, 6], events, names, (1.0, 1.0)) == (
        "At first: [20, 20] the cup, [50, 50] the red cube. Before: [25, 20] the cup. "
    )
    assert events_of(shots, [1, 3, 6], [event(2, 0)], names, (1.0, 1.0)) == "", "it was before"
    many = events_of(shots, [0, 3, 6], 20 * [event(2, 4)], names, (1.0, 1.0))
    assert many.count("red cube") == MAX_EVENTS


@pytest.mark.parametrize("topic", list(Topic))
def test_what_a_thing_touched_is_said_where_its_track_shows_it(topic: Topic) -> None:
    ways = [(20, 50), (50, 50), (90, 50), (60, 50), (30, 50), (10, 50)]
    shots = [shot(n, i1=way, i2=(110, 50), i3=(30, 90)) for n, way in enumerate(ways)]
    names = {1: "ball", 2: "cup", 3: "red cube"}

    def said(*positions: int) -> str:
        events = [PastEvent(topic=topic, target_id=2, position=p) for p in positions]
        tracks = tracks_of(shots, names, _SIZE, (1.0, 1.0), range(6), range(6), events)
        return tracks.removeprefix("The ball: ").partition(". ")[0]

    unsaid = "0[20, 50], 1[50, 50], 2[90, 50], 3[60, 50]; 4[30, 50], 5[10, 50]"
    assert said() == unsaid
    if topic not in (Topic.HIT, Topic.PUSH, Topic.KNOCK, Topic.REACH):
        assert said(3) == unsaid
        return
    cup = ": [110, 50] the cup"
    assert said(3) == f"0[20, 50], 1[50, 50], 2[90, 50], 3[60, 50]; 4[30, 50]{cup}; 5[10, 50]"
    assert (
        said(2, 3) == f"0[20, 50], 1[50, 50], 2[90, 50], 3[60, 50]{cup}; 4[30, 50]{cup}; 5[10, 50]"
    )
    assert (
        said(3, 3) == f"0[20, 50], 1[50, 50], 2[90, 50], 3[60, 50]; 4[30, 50]{cup}{cup}; 5[10, 50]"
    )
    assert said(5) == unsaid  # the ball was far away by then
    last = [shot(n, i1=(80 + 10 * n, 50), i2=(110, 50)) for n in range(3)]
    events = [PastEvent(topic=topic, target_id=2, position=2)]
    tracks = tracks_of(last, names, _SIZE, (1.0, 1.0), range(3), range(3), events)
    assert tracks == f"The ball: 0[80, 50], 1[90, 50], 2[100, 50]{cup}. It moves right 10. "


def test_of_tracks_only_places_and_whose_they_are_are_given() -> None:
    track = "The ball: 6[9, 4], 8[]; 10[9, 6]: [1, 2] the cup: [3, 4] the can; 12[0, 1]: [5, 6] the cup. "
    told = f"{track}It moves left 3. The can: 6[1, 1]. It lies still. "
    kept, end = "", 0
    for first, last in given_of(told):
        kept += told[end:first] + "_"
        end = last
    assert kept + told[end:] == (
        "_6_], 8_]; 10_]: [1, 2] the cup: [3, 4] the can; 12_]: [5, 6] the cup. It moves left 3."
        " _6_]. It lies still. "
    )
    assert given_of("") == []


def test_a_semicolon_follows_the_place_that_shows_a_turn() -> None:
    def said(*places: tuple[int, int] | None) -> str:
        return way_words(places, range(2, 2 + 2 * len(places), 2))

    assert said((0, 0), (9, 0), (18, 0), (18, 9), (18, 18)) == (
        "2[0, 0], 4[9, 0], 6[18, 0], 8[18, 9]; 10[18, 18]"
    )
    assert said((5, 5), (5, 5), (9, 9), (13, 13), (13, 13), (13, 13)) == (
        "2[5, 5], 4[5, 5], 6[9, 9]; 8[13, 13], 10[13, 13]; 12[13, 13]"
    )
    assert said((0, 0), None, (9, 0), (0, 0), (9, 0)) == (
        "2[0, 0], 4[], 6[9, 0], 8[0, 0], 10[9, 0]"
    )
    assert said((0, 0), (3, 0), (3, 3), (3, 3)) == "2[0, 0], 4[3, 0], 6[3, 3]; 8[3, 3]"
    assert said((7, 8)) == "2[7, 8]"
    assert said() == ""


def test_all_that_the_last_frame_shows_is_listed_from_left_to_right_and_where_it_was_first() -> (
    None
):
    shots = [
        shot(i1=(20, 20), i2=(150, 50), i3=(80, 40), i6=(60, 8), i7=(6, 8)),
        shot(i1=(100, 20), i2=(150, 50), i3=(80, 40), i4=(10, 90), i8=(160, 60)),
    ]
    names = {1: "ball", 2: "cup", 3: "red cube", 5: "unseen", 6: "mug", 7: "can", 8: "duck"}
    assert here_of(shots, names, (0.5, 1.0)) == (
        "Here: [40, 40] the red cube [40, 40], [50, 20] the ball [10, 20], [75, 50] the cup [75, 50],"
        " [80, 60] the duck []. Gone: [3, 8] the can, [30, 8] the mug. "
    )
    assert here_of(shots, {5: "unseen"}, (1.0, 1.0)) == ""
    many = [shot(**{f"i{n}": (10 * n, 20) for n in range(1, 12)})]
    listed = here_of(many, dict.fromkeys(range(1, 12), "cup"), (1.0, 1.0))
    assert listed.count("cup") == MAX_HERE
    left = here_of([*many, shot()], dict.fromkeys(range(1, 12), "cup"), (1.0, 1.0))
    assert left.startswith("Gone: ")
    assert left.count("cup") == MAX_HERE


def test_tracks_come_in_the_order_of_the_list() -> None:
    shots = [shot(i1=(90, 20), i2=(60, 50)), shot(i1=(100, 60), i2=(20, 50))]
    said = tracks_of(shots, {1: "ball", 2: "cup"}, _SIZE, (1.0, 1.0), range(2))
    assert said.index("The cup") < said.index("The ball")
    assert tracks_of(
        [*shots, shot(i1=(30, 60))], {1: "ball", 2: "cup"}, _SIZE, (1.0, 1.0), range(3)
    ).startswith("The ball")
