# SPDX-License-Identifier: Apache-2.0
"""An extension of griffe for the site: the comment behind a field is the field's docstring.

Units, ranges and "none = ..." stand there in this code, and a reader of the API wants them.
"""

from __future__ import annotations

import io
import re
import textwrap
import tokenize
from typing import TYPE_CHECKING

from griffe import Attribute, Docstring, Extension

if TYPE_CHECKING:
    import ast

    from griffe import ObjectNode

FOR_TOOLS = re.compile(r"noqa|type:|pragma")


class FieldComments(Extension):
    """Reads comments; a docstring, where there is one, stays."""

    def on_attribute_instance(
        self, *, node: ast.AST | ObjectNode, attr: Attribute, **kwargs: object
    ) -> None:
        """Take the words behind `attr`, if there are any."""
        del node, kwargs
        text = comment_of(attr.source)
        if text and attr.docstring is None:
            attr.docstring = Docstring(text, lineno=attr.lineno, parent=attr)


def comment_of(source: str) -> str:
    """The comments in the source of one statement, joined; without those that are for tools."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(textwrap.dedent(source)).readline))
    except (tokenize.TokenError, SyntaxError):  # a piece of a statement
        return ""
    words = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    return " ".join(word for word in words if not FOR_TOOLS.match(word))
