"""How well features tell classes apart: measures that need values and labels only.

Letters: k features, n examples, q classes, m examples at one end of a ranking. Values that are not finite take no
part, as in a ranking.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


class Selectivity(NamedTuple):
    """score (k,): best AUROC of one class against the rest, .5 to 1; best_class (k,): that class, -1 for none."""

    score: npt.NDArray[np.float64]
    best_class: npt.NDArray[np.int64]


def average_ranks(values: Values) -> npt.NDArray[np.float64]:
    """Ranks 1..n of finite values along each row, equal values sharing their mean rank: (k, n) -> (k, n).

    What scipy.stats.rankdata gives; written out, since loading scipy.stats takes longer than all else of this wing.
    """
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    place = np.arange(values.shape[1])
    edge = np.ones((len(values), 1), dtype=bool)
    differs = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(np.hstack([edge, differs]), place, 0), axis=1)
    ends = np.where(np.hstack([differs, edge]), place, values.shape[1])
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape, dtype=np.float64)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def finite_patterns(values: Values) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]]:
    """Features grouped by which of their examples are finite: rows of the group and its mask (n,).

    Mostly one group. Values that overflow do so at the same few examples in many features, so work that is done
    group by group stays vectorised.
    """
    finite = np.isfinite(values)
    if finite.all():
        return [(np.arange(len(values)), np.ones(values.shape[1], dtype=bool))]
    masks, member = np.unique(finite, axis=0, return_inverse=True)
    return [(np.flatnonzero(member.ravel() == place), mask) for place, mask in enumerate(masks)]


def class_auroc(values: Values, labels: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """AUROC of each feature as a score for each class against the rest: (k, n), (n,) -> (k, q), classes (q,).

    By average ranks, so ties count one half. NaN where a class has no finite value, or no other class has one.
    Cost k n log n.
    """
    classes = np.unique(labels).astype(np.int64)
    auroc = np.full((len(values), len(classes)), np.nan)
    for rows, mask in finite_patterns(values):
        member = (labels[mask, None] == classes[None]).astype(np.float64)
        inside = member.sum(axis=0)
        pairs = inside * (np.count_nonzero(mask) - inside)
        if not pairs.any():
            continue
        ranks = average_ranks(values[np.ix_(rows, mask)])
        wins = ranks @ member - inside * (inside + 1) / 2
        auroc[rows] = np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan)
    return auroc, classes


def selectivity(values: Values, labels: Labels) -> Selectivity:
    """Best over classes of max(AUROC, 1 - AUROC), one class against the rest: (k, n), (n,) -> (k,), (k,).

    NaN and class -1 where no class can be told from another. Cost k n log n.
    """
    auroc, classes = class_auroc(values, labels)
    if auroc.shape[1] == 0:
        return Selectivity(np.full(len(values), np.nan), np.full(len(values), -1, dtype=np.int64))
    folded = np.where(np.isnan(auroc), -1.0, np.maximum(auroc, 1 - auroc))
    best = folded.argmax(axis=1)
    score = folded[np.arange(len(folded)), best]
    known = score >= 0
    return Selectivity(np.where(known, score, np.nan), np.where(known, classes[best], -1))


def top_purity(positions: npt.NDArray[np.integer], labels: Labels) -> npt.NDArray[np.float64]:
    """Share of the commonest class among the top examples: positions (k, m), labels (n,) -> (k,).

    Position -1 is padding and does not count; NaN where nothing else is there. Cost k m q.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    real = positions >= 0
    code: npt.NDArray[Any] = np.where(real, codes.ravel()[np.where(real, positions, 0)], -1)
    counts = np.stack([(code == place).sum(axis=1) for place in range(len(classes))], axis=1)
    total = real.sum(axis=1)
    return np.where(total > 0, counts.max(axis=1) / np.maximum(total, 1), np.nan)
