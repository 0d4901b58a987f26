# SPDX-License-Identifier: Apache-2.0
"""Trackers by what the model sees of a frame, the setting `tracker.view`."""

from __future__ import annotations

from collections.abc import Callable

from foreseg.engines.load import Bundle
from foreseg.errors import ConfigError
from foreseg.tracker.base import Tracker
from foreseg.tracker.sam2 import Sam2Tracker
from foreseg.tracker.windowed import WindowedTracker

AUTO = "auto"
VIEWS = ("whole", "zoom", "window")
ZOOMED_UP_TO_PX = (
    256  # side of the model's input up to which `auto` is `zoom`: larger ones were not measured
)


def tracker_factory(bundle: Bundle, view: str) -> Callable[[int], Tracker]:
    """Makes trackers of so many rows over a bundle, which stays the caller's to close.

    Args:
        bundle: of the tracker.
        view: `auto`, which is `zoom` for models of few pixels and else `whole`; `whole`; `zoom`, where a new box is segmented in a window around it; or `window`,
            where every object is followed in a window of its own.

    Raises:
        ConfigError: no such view.
    """
    if view not in (AUTO, *VIEWS):
        msg = f"tracker.view wants one of {', '.join((AUTO, *VIEWS))}, got {view!r}"
        raise ConfigError(msg)
    if view == AUTO:
        is_small = bundle.manifest.geometry.image_size <= ZOOMED_UP_TO_PX
        view = "zoom" if is_small else "whole"

    def make(rows: int) -> Tracker:
        tracker = Sam2Tracker(bundle, max_objects=rows, zooms=view == "zoom")
        return WindowedTracker(tracker) if view == "window" else tracker

    return make
