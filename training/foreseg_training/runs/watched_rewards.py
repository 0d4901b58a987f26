# SPDX-License-Identifier: Apache-2.0
"""Reward functions, watched: a score that is no number stops the run, and some are put on the page.

Takes functions as TRL calls them, and gives such functions. In a run of several processes each
watches its own completions, and the first one's are shown. Does not know: what rewards mean.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from foreseg.errors import InputError

from .completions_page import CompletionsPage, Said, Shown

Scores = list[float | None]
RewardFunction = Callable[..., Scores]
PROMPTS = 4  # of a step, put on the page


class WatchedRewards:
    """Wraps the reward functions of a run.

    Args:
        functions: as TRL takes them.
        page: None: nothing is shown.
        every: steps between those that are shown.
    """

    def __init__(
        self, functions: Sequence[RewardFunction], page: CompletionsPage | None, every: int
    ) -> None:
        self._page = page
        self._every = every
        self._names = [function.__name__ for function in functions]
        self._scores: dict[str, Scores] = {}
        self.functions = [self._watched(function) for function in functions]

    def _watched(self, function: RewardFunction) -> RewardFunction:
        name = function.__name__

        @functools.wraps(function)
        def watched(**given: Any) -> Scores:  # noqa: ANN401 (what TRL hands over)
            scores = function(**given)
            check_scores(name, scores, given)
            self._scores[name] = scores
            if name == self._names[-1]:
                self._show(given)
            return scores

        return watched

    def _show(self, given: dict[str, Any]) -> None:
        """All functions have scored a batch."""
        scores, self._scores = self._scores, {}
        state = given.get("trainer_state")
        if self._page is None or state is None or not state.is_world_process_zero:
            return
        if state.global_step % self._every:
            return
        groups: dict[str, list[int]] = {}
        for i, text in enumerate(map(text_of, given["completions"])):
            del text
            groups.setdefault(_id_of(given, i), []).append(i)
        shown = []
        for name, rows in list(groups.items())[:PROMPTS]:
            images = given.get("images") or given.get("image")
            said = [
                Said(
                    text=text_of(given["completions"][i]),
                    rewards={each: scores[each][i] for each in self._names},
                )
                for i in rows
            ]
            shown.append(
                Shown(
                    step=state.global_step,
                    id=name,
                    asked=asked_of(given["prompts"][rows[0]]),
                    pictures=images[rows[0]] if images else (),
                    said=said,
                )
            )
        self._page.add(shown)


def check_scores(name: str, scores: Scores, given: dict[str, Any]) -> None:
    """Stop at a reward that is no number.

    Raises:
        InputError: with the reward, the sample and what was said.
    """
    for i, score in enumerate(scores):
        if score is not None and not math.isfinite(score):
            said = text_of(given["completions"][i])[:200]
            msg = f"the reward {name} is {score} for the sample {_id_of(given, i)}, which was answered {said!r}"
            raise InputError(msg)


def text_of(completion: Any) -> str:  # noqa: ANN401 (a chat, or text)
    """The words of a chat as TRL hands it over, images left out."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content)


def asked_of(prompt: Any) -> str:  # noqa: ANN401 (a chat, or text)
    """The words of a prompt's last message."""
    return text_of(prompt)


def _id_of(given: dict[str, Any], i: int) -> str:
    ids = given.get("id")
    return str(ids[i]) if ids else f"number {i} of the batch"
