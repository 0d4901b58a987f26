# SPDX-License-Identifier: Apache-2.0
"""The wordings of questions and answers, by topic; and questions about what was seen already.

Does not know: scenes, pixels, or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .foresight import Skill, Topic
from .naming import COLOURS
from .telling import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How a topic is spoken of. In templates {x} is an object with its article.

    Attributes:
        future: questions about the next event.
        will: the answer to them.
        nothing: the answer where there is none.
        past: questions about earlier events; {when} is empty, " first", " last" or " twice".
        past_all: the question for all of them.
        did: what happened, a clause.
    """

    future: tuple[str, ...]
    will: str
    nothing: str
    past: tuple[str, ...]
    past_all: str
    did: str


WORDINGS: Mapping[Topic, Wording] = MappingProxyType(
    {
        Topic.HIT: Wording(
            future=(
                "Which object will the ball hit next?",
                "What will the ball hit next?",
                "What is the ball going to touch next?",
                "Which object is about to be struck by the ball?",
                "What will the ball run into next?",
                "Which thing will the ball collide with next?",
                "What comes to be hit by the ball after this?",
                "After what it has touched so far, which object will the ball reach next?",
                "Which object should be moved away, lest the ball hits it next?",
                "Who will the ball bump into next?",
            ),
            will="The ball will hit {x} next.",
            nothing="The ball will hit nothing.",
            past=(
                "Which object did the ball hit{when}?",
                "What did the ball touch{when}?",
                "What was hit by the ball{when}?",
            ),
            past_all="Which objects has the ball hit so far?",
            did="the ball hit {x}",
        ),
        Topic.LEAVE: Wording(
            future=(
                "What will leave the view next?",
                "Which object will leave the view next?",
                "Which object is about to go out of sight over an edge?",
                "What will move out of the frame next?",
                "Which thing will the camera lose next, because it crosses the edge?",
                "What is going to disappear over the edge of the view?",
                "Which of the objects will soon no longer be in the view?",
                "Who will leave the scene next?",
                "Which object drifts out of the view before any other does?",
            ),
            will="{x} will leave the view next.",
            nothing="Nothing will leave the view.",
            past=(
                "Which object left the view{when}?",
                "What went out of the view{when}?",
                "What crossed the edge of the view and was gone{when}?",
            ),
            past_all="Which objects have left the view so far?",
            did="{x} left the view",
        ),
        Topic.REACH: Wording(
            future=(
                "Which object will the gripper take next?",
                "What will the gripper grasp next?",
                "Which tool is the robot about to pick up?",
                "What is the gripper going to reach for?",
                "Which thing will be in the gripper next?",
                "What will the robot use next?",
                "Which object will the robot lift from the table next?",
                "What does the gripper need next, going by what it has done so far?",
                "Which object will be grasped next?",
            ),
            will="The gripper will take {x} next.",
            nothing="The gripper will take nothing.",
            past=(
                "Which object did the gripper take{when}?",
                "What did the robot pick up{when}?",
                "What was grasped{when}?",
            ),
            past_all="Which objects has the gripper taken so far?",
            did="the gripper took {x}",
        ),
        Topic.PUSH: Wording(
            future=(
                "Which object will be pushed next?",
                "What will be pushed next?",
                "Which thing is about to be shoved?",
                "What will be moved next by a push?",
                "Which object will be set in motion next by another one?",
                "What is going to be pushed out of its place?",
                "Which object will not stay where it is, because something pushes it?",
                "Who will be pushed next?",
            ),
            will="{x} will be pushed next.",
            nothing="Nothing will be pushed.",
            past=(
                "Which object was pushed{when}?",
                "What was shoved{when}?",
                "What did something push{when}?",
            ),
            past_all="Which objects were pushed so far?",
            did="{x} was pushed",
        ),
        Topic.FALL: Wording(
            future=(
                "Which object will fall next?",
                "What will fall next?",
                "Which thing is about to fall?",
                "What is going to topple over?",
                "Which object is not held well enough and will drop?",
                "What will lose its balance next?",
                "Which object will not stay up?",
                "Who will fall down next?",
                "Which object will end up lower than it is now?",
            ),
            will="{x} will fall next.",
            nothing="Nothing will fall.",
            past=(
                "Which object fell{when}?",
                "What fell down{when}?",
                "What lost its balance{when}?",
            ),
            past_all="Which objects have fallen so far?",
            did="{x} fell",
        ),
        Topic.KNOCK: Wording(
            future=(
                "Which object will be struck next by one that the ball has set in motion?",
                "What will the object that the ball pushes run into?",
                "Which object will be hit next without the ball touching it?",
                "What is at the end of the chain, after the ball and what it hits?",
                "Which object will the next pushed one collide with?",
                "What will be struck next by something other than the ball?",
                "Once the ball has pushed an object, which other one will that reach?",
                "Who will be hit in the second place, by the object that the ball hits?",
            ),
            will="{x} will be struck by the object that the ball pushes.",
            nothing="No other object will be struck.",
            past=(
                "Which object was struck by a pushed one{when}?",
                "What was hit by something other than the ball{when}?",
                "What did a pushed object run into{when}?",
            ),
            past_all="Which objects were struck by pushed ones so far?",
            did="a pushed object ran into {x}",
        ),
        Topic.HOP: Wording(
            future=(
                "Which object will hop next?",
                "What will hop next?",
                "Which object is the next to jump?",
                "What comes next in the order of hops?",
                "Whose turn to hop is it next?",
                "Which of the objects will leave the ground next?",
                "What is going to jump up after this?",
                "Who hops next, if they go on in the same order?",
                "Which object will be in the air next?",
            ),
            will="{x} will hop next.",
            nothing="Nothing will hop.",
            past=(
                "Which object hopped{when}?",
                "What jumped{when}?",
                "What was in the air{when}?",
            ),
            past_all="Which objects have hopped so far?",
            did="{x} hopped",
        ),
        Topic.EMERGE: Wording(
            future=(
                "Which object will come out from behind the screen next?",
                "What will come out from behind the screen next?",
                "What is going to appear again next?",
                "Which of the hidden objects will show itself first?",
                "What will emerge next?",
                "Which object will be seen again next, after it was hidden?",
                "What comes back from behind the screen before anything else does?",
                "Who will come out next?",
            ),
            will="{x} will come out from behind the screen next.",
            nothing="Nothing will come out from behind the screen.",
            past=(
                "Which object came out from behind the screen{when}?",
                "What emerged from behind the screen{when}?",
                "What appeared again{when}?",
            ),
            past_all="Which objects have come out from behind the screen so far?",
            did="{x} came out from behind the screen",
        ),
    }
)

