"""What the network does without single features, told by how much its outputs change: a feature's effect.

An effective feature is taken out of what training added, a neuron is set to zero: both run the real network, but they
are not the same intervention. Letters: k features, n examples, b draws.
"""

from __future__ import annotations

import numpy as np

from feature_lens.analysis.measures.bootstrap import Figures, Measured


def removal_figures(change: Figures, spread: float, weights: Figures) -> dict[str, Measured]:
    """Median and largest over features of the mean |change| (k, n) of each example's predicted output without the
    feature, in units of `spread`; draws by weights (b, n), the largest of the same feature."""
    size = np.abs(change[np.isfinite(change).all(axis=1)]) / spread if spread > 0 else np.empty((0, change.shape[1]))
    if len(size) == 0:
        return {"removal_median": Measured(np.nan), "removal_top": Measured(np.nan)}
    effect = size.mean(axis=1)
    drawn = weights @ size.T / weights.sum(axis=1, keepdims=True)
    return {
        "removal_median": Measured(float(np.median(effect)), np.median(drawn, axis=1)),
        "removal_top": Measured(float(effect.max()), drawn[:, int(effect.argmax())]),
    }
