# SPDX-License-Identifier: Apache-2.0
"""What is said where the model hub gives nothing: one sentence, with the way out. Downloads nothing itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from transformers.utils import hub

from foreseg.errors import InputError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_UNREACHABLE = (
    hub.LocalEntryNotFoundError,
    hub.OfflineModeIsEnabled,
    ConnectionError,
    TimeoutError,
    hub.httpx.TransportError,
)
_MAX_QUOTED = 200  # characters of another library's message


@contextlib.contextmanager
def told_of_hub(name: str) -> Iterator[None]:
    """Within it `owner/name` is fetched from the hub; what fails there is told as a sentence.

    Raises:
        InputError: no such public model, one behind a login, no network, or another failure.
    """
    try:
        yield
    except (OSError, ValueError, hub.httpx.HTTPError) as error:
        raise InputError(_sentence(name, error)) from error


def _sentence(name: str, error: Exception) -> str:
    causes = list(_causes(error))
    by_hand = f"hf download {name} --local-dir FOLDER"
    if any(isinstance(cause, hub.GatedRepoError) for cause in causes):
        return (
            f"{name!r} lies behind a login on the model hub: accept its terms there, download it"
            f" (hf auth login; {by_hand}), and give that folder"
        )
    if any(isinstance(cause, hub.RepositoryNotFoundError) for cause in causes):
        return (
            f"there is no folder {name!r}, and the model hub has no public model of that name:"
            " check the name"
        )
    if any(isinstance(cause, _UNREACHABLE) for cause in causes):
        return (
            f"there is no folder {name!r}, and the model hub cannot be reached from here: download"
            f" the model where there is a network ({by_hand}), bring the folder here, and give it"
        )
    said = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_QUOTED]
    return (
        f"{name!r} could not be fetched from the model hub ({said}): download it by hand"
        f" ({by_hand}), and give that folder"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__
