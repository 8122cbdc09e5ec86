"""Another design about its mean row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.features.changed_rows import ChangedRows
from feature_lens.features.design import DesignMatrix, Matrix, Operator


class CentredDesign(ChangedRows):
    """Another design, `inner`, with its mean row over some examples taken off, output by output."""

    words = "centred"

    def __init__(self, design: DesignMatrix, mean: Matrix) -> None:
        super().__init__(design)
        self._mean = mean

    def on(self, positions: npt.NDArray[np.int64]) -> CentredDesign:
        """The same rows less the same mean, over some of the examples."""
        return CentredDesign(self.inner.on(positions), self._mean)

    def mean(self) -> Matrix:
        """What is left of the mean row: zero over the examples it was taken of."""
        return self.inner.mean() - self._mean

    def squared_norm(self) -> float:
        """Sum of squares of all entries, from that of the other design."""
        n = len(self.examples)
        crossed = float((self.inner.mean() * self._mean).sum())
        return self.inner.squared_norm() - 2 * n * crossed + n * float(np.square(self._mean).sum())

    def gram(self) -> Matrix:
        """Phi Phi^T (r, r), from the kernel of the other design and its products with the mean. Cost: that kernel."""
        kernel = self.inner.gram()
        q = self.rows_per_example
        crossed = self.inner.matmul(self._mean.T)
        n = len(crossed) // q
        kernel -= np.tile(crossed, (1, n))
        kernel -= np.tile(crossed, (1, n)).T
        kernel += np.tile(self._mean @ self._mean.T, (n, n))
        return kernel

    def _changed(self, matrix: Operator) -> Operator:
        return _Centred(matrix, self._mean)

    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        values = self.inner._tile_values(inputs, positions)
        tile = values.reshape(-1, self.rows_per_example, self.n_columns) - self._mean
        return tile.reshape(values.shape)


class _Centred:
    """Products of a matrix less its mean rows (q, p): exact, without a second pass."""

    def __init__(self, matrix: Operator, mean: Matrix) -> None:
        self.shape = matrix.shape
        self._matrix, self._mean = matrix, mean

    def matmul(self, v: Matrix) -> Matrix:
        found = self._matrix.matmul(v)
        return found - np.tile(self._mean @ v, (len(found) // len(self._mean), *[1] * (v.ndim - 1)))

    def rmatmul(self, u: Matrix) -> Matrix:
        by_output = u.reshape(-1, len(self._mean), *u.shape[1:]).sum(axis=0)
        found: Matrix = self._matrix.rmatmul(u) - self._mean.T @ by_output
        return found
