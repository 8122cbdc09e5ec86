"""Unit features: the weight features of a unit's incoming weights, weighted by the weights and summed."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from feature_lens.arrays import as_float32
from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, Basis, by_spread, of_tensors, ranked, refuse_joined, stored_columns
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.effective import EffectiveFeatures

# What a weight's name ends in after its layer's, plain or under weight_norm.
_WEIGHT = re.compile(r"(\.parametrizations)?\.weight(_g)?(\.original0?)?$")


@BASES.register("unit")
class Unit(Basis):
    """sum_i W_oi d f / d W_oi over the incoming weights of each unit o, for every output.

    Where the weights are those of a linear layer or convolution it equals g_o (z_o - b_o), the gradient at the
    pre-activation times the pre-activation without its bias, summed over positions. It is the same for every
    learning-rate tensor. One feature per row of every weight of two or more dimensions (for an embedding
    or a transposed convolution: per column). Derived independently, after the contributions of PDLT's effective features.
    Cost: one stream.
    """

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError where the design has no units."""
        _with_units(design)

    def fit(self, design: DesignMatrix, y: None = None) -> Unit:
        """Find the units; raises SettingsError where the design has none."""
        effective = _with_units(design)
        owner, names, layers = units_of(effective)
        self.labels_, self.layers_ = names, layers
        self.fitted_on_, self.n_fitted_ = "nothing (no fit is needed)", 0
        weights = effective.weights() / effective.scale
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
        values = np.ascontiguousarray(as_float32(by_output.transpose(2, 1, 0)))
        ranking = ranked(design, values, keep, batch_size)
        columns = stored_columns(ranking, values, by_spread(ranking))
        columns["labels"], columns["layer"] = np.array(self.labels_), np.array(self.layers_)
        card = self._card(
            design,
            "Unit features: weight features summed per unit",
            "For each unit, its incoming weights times the derivatives with respect to them, summed; for linear layers "
            "and convolutions that is g (z - b), the gradient at its pre-activation times the pre-activation without "
            f"the bias. They are no directions of the kernel, so no share of it is given.{of_tensors(design)}",
            "gradient times pre-activation (without the bias), summed over positions, for linear layers and convolutions",
            "share of the output that flows through the unit's incoming weights, to first order; both signs count",
        )
        return FeatureSet(name, design.views, card, columns, design.network.parameters)


def _with_units(design: DesignMatrix) -> EffectiveFeatures:
    refuse_joined(design, "unit")
    if not isinstance(design, EffectiveFeatures):
        raise SettingsError(
            f"Unit features are made of effective features, not of {type(design).__name__}; write unit/flattened, or "
            "canonical/neurons for the neurons themselves."
        )
    if not units_of(design)[1]:
        raise SettingsError("Unit features need a weight of two or more dimensions, but there is none; choose 'eigen'.")
    return design


def units_of(design: EffectiveFeatures) -> tuple[npt.NDArray[np.int64], list[str], list[str]]:
    """Unit number of each chosen parameter (-1 for none), and name and layer of each unit.

    Units are rows of a weight, but columns of embeddings and transposed convolutions. Of a weight_norm the magnitude
    stands for the weight: the direction's own sum is zero, because its length does not matter.
    """
    by_column = {
        f"{name}.weight"
        for name, part in design.network.module.named_modules()
        if isinstance(part, torch.nn.modules.conv._ConvTransposeNd | torch.nn.Embedding | torch.nn.EmbeddingBag)
    }
    owner = np.full(design.parameters.total, -1, dtype=np.int64)
    names: list[str] = []
    layers: list[str] = []
    for (tensor, at), shape in zip(design.parameters.slices, design.parameters.shapes, strict=True):
        if len(shape) < 2 or tensor.endswith((".original1", ".weight_v")):
            continue
        layer = _WEIGHT.sub("", tensor)
        axis = 1 if tensor in by_column else 0
        unit_of_entry = np.indices(shape)[axis].ravel()
        owner[at] = len(names) + unit_of_entry
        names += [f"{layer} unit {unit}" for unit in range(shape[axis])]
        layers += [layer] * shape[axis]
    return owner, names, layers
