"""Sparse dictionaries, of activations or inside the leading eigenspace of effective features."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import DictionaryLearning

from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES
from feature_lens.features.bases.combination import Combination, Words, stopped, unit_rows, until_steps_end
from feature_lens.features.design import DesignMatrix, Matrix

_SWEEPS = 50


@BASES.register("dictionary")
class Dictionary(Combination):
    """scikit-learn's DictionaryLearning: each row a sparse sum of k atoms of unit length.

    Minimised is |z - codes D|^2 / 2 + alpha |codes|_1, z coordinates divided by the root of their mean square; of neurons and logits, less their mean
    before. n_components: k; without, twice as many as coordinates, 128 at most. For effective features the eigenspace is
    chosen by a gap, or by n_eigen, and an atom is a unit direction in parameter space; an activation is then the
    example's code, not its projection. Cost: a lasso of m coordinates for every row, at most 50 times over, and for the halves.
    """

    def __init__(
        self, n_components: int | None = None, *, n_eigen: int | None = None, alpha: float = 1.0, random_state: int = 0
    ) -> None:
        self.n_components, self.n_eigen = n_components, n_eigen
        self.alpha, self.random_state = alpha, random_state

    def _wanted(self) -> int | None:
        return self.n_eigen

    def _learn(self, rows: Matrix, about_mean: bool) -> None:
        self.mean_ = rows.mean(axis=0) if about_mean else np.zeros(rows.shape[1])
        self.scale_ = float(np.sqrt(np.square(rows - self.mean_).mean()))
        k = self.n_components or min(2 * rows.shape[1], 128)
        self._model = DictionaryLearning(
            k,
            alpha=self.alpha,
            max_iter=_SWEEPS,
            tol=1e-5,
            fit_algorithm="cd",
            transform_algorithm="lasso_cd",
            transform_alpha=self.alpha,
            transform_max_iter=2000,
            random_state=self.random_state,
        )
        with until_steps_end():  # what it tells of are codes on the way, which need not be exact
            self._model.fit((rows - self.mean_) / self.scale_)
        self.learnt_ = stopped(self._model.n_iter_ >= _SWEEPS)
        self.vectors_ = unit_rows(self._model.components_)

    def _codes(self, rows: Matrix) -> Matrix:
        with until_steps_end():
            found: Matrix = self._model.transform((rows - self.mean_) / self.scale_) * self.scale_
        return found

    def _rebuilt(self, rows: Matrix) -> Matrix:
        found: Matrix = self._codes(rows) @ self._model.components_ + self.mean_
        return found

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with the stability of its atoms."""
        words = Words(
            "Sparse dictionary",
            f"Rows as sparse sums of {len(self.vectors_)} atoms.",
            "dictionary learning (scikit-learn's DictionaryLearning)"
            + ("" if self.eigen_ is None else ", inside an eigenspace of the empirical NTK"),
            "how much of the atom of unit length the example's sparse sum holds; both signs count",
        )
        return self._built(design, name, keep, batch_size, words)
