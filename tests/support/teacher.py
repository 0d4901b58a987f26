# SPDX-License-Identifier: Apache-2.0
"""A teacher behind the chat server: it reads its answer from what it is told, and tells its tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from foreseg_training.teacher.chain_words import EXAMPLES_NONE
from tests.support.chat_server import Act, Call


def reply_of(call: Call) -> str:
    """A good teacher, that knows one object only."""
    keyframe = re.search(r"The frame to point at: < ?(\d+)>", call.words)
    answer = re.search(r"The answer in words: (.*)", call.words)
    if keyframe is None or answer is None:
        return EXAMPLES_NONE[0]
    chain = {
        "scene": "Some shapes stand on a grey ground, and a few of them move.",
        "why_this_frame": f"In frame {keyframe[1]} it is large and nothing hides it.",
        "where": f"I look at how things go on. {answer[1]}",
        "keyframe": int(keyframe[1]),
        "objects": ["the one"],
    }
    return f"```json\n{json.dumps(chain)}\n```"


def replies(text: str | Callable[[Call], str]) -> Act:
    def act(call: Call) -> None:
        said = text(call) if callable(text) else text
        choice = {"index": 0, "message": {"content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 500, "completion_tokens": 60}
        call.send_whole({"choices": [choice], "usage": usage})

    return act
