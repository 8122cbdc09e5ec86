"""Study: what was found over several seeds, measure by measure, every feature set beside every baseline."""

from __future__ import annotations

import altair as alt
import streamlit as st

from feature_lens.analysis.measures.descriptions import measure_of
from feature_lens.analysis.measures.set_measures import measured_names
from feature_lens.analysis.orders import default_view
from feature_lens.analysis.study.families import COLOURS
from feature_lens.analysis.study.table import STUDY, study_frame, study_question, study_sentences
from feature_lens_app import address, run_access, views
from feature_lens_app.charts import show_chart
from feature_lens_app.words import figure, safe, shorten

run = run_access.current().run
found = study_frame(run)

if found is None:
    views.title("Study", "Effective features held against neurons and all other baselines, over several seeds.")
    views.quiet(
        "This run belongs to no study. Make one with: feature-lens study digits, then open studies/digits.h5; "
        "feature-lens study all makes every one."
    )
    raise address.PageEnd

sentences = study_sentences(run)
views.title("Study", study_question(run))
st.html(f'<p class="fl-lead">{safe(sentences[0])}</p>')
views.notes(sentences[1:])

views.head(
    "Measure by measure",
    "A dot is the mean over the seeds, its line the interval; a stroke, where there is one, is what 99 % of shuffled "
    "examples stay below; dashed, the best of the effective features. Sets that choose their number of features by gaps "
    "have fewer than the others. The best set of a family is chosen on the examples that it is reported on, which favours "
    "families of many sets.",
)
names = [name for name in measured_names(found) if found[name].notna().any()]
with st.columns([2, 3])[0]:
    name = address.select("Measure", "measure", names, names[0], shown=lambda one: shorten(measure_of(one).title))
measure = measure_of(name)
views.quiet(f"{measure.words[:1].upper()}{measure.words[1:]}.")
shown = found[found[name].notna()].rename(
    columns={name: "value", f"{name}_low": "low", f"{name}_high": "high", f"{name}_null_99": "null"}
)[["kind", "set", "family", "features", "value", "low", "high", "null"]]
families = [family for family in COLOURS if family in set(shown["family"])]
rows = alt.Y("kind:N", sort=None, title=None, axis=alt.Axis(labelLimit=420, labelOverlap=False))
colour = alt.Color(
    "family:N",
    scale=alt.Scale(domain=families, range=[COLOURS[family] for family in families]),
    sort=None,
    legend=alt.Legend(title=None, orient="top", columns=4, labelLimit=320),
)
# A regression that fails on a few examples may be far below 0, which is all there is to see of it.
scale = alt.Scale(domain=[-0.1, 1.05], clamp=True) if name == "r2" else alt.Scale(zero=False)
across = alt.X("value:Q", title=measure.title, scale=scale)
base = alt.Chart(shown)
layers = [
    base.mark_rule(strokeWidth=2, opacity=0.55).encode(
        x=alt.X("low:Q", title=measure.title), x2="high:Q", y=rows, color=colour
    ),
    base.mark_tick(color="#8A8F98", thickness=1.5).encode(x="null:Q", y=rows),
    base.mark_circle(size=64, opacity=1).encode(
        x=across,
        y=rows,
        color=colour,
        tooltip=[
            "kind:N",
            "family:N",
            alt.Tooltip("features:Q", title="features"),
            *(alt.Tooltip(f"{part}:Q", format=".3f") for part in ("value", "low", "high", "null")),
        ],
    ),
]
own = shown.loc[shown["family"] == "effective features", "value"]
if len(own) and measure.better:
    best = own.max() if measure.better > 0 else own.min()
    line = alt.Chart(shown.assign(best=best).head(1))
    layers.insert(0, line.mark_rule(strokeDash=[4, 3], color=COLOURS["effective features"]).encode(x="best:Q"))
show_chart(alt.layer(*layers), 60 + 22 * len(shown), f"{measure.title} of every feature set, with intervals")

cells = []
for row in shown.to_dict("records"):
    title = shorten(str(row["kind"]), 60)
    held = run.sets.get(str(row["set"]))
    if held is not None and row["kind"] not in ("the network's own logits", "random directions"):
        here = {"run": run_access.run_key(), "set": held.name, "view": default_view(held)}
        title = views.anchor("browse", title, here)
    else:
        title = safe(title)
    interval = "–" if row["low"] != row["low"] else f"{figure(row['low'])} to {figure(row['high'])}"
    null = "–" if row["null"] != row["null"] else figure(row["null"])
    cells.append([title, safe(row["family"]), str(row["features"]), figure(row["value"]), interval, null])
st.html(
    views.table(["feature set", "competes as", "features", measure.title, "interval", "by chance"], cells, [2, 3, 4, 5])
)
further = ", ".join(name for name in run.tables if name.startswith(f"{STUDY}_") and name != "study_families")
views.quiet(f"All figures are tables of the Export page: study{', ' if further else ''}{further}.")
