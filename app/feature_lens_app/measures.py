"""All kinds of features of a run by all measures: what they say first, selectivity against number, tables by theme."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.headline import format_auroc
from feature_lens.analysis.measures.descriptions import Measure, measure_of, theme_words
from feature_lens.analysis.measures.measured_kinds import MeasureSettings, halves_of
from feature_lens.analysis.measures.set_measures import measure_curves, measured_names, measures_sentence, set_measures
from feature_lens.analysis.orders import default_view
from feature_lens.analysis.render import CLASS_COLOURS
from feature_lens.analysis.run import Run
from feature_lens_app import address, run_access
from feature_lens_app.charts import show_chart
from feature_lens_app.run_access import BY_KEY, Opened
from feature_lens_app.views import anchor, head, quiet, table
from feature_lens_app.words import safe, shorten

BUDGETS = ("8", "16", "32", "64", "128")
ACROSS = 5
NULL = "99 % of shuffles stay below"
GREY = "#9A9DA3"


@st.cache_data(show_spinner="Measuring every kind of feature …", max_entries=16, hash_funcs=BY_KEY)
def _measured(opened: Opened, settings: MeasureSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    return set_measures(opened.run, settings), measure_curves(opened.run, settings)


def show_measures(opened: Opened) -> None:
    """The sentence, the curves and a table for each theme."""
    run = opened.run
    given = address.segments("Features that every kind is given", "budget", BUDGETS, "64")
    settings = MeasureSettings(features=int(given))
    found, curves = _measured(opened, settings)
    st.html(f'<p class="fl-lead">{safe(measures_sentence(found))}</p>')
    quiet(
        f"Every kind is given its leading {given} features in its own order, or all it has; each view of a feature "
        f"counts as one. What is chosen is chosen on one part of the examples and reported on "
        f"{halves_of(run, settings.seed).words}. Below a figure: its {settings.level:.0%} interval over resampled examples, "
        "and after the stroke what 99 % of shuffles stay below; for sparsity, of normal numbers. Bold: the best."
    )
    if len(curves):
        _show_curves(curves)
    themes: dict[str, list[str]] = {}
    for name in measured_names(found):
        themes.setdefault(measure_of(name).theme, []).append(name)
    for theme, names in themes.items():
        _show_theme(run, found, theme, names)


def _show_curves(curves: pd.DataFrame) -> None:
    names = list(dict.fromkeys(curves["measure"]))
    head("Against the number of features", "How far each kind comes with its first 1, 2, 4, … features.")
    with st.columns([2, 3])[0]:
        chosen = address.select("Measure", "measure", names, names[0], shown=lambda name: shorten(_curve_title(name)))
    data = curves[curves["measure"] == chosen].dropna(subset=["value"]).assign(kind=lambda t: t["kind"].map(shorten))
    kinds = list(dict.fromkeys(data["kind"]))
    scale = alt.Scale(domain=kinds, range=[CLASS_COLOURS[at % len(CLASS_COLOURS)] for at in range(len(kinds))])
    legend = alt.Legend(title=None, orient="right", labelLimit=330, symbolOpacity=1, symbolStrokeWidth=0)
    colour = alt.Color("kind:N", scale=scale, legend=legend)
    x = alt.X("k:Q", title="features", scale=alt.Scale(type="log", base=2), axis=alt.Axis(format="d", grid=False))
    y = alt.Y("value:Q", title=_curve_title(chosen), scale=alt.Scale(zero=False, nice=True))
    lines = (
        alt.Chart(data)
        .mark_line(point=alt.OverlayMarkDef(size=36, filled=True), strokeWidth=1.8)
        .encode(
            x=x,
            y=y,
            color=colour,
            strokeDash=alt.condition("indexof(datum.family, 'effective') == 0", alt.value([1, 0]), alt.value([5, 3])),
            tooltip=[
                "kind:N",
                alt.Tooltip("k:Q", title="features"),
                *(alt.Tooltip(f"{part}:Q", format=".3f") for part in ("value", "low", "high", "null_99")),
            ],
        )
    )
    spread = alt.Chart(data).mark_rule(strokeWidth=1, opacity=0.55).encode(x=x, y="low:Q", y2="high:Q", color=colour)
    layers = [spread, lines]
    bar = data.groupby("k", as_index=False)["null_99"].max().dropna()
    if len(bar):
        layers.append(alt.Chart(bar).mark_line(color=GREY, strokeDash=[2, 3]).encode(x=x, y="null_99:Q"))
        quiet(f"Drawn through: effective features; dashed: all others; dotted and grey: {NULL}, at most.")
    show_chart(alt.layer(*layers), 340, f"{_curve_title(chosen)} against the number of features, a line per kind")


def _curve_title(name: str) -> str:
    return "R2 of the outputs, best first by pursuit" if name == "r2_pursued" else measure_of(name).title


def _show_theme(run: Run, found: pd.DataFrame, theme: str, names: list[str]) -> None:
    measures = {name: measure_of(name) for name in names}
    words = theme_words(names)
    head(theme, words[:1].upper() + words[1:])
    shown = found[found[names].notna().any(axis=1)].set_index("kind", drop=False)
    if shown.empty:
        quiet("Not measured here: no kind has what it takes.")
        return
    for start in range(0, len(names), ACROSS):
        across = names[start : start + ACROSS]
        best = {name: _best(shown[name], measures[name]) for name in across}
        rows = [
            [_named(run, row), *(_cell(row, name, row["kind"] == best[name]) for name in across)]
            for row in shown.to_dict("records")
        ]
        titles = [shorten(measures[name].title) for name in across]
        st.html(table(["kind of feature", *titles], rows, numbers=range(1, len(across) + 1)))
    if missing := [shorten(str(kind)) for kind in found["kind"] if kind not in shown.index]:
        quiet(f"Not measured: {'; '.join(missing)}. What it takes is not kept in the run, or it would say nothing.")


def _best(values: pd.Series, measure: Measure) -> object:
    if measure.better == 0 or values.notna().sum() < 2:
        return None
    return (values * measure.better).idxmax()


def _named(run: Run, row: Mapping[Hashable, Any]) -> str:
    name = shorten(str(row["kind"]))
    if not row["set"] or row["family"] == row["kind"]:
        return f'<span class="fl-kind">{safe(name)}</span>'
    feature_set = run.sets[str(row["set"])]
    here = {"run": run_access.run_key(), "set": feature_set.name, "view": default_view(feature_set)}
    return f'<span class="fl-kind">{anchor("browse", name, here)}</span>'


def _cell(row: Mapping[Hashable, Any], name: str, best: bool) -> str:
    value, low, high, bar = (float(row[part]) for part in (name, f"{name}_low", f"{name}_high", f"{name}_null_99"))
    if value != value:
        over = name.startswith(("needed", "pursued")) and row["r2"] == row["r2"]
        return f'<span class="fl-quiet">{"not reached" if over else "not measured"}</span>'
    write = _writer(name)
    under = [f"{write(low)} – {write(high) if high == high else 'not reached'}"] if low == low else []
    under += [write(bar)] if bar == bar else []
    written = f"<b>{safe(write(value))}</b>" if best else safe(write(value))
    return f'{written}<span class="fl-under">{safe(" / ".join(under))}</span>'


def _writer(name: str) -> Callable[[float], str]:
    """How figures of a measure are written: AUROCs as on the overview, counts whole, all else to three digits."""
    if name.endswith(("auroc", "precision")):
        return format_auroc
    if name.startswith(("needed", "pursued")):
        return lambda value: f"{value:.0f}"
    return lambda value: (f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}").replace("-", "−")
