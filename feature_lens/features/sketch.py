"""Projected gradients: the rows of a design on random directions, of which no more than a few are held at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from feature_lens.features.design import Matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.products import Products

Entries = Literal["gaussian", "sparse"]


@dataclass(frozen=True)
class Distortion:
    """Root mean square of (s_i . s_j - K_ij) / sqrt(K_ii K_jj) over pairs of rows, measured and as expected of Gaussian
    directions, sqrt((1 + cos^2) / d), which is sqrt(2 / d) for a row with itself and 1 / sqrt(d) for orthogonal ones."""

    measured: float
    expected: float
    n_rows: int


def random_columns(n_rows: int, columns: range, entries: Entries, seed: int) -> Matrix:
    """Columns of Omega (n_rows, d), each from a stream of its own: entries of mean 0 and variance 1, standard normal, or
    "sparse": +-sqrt(3) in one entry of three and 0 in the others (Achlioptas, J. Comput. Syst. Sci. 66, 2003)."""
    made: Matrix = np.empty((len(columns), n_rows))
    for place, column in enumerate(columns):
        rng = np.random.default_rng([seed, column])
        if entries == "gaussian":
            made[place] = rng.standard_normal(n_rows)
        else:
            made[place] = np.array([-1.0, 1.0, 0.0, 0.0, 0.0, 0.0])[rng.integers(0, 6, n_rows)] * np.sqrt(3)
    return made.T


def sketched(design: EffectiveFeatures, d: int, entries: Entries, seed: int) -> Matrix:
    """Phi Omega / sqrt(d), (r, d): products of two rows are those of the design's kernel on average.

    Neither Phi (r, p) nor Omega (p, d) is formed: products are sums over modules of factors that are held for a block
    of examples, for as many columns of Omega at once as take an eighth of the memory. Cost: one stream, r p d
    multiply-adds less what factors save, and p d random numbers for every block of examples (c p d for trace, whose columns are c times as many).
    """
    at_once = max(1, design.memory // 8 // (8 * design.n_columns))

    def project(part: Products, _rows: slice) -> Matrix:
        found = [
            part.matmul(random_columns(design.n_columns, range(first, min(first + at_once, d)), entries, seed))
            for first in range(0, d, at_once)
        ]
        return np.concatenate(found, axis=1)

    made: Matrix = np.concatenate(design._blockwise(project)).astype(np.float64) / np.sqrt(d)
    return made


def distortion(design: EffectiveFeatures, sketch: Matrix) -> Distortion:
    """How far products of rows (r, d) are from the kernel of a design of a few examples. Cost: that kernel."""
    kernel = np.asarray(design.gram(), dtype=np.float64)
    scale = np.sqrt(np.diag(kernel))
    live = scale > 0
    lengths = np.outer(scale[live], scale[live])
    cosines = kernel[np.ix_(live, live)] / lengths
    error = (sketch[live] @ sketch[live].T) / lengths - cosines
    upper = np.triu_indices(len(cosines))
    measured = float(np.sqrt(np.square(error[upper]).mean())) if live.any() else 0.0
    expected = float(np.sqrt((1 + np.square(cosines[upper])).mean() / sketch.shape[1])) if live.any() else 0.0
    return Distortion(measured, expected, int(live.sum()))
