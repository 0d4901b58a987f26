# SPDX-License-Identifier: Apache-2.0
"""What the methods' answers have in common: no target, names of members, the words around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from foreseg.dialogue import Abstained, AnswerFailed, NoTarget, Query, TargetsFound
from foreseg.frames import FrameWindow
from foreseg.methods.absence import is_denial, is_none_word
from foreseg.methods.base import Verdict
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import Repairs, UnusableAnswer
from foreseg.methods.labels import RankedWindow
from foreseg.methods.near_json import Json, values_from_text

MAX_REASONING_TOKENS = 8_192
TAG_TOKENS = 16  # more than two tags have in any vocabulary
WORDS_PER_TOKEN = 0.7  # of English, roughly: models keep to words rather than tokens
NO_TARGET = '{"no_target": "why"}'
_NO_TARGET_NAMES = ("no_target", "none")
_ABSTAIN_NAMES = ("abstain", "unanswerable")
_ABSTAIN_WORDS = re.compile(
    r"(?:i )?(?:abstain|am not sure|not sure|unsure|unknown|unclear|unanswerable"
    r"|(?:cannot|can't|can not|do not|don't) (?:answer|tell|say|know|determine)(?: (?:this|that|it))?)",
    re.IGNORECASE,
)
MAX_TEXT_CHARS = 1_000
_TEXT_NAMES = ("text", "label", "name", "object", "target", "description", "category")
_FALSE = (None, False, "", 0, "false", "no")


def verdict_from(text: str, read: Callable[[Json, Repairs], TargetsFound | NoTarget]) -> Verdict:
    """The first value in an answer's text that `read` accepts, or the reason why there is none."""
    failure: Verdict | None = None
    for reading in values_from_text(text):
        repairs = Repairs()
        repairs.add(*reading.repairs)
        try:
            part = _part_from(reading.value, repairs, read)
        except UnusableAnswer as error:
            failed = Verdict(part=AnswerFailed(reason=str(error)), repairs=repairs.notes)
            failure = failure or failed
        else:
            return Verdict(part=part, repairs=repairs.notes)
    if failure is not None:
        return failure
    words = text.strip().strip("'\".!")
    said = f"the model answered {words[:60]!r}"
    repaired = ("words instead of a value",)
    if is_denial(words):
        return Verdict(part=NoTarget(reason=said), repairs=repaired)
    if _ABSTAIN_WORDS.fullmatch(words):
        return Verdict(part=Abstained(reason=said), repairs=repaired)
    reason = f"the answer has no list or object: {words[:80]!r}" if words else "an empty answer"
    return Verdict(part=AnswerFailed(reason=reason))


def says_none_in_words(text: str) -> bool:
    """True if an answer's text says that nothing fits, without any value to read."""

    def refuse(value: Json, _repairs: Repairs) -> TargetsFound | NoTarget:
        msg = f"not read: {str(value)[:60]!r}"
        raise UnusableAnswer(msg)

    return isinstance(verdict_from(text, refuse).part, NoTarget)


def _part_from(
    value: Json, repairs: Repairs, read: Callable[[Json, Repairs], TargetsFound | NoTarget]
) -> TargetsFound | NoTarget | Abstained:
    """What one value says. `"no_target": "none"` may mean either: then targets decide.

    Raises:
        UnusableAnswer: neither.
    """
    if not (isinstance(value, dict) and is_none_word(member(value, _NO_TARGET_NAMES))):
        return nothing_from(value, repairs) or read(value, repairs)
    try:
        return read(value, repairs)
    except UnusableAnswer:
        nothing = nothing_from(value, repairs)
        if nothing is None:
            raise
        return nothing


def nothing_from(value: Json, repairs: Repairs) -> NoTarget | Abstained | None:
    """No target, or no answer, with its reason, if a value says so.

    Beside targets it wins, and that is recorded.
    """
    if not isinstance(value, dict):
        return None
    why = member(value, ("reason",))
    has_more = len(value) > 1 + (why is not None)
    said = member(value, _NO_TARGET_NAMES)
    if said not in _FALSE:
        if has_more:
            repairs.add("no target, beside something else")
        reason = said if isinstance(said, str) else why
        return NoTarget(reason=str(reason or "the model says that nothing fits")[:1_000])
    said = member(value, _ABSTAIN_NAMES)
    if said not in _FALSE:
        if has_more:
            repairs.add("no answer, beside something else")
        reason = said if isinstance(said, str) else why
        return Abstained(reason=str(reason or "the model says that it cannot answer")[:1_000])
    return None


