"""Interactions of the leading eigen features as a matrix, and pairs of them as a table of links."""

from __future__ import annotations

from collections.abc import Iterable

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.run import Run
from feature_lens_app import run_access, views
from feature_lens_app.charts import show_chart
from feature_lens_app.words import figure, safe

SIGNED = ["#2166AC", "#F7F7F7", "#B2182B"]


def show_matrix(table: pd.DataFrame, value: str, signed: bool, alternative: str) -> None:
    """Squares of a table of feature, other and a value; signed ones about zero, sizes from zero on."""
    most = float(table[value].abs().max()) or 1.0
    scale = (
        alt.Scale(domain=[-most, 0, most], range=SIGNED) if signed else alt.Scale(domain=[0, most], scheme="viridis")
    )
    squares = (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=alt.X("feature:O", title="feature", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("other:O", title="feature"),
            color=alt.Color(f"{value}:Q", scale=scale, legend=alt.Legend(title=value, format="~g")),
            tooltip=["feature:O", "other:O", alt.Tooltip(f"{value}:Q", format="+.3g" if signed else ".3g")],
        )
    )
    show_chart(squares, 400, alternative)


def feature_name(run: Run, own: str, feature: int) -> str:
    """An eigen feature as HTML, a link to its page where the set `own` of the run shows it."""
    if own and feature < len(run.sets[own]):
        there = {"run": run_access.run_key(), "set": own, "feature": str(feature)}
        return views.anchor("feature", run.sets[own].label(feature), there)
    return safe(f"eigen {feature}")


def show_pairs(run: Run, own: str, pairs: Iterable[tuple[int, int, float]], value: str, signed: bool) -> None:
    """Pairs of features with their value, each a link."""
    rows = [
        [feature_name(run, own, one), feature_name(run, own, other), figure(size, signed)] for one, other, size in pairs
    ]
    st.html(views.table(["feature", "with", value], rows, numbers=[2]))
