# SPDX-License-Identifier: Apache-2.0
"""Plots as SVG text that stands inside a page and takes the page's colours, light or dark.

Matplotlib is imported when something is plotted. Only numbers and our own words are plotted:
what comes from a dataset stays in the page, where it is escaped. Does not know: results, pages.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Array = NDArray[np.float64]

SIZE_INCHES = (4.8, 2.5)
NUM_BINS = 20
# Drawn in these, which stand for the page's own colours until the text is written.
_INK, _ACCENT, _FAINT = "#010101", "#020202", "#030303"
_COLOURS = {_INK: "currentColor", _ACCENT: "var(--accent)", _FAINT: "var(--line)"}


def plot_distribution(
    values: Sequence[float],
    *,
    name: str,
    label: str,
    bounds: tuple[float, float] | None = None,
    least: float = -math.inf,
) -> str:
    """Plot how many episodes have which value, with a line at the mean.

    Args:
        values: finite.
        name: prefix of ids, unique in a page.
        label: of the axis.
        bounds: of the axis; as the values have it if None.
        least: what no value can be below; the axis does not go there, either.
    """
    array = np.asarray(values, dtype=np.float64)
    low, high = bounds or (float(array.min()), float(array.max()))
    if low == high:
        low, high = max(low - 0.5, least), high + 0.5

    def draw(axes: Axes) -> None:
        edges = np.linspace(low, high, NUM_BINS + 1)
        axes.hist(array, bins=list(map(float, edges)), color=_ACCENT, rwidth=0.9)
        axes.axvline(float(array.mean()), color=_INK, linewidth=1.2, linestyle="--")
        axes.set_xlabel(f"{label} (dashed: mean {array.mean():.1f})")
        axes.set_ylabel("episodes")
        axes.set_xlim(low, high)

    return _svg(draw, name)


def plot_over_clip(places: _Array, values: _Array, *, name: str) -> str:
    """Plot the mean value against the place in the clip, with a 95 % band (normal).

    Args:
        places: 0 = first scored position of its episode, 1 = last.
        values: percent, one for each place.
        name: prefix of ids, unique in a page.
    """
    bins = np.minimum((places * NUM_BINS).astype(int), NUM_BINS - 1)
    used = np.unique(bins)
    means = np.array([values[bins == i].mean() for i in used])
    spreads = np.array([values[bins == i].std() / np.sqrt((bins == i).sum()) for i in used])
    x = (used + 0.5) * 100 / NUM_BINS

    def draw(axes: Axes) -> None:
        low, high = np.clip([means - 1.96 * spreads, means + 1.96 * spreads], 0, 100)
        axes.fill_between(x, low, high, color=_ACCENT, alpha=0.25, linewidth=0)
        axes.plot(x, means, color=_ACCENT, linewidth=2, marker="o", markersize=3)
        axes.set_xlabel("place among the scored frames, % (band: 95 %)")
        axes.set_ylabel("J&F, %")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)

    return _svg(draw, name)


def plot_reliability(
    bins: Sequence[tuple[float, float, int]], *, name: str, bin_width: float
) -> str:
    """Plot the share of right answers against their confidence, beside the diagonal.

    Args:
        bins: (low edge in 0..1, share right in 0..1, answers) of the bins that have any.
        name: prefix of ids, unique in a page.
        bin_width: of every bin, in 0..1.
    """
    most = max(count for _, _, count in bins)

    def draw(axes: Axes) -> None:
        for low, right, count in bins:
            alpha = 0.25 + 0.75 * count / most
            axes.bar(
                100 * low, 100 * right, 100 * bin_width, align="edge", color=_ACCENT, alpha=alpha
            )
        axes.plot([0, 100], [0, 100], color=_INK, linewidth=1.2, linestyle="--")
        axes.set_xlabel("confidence, % (dashed: as it should be)")
        axes.set_ylabel("right answers, %")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)

    return _svg(draw, name)


def _svg(draw: Callable[[Axes], None], name: str) -> str:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        package, extra, purpose = "matplotlib", "evaluation", "plotting a report"
        raise MissingExtraError(package, extra, purpose) from error
    stream = io.StringIO()
    with mpl.rc_context(
        {
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": name,
            "font.size": 10.0,
            "text.color": _INK,
            "axes.edgecolor": _FAINT,
            "axes.labelcolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "grid.color": _FAINT,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        axes.grid(axis="y", linewidth=0.6)
        draw(axes)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _inlined(stream.getvalue(), name)


def _inlined(text: str, name: str) -> str:
    """Cut the file's head off, make ids the plot's own, and let the page colour and size it."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    for drawn, shown in _COLOURS.items():
        text = text.replace(drawn, shown)
    return text
