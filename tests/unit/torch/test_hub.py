# SPDX-License-Identifier: Apache-2.0
"""A hub that gives nothing is told in one sentence that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils import hub as errors

from foreseg.errors import InputError
from foreseg_torch.hub import told_of_hub

NAME = "ByteDance/Sa2VA-Qwen3-VL-4B"
BY_HAND = f"hf download {NAME} --local-dir FOLDER"
RESPONSE = errors.httpx.Response(404, request=errors.httpx.Request("GET", "https://hub"))


def wrapped(cause: Exception) -> OSError:
    """As libraries pass such an error on."""
    error = OSError("We couldn't connect to the hub.\nSee https://docs for more.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            errors.httpx.ConnectError("[Errno -2] Name or service not known"),
            "cannot be reached from here",
        ),
        (errors.httpx.ReadTimeout("slow"), "cannot be reached from here"),
        (wrapped(errors.httpx.ConnectError("no")), "cannot be reached from here"),
        (errors.LocalEntryNotFoundError("Got: ConnectError"), "cannot be reached from here"),
        (errors.OfflineModeIsEnabled("offline"), "cannot be reached from here"),
        (errors.GatedRepoError("401", response=RESPONSE), "behind a login"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_who_cannot_download_is_told_to_do_it_by_hand(error: Exception, said: str) -> None:
    with pytest.raises(InputError) as caught, told_of_hub(NAME):
        raise error
    text = str(caught.value)
    assert said in text
    assert BY_HAND in text
    assert "\n" not in text
    assert "Errno -2" not in text


def test_a_name_that_the_hub_does_not_know_is_to_be_checked() -> None:
    error = errors.RepositoryNotFoundError("404", response=RESPONSE)
    with (
        pytest.raises(InputError, match="has no public model of that name: check"),
        told_of_hub(NAME),
    ):
        raise wrapped(error)


def test_what_is_no_failure_of_the_hub_passes() -> None:
    with pytest.raises(KeyError), told_of_hub(NAME):
        raise KeyError(NAME)
    with told_of_hub(NAME):
        assert Path(NAME).name == "Sa2VA-Qwen3-VL-4B"
