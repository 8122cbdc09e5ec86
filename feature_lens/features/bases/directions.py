"""Random directions: what any direction at all would show."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, Basis, of_tensors, ranked, stored_columns
from feature_lens.features.bases.combination import unit_rows
from feature_lens.features.bases.spectral import Profiles, direction_columns, score_values, score_words
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import NeuronActivations


@BASES.register("directions")
class Directions(Basis):
    """Projections of the rows on random directions, uniform on the unit sphere: among the units of a layer, the
    outputs, or in parameter space. The baseline that a basis must beat.

    n_components: k; without, as many as columns, 64 at most. Nothing but the profile over outputs is fitted. Cost: one
    stream.
    """

    def __init__(self, n_components: int | None = None, *, random_state: int = 0) -> None:
        self.n_components, self.random_state = n_components, random_state

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError for fewer than one direction."""
        if self.n_components is not None and self.n_components < 1:
            raise SettingsError(f"At least one feature must be asked for, not {self.n_components}; ask for 1 or more.")

    def fit(self, design: DesignMatrix, y: None = None) -> Directions:
        """Draw the directions."""
        self.check(design)
        self._note_fit(design, fitting := design.examples.fitting)
        k = self.n_components or min(64, design.n_columns)
        self.vectors_ = unit_rows(np.random.default_rng(self.random_state).standard_normal((k, design.n_columns)))
        fitted = design.on(fitting)
        found = Profiles.of(fitted.matmul(self.vectors_.T).reshape(-1, design.rows_per_example, k))
        self.profile_, self.energy_, self.mean_share_ = found.profile, found.energy, found.mean_share
        self.vectors_ *= found.signs[:, None]
        return self

    def transform(self, design: DesignMatrix) -> Matrix:
        """Activations (r, k) of all rows; raises SettingsError for a design of other columns."""
        check_is_fitted(self)
        if design.n_columns != self.vectors_.shape[1]:
            raise SettingsError(
                f"Directions were drawn among {self.vectors_.shape[1]} columns, but the design has {design.n_columns}; "
                "give a design of the same columns."
            )
        return design.matmul(self.vectors_.T)

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set; nothing tells one direction from another, so they keep the order in which they were drawn."""
        q, k = design.rows_per_example, len(self.vectors_)
        values = score_values(self.transform(design).reshape(-1, q, k), self.profile_)
        columns: dict[str, Column] = stored_columns(
            ranked(design, values, keep, batch_size), values, np.arange(k, dtype=np.int32)
        )
        columns["mean_share"] = self.mean_share_
        if q > 1:
            columns |= {"profile": self.profile_, "energy": self.energy_}
        if isinstance(design, EffectiveFeatures):
            columns |= direction_columns(self.vectors_, design.parameters, design.network.parameters)
        kind, outputs = design.card
        where = f"layer '{design.layer}'" if isinstance(design, NeuronActivations) else outputs.split(":")[0]
        card = self._card(
            design,
            f"Random directions of the {kind.partition(',')[0]}, {where}",
            f"{k} directions drawn at random from the unit sphere among {design.n_columns:,} columns: what any direction "
            f"shows, whichever it is.{of_tensors(design)}",
            "random projections",
            score_words(q)
            if isinstance(design, EffectiveFeatures)
            else "projection of the activations on the unit direction",
        )
        return FeatureSet(
            name, ("score",) if q == 1 else ("score", *design.views), card, columns, design.network.parameters
        )
