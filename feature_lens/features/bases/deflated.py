"""Deflated features: eigen features of what the effective kernel has beyond the leading eigenspace of the initial one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, of_tensors
from feature_lens.features.bases.gaps import count_by_ratio
from feature_lens.features.bases.kernel_basis import AgainstInitial, initial_twin
from feature_lens.features.bases.spectral import degenerate_groups, group_stability, score_words
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.effective import EffectiveFeatures

# Where gaps are looked for, counted from 0: the first eigenvalue is mostly the mean and stands apart by itself.
_REMOVED = (1, 199)
_KEPT = (4, 299)
# Share of a kernel's trace that is rounding, by the bytes of the numbers it was made of.
_ROUNDING = {8: 1e-12, 4: 1e-7}


@dataclass(frozen=True)
class Deflation:
    """P H P = U w U^T truncated: spectrum w (k,), vectors U (r, k); and what P takes out: initial eigenvalues (q,) and
    eigenvectors (r, q). Coefficients: activations on the fitted rows are sqrt(w) U, of unit directions."""

    spectrum: Matrix
    vectors: Matrix
    initial_spectrum: Matrix
    initial_vectors: Matrix

    @property
    def coefficients(self) -> Matrix:
        """C (r, k) = P U / sqrt(w): v_k = Phi^T C are orthonormal."""
        return self.vectors / np.sqrt(self.spectrum)

    def removed(self, kernel: Matrix, coefficients: Matrix) -> Matrix:
        """C0 (r, k), by which the projection onto the initial eigenvectors U0 is extended to other examples: what is
        taken off there is their Nystroem extension H0(x, A) U0 / w0, times U0^T H C."""
        inner = self.initial_vectors.T @ (kernel @ coefficients)
        return (self.initial_vectors / self.initial_spectrum) @ inner


def deflate(
    kernel: Matrix, initial: Matrix, n_removed: int | None, n_kept: int | None, rounding: float = 1e-12
) -> Deflation:
    """Project the leading eigenspace of the initial kernel (r, r) out of the effective one, on both sides.

    Without numbers both dimensions are chosen by the largest ratio of successive eigenvalues; those below `rounding`
    times the trace of a kernel are noise. Raises SettingsError
    where there are too few eigenvalues. Cost: two eigenproblems of side r.
    """
    values, vectors = _falling(initial)
    q = count_by_ratio(values, *_REMOVED, rounding * float(np.trace(initial))) if n_removed is None else n_removed
    taken = vectors[:, :q]
    left = kernel - taken @ (taken.T @ kernel)
    left -= (left @ taken) @ taken.T
    spectrum, own = _falling((left + left.T) / 2)
    floor = rounding * float(np.trace(kernel))
    k = count_by_ratio(spectrum, *_KEPT, floor) if n_kept is None else n_kept
    real = int(np.count_nonzero(spectrum > floor))
    if not 1 <= k <= real:
        raise SettingsError(
            f"{k} deflated features were asked for, but {real} eigenvalues are left when {q} vectors are taken out; "
            "ask for fewer of either."
        )
    return Deflation(spectrum[:k], own[:, :k], values[:q], taken)


def _falling(symmetric: Matrix) -> tuple[Matrix, Matrix]:
    values, vectors = np.linalg.eigh(symmetric)
    return values[::-1], vectors[:, ::-1]


@BASES.register("deflated")
class Deflated(AgainstInitial):
    """Eigen features of P H P, H the kernel of the design, P the projector that takes out the leading eigenvectors of
    the initial kernel: what training added, where the leading features of the trained kernel are the geometry of the
    inputs, which was there before.

    n_removed, n_components: the two dimensions; None chooses them by the largest ratio of successive eigenvalues, of
    the initial kernel after its first, and of P H P after its first four. On other examples the initial eigenvectors
    are extended by Nystroem and their part taken off. Derived independently, for the group of eigenvectors 57 to 112
    of Lin, arXiv:2510.00468, without counting them by hand. Cost: two kernels and eigenproblems of side r, and two
    of half of that for each half fit.

    Learnt: spectrum_ (k), vectors_ (r, k) orthonormal on the fitted rows, coefficients_, n_removed_, groups_,
    stability_ (cosines between the fits of two halves), kernel_share_ (of the kernel of the design).
    """

    def __init__(
        self,
        n_components: int | None = None,
        n_removed: int | None = None,
        *,
        group_gap: float = 0.01,
        random_state: int = 0,
    ) -> None:
        self.n_components, self.n_removed = n_components, n_removed
        self.group_gap, self.random_state = group_gap, random_state

    def _coefficients(self, fitted: EffectiveFeatures, kernel: Matrix) -> None:
        initial = np.asarray(initial_twin(fitted).gram(), dtype=np.float64)
        rounding = _ROUNDING[fitted.itemsize]
        found = deflate(kernel, initial, self.n_removed, self.n_components, rounding)
        self.deflation_ = found
        self.spectrum_, self.vectors_ = found.spectrum, found.vectors
        self.coefficients_ = found.coefficients
        self.removed_ = found.removed(kernel, found.coefficients)
        self.n_removed_ = len(found.initial_spectrum)
        self.kernel_share_ = float(found.spectrum.sum() / np.trace(kernel))
        self.groups_ = degenerate_groups(found.spectrum, self.group_gap)
        self.stability_ = group_stability(self._overlap(fitted, kernel, initial, rounding), self.groups_)

    def _overlap(self, fitted: EffectiveFeatures, kernel: Matrix, initial: Matrix, rounding: float) -> Matrix | None:
        """Cosines between the directions of fits on two halves, of the same dimensions; None where a half is too small."""
        n, q = len(fitted.examples), fitted.rows_per_example
        shuffled = np.random.default_rng(self.random_state).permutation(n)
        halves = [
            (np.sort(half)[:, None] * q + np.arange(q)).ravel() for half in (shuffled[: n // 2], shuffled[n // 2 :])
        ]
        k = len(self.spectrum_)
        made = []
        for rows in halves:
            try:
                part = deflate(kernel[np.ix_(rows, rows)], initial[np.ix_(rows, rows)], self.n_removed_, k, rounding)
            except SettingsError:  # fewer eigenvalues are left on half of the examples: nothing to compare
                return None
            made.append(part.coefficients)
        overlap: Matrix = made[0].T @ kernel[np.ix_(*halves)] @ made[1]
        return overlap

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with its spectrum, groups and stability."""
        kind, outputs = design.card
        removed = f"the {self.n_removed_} leading eigenvectors of the initial kernel"
        chosen = "chosen by the largest gap" if self.n_removed is None else "as asked for"
        card = self._card(
            design,
            f"Deflated features of the {kind}, {outputs.split(':')[0]}",
            f"The {len(self.spectrum_)} directions in which the {kind} of the fitted examples vary most once {removed} "
            f"({chosen}) are projected out; the activation of an example is its projection, less the part that those "
            f"eigenvectors hold.{of_tensors(self.fitted_)}",
            "kernel PCA with the empirical NTK, outside the leading eigenspace of the initial NTK",
            score_words(design.rows_per_example) + "; the part that was there before training is taken off",
            kernel_share=self.kernel_share_,
        )
        return self._set(design, name, card, keep, batch_size, {"group": self.groups_, "stability": self.stability_})
