"""Another design with rows of length 1, whose kernel is a cosine."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.features.centred_rows import CentredDesign
from feature_lens.features.changed_rows import ChangedRows
from feature_lens.features.design import DesignMatrix, Matrix, Operator
from feature_lens.features.effective import EffectiveFeatures


class UnitRowDesign(ChangedRows):
    """Another design with each row divided by its length: the kernel is K_ij / sqrt(K_ii K_jj). Rows of zeros stay.

    `inner` is the other design, `lengths` (r,) those of its rows, one where it is zero. Cost beside that design: the
    diagonal of its kernel, once.
    """

    words = "of unit length"

    def __init__(self, design: DesignMatrix) -> None:
        super().__init__(design)
        self.lengths = _lengths(design)

    def on(self, positions: npt.NDArray[np.int64]) -> UnitRowDesign:
        """The same rows of some of the examples."""
        chosen = copy.copy(self)
        chosen.inner = self.inner.on(positions)
        chosen.examples = chosen.inner.examples
        chosen.lengths = self.lengths.reshape(-1, self.rows_per_example)[positions].ravel()
        return chosen

    def mean(self) -> Matrix:
        """Mean row of each output over the examples: (rows_per_example, columns)."""
        n, q = len(self.examples), self.rows_per_example
        return self.rmatmul(np.tile(np.eye(q) / n, (n, 1))).T

    def squared_norm(self) -> float:
        """How many rows are not zero."""
        return float((_diagonal(self.inner) / np.square(self.lengths)).sum())

    def gram(self) -> Matrix:
        """Cosines between rows (r, r). Cost: the kernel of the other design."""
        kernel = np.asarray(self.inner.gram(), dtype=np.float64)
        kernel /= self.lengths
        kernel /= self.lengths[:, None]
        return kernel

    def _changed(self, matrix: Operator) -> Operator:
        return _Scaled(matrix, self.lengths)

    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        values = self.inner._tile_values(inputs, positions)
        return values / self.lengths.reshape(-1, self.rows_per_example)[positions].reshape(-1, 1)


class _Scaled:
    """Products of a matrix whose rows are divided by their lengths."""

    def __init__(self, matrix: Operator, lengths: Matrix) -> None:
        self.shape = matrix.shape
        self._matrix, self._lengths = matrix, lengths

    def matmul(self, v: Matrix) -> Matrix:
        return np.asarray((self._matrix.matmul(v).T / self._lengths).T)

    def rmatmul(self, u: Matrix) -> Matrix:
        return self._matrix.rmatmul((u.T / self._lengths.astype(u.dtype)).T)


def unwrapped(design: DesignMatrix) -> tuple[DesignMatrix, Matrix | None]:
    """The design that another one is made of by centring and dividing rows, and what its rows are divided by."""
    inner = design.inner if isinstance(design, CentredDesign) else design
    return (inner.inner, inner.lengths) if isinstance(inner, UnitRowDesign) else (inner, None)


def _diagonal(design: DesignMatrix) -> Matrix:
    if isinstance(design, EffectiveFeatures):
        return design.diagonal()
    return np.concatenate([np.square(block).sum(axis=1) for _, block in design.blocks()])


def _lengths(design: DesignMatrix) -> Matrix:
    found = np.sqrt(_diagonal(design))
    return np.where(found > 0, found, 1.0)
