"""Eigen features: the principal directions of a design matrix, eigenvectors of its kernel."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, Basis, of_tensors, ranked, stored_columns
from feature_lens.features.bases.spectral import (
    DIRECTION_BYTES,
    Profiles,
    degenerate_groups,
    direction_columns,
    group_stability,
    score_values,
    score_words,
    tensor_shares,
)
from feature_lens.features.centred_rows import CentredDesign
from feature_lens.features.decompositions import Side, chosen_side, decompose
from feature_lens.features.design import DesignMatrix, Matrix, one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.known_methods import eigen_equals
from feature_lens.features.spectrum import Spread
from feature_lens.features.unit_rows import UnitRowDesign, unwrapped

# What is left of rows that are equal when their mean is taken off their kernel, as a share of it.
_ROUNDING = 1e-13


@BASES.register("eigen")
class Eigen(Basis):
    """Principal effective features: Phi = U S V^T on the fitted rows, direction v_k, activation Phi v_k.

    Derived independently; intended to correspond to the principal components of the effective features of PDLT,
    arXiv:2106.10165, ch. infinity; for the trace reduction they are the traced eNTK eigenvectors of Lin,
    arXiv:2510.00468, extended to new examples by Nystroem, H(x, A) u_k / S_k = Phi(x) v_k.

    n_components: k, fewer where an eigenvalue falls below `drop` times the first. centred: take the mean row of each
    output off. cosine: divide each row by its length before that, so that the kernel is K_ij / sqrt(K_ii K_jj) and no
    example counts for its size. side: the kernel (r, r) by 'rows', the cogram (p, p) by 'columns', 'matrix_free', or whichever is
    cheapest and fits in the design's memory by 'auto'; all give the same features. group_gap: eigenvalues closer than
    this, relatively, form one degenerate group. Cost: min(r, p)^2 max(r, p) dense, r p k steps matrix-free.

    Learnt: spectrum_ (k), residuals_ |H u - w u| / w (k), tail_ (where the rest lies), directions_ (k, p), groups_ (k), stability_ (k), mean_share_ (k), kernel_share_, side_,
    and for several rows per example profile_ (k, q) and energy_ (k). The sign of a feature makes the sum of
    cubes of its training scores positive. The stability of a group that n_components cuts off is not known (NaN).
    Memory: directions_ take k * p numbers, for trace k * c * p; where these would be above 64 MiB and the kernel is
    the cheaper side, directions_ is empty, implicit_ holds the fitted design and C = U / S (r, k) instead, and
    activations are Phi(x) v = H(x, A) C, from the kernel between the fitted and the given examples.
    """

    def __init__(
        self,
        n_components: int = 64,
        *,
        centred: bool = False,
        cosine: bool = False,
        side: Side = "auto",
        drop: float = 1e-6,
        group_gap: float = 0.01,
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.centred = centred
        self.cosine = cosine
        self.side = side
        self.drop = drop
        self.group_gap = group_gap
        self.random_state = random_state

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError for settings that no design can be fitted with."""
        if self.n_components < 1:
            raise SettingsError(
                f"At least one eigen feature must be asked for, not {self.n_components}; ask for 1 or more."
            )
        chosen_side(self.side, design, self.n_components)

    def fit(self, design: DesignMatrix, y: None = None) -> Eigen:
        """Learn directions on the training examples.

        Raises SettingsError for impossible settings, a matrix that is zero (or constant, when centred), and one that
        is not finite, naming the examples.
        """
        self.check(design)
        fitting = design.examples.fitting
        self._note_fit(design, fitting)
        plain = design.on(fitting)
        fitted: DesignMatrix = UnitRowDesign(plain) if self.cosine else plain
        self.mean_: Matrix | None = fitted.mean() if self.centred else None
        if self.mean_ is not None:
            fitted = CentredDesign(fitted, self.mean_)
        with one_thread():
            self.side_ = chosen_side(self.side, fitted, self.n_components)
            # One more than is wanted tells whether the last group is whole.
            formed = self._forms_directions(fitted)
            found = decompose(fitted, self.side_, self.n_components + 1, self.random_state, formed)
            self._refuse_constant(found.total, len(fitting))
            # Where products carry seven digits, what is smaller is their rounding.
            drop = self.drop if fitted.itemsize == 8 else max(self.drop, 1e-5)
            k = min(self.n_components, int(np.count_nonzero(found.spectrum > drop * found.spectrum[0])))
            self.residuals_, self.tail_ = found.residuals[:k].copy(), found.tail
            self.spectrum_ = found.spectrum[:k].copy()
            self.directions_ = (
                np.empty((0, fitted.n_columns)) if found.directions is None else found.directions[:k].copy()
            )
            self.implicit_: tuple[EffectiveFeatures, Matrix] | None = None
            self.offset_: Matrix | float = 0.0
            if found.left is not None and isinstance(plain, EffectiveFeatures):
                self._keep_coefficients(plain, fitted, found.left[:, :k] / np.sqrt(self.spectrum_))
            self.kernel_share_ = float(self.spectrum_.sum() / found.total)
            groups = degenerate_groups(found.spectrum[: k + 1], self.group_gap)
            self.groups_ = groups[:k]
            self.cut_group_ = len(groups) > k and bool(groups[k] == groups[k - 1])
            self.stability_ = group_stability(found.overlap, self.groups_)
            if self.cut_group_:
                self.stability_[self.groups_ == self.groups_[-1]] = np.nan
            self._orient(fitted)
        return self

    def _forms_directions(self, fitted: DesignMatrix) -> bool:
        """Whether directions are not too many numbers to be formed, or are needed."""
        plain, _ = unwrapped(fitted)
        joined = isinstance(plain, EffectiveFeatures) and plain.reduction.joined
        wanted = min(self.n_components, *fitted.shape) * fitted.n_columns * 8
        return not joined or self.side_ != "rows" or wanted <= DIRECTION_BYTES

    def _projected(self, design: DesignMatrix) -> Matrix:
        """Phi v of every row (r, k)."""
        if self.implicit_ is None:
            return design.matmul(self.directions_.T)
        plain, lengths = unwrapped(design)
        assert isinstance(plain, EffectiveFeatures)  # `_centred` lets nothing else through
        fitted, coefficients = self.implicit_
        found: Matrix = np.asarray(plain.kernels(fitted)[""], dtype=np.float64) @ coefficients
        return (found if lengths is None else found / lengths[:, None]) - self.offset_

    def _keep_coefficients(self, plain: EffectiveFeatures, fitted: DesignMatrix, left: Matrix) -> None:
        """C (r, k) with v = Phi^T C, Phi the plain rows, one per example, from those of the rows that were fitted."""
        coefficients = left - left.mean(axis=0) if self.mean_ is not None else left
        lengths = unwrapped(fitted)[1]
        self.implicit_ = plain, coefficients if lengths is None else coefficients / lengths[:, None]
        if self.mean_ is not None:
            self.offset_ = self._projected(fitted).mean(axis=0)

    def _refuse_constant(self, total: float, n: int) -> None:
        """Raise SettingsError where nothing but rounding is left after the mean was taken off."""
        if self.mean_ is not None and total <= _ROUNDING * n * float(np.square(self.mean_).sum()):
            raise SettingsError(
                "Centred eigen features need examples that differ, but all rows are equal; do not centre."
            )

    def _orient(self, fitted: DesignMatrix) -> None:
        """Fix score profiles and signs from the training activations."""
        q = fitted.rows_per_example
        found = Profiles.of(self._projected(fitted).reshape(-1, q, len(self.spectrum_)))
        self.mean_share_, self.profile_, self.energy_ = found.mean_share, found.profile, found.energy
        if self.implicit_ is None:
            self.directions_ *= found.signs[:, None]
        else:
            self.implicit_ = self.implicit_[0], self.implicit_[1] * found.signs
            self.offset_ = self.offset_ * found.signs

    def leading(self, k: int) -> Eigen:
        """The k leading features of this fit alone, as a basis of their own."""
        made = copy.copy(self)
        made.n_components = k
        for name in (
            "spectrum_",
            "residuals_",
            "directions_",
            "groups_",
            "stability_",
            "profile_",
            "energy_",
            "mean_share_",
        ):
            setattr(made, name, getattr(self, name)[:k])
        if self.implicit_ is not None:
            made.implicit_ = self.implicit_[0], self.implicit_[1][:, :k]
            made.offset_ = self.offset_[:k] if isinstance(self.offset_, np.ndarray) else self.offset_
        made.cut_group_ = k < len(self.groups_) and bool(self.groups_[k] == self.groups_[k - 1])
        made.kernel_share_ = self.kernel_share_ * float(made.spectrum_.sum() / self.spectrum_.sum())
        return made

    def transform(self, design: DesignMatrix) -> Matrix:
        """Activations (r, k) = Phi v of all rows, also of examples that were not fitted.

        Raises NotFittedError before `fit`, SettingsError for a design of other columns.
        """
        return self._projected(self._centred(design))

    def _centred(self, design: DesignMatrix) -> DesignMatrix:
        check_is_fitted(self)
        if design.n_columns != self.directions_.shape[1]:
            raise SettingsError(
                f"The basis was fitted on {self.directions_.shape[1]} columns, but the design has {design.n_columns}; "
                "give a design of the same network, reduction and layers."
            )
        if self.implicit_ is not None and not isinstance(design, EffectiveFeatures):
            raise SettingsError(f"The basis was fitted on effective features, but a {type(design).__name__} came.")
        scaled: DesignMatrix = UnitRowDesign(design) if self.cosine else design
        return scaled if self.mean_ is None else CentredDesign(scaled, self.mean_)

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with its spectrum, directions, groups and stability; for several outputs the view 'score' leads."""
        q, k = design.rows_per_example, len(self.spectrum_)
        by_output = self.transform(design).reshape(-1, q, k)
        views = ("score",) if q == 1 else ("score", *design.views)
        values = score_values(by_output, self.profile_)
        ranking = ranked(design, values, keep, batch_size)
        columns = stored_columns(ranking, values, np.arange(k, dtype=np.int32))
        columns |= {
            "spectrum": self.spectrum_,
            "group": self.groups_,
            "stability": self.stability_,
            "mean_share": self.mean_share_,
            "residual": self.residuals_,
        }
        if q > 1:
            columns |= {"profile": self.profile_, "energy": self.energy_}
        columns |= self._direction_columns(design)
        derived = self._centred(design)
        kind, outputs = derived.card
        rest = _rest_words(self.tail_, self.kernel_share_)
        cut = " The last group of near-degenerate eigenvalues is cut off by that number." if self.cut_group_ else ""
        card = self._card(
            derived,
            f"Eigen features of the {kind}, {outputs.split(':')[0]}",
            f"The {k} directions in which the {kind} of the fitted examples vary most; the activation of an example is "
            f"the projection of its row{', divided by its length,' if self.cosine else ''} on the direction.{cut}{rest}{of_tensors(design)}",
            eigen_equals(design, self.centred, self.cosine),
            score_words(q),
            kernel_share=self.kernel_share_,
        )
        return FeatureSet(name, views, card, columns, design.network.parameters)

    def _direction_columns(self, design: DesignMatrix) -> dict[str, Column]:
        """Directions in all of theta, zero in tensors that were not chosen, and each tensor's share of them."""
        chosen = getattr(design, "parameters", None)
        if chosen is None:
            return {}
        table = design.network.parameters
        if self.implicit_ is not None:
            fitted, coefficients = self.implicit_
            return {"parameter_share": tensor_shares(fitted.kernels(by="tensor"), coefficients, table.names)}
        return direction_columns(self.directions_, chosen, table)


def _rest_words(tail: Spread | None, share: float) -> str:
    """Where the rest of the kernel lies, so that a share of it can be judged."""
    if tail is None or share > 0.9995:
        return ""
    return (
        f" They hold {share:.1%} of the kernel; of the rest, {tail.share:.1%} lies in about {tail.number.value:,.0f} "
        f"further eigenvalues between {tail.high:.2g} and {tail.low:.2g} (estimated)."
    )
