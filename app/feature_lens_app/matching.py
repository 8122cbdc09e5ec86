"""Two features on the same examples: ends side by side, a scatter plot, best matches of whole sets beside a null."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.compare import best_matches, in_common, verdict
from feature_lens.analysis.orders import end_of
from feature_lens.analysis.render import ACCENT, format_value
from feature_lens.analysis.run import Run
from feature_lens.feature_set import FeatureSet
from feature_lens_app import address, run_access
from feature_lens_app.charts import class_scale, show_chart
from feature_lens_app.facts import moments, spectral
from feature_lens_app.run_access import BY_KEY, Opened
from feature_lens_app.views import anchor, figures, head, link, quiet, sheet, sheets, table, view_title
from feature_lens_app.words import count_of, safe, shorten

TOP = 10
ACROSS = 5
MOST_POINTS = 2000
PER_PAGE = 25
TIGHT = alt.Scale(zero=False, nice=True)


@dataclass(frozen=True)
class Side:
    """One of the two features compared."""

    letter: str
    feature_set: FeatureSet
    feature: int
    view: str

    @property
    def name(self) -> str:
        """Label of the feature."""
        return shorten(self.feature_set.label(self.feature))

    def axis(self, run: Run) -> str:
        """What its values are called on an axis."""
        return f"{self.letter}: {self.name}, {view_title(run, self.view)}"


def show_name(side: Side) -> None:
    """The feature's name as a link to its page, with its figures."""
    params = {
        "run": run_access.run_key(),
        "set": side.feature_set.name,
        "feature": str(side.feature),
        "view": side.view,
    }
    link("feature", side.name, params, f"side-{side.letter}")
    found = [*spectral(side.feature_set, side.feature)[:2], *moments(side.feature_set, side.feature, side.view)]
    st.html(figures(found, small=True))


def show_ends(opened: Opened, a: Side, b: Side) -> None:
    """The highest and the lowest examples of both features, those they share in a frame."""
    for end in ("highest", "lowest"):
        found = [end_of(opened.run, s.feature_set.name, s.feature, s.view, end, TOP) for s in (a, b)]
        shared = frozenset(found[0][0].tolist()) & frozenset(found[1][0].tolist())
        for column, side, (positions, values) in zip(st.columns(2, gap="large"), (a, b), found, strict=True):
            caption = f"<b>{side.letter}, {end}</b> · {safe(side.name)}"
            what = f"{side.letter}, {end} examples"
            with column:
                sheets(sheet(opened, positions, values, ACROSS, what, caption, highlight=shared))


