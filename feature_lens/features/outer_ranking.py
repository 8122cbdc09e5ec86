"""Rankings and histograms of weight features that are products, without ever forming them.

The gradient of a weight (o, i) of a layer used once per example is a[n, i] g[n, o]: what comes in times what comes
back. Its values are float32((scale * a[n, i]) * g[n, view, o]), the products in the precision of a and g. What is
kept of them is that of `RunningRanking`, and counts in bins: extremes and counts to the last bit, mean,
spread and class sums up to the rounding of float64.

Examples are gathered into panels of a fixed number, counted from the first example, so no bit depends on the blocks
in which they arrive. A panel holds its examples in the order of their ids, as rows of LANES: example s of the order
lies in lane s // rows, row s % rows. One vectorised pass over the rows gives the sums and the largest value of every
lane; `keep` lanes at or above a limit prove that nothing below it is kept, so only a few lanes are looked into, and
ties, as of zeros, are met in the order of ids and end at once. Features are cut into fixed pieces that threads take
from one queue; no feature is shared, so no bit depends on threads. Compiled with numba, with strict IEEE arithmetic.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.features.compiled import Float32s, Float64s, Keys
from feature_lens.features.compiled.panels import (
    SPAN,
    Panel,
    Piece,
    State,
    add_labels,
    count_piece,
    rank_piece,
    read_keys,
)
from feature_lens.features.compiled.selection import EMPTY, LANES, turn
from feature_lens.ranking import Extremes, Floats, Ranking, checked_keep, id_ranks, no_examples

# Examples of a panel: 16 rows of lanes.
PANEL = 16 * LANES
PIECE = 2048  # features of a piece, about: some milliseconds of work
PANEL_BYTES = 128 << 20
COUNTED = 1024  # examples counted together: two of their rows stay beside the processor


class _Pieces:
    """Features (n_out, n_in) cut into fixed pieces, taken by threads from one queue."""

    def __init__(self, n_out: int, n_in: int, workers: int | None) -> None:
        # Many outputs beside few inputs, whose panel stays beside the processor from output to output.
        outputs = min(n_out, PIECE // SPAN)
        inputs = PIECE // outputs
        self._workers = workers or os.cpu_count() or 1
        self._pieces = [
            (o, min(o + outputs, n_out), i, min(i + inputs, n_in))
            for o in range(0, n_out, outputs)
            for i in range(0, n_in, inputs)
        ]

    def each(self, work: Callable[[Piece], None]) -> None:
        """Do the work for every piece of the features."""
        self._all(work, self._pieces)

    def spans(self, work: Callable[[int, int], None], length: int, step: int = 256) -> None:
        """Do the work for every part (first, last) of a length."""
        parts = [(first, min(first + step, length)) for first in range(0, length, step)]
        self._all(lambda part: work(*part), parts)

    def turned(self, rows: Float64s, order: Keys) -> Float64s:
        """Rows (b, v, w), in an order (s,), as columns (v, w, s)."""
        _, v, w = rows.shape
        out = np.empty((v * w, len(order)))
        flat = rows.reshape(len(rows), v * w)
        self.spans(lambda first, last: turn(flat, order, out, first, last), v * w)
        return out.reshape(v, w, len(order))

    def _all(self, work: Callable[[Any], None], parts: list[Any]) -> None:
        if min(self._workers, len(parts)) <= 1:
            for part in parts:
                work(part)
            return
        with ThreadPoolExecutor(min(self._workers, len(parts))) as pool:
            list(pool.map(work, parts))


def _plain(values: Floats) -> Float64s:
    # Kernels are compiled once per kind of array, so there is only one kind.
    return np.require(values, np.float64, ["C", "A", "W"])


def _factors(a: Floats, g: Floats, scale: float) -> tuple[Float64s, Float64s]:
    """scale * a (b, 1, n_in) and g (b, v, n_out) in float64, where a product of two float32 is exact: rounded to
    float32 it is their product in float32, so one kernel serves both."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.multiply(a, np.result_type(a, g).type(scale))
    return _plain(scaled[:, None]), _plain(g)


def _as_factors(values: Floats) -> tuple[Float64s, Float64s]:
    """Values (b, v, k) as products with one output whose factor is 1."""
    return _plain(values), np.ones((*values.shape[:2], 1))


