"""Figures with what another sample of examples would change in them, and with what chance alone gives.

Draws are of first order: examples are drawn with replacement, as weights on the examples that are there, and what was
chosen or fitted (class, sign, match, coefficients) stays as it was. Fitting again to draws would add a bias, since an
example that comes twice is fitted better than a new one; that its change is left out is of second order only, because a
fit is stationary. The same draws serve all sets, so what two sets have in common does not widen their difference.
Letters: n examples, b draws, s shuffles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Figures = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


class Interval(NamedTuple):
    """A figure and the percentile interval of its draws; NaN where it has none."""

    value: float
    low: float
    high: float


def _nothing() -> Figures:
    return np.empty(0)


@dataclass(frozen=True)
class Measured:
    """One figure: value, NaN where it could not be measured; draws (b,), the same on resampled examples; null (s,), the
    same where chance alone is at work. Draws and null are empty where there are none."""

    value: float
    draws: Figures = field(repr=False, default_factory=_nothing)
    null: Figures = field(repr=False, default_factory=_nothing)

    def interval(self, level: float = 0.95) -> Interval:
        """Percentile interval of the draws."""
        known = self.draws[~np.isnan(self.draws)]
        if len(known) == 0 or np.isnan(self.value):
            return Interval(self.value, np.nan, np.nan)
        tails = [50 * (1 - level), 50 * (1 + level)]
        # The nearest draw rather than a mean of two: a draw may be infinite.
        low, high = (float(end) for end in np.percentile(known, tails, method="nearest"))
        return Interval(self.value, low, high)

    def null_figures(self) -> tuple[float, float]:
        """Mean of the null, and what 99 % of it lies below; NaN where there is none."""
        known = self.null[~np.isnan(self.null)]
        if len(known) == 0:
            return np.nan, np.nan
        return float(known.mean()), float(np.percentile(known, 99))


def resampled(n: int, draws: int, seed: int) -> Figures:
    """How often each of n examples is drawn in each of b draws of n, with replacement: (b, n)."""
    chosen = np.random.default_rng(seed).integers(0, n, (draws, n))
    counts = np.bincount((chosen + np.arange(draws)[:, None] * n).ravel(), minlength=draws * n)
    return counts.reshape(draws, n).astype(np.float64)


def shuffled(n: int, shuffles: int, seed: int) -> Positions:
    """Permutations of n examples, (s, n)."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(n), (shuffles, 1)), axis=1)


def linear_draws(value: float, influence: Figures, weights: Figures) -> Figures:
    """Draws (b,) of a figure of which one more of example i changes `influence` (n,)[i], to first order."""
    return np.asarray(value + (weights - 1) @ influence)


def mean_known(figures: Figures) -> Figures:
    """Mean over the last axis of what is not NaN, NaN where nothing is: (..., m) -> (...)."""
    known = ~np.isnan(figures)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, figures, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def pooled(figures: Sequence[Measured], seed: int = 0) -> Measured:
    """The mean over runs of several seeds, with draws of seeds and of examples: each draw takes as many seeds with
    replacement, and a draw of the examples for each; the null is the mean of theirs. One run is left as it is."""
    if len(figures) == 1:
        return figures[0]
    value = float(np.mean([one.value for one in figures]))
    rng = np.random.default_rng(seed)
    draws = min(len(one.draws) for one in figures)
    every = np.stack([one.draws[:draws] for one in figures])
    taken = every[
        rng.integers(0, len(figures), (draws, len(figures))), rng.integers(0, max(draws, 1), (draws, len(figures)))
    ]
    shuffles = min(len(one.null) for one in figures)
    null = np.mean([one.null[:shuffles] for one in figures], axis=0)
    return Measured(value, taken.mean(axis=1) if draws else _nothing(), null)
