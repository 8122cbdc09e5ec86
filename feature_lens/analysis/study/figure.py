"""The table of a study as one picture: a panel for each measure, a row for each feature set, intervals and nulls."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feature_lens.analysis.measures.descriptions import measure_of
from feature_lens.analysis.measures.set_measures import measured_names
from feature_lens.analysis.study.families import COLOURS, EFFECTIVE

_QUIET: Final = "#6B6F76"
_ROW: Final = 0.2  # inches


def study_figure(table: pd.DataFrame, title: str) -> bytes:
    """PNG of the rows of a study's table: a panel for every measure by which sets are compared."""
    shown = [name for name in measured_names(table) if measure_of(name).compared and table[name].notna().any()]
    columns = min(4, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    height = 0.9 + _ROW * len(table)
    figure = Figure(figsize=(3.0 + 2.7 * columns, 0.6 + height * rows), dpi=130, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, name in zip(panels, shown, strict=False):
        _panel(panel, table, name)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel(panel: Axes, table: pd.DataFrame, name: str) -> None:
    at, measure = np.arange(len(table))[::-1], measure_of(name)
    value, low, high, null = (
        table[f"{name}{end}"].to_numpy(dtype=np.float64) for end in ("", "_low", "_high", "_null_99")
    )
    colours = [COLOURS[family] for family in table["family"]]
    panel.hlines(at, np.fmin(low, value), np.fmax(high, value), colors=colours, linewidth=2, alpha=0.55)
    panel.scatter(null, at, marker="|", s=30, color=_QUIET, linewidth=1)
    panel.scatter(value, at, s=18, color=colours, zorder=3)
    best = table.loc[table["family"] == EFFECTIVE, name].dropna()
    if len(best):
        line = best.max() if measure.better > 0 else best.min()
        panel.axvline(float(line), color=COLOURS[EFFECTIVE], linewidth=0.8, linestyle=(0, (3, 3)))
    if name == "r2":  # a regression that fails on a few examples may be far below 0
        panel.set_xlim(-0.1, 1.05)
    title = measure.title if measure.better > 0 else f"{measure.title} (less is better)"
    panel.set_title(_large(title), loc="left", fontsize=8)
    panel.set_yticks(at, [str(title) for title in table["kind"]])
    panel.tick_params(axis="y", labelsize=7, length=0)
    panel.tick_params(axis="x", labelsize=7, colors=_QUIET)
    for label, colour in zip(panel.get_yticklabels(), colours, strict=False):
        label.set_color(colour)
    panel.grid(True, axis="x", color="#EDEEF0", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.set_ylim(-0.7, len(table) - 0.3)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


def _large(title: str) -> str:
    return title[:1].upper() + title[1:]