def show_scatter(opened: Opened, a: Side, b: Side) -> None:
    """Value against value, one point per example; for two features with stored values."""
    run = opened.run
    head("On the same examples")
    if missing := [s for s in (a, b) if not s.feature_set.gives_values]:
        titles = " and ".join(dict.fromkeys(f"'{shorten(s.feature_set.card.title)}'" for s in missing))
        quiet(f"Not drawn: {titles} keeps both ends and moments only, not the value of every example.")
        return
    first, second = (s.feature_set.values(s.feature, s.view) for s in (a, b))
    both, correlation = in_common(first, second)
    of = "all examples"
    if len(both) < len(run.examples):
        of = f"the {count_of(len(both), 'example')} of {len(run.examples):,} of which both have a value"
    step = max(1, -(-len(both) // MOST_POINTS))
    some = both[::step]
    data = pd.DataFrame({"a": first[some], "b": second[some], "example": run.examples.ids[some].astype(str)})
    drawn = f"all {len(some):,}" if step == 1 else f"every {step}th of them, {len(some):,} in all"
    said = f"is {correlation:+.3f}"
    if math.isnan(correlation):
        said = f"is not defined, since {'one of the two does not vary' if len(both) > 1 else 'it takes two of them'}"
    quiet(f"Spearman correlation over {of} {said}. Drawn: {drawn}.")
    labels = run.examples.labels
    colour: object = alt.value(ACCENT)
    if labels is not None:
        data["class"] = [run.examples.class_name(label) for label in labels[some].tolist()]
        if int(labels.max()) < 20:
            names = [run.examples.class_name(label) for label in range(int(labels.max()) + 1)]
            colour = alt.Color("class:N", scale=class_scale(names), legend=alt.Legend(title=None, symbolOpacity=1))
    tooltip = ["example:N", *(["class:N"] if labels is not None else [])]
    chart = (
        alt.Chart(data)
        .mark_circle(size=26, opacity=0.65)
        .encode(
            x=alt.X("a:Q", title=a.axis(run), scale=TIGHT, axis=alt.Axis(format=".6~g", tickCount=8)),
            y=alt.Y("b:Q", title=b.axis(run), scale=TIGHT, axis=alt.Axis(format=".6~g", tickCount=6)),
            color=colour,
            tooltip=[*tooltip, alt.Tooltip("a:Q", format="+.3g"), alt.Tooltip("b:Q", format="+.3g")],
        )
    )
    with st.columns([2, 1])[0]:
        show_chart(chart, 420, f"Scatter plot of {a.name} and {b.name} over the examples")


@st.cache_data(
    show_spinner="Matching every feature of one set with every feature of the other …",
    max_entries=32,
    hash_funcs=BY_KEY,
)
def _matches(opened: Opened, set_a: str, set_b: str, view_a: str, view_b: str) -> pd.DataFrame:
    return best_matches(opened.run, set_a, set_b, view_a, view_b)


def show_matches(opened: Opened, a: Side, b: Side) -> None:
    """The best match of every feature of one set in the other, either way, beside the shuffled null."""
    head("Best matches", "For each feature the one of the other set that orders the examples most alike, up to sign.")
    if not (a.feature_set.stores_values and b.feature_set.stores_values):
        quiet("Matches need the value of every example; choose two sets that store them.")
        return
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        way = address.segments(
            "Match",
            "way",
            ["ab", "ba"],
            "ab",
            shown=lambda w: "each of A in B" if w == "ab" else "each of B in A",
            drops=("page",),
        )
    source, target = (a, b) if way == "ab" else (b, a)
    with right:
        by = address.segments(
            "Order",
            "by",
            ["strength", "feature"],
            "strength",
            shown=lambda o: "strongest first" if o == "strength" else "by feature number",
            drops=("page",),
        )
    found = _matches(opened, source.feature_set.name, target.feature_set.name, source.view, target.view)
    quiet(verdict(found))
    if by == "strength":
        found = found.sort_values("spearman", key=lambda column: column.abs(), ascending=False, kind="stable")
    page = address.pages("page", max(1, -(-len(found) // PER_PAGE)))
    rows = [
        _match_row(source, target, row) for _, row in found.iloc[(page - 1) * PER_PAGE : page * PER_PAGE].iterrows()
    ]
    st.html(
        table(
            ["feature", "best match", "Spearman", "shuffled", "Jaccard of the top 16", "shuffled", ""],
            rows,
            numbers=[2, 3, 4, 5],
        )
    )


def _match_row(source: Side, target: Side, row: pd.Series) -> list[str]:
    run_key = run_access.run_key()
    feature, match = int(row["feature"]), int(row["match"])
    one = {"run": run_key, "set": source.feature_set.name, "feature": str(feature), "view": source.view}
    name = anchor("feature", shorten(str(row["label"])), one)
    if match < 0:
        return [name, "none: it does not vary", "", "", "", "", ""]
    other = {"run": run_key, "set": target.feature_set.name, "feature": str(match), "view": target.view}
    pair = one | {"set_b": target.feature_set.name, "feature_b": str(match), "view_b": target.view}
    return [
        name,
        anchor("feature", shorten(str(row["match_label"])), other),
        format_value(float(row["spearman"])),
        format_value(float(row["null_spearman"]), signed=False),
        f"{float(row['jaccard']):.2f}",
        f"{float(row['null_jaccard']):.2f}",
        anchor("compare", "compare", pair),
    ]
