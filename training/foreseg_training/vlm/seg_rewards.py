# SPDX-License-Identifier: Apache-2.0
"""FeVOS-R1's rewards over completions as TRL hands them: form, and the IoU of what they decode to.

The paper names "task-specific objectives" and no formula: these are ours. [SEG] is recognised by its
id, never by its spelling. Does not know: models, frames, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import ConfigError
from foreseg.methods.grammar import Form, answer_of
from foreseg.methods.seg_answers import marks_in, says_none
from foreseg_torch.seg.tokens import marked_text
from foreseg_training.rewards import consistency_reward, grammar_reward
from foreseg_training.runs.watched_rewards import RewardFunction, Scores
from foreseg_training.vlm.seg_rows import masks_from_text

BoolArray = NDArray[np.bool_]


class SegRewards:
    """The reward functions of one run, each under its name.

    Args:
        tokenizer: of transformers.
        token_id: of [SEG].
        form: that is asked for.
    """

    def __init__(self, tokenizer: Any, token_id: int, form: Form) -> None:  # noqa: ANN401
        self._tokenizer = tokenizer
        self._token_id = token_id
        self._form = form

    def functions(self, weights: Mapping[str, float]) -> tuple[list[RewardFunction], list[float]]:
        """The functions with a weight, and their weights.

        Raises:
            ConfigError: a name that is none, or no weight at all.
        """
        known: dict[str, RewardFunction] = {"format": self.format, "mask": self.mask}
        unknown = set(weights) - set(known)
        if unknown or not any(weights.values()):
            msg = f"reward_weights want some of {', '.join(known)}, got {dict(weights)}"
            raise ConfigError(msg)
        used = [name for name in known if weights.get(name)]
        return [known[name] for name in used], [weights[name] for name in used]

    def format(self, completion_ids: Sequence[Sequence[int]], **_: object) -> Scores:
        """R_fmt, 0 or 1: the form is kept, and the answer has one token or says that nothing fits."""
        scores: Scores = []
        for ids in completion_ids:
            text = marked_text(ids, self._tokenizer, self._token_id)
            answer = answer_of(text) or ""
            is_answer = len(marks_in(answer)) == 1 or (not marks_in(answer) and says_none(answer))
            scores.append(grammar_reward(text, self._form) * is_answer)
        return scores

    def mask(
        self,
        completion_ids: Sequence[Sequence[int]],
        masks: Sequence[str],
        decoded: Sequence[BoolArray | None],
        **_: object,
    ) -> Scores:
        """Mean over the frames of the IoU of the union mask, 0..1; where both are empty, 1.

        An answer that nothing fits is an empty mask on each frame; no answer is 0.
        """
        scores: Scores = []
        for ids, text, said in zip(completion_ids, masks, decoded, strict=True):
            truth = masks_from_text(text)
            if said is not None:
                scores.append(consistency_reward(said, truth))
                continue
            answer = answer_of(marked_text(ids, self._tokenizer, self._token_id))
            is_none = answer is not None and says_none(answer)
            scores.append(consistency_reward(np.zeros_like(truth), truth) if is_none else 0.0)
        return scores
