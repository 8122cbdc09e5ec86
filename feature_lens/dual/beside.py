"""Designs side by side: the kernel of the whole is the sum of their kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.features.design import DesignMatrix, Matrix


class Beside(DesignMatrix):
    """[s Phi_1, s Phi_2, ..] over the same examples, with kernel s^2 (H_1 + H_2 + ..). Costs are those of the parts."""

    def __init__(self, parts: Sequence[DesignMatrix], scale: float) -> None:
        first = parts[0]
        self.network, self.examples, self.tile = first.network, first.examples, first.tile
        self.memory = first.memory
        self._parts, self._factor = tuple(parts), float(scale)

    def on(self, positions: npt.NDArray[np.int64]) -> Beside:
        """The same over some of the examples."""
        return Beside([part.on(positions) for part in self._parts], self._factor)

    @property
    def views(self) -> tuple[str, ...]:
        return self._parts[0].views

    @property
    def n_columns(self) -> int:
        return sum(part.n_columns for part in self._parts)

    @property
    def card(self) -> tuple[str, str]:
        return " beside ".join(part.card[0] for part in self._parts), self._parts[0].card[1]

    def gram(self) -> Matrix:
        """The sum of the parts' kernels."""
        total: Matrix = np.sum([np.asarray(part.gram(), dtype=np.float64) for part in self._parts], axis=0)
        return self._factor**2 * total

    def matmul(self, v: Matrix) -> Matrix:
        """Each part with its own rows of v."""
        stops = np.cumsum([part.n_columns for part in self._parts])[:-1]
        parts = zip(self._parts, np.split(v, stops), strict=True)
        total: Matrix = np.sum([part.matmul(own) for part, own in parts], axis=0)
        return self._factor * total

    def rmatmul(self, u: Matrix) -> Matrix:
        """Each part's own, one after the other."""
        return self._factor * np.concatenate([part.rmatmul(u) for part in self._parts])

    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        return self._factor * np.concatenate([part._tile_values(inputs, positions) for part in self._parts], axis=1)
