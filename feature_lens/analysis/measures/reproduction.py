"""How many features are needed to reproduce the network's outputs: ridge regressions on the leading ones.

Fitted on the choosing examples, with the ridge that leaves the smallest leave-one-out error there, and reported as R2 on
the others. Letters: k features, n examples, c outputs, b draws, s shuffles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import RidgeCV

from feature_lens.analysis.measures.bootstrap import Figures, Measured, Positions
from feature_lens.analysis.measures.selectivity import Halves

Values = npt.NDArray[np.floating]
RIDGES: Final = np.logspace(-8, 2, 11)  # times the number of choosing examples; features have variance one there
_NULL_TARGETS: Final = 300
_AROUND: Final = (0.7, 0.8, 0.9, 1.1, 1.2, 1.4)  # times the smallest number, where draws are looked for too


@dataclass
class Reproduction:
    """Regressions of outputs (n, c) on the leading features (n, k), as many as are asked for; each is fitted once.

    R2 is that of all outputs together: 1 - sum of squared residuals / sum of squared deviations from each output's mean,
    on the reporting examples; draws by weights (b, number reported).
    """

    features: Values
    outputs: Values
    halves: Halves
    weights: Figures
    found: dict[int, Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._x = standardised(self.features, self.halves.choosing)

    def r2(self, count: int) -> Measured:
        """R2 by the leading `count` features. Cost n count^2 + n count c."""
        if count not in self.found:
            predicted = self._predicted(self.outputs, count, False)
            wanted = self.outputs[self.halves.reporting]
            left = np.square(wanted - predicted).sum(axis=1)
            value = _r2(left, wanted, np.ones((1, len(wanted))))[0]
            self.found[count] = Measured(float(value), _r2(left, wanted, self.weights))
        return self.found[count]

    def null(self, count: int, shuffles: Positions) -> Figures:
        """R2 with the outputs of shuffled examples, of about 300 outputs in all, at least 20 shuffles: (s,)."""
        c = self.outputs.shape[1]
        shuffles = shuffles[: max(20, _NULL_TARGETS // c)]
        if len(shuffles) == 0:
            return np.empty(0)
        shuffled = self.outputs[shuffles].transpose(1, 0, 2)
        flat = shuffled.reshape(len(self.outputs), -1)
        wanted = shuffled[self.halves.reporting]
        left = np.square(wanted - self._predicted(flat, count, True).reshape(wanted.shape)).sum(axis=2)
        ones = np.ones((1, len(left)))
        return np.array([_r2(left[:, one], wanted[:, one], ones)[0] for one in range(len(shuffles))])

    def smallest(self, least: float, most: int) -> Measured:
        """The smallest number of leading features, up to `most`, whose R2 is at least `least`; NaN where none is. By
        doubling and bisection, as if R2 only rose; draws are among the numbers tried, which are a few around it too, and
        infinite where none reaches it."""
        low, high = 0, 1
        while high < most and self.r2(high).value < least:
            low, high = high, min(2 * high, most)
        if self.r2(high).value < least:
            return Measured(np.nan)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.r2(middle).value >= least else (middle, high)
        for factor in _AROUND:
            self.r2(min(max(round(high * factor), 1), most))
        tried = np.array(sorted(self.found))
        reached = np.stack([self.found[int(count)].draws >= least for count in tried])
        draws = np.where(reached.any(axis=0), tried[reached.argmax(axis=0)], np.inf)
        return Measured(float(high), draws)

    def _predicted(self, outputs: Values, count: int, per_target: bool) -> Figures:
        choosing, reporting = self.halves.choosing, self.halves.reporting
        ridge: Any = RidgeCV(RIDGES * len(choosing), alpha_per_target=per_target)
        ridge.fit(self._x[choosing, :count], outputs[choosing])
        return np.asarray(ridge.predict(self._x[reporting, :count])).reshape(len(reporting), -1)


def standardised(features: Values, choosing: Positions) -> Figures:
    """Features (n, k) of mean 0 and variance 1 over the choosing examples; 0 where they do not vary there."""
    x = features.astype(np.float64)
    mean, spread = x[choosing].mean(axis=0), x[choosing].std(axis=0)
    varies = spread > 1e-6 * (np.abs(mean) + spread)
    return np.asarray(np.where(varies, (x - mean) / np.where(varies, spread, 1), 0))


def pursuit_order(features: Values, outputs: Values, choosing: Positions, most: int) -> Positions:
    """Order of up to `most` features (n, k) by orthogonal matching pursuit of all outputs (n, c) together, on the
    choosing examples: each time the feature of largest correlation with what the features before it leave, by the sum of
    squares over outputs. With one output, that of scikit-learn's orthogonal_mp. Ends where nothing is left. Cost most n k c.
    """
    x = standardised(features, choosing)[choosing]
    lengths = np.linalg.norm(x, axis=0)
    x = x / np.where(lengths > 0, lengths, 1)
    left = outputs[choosing] - outputs[choosing].mean(axis=0)
    total = float(np.square(left).sum())
    basis = np.empty((len(x), min(most, x.shape[1])))
    order: list[int] = []
    free = lengths > 0
    while len(order) < basis.shape[1] and free.any() and np.square(left).sum() > 1e-12 * total:
        chosen = int(np.where(free, np.square(x.T @ left).sum(axis=1), -1).argmax())
        free[chosen] = False
        new = x[:, chosen]
        for _ in range(2):
            new = new - basis[:, : len(order)] @ (basis[:, : len(order)].T @ new)
        length = float(np.linalg.norm(new))
        if length > 1e-5:
            basis[:, len(order)] = new / length
            left = left - np.outer(new / length, (new / length) @ left)
            order.append(chosen)
    return np.array(order, dtype=np.int64)


def _r2(left: Figures, wanted: Values, weights: Figures) -> Figures:
    """(b,) of squared residuals (m,) and what was wanted (m, c), with weights (b, m); NaN where that does not vary."""
    centred = wanted - wanted.mean(axis=0)
    total = np.maximum(weights.sum(axis=1), 1)
    mean = weights @ centred / total[:, None]
    spread = weights @ np.square(centred).sum(axis=1) - total * np.square(mean).sum(axis=1)
    varies = spread > 1e-300
    return np.where(varies, 1 - weights @ left / np.where(varies, spread, 1), np.nan)
