"""The tables of measures: rows are kinds of features, columns are measures with intervals and nulls.

Over runs of several seeds on the same examples, figures are means over the seeds and intervals are of seeds and examples
together; two measures, of stability, are of pairs of those runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_lens.analysis.kinds import RANDOM, kinds, views_of
from feature_lens.analysis.measures.alignment import best_matches_of_concept
from feature_lens.analysis.measures.bootstrap import Measured, pooled, resampled, shuffled
from feature_lens.analysis.measures.descriptions import MEASURES, is_measure, measure_of
from feature_lens.analysis.measures.measured_kinds import (
    MeasuredKind,
    MeasureSettings,
    leading_rows,
    leading_values,
    measured_kinds,
)
from feature_lens.analysis.measures.stability import matched_correlation, span_overlap
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents

DEFAULT: Final = MeasureSettings()
_LEVEL: Final = 1e-4
_ASSIGNMENTS: Final = 20  # shuffles of stability, each of which is matched anew
_HEAD: Final = ("kind", "set", "family")


def set_measures(runs: RunContents | Sequence[RunContents], settings: MeasureSettings = DEFAULT) -> pd.DataFrame:
    """All measures of all kinds of features, one row per kind: kind, set, family, features (how many were measured), and
    for every measure five columns: its name, and that with _low, _high (the interval), _null (mean) and _null_99.

    runs: a run, in memory or opened, or several of different seeds on the same examples, whose common kinds are
    measured. NaN where a kind or run has not what a measure needs: sets without stored values have purities of their
    tops alone. Raises SettingsError for runs that do not fit together. Cost: about a second per kind of 64 features,
    2,000 examples and 10 classes.
    """
    measured = _pooled(runs, settings)
    rows = []
    for one in measured:
        row = _head(one) | {"features": one.features}
        for name, figure in one.figures.items():
            row |= _figures(figure, settings, name, f"{name}_")
        rows.append(row)
    return pd.DataFrame(
        rows, columns=[*_HEAD, "features", *(c for name in _names(measured) for c in _column_names(name))]
    )


def measure_curves(runs: RunContents | Sequence[RunContents], settings: MeasureSettings = DEFAULT) -> pd.DataFrame:
    """Measures against the number of leading features: kind, set, family, measure, k, value, low, high, null, null_99.
    Those of classes, `r2`, `r2_pursued` (best first, by matching pursuit) and overlaps with concepts. As `set_measures`."""
    rows = [
        {**_head(one), "measure": name, "k": k} | _figures(figure, settings, "value", "")
        for one in _pooled(runs, settings)
        for name, curve in one.curves.items()
        for k, figure in curve.items()
    ]
    return pd.DataFrame(rows, columns=[*_HEAD, "measure", "k", "value", "low", "high", "null", "null_99"])


def concept_matches(run: RunContents, settings: MeasureSettings = DEFAULT) -> pd.DataFrame:
    """For every kind and every column of every concept the feature that is nearest to it: kind, set, concept, column,
    feature (its number in the set), view, label, cosine. Among the features that are measured."""
    parts = []
    for kind in kinds(run, settings.seed):
        rows = leading_rows(run, kind, settings.features)
        if kind.values is None or len(rows) == 0:
            continue
        feature_set, values = kind.of_set(run), kind.values[rows].T.astype(np.float64)
        for concept in run.examples.concepts:
            found = best_matches_of_concept(values, concept.values, concept.labels)
            feature, view = np.divmod(rows[found["feature"].to_numpy()], kind.views)
            found["feature"] = feature
            found["view"] = [views_of(feature_set)[at] if feature_set else "" for at in view]
            found["label"] = [feature_set.label(int(at)) if feature_set else f"{kind.name} {at}" for at in feature]
            parts.append(found.assign(kind=kind.name, set=kind.set_name, concept=concept.name))
    columns = ["kind", "set", "concept", "column", "feature", "view", "label", "cosine"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def measured_names(table: pd.DataFrame) -> list[str]:
    """The measures that a table of `set_measures` has columns of, in their order."""
    columns = list(table.columns[len(_HEAD) + 1 :])
    return columns[:: len(_column_names(""))]


def is_measured(table: pd.DataFrame) -> bool:
    """Whether a table, such as one of a file, has the columns and types of `set_measures`, and known measures."""
    head = [*_HEAD, "features"]
    names = measured_names(table)
    wanted = [*head, *(column for name in names for column in _column_names(name))]
    return (
        list(table.columns) == wanted
        and bool(names)
        and all(is_measure(name) for name in names)
        and all(table[column].dtype.kind in ("OU" if column in _HEAD else "iuf") for column in wanted)
    )


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """One row per measure by which kinds are compared: measure, family, kind, value of the best kind of a table of
    `set_measures`. Of kinds that are level (to 1e-4) one that is no effective feature is named, but not random
    directions where the measure is of a span, which they have from a set."""
    rows = []
    for name in measured_names(table):
        measure = measure_of(name)
        score = table[name] * measure.better
        if measure.compared and score.notna().sum() > 1:
            level = table[score >= score.max() - _LEVEL]
            last = [one.startswith("effective") + 2 * (one == RANDOM and measure.of_span) for one in level["family"]]
            best = level.iloc[int(np.argmin(last))]
            rows.append({"measure": name, "family": best["family"], "kind": best["kind"], "value": best[name]})
    return pd.DataFrame(rows, columns=["measure", "family", "kind", "value"])


def measures_sentence(table: pd.DataFrame) -> str:
    """Which family of features is best by which measures, in a sentence that begins with those that are no effective
    features where they are best by any."""
    found = winners(table)
    if found.empty:
        return "No two kinds of feature share a measure by which they could be compared."
    best: dict[str, list[str]] = {}
    for family, name in zip(found["family"], found["measure"], strict=True):
        best.setdefault(str(family), []).append(measure_of(name).title)
    ordered = sorted(best, key=lambda family: (family.startswith("effective"), -len(best[family]), family))
    parts = [f"{len(best[family])} ({', '.join(best[family])})" for family in ordered]
    said = [
        f"{ordered[0]} are best by {parts[0]}",
        *(f"{a} by {b}" for a, b in zip(ordered[1:], parts[1:], strict=True)),
    ]
    if not any(family.startswith("effective") for family in ordered):
        said.append("effective features by none")
    return f"Of {len(found)} measure{'' if len(found) == 1 else 's'}, {'; '.join(said)}."


def _pooled(runs: RunContents | Sequence[RunContents], settings: MeasureSettings) -> list[MeasuredKind]:
    """The kinds that all runs have, each by the mean of its figures over the runs."""
    given = [runs] if isinstance(runs, RunContents) else list(runs)
    if not given:
        raise SettingsError("Measures are taken of at least one run, but none came; give a run.")
    if any(not np.array_equal(one.examples.ids, given[0].examples.ids) for one in given):
        raise SettingsError(
            "Runs that are measured together hold the same examples, but these do not; measure each alone."
        )
    every = [{one.kind.name: one for one in measured_kinds(run, settings)} for run in given]
    if len(given) == 1:
        return list(every[0].values())
    found = []
    for name, first in every[0].items():
        same = [of_run[name] for of_run in every if name in of_run]
        if len(same) == len(every):
            figures = {
                figure: pooled([one.figures[figure] for one in same], settings.seed)
                for figure in first.figures
                if all(figure in one.figures for one in same)
            }
            curves = {
                curve: {
                    k: pooled([one.curves[curve][k] for one in same], settings.seed)
                    for k in first.curves[curve]
                    if all(k in one.curves.get(curve, {}) for one in same)
                }
                for curve in first.curves
            }
            figures |= _stability(given, name, settings)
            found.append(MeasuredKind(first.kind, min(one.features for one in same), figures, curves))
    return found


def _stability(runs: Sequence[RunContents], name: str, settings: MeasureSettings) -> dict[str, Measured]:
    """Means over all pairs of runs, not known where a run has no feature that varies; intervals are of examples alone."""
    n = len(runs[0].examples)
    weights = resampled(n, settings.draws, settings.seed)
    shuffles = shuffled(n, min(settings.shuffles, _ASSIGNMENTS), settings.seed + 1)
    every = []
    for run in runs:
        kind = next(kind for kind in kinds(run, settings.seed) if kind.name == name)
        values = leading_values(run, kind, settings.features)
        if values is None or len(values) == 0:
            return {}
        every.append(values.T.astype(np.float64))
    made = {}
    for figure, measure in (("matched", matched_correlation), ("span", span_overlap)):
        pairs = [measure(a, b, weights, shuffles) for a, b in combinations(every, 2)]
        if any(np.isnan(one.value) for one in pairs):
            made[figure] = Measured(np.nan)
            continue
        value = float(np.mean([one.value for one in pairs]))
        made[figure] = Measured(
            value, np.mean([one.draws for one in pairs], axis=0), np.mean([one.null for one in pairs], axis=0)
        )
    return made


def _names(measured: Sequence[MeasuredKind]) -> list[str]:
    """All measures of any kind, those of `MEASURES` first and in their order."""
    seen = dict.fromkeys(name for one in measured for name in one.figures)
    return [name for name in MEASURES if name in seen] + sorted(
        (name for name in seen if name not in MEASURES), key=lambda name: name.split(" ")[0]
    )


def _column_names(name: str) -> tuple[str, ...]:
    return (name, *(f"{name}_{part}" for part in ("low", "high", "null", "null_99")))


def _head(one: MeasuredKind) -> dict[str, Any]:
    return {"kind": one.kind.name, "set": one.kind.set_name, "family": one.kind.family}


def _figures(figure: Measured, settings: MeasureSettings, name: str, before: str) -> dict[str, float]:
    value, low, high = figure.interval(settings.level)
    null, bar = figure.null_figures()
    ends = {"low": low, "high": high, "null": null, "null_99": bar}
    return {name: value} | {f"{before}{part}": end if np.isfinite(end) else np.nan for part, end in ends.items()}
