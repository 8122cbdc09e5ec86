"""Which features of a run have a history: those of eigen sets that are made of the kernel which every step has."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases import Basis, Eigen
from feature_lens.features.design import DesignMatrix
from feature_lens.features.effective import EffectiveFeatures


@dataclass(frozen=True)
class FinalFeatures:
    """Features of the trained network whose history is wanted: those of an eigen set of all parameters, summed over
    outputs. values (n, k) on the examples, groups (k,) of near-degenerate ones; centred, cosine: as the set
    was fitted."""

    name: str
    values: npt.NDArray[np.floating] = field(repr=False)
    groups: npt.NDArray[np.integer] = field(repr=False)
    centred: bool = False
    cosine: bool = False

    @classmethod
    def of_set(cls, built: FeatureSet, design: DesignMatrix, basis: Basis) -> FinalFeatures | None:
        """Those of a set that a basis made of a design; None where it is another kind of set."""
        if not (isinstance(basis, Eigen) and isinstance(design, EffectiveFeatures)):
            return None
        whole = design.parameters.names == design.network.parameters.names
        if (design.at, design.reduction.name, whole) != ("effective", "trace", True):
            return None
        return cls(built.name, built.read("values")[:, 0].T, built.read("group"), basis.centred, basis.cosine)
