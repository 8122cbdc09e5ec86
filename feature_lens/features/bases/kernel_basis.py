"""Features made of kernels alone: combinations of the fitted rows, extended to other examples by Nystroem.

No direction in parameter space is formed, which for kernels summed over outputs would have c * p numbers.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.feature_set import Card, FeatureSet
from feature_lens.features.bases.basis import Basis, ranked, stored_columns
from feature_lens.features.bases.spectral import (
    DIRECTION_BYTES,
    Profiles,
    direction_columns,
    score_values,
    tensor_shares,
)
from feature_lens.features.design import DesignMatrix, Matrix, one_thread
from feature_lens.features.effective import EffectiveFeatures

# Matrices of the fitted rows' side held at once beside the kernel of each tensor.
_MATRICES = 6

K = TypeVar("K", bound="KernelBasis")


class KernelBasis(Basis):
    """Features a(x) = H(x, A) C, A the fitted examples, H the design's kernel.

    A subclass's `_learn` sets coefficients_ C (r, k), spectrum_ (k), profile_ (k, q), energy_ (k), mean_share_ (k) and
    parameter_share_ (k, l) of every tensor of the network. Cost beside that: kernels between the fitted and the given
    examples.
    """

    coefficients_: Matrix
    spectrum_: Matrix
    profile_: Matrix
    energy_: Matrix
    mean_share_: Matrix
    parameter_share_: Matrix

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError for designs that are not of effective features, or whose kernels, tensor by tensor, and
        what is made of them do not fit in memory."""
        effective = self._usable(design)
        side = len(effective.examples.fitting) * effective.rows_per_example
        needed = 8 * side**2 * (len(effective.parameters.names) + _MATRICES)
        if needed > effective.memory:
            raise SettingsError(
                f"The basis '{type(self).__name__}' needs kernels of {side:,} rows in memory, {-(-needed >> 20):,} MiB, "
                f"but {effective.memory >> 20:,} MiB may be used; choose the trace reduction or a single output, or more memory."
            )

    def _usable(self, design: DesignMatrix) -> EffectiveFeatures:
        if not isinstance(design, EffectiveFeatures):
            raise SettingsError(
                f"The basis '{type(self).__name__}' is made of effective features, not of {type(design).__name__}; "
                "choose outputs such as trace, or a basis such as 'pca' for these."
            )
        return design

    def fit(self: K, design: DesignMatrix, y: None = None) -> K:
        """Learn from the kernels of the training examples. Memory: some matrices of r x r numbers, one for each tensor."""
        self.check(design)
        fitting = design.examples.fitting
        self._note_fit(design, fitting)
        self.fitted_ = self._usable(design).on(fitting)
        with one_thread():
            self._learn({name: _wide(part) for name, part in self.fitted_.kernels(by="tensor").items()})
        return self

    @abstractmethod
    def _learn(self, kernels: dict[str, Matrix]) -> None:
        """Learn from the share of each tensor in the kernel of the fitted rows."""

    def transform(self, design: DesignMatrix) -> Matrix:
        """Activations (r, k) of all rows, also of examples that were not fitted.

        Raises NotFittedError before `fit`, SettingsError for a design of other columns.
        """
        effective = self._same_columns(design)
        with one_thread():
            return self._activations(effective)

    @abstractmethod
    def _activations(self, design: EffectiveFeatures) -> Matrix:
        """Of a design of the same columns (r, k)."""

    def _same_columns(self, design: DesignMatrix) -> EffectiveFeatures:
        """The design; raises NotFittedError before `fit`, SettingsError for other columns than those of the fit."""
        check_is_fitted(self)
        effective = self._usable(design)
        if design.n_columns != self.fitted_.n_columns:
            raise SettingsError(
                f"The basis was fitted on {self.fitted_.n_columns} columns, but the design has {design.n_columns}; "
                "give a design of the same network, reduction and layers."
            )
        return effective

    def directions(self) -> Matrix:
        """Unit directions v_k of thetahat (k, columns) by whose activations the features are made, before what is taken
        off. Cost: a stream of the fitted examples, and k * columns numbers, c * p columns for trace."""
        check_is_fitted(self)
        found = self.fitted_.rmatmul(self.coefficients_).T
        return np.ascontiguousarray(found)

    def _set(
        self, design: DesignMatrix, name: str, card: Card, keep: int, batch: int, more: dict[str, Column]
    ) -> FeatureSet:
        """A feature set of activations, with what every basis of this kind has learnt."""
        q, k = design.rows_per_example, len(self.spectrum_)
        by_output = self.transform(design).reshape(-1, q, k)
        views = ("score",) if q == 1 else ("score", *design.views)
        values = score_values(by_output, self.profile_)
        if q > 1:
            more = more | {"profile": self.profile_, "energy": self.energy_}
        columns = stored_columns(ranked(design, values, keep, batch), values, np.arange(k, dtype=np.int32))
        columns |= {
            "spectrum": self.spectrum_,
            "mean_share": self.mean_share_,
            "parameter_share": self.parameter_share_,
        }
        if k * self.fitted_.n_columns * 4 <= DIRECTION_BYTES:
            columns |= direction_columns(self.directions(), self.fitted_.parameters, design.network.parameters)
        return FeatureSet(name, views, card, columns | more, design.network.parameters)


