"""The part of the Dual page that holds the expansion about the initial parameters beside the network."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.expansion_tables import (
    LIMITS,
    ORDER_NAMES,
    best_order,
    expansion_beside,
    expansion_of,
    expansion_points,
    training_of,
    verdict_on,
)
from feature_lens.analysis.run import Run
from feature_lens_app import address, views
from feature_lens_app.charts import ACCENT, show_chart
from feature_lens_app.words import figure, safe

HEAD = "The trained function in closed form"


def show_expansion(run: Run) -> None:
    """Verdict, table and one output's predictions, example by example; a line that says why where there is none."""
    if run.dual is None or run.dual.expansion is None:
        views.head(HEAD, "This run holds no expansion about the initial parameters; a remark below says why.")
        return
    found = expansion_of(run)
    views.head(HEAD, f"{training_of(found)} The Learn page explains the orders.")
    views.notes([verdict_on(found), best_order(found), LIMITS])
    rows = [
        [safe(row["words"]), _r2(row["r2"]), "–" if pd.isna(row["agreement"]) else figure(row["agreement"])]
        for row in expansion_beside(run).to_dict("records")
    ]
    st.html(views.table(["held-out examples", "R2", "agreement"], rows, numbers=[1, 2]))
    training = len(run.examples.fitting)
    if found.examples < training:
        views.quiet(
            f"The expansion is of training on {found.examples:,} of the {training:,} training examples, evenly spread; the "
            "regressions are fitted on all of them."
        )
    c = int(run.outputs.shape[1])
    output = address.select(
        "Output",
        "output",
        [str(place) for place in range(c)],
        "0",
        shown=lambda place: views.view_title(run, f"output:{place}"),
    )
    order = address.segments("Expansion to", "order", list(ORDER_NAMES), "leading", shown=lambda name: _SHORT[name])
    points = expansion_points(run, int(output))
    low, high = points["network"].min(), points["network"].max()
    diagonal = alt.Chart(pd.DataFrame({"x": [low, high], "y": [low, high]})).mark_line(
        color="#8A8F98", strokeDash=[4, 4]
    )
    dots = (
        alt.Chart(points)
        .mark_circle(color=ACCENT, opacity=0.6, size=36)
        .encode(
            x=alt.X("network:Q", title="the network's output"),
            y=alt.Y(f"{order}:Q", title=f"expansion, {_SHORT[order]}"),
            tooltip=["position:Q", alt.Tooltip("network:Q", format="+.3g"), alt.Tooltip(f"{order}:Q", format="+.3g")],
        )
    )
    chart = diagonal.encode(x="x:Q", y="y:Q") + dots
    show_chart(
        chart, 320, f"What the expansion says of each held-out example against the network's output, {_SHORT[order]}"
    )


_SHORT = {"leading": "leading order", "next": "next-to-leading order", "squared": "with second order in dNTK"}


def _r2(value: float) -> str:
    return figure(value) if value >= -1 else "below -1"
