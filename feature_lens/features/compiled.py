"""Inner loops over pairs of examples, compiled at first use and kept beside the module."""

from __future__ import annotations

from typing import Any

import numba
import numpy.typing as npt

Array = npt.NDArray[Any]


@numba.njit(nogil=True, cache=True, fastmath=False)  # type: ignore[untyped-decorator]  # numba has no types
def add_scaled(out: Array, products: Array, scale: Array, q: int) -> None:
    """out[x q + j, y q + k] += scale[x, y] products[x q + j, y q + k] for q rows per example."""
    for row in range(out.shape[0]):
        x = row // q
        for y in range(scale.shape[1]):
            weight = scale[x, y]
            for column in range(y * q, y * q + q):
                out[row, column] += weight * products[row, column]


@numba.njit(nogil=True, cache=True, fastmath=False)  # type: ignore[untyped-decorator]  # numba has no types
def put_mirrored(kernel: Array, tile: Array, top: int, left: int) -> None:
    """Put a tile at (top, left) of a symmetric matrix and its transpose at (left, top), some columns at a time."""
    rows, columns = tile.shape
    for row in range(rows):
        for column in range(columns):
            kernel[top + row, left + column] = tile[row, column]
    if top == left:
        return
    step = 64
    for first in range(0, rows, step):
        last = min(first + step, rows)
        for column in range(columns):
            for row in range(first, last):
                kernel[left + column, top + row] = tile[row, column]
