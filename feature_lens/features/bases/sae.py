"""Features of a sparse autoencoder that is trained on activations."""

from __future__ import annotations

import numpy as np

from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES
from feature_lens.features.bases.combination import Combination, Words
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.sparse_autoencoder import train


@BASES.register("sae")
class Sae(Combination):
    """Codes of a sparse autoencoder of neurons or logits, with one hidden layer of ReLU units.

    n_components: k, four times the number of units without, 1,024 at most. penalty: weight of the codes' sum beside the squared
    error, activations divided by the root of their mean square. active: codes kept per example, top-k, instead of
    the penalty. steps: of Adam. See `sparse_autoencoder.train`. Codes are never negative; those that are zero on every fitted example
    are told on the card. Cost: three times the training, for the halves.

    Learnt besides: model_, active_ (mean number of codes above zero on a fitted example), dead_ (codes that are zero on all of them).
    """

    in_eigenspace, otherwise = False, "dictionary"

    def __init__(
        self,
        n_components: int | None = None,
        *,
        penalty: float = 1.0,
        active: int | None = None,
        steps: int = 400,
        random_state: int = 0,
    ) -> None:
        self.n_components, self.penalty, self.active = n_components, penalty, active
        self.steps, self.random_state = steps, random_state

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError besides for a penalty, a number of codes or of steps that is impossible."""
        super().check(design)
        if self.penalty < 0 or self.steps < 1 or (self.active is not None and self.active < 1):
            raise SettingsError(
                f"A sparse autoencoder needs a penalty of 0 or more, one or more steps and active codes, but "
                f"{self.penalty}, {self.steps} and {self.active} came; give larger ones."
            )

    def _learn(self, rows: Matrix, about_mean: bool) -> None:
        k = self.n_components or min(4 * rows.shape[1], 1024)
        self.model_ = train(rows, k, self.penalty, self.active, self.steps, self.random_state)
        codes = self.model_.codes(rows)
        self.active_ = float((codes > 0).sum(axis=1).mean())
        self.dead_ = int(np.count_nonzero(codes.max(axis=0) == 0))
        self.vectors_ = self.model_.decoder
        dead = f"; {self.dead_} of them are never above zero" if self.dead_ else ""
        self.learnt_ = f" On average {self.active_:.1f} of {k} are above zero on an example{dead}."

    def _codes(self, rows: Matrix) -> Matrix:
        return self.model_.codes(rows)

    def _rebuilt(self, rows: Matrix) -> Matrix:
        return self.model_.rebuilt(rows)

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with the stability of the decoder's directions."""
        how = f"the {self.active} largest kept" if self.active is not None else f"penalty {self.penalty:g}"
        words = Words(
            "Sparse autoencoder",
            f"Activations as sparse, non-negative sums of {len(self.vectors_)} directions, by an encoder of one layer of "
            f"ReLU units ({how}, {self.steps:,} steps).",
            "a sparse autoencoder"
            + (" with top-k codes (after arXiv:2406.04093)" if self.active else " (after arXiv:2309.08600)"),
            "code of the direction of unit length, never negative",
        )
        return self._built(design, name, keep, batch_size, words)
