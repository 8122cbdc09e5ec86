"""How well single features tell classes apart, by values and labels only.

Letters: k features, n examples, q classes. Values that are not finite take no
part, as in a ranking.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.measures.ranks import average_ranks, finite_patterns

Values = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


class Selectivity(NamedTuple):
    """score (k,): best AUROC of one class against the rest, .5 to 1; best_class (k,): that class, -1 for none."""

    score: npt.NDArray[np.float64]
    best_class: npt.NDArray[np.int64]


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