def text_from(value: Json, items: Sequence[Json], num_targets: int) -> str:
    """The answer in words: the names that a model gave its targets, else how many there are.

    Args:
        value: the whole answer.
        items: its targets, as far as they are objects with members.
        num_targets: how many of them became prompts.
    """
    names = dict.fromkeys(name for name in map(name_of, (value, *items)) if name)
    words = ", ".join(names) or f"{num_targets} object{'s' if num_targets != 1 else ''}"
    return words[:MAX_TEXT_CHARS]


def name_of(item: Json) -> str:
    """The name that a model gave a target; empty without one."""
    said = member(item, _TEXT_NAMES) if isinstance(item, dict) else None
    return " ".join(said.split()) if isinstance(said, str) else ""


def member(value: dict[str, Json], names: tuple[str, ...]) -> Json:
    """The first member that has one of these names, whatever its case; None without one."""
    plain = {re.sub(r"[\s-]", "_", name.strip().lower()): item for name, item in value.items()}
    return next((plain[name] for name in names if name in plain), None)


def has_member(value: dict[str, Json], names: tuple[str, ...]) -> bool:
    """True if a member has one of these names, whatever its case and value."""
    return any(member({name: True}, names) for name in value)


def frames_words(window: FrameWindow) -> str:
    """What stands before labelled frames."""
    label = "the number of the frame; frames between them are left out."
    if isinstance(window, RankedWindow):
        label = "its place among them, from 0."
    return (
        f"You see {len(window.frames)} frames of a camera, oldest first. Before each stands its"
        f" label, {label}"
    )


def query_words(query: Query) -> str:
    """A query as a model reads it."""
    horizon = f" It is about the next {query.horizon_s:g} seconds." if query.horizon_s else ""
    return (
        f"Query: {query.text}\nIt may ask for something that has not happened yet: then judge from"
        f" the motion, the order and the purpose of what you see.{horizon}"
    )


def format_words(
    form: Form, reasoning_tokens: int, answer: str, *, tells_budget: bool = True
) -> str:
    """How a completion is to look.

    Args:
        form: of it.
        reasoning_tokens: for the thoughts.
        answer: an example.
        tells_budget: whether the words say how long the thoughts may be.
    """
    if not form.has_rationale:
        return (
            f"Reply with {form.put('', f'<answer>{answer}</answer>')} and nothing else. If nothing"
            f" in the frames fits the query, reply with"
            f" {form.put('', f'<answer>{NO_TARGET}</answer>')}."
        )
    num_words = max(10, round(reasoning_tokens * WORDS_PER_TOKEN))
    within = f", in at most {num_words} words" if tells_budget else ""
    rationale = f"<think>your reasoning{within}</think>"
    return (
        f"Reply in exactly this form:\n{form.put(rationale, f'<answer>{answer}</answer>')}\n"
        f"If nothing in the frames fits the query, let the answer be <answer>{NO_TARGET}</answer>."
    )


def form_of(query: Query, trained: Form | None) -> Form:
    """The form in which a query is asked.

    Args:
        query: may want its answer first.
        trained: the only form that the model knows; None: whatever it is asked for.

    Raises:
        UnusableAnswer: the query wants its answer first, and the model thinks first.
    """
    if trained is None:
        return Form.ANSWER_FIRST if query.answer_first else Form.THINK_FIRST
    if query.answer_first and trained is Form.THINK_FIRST:
        msg = (
            f"the query wants its answer first, but the model was trained {trained.value}: leave"
            " answer_first away, or take a model that was trained for it"
        )
        raise UnusableAnswer(msg)
    return trained


def reasoning_tokens_of(query: Query, form: Form, default: int) -> int:
    """A query's thinking budget; where there is to be no thought, room for the tags."""
    if not form.has_rationale:
        return TAG_TOKENS
    return min(query.max_reasoning_tokens or default, MAX_REASONING_TOKENS)
