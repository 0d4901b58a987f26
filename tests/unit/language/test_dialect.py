# SPDX-License-Identifier: Apache-2.0
"""What is learnt from a server's refusals, in the words of several servers."""

from __future__ import annotations

import json

import pytest

from foreseg.language.base import LanguageRequest, Message, Role
from foreseg.language.dialect import Dialect

REQUEST = LanguageRequest(
    messages=(Message(role=Role.USER, content=("?",)),), max_tokens=9, num_samples=2
)
ALL = {"max_tokens", "temperature", "stream", "stream_options", "logprobs", "seed", "n"}


def learnt(*refusals: object) -> set[str]:
    dialect = Dialect()
    for refusal in refusals:
        plainer = dialect.plainer(json.dumps(refusal).encode())
        assert plainer is not None
        dialect = plainer
    return set(dialect.members(REQUEST))


def error(message: str, param: str | None = None) -> dict[str, object]:
    return {"error": {"message": message, "param": param}}


def test_at_first_all_that_is_of_use_is_asked_for() -> None:
    assert set(Dialect().members(REQUEST)) == ALL


@pytest.mark.parametrize(
    ("refusal", "left_out"),
    [
        (
            error("Unsupported value: 'temperature' does not support 0", "temperature"),
            {"temperature"},
        ),
        (error("`seed` is not supported by this model"), {"seed"}),
        (error("unknown field stream_options"), {"stream_options"}),
        (error("only one completion choice is allowed: 'n'"), {"n"}),
        (error("no: set n", "n"), {"n"}),
        (
            {"detail": [{"loc": ["body", "logprobs"], "msg": "Extra inputs are not permitted"}]},
            {"logprobs"},
        ),
        ({"detail": "extra fields: ['logprobs', 'seed']"}, {"logprobs", "seed"}),
        ("stream of thought refused in prose", {"logprobs", "seed", "stream_options", "n"}),
        (error("a picture is too large"), {"logprobs", "seed", "stream_options", "n"}),
        (error("max_tokens is too large: 9"), {"logprobs", "seed", "stream_options", "n"}),
    ],
)
def test_what_a_refusal_names_is_left_out_else_what_is_optional(
    refusal: object, left_out: set[str]
) -> None:
    assert learnt(refusal) == ALL - left_out


def test_max_tokens_gets_its_newer_name_where_the_server_wants_it() -> None:
    renamed = ALL - {"max_tokens"} | {"max_completion_tokens"}
    assert learnt(error("use max_completion_tokens instead of max_tokens")) == renamed
    assert learnt(error("Unsupported parameter", "max_tokens")) == renamed


def test_a_request_without_a_stream_has_no_options_of_one() -> None:
    assert learnt(error("no", "stream")) == ALL - {"stream", "stream_options"}


def test_learning_comes_to_an_end() -> None:
    dialect: Dialect | None = Dialect()
    for words in ("max_tokens unsupported", "temperature", *["no"] * 20):
        assert dialect is not None
        dialect = dialect.plainer(words.encode())
        if dialect is None:
            break
    assert dialect is None
