"""Path features: the mean of the derivative along the straight line from the initial to the trained parameters."""

from __future__ import annotations

import logging

import torch

from feature_lens.features.kinds.adaptive_path import AdaptivePath
from feature_lens.features.kinds.exact_path import ExactPath
from feature_lens.features.kinds.kind import KINDS, Ask, Kind, Source
from feature_lens.features.kinds.pencil import NotAPencil
from feature_lens.features.pieces import Piece

_LOG = logging.getLogger("feature_lens")


class Path:
    """phiP = integral over s in (0, 1) of d f / d theta at theta0 + s d, so that d . phiP = f(theta*) - f(theta0).

    Exact where the network is piecewise polynomial along the line and parameters enter through linear layers and
    convolutions; else by adaptive quadrature. Which of them, and why, is a remark of the run.
    Derived independently, after the fundamental theorem of calculus; path kernel: Domingos, arXiv:2012.00152.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._source: Source = ExactPath(ask)

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._source.remarks

    @property
    def version(self) -> int:
        return self._source.version

    def fall(self, names: tuple[str, ...], reason: str) -> None:
        self._source.fall(names, reason)

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        if isinstance(self._source, ExactPath):
            try:
                return self._source.prepare(inputs, labels)
            except NotAPencil as why:
                self._adapt(str(why))
        return self._source.prepare(inputs, labels)

    def twin(self) -> None:
        """Its passes stay in one thread."""
        return None

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, verify: bool = True) -> list[Piece]:
        try:
            return self._source(inputs, labels, verify)
        except NotAPencil as why:
            self._adapt(str(why))
        # What was gathered so far is exact, and stays.
        self._source.prepare(inputs, labels)
        return self._source(inputs, labels, verify)

    def _adapt(self, reason: str) -> None:
        self._source = AdaptivePath(self._ask, reason)
        _LOG.info(self._source.remarks[0])


KINDS.register("path")(
    Kind("path features", "mean of d f / d theta from the initial to the trained parameters", Path, "added")
)
