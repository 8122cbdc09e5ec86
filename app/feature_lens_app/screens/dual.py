"""Dual: how well linear models in the network's features do, beside the controls that they are to be judged by."""

from __future__ import annotations

import altair as alt
import streamlit as st

from feature_lens.analysis.dual_tables import completeness_sentence, dual_headline, ticket_sentences, ticket_table
from feature_lens.dual_record import KERNELS
from feature_lens_app import address, run_access, views
from feature_lens_app.charts import show_chart
from feature_lens_app.expansion import show_expansion
from feature_lens_app.interactions import show_interactions
from feature_lens_app.words import figure, safe

ORDERS = {
    "contribution": "largest contribution first",
    "per_layer": "the same, equal shares of layers",
    "random": "at random",
    "smallest": "smallest first",
    "eigen": "eigen features",
}
KINDS = {"sum": "a sum of contributions", "network": "a real network"}
FIGURES = {"agreement": "agreement", "r2": "R2", "accuracy": "accuracy"}

opened = run_access.current()
run = opened.run

views.title("Dual model", "The trained network as a linear regression on its own features.")
if run.dual is None:
    views.quiet("This run holds no dual model. Extract it again with --dual; the demo has one.")
    raise address.PageEnd

if run.dual.fidelities:
    st.html(f'<p class="fl-lead">{safe(dual_headline(run))}</p>')
    targets = [name for name in ("labels", "distillation") if any(one.target == name for one in run.dual.fidelities)]
    words = {"labels": "labels", "distillation": "the network's outputs"}
    target = address.segments("Fitted to", "target", targets, targets[0], shown=lambda name: words[name])
    views.head(
        "Regressions on features",
        "Ridge regressions fitted on the training examples, their ridge chosen by leaving examples out. R2 is to the "
        "network's outputs on held-out examples, agreement is with its predicted class.",
    )
    names = ["kernel", "outputs", "form", "R2", "agreement", "accuracy", "left-out R2", "ridge"]
    rows = [
        [
            safe(KERNELS.get(one.kernel, one.kernel)),
            "summed" if one.reduction == "trace" else "each",
            "expanded about its parameters" if one.form == "expanded" else "from zero",
            *(
                "–" if value is None else figure(value)
                for value in (one.r2, one.agreement, one.accuracy, one.left_out_r2, one.ridge)
            ),
        ]
        for one in run.dual.fidelities
        if one.target == target
    ]
    st.html(views.table(names, rows, numbers=[3, 4, 5, 6, 7]))
    views.notes(run.dual.notes if target == "distillation" else ())
show_expansion(run)
if sentence := completeness_sentence(run):
    views.head("What training added")
    views.quiet(f"{sentence} The Example page shares it out, output by output.")
if run.dual.tickets:
    views.head(
        "Lottery tickets among features",
        "How few of what training added reproduce the network on held-out examples: features are kept in an order, and "
        "the rest of what training added is left out.",
    )
    views.notes(ticket_sentences(run))
    left, right = st.columns([1, 1])
    with left:
        kind = address.segments("Kept as", "kept", ["sum", "network"], "sum", shown=lambda name: KINDS[name])
    with right:
        table = ticket_table(run)
        known = [name for name in FIGURES if table[name].notna().any()]
        what = address.segments("Shown", "shown", known, known[0], shown=lambda name: FIGURES[name])
    table = table[(table["kind"] == kind) & table[what].notna() & (table["kept"] > 0)]
    table["order"] = [ORDERS.get(name, name) for name in table["order"]]
    scale = alt.Scale(domain=list(ORDERS.values()), range=["#2F6DB5", "#009E73", "#8A8F98", "#D55E00", "#CC79A7"])
    low = max(float(table[what].min()), -1.0)
    lines = (
        alt.Chart(table)
        .mark_line(point=True, clip=True)
        .encode(
            x=alt.X(
                "kept:Q", title="features kept", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="~s")
            ),
            y=alt.Y(f"{what}:Q", title=FIGURES[what], scale=alt.Scale(domain=[low, 1.0])),
            color=alt.Color(
                "order:N", scale=scale, sort=None, legend=alt.Legend(title=None, orient="top", labelLimit=400)
            ),
            tooltip=["order:N", "kept:Q", alt.Tooltip(f"{what}:Q", format=".3f")],
        )
    )
    show_chart(lines, 320, f"{FIGURES[what]} against the number of features kept, for every order")
show_interactions(run)
views.notes(run.dual.remarks)
