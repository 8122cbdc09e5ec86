"""Example: one input in full, its outputs, who contributed to each of them, and the training examples behind it."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.dual_tables import (
    closing,
    contribution_table,
    output_table,
    support_table,
    weight_contributions,
)
from feature_lens.analysis.render import ACCENT
from feature_lens_app import address, run_access, views
from feature_lens_app.charts import show_chart
from feature_lens_app.words import figure, safe, shorten

LOWERS = "#B2182B"
MOST_STEPS = 16

opened = run_access.current()
run = opened.run
key = run_access.run_key()
n, c = len(run.examples), int(run.outputs.shape[1])

views.title("Example", "What the network says of one input, and which features and training examples that comes from.")
left, middle, _ = st.columns([1, 2, 3], vertical_alignment="bottom")
with left:
    example = address.whole_number("Example", "example", 0, n - 1, 0, help="Its position in the run")
table = output_table(run, example)
values = table["output"].tolist()
with middle:
    chosen = address.select(
        "Output",
        "output",
        [str(place) for place in range(c)],
        str(values.index(max(values))),
        shown=lambda place: views.view_title(run, f"output:{place}"),
    )
output = int(chosen)
shown, told = st.columns([1, 3], gap="large")
with shown:
    views.sheets(views.sheet(opened, [example], [values[output]], 1, "The example"))
with told:
    heads = {"output": "value", "initial": "before training", "dual": "dual model"}
    names = [safe(views.view_title(run, f"output:{place}")) for place in range(c)]
    columns = [[figure(value, True) for value in table[name]] for name in table.columns]
    rows = list(zip(names, *columns, strict=True))
    st.html(views.table(["output", *(heads[name] for name in table.columns)], rows, numbers=[1, 2, 3]))

if run.dual is None:
    views.quiet("This run holds no dual model, so nothing is said of where the outputs come from. Extract with --dual.")
    st.stop()

if run.dual.has_contributions:
    sums = closing(run, example, output)
    views.head(
        "Contributions",
        f"What training added to this output, from {figure(sums.initial, True)} to {figure(sums.output, True)}, shared "
        f"out among features. Contributions add up to {figure(sums.contributions, True)}; they leave a residual of "
        f"{figure(sums.residual, True)}, which belongs to no feature.",
    )
    by = address.segments("By", "by", ["layer", "tensor", "unit"], "layer")
    steps = contribution_table(run, example, output, by, MOST_STEPS)  # type: ignore[arg-type]  # one of the three
    steps["name"] = [shorten(name, 40) for name in steps["name"]]
    steps["direction"] = ["raises the output" if share >= 0 else "lowers it" for share in steps["contribution"]]
    bars = (
        alt.Chart(steps)
        .mark_bar(height={"band": 0.72})
        .encode(
            x=alt.X("start:Q", title="output, step by step", scale=alt.Scale(zero=False)),
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
    ends = pd.DataFrame({"at": [sums.initial, sums.output]})
    rules = alt.Chart(ends).mark_rule(color="#222428", strokeDash=[3, 3]).encode(x="at:Q")
    show_chart(
        bars + rules, 60 + 24 * len(steps), "Contributions as steps from the output before training to the output"
    )

    weights = weight_contributions(run, example, output)
    canonical = next((name for name, one in run.sets.items() if one.is_canonical), None)
    views.head("Strongest weights", "The weights of largest contribution to this output of this example.")
    rows = []
    for weight, name, share in zip(weights["weight"], weights["name"], weights["contribution"], strict=True):
        there = {"run": key, "set": canonical or "", "feature": str(weight)}
        named = safe(name) if canonical is None else views.anchor("feature", str(name), there)
        rows.append((named, figure(share, True)))
    st.html(views.table(["weight", "contribution"], rows, numbers=[1]))

if run.dual.fitted is not None:
    support = support_table(run, example, output)
    views.head(
        "Supporting training examples",
        "The training examples that the dual model's output rests on most, with what each adds to it or takes from it.",
    )
    views.sheets(
        views.sheet(opened, support["position"], support["contribution"], views.COLUMNS, "Supporting training examples")
    )
    links = [
        views.anchor("example", str(name), {"run": key, "example": str(position), "output": str(output)})
        for position, name in zip(support["position"], support["id"], strict=True)
    ]
    st.html(f'<p class="fl-quiet">By id: {" · ".join(links)}</p>')
views.notes(run.dual.remarks)
