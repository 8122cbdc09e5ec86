"""Path features of any network, by adaptive quadrature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import quad_vec

from feature_lens.features.design import as_matrix
from feature_lens.features.factors import Factors
from feature_lens.features.forms import until_kept
from feature_lens.features.kinds.completeness import left_over
from feature_lens.features.kinds.kind import Ask
from feature_lens.features.pieces import Piece, as_pieces, as_rows

# Intervals that a tile's integral is split into at most, and the error that rounding leaves in float32.
_MOST_INTERVALS = 10
_LEAST = {torch.float64: 1e-13, torch.float32: 1e-5}


class AdaptivePath:
    """integral over s in (0, 1) of d f / d theta at theta0 + s d, by scipy's adaptive Gauss-Kronrod rule over all
    features of a tile at once, until their largest error is below the tolerance times the largest feature.

    Smooth networks take 21 passes; kinks need many intervals, and what then remains is said in the remarks.
    """

    def __init__(self, ask: Ask, reason: str) -> None:
        self._ask, self._reason = ask, reason
        self._start, self._added = ask.network.at("initial"), ask.network.displacement()
        self._sizes = {name: self._start[name].numel() for name in ask.chosen}
        self._factors = Factors(ask.network, self._start, ask.reduction, ask.chosen)
        self._tolerance = max(ask.tolerance, _LEAST[ask.network.dtype])
        self._worst = self._left_over = 0.0

    @property
    def remarks(self) -> tuple[str, ...]:
        how = f"Path features by adaptive quadrature, because {self._reason}."
        if self._worst > self._tolerance:
            how += (
                f" It stopped at an estimated error of {self._worst:.1e} of the largest feature, above the tolerance "
                f"of {self._tolerance:.0e}."
            )
        if self._left_over > 10 * max(self._worst, self._tolerance):
            how += (
                f" They do not add up to what training added: {self._left_over:.1e} of it is missing on some example, as "
                "where outputs jump along the path, or change with a parameter that autograd gives no gradient."
            )
        return (how, *self._factors.remarks)

    @property
    def version(self) -> int:
        """Whole gradients have one form."""
        return 0

    def fall(self, names: tuple[str, ...], reason: str) -> None:
        """Whole gradients have no layer rules that could fall."""

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        """What is in the middle of the line has the form of the integral."""
        self._move(0.5)
        pieces = until_kept(lambda: self._factors.version, lambda: self._factors.prepare(inputs, labels))
        return as_pieces(as_rows(pieces, self._sizes, self._like(inputs)), self._sizes)

    def twin(self) -> None:
        """Its passes stay in one thread."""
        return None

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, verify: bool = True) -> list[Piece]:
        like = self._like(inputs)
        shape = (*like.shape, sum(self._sizes.values()))

        def rows(place: float) -> npt.NDArray[np.float64]:
            self._move(place)
            pieces = until_kept(lambda: self._factors.version, lambda: self._factors(inputs, labels, verify))
            made = as_rows(pieces, self._sizes, like)
            return as_matrix(made).ravel()

        found, error, _ = quad_vec(
            rows,
            0.0,
            1.0,
            epsabs=np.finfo(np.float64).tiny,
            epsrel=self._tolerance,
            norm="max",
            limit=_MOST_INTERVALS,
            quadrature="gk21",
            full_output=True,
        )
        self._worst = max(self._worst, float(error) / max(float(np.abs(found).max()), np.finfo(np.float64).tiny))
        made = torch.as_tensor(found.reshape(shape), dtype=self._ask.network.dtype)
        if verify and len(self._sizes) == len(self._added):
            parts = torch.split(made, list(self._sizes.values()), dim=2)
            shares = [part @ self._added[name].flatten().cpu() for name, part in zip(self._sizes, parts, strict=True)]
            apart, size = left_over(self._ask, torch.stack(shares), inputs, labels)
            self._left_over = max(self._left_over, float((apart / size.clamp_min(1e-300)).nan_to_num(0.0).max()))
        return as_pieces(made, self._sizes)

    def _like(self, inputs: torch.Tensor) -> torch.Tensor:
        """(b, q), of the rows that there will be."""
        with torch.no_grad():
            c = self._ask.network(self._start, inputs[:1]).shape[1]
        return torch.zeros(len(inputs), self._ask.reduction.quantities(c), dtype=self._ask.network.dtype)

    def _move(self, place: float) -> None:
        self._factors.move({name: value + place * self._added[name] for name, value in self._start.items()})
