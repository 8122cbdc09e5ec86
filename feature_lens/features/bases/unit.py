"""Unit features: the weight features of a unit's incoming weights, weighted by the weights and summed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, Basis, by_spread, ranked, refuse_joined, stored_columns
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.effective import EffectiveFeatures


@BASES.register("unit")
class Unit(Basis):
    """sum_i W_oi d f / d W_oi over the incoming weights of each unit o, for every output.

    Where the weights are those of a linear layer or convolution it equals g_o (z_o - b_o), the gradient at the
    pre-activation times the pre-activation without its bias, summed over positions. It is the same for every
    learning-rate tensor. One feature per row of every weight of two or more dimensions (for a transposed
    convolution: per output channel). Derived independently, after the contributions of PDLT's effective features.
    Cost: one stream.
    """

    def fit(self, design: DesignMatrix, y: None = None) -> Unit:
        """Find the units; raises SettingsError where the design has none."""
        refuse_joined(design, "unit")
        if not isinstance(design, EffectiveFeatures):
            raise SettingsError(f"Unit features are made of effective features, not of {type(design).__name__}.")
        owner, names, layers = _units(design)
        if not names:
            raise SettingsError(
                "Unit features need a weight of two or more dimensions, but there is none; choose 'eigen'."
            )
        self.labels_, self.layers_ = names, layers
        self.fitted_on_, self.n_fitted_ = "nothing (no fit is needed)", 0
        weights = design.theta() / design.scale
        used = np.flatnonzero(owner >= 0)
        shape = (len(owner), len(names))
        self._sums = scipy.sparse.csr_array((weights[used], (used, owner[used])), shape=shape)
        return self

    def transform(self, design: DesignMatrix) -> Matrix:
        """Activations (r, k) of all rows."""
        return np.concatenate([block @ self._sums for _, block in design.blocks()])

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """One feature per unit, one view per output, values stored."""
        activations = self.transform(design)
        by_output = activations.reshape(-1, design.rows_per_example, activations.shape[1])
        values: npt.NDArray[np.float32] = np.ascontiguousarray(by_output.transpose(2, 1, 0), dtype=np.float32)
        ranking = ranked(design, values, keep, batch_size)
        columns = stored_columns(ranking, values, by_spread(ranking))
        columns["labels"], columns["layer"] = np.array(self.labels_), np.array(self.layers_)
        card = self._card(
            design,
            "Unit features: weight features summed per unit",
            "For each unit, its incoming weights times the derivatives with respect to them, summed: g (z - b), the "
            "gradient at its pre-activation times the pre-activation without the bias.",
            "gradient times pre-activation (without the bias), summed over positions",
            "share of the output that flows through the unit's incoming weights, to first order; both signs count",
        )
        return FeatureSet(name, design.views, card, columns, design.network.parameters)


def _units(design: EffectiveFeatures) -> tuple[npt.NDArray[np.int64], list[str], list[str]]:
    """Unit number of each chosen parameter (-1 for none), and name and layer of each unit."""
    transposed = {
        f"{name}.weight"
        for name, part in design.network.module.named_modules()
        if isinstance(part, torch.nn.modules.conv._ConvTransposeNd)
    }
    owner = np.full(design.parameters.total, -1, dtype=np.int64)
    names: list[str] = []
    layers: list[str] = []
    for (tensor, at), shape in zip(design.parameters.slices, design.parameters.shapes, strict=True):
        if len(shape) < 2:
            continue
        layer = tensor.removesuffix(".weight")
        axis = 1 if tensor in transposed else 0
        unit_of_entry = np.indices(shape)[axis].ravel()
        owner[at] = len(names) + unit_of_entry
        names += [f"{layer} unit {unit}" for unit in range(shape[axis])]
        layers += [layer] * shape[axis]
    return owner, names, layers
