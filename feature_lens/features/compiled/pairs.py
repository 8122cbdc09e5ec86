"""Kernels of linear maps: products of gradients, scaled by products of inputs, added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.features.compiled import compiled

Array = npt.NDArray[Any]


# Side of the squares that a tile is turned by: few enough pages of memory at a time.
_SIDE = 32


@compiled
def add_scaled(out: Array, products: Array, scales: Array, q: int, add: bool) -> None:
    """out[x q + j, y q + k] = sum over m of scales[m, x, y] products[m, x q + j, y q + k] for q rows per example, or that
    much more where `add`. Terms are summed before they meet what is in `out`, which may be much larger."""
    count, columns = len(scales), scales.shape[2]
    weights = np.empty((count, columns * q), out.dtype)
    total = np.empty(columns * q, out.dtype)
    for x in range(scales.shape[1]):
        # Written out once for the q rows of an example, so that the loop over a row is one of plain numbers.
        for m in range(count):
            for y in range(columns):
                for k in range(q):
                    weights[m, y * q + k] = scales[m, x, y]
        for row in range(x * q, x * q + q):
            for column in range(columns * q):
                total[column] = weights[0, column] * products[0, row, column]
            for m in range(1, count):
                for column in range(columns * q):
                    total[column] += weights[m, column] * products[m, row, column]
            if add:
                for column in range(columns * q):
                    out[row, column] += total[column]
            else:
                for column in range(columns * q):
                    out[row, column] = total[column]


@compiled
def transposed(out: Array, tile: Array) -> None:
    """out = tile.T, square by square."""
    rows, columns = tile.shape
    for first in range(0, columns, _SIDE):
        for top in range(0, rows, _SIDE):
            for column in range(first, min(first + _SIDE, columns)):
                for row in range(top, min(top + _SIDE, rows)):
                    out[column, row] = tile[row, column]
