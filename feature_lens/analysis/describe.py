"""What a run, a set and a feature are, in tables, figures and words: all that a page shows beside the pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.directions import direction_pictures, parameter_shares
from feature_lens.analysis.feature_table import feature_table
from feature_lens.analysis.headline import class_figures, headline
from feature_lens.analysis.orders import QuantileRow, at_rank, default_view, quantile_rows, range_row, rank_window
from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.run_contents import RunContents

__all__ = [
    "QuantileRow",
    "at_rank",
    "class_figures",
    "class_profile",
    "default_view",
    "direction_pictures",
    "feature_histogram",
    "feature_notes",
    "feature_table",
    "headline",
    "histogram",
    "parameter_shares",
    "quantile_rows",
    "range_row",
    "rank_window",
    "set_table",
]

_UNSTABLE = 0.8
_THIN_SCORE = 0.8
_MOSTLY_MEAN = 0.9


def set_table(run: RunContents) -> pd.DataFrame:
    """One row per feature set: name, title, k, views, stored, kernel_share, fitted_on, equals."""
    return pd.DataFrame(
        [
            {
                "name": s.name,
                "title": s.card.title,
                "k": len(s),
                "views": ", ".join(s.views),
                "stored": s.stores_values,
                "kernel_share": float("nan") if s.card.kernel_share is None else s.card.kernel_share,
                "fitted_on": s.card.fitted_on,
                "equals": s.card.equals,
            }
            for s in run.sets.values()
        ],
        columns=["name", "title", "k", "views", "stored", "kernel_share", "fitted_on", "equals"],
    )


def histogram(values: npt.NDArray[np.floating], bins: int = 40) -> pd.DataFrame:
    """Columns low, high, count over the finite values (n,): `bins` bins of equal width from least to largest.

    Constant values give one bin of no width; no finite value gives no row.
    """
    if bins < 1:
        raise SettingsError(f"A histogram needs at least one bin, but {bins} came; ask for 1 or more.")
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return pd.DataFrame({"low": [], "high": [], "count": np.array([], dtype=np.int64)})
    low, high = float(finite.min()), float(finite.max())
    edges = np.linspace(low, high, bins + 1)
    if not (np.diff(edges) > 0).all():  # constant, or closer together than numbers can be told apart
        return pd.DataFrame({"low": [low], "high": [high], "count": [len(finite)]})
    counts, edges = np.histogram(finite, bins=edges)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts})


def feature_histogram(feature_set: FeatureSet, feature: int, view: str) -> pd.DataFrame | None:
    """Columns low, high, count of one feature's finite values: from the values where they are stored, else from the
    counts that were made when it was ranked; None where the set has neither."""
    if feature_set.stores_values or ("histogram" not in feature_set and feature_set.gives_values):
        return histogram(feature_set.values(feature, view))
    at = feature_set.check(feature), feature_set.view_index(view)
    if "histogram" not in feature_set:
        return None
    counts = np.asarray(feature_set.column("histogram")[at])
    low, high = (float(feature_set.column(name)[at]) for name in ("minimum", "maximum"))
    if not np.isfinite(low) or low == high:
        return histogram(np.full(int(counts.sum()), low))
    edges = np.linspace(low, high, len(counts) + 1)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts})


def class_profile(run: RunContents, set_name: str, feature: int, view: str) -> pd.DataFrame | None:
    """Columns class, mean, count: mean of the finite values over each class, and how many examples the class has.

    None where the examples have no class labels or the set keeps no class means.
    """
    feature_set = run.feature_set(set_name)
    at = feature_set.check(feature), feature_set.view_index(view)
    labels = run.examples.labels
    if labels is None or "class_mean" not in feature_set:
        return None
    mean = np.asarray(feature_set.columns["class_mean"][at], dtype=np.float64)
    count = np.bincount(labels, minlength=len(mean))[: len(mean)]
    names = [run.examples.class_name(label) for label in range(len(mean))]
    return pd.DataFrame({"class": names, "mean": mean, "count": count})


def feature_notes(run: RunContents, set_name: str, feature: int, view: str) -> list[str]:
    """What a reader should know before trusting a feature, one sentence each; [] where there is nothing."""
    feature_set = run.feature_set(set_name)
    at = feature_set.check(feature), feature_set.view_index(view)
    notes = [*_value_notes(run, feature_set, at), *_eigen_notes(feature_set, feature, view)]
    return [*notes, *_extreme_notes(run, feature_set, feature, view)]


def _value_notes(run: RunContents, feature_set: FeatureSet, at: tuple[int, int]) -> list[str]:
    notes = []
    low, high = float(feature_set.columns["minimum"][at]), float(feature_set.columns["maximum"][at])
    bad = int(feature_set.columns["n_nonfinite"][at])
    if low == high == 0:
        notes.append("Dead: its value is 0 on every example.")
    elif low == high:
        notes.append(
            f"Constant: its value is {low:.3g} on every example, so the ranking follows the example ids alone."
        )
    if bad:
        first = int(feature_set.columns["first_nonfinite"][at])
        s = "s are" if bad > 1 else " is"
        notes.append(
            f"{bad} value{s} not finite (NaN, infinite or beyond float32) and not ranked; the first example is id "
            f"{run.examples.ids[first]}."
        )
    return notes


def _eigen_notes(feature_set: FeatureSet, feature: int, view: str) -> list[str]:
    notes = []
    if "group" in feature_set:
        groups = feature_set.read("group")
        size = int(np.count_nonzero(groups == groups[feature]))
        if size > 1:
            members = np.flatnonzero(groups == groups[feature]).tolist()
            notes.append(
                f"One of {size} features with nearly equal eigenvalues ({_range_words(members)}): "
                "only the subspace they span is determined, not the single feature."
            )
    if "stability" in feature_set:
        stability = float(feature_set.columns["stability"][feature])
        if stability < _UNSTABLE:
            notes.append(
                f"Unstable: fits on two halves of the data agree on its subspace only to a cosine of {stability:.2f}."
            )
    if "energy" in feature_set and view == "score":
        energy = float(feature_set.columns["energy"][feature])
        if energy < _THIN_SCORE:
            notes.append(
                f"The score carries only {energy:.0%} of the feature's energy over the outputs: look at single outputs too."
            )
    if "mean_share" in feature_set and float(feature_set.columns["mean_share"][feature]) > _MOSTLY_MEAN:
        notes.append("This feature is mostly the mean over the examples: its values differ little between them.")
    return notes


def _range_words(members: list[int]) -> str:
    if members == list(range(members[0], members[-1] + 1)):
        return f"{members[0]} to {members[-1]}"
    return ", ".join(map(str, members))


def _extreme_notes(run: RunContents, feature_set: FeatureSet, feature: int, view: str) -> list[str]:
    notes = []
    groups = run.examples.duplicate_group
    at = feature, feature_set.view_index(view)
    varies = bool(feature_set.columns["minimum"][at] != feature_set.columns["maximum"][at])
    for end in ("highest", "lowest"):
        positions, values = feature_set.extremes(feature, view, end)
        if len(values) > 1 and values[0] == values[-1] and varies:
            notes.append(
                f"All {len(values)} {end} examples kept have the same value, {values[0]:.3g}: which ones they are "
                "follows from their ids alone."
            )
        repeated = len(positions) - len(np.unique(groups[positions]))
        if repeated:
            s = "s repeat" if repeated > 1 else " repeats"
            notes.append(f"Among the {len(positions)} {end} examples, {repeated} input{s} another one exactly.")
    kept = int(feature_set.columns["highest/position"].shape[2])
    shown = len(feature_set.extremes(feature, view, "highest")[0])
    if shown < kept:
        notes.append(f"Only {shown} of the {kept} places at each end are filled: there are no more ranked examples.")
    return notes