class AgainstInitial(KernelBasis):
    """a(x) = H(x, A) C - H0(x, A) C0, H0 the kernel of the same features at the initial parameters, where C0 is given.

    A subclass's `_coefficients` sets coefficients_ C (r, k), removed_ C0 (r, k) or None, and spectrum_ (k).
    """

    removed_: Matrix | None

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError besides for designs that are taken at the initial parameters, or are of a callable of the
        outputs, and NetworkError where the initial parameters are not known."""
        effective = self._usable(design)
        if effective.reduction.name.startswith("callable:"):
            raise SettingsError(
                f"The basis '{type(self).__name__}' compares with initial features of the same outputs, which a function "
                "of the outputs does not name; choose a reduction by name."
            )
        if effective.at == "initial":
            raise SettingsError(
                f"The basis '{type(self).__name__}' compares with initial features; take it at other than initial parameters."
            )
        effective.network.at("initial")
        super().check(design)

    def _learn(self, kernels: dict[str, Matrix]) -> None:
        kernel = np.sum(list(kernels.values()), axis=0)
        self._coefficients(self.fitted_, kernel)
        self._describe(kernel, kernels)

    @abstractmethod
    def _coefficients(self, fitted: EffectiveFeatures, kernel: Matrix) -> None:
        """Learn the coefficients and the spectrum from the kernel of the fitted rows."""

    def _describe(self, kernel: Matrix, kernels: dict[str, Matrix]) -> None:
        """Profiles, signs, shares of the mean and of the tensors, from the fitted rows."""
        q, k = self.fitted_.rows_per_example, len(self.spectrum_)
        found = Profiles.of((kernel @ self.coefficients_ - self._taken_off(self.fitted_)).reshape(-1, q, k))
        self.mean_share_, self.profile_, self.energy_ = found.mean_share, found.profile, found.energy
        self.coefficients_ = self.coefficients_ * found.signs
        self.removed_ = None if self.removed_ is None else self.removed_ * found.signs
        self.parameter_share_ = tensor_shares(kernels, self.coefficients_, self.fitted_.network.parameters.names)

    def _taken_off(self, design: EffectiveFeatures) -> Matrix | float:
        """H0(x, A) C0 of every row of a design."""
        if self.removed_ is None:
            return 0.0
        return _wide(initial_twin(design).kernels(initial_twin(self.fitted_))[""]) @ self.removed_

    def _activations(self, design: EffectiveFeatures) -> Matrix:
        return _wide(design.kernels(self.fitted_)[""]) @ self.coefficients_ - self._taken_off(design)


def initial_twin(design: EffectiveFeatures) -> EffectiveFeatures:
    """The same features at the initial parameters; raises NetworkError where those are not known."""
    return EffectiveFeatures(
        design.network,
        design.examples,
        "initial",
        design.reduction.name,
        layers=design.parameters.names,
        tile=design.tile,
        memory=design.memory,
        workers=design.workers,
    )


def _wide(kernel: npt.ArrayLike) -> Matrix:
    return np.asarray(kernel, dtype=np.float64)
