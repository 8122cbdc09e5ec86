"""How sparse features are over the examples: in few examples large, in most near zero.

Letters: k features, n examples, b draws. Zero means zero of the values as they are, except for kurtosis, which is about
the mean.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.measures.bootstrap import Figures, Measured, linear_draws, mean_known

Values = npt.NDArray[np.floating]
ENERGY: Final = 0.9
_NORMAL_FEATURES: Final = 200


def hoyer(values: Values) -> Figures:
    """(sqrt n - |x|_1 / |x|_2) / (sqrt n - 1) of each feature (k, n): 0 where all magnitudes are equal, 1 where one
    example has all; NaN for a feature that is zero. Hoyer, Journal of Machine Learning Research 5 (2004), eq. 4 of
    section 3.1 as usually given, section numbers not at hand."""
    found: Figures = _hoyer(values, np.ones((1, values.shape[1])))[0]
    return found


def energy_share(values: Values) -> Figures:
    """Least share of the examples that holds 90 % of the sum of squares of each feature (k, n); NaN for a feature that
    is zero. The smaller, the sparser."""
    return _energy(values)[0]


def kurtosis(values: Values) -> Figures:
    """Fourth central moment over the square of the second, less 3, of each feature (k, n): what scipy.stats.kurtosis
    gives; NaN for a feature that does not vary."""
    found: Figures = _kurtosis(values, np.ones((1, values.shape[1])))[0]
    return found


def sparsity_figures(values: Values, weights: Figures, shuffles: int, seed: int) -> dict[str, Measured]:
    """Means over the features of hoyer, energy and kurtosis, with draws by weights (b, n). The null is as many features
    of n independent normal numbers. Cost b k n."""
    normal = np.random.default_rng(seed).standard_normal((_NORMAL_FEATURES, values.shape[1]))
    taken = np.random.default_rng(seed).integers(0, _NORMAL_FEATURES, (shuffles, len(values)))
    share, influence = _energy(values)
    lives = ~np.isnan(share)
    draws = {
        "hoyer": mean_known(_hoyer(values, weights)),
        "energy": np.clip(linear_draws(float(mean_known(share)), influence[lives].mean(axis=0), weights), 0, 1)
        if lives.any()
        else np.empty(0),
        "kurtosis": mean_known(_kurtosis(values, weights)),
    }
    singles = {"hoyer": hoyer, "energy": energy_share, "kurtosis": kurtosis}
    return {
        name: Measured(float(mean_known(single(values))), draws[name], single(normal)[taken].mean(axis=1))
        for name, single in singles.items()
    }


def _hoyer(values: Values, weights: Figures) -> Figures:
    """(b, k) of weighted examples."""
    x = values.astype(np.float64)
    n = weights.sum(axis=1, keepdims=True)
    absolute, squares = weights @ np.abs(x).T, weights @ np.square(x).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.sqrt(n) - absolute / np.sqrt(squares)) / (np.sqrt(n) - 1))


def _kurtosis(values: Values, weights: Figures) -> Figures:
    """(b, k) of weighted examples."""
    x = values.astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    n = weights.sum(axis=1, keepdims=True)
    mean, *powers = (weights @ (x**power).T / n for power in (1, 2, 3, 4))
    second = powers[0] - mean**2
    fourth = powers[2] - 4 * mean * powers[1] + 6 * mean**2 * powers[0] - 3 * mean**4
    varies = second > 1e-12 * np.maximum(np.square(values.astype(np.float64)).mean(axis=1), 1e-300)
    return np.where(varies, fourth / np.where(varies, second, 1) ** 2 - 3, np.nan)


def _energy(values: Values) -> tuple[Figures, Figures]:
    """Share (k,) of `energy_share`, and what one more of each example adds to it, (k, n), to first order.

    With t the square at the edge and T the share, an example of square s adds (1 - T - (1 - .9) s / t) / n where it is
    among those that hold the energy, and (.9 s / t - T) / n where not: how many examples are near the edge cancels.
    """
    squares = np.square(values.astype(np.float64))
    n = squares.shape[1]
    order = np.argsort(-squares, axis=1, kind="stable")
    energy = np.cumsum(np.take_along_axis(squares, order, axis=1), axis=1)
    total = energy[:, -1:]
    enough = (energy >= ENERGY * total * (1 - 1e-12)).argmax(axis=1)
    lives = total[:, 0] > 0
    share = np.where(lives, (enough + 1) / n, np.nan)
    edge = squares[np.arange(len(squares)), order[np.arange(len(squares)), enough]]
    inside = np.zeros(squares.shape)
    np.put_along_axis(inside, order, (np.arange(n) <= enough[:, None]).astype(np.float64), axis=1)
    scaled = squares / np.where(edge > 0, edge, 1)[:, None]
    return share, (inside - (inside - ENERGY) * scaled - share[:, None]) / n
