# SPDX-License-Identifier: Apache-2.0
"""Load MuJoCo with a way to render that needs no display.

Does not know: what is rendered.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from types import ModuleType

from foreseg.errors import MissingExtraError, StreamError

_SWITCH = "MUJOCO_GL"  # MuJoCo reads it once, when it is first imported
_LIBRARIES = {
    "egl": ("libEGL.so.1",),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6"),
}
_WAY_OUT = (
    "install what it needs: `apt install libegl1 libgl1-mesa-dri` or `apt install libosmesa6`"
)


def load_mujoco() -> ModuleType:
    """Import MuJoCo; chooses EGL, else OSMesa, unless MUJOCO_GL is set.

    Raises:
        MissingExtraError: MuJoCo is not installed.
        StreamError: there is no library to render with.
    """
    if sys.platform == "linux" and "mujoco" not in sys.modules and not os.environ.get(_SWITCH):
        os.environ[_SWITCH] = _first_renderer()
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise
        raise MissingExtraError(error.name, "tabletop", "the tabletop world") from error
    # AttributeError: PyOpenGL without its library; RuntimeError: a name that MuJoCo does not know.
    except (ImportError, AttributeError, RuntimeError) as error:
        raise rendering_error(error) from error


def rendering_error(cause: Exception) -> StreamError:
    """Make the error that says how to render here."""
    chosen = os.environ.get(_SWITCH, "")
    return StreamError(
        f"the tabletop world cannot render with {_SWITCH}={chosen!r} ({cause}):"
        f" set it to egl or osmesa, or not at all, and {_WAY_OUT}"
    )


def _first_renderer() -> str:
    for name, libraries in _LIBRARIES.items():
        if any(_can_load(library) for library in libraries):
            return name
    msg = f"the tabletop world found neither EGL nor OSMesa to render with; {_WAY_OUT}"
    raise StreamError(msg)


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
