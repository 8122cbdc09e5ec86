"""Alignment of features with known concepts: how much of a concept lies in their span, and how near single ones come.

All is centred over the examples. Letters: k features, n examples, d columns of a concept, b draws, s shuffles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.measures.bootstrap import Figures, Measured, Positions, linear_draws

Values = npt.NDArray[np.floating]
# Below this share of its length a column adds no direction to those before it: values are kept in float32.
_NEW = 1e-5


def orthonormal(columns: Values) -> tuple[Figures, Positions]:
    """Centred columns (n, k) made orthonormal one after the other, (n, rank), and the column that each was made from:
    the first j of them span what the columns up to the j-th of these span. Columns that add nothing are left out.
    Cost n k^2."""
    centred = np.asarray(columns - columns.mean(axis=0), dtype=np.float64)
    lengths = np.linalg.norm(columns, axis=0)
    basis = np.empty_like(centred)
    made: list[int] = []
    for place in range(centred.shape[1]):
        new = centred[:, place]
        for _ in range(2):  # twice is enough to be orthogonal to rounding
            new = new - basis[:, : len(made)] @ (basis[:, : len(made)].T @ new)
        length = float(np.linalg.norm(new))
        if length > _NEW * lengths[place]:
            basis[:, len(made)] = new / length
            made.append(place)
    return basis[:, : len(made)], np.array(made, dtype=np.int64)


def unit(columns: Values) -> Figures:
    """Centred columns (n, k) of unit length; zero for one that does not vary."""
    centred = np.asarray(columns - columns.mean(axis=0), dtype=np.float64)
    length = np.linalg.norm(centred, axis=0)
    varies = length > _NEW * np.linalg.norm(columns, axis=0)
    return np.asarray(np.where(varies, centred / np.where(varies, length, 1), 0))


def overlap_curve(
    features: Values, known: Values, counts: Sequence[int], weights: Figures, shuffles: Positions
) -> dict[int, Measured]:
    """Share of the span of known columns (n, d) that lies in the span of the leading features (n, k), at every count:
    the sum of squared singular values of Q^T F over the dimension of F, both orthonormal and centred.

    As in Lin, arXiv:2510.00468, who takes it of eigenvectors and Fourier waves. k / (n - 1) is what chance gives; the
    null shuffles the examples of the known columns. NaN where those do not vary. Draws are linear in the weights (b, n).
    Cost n k^2 + s n k d.
    """
    basis, columns = orthonormal(features)
    target = orthonormal(known)[0]
    d = target.shape[1]
    if d == 0:
        return {count: Measured(np.nan) for count in counts}
    gained = np.square(basis.T @ target).sum(axis=1) / d
    chance = np.array([np.square(basis.T @ target[order]).sum(axis=1) / d for order in shuffles])
    chance = chance.reshape(len(shuffles), basis.shape[1])
    found = {}
    for count in counts:
        within = int(np.searchsorted(columns, count))
        value = float(gained[:within].sum())
        inside = basis[:, :within]
        draws = linear_draws(value, overlap_influence(inside, target), weights)
        found[count] = Measured(value, np.clip(draws, 0, 1), chance[:, :within].sum(axis=1))
    return found


def overlap_influence(basis: Figures, target: Figures) -> Figures:
    """What one more of each example adds to the overlap of two spans, given by centred orthonormal columns (n, k) and
    (n, d), to first order: (n,). Derived from overlap = 1 - tr(K^-1 R) / d, where K and R are the products of the target
    and of what the basis leaves of it, both weighted; the coefficients that leave it are stationary."""
    left = target - basis @ (basis.T @ target)
    products = left.T @ left
    own = np.einsum("ij,jk,ik->i", target, products, target)
    return np.asarray((own - np.square(left).sum(axis=1)) / target.shape[1])


def best_matches_of_concept(features: Values, known: Values, labels: Sequence[str]) -> pd.DataFrame:
    """One row per column of a concept (n, d): concept column, feature (its place among the (n, k)), and their cosine,
    signed, the largest by magnitude."""
    cosines = unit(known).T @ unit(features)
    best = np.abs(cosines).argmax(axis=1)
    return pd.DataFrame({"column": list(labels), "feature": best, "cosine": cosines[np.arange(len(best)), best]})


def mean_max_cosine(features: Values, known: Values, weights: Figures, shuffles: Positions) -> Measured:
    """Mean over the columns of a concept (n, d) of the largest |cosine| with any of the features (n, k), over examples.

    The null shuffles the examples of the concept and matches again. Columns that do not vary are left out. Cost s n k d.
    """
    x, y = unit(features), unit(known)
    y = y[:, np.any(y != 0, axis=0)]
    if y.shape[1] == 0:
        return Measured(np.nan)
    cosines = y.T @ x
    best = np.abs(cosines).argmax(axis=1)
    cosine = cosines[np.arange(len(best)), best]
    value = float(np.abs(cosine).mean())
    influence = correlation_influence(x[:, best], y) * np.sign(cosine)
    null = np.array([np.abs(y[order].T @ x).max(axis=1).mean() for order in shuffles])
    return Measured(value, np.clip(linear_draws(value, influence.mean(axis=1), weights), 0, 1), null)


def correlation_influence(x: Figures, y: Figures) -> Figures:
    """What one more of each example adds to the correlations of centred columns of unit length, (n, m) with (n, m),
    pair by pair, to first order: (n, m)."""
    correlation = (x * y).sum(axis=0)
    return np.asarray(x * y - correlation * (np.square(x) + np.square(y)) / 2)
