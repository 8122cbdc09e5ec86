"""Non-negative factors of activations that are never negative."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import NMF

from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES
from feature_lens.features.bases.combination import Combination, Words, stopped, unit_rows, until_steps_end
from feature_lens.features.design import DesignMatrix, Matrix

_SWEEPS = 1000


@BASES.register("nmf")
class Nmf(Combination):
    """scikit-learn's NMF of activations: each example a sum, with weights >= 0, of k parts >= 0 of unit length.

    n_components: k; 32 without, at most the rank of the fitted activations. Needs activations >= 0 on all examples,
    such as those after a ReLU. Activation of a feature: the weight of its part. Cost: up to 1,000 sweeps of n m k.
    """

    in_eigenspace, otherwise = False, "ica"

    def __init__(self, n_components: int | None = None, *, random_state: int = 0) -> None:
        self.n_components, self.random_state = n_components, random_state

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError besides where an activation is negative. Cost: a forward pass of all examples."""
        super().check(design)
        lowest = min(float(block.min()) for _, block in design.blocks())
        if lowest < 0:
            raise SettingsError(
                f"Non-negative factors need activations that are never negative, but those of the {design.card[0]} go down "
                f"to {lowest:.3g}; choose a layer after a ReLU, or the basis 'ica' or 'dictionary'."
            )

    def _learn(self, rows: Matrix, about_mean: bool) -> None:
        # More parts than the rank, as where units are dead, make scikit-learn's start a division of zero by zero.
        rank = int(np.linalg.matrix_rank(rows))
        if rank == 0:
            raise SettingsError(
                "Non-negative factors need activations, but all of them are zero; choose another layer."
            )
        k = min(self.n_components or 32, rank)
        self._model = NMF(k, init="nndsvda", max_iter=_SWEEPS, random_state=self.random_state)
        with until_steps_end():
            self._model.fit(rows)
        self.learnt_ = stopped(self._model.n_iter_ >= _SWEEPS)
        self._lengths = np.linalg.norm(self._model.components_, axis=1)
        self.vectors_ = unit_rows(self._model.components_)

    def _codes(self, rows: Matrix) -> Matrix:
        with until_steps_end():
            found: Matrix = self._model.transform(rows) * self._lengths
        return found

    def _rebuilt(self, rows: Matrix) -> Matrix:
        found: Matrix = self._codes(rows) @ self.vectors_
        return found

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with the stability of its parts."""
        words = Words(
            "Non-negative factors",
            f"Activations as sums of {len(self.vectors_)} parts of which none is taken off.",
            "non-negative matrix factorisation (scikit-learn's NMF)",
            "how much of the part of unit length the activations hold, never negative",
        )
        return self._built(design, name, keep, batch_size, words)
