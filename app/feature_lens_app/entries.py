"""One feature against each entry of the input, for runs whose examples are plain vectors: bars in the entries' order."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.entries import entry_correlations
from feature_lens.analysis.render import NEGATIVE, POSITIVE, format_value
from feature_lens.analysis.run import Run
from feature_lens.feature_set import FeatureSet
from feature_lens_app.charts import show_chart
from feature_lens_app.views import head
from feature_lens_app.words import safe


def show_entries(run: Run, feature_set: FeatureSet, feature: int, view: str) -> None:
    """The bars, and in words which entry goes with the feature most; nothing for examples of another kind."""
    table = entry_correlations(run, feature_set.name, feature, view)
    if table is None:
        return
    strongest = int(table["correlation"].abs().to_numpy().argmax())
    said = f"Most with entry {strongest}: {format_value(float(table['correlation'].to_numpy()[strongest]))}."
    head("By entry of the input")
    st.html(
        '<p class="fl-quiet fl-wide">Correlation of the feature with each entry of the input over all examples of which '
        f"it has a value, in the order of the entries. {safe(said)}</p>"
    )
    show_chart(_bars(table), 180, f"Correlation of feature {feature} with each entry of the input. {said}")


def _bars(table: pd.DataFrame) -> Any:
    axis = alt.Axis(labelOverlap=True, labelAngle=0, grid=False)
    return (
        alt.Chart(table)
        .mark_bar()
        .encode(
            x=alt.X("entry:O", title="entry of the input", axis=axis, scale=alt.Scale(paddingInner=0.25)),
            y=alt.Y("correlation:Q", title="correlation", scale=alt.Scale(domain=[-1, 1]), axis=alt.Axis(tickCount=5)),
            color=alt.condition("datum.correlation > 0", alt.value(POSITIVE), alt.value(NEGATIVE)),
            tooltip=["entry:O", alt.Tooltip("correlation:Q", format="+.3f")],
        )
    )
