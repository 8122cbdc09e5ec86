"""Projected gradients as a basis: few numbers for each row, whose products are those of the kernel, nearly."""

from __future__ import annotations

from typing import get_args

import numpy as np
from sklearn.utils.validation import check_is_fitted

from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, Basis, of_tensors, ranked, stored_columns
from feature_lens.features.bases.spectral import Profiles, score_values
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.sketch import Entries, distortion, sketched
from feature_lens.registry import unknown_name

# Rows of the fitted examples on which products are held against the kernel.
_COMPARED = 512


@BASES.register("sketch")
class Sketch(Basis):
    """Phi Omega / sqrt(d): every row on d random directions of parameter space, of entries of variance 1.

    Products of two rows are unbiased for the kernel's, with a relative error of sqrt((1 + cos^2) / d) for Gaussian
    entries: sqrt(2 / d) at worst (derived independently; the lemma is that of Johnson and Lindenstrauss). n_components:
    d. entries: "gaussian" or "sparse". Nothing but the profile over outputs is fitted. Cost: `features.sketch.sketched`.

    Learnt: distortion_, measured on fitted rows, beside what is expected.
    """

    def __init__(self, n_components: int = 256, *, entries: Entries = "gaussian", random_state: int = 0) -> None:
        self.n_components, self.entries, self.random_state = n_components, entries, random_state

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError for designs that are not of effective features, and for impossible settings."""
        self._usable(design)
        if self.entries not in get_args(Entries):
            raise unknown_name("kind of random entries", self.entries, list(get_args(Entries)))
        if self.n_components < 1:
            raise SettingsError(
                f"At least one direction must be asked for, not {self.n_components}; ask for 1 or more."
            )

    def _usable(self, design: DesignMatrix) -> EffectiveFeatures:
        if not isinstance(design, EffectiveFeatures):
            raise SettingsError(
                f"The basis 'Sketch' is made of effective features, not of {type(design).__name__}; choose 'directions'."
            )
        return design

    def fit(self, design: DesignMatrix, y: None = None) -> Sketch:
        """Project the training examples, and hold products of some of their rows against the kernel."""
        self.check(design)
        self._note_fit(design, fitting := design.examples.fitting)
        fitted, q = self._usable(design).on(fitting), design.rows_per_example
        rows = sketched(fitted, self.n_components, self.entries, self.random_state)
        found = Profiles.of(rows.reshape(-1, q, self.n_components))
        self.profile_, self.energy_, self.mean_share_, self.signs_ = (
            found.profile,
            found.energy,
            found.mean_share,
            found.signs,
        )
        self.n_columns_ = design.n_columns
        few = np.unique(np.linspace(0, len(fitting) - 1, max(2, _COMPARED // q)).astype(np.int64))
        compared = rows.reshape(-1, q, self.n_components)[few].reshape(-1, self.n_components)
        self.distortion_ = distortion(fitted.on(few), compared)
        return self

    def transform(self, design: DesignMatrix) -> Matrix:
        """Projections (r, d) of all rows; raises SettingsError for a design of other columns."""
        check_is_fitted(self)
        if design.n_columns != self.n_columns_:
            raise SettingsError(
                f"The sketch was made of {self.n_columns_} columns, but the design has {design.n_columns}; give a design "
                "of the same network, reduction and layers."
            )
        return sketched(self._usable(design), self.n_components, self.entries, self.random_state) * self.signs_

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set, in the order in which directions were drawn, with its distortion on the card."""
        q, d = design.rows_per_example, self.n_components
        values = score_values(self.transform(design).reshape(-1, q, d), self.profile_)
        columns = stored_columns(ranked(design, values, keep, batch_size), values, np.arange(d, dtype=np.int32))
        columns["mean_share"] = self.mean_share_
        if q > 1:
            columns |= {"profile": self.profile_, "energy": self.energy_}
        kind, outputs = design.card
        found = self.distortion_
        card = self._card(
            design,
            f"Projected gradients: a sketch of the {kind}, {outputs.split(':')[0]}",
            f"The {kind} on {d} random directions ({self.entries} entries). Products of two sketches differ from entries of "
            f"the kernel by {found.measured:.2%} of sqrt(K_ii K_jj), root mean square over all pairs of {found.n_rows} fitted "
            f"rows; expected are {found.expected:.2%}, and sqrt(2 / d) = {np.sqrt(2 / d):.2%} for a row with itself."
            f"{of_tensors(design)}",
            "random projections of per-example gradients, as TRAK has them (arXiv:2303.14186), without its weights",
            "projection of the example's gradient on a random direction, divided by sqrt(d); both signs count",
        )
        return FeatureSet(
            name, ("score",) if q == 1 else ("score", *design.views), card, columns, design.network.parameters
        )
