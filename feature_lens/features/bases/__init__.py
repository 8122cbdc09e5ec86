"""Bases: which combinations of a design matrix's columns are looked at.

To add one, subclass `Basis` in a module of its own, decorate it with `@BASES.register(name)`, and import it here;
the conformance tests then run on it.
"""

from feature_lens.features.bases.basis import BASES, Basis
from feature_lens.features.bases.canonical import Canonical
from feature_lens.features.bases.deflated import Deflated
from feature_lens.features.bases.eigen import Eigen
from feature_lens.features.bases.learnt import Learnt
from feature_lens.features.bases.unit import Unit
from feature_lens.features.bases.unit_blocks import UnitBlocks

__all__ = ["BASES", "Basis", "Canonical", "Deflated", "Eigen", "Learnt", "Unit", "UnitBlocks"]
