"""What a run found, in one sentence: which kind of feature singles out classes best.

Kinds are compared on one statistic: for every class the feature (and sign) that singles it out best is chosen on the
training examples, and its AUROC is then taken on the held-out examples; the figure of a kind is the mean over
classes. Choosing and measuring on different examples keeps a kind with more features from winning by their number.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.kinds import LOGITS, RANDOM, kinds
from feature_lens.analysis.measures.classes import class_auroc
from feature_lens.run_contents import RunContents

# Kinds this close are called level: far below what another held-out third of the examples would change.
_LEVEL = 5e-4
_COLUMNS = ["kind", "set", "features", "views", "chosen_auroc", "median_selectivity", "measured_on"]


def class_figures(run: RunContents, seed: int = 0) -> pd.DataFrame:
    """One row per kind, best first: kind, set, features, views, chosen_auroc, median_selectivity, measured_on.

    Kinds are those of `kinds` whose values are stored. chosen_auroc: see the module. median_selectivity: median over features of the best
    max(AUROC, 1 - AUROC). Both on held-out examples, or in sample where there is no split. No rows without two
    classes. Cost: one sort per feature, k v n log n; kept with the run, which never changes.
    """
    kept: dict[int, pd.DataFrame] = run.__dict__.setdefault("_class_figures", {})
    if seed not in kept:
        kept[seed] = _measured(run, seed)
    return kept[seed].copy()


def _measured(run: RunContents, seed: int) -> pd.DataFrame:
    labels = run.examples.labels
    if labels is None or len(np.unique(labels)) < 2:
        return pd.DataFrame(columns=_COLUMNS)
    choosing, measuring, words = _parts(run, labels)
    rows = []
    for kind in kinds(run, seed):
        if (values := kind.values) is not None:
            chosen, median = _figures(values, labels, choosing, measuring)
            rows.append((kind.name, kind.set_name, len(values) // kind.views, kind.views, chosen, median, words))
    table = pd.DataFrame(rows, columns=_COLUMNS)
    return table.sort_values("chosen_auroc", ascending=False, kind="stable", na_position="last", ignore_index=True)


def _parts(run: RunContents, labels: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str]:
    every = np.arange(len(labels))
    training = run.examples.training
    if training is None:
        return every, every, "all examples (in sample)"
    held_out = np.flatnonzero(~training)
    chosen = np.flatnonzero(training)
    if len(np.unique(labels[held_out])) < 2 or len(np.unique(labels[chosen])) < 2:
        return every, every, "all examples (in sample)"
    return chosen, held_out, "held-out examples"


def _figures(
    values: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    choosing: npt.NDArray[np.int64],
    measuring: npt.NDArray[np.int64],
) -> tuple[float, float]:
    first, first_classes = class_auroc(values[:, choosing], labels[choosing])
    second, second_classes = class_auroc(values[:, measuring], labels[measuring])
    best = np.nanmax(np.where(np.isnan(second), -1, np.maximum(second, 1 - second)), axis=1)
    median = float(np.median(best[best >= 0])) if (best >= 0).any() else float("nan")
    shared, at_first, at_second = np.intersect1d(first_classes, second_classes, return_indices=True)
    reached = []
    for place in range(len(shared)):
        chosen, measured = first[:, at_first[place]], second[:, at_second[place]]
        known = ~np.isnan(chosen) & ~np.isnan(measured)
        if known.any():
            feature = int(np.where(known, np.abs(chosen - 0.5), -1).argmax())
            # The sign is chosen too: a feature that falls where the class is counts as well as one that rises.
            reached.append(measured[feature] if chosen[feature] >= 0.5 else 1 - measured[feature])
    return (float(np.mean(reached)) if reached else float("nan")), median


def headline(run: RunContents) -> str:
    """One sentence on what the run found, with figures: which kind has the features that single out classes best.

    Neurons, the network's own outputs or random directions are named first where they win. Without two classes it
    says what was computed instead.
    """
    table = class_figures(run)
    table = table[table["chosen_auroc"].notna()]
    if table.empty:
        return _without_classes(run)
    where = str(table["measured_on"].iloc[0])
    chosen = "chosen on the training examples" if where.startswith("held-out") else "chosen on the same examples"
    table = table.assign(family=[_family(run, k, s) for k, s in zip(table["kind"], table["set"], strict=True)])
    rows = table.drop_duplicates("family").to_dict("records")
    best = rows[0]["chosen_auroc"]
    level = [row for row in rows if best - row["chosen_auroc"] < _LEVEL]
    rest = rows[len(level) :]
    digits = max(_decimals(row["chosen_auroc"]) for row in rows)
    after = f"; after them come {_listed([_best_of(row, digits) for row in rest])}" if rest else ""
    reached = f"a mean AUROC of {format_auroc(best, digits)} on {where}"
    names = _listed([_named(row) for row in level])
    if len(level) == 1:
        return (
            f"{_large(names)} single out the classes best: the best one per class, {chosen}, reaches {reached}{after}."
        )
    if rest:
        return (
            f"{_large(names)} single out the classes equally well, and best: the best one per class, {chosen}, "
            f"reaches {reached}{after}."
        )
    return f"No kind of feature singles out the classes better than another: {names} all reach {reached}, {chosen}."


def _family(run: RunContents, kind: str, set_name: str) -> str:
    """What a row competes as: logits, random directions, neurons, effective or initial features."""
    return kind if kind in (LOGITS, RANDOM) else run.sets[set_name].card.design.partition(",")[0]


def _named(row: dict[Hashable, Any]) -> str:
    return f"{_small(row['kind'])} ({_count(row['features'], row['views'])})"


def _best_of(row: dict[Hashable, Any], digits: int) -> str:
    """A family within the list of the others, by the best of its sets."""
    figure = format_auroc(row["chosen_auroc"], digits)
    if row["kind"] in (LOGITS, RANDOM):
        return f"{_named(row)} at {figure}"
    return f"{row['family']} at {figure} ({_small(row['kind'])}, {_count(row['features'], row['views'])})"


def _count(features: int, views: int) -> str:
    return f"{features:,}" if views == 1 else f"{features:,} in {views} views"


def format_auroc(auroc: float, decimals: int = 3) -> str:
    """At least `decimals` decimals, more just below 1, so that only a perfect figure reads as one."""
    if auroc != auroc:
        return "undefined"
    if 1 > auroc >= 1 - 5e-6:
        return "above 0.99999"
    return f"{auroc:.{max(decimals, _decimals(auroc))}f}"


def _decimals(auroc: float) -> int:
    """How many decimals, from three, keep a figure below 1 from reading as 1; five at most."""
    return next((d for d in (3, 4) if auroc >= 1 or round(auroc, d) < 1), 5)


def _large(title: str) -> str:
    return title[:1].upper() + title[1:]


def _small(title: str) -> str:
    """A title inside a sentence: the first letter small unless the word is an abbreviation."""
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else ""


def _without_classes(run: RunContents) -> str:
    sets = _listed([f"{len(s):,} of '{s.name}'" for s in run.sets.values()])
    what = "have one class only" if run.examples.labels is not None else "have no class labels"
    return (
        f"{len(run.examples):,} examples were ranked by features ({sets or 'none'}); the examples {what}, "
        "so how well features single out classes is not measured."
    )
