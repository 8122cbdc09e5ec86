"""Kernels of linear maps: products of gradients, scaled by products of inputs, added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.features.compiled import compiled

Array = npt.NDArray[Any]


# Columns of a tile that are turned at a time: what is read of them stays in the core, and what is written is in long rows.
_COLUMNS = 8


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
    """out = tile.T, some columns of the tile at a time."""
    rows, columns = tile.shape
    for first in range(0, columns, _COLUMNS):
        for column in range(first, min(first + _COLUMNS, columns)):
            for row in range(rows):
                out[column, row] = tile[row, column]
