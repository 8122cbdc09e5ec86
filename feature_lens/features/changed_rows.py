"""Designs made of another one by a change of its rows, whose products follow from those of the other."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from feature_lens.features.design import DesignMatrix, Matrix, Operator


class ChangedRows(DesignMatrix):
    """Another design, `inner`, with its rows changed; `words` say how."""

    words: ClassVar[str]

    def __init__(self, design: DesignMatrix) -> None:
        self.network, self.examples, self.tile = design.network, design.examples, design.tile
        self.watch, self.memory = design.watch, design.memory
        self.inner = design

    @abstractmethod
    def _changed(self, matrix: Operator) -> Operator:
        """Products with the changed rows, from those with the rows of the other design."""

    @property
    def views(self) -> tuple[str, ...]:
        return self.inner.views

    @property
    def n_columns(self) -> int:
        return self.inner.n_columns

    @property
    def card(self) -> tuple[str, str]:
        kind, outputs = self.inner.card
        return f"{kind}, {self.words}", outputs

    @property
    def remarks(self) -> tuple[str, ...]:
        return self.inner.remarks

    @property
    def itemsize(self) -> int:
        return self.inner.itemsize

    @property
    def gram_cost(self) -> float:
        return self.inner.gram_cost

    @property
    def product_cost(self) -> float:
        return self.inner.product_cost

    def held(self) -> Operator:
        """The products of the other design's held matrix, with the rows changed."""
        return self._changed(self.inner.held())

    def matmul(self, v: Matrix) -> Matrix:
        """Phi v with the rows changed."""
        return self._changed(self.inner).matmul(v)

    def rmatmul(self, u: Matrix) -> Matrix:
        """Phi^T u with the rows changed."""
        return self._changed(self.inner).rmatmul(u)
