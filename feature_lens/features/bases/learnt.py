"""Learnt features: what the effective kernel has more of than the initial one."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import scipy.linalg

from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, of_tensors
from feature_lens.features.bases.kernel_basis import AgainstInitial, initial_twin
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.registry import unknown_name

Method = Literal["ratio", "difference"]


@BASES.register("learnt")
class Learnt(AgainstInitial):
    """Functions in which the effective kernel outweighs the initial one most, both divided by their traces.

    method "ratio": the generalised eigenproblem H' v = w (H0' + rho / r) v, H' = H / tr H, r rows; "difference":
    eigenvectors v of H' - H0' of largest eigenvalue w. The activations of the fitted rows are v, of unit norm. Other
    examples follow from the equation that v obeys, read at x: for the ratio
    v(x) = (H'(x, A) - w H0'(x, A)) v / (w rho / r), for the difference v(x) = (H'(x, A) - H0'(x, A)) v / w: what the
    trained kernel says of x less what was there before. rho decides how little of the initial kernel counts as
    nothing; there is no gap to choose it, or `n_components`, by. Derived independently. Cost: two kernels and an
    eigenproblem of side r.

    Learnt: spectrum_ w (k), vectors_ v (r, k).
    """

    def __init__(self, n_components: int = 64, *, rho: float = 1.0, method: Method = "ratio") -> None:
        self.n_components, self.rho, self.method = n_components, rho, method

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError besides for an unknown method, fewer than one feature, or a rho that is not positive."""
        super().check(design)
        if self.method not in get_args(Method):
            raise unknown_name("method of learnt features", self.method, list(get_args(Method)))
        if self.n_components < 1 or not self.rho > 0:
            raise SettingsError(
                f"Learnt features need one or more components and a positive rho, but {self.n_components} and "
                f"{self.rho} came; give larger ones."
            )

    def _coefficients(self, fitted: EffectiveFeatures, kernel: Matrix) -> None:
        initial = np.asarray(initial_twin(fitted).gram(), dtype=np.float64)
        after, before = float(np.trace(kernel)), float(np.trace(initial))
        if not (after > 0 and before > 0):
            raise SettingsError(
                "Learnt features compare two kernels, but one of them is zero; look for dead outputs first."
            )
        r = len(kernel)
        if self.method == "ratio":
            shift = self.rho / r
            values, vectors = scipy.linalg.eigh(kernel / after, initial / before + shift * np.eye(r))
            norms = shift * values
        else:
            values, vectors = np.linalg.eigh(kernel / after - initial / before)
            norms = values
        leading = np.argsort(-values)[: self.n_components]
        leading = leading[values[leading] > 1e-10 * abs(values).max()]
        self.spectrum_ = values[leading]
        self.vectors_ = vectors[:, leading] / np.linalg.norm(vectors[:, leading], axis=0)
        weight = self.vectors_ / norms[leading]
        self.coefficients_ = weight / after
        self.removed_ = weight * (self.spectrum_ if self.method == "ratio" else 1.0) / before

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with its spectrum, by how much the trained kernel outweighs the initial one along each feature."""
        kind, outputs = design.card
        how = {
            "ratio": f"outweighs the initial one most, by the ratio of both (rho = {self.rho:g})",
            "difference": "exceeds the initial one most, by the difference of both",
        }[self.method]
        card = self._card(
            design,
            f"Learnt features of the {kind}, {outputs.split(':')[0]}",
            f"The {len(self.spectrum_)} functions of the fitted examples along which the kernel of the {kind} {how}, each "
            f"kernel divided by its trace.{of_tensors(self.fitted_)}",
            "the generalised eigenproblem of two empirical NTKs"
            if self.method == "ratio"
            else "eigenvectors of the difference of two empirical NTKs",
            "what the trained kernel says of the example less what the initial one says; of unit norm over the fitted examples",
        )
        return self._set(design, name, card, keep, batch_size, {})
