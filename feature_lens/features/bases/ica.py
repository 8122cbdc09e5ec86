"""Independent components, of activations or inside the leading eigenspace of effective features."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import FastICA

from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES
from feature_lens.features.bases.combination import (
    Projection,
    Words,
    stopped,
    unit_rows,
    until_steps_end,
    whitened,
)
from feature_lens.features.bases.spectral import score_words
from feature_lens.features.design import DesignMatrix, Matrix

_STEPS = 1000
# 1 less the cosine of a step at which steps end: at 1e-4, as usual, what differs by rounding first ends 1e-3 apart.
_TOLERANCE = 1e-14
# Mean of log cosh of a standard normal variable.
_GAUSSIAN = 0.3745672075


@BASES.register("ica")
class Ica(Projection):
    """scikit-learn's FastICA (logcosh): projections that are as far from Gaussian as can be.

    What is turned, by an orthonormal R, are left singular vectors U (r, k) of the rows: of neurons and logits less their
    mean, k at most their rank and 64; of effective features inside the leading eigenspace, from which nothing is taken
    off. Features are the projections on the unit vectors of S^-1 R, on the fitted rows U R times a number each.
    n_components: k, for effective features the dimension of the eigenspace too, chosen by a gap without. Cost: up to
    1,000 steps of r k^2.
    """

    def __init__(self, n_components: int | None = None, *, random_state: int = 0) -> None:
        self.n_components, self.random_state = n_components, random_state

    def _wanted(self) -> int | None:
        return self.n_components

    def _learn(self, rows: Matrix, about_mean: bool) -> None:
        self.mean_ = rows.mean(axis=0) if about_mean else np.zeros(rows.shape[1])
        white, back = whitened(rows - self.mean_, self.n_components or 64)
        found = FastICA(whiten=False, max_iter=_STEPS, tol=_TOLERANCE, random_state=self.random_state)
        with until_steps_end():
            found.fit(white)
        self.learnt_ = stopped(found.n_iter_ >= _STEPS)
        # Which comes first is chance to FastICA: here it is the one farthest from Gaussian.
        away = np.square(np.log(np.cosh(white @ found.components_.T)).mean(axis=0) - _GAUSSIAN)
        self.vectors_ = unit_rows(found.components_[np.argsort(-away, kind="stable")] @ back)

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with the stability of its directions."""
        words = Words(
            "Independent components",
            f"{len(self.vectors_)} directions along which the values of the fitted examples are as far from Gaussian as can be.",
            "independent component analysis (scikit-learn's FastICA)"
            + ("" if self.eigen_ is None else ", inside an eigenspace of the empirical NTK"),
            "projection of the activations, less their mean, on the component's unit direction; both signs count"
            if self.eigen_ is None
            else score_words(design.rows_per_example),
        )
        return self._built(design, name, keep, batch_size, words)
