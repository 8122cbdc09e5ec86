"""Features made of a few coordinates of every row: of the neurons themselves, or of leading eigen features."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import Basis, of_tensors, ranked, stored_columns
from feature_lens.features.bases.eigen import Eigen
from feature_lens.features.bases.gaps import count_by_ratio
from feature_lens.features.bases.spectral import (
    Profiles,
    direction_columns,
    matched_stability,
    score_values,
    tensor_shares,
)
from feature_lens.features.design import DesignMatrix, Matrix, one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import Logits, NeuronActivations

C = TypeVar("C", bound="Combination")

# Where the gap that ends the leading eigenspace is looked for, counted from 0: the first eigenvalue is mostly the mean.
GAP: Final = (1, 99)


@dataclass(frozen=True)
class Words:
    """What a set is, for its card."""

    title: str
    description: str
    equals: str
    score: str


class Combination(Basis):
    """k features of m coordinates z of every row. Of neurons and logits the coordinates are the columns (units); of
    effective features those of the leading eigenspace, as many as `_wanted` says, or as the largest ratio of successive
    eigenvalues w_i / w_i+1 gives, i = 1..99 counted from 0.

    A subclass's `_learn` sets vectors_ (k, m), unit rows: directions among the coordinates that features are projected
    on, or that they put together again. Learnt besides: stability_ (k), |cosine| between what fits on two halves
    of the examples find, matched one to one, within the same coordinates; reconstruction_, the share of the rows' sum of squares (about their mean,
    for neurons and logits) that the features give back on the fitted rows; for effective features eigen_, the
    eigenspace, gap_, the ratio by which it was chosen, profile_ (k, q), energy_ (k) and mean_share_ (k).
    """

    in_eigenspace: ClassVar[bool] = True
    otherwise: ClassVar[str] = ""
    random_state: int
    vectors_: Matrix
    learnt_: str = ""

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError for designs that this basis cannot be made of."""
        if not isinstance(design, NeuronActivations | Logits | EffectiveFeatures):
            raise SettingsError(
                f"The basis '{type(self).__name__}' is made of neurons, logits or effective features, not of {type(design).__name__}."
            )
        if isinstance(design, EffectiveFeatures) and not self.in_eigenspace:
            raise SettingsError(
                f"The basis '{type(self).__name__}' is made of neurons or logits, not of effective features; choose "
                f"'{self.otherwise}' for these."
            )
        if (k := self.get_params().get("n_components")) is not None and k < 1:
            raise SettingsError(f"At least one feature must be asked for, not {k}; ask for 1 or more.")

    @abstractmethod
    def _learn(self, rows: Matrix, about_mean: bool) -> None:
        """Set vectors_ from coordinates (r, m) of the fitted rows; their mean counts only inside an eigenspace."""

    @abstractmethod
    def _codes(self, rows: Matrix) -> Matrix:
        """Activations (r, k) of coordinates (r, m)."""

    @abstractmethod
    def _rebuilt(self, rows: Matrix) -> Matrix:
        """What the features give back of coordinates (r, m)."""

    def _wanted(self) -> int | None:
        """Dimension of the eigenspace where it is given."""
        return None

    def fit(self: C, design: DesignMatrix, y: None = None) -> C:
        """Learn on the training examples."""
        self.check(design)
        fitting = design.examples.fitting
        self._note_fit(design, fitting)
        fitted, q = design.on(fitting), design.rows_per_example
        with one_thread():
            self.eigen_: Eigen | None = None
            self.gap_: float | None = None
            if self._of_derivatives(design):
                self.eigen_, self.gap_ = self._eigenspace(fitted)
            rows = self._usable(self._coordinates(fitted), fitted)
            self._learn(rows, self.eigen_ is None)
            self.n_columns_ = design.n_columns
            self.signs_ = np.ones(len(self.vectors_))
            found = Profiles.of(self._codes(rows).reshape(-1, q, len(self.vectors_)))
            self.signs_ = found.signs
            self.profile_, self.energy_, self.mean_share_ = found.profile, found.energy, found.mean_share
            about = rows if self.eigen_ is not None else rows - rows.mean(axis=0)
            total = max(float(np.square(about).sum()), np.finfo(float).tiny)
            self.reconstruction_ = 1 - float(np.square(rows - self._rebuilt(rows)).sum()) / total
            self.stability_ = self._stability(rows.reshape(len(fitting), q, -1))
        return self

    def _of_derivatives(self, design: DesignMatrix) -> bool:
        return isinstance(design, EffectiveFeatures)

    def _eigenspace(self, fitted: DesignMatrix) -> tuple[Eigen, float | None]:
        """The leading eigen features, and the ratio of eigenvalues after the last of them where that chose them."""
        wanted = self._wanted()
        found = Eigen(wanted or GAP[1] + 2, random_state=self.random_state).fit(fitted)
        if wanted is not None:
            return found, None
        m = count_by_ratio(found.spectrum_, *GAP, 0.0)
        return found.leading(m), float(found.spectrum_[m - 1] / found.spectrum_[m])

    def _coordinates(self, design: DesignMatrix) -> Matrix:
        if self.eigen_ is not None:
            return self.eigen_.transform(design)
        return np.concatenate([block for _, block in design.blocks()])

    def _usable(self, rows: Matrix, fitted: DesignMatrix) -> Matrix:
        """The rows; raises SettingsError where they are not finite, naming examples, or all the same."""
        bad = np.unique(np.flatnonzero(~np.isfinite(rows).all(axis=1)) // fitted.rows_per_example)
        if len(bad):
            named = ", ".join(str(one) for one in fitted.examples.ids[bad[:3]]) + (", ..." if len(bad) > 3 else "")
            raise SettingsError(
                f"The basis '{type(self).__name__}' needs finite values, but {len(bad)} of {len(fitted.examples)} examples "
                f"give NaN or infinity (ids {named}); leave them out."
            )
        if not np.ptp(rows, axis=0).any():
            raise SettingsError(
                f"The basis '{type(self).__name__}' needs examples that differ, but all rows are equal; choose another layer."
            )
        return rows

    def _stability(self, rows: Matrix) -> Matrix:
        """Of fits on two halves of the examples (n, q, m)."""
        n, _, m = rows.shape
        shuffled = np.random.default_rng(self.random_state).permutation(n)
        fits = []
        for number, half in enumerate((np.sort(shuffled[: n // 2]), np.sort(shuffled[n // 2 :]))):
            # Seeds of their own, so that what fits begin with makes them no more alike.
            part: Combination = clone(self).set_params(random_state=self.random_state + 1 + number)
            try:
                part._learn(rows[half].reshape(-1, m), self.eigen_ is None)
            except SettingsError:  # half of the examples are too few: nothing to compare
                return np.full(len(self.vectors_), np.nan)
            fits.append(part.vectors_)
        return self._compared(rows.reshape(-1, m), *fits)

    def _compared(self, rows: Matrix, first: Matrix, second: Matrix) -> Matrix:
        """How alike the vectors of two half fits are, feature by feature."""
        return matched_stability(self.vectors_, first, second)

    def transform(self, design: DesignMatrix) -> Matrix:
        """Activations (r, k) of all rows, also of examples that were not fitted.

        Raises NotFittedError before `fit`, SettingsError for a design of other columns.
        """
        check_is_fitted(self)
        self.check(design)
        if design.n_columns != self.n_columns_:
            raise SettingsError(
                f"The basis was fitted on {self.n_columns_} columns, but the design has {design.n_columns}; give a design "
                "of the same network, and the same reduction and layers."
            )
        with one_thread():
            return self._codes(self._coordinates(design)) * self.signs_

    def directions(self) -> Matrix:
        """Directions (k, columns): among the units of a layer, or of unit length in parameter space (thetahat), c * p
        columns for trace, where the eigenspace has such directions formed."""
        check_is_fitted(self)
        signed = self.vectors_ * self.signs_[:, None]
        return signed if self.eigen_ is None else signed @ self.eigen_.directions_

    @property
    def _in_space(self) -> str:
        """In words, which coordinates were used and how much of them is given back."""
        if self.eigen_ is None:
            return f" They give back {self.reconstruction_:.1%} of the fitted examples' variance (R2)."
        m = len(self.eigen_.spectrum_)
        chosen = (
            "as asked for"
            if self.gap_ is None
            else f"up to the largest ratio of successive eigenvalues, {self.gap_:.2f}"
        )
        part = "" if self.reconstruction_ > 0.9995 else f", of which they give back {self.reconstruction_:.1%}"
        return f" They lie in the space of the {m} leading eigen features ({chosen}){part}."

    def _built(
        self,
        design: DesignMatrix,
        name: str,
        keep: int,
        batch: int,
        words: Words,
        more: dict[str, Column] | None = None,
    ) -> FeatureSet:
        """The set, with what it is in words, and columns of its own."""
        q, k = design.rows_per_example, len(self.vectors_)
        values = score_values(self.transform(design).reshape(-1, q, k), self.profile_)
        order = np.argsort(-values[:, 0].std(axis=1, dtype=np.float64), kind="stable").astype(np.int32)
        made = stored_columns(ranked(design, values, keep, batch), values, order)
        made |= {"stability": self.stability_, "mean_share": self.mean_share_} | (more or {})
        made |= self._in_parameters(design)
        if q > 1:
            made |= {"profile": self.profile_, "energy": self.energy_}
        kind, outputs = design.card
        where = f"layer '{design.layer}'" if isinstance(design, NeuronActivations) else outputs.split(":")[0]
        of = kind.partition(",")[0] if isinstance(design, NeuronActivations) else kind
        share = None if self.eigen_ is None else self.eigen_.kernel_share_ * self.reconstruction_
        card = self._card(
            design,
            f"{words.title} of the {of}" + ("" if isinstance(design, Logits) else f", {where}"),
            f"{words.description}{self._in_space}{self.learnt_}{of_tensors(design)}",
            words.equals,
            words.score,
            kernel_share=share,
        )
        return FeatureSet(
            name, ("score",) if q == 1 else ("score", *design.views), card, made, design.network.parameters
        )

    def _in_parameters(self, design: DesignMatrix) -> dict[str, Column]:
        """Directions in all of theta and each tensor's share of them, for effective features."""
        if self.eigen_ is None or not isinstance(design, EffectiveFeatures):
            return {}
        table = design.network.parameters
        if self.eigen_.implicit_ is not None:
            fitted, coefficients = self.eigen_.implicit_
            return {
                "parameter_share": tensor_shares(
                    fitted.kernels(by="tensor"), coefficients @ self.vectors_.T, table.names
                )
            }
        return direction_columns(self.directions(), design.parameters, table)


class Projection(Combination):
    """Combinations whose activations are projections of the coordinates, less `mean_` (m,), on vectors_. Half fits are
    compared by their activations on all fitted rows, not by vectors, of which most may lie where nothing varies."""

    mean_: Matrix | float = 0.0

    def _compared(self, rows: Matrix, first: Matrix, second: Matrix) -> Matrix:
        return matched_stability(
            *(unit_rows(vectors @ (rows - self.mean_).T) for vectors in (self.vectors_, first, second))
        )

    def _codes(self, rows: Matrix) -> Matrix:
        found: Matrix = (rows - self.mean_) @ self.vectors_.T
        return found

    def _rebuilt(self, rows: Matrix) -> Matrix:
        found: Matrix = self._codes(rows) @ np.linalg.pinv(self.vectors_.T) + self.mean_
        return found


def unit_rows(vectors: Matrix) -> Matrix:
    """Rows of length 1; zero rows stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Matrix = vectors / np.where(norms > 0, norms, 1)
    return found


@contextmanager
def until_steps_end() -> Iterator[None]:
    """Without warnings of fits that stop before they converge: the card says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def stopped(early: bool) -> str:
    """A sentence where a fit did not converge."""
    return " The fit stopped before it had converged." if early else ""


def whitened(rows: Matrix, most: int | None = None) -> tuple[Matrix, Matrix]:
    """Rows (r, m) as columns W (r, k), orthogonal and of length sqrt(r), and B (k, m) with W = rows B^T sqrt(r): left
    singular vectors, those whose singular value is above 1e-6 of the first, and `most` of them."""
    left, singular, right = np.linalg.svd(rows, full_matrices=False)
    k = min(int(np.count_nonzero(singular > 1e-6 * singular[0])), most or len(singular))
    return left[:, :k] * np.sqrt(len(rows)), right[:k] / singular[:k, None]
