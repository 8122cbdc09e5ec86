"""Interactions of the leading eigen features as a matrix and as a graph, and pairs of them as a table of links."""

from __future__ import annotations

from collections.abc import Iterable

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.dual_tables import interaction_table
from feature_lens.analysis.example_features import leading_set
from feature_lens.analysis.interaction_graph import Drawing, interaction_graph
from feature_lens.analysis.render import ACCENT
from feature_lens.analysis.run import Run
from feature_lens_app import address, run_access, views
from feature_lens_app.charts import show_chart
from feature_lens_app.words import count_of, figure, safe

SIGNED = ["#2166AC", "#F7F7F7", "#B2182B"]
ALONE = "#8A8F98"
HEIGHT = 400


def show_interactions(run: Run) -> None:
    """The section of the Dual page: the matrix beside the graph, then the edges; nothing where there are none."""
    pairs = interaction_table(run)
    if len(pairs) == 0:
        return
    views.head(
        "Interactions of the leading eigen features",
        "How a step along one feature changes another: second derivatives of the outputs along both, at the trained "
        "parameters. Size is the root of the mean square over examples and outputs, mean keeps the sign.",
    )
    shown = address.segments("Colour", "colour", ["size", "mean"], "size")
    drawing, own = interaction_graph(run), leading_set(run)
    left, right = st.columns(2, gap="large")
    with left:
        views.quiet("Every pair.")
        show_matrix(pairs, shown, shown == "mean", f"{shown.capitalize()} of every pair of leading eigen features")
    with right:
        count = len(drawing.edges)
        if count == 0:
            views.quiet(
                "No graph: no pair is larger than 99 % of the pairs of directions turned at random within the same span."
            )
            return
        views.quiet(
            f"{count_of(count, 'pair')} larger than 99 % of the pairs of directions turned at random within the same "
            "span; the wider the line, the larger."
        )
        _show_graph(run, drawing, own)
    edges = drawing.edges
    show_pairs(run, own, zip(edges["feature"], edges["other"], edges["size"], strict=True), "size", False)


def _show_graph(run: Run, drawing: Drawing, own: str) -> None:
    """Nodes on a circle, each a link to its feature where the run shows it; grey without an edge."""
    nodes, edges = drawing.nodes.copy(), drawing.edges
    known = len(run.sets[own]) if own else 0
    nodes["href"] = [
        views.url("feature", {"run": run_access.run_key(), "set": own, "feature": str(feature)})
        if feature < known
        else ""
        for feature in nodes["feature"]
    ]
    nodes["kind"] = ["in an edge" if degree else "in none" for degree in nodes["degree"]]
    most = float(edges["mean"].abs().max()) or 1.0
    square = alt.Scale(domain=[-1.15, 1.15])
    x = alt.X("x:Q", axis=None, scale=square)
    y = alt.Y("y:Q", axis=None, scale=square)
    lines = (
        alt.Chart(edges)
        .mark_rule(strokeCap="round")
        .encode(
            x=x,
            y=y,
            x2="x2:Q",
            y2="y2:Q",
            strokeWidth=alt.StrokeWidth(
                "size:Q", scale=alt.Scale(domain=[0, float(edges["size"].max())], range=[0, 8]), legend=None
            ),
            color=alt.Color(
                "mean:Q",
                scale=alt.Scale(domain=[-most, 0, most], range=["#2166AC", "#B9BCC2", "#B2182B"]),
                legend=alt.Legend(title="mean", format="~g"),
            ),
            tooltip=[
                "feature:O",
                alt.Tooltip("other:O", title="with"),
                alt.Tooltip("size:Q", format=".3g"),
                alt.Tooltip("mean:Q", format="+.3g"),
            ],
        )
    )
    base = alt.Chart(nodes).encode(x=x, y=y, href="href:N", tooltip=["feature:O", "degree:Q"])
    dots = base.mark_circle(size=620, opacity=1).encode(
        fill=alt.Fill("kind:N", scale=alt.Scale(domain=["in an edge", "in none"], range=[ACCENT, ALONE]), legend=None)
    )
    names = base.mark_text(color="white", fontSize=12, fontWeight=600).encode(text="feature:O")
    show_chart(
        alt.layer(lines, dots, names).resolve_scale(color="independent", fill="independent"),
        HEIGHT,
        "Graph of the leading eigen features with edges: "
        + ", ".join(f"{one} with {other}" for one, other in zip(edges["feature"], edges["other"], strict=True)),
    )


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
    show_chart(squares, HEIGHT, alternative)


def _feature_name(run: Run, own: str, feature: int) -> str:
    """An eigen feature as HTML, a link to its page where the set `own` of the run shows it."""
    if own and feature < len(run.sets[own]):
        there = {"run": run_access.run_key(), "set": own, "feature": str(feature)}
        return views.anchor("feature", run.sets[own].label(feature), there)
    return safe(f"eigen {feature}")


def show_pairs(run: Run, own: str, pairs: Iterable[tuple[int, int, float]], value: str, signed: bool) -> None:
    """Pairs of features with their value, each a link."""
    rows = [
        [_feature_name(run, own, one), _feature_name(run, own, other), figure(size, signed)]
        for one, other, size in pairs
    ]
    st.html(views.table(["feature", "with", value], rows, numbers=[2]))
