"""Ranks every weight of a network on every example from the factors of its gradients, a block of examples at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.forms import form_of, until_kept
from feature_lens.features.outer_ranking import OuterHistogram, OuterRanking, ValueRanking
from feature_lens.features.pieces import Piece
from feature_lens.features.rules import Outer
from feature_lens.ranking import Extremes, Ranking

Array = npt.NDArray[Any]
# (b, q, m) and the position of the first example -> (b, v, m): which outputs, or functions of them, are ranked.
Select = Callable[[Array, int], Array]


@dataclass(frozen=True)
class WeightRankings:
    """What is kept of all features: their ranking, and from a second stream histograms (k, v, bins) and, for each
    kept value of the first view, the row of the example that gave it, at the highest and the lowest end (k, m)."""

    ranking: Ranking
    histogram: npt.NDArray[np.int32] | None
    sources: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None


@dataclass(frozen=True)
class _Part:
    """Features that one piece is about: their numbers (m,), whether they are products a g, and sqrt(lambda)."""

    features: npt.NDArray[np.int64]
    is_outer: bool
    n_out: int
    n_in: int
    scale: float

    def factors(self, piece: Piece) -> tuple[Array, Array]:
        """a (b, i) and g (b, q, o) of a map that is used once per example."""
        factor = piece.factor
        if not isinstance(factor, Outer):
            raise TypeError(type(factor).__name__)
        g = factor.g[:, :, 0].numpy()
        return (np.ones((len(g), 1), g.dtype) if factor.a is None else factor.a[:, 0].numpy()), g

    def values(self, piece: Piece) -> Array:
        """(b, q, m) for all others."""
        values: Array = piece.factor.dense().numpy()
        return values if self.scale == 1 else values * self.scale


@dataclass(frozen=True)
class Wanted:
    """What is ranked: v = `views` views that `select` makes of the rows of an example, m = `keep` examples at each end,
    means over `n_classes` classes (n,) where there are some. `second`: histograms and sources, too."""

    views: int
    select: Select
    keep: int
    classes: npt.NDArray[np.int64] | None = None
    n_classes: int = 0
    second: bool = True


def rank_weights(design: EffectiveFeatures, wanted: Wanted) -> WeightRankings:
    """Rank all k weight features of a design.

    For a layer used once per example a feature is a product a_i g_o, so nothing of the size of the Jacobian is made;
    where weights are shared over positions the gradients of a block of examples are. No bit depends on the design's
    `workers`.
    Cost: one stream of factors and k * v * n products, and as much again for the `second`. Memory:
    k * v * (16 m + 24 + 12 classes + 160) bytes, and what the factors and gradients of one pass take.
    """
    return until_kept(lambda: design.form_version, lambda: _Work(design, wanted).run())


class _Work:
    def __init__(self, design: EffectiveFeatures, wanted: Wanted) -> None:
        self._design, self._wanted, self._select, workers = design, wanted, wanted.select, design.workers
        self._form = form_of(design.pieces())
        self._parts = _parts(design)
        kept = design.examples.ids, wanted.keep, wanted.classes, wanted.n_classes
        self._rankers: list[OuterRanking | ValueRanking] = []
        for part in self._parts:
            if part.is_outer:
                n_out, n_in = part.n_out, part.n_in
                self._rankers.append(OuterRanking(n_out, n_in, wanted.views, *kept, part.scale, workers))
            else:
                self._rankers.append(ValueRanking(len(part.features), wanted.views, *kept, workers=workers))

    def run(self) -> WeightRankings:
        for start, count, pieces in self._stream():
            for ranker, part, piece in zip(self._rankers, self._parts, pieces, strict=True):
                if isinstance(ranker, OuterRanking) and piece is not None:
                    a, g = part.factors(piece)
                    ranker.update(a, self._select(g, start), start)
                elif isinstance(ranker, ValueRanking):
                    ranker.update(self._chosen(part, piece, start, count), start)
        found = [ranker.result() for ranker in self._rankers]
        features, k = [part.features for part in self._parts], self._design.n_parameters
        ranking = _together(found, features, k)
        if not self._wanted.second:
            return WeightRankings(ranking, None, None)
        histogram, sources = self._second(found)
        rows = [_scattered([ends[end] for ends in sources], features, k) for end in (0, 1)]
        return WeightRankings(ranking, _scattered(histogram, features, k), (rows[0], rows[1]))

    def _second(self, found: Sequence[Ranking]) -> tuple[list[Array], list[tuple[Array, Array]]]:
        """Histograms between the ends that are now known, and which row of its example gave each kept value."""
        counters = []
        for ranking, part in zip(found, self._parts, strict=True):
            shape = (part.n_out, part.n_in) if part.is_outer else (1, len(part.features))
            scale = part.scale if part.is_outer else 1.0
            counters.append(
                OuterHistogram(ranking.minimum, ranking.maximum, *shape, scale, workers=self._design.workers)
            )
        sources = [
            (_Source(ranking.highest, part), _Source(ranking.lowest, part))
            for ranking, part in zip(found, self._parts, strict=True)
        ]
        for start, count, pieces in self._stream():
            for counter, ends, part, piece in zip(counters, sources, self._parts, pieces, strict=True):
                if part.is_outer and piece is not None:
                    a, g = part.factors(piece)
                    counter.update(a, self._select(g, start))
                    largest = np.abs(g).argmax(axis=1)
                else:
                    counter.update_values(self._chosen(part, piece, start, count))
                    largest = np.abs(self._rows(part, piece, count)).argmax(axis=1)
                for end in ends:
                    end.update(largest, start)
        return [counter.counts for counter in counters], [(high.row, low.row) for high, low in sources]

    def _rows(self, part: _Part, piece: Piece | None, count: int) -> Array:
        q = self._design.rows_per_example
        return np.zeros((count, q, len(part.features))) if piece is None else part.values(piece)

    def _chosen(self, part: _Part, piece: Piece | None, start: int, count: int) -> Array:
        return self._select(self._rows(part, piece, count), start)

    def _stream(self) -> Iterator[tuple[int, int, list[Piece | None]]]:
        """Start, number and pieces of each block of examples; None for parameters that are not used at all."""
        for start, count, pieces in self._design.stream(self._form):
            yield start, count, [*pieces, *([None] * (len(self._parts) - len(pieces)))]


class _Source:
    """Which row of its example, the one of largest magnitude, gave each kept value of the first view."""

    def __init__(self, end: Extremes, part: _Part) -> None:
        self._position = end.position[:, 0]
        self._column = np.arange(len(part.features)) // part.n_in if part.is_outer else np.arange(len(part.features))
        self.row = np.full(self._position.shape, -1, dtype=np.int32)

    def update(self, largest: Array, start: int) -> None:
        """Take the rows (b, o), or (b, m), of a block."""
        feature, rank = np.nonzero((self._position >= start) & (self._position < start + len(largest)))
        self.row[feature, rank] = largest[self._position[feature, rank] - start, self._column[feature]]


def _parts(design: EffectiveFeatures) -> list[_Part]:
    slices, rates = (
        dict(design.parameters.slices),
        dict(zip(design.parameters.names, design.parameters.learning_rates, strict=True)),
    )
    parts: list[_Part] = []
    seen = np.zeros(design.n_parameters, dtype=bool)
    for piece in design.pieces():
        at = slices[piece.name]
        own = np.arange(at.start, at.stop) if piece.entries is None else at.start + piece.entries.numpy()
        seen[own] = True
        factor, scale = piece.factor, float(np.sqrt(rates[piece.name]))
        if isinstance(factor, Outer) and factor.g.shape[2] == 1 and not factor.is_tokens:
            parts.append(_Part(own, True, factor.g.shape[3], factor.n_in, scale))
        else:
            parts.append(_Part(own, False, 1, len(own), scale))
    unused = np.flatnonzero(~seen)
    return [*parts, _Part(unused, False, 1, len(unused), 1.0)] if len(unused) else parts


def _scattered(parts: Sequence[Array], features: Sequence[npt.NDArray[np.int64]], k: int) -> Array:
    whole = np.empty((k, *parts[0].shape[1:]), dtype=parts[0].dtype)
    for part, own in zip(parts, features, strict=True):
        whole[own] = part
    return whole


def _together(found: Sequence[Ranking], features: Sequence[npt.NDArray[np.int64]], k: int) -> Ranking:
    """One ranking of all features."""
    columns: dict[str, Any] = {}
    for field in fields(Ranking):
        parts = [getattr(ranking, field.name) for ranking in found]
        if isinstance(parts[0], Extremes):
            position = _scattered([part.position for part in parts], features, k)
            columns[field.name] = Extremes(position, _scattered([part.value for part in parts], features, k))
        else:
            columns[field.name] = None if parts[0] is None else _scattered(parts, features, k)
    return Ranking(**columns)
