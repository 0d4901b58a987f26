# SPDX-License-Identifier: Apache-2.0
"""The chat templates that Sa2VA's InternVL models were trained in, by the name in their config.json.

Marks, speakers and stop strings as in its public `templates.py`: a frame is `<img>`, its tokens and
`</img>`, frames stand a line apart. Does not know tokenizers.
"""

from __future__ import annotations

from dataclasses import dataclass

from foreseg.errors import InputError

CONTEXT = "<IMG_CONTEXT>"  # stands for one token's worth of a frame


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """How a turn looks."""

    opens: str  # before a message; `ROLE` is who says it
    closes: str
    stop_strings: tuple[str, ...]

    def as_jinja(self) -> str:
        """As tokenizers of transformers keep it."""
        opens, closes = _quoted(self.opens), _quoted(self.closes)
        answer = _quoted(self.opens.replace("ROLE", "assistant"))
        return (
            "{% for message in messages %}"
            f"{{{{ {opens}.replace('ROLE', message['role']) }}}}"
            "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
            "{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}"
            "{% if loop.previtem is defined and loop.previtem['type'] == 'image' %}"
            "{{ '\\n' }}{% endif %}"
            f"{{{{ '<img>{CONTEXT}</img>' }}}}"
            "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
            f"{{{{ {closes} }}}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{{{{ {answer} }}}}{{% endif %}}"
        )


_TEMPLATES = {
    "phi3_chat": ChatTemplate(opens="<|ROLE|>\n", closes="<|end|>\n", stop_strings=("<|end|>",)),
    "qwen_chat": ChatTemplate(
        opens="<|im_start|>ROLE\n",
        closes="<|im_end|>\n",
        stop_strings=("<|im_end|>", "<|endoftext|>"),
    ),
}


def template_of(name: object, where: str) -> ChatTemplate:
    """The template of a published InternVL.

    Raises:
        InputError: one that is not known here.
    """
    found = _TEMPLATES.get(str(name).replace("-", "_"))
    if found is None:
        msg = f"{where} was trained in the template {name!r}: known are {', '.join(_TEMPLATES)}"
        raise InputError(msg)
    return found


def _quoted(text: str) -> str:
    """A text as jinja has it in quotes."""
    return "'" + text.replace("\n", "\\n") + "'"
