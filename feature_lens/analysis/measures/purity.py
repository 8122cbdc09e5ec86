"""Of how many classes the examples are that a feature shows: those at its top, and those spread over its whole range.

Letters: k features, n examples, t examples shown, q classes, b draws, s shuffles. Position -1 is padding.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.measures.bootstrap import Figures, Measured, Positions, mean_known

Labels = npt.NDArray[np.integer]
Shown = npt.NDArray[np.integer]
_CELLS: Final = 1 << 22


def class_shares(positions: Shown, codes: Labels, classes: int) -> tuple[Figures, npt.NDArray[np.int64]]:
    """Share of each class among the examples shown (k, q), 0 where none is, and how many are (k,). Cost k t + k q."""
    real = positions >= 0
    cell = np.where(real, np.arange(len(positions))[:, None] * classes + codes[np.where(real, positions, 0)], -1)
    counts = np.bincount(cell[real], minlength=len(positions) * classes).reshape(len(positions), classes)
    total = real.sum(axis=1)
    return counts / np.maximum(total, 1)[:, None], total


def top_purity(positions: Shown, labels: Labels) -> Figures:
    """Share of the commonest class among the top examples: positions (k, t), labels (n,) -> (k,).

    NaN where none is shown.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    share, total = class_shares(positions, codes.ravel(), len(classes))
    return np.where(total > 0, share.max(axis=1), np.nan)


def class_entropy(positions: Shown, labels: Labels) -> Figures:
    """Entropy in bits of the classes of the examples shown: positions (k, t), labels (n,) -> (k,); NaN where none is."""
    classes, codes = np.unique(labels, return_inverse=True)
    share, total = class_shares(positions, codes.ravel(), len(classes))
    return np.where(total > 0, -(share * _bits(share)).sum(axis=1), np.nan)


def purity_figures(
    positions: Shown, labels: Labels, weights: Figures, shuffles: Positions
) -> tuple[Measured, Measured]:
    """Mean over features of purity and of entropy (bits), with draws in which each feature's commonest class, and the
    shares whose bits are counted, stay. weights (b, n); shuffles (s, n) of the labels. Cost (b + s) k t."""
    classes, codes = np.unique(labels, return_inverse=True)
    codes = codes.ravel()
    share, total = class_shares(positions, codes, len(classes))
    real = positions >= 0
    at = np.where(real, positions, 0)
    rows = np.arange(len(positions))[:, None]
    scores = (
        (codes[at] == share.argmax(axis=1)[:, None]).astype(np.float64),
        -_bits(share)[rows, codes[at]],
    )
    purity, entropy = top_purity(positions, labels), class_entropy(positions, labels)
    figures = np.stack([purity, entropy])
    draws = np.empty((2, len(weights)))
    for place, weight in enumerate(weights):
        drawn = weight[at] * real
        inside = drawn.sum(axis=1)
        for one, score in enumerate(scores):
            mean = np.where(inside > 0, (drawn * score).sum(axis=1) / np.maximum(inside, 1), np.nan)
            draws[one, place] = mean_known(np.where(total > 0, mean, np.nan))
    null = np.array(
        [
            [
                float(mean_known(top_purity(positions, labels[order]))),
                float(mean_known(class_entropy(positions, labels[order]))),
            ]
            for order in shuffles
        ]
    ).reshape(len(shuffles), 2)
    value = mean_known(figures)
    return Measured(float(value[0]), draws[0], null[:, 0]), Measured(float(value[1]), draws[1], null[:, 1])


def _bits(share: Figures) -> Figures:
    return np.log2(np.where(share > 0, share, 1))
