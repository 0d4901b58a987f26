# SPDX-License-Identifier: Apache-2.0
"""Who answers unless somebody is named: the shipped nano reasoner where its packages are, else `kinematic`.

The nano reasoner hands questions and pictures unlike its training on to `kinematic` by itself.
"""

from __future__ import annotations

import importlib.util

HELP = "who answers; default: nano where its packages are installed, else kinematic"
_PACKAGES = ("onnxruntime", "tokenizers", "cv2")


def default_kind() -> str:
    """`nano` or `kinematic`; nothing is imported for it."""
    can_run = all(importlib.util.find_spec(name) is not None for name in _PACKAGES)
    return "nano" if can_run else "kinematic"
