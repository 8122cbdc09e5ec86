"""Class selectivity against the number of features allowed, chosen on some examples and reported on others.

For each feature the class and the sign are chosen that it singles out best, by AUROC, on the choosing examples; for each
class, of the leading features, the feature and the sign. What is reported is the AUROC and the average precision of these
choices on the other examples. Letters: k features, n examples, q classes, b draws, s shuffles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.measures.bootstrap import Figures, Measured, Positions, mean_known
from feature_lens.analysis.measures.ranks import average_ranks

Labels = npt.NDArray[np.int64]
SELECTIVITY: Final = ("class_auroc", "class_precision", "feature_auroc", "feature_precision")
_ROWS: Final = 2048  # of classes and shuffles, taken together at a time


@dataclass(frozen=True)
class Halves:
    """Positions on which is chosen, and on which is reported; `words` says which the latter are."""

    choosing: Positions
    reporting: Positions
    words: str


def weighted_figures(scores: npt.NDArray[np.floating], positive: Figures, negative: Figures) -> tuple[Figures, Figures]:
    """AUROC and average precision of scores (n,) for many weightings of positive and negative examples, (b, n) each:
    (b,), (b,); equal scores are one threshold. NaN where either has no weight. One sort, then b n.

    With weights 0 and 1, scikit-learn's roc_auc_score and average_precision_score.
    """
    order = np.argsort(-scores, kind="stable")
    gained, lost = positive.take(order, axis=1), negative.take(order, axis=1)
    hits, misses = np.cumsum(gained, axis=1), np.cumsum(lost, axis=1)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    if len(ends) < len(order):
        hits, misses = hits.take(ends, axis=1), misses.take(ends, axis=1)
        gained, lost = np.diff(hits, axis=1, prepend=0), np.diff(misses, axis=1, prepend=0)
    positives, negatives = hits[:, -1], misses[:, -1]
    known = (positives > 0) & (negatives > 0)
    below = negatives[:, None] - misses + lost / 2
    auroc = (gained * below).sum(axis=1) / np.where(known, positives * negatives, 1)
    precision = (gained * hits / np.maximum(hits + misses, 1e-300)).sum(axis=1) / np.where(known, positives, 1)
    return np.where(known, auroc, np.nan), np.where(known, precision, np.nan)


@dataclass(frozen=True)
class _Choices:
    """Features with a class and a sign each, by labelling: integers (l, m)."""

    feature: Positions
    label: Positions
    sign: Positions


def selectivity_curve(
    values: npt.NDArray[np.floating],
    labels: Labels,
    halves: Halves,
    counts: Sequence[int],
    weights: Figures,
    shuffles: Positions,
) -> dict[str, dict[int, Measured]]:
    """The names of `SELECTIVITY` to the figure at every count of leading features, in the order of the values (k, n).

    class_..: mean over classes, each by the feature chosen for it; feature_..: mean over features, each for the class
    chosen for it. Classes are those that both halves have. weights (b, number reported); shuffles (s, n) of all labels,
    by which everything is chosen again. Cost s k q n + (k + q log k) (b + s) n.
    """
    classes = np.intersect1d(labels[halves.choosing], labels[halves.reporting])
    # Examples of other classes are outside of each of these.
    codes = np.where(np.isin(labels, classes), np.searchsorted(classes, labels), len(classes))
    labellings = codes[np.vstack([np.arange(len(labels)), shuffles])]
    ranks = average_ranks(values[:, halves.choosing])
    aurocs = (_aurocs(ranks, one, len(classes) + 1)[:, :-1] for one in labellings[:, halves.choosing])
    chosen = [
        _Choices(*(np.stack(part) for part in zip(*of_count, strict=True)))
        for of_count in zip(*([_by_feature(one), *(_by_class(one[:c]) for c in counts)] for one in aurocs), strict=True)
    ]
    found = _reported(values[:, halves.reporting], labellings[:, halves.reporting], weights, chosen)
    made: dict[str, dict[int, Measured]] = {name: {} for name in SELECTIVITY}
    for place, count in enumerate(counts, start=1):
        for one, measure in enumerate(("auroc", "precision")):
            made[f"class_{measure}"][count] = found[place][one].measured(len(classes))
            made[f"feature_{measure}"][count] = found[0][one].measured(count)
    return made


def _aurocs(ranks: Figures, codes: Positions, q: int) -> Figures:
    """AUROC of every feature, by its ranks (k, n), for every class (k, q); .5 for a class of none or all."""
    member = np.eye(q)[codes]
    inside = member.sum(axis=0)
    pairs = inside * (len(codes) - inside)
    wins = ranks @ member - inside * (inside + 1) / 2
    return np.asarray(np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5))


def _by_feature(auroc: Figures) -> tuple[Positions, Positions, Positions]:
    feature = np.arange(len(auroc))
    label = _strength(auroc).argmax(axis=1)
    return feature, label, np.where(auroc[feature, label] >= 0.5, 1, -1)


def _by_class(auroc: Figures) -> tuple[Positions, Positions, Positions]:
    label = np.arange(auroc.shape[1])
    feature = _strength(auroc).argmax(axis=0)
    return feature, label, np.where(auroc[feature, label] >= 0.5, 1, -1)


def _strength(auroc: Figures) -> Figures:
    """Rounded, so that of candidates that are level the first is taken, whatever the last digits are."""
    return np.asarray(np.abs(auroc - 0.5).round(12))


@dataclass(frozen=True)
class _Reported:
    """Figures of choices (l, m), the first labelling being the real one, and draws (m, b) of that."""

    figures: Figures
    draws: Figures

    def measured(self, count: int) -> Measured:
        found = mean_known(self.figures[:, :count])
        return Measured(float(found[0]), mean_known(self.draws[:count].T), found[1:])


def _reported(
    scores: npt.NDArray[np.floating], labellings: Positions, weights: Figures, choices: Sequence[_Choices]
) -> list[tuple[_Reported, _Reported]]:
    """AUROC and average precision of each set of choices on scores (k, n) with labels (l, n); what is chosen more than
    once is measured once."""
    keys = [
        np.stack([2 * one.feature + (one.sign > 0), np.indices(one.feature.shape)[0], one.label], axis=-1)
        for one in choices
    ]
    every, place = np.unique(np.concatenate([key.reshape(-1, 3) for key in keys]), axis=0, return_inverse=True)
    figures = np.empty((2, len(every)))
    draws = np.empty((2, int((every[:, 1] == 0).sum()), len(weights)))
    drawn = np.cumsum(every[:, 1] == 0) - 1
    for rows in _grouped(every[:, 0]):
        signed = scores[every[rows[0], 0] // 2] * (1 if every[rows[0], 0] % 2 else -1)
        member = (labellings[every[rows, 1]] == every[rows, 2, None]).astype(np.float64)
        figures[:, rows] = weighted_figures(signed, member, 1 - member)
        for one in np.flatnonzero(every[rows, 1] == 0):
            inside = weights * member[one]
            draws[:, drawn[rows[one]]] = weighted_figures(signed, inside, weights - inside)
    made = []
    for key, at in zip(
        keys, np.split(place.ravel(), np.cumsum([key.shape[0] * key.shape[1] for key in keys])[:-1]), strict=True
    ):
        at = at.reshape(key.shape[:2])
        auroc, precision = (_Reported(figures[one][at], draws[one][drawn[at[0]]]) for one in (0, 1))
        made.append((auroc, precision))
    return made


def _grouped(keys: Positions) -> Iterator[Positions]:
    """Places of equal keys, which are in order, so that a feature is sorted once; not too many at a time."""
    for group in np.split(np.arange(len(keys)), np.flatnonzero(np.diff(keys)) + 1):
        for start in range(0, len(group), _ROWS):
            yield group[start : start + _ROWS]
