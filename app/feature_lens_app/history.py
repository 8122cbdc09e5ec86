"""The history of one feature: how much of it there was at each step of training, matched backwards from the end."""

from __future__ import annotations

import streamlit as st

from feature_lens.analysis.dynamics import feature_history, history_sentences
from feature_lens.analysis.run import Run
from feature_lens.feature_set import FeatureSet
from feature_lens_app.charts import show_chart
from feature_lens_app.courses import courses, step_axis
from feature_lens_app.views import head, notes

NAMED = {
    "correlation_to_final": "|correlation| of its match with it",
    "within_leading": "share within all leading features",
    "group_overlap": "share of its group within their matches",
}


def show_history(run: Run, feature_set: FeatureSet, feature: int) -> None:
    """Sentences, what there was of the feature at each step, and its eigenvalue; nothing where the run has no history."""
    table = feature_history(run, feature_set.name, feature)
    if table.empty:
        return
    head(
        "History of this feature",
        "From the trained network backwards: at each step the feature that it is matched to, pair by pair of successive "
        "steps.",
    )
    notes(history_sentences(run, feature_set.name, feature))
    x = step_axis([int(step) for step in table["step"]], "log")
    alone = (table["group_overlap"] - table["correlation_to_final"] ** 2).abs().max() < 1e-6
    named = {name: words for name, words in NAMED.items() if not (alone and name == "group_overlap")}
    left, right = st.columns(2, gap="large")
    with left:
        chart = courses(table, named, x, "how much of it there is", domain=[0, 1])
        show_chart(chart, 290, "How much of this feature there was at each step of training")
    with right:
        chart = courses(table, {"eigenvalue": "eigenvalue of its match"}, x, "eigenvalue", log=True)
        show_chart(chart, 290, "Eigenvalue of the feature that it is matched to at each step of training")
