"""Bases: which combinations of a design matrix's columns are looked at.

To add one, subclass `Basis` in a module of its own, decorate it with `@BASES.register(name)`, and import it here;
the conformance tests then run on it.
"""

from feature_lens.features.bases.basis import BASES, Basis
from feature_lens.features.bases.canonical import Canonical
from feature_lens.features.bases.deflated import Deflated
from feature_lens.features.bases.dictionary import Dictionary
from feature_lens.features.bases.directions import Directions
from feature_lens.features.bases.eigen import Eigen
from feature_lens.features.bases.ica import Ica
from feature_lens.features.bases.layerwise import Layerwise
from feature_lens.features.bases.learnt import Learnt
from feature_lens.features.bases.nmf import Nmf
from feature_lens.features.bases.pca import Pca
from feature_lens.features.bases.sae import Sae
from feature_lens.features.bases.sketch import Sketch
from feature_lens.features.bases.unit import Unit
from feature_lens.features.bases.unit_blocks import UnitBlocks
from feature_lens.features.bases.varimax import Varimax

__all__ = [
    "BASES",
    "Basis",
    "Canonical",
    "Deflated",
    "Dictionary",
    "Directions",
    "Eigen",
    "Ica",
    "Layerwise",
    "Learnt",
    "Nmf",
    "Pca",
    "Sae",
    "Sketch",
    "Unit",
    "UnitBlocks",
    "Varimax",
]
