"""Sharp features: the mean of initial and effective features (PDLT's trained features)."""

from __future__ import annotations

import copy
from typing import Final

import torch

from feature_lens.features.factors import Factors
from feature_lens.features.kinds.kind import KINDS, Ask, Kind
from feature_lens.features.pieces import Piece, weighted_sum
from feature_lens.networks.network import At

ENDS: Final[tuple[At, ...]] = ("initial", "effective")


class Sharp:
    """(phi + phiE) / 2, the trapezoid of the path features: equal to them where f is quadratic in theta.

    Their Gram matrix is one of two sharp kernels; the other, the mean of the kernels, differs from it by
    (phiE - phi)(phiE - phi)^T / 4. Cost: that of initial and effective features together.
    Derived independently; intended to correspond to PDLT (arXiv:2106.10165), ch. infinity.
    """

    def __init__(self, ask: Ask) -> None:
        self._ends = [Factors(ask.network, ask.network.at(at), ask.reduction, ask.chosen) for at in ENDS]
        self._sizes = {name: ask.network.trained[name].numel() for name in ask.chosen}

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(remark for end in self._ends for remark in end.remarks))

    @property
    def version(self) -> int:
        return sum(end.version for end in self._ends)

    def fall(self, names: tuple[str, ...], reason: str) -> None:
        """At both ends."""
        for end in self._ends:
            end.fall(names, reason)

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        return self._mean([end.prepare(inputs, labels) for end in self._ends])

    def twin(self) -> Sharp | None:
        """Both ends twinned."""
        ends = [twin for end in self._ends if (twin := end.twin()) is not None]
        if len(ends) < len(self._ends):
            return None
        made = copy.copy(self)
        made._ends = ends
        return made

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, verify: bool = True) -> list[Piece]:
        return self._mean([end(inputs, labels, verify) for end in self._ends])

    def _mean(self, ends: list[list[Piece]]) -> list[Piece]:
        return weighted_sum([(0.5, pieces) for pieces in ends], self._sizes)


KINDS.register("sharp")(
    Kind("sharp features", "mean of d f / d theta at the initial and the trained parameters", Sharp, "added")
)
