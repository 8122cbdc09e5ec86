"""Of how many classes the examples are that a feature shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]


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
