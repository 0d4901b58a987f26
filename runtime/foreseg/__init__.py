# SPDX-License-Identifier: Apache-2.0
"""foreseg: masks of the objects that matter next, over a live camera.

A frame goes from `media.sources` (or the node) to `driving`, which keeps it in `history`, tells
`pipeline.step` of it, does with the `tracker` what the step wants, and hands the masks to what
publishes them (`media.sinks`, or the node).
A query goes to `driving`; `pipeline.step` says when it is asked; `driving` takes its window from
`history` to a `reasoner` in its own process; what it answers goes back through the step.
Each folder's `__init__.py` says what lives there; docs/architecture.md has the rooms in one table.

The core needs numpy and the standard library; engines, video and ROS come in lazily.
"""

from __future__ import annotations

__version__ = "0.1.0"