class _Ranker:
    """Panels of `tile` examples, counted from the first that came, and the state they are let into."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        ids: npt.NDArray[np.generic],
        keep: int,
        classes: npt.NDArray[np.int64] | None,
        n_classes: int,
        tile: int,
        workers: int | None,
    ) -> None:
        n_out, n_in, n_views = shape
        self._pieces = _Pieces(n_out, n_in, workers)
        self._tile = max(1, min(tile, PANEL))
        self._ranks = id_ranks(ids).astype(np.int64)
        self._places = np.argsort(self._ranks).astype(np.int32)
        self._asked = checked_keep(keep)
        self._classes = classes
        self._class_count = np.zeros(n_classes)
        size, kept = (n_out * n_in, n_views), max(1, min(keep, len(ids)))
        labels = (*size, 0 if classes is None else n_classes)
        self._state = State(
            np.full((*size, kept), EMPTY),
            np.full((*size, kept), EMPTY),
            np.zeros(size),
            np.zeros(size),
            np.zeros(size, np.int32),
            np.full(size, -1, np.int32),
            np.zeros(labels),
            np.zeros(labels, np.int32),
        )
        self._seen = 0
        self._waiting: list[tuple[Float64s, Float64s, Keys]] = []

    def _take(self, a: Float64s, g: Float64s, start: int) -> None:
        done = 0
        while done < len(a):
            some = slice(done, done + self._tile - sum(len(positions) for *_, positions in self._waiting))
            positions = np.arange(start + done, start + len(a))[: some.stop - done]
            # The caller may write over a block that has to wait for more examples.
            whole = len(positions) == self._tile
            self._waiting.append(
                (a[some], g[some], positions) if whole else (a[some].copy(), g[some].copy(), positions)
            )
            done += len(positions)
            if sum(len(part[2]) for part in self._waiting) == self._tile:
                self._let_in()

    def _let_in(self) -> None:
        parts = list(zip(*self._waiting, strict=True))
        self._waiting = []
        a, g, positions = (part[0] if len(part) == 1 else np.concatenate(part) for part in parts)
        count = len(positions)
        by_rank = np.argsort(self._ranks[positions])
        rows = -(-count // (4 * LANES)) * 4
        width = min(LANES, -(-count // (16 * rows)) * 16)
        slots = np.arange(rows * LANES)
        place = slots % LANES * rows + slots // LANES
        order = by_rank[np.where(place < count, place, 0)]
        turned_a = self._pieces.turned(a, order).reshape(*a.shape[1:], rows, LANES)
        turned_g = self._pieces.turned(g, order).reshape(*g.shape[1:], rows, LANES)
        labels = np.zeros(count, np.int64) if self._classes is None else self._classes[positions].astype(np.int64)
        sorted_positions = positions[by_rank]
        panel = Panel(count, rows, width, self._ranks[sorted_positions], sorted_positions, labels[by_rank])
        seen, state = self._seen, self._state
        members = np.argsort(labels, kind="stable")
        present, first = np.unique(labels[members], return_index=True)
        bounds = np.append(first, count)

        def work(piece: Piece) -> None:
            rank_piece(turned_a, turned_g, seen, panel, state, piece)
            if self._classes is not None:
                add_labels(a, g, members, bounds, present, state.label_sums, piece)

        self._pieces.each(work)
        self._seen += count
        self._class_count += np.bincount(labels, minlength=len(self._class_count))[: len(self._class_count)]

    def _end(self, keys: Keys, sign: int) -> Extremes:
        shape = (*keys.shape[:2], self._asked)
        position, value = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
        bits = value.view(np.int32)
        self._pieces.spans(
            lambda first, last: read_keys(keys, sign, self._places, position, bits, first, last), len(keys), PIECE
        )
        return Extremes(position, value)

    def result(self) -> Ranking:
        """The ranking of all examples that came; raises SettingsError when there was none.

        Examples that wait for a full panel are let in now, so ask once, after the last block.
        """
        if self._waiting:
            self._let_in()
        if self._seen == 0:
            raise no_examples()
        state = self._state
        highest, lowest = self._end(state.highest, 1), self._end(state.lowest, -1)
        finite = self._seen - state.nonfinite
        class_mean = None
        if self._classes is not None:
            count = self._class_count - state.label_nonfinite if state.nonfinite.any() else self._class_count
            with np.errstate(invalid="ignore"):  # a class without a finite value has no mean: NaN
                class_mean = (state.label_sums / count).astype(np.float32)
        return Ranking(
            highest=highest,
            lowest=lowest,
            mean=np.where(finite == 0, np.nan, state.mean),
            std=np.where(finite == 0, np.nan, np.sqrt(state.squares / np.maximum(finite, 1))),
            minimum=lowest.value[..., 0],
            maximum=highest.value[..., 0],
            n_nonfinite=state.nonfinite,
            first_nonfinite=state.first,
            class_mean=class_mean,
        )


class OuterRanking(_Ranker):
    """Ranks the n_out * n_in weights of a layer, k = o * n_in + i, from what comes in and what comes back.

    No bit of the result depends on the sizes of blocks or on `workers` (threads; all processors without). Memory
    k * views * (16 m + 24 + 12 classes) bytes and two panels of at most 2,048 examples, (n_in + views * n_out) * 16
    bytes each, fewer where that would be above 128 MiB. Cost k * views * n products, and once more for classes.
    """

    def __init__(
        self,
        n_out: int,
        n_in: int,
        n_views: int,
        ids: npt.NDArray[np.generic],
        keep: int,
        classes: npt.NDArray[np.int64] | None = None,
        n_classes: int = 0,
        scale: float = 1.0,
        workers: int | None = None,
    ) -> None:
        tile = PANEL
        while tile > 128 and tile * (n_in + n_views * n_out) * 16 > PANEL_BYTES:
            tile //= 2
        super().__init__((n_out, n_in, n_views), ids, keep, classes, n_classes, tile, workers)
        self._scale = scale

    def update(self, a: Floats, g: Floats, start: int) -> None:
        """Take examples start .. start+b-1: what comes in (b, n_in) and what comes back (b, views, n_out)."""
        self._take(*_factors(a, g, self._scale), start)


class ValueRanking(_Ranker):
    """Ranks k features whose values are at hand, in panels of `tile` examples: it shapes the rounding of moments.

    Blocks of whole tiles are not copied to wait; otherwise tile * views * k * 8 bytes wait for more examples, and as
    many are turned. Memory of the state and cost as of OuterRanking.
    """

    def __init__(
        self,
        n_features: int,
        n_views: int,
        ids: npt.NDArray[np.generic],
        keep: int,
        classes: npt.NDArray[np.int64] | None = None,
        n_classes: int = 0,
        tile: int = 128,
        workers: int | None = None,
    ) -> None:
        super().__init__((1, n_features, n_views), ids, keep, classes, n_classes, tile, workers)

    def update(self, values: Floats, start: int) -> None:
        """Take the values (b, views, k) of examples start .. start+b-1."""
        self._take(*_as_factors(values), start)


class OuterHistogram:
    """Counts (k, views, bins) of the finite products that OuterRanking ranks, in bins of equal width from each feature's
    minimum to its maximum; a constant feature has all its values in the first bin.

    `minimum` and `maximum` (k, views) are those of the ranking, k = n_out * n_in. Any blocks and threads give the
    same counts. Memory k * views * (4 bins + 16) bytes and some turned examples; cost k * views * n.
    """

    def __init__(
        self,
        minimum: Float32s,
        maximum: Float32s,
        n_out: int,
        n_in: int,
        scale: float = 1.0,
        bins: int = 40,
        workers: int | None = None,
    ) -> None:
        self._pieces = _Pieces(n_out, n_in, workers)
        self._scale = scale
        # Without a finite value there is no minimum: NaN, and nothing to count.
        self._low = np.nan_to_num(minimum.astype(np.float64))
        width = np.nan_to_num(maximum.astype(np.float64)) - self._low
        self._per_unit = np.divide(bins, width, out=np.zeros_like(width), where=width > 0)
        self.counts = np.zeros((*minimum.shape, bins), dtype=np.int32)

    def update(self, a: Floats, g: Floats) -> None:
        """Take examples: what comes in (b, n_in) and what comes back (b, views, n_out)."""
        self._take(*_factors(a, g, self._scale))

    def update_values(self, values: Floats) -> None:
        """Take the values (b, views, k) of examples, of n_out = 1 and n_in = k."""
        self._take(*_as_factors(values))

    def _take(self, a: Float64s, g: Float64s) -> None:
        for start in range(0, len(a), COUNTED):
            some = slice(start, start + COUNTED)
            order = np.arange(len(a[some]))
            turned_a, turned_g = self._pieces.turned(a[some], order), self._pieces.turned(g[some], order)

            def work(piece: Piece, a: Float64s = turned_a, g: Float64s = turned_g) -> None:
                count_piece(a, g, self._low, self._per_unit, self.counts, piece)

            self._pieces.each(work)
