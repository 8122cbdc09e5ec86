"""Kernels of linear maps: products of gradients, scaled by products of inputs, added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.features.compiled import compiled

Array = npt.NDArray[Any]


@compiled
def add_scaled(out: Array, products: Array, scale: Array, q: int) -> None:
    """out[x q + j, y q + k] += scale[x, y] products[x q + j, y q + k] for q rows per example."""
    columns = scale.shape[1]
    weights = np.empty(columns * q, out.dtype)
    for x in range(scale.shape[0]):
        # Written out once for the q rows of an example, so that the loop over a row is one of plain numbers.
        for y in range(columns):
            for k in range(q):
                weights[y * q + k] = scale[x, y]
        for row in range(x * q, x * q + q):
            for column in range(columns * q):
                out[row, column] += weights[column] * products[row, column]
