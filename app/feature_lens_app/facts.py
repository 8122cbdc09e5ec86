"""What is known of one feature in figures and charts: title, moments, histogram, class profile, its like elsewhere."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import streamlit as st

from feature_lens.analysis.ablation_table import without
from feature_lens.analysis.compare import similar_features
from feature_lens.analysis.describe import class_profile, feature_histogram, feature_notes
from feature_lens.analysis.render import format_value
from feature_lens.analysis.run import Run
from feature_lens.feature_set import FeatureSet
from feature_lens_app import run_access
from feature_lens_app.charts import bars_by_class, class_scale, histogram_chart, show_chart
from feature_lens_app.run_access import Opened
from feature_lens_app.views import anchor, figures, head, notes, table, title, view_title
from feature_lens_app.words import percent, shorten


def spectral(feature_set: FeatureSet, feature: int) -> list[tuple[str, str]]:
    """Figures that only features of a kernel's spectrum have."""
    pairs = []
    if "spectrum" in feature_set:
        pairs.append(("eigenvalue", format_value(float(feature_set.column("spectrum")[feature]), signed=False)))
    if "stability" in feature_set:
        pairs.append(("stability", _cosine(float(feature_set.column("stability")[feature]))))
    if "mean_share" in feature_set:
        pairs.append(("share that is its mean", percent(float(feature_set.column("mean_share")[feature]))))
    if "energy" in feature_set:
        pairs.append(("energy in the score", percent(float(feature_set.column("energy")[feature]))))
    return pairs


def brief(row: Mapping[Hashable, Any]) -> list[tuple[str, str]]:
    """The figures of one row of a table of features that fit beside its pictures; nothing more is read for them."""
    pairs = []
    if "spectrum" in row:
        pairs.append(("eigenvalue", format_value(float(row["spectrum"]), signed=False)))
    if "stability" in row:
        pairs.append(("stability", _cosine(float(row["stability"]))))
    return [*pairs, ("mean", format_value(float(row["mean"]))), ("std", format_value(float(row["std"]), signed=False))]


def _cosine(value: float) -> str:
    """A stability; that of a group of which not every feature was fitted is NaN in the file."""
    return "not known" if math.isnan(value) else f"{value:.2f}"


def moments(feature_set: FeatureSet, feature: int, view: str) -> list[tuple[str, str]]:
    """Mean, spread and range of a feature over the examples."""
    at = feature, feature_set.view_index(view)
    return [
        (name, format_value(float(feature_set.column(column)[at]), signed=column != "std"))
        for name, column in (("mean", "mean"), ("std", "std"), ("lowest", "minimum"), ("highest", "maximum"))
    ]


def show_title(run: Run, feature_set: FeatureSet, feature: int, view: str, place: int, listed: int) -> None:
    """Name, set and view, its place in the order browsed, figures, and what to be warned of."""
    order = f"{place:,} of {listed:,} in the order browsed" if place else "not among those browsed"
    title(
        feature_set.label(feature),
        f"{feature_set.card.title} · feature {feature} · {view_title(run, view)} · {order}",
    )
    layer = [("layer", str(feature_set.column("layer")[feature]))] if "layer" in feature_set else []
    st.html(figures([*layer, *spectral(feature_set, feature), *moments(feature_set, feature, view)]))
    notes(feature_notes(run, feature_set.name, feature, view))


def show_distribution(opened: Opened, feature_set: FeatureSet, feature: int, view: str) -> None:
    """Histogram of the values beside the mean of each class."""
    run = opened.run
    profile = class_profile(run, feature_set.name, feature, view)
    counts = feature_histogram(feature_set, feature, view)
    if counts is None and profile is None:
        return
    head("Distribution")
    left, right = st.columns(2, gap="large")
    if counts is not None:
        with left:
            st.html('<p class="fl-quiet">How many examples have which value.</p>')
            show_chart(histogram_chart(counts, view_title(run, view)), 240, "Histogram of the feature's values")
    if profile is not None:
        names = [str(name) for name in profile["class"]]
        with right if counts is not None else left:
            st.html('<p class="fl-quiet">Mean over the examples of each class.</p>')
            show_chart(
                bars_by_class(profile, "class", "mean", class_scale(names), f"mean {view_title(run, view)}"),
                max(240, 50 + 20 * len(profile)),
                "Mean value of each class",
            )


def show_without(opened: Opened, feature_set: FeatureSet, feature: int, view: str) -> None:
    """What the network does without the feature; nothing where it was not taken away."""
    run = opened.run
    found = without(run, feature_set.name, feature, view)
    if found is None:
        return
    neuron = "activation" in feature_set.views
    head(
        "Without it",
        f"The network run again {'with this neuron at zero' if neuron else 'without this feature of what training added'}, "
        f"on {found.measured_on}; loss is the mean of half the squared error.",
    )
    pairs = [
        (name, format_value(value))
        for name, value in (
            ("change of loss", found.loss),
            ("change of accuracy", found.accuracy),
            ("predicted output, highest examples", found.highest),
            ("predicted output, lowest examples", found.lowest),
        )
        if value == value
    ]
    names = [str(name) for name in found.outputs["class"]]
    left, right = st.columns(2, gap="large")
    with left:
        st.html(figures(pairs))
    with right:
        show_chart(
            bars_by_class(found.outputs, "class", "change", class_scale(names), "mean change of the output"),
            max(200, 50 + 20 * len(names)),
            "Mean change of each output without the feature",
        )


def show_similar(opened: Opened, feature_set: FeatureSet, feature: int, view: str) -> None:
    """Features of the same set that order the examples most alike, each beside a link that compares the two."""
    found = similar_features(opened.run, feature_set.name, feature, view)
    if len(found) == 0:
        return
    stored = feature_set.stores_values
    head(
        "Similar features of this set",
        "By the Spearman correlation of the order of all examples; a negative one is the opposite order."
        if stored
        else "By the overlap of the sixteen highest examples, since not all values are kept.",
    )
    run_key = run_access.run_key()
    rows = []
    for entry in found.to_dict("records"):
        here = {"run": run_key, "set": feature_set.name, "feature": str(entry["feature"]), "view": view}
        pair = here | {
            "feature": str(feature),
            "set_b": feature_set.name,
            "feature_b": str(entry["feature"]),
            "view_b": view,
        }
        name = anchor("feature", shorten(str(entry["label"])), here)
        overlap = f"{float(entry['jaccard']):.2f}"
        beside = anchor("compare", "compare", pair)
        rows.append(
            [name, format_value(float(entry["spearman"])), overlap, beside] if stored else [name, overlap, beside]
        )
    if stored:
        st.html(table(["feature", "Spearman", "Jaccard of the top 16", ""], rows, numbers=[1, 2]))
    else:
        st.html(table(["feature", "Jaccard of the top 16", ""], rows, numbers=[1]))
