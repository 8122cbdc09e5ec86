"""Charts in one style: thin axes, the accent colour, class colours as everywhere, text alternatives."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.render import ACCENT, class_colour

__all__ = ["ACCENT", "bars_by_class", "class_scale", "histogram_chart", "show_chart"]


def show_chart(chart: Any, height: int, alternative: str) -> None:
    """Draw a chart at the width of its place; `alternative` says in words what it shows."""
    styled = (
        chart.properties(height=height)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#EDEEF0")
        .configure_view(strokeWidth=0)
    )
    st.altair_chart(styled, width="stretch", alt=alternative)


def class_scale(names: list[str]) -> alt.Scale:
    """Class names in the order of their labels, to the colours they have on every page and in the sheets."""
    return alt.Scale(domain=names, range=[class_colour(label) for label in range(len(names))])


def histogram_chart(table: pd.DataFrame, title: str) -> Any:
    """Bars of counts with a line at zero, from a table of low, high, count."""
    bars = (
        alt.Chart(table)
        .mark_bar(color=ACCENT, binSpacing=1)
        .encode(
            x=alt.X("low:Q", bin="binned", title=title, axis=alt.Axis(format=".6~g", tickCount=7)),
            x2="high:Q",
            y=alt.Y("count:Q", title="examples"),
            tooltip=[
                alt.Tooltip("low:Q", format=".3g", title="from"),
                alt.Tooltip("high:Q", format=".3g", title="to"),
                alt.Tooltip("count:Q", title="examples"),
            ],
        )
    )
    low, high = float(table["low"].min()), float(table["high"].max())
    if not low < 0 < high:
        return bars
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color="#222428", strokeDash=[3, 3]).encode(x="zero:Q")
    return bars + zero


def bars_by_class(table: pd.DataFrame, name: str, value: str, scale: alt.Scale, title: str) -> Any:
    """One bar per class in its colour, in the order of the table."""
    return (
        alt.Chart(table)
        .mark_bar(height={"band": 0.72})
        .encode(
            x=alt.X(f"{value}:Q", title=title, axis=alt.Axis(format=".6~g", tickCount=6)),
            y=alt.Y(f"{name}:N", title=None, sort=None, axis=alt.Axis(labelLimit=140, labelOverlap=False)),
            color=alt.Color(f"{name}:N", scale=scale, legend=None),
            tooltip=[f"{name}:N", alt.Tooltip(f"{value}:Q", format="+.3g")],
        )
    )
