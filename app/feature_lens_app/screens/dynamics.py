"""Dynamics: how fit, kernel, features and dual model change over the steps of training, on one axis."""

from __future__ import annotations

import streamlit as st

from feature_lens.analysis.dynamics import (
    dynamics_headline,
    dynamics_notes,
    dynamics_table,
    fit_crossing,
    held_dynamics,
)
from feature_lens_app import address, run_access, views
from feature_lens_app.charts import show_chart
from feature_lens_app.courses import AXES, COLOURS, QUIET, courses, spectra, step_axis
from feature_lens_app.words import safe

HEIGHT = 250
opened = run_access.current()
run = opened.run

views.title("Training dynamics", "How the network's fit, its kernel and its features came about, snapshot by snapshot.")
if not held_dynamics(run):
    views.quiet(
        "This run holds no training dynamics. Keep the parameters at some steps of training, and extract it again with "
        "--snapshot STEP=PATH for each of them, the trained ones among them; feature-lens demo and feature-lens train keep them."
    )
    raise address.PageEnd

table = dynamics_table(run)
steps = [int(step) for step in table["step"]]
st.html(f'<p class="fl-lead">{safe(dynamics_headline(run))}</p>')
views.notes(dynamics_notes(run))
fit = fit_crossing(run)
mark = None if fit is None else (fit[1].before, fit[1].after)
shaded = "" if fit is None else f" Shaded: where {fit[0]} passes half of its change."
axis = address.segments("Axis of steps", "axis", list(AXES), "log", shown=lambda name: AXES[name])
x = step_axis(steps, axis)
PARTS = {"training": QUIET, "held_out": COLOURS[0], "all": COLOURS[0]}
WORDS = {"training": "training", "held_out": "held-out", "all": "all examples"}


def parts_of(figure: str) -> tuple[dict[str, str], dict[str, str]]:
    """Columns of a figure for each part of the examples, with their words and colours."""
    return (
        {f"{figure}_{part}": words for part, words in WORDS.items()},
        {f"{figure}_{part}": colour for part, colour in PARTS.items()},
    )


def has(figure: str) -> bool:
    """Whether the run has a figure of any part of the examples."""
    return any(f"{figure}_{part}" in table for part in WORDS)


views.head("Fit", f"Against the step, from the first snapshot to the trained network.{shaded}")
left, right = st.columns(2, gap="large")
if has("loss"):
    with left:
        named, colours = parts_of("loss")
        chart = courses(table, named, x, "half squared error", colours=colours, log=True, mark=mark)
        show_chart(chart, HEIGHT, "Loss against the step of training")
score = next((name for name in ("accuracy", "r2") if has(name)), None)
if score is not None:
    with right:
        named, colours = parts_of(score)
        domain = [0, 1] if score == "accuracy" else None
        chart = courses(table, named, x, "accuracy" if domain else "R2", colours=colours, domain=domain, mark=mark)
        show_chart(chart, HEIGHT, f"{score} against the step of training")

views.head("Kernel", run.tables["dynamics_spectrum"].text)
left, right = st.columns(2, gap="large")
with left:
    named = {
        "centred_distance_from_final": "1 − cosine to the final kernel, the mean feature taken off",
        "centred_distance_from_initial": "to the first one",
    }
    show_chart(
        courses(table, named, x, "distance in shape", mark=mark),
        HEIGHT,
        "How far the shape of the kernel is from the first and the final one, against the step of training",
    )
with right:
    named, colours = parts_of("alignment")
    if has("alignment"):
        show_chart(
            courses(table, named, x, "alignment with targets", colours=colours, mark=mark),
            HEIGHT,
            "Alignment of the kernel with the targets against the step of training",
        )
left, right = st.columns(2, gap="large")
with left:
    show_chart(
        courses(table, {"trace": "trace"}, x, "size of the kernel", log=True, mark=mark),
        HEIGHT,
        "Trace of the kernel against the step of training",
    )
with right:
    show_chart(
        courses(table, {"effective_rank": "effective rank"}, x, "directions that count", mark=mark),
        HEIGHT,
        "Effective rank of the kernel against the step of training",
    )

views.head(
    "Leading eigenspace",
    f"How much of each lies in the span of the leading eigenvectors of a step. {run.tables['dynamics'].text}",
)
shares = table[["step", *(name for name in ("overlap_with_final", "overlap_with_learnt") if name in table)]]
named = {"overlap_with_final": "the final eigenspace", "overlap_with_learnt": "what training added"}
if "dynamics_concepts" in run.tables:
    concepts = dynamics_table(run, "dynamics_concepts").pivot(index="step", columns="concept", values="overlap")
    concepts.columns = [f"concept {name}" for name in concepts.columns]
    shares = shares.merge(concepts.reset_index(), on="step")
    named |= {name: name.removeprefix("concept ") for name in concepts.columns}
left, right = st.columns(2, gap="large")
with left:
    chart = courses(shares, named, x, "share within", domain=[0, 1], mark=mark)
    show_chart(chart, HEIGHT + 60, "Overlap of the leading eigenspace with the final one and with concepts")
with right:
    chart = spectra(dynamics_table(run, "dynamics_spectrum"), steps)
    show_chart(chart, HEIGHT + 60, "Leading eigenvalues of the kernel, a line for each step")

if "r2_from_outputs" in table:
    views.head(
        "Dual model",
        "Ridge regressions on the kernel of each step, judged on held-out examples: fitted to the labels, and to the "
        "outputs that the network has at that step.",
    )
    left, right = st.columns(2, gap="large")
    with left:
        named = {
            "accuracy_from_labels": "regression on labels",
            "accuracy_held_out": "the network itself",
        }
        if "accuracy_from_labels" in table:
            colours = {"accuracy_from_labels": COLOURS[1], "accuracy_held_out": COLOURS[0]}
            chart = courses(table, named, x, "held-out accuracy", colours=colours, domain=[0, 1], mark=mark)
            show_chart(chart, HEIGHT, "Held-out accuracy of regressions on the kernel of each step, beside the network")
    with right:
        named = {"r2_from_outputs": "R2 to the network's outputs", "agreement_from_outputs": "agreement with its class"}
        chart = courses(table, named, x, "regression on outputs", domain=[0, 1], mark=mark)
        show_chart(chart, HEIGHT, "How well a regression on the kernel of each step follows the network of that step")
views.quiet(
    "All figures are tables of the Export page: dynamics, dynamics_spectrum, dynamics_concepts, feature_history."
)
