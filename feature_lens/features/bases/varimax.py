"""Leading eigen features turned so that each is large on few examples and small on the others."""

from __future__ import annotations

import numpy as np

from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES
from feature_lens.features.bases.combination import Projection, Words, unit_rows, whitened
from feature_lens.features.bases.spectral import score_words
from feature_lens.features.design import DesignMatrix, Matrix

_STEPS, _TOLERANCE = 2000, 1e-12


def criterion(loadings: Matrix) -> float:
    """Varimax: the variance over rows of the squared entries (r, k), summed over columns (Kaiser, Psychometrika 23, 1958)."""
    return float(np.square(loadings).var(axis=0).sum())


def varimax(columns: Matrix, steps: int = _STEPS) -> Matrix:
    """The orthonormal rotation R (k, k) that makes `criterion(columns @ R)` largest, from R = 1 upwards.

    `columns` (r, k) must be orthogonal and of equal length: then the mean of squares of each column of columns @ R is
    the same for every R, so that the criterion is the sum of fourth powers, a convex function of R, and each step, the
    rotation nearest to its gradient, can only raise it. (Derived independently; the step is the one that is usual.)
    Cost: r k^2 a step.
    """
    rotation: Matrix = np.eye(columns.shape[1])
    last = criterion(columns)
    for _ in range(steps):
        left, _, right = np.linalg.svd(columns.T @ (columns @ rotation) ** 3)
        rotation = left @ right
        now = criterion(columns @ rotation)
        if now <= last * (1 + _TOLERANCE):
            break
        last = now
    return rotation


@BASES.register("varimax")
class Varimax(Projection):
    """The leading eigenspace turned by varimax: U R, U (r, k) left singular vectors of the design on the fitted rows.

    Directions V^T S^-1 R of unit length, of which the activations are projections; on the fitted rows they are
    orthogonal, up to length U R. Rows of U are turned, not directions, as in Rohe and Zeng, arXiv:2004.05387, where
    columns that are large on few rows are what eigenvectors of near-degenerate eigenvalues mix. Of neurons and logits
    the same, in their own leading eigenspace. n_components: k, chosen by a gap without. Cost: that of the eigen
    features, and r k^2 a step.

    Learnt besides: rotation_ (k, k).
    """

    def __init__(self, n_components: int | None = None, *, random_state: int = 0) -> None:
        self.n_components, self.random_state = n_components, random_state

    def _wanted(self) -> int | None:
        return self.n_components

    def _of_derivatives(self, design: DesignMatrix) -> bool:
        return True  # an eigenspace is needed whatever the rows are

    def _learn(self, rows: Matrix, about_mean: bool) -> None:
        white, back = whitened(rows)
        self.rotation_ = varimax(white)
        self.vectors_ = unit_rows(self.rotation_.T @ back)

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with the stability of its directions."""
        words = Words(
            "Varimax features",
            f"The leading eigen features turned into {len(self.vectors_)} others that are large on few examples and small "
            "on the rest.",
            "varimax rotation of the eigenvectors of the empirical NTK"
            if hasattr(design, "parameters")
            else "varimax rotation of the uncentred principal components",
            score_words(design.rows_per_example),
        )
        return self._built(design, name, keep, batch_size, words)
