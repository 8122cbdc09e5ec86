"""What training added to one output of one example, as steps from the output before training to the output."""

from __future__ import annotations

import altair as alt
import pandas as pd

from feature_lens.analysis.dual_tables import By, Closing, contribution_table
from feature_lens.analysis.render import ACCENT
from feature_lens.analysis.run import Run
from feature_lens_app.charts import show_chart
from feature_lens_app.words import shorten

LOWERS = "#B2182B"
MOST_STEPS = 16


def show_waterfall(run: Run, example: int, output: int, by: By, sums: Closing) -> None:
    """One bar per group, the largest first, between two lines: the output before training, and the output."""
    steps = contribution_table(run, example, output, by, MOST_STEPS)
    steps["name"] = [shorten(name, 40) for name in steps["name"]]
    steps["direction"] = ["raises the output" if share >= 0 else "lowers it" for share in steps["contribution"]]
    bars = (
        alt.Chart(steps)
        .mark_bar(height={"band": 0.72})
        .encode(
            x=alt.X("start:Q", title="output, step by step", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=12)),
            x2="end:Q",
            y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=240)),
            color=alt.Color(
                "direction:N",
                scale=alt.Scale(domain=["raises the output", "lowers it"], range=[ACCENT, LOWERS]),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=["name:N", alt.Tooltip("contribution:Q", format="+.3g")],
        )
    )
    ends = pd.DataFrame({"at": [sums.initial, sums.output], "name": ["before training", "output"]})
    rules = alt.Chart(ends).mark_rule(color="#222428", strokeDash=[3, 3]).encode(x="at:Q", tooltip=["name:N", "at:Q"])
    show_chart(
        bars + rules, 110 + 26 * len(steps), "Contributions as steps from the output before training to the output"
    )
