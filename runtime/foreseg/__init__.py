# SPDX-License-Identifier: Apache-2.0
"""foreseg: masks of the objects that matter next, over a live camera.

The core needs numpy and the standard library; engines, video and ROS come in lazily.
"""

from __future__ import annotations

__version__ = "0.1.0"
