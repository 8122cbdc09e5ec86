"""Figures of the expansion about the initial parameters as PNG: errors over widths, and one network over training."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS: Final = {"leading": "#8A8F98", "dntk": "#E69F00", "next": "#2F6DB5", "second": "#D55E00", "squared": "#D55E00"}
WORDS: Final = {
    "leading": "leading order: kernel prediction",
    "dntk": "with dNTK alone",
    "next": "next-to-leading order",
    "second": "all of second order",
    "squared": "with dNTK squared",
}
_QUIET: Final = "#6B6F76"


def width_figure(errors: pd.DataFrame) -> bytes:
    """Error of each prediction against width, a panel for each depth: medians over seeds, and their range, from the
    rows of a study of widths (depth, width, seed, prediction, error); errors are relative to what training added."""
    depths = sorted(errors["depth"].unique())
    figure = Figure(figsize=(4.2 * len(depths) + 0.6, 3.8), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for panel, depth in zip(panels, depths, strict=True):
        own = errors[(errors["depth"] == depth) & errors["prediction"].isin(list(WORDS))]
        for name in [name for name in WORDS if name in set(own["prediction"])]:
            over = own[own["prediction"] == name].groupby("width")["error"].agg(["median", "min", "max"])
            panel.fill_between(over.index, over["min"], over["max"], color=COLOURS[name], alpha=0.15, linewidth=0)
            label = WORDS[name]
            if len(over) > 1:
                label += f" (slope {np.polyfit(np.log(over.index), np.log(over['median']), 1)[0]:.2f})"
            panel.plot(over.index, over["median"], color=COLOURS[name], marker="o", markersize=4, label=label)
        _finish(panel, f"{depth} hidden layer{'s' if depth > 1 else ''}", "width")
        widths = sorted(own["width"].unique())
        panel.set_xticks(widths, [f"{width:,}" for width in widths])
        panel.minorticks_off()
    panels[0].set_ylabel("error relative to what training added")
    return _png(figure)


def course_figure(course: pd.DataFrame) -> bytes:
    """What each order adds, and the error of the sum up to it against the real network, against the time of a flow,
    from the rows of a course (time, loss, leading, next, squared, error_leading, ..)."""
    figure = Figure(figsize=(9.2, 3.8), dpi=150, layout="constrained")
    sizes, errors = figure.subplots(1, 2)
    for name in ("leading", "next", "squared"):
        sizes.plot(course["time"], course[name], color=COLOURS[name], marker="o", markersize=4, label=WORDS[name])
        errors.plot(
            course["time"], course[f"error_{name}"], color=COLOURS[name], marker="o", markersize=4, label=WORDS[name]
        )
    _finish(sizes, "what each order adds", "time of gradient flow")
    sizes.set_ylabel("root mean square on held-out examples")
    _finish(errors, "error against the network trained by the same flow", "time of gradient flow")
    errors.set_ylabel("relative to what training added")
    return _png(figure)


def _finish(panel: Axes, title: str, across: str) -> None:
    panel.set_xscale("log")
    if any((np.asarray(line.get_ydata(), dtype=np.float64) > 0).any() for line in panel.lines):
        panel.set_yscale("log")  # else all are 0, or nothing is known: the real flow was not followed so long
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel(across)
    panel.grid(True, which="major", color="#EDEEF0", linewidth=0.8)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.tick_params(colors=_QUIET, labelsize=8)
    panel.legend(frameon=False, fontsize=7.5)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
