"""Principal components of neurons or logits."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES
from feature_lens.features.bases.combination import Projection, Words
from feature_lens.features.bases.spectral import degenerate_groups, group_stability
from feature_lens.features.design import DesignMatrix, Matrix


@BASES.register("pca")
class Pca(Projection):
    """scikit-learn's PCA of activations, about their mean or, not centred, about zero.

    n_components: k, at most 64 without; fewer where the singular value falls below 1e-6 of the first. group_gap:
    eigenvalues closer than this, relatively, form one degenerate group, and stability_ is that of groups, not known (NaN) of one that k cuts off. Learnt
    besides: spectrum_ (k), sums of squares of the fitted activations along each. Cost: n m^2.
    """

    in_eigenspace, otherwise = False, "eigen"

    def __init__(
        self,
        n_components: int | None = None,
        *,
        centred: bool = True,
        group_gap: float = 0.01,
        random_state: int = 0,
    ) -> None:
        self.n_components, self.centred = n_components, centred
        self.group_gap, self.random_state = group_gap, random_state

    def _learn(self, rows: Matrix, about_mean: bool) -> None:
        # Rows and their negatives have mean zero, and twice the sums of squares about zero.
        found = PCA(svd_solver="full").fit(rows if self.centred else np.concatenate([rows, -rows]))
        singular = found.singular_values_
        k = min(self.n_components or 64, int(np.count_nonzero(singular > 1e-6 * singular[0])))
        self.mean_ = found.mean_
        self.spectrum_ = np.square(singular[:k]) / (1 if self.centred else 2)
        self.vectors_ = found.components_[:k]
        groups = degenerate_groups(np.square(singular[: k + 1]), self.group_gap)
        self.groups_ = groups[:k]
        self.cut_group_ = len(groups) > k and bool(groups[k] == groups[k - 1])

    def _compared(self, rows: Matrix, first: Matrix, second: Matrix) -> Matrix:
        found = group_stability(first @ second.T, self.groups_)
        if self.cut_group_:
            found[self.groups_ == self.groups_[-1]] = np.nan
        return found

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with its spectrum, groups and stability."""
        about = "their mean" if self.centred else "zero (not centred)"
        twin = "eigen" + ("+centred" if self.centred else "")
        words = Words(
            "Principal components" + ("" if self.centred else ", not centred,"),
            f"The {len(self.vectors_)} directions in which the activations of the fitted examples vary most about {about}.",
            f"{'' if self.centred else 'uncentred '}principal component analysis (scikit-learn's PCA); the basis {twin} gives the same",
            "projection of the activations on the component's unit direction; both signs count",
        )
        columns = {"spectrum": self.spectrum_, "group": self.groups_}
        return self._built(
            design, name, keep, batch_size, words, {**columns, "order": np.arange(len(self.vectors_), dtype=np.int32)}
        )
