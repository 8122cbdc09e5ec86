"""Whether another run, of another seed, has the same features: matched one to one, and as spans.

Both runs hold the same examples. Letters: k features, n examples, b draws, s shuffles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from feature_lens.analysis.measures.alignment import correlation_influence, orthonormal, overlap_influence, unit
from feature_lens.analysis.measures.bootstrap import Figures, Measured, Positions, linear_draws

Values = npt.NDArray[np.floating]


def matched(a: Values, b: Values) -> tuple[Positions, Positions]:
    """Pairs of features of (n, k1) and (n, k2), min(k1, k2) of them, each in one pair at most, whose |correlation| over
    the examples adds up to most (the Hungarian assignment)."""
    rows, columns = linear_sum_assignment(-np.abs(unit(a).T @ unit(b)))
    return rows.astype(np.int64), columns.astype(np.int64)


def matched_correlation(a: Values, b: Values, weights: Figures, shuffles: Positions) -> Measured:
    """Mean |correlation| of the pairs of `matched`; the null shuffles the examples of b and matches again. Features that
    do not vary correlate with none. Cost s (n k1 k2 + k^3)."""
    x, y = unit(a), unit(b)
    rows, columns = matched(a, b)
    correlation = (x[:, rows] * y[:, columns]).sum(axis=0)
    influence = correlation_influence(x[:, rows], y[:, columns]) * np.sign(correlation)
    value = float(np.abs(correlation).mean())
    null = []
    for order in shuffles:
        size = np.abs(x.T @ y[order])
        null.append(size[linear_sum_assignment(-size)].mean())
    return Measured(value, np.clip(linear_draws(value, influence.mean(axis=1), weights), 0, 1), np.array(null))


def span_overlap(a: Values, b: Values, weights: Figures, shuffles: Positions) -> Measured:
    """Sum of squared cosines of the principal angles between the centred spans of (n, k1) and (n, k2), over the smaller
    dimension; k / (n - 1), of the larger, by chance. NaN where one of them is empty."""
    first, second = sorted((orthonormal(a)[0], orthonormal(b)[0]), key=lambda basis: basis.shape[1], reverse=True)
    if second.shape[1] == 0:
        return Measured(np.nan)
    value = float(np.square(first.T @ second).sum() / second.shape[1])
    null = np.array([np.square(first.T @ second[order]).sum() / second.shape[1] for order in shuffles])
    draws = linear_draws(value, overlap_influence(first, second), weights)
    return Measured(value, np.clip(draws, 0, 1), null)