NAMING = (
    "Which object is the {name}?",
    "Where is the {name}?",
    "What in the view is the {name}?",
    "Point out the {name}.",
    "Which of the objects would one call the {name}?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEvent:
    """A truth that came true: its topic, what it befell, and where in the clip it was seen."""

    topic: Topic
    target_id: int
    position: int  # of the first frame at or after the event


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenQuestion:
    """A question that the observed frames answer; no target where nothing fits."""

    text: str
    answer: str
    target_ids: tuple[int, ...]
    skill: Skill
    reasoning: str
    positions: tuple[int, ...]  # of the frames that show it, ascending


def future_question(rng: np.random.Generator, topic: Topic, plain: str) -> str:
    """Draw a wording of a question about the next event; the scene's plain one may come, too."""
    wordings = dict.fromkeys((plain, *WORDINGS[topic].future))
    return str(list(wordings)[rng.integers(len(wordings))])


def future_answer(topic: Topic, name: str | None) -> str:
    """Say the answer as a sentence; `name` None is nothing."""
    wording = WORDINGS[topic]
    return wording.nothing if name is None else _sentence(wording.will, name)


def past_questions(
    rng: np.random.Generator, events: Sequence[PastEvent], names: Mapping[int, str]
) -> list[SeenQuestion]:
    """Ask in every way that fits about the events of each topic, oldest first."""
    found = []
    for topic in Topic:
        own = [event for event in events if event.topic is topic]
        if own:
            found += _past_of_topic(rng, own, names)
    return found


def naming_questions(
    rng: np.random.Generator, names: Mapping[int, str], last_seen: Mapping[int, int]
) -> list[SeenQuestion]:
    """Ask for one object by its name, and for one that is not there.

    Args:
        rng: source of every choice.
        names: instance id to the words for it.
        last_seen: position of the last frame that shows an object well; absent if none does.
    """
    seen = sorted(last_seen)
    target = seen[rng.integers(len(seen))]
    name = names[target]
    questions = [
        SeenQuestion(
            text=_drawn(rng, NAMING).format(name=name),
            answer=f"It is the {name}.",
            target_ids=(target,),
            skill=Skill.NAMING,
            reasoning=f"There is one {name} in the view.",
            positions=(last_seen[target],),
        )
    ]
    absent = _absent_name(rng, names)
    if absent is not None:
        like = listed([names[i] for i in seen])
        questions.append(
            SeenQuestion(
                text=_drawn(rng, NAMING).format(name=absent),
                answer=f"There is no {absent} in the view.",
                target_ids=(),
                skill=Skill.NAMING,
                reasoning=f"The view has {like}. None of them is a {absent}.",
                positions=(),
            )
        )
    return questions


def _past_of_topic(
    rng: np.random.Generator, events: Sequence[PastEvent], names: Mapping[int, str]
) -> list[SeenQuestion]:
    wording = WORDINGS[events[0].topic]
    order = [event.target_id for event in events]
    told = [wording.did.format(x=f"the {names[i]}") for i in order]
    story = _capital(", then ".join(told)) + "."
    positions = tuple(dict.fromkeys(event.position for event in events))

    def ask(when: str, target: int | None) -> SeenQuestion:
        text = _drawn(rng, wording.past).format(when=when and f" {when}")
        if target is None:
            answer = f"No object: {wording.did.format(x='none')} {when}."
        else:
            clause = wording.did.format(x=f"the {names[target]}")
            answer = _capital(f"{clause} {when}".strip()) + "."
        return SeenQuestion(
            text=text,
            answer=answer,
            target_ids=() if target is None else (target,),
            skill=Skill.RECALL,
            reasoning=f"{story} {_why(when, None if target is None else names[target])}".strip(),
            positions=positions,
        )

    if len(order) == 1:
        return [ask("", order[0])]
    twice = [i for i in dict.fromkeys(order) if order.count(i) == 2]
    questions = [ask("first", order[0]), ask("last", order[-1])]
    if len(twice) <= 1:
        questions.append(ask("twice", twice[0] if twice else None))
    distinct = list(dict.fromkeys(order))
    everything = listed([names[i] for i in distinct])
    questions.append(
        SeenQuestion(
            text=wording.past_all,
            answer=_capital(wording.did.format(x=everything)) + ".",
            target_ids=tuple(distinct),
            skill=Skill.RECALL,
            reasoning=f"{story} So they are {everything}.",
            positions=positions,
        )
    )
    return questions


def _why(when: str, name: str | None) -> str:
    if name is None:
        return "None of them comes twice."
    return {
        "": "",
        "first": f"The first of them is the {name}.",
        "last": f"The last of them is the {name}.",
        "twice": f"Only the {name} comes twice.",
    }[when]


def _absent_name(rng: np.random.Generator, names: Mapping[int, str]) -> str | None:
    """A name as the others, but in a colour that no object of that noun has."""
    coloured = [words for name in names.values() if (words := name.split()[-2:])[0] in COLOURS]
    if not coloured:
        return None
    noun = coloured[rng.integers(len(coloured))][-1]
    taken = {colour for colour, other in coloured if other == noun}
    free = [colour for colour in COLOURS if colour not in taken]
    return f"{free[rng.integers(len(free))]} {noun}" if free else None


def _drawn(rng: np.random.Generator, texts: Sequence[str]) -> str:
    return texts[int(rng.integers(len(texts)))]


def _sentence(template: str, name: str) -> str:
    return _capital(template.format(x=f"the {name}"))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
