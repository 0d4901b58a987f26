# SPDX-License-Identifier: Apache-2.0
"""Reads the JSON objects that lie beside weights; does not know what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foreseg.errors import InputError
from foreseg.files import read_file

MAX_BYTES = 1 << 28


def read_json_object(path: Path) -> dict[str, Any]:
    """A file's one object.

    Raises:
        InputError: unreadable, damaged, or no object; the message names the file.
    """
    try:
        data = json.loads(read_file(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read: {error}"
        raise InputError(msg) from error
    if not isinstance(data, dict):
        msg = f"{path} wants a JSON object, got {type(data).__name__}"
        raise InputError(msg)
    return data
