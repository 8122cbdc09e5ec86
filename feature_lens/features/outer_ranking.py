"""Rankings and histograms of weight features that are products, without ever forming them.

The gradient of a weight (o, i) of a layer used once per example is a[n, i] g[n, o]: what comes in times what comes
back. Its values are float32((scale * a[n, i]) * g[n, view, o]), the products in the precision of a and g. What is
kept of them is that of `RunningRanking` and `RunningHistogram`: extremes, counts and bins to the last bit, mean,
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
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.ranking import Extremes, Floats, Ranking, id_ranks

LANES = 128
ROWS = 16
PANEL = LANES * ROWS
_PIECE = 2048  # features of a piece, about: some milliseconds of work
_SPAN = 64  # columns of `a` that stay near the processor
_TOGETHER = 16  # features ranked in one call
_PANEL_BYTES = 128 << 20
_COUNTED = 1024  # examples counted together: two of their rows stay beside the processor
_INFINITE = 0x7F800000  # bits of float32 infinity: the place in the order of values of what is not finite
_LARGEST = np.float32(3.4028234663852886e38)
_LOW_HALF = 0xFFFFFFFF
_EMPTY = np.iinfo(np.int64).min

Keys = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Piece = tuple[int, int, int, int]
Function = TypeVar("Function", bound=Callable[..., object])


def _compiled(function: Function) -> Function:
    # Without fastmath: sums keep their order and NaN stays NaN, on every processor.
    return cast(Function, numba.njit(nogil=True, cache=True)(function))


class _Panel(NamedTuple):
    """Examples in the order of their ids: how many, in how many rows and lanes; rank, position and class of each."""

    examples: int
    rows: int
    width: int
    ranks: Keys
    positions: Keys
    labels: Keys


class _State(NamedTuple):
    """What is known of every feature (k, v): keys of both ends (k, v, m), falling; moments; what is not finite.

    A key is the place of a value in the order of values (that of the negated value for the lowest) above the rank of
    its id, counted backwards. `label_nonfinite` (k, v, classes) counts the values that class sums leave out.
    """

    highest: Keys
    lowest: Keys
    mean: Float64s
    squares: Float64s
    nonfinite: Int32s
    first: Int32s
    label_sums: Float64s
    label_nonfinite: Int32s


@_compiled
def _ordered(bits: int) -> int:
    """Place of a float32 in the order of values, from its bits; of both zeros 0, and of -x minus that of x."""
    sign = bits >> 31
    return ((bits & 0x7FFFFFFF) ^ sign) - sign


@_compiled
def _finite(value: np.float32) -> float:
    return np.float64(value) if abs(value) <= _LARGEST else 0.0


@_compiled
def _turn(rows: Float64s, order: Keys, out: Float64s, first: int, last: int) -> None:
    """Columns first..last of rows (b, w), in an order (s,) of the rows: out (w, s). Sixteen at a time: whole lines."""
    for start in range(first, last, 16):
        for slot in range(len(order)):
            row = order[slot]
            for column in range(start, min(start + 16, last)):
                out[column, slot] = rows[row, column]


@_compiled
def _select(keys: Keys, size: int, spare: Keys) -> None:
    """Sort the first `size` keys, falling. Few keys: the place of each is counted. Many: Shell's sort."""
    if size > 256:
        for gap in (1750, 701, 301, 132, 57, 23, 10, 4, 1):
            for x in range(gap, size):
                key, y = keys[x], x
                while y >= gap and keys[y - gap] < key:
                    keys[y] = keys[y - gap]
                    y -= gap
                keys[y] = key
        return
    padded = (size + 15) // 16 * 16
    for x in range(size, padded):
        keys[x] = _EMPTY
    for x in range(size):
        key = keys[x]
        place = 0
        for y in range(padded):
            place += int(keys[y] > key)
        spare[place] = key
    for x in range(size):
        keys[x] = spare[x]


@_compiled
def _limit(worst: int, next_rank: int) -> int:
    """Least place in the order of values that can still be kept: ties with the worst that is kept need a smaller id."""
    value = worst >> 32
    rank = _LOW_HALF - (worst & _LOW_HALF)
    return max(value + int(rank < next_rank), -_INFINITE + 1)


@_compiled
def _raised(tops: Int32s, f: int, lanes: int, limit: int, keep: int) -> int:
    """A higher limit that at least `keep` of the lanes still reach, by bisection; the same where too few do."""
    reached = 0
    bottom = peak = tops[f, 0]
    for j in range(lanes):
        top = tops[f, j]
        reached += int(top >= limit)
        bottom = top if top < bottom else bottom
        peak = top if top > peak else peak
    if reached < 2 * keep:
        return limit
    low, high = max(int(bottom), limit), int(peak)
    for _ in range(12):
        if low >= high or reached <= keep + 2:
            break
        middle = low + (high - low + 1) // 2
        above = 0
        for j in range(lanes):
            above += int(tops[f, j] >= middle)
        if above >= keep:
            low, reached = middle, above
        else:
            high = middle - 1
    return low


@_compiled
def _insert(
    sign: int, examples: int, rows: int, ranks: Keys, bits: Int32s, tops: Int32s, best: Keys, first: int, view: int
) -> None:
    """Let a panel's values (f, ROWS, LANES), as bits, into the best keys of features first .. first + f - 1.

    `tops` (f, LANES): place in the order of values of the largest sign * v of each lane.
    """
    keep = best.shape[2]
    room = (3 * keep + ROWS + 31) // 16 * 16
    keys, spare = np.empty(room, np.int64), np.empty(room, np.int64)
    chosen = np.empty(LANES + 1, np.int64)
    for f in range(len(tops)):
        feature = first + f
        limit = _limit(best[feature, view, keep - 1], ranks[0])
        # A lane that is not full also holds copies of the first example, which must not be counted twice.
        limit = _raised(tops, f, examples // rows, limit, keep)
        lanes = 0
        for lane in range((examples + rows - 1) // rows):
            chosen[lanes] = lane
            lanes += int(tops[f, lane] >= limit)
        held = 0
        for x in range(keep if lanes > 0 else 0):
            keys[held] = best[feature, view, x]
            held += int(keys[held] != _EMPTY)
        size = held
        for x in range(lanes):
            lane = chosen[x]
            if tops[f, lane] < limit:
                continue
            start = lane * rows
            for row in range(min(rows, examples - start)):
                value = sign * _ordered(bits[f, row, lane])
                if limit <= value < _INFINITE:
                    keys[size] = (value << 32) | (_LOW_HALF - ranks[start + row])
                    size += 1
            if size >= 3 * keep:
                _select(keys, size, spare)
                size, held = keep, -1
                limit = max(limit, _limit(keys[keep - 1], ranks[min(start + rows, examples - 1)]))
        if size != held:
            _select(keys, size, spare)
            for x in range(min(size, keep)):
                best[feature, view, x] = keys[x]


@_compiled
def _sweep(rows: int, width: int, values: Float32s, moments: Float64s, ends: Float32s) -> None:
    """Sum and sum of squares of v - v[0] (f, 2), and the ends of lanes (f, 2, LANES), of values (f, ROWS, LANES).

    Four rows at a time. Copies of v[0] add nothing.
    """
    sums = np.empty((2, LANES))
    for f in range(len(values)):
        shift = np.float64(values[f, 0, 0])
        for j in range(LANES):
            sums[0, j] = sums[1, j] = 0.0
            ends[f, 0, j], ends[f, 1, j] = -np.inf, np.inf
        for row in range(0, rows, 4):
            for j in range(width):
                d0, d1 = values[f, row, j] - shift, values[f, row + 1, j] - shift
                d2, d3 = values[f, row + 2, j] - shift, values[f, row + 3, j] - shift
                sums[0, j] += (d0 + d1) + (d2 + d3)
                sums[1, j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
            for j in range(width):
                top, low = ends[f, 0, j], ends[f, 1, j]
                for step in range(4):
                    value = values[f, row + step, j]
                    top = value if value > top else top
                    low = value if value < low else low
                ends[f, 0, j], ends[f, 1, j] = top, low
        for part in range(2):
            for j in range(16):
                even = (sums[part, j] + sums[part, 16 + j]) + (sums[part, 32 + j] + sums[part, 48 + j])
                odd = (sums[part, 64 + j] + sums[part, 80 + j]) + (sums[part, 96 + j] + sums[part, 112 + j])
                sums[part, j] = even + odd
            moments[f, part] = 0.0
            for j in range(16):
                moments[f, part] += sums[part, j]


@_compiled
def _sweep_finite(
    panel: _Panel, values: Float32s, ends: Float32s, state: _State, feature: int, view: int
) -> tuple[int, float, float, float]:
    """What `_sweep` gives of one feature (ROWS, LANES), of its finite values alone; notes the others.

    Returns how many are not finite, the first that is (from which the sums are taken), and both sums.
    """
    shift, total, squares, bad = np.nan, 0.0, 0.0, 0
    for j in range(panel.width):
        ends[0, j], ends[1, j] = -np.inf, np.inf
    for s in range(panel.examples):
        lane = s // panel.rows
        value = values[s % panel.rows, lane]
        if abs(value) <= _LARGEST:
            shift = np.float64(value) if np.isnan(shift) else shift
            total += value - shift
            squares += (value - shift) ** 2
            ends[0, lane] = max(ends[0, lane], value)
            ends[1, lane] = min(ends[1, lane], value)
            continue
        bad += 1
        known = state.first[feature, view]
        if known < 0 or panel.positions[s] < known:
            state.first[feature, view] = panel.positions[s]
        if state.label_nonfinite.shape[2] > 0:
            state.label_nonfinite[feature, view, panel.labels[s]] += 1
    return bad, shift, total, squares


@_compiled
def _merge(
    seen: int, panel: _Panel, values: Float32s, moments: Float64s, ends: Float32s, state: _State, first: int, view: int
) -> None:
    """Merge the moments of a panel into those of features first .. (Chan's formula), and those not finite."""
    examples = panel.examples
    mean, around, nonfinite = state.mean, state.squares, state.nonfinite
    for f in range(len(values)):
        feature = first + f
        before = np.float64(seen - nonfinite[feature, view])
        bad, total, squares = 0, moments[f, 0], moments[f, 1]
        shift: float = np.float64(values[f, 0, 0])
        if not np.isfinite(squares):
            bad, shift, total, squares = _sweep_finite(panel, values[f], ends[f], state, feature, view)
            nonfinite[feature, view] += bad
        count = np.float64(examples - bad)
        if count > 0:
            delta = shift + total / count - mean[feature, view]
            share = count / (before + count)
            mean[feature, view] += delta * share
            around[feature, view] += max(squares - total * total / count, 0.0) + delta * delta * before * share


@_compiled
def _multiply(a: Float64s, g: Float64s, rows: int, width: int, values: Float32s, i: int, o: int, view: int) -> None:
    """Values (f, ROWS, LANES) of the features (o, i) ..; eight rows at a time, which stay beside the processor."""
    of_view = min(view, a.shape[0] - 1)
    for first in range(0, rows, 8):
        for f in range(len(values)):
            for row in range(first, min(first + 8, rows)):
                for j in range(width):
                    values[f, row, j] = np.float32(a[of_view, i + f, row, j] * g[view, o, row, j])


@_compiled
def _rank_piece(a: Float64s, g: Float64s, seen: int, panel: _Panel, state: _State, piece: Piece) -> None:
    """Rank a piece (outputs, inputs) over a panel: a (views or 1, n_in, rows, LANES), g (views, n_out, rows, LANES)."""
    n_in = a.shape[1]
    # Some features per call: a call counts references to arrays, for which threads would wait.
    values = np.empty((_TOGETHER, ROWS, LANES), np.float32)
    moments, ends = np.empty((_TOGETHER, 2)), np.empty((_TOGETHER, 2, LANES), np.float32)
    tops = np.empty((_TOGETHER, LANES), np.int32)
    examples, rows, width, ranks = panel.examples, panel.rows, panel.width, panel.ranks
    for start in range(piece[2], piece[3], _TOGETHER):
        some = min(_TOGETHER, piece[3] - start)
        v, m, e, t = values[:some], moments[:some], ends[:some], tops[:some]
        bits, end_bits = v.view(np.int32), e.view(np.int32)
        for o in range(piece[0], piece[1]):
            for view in range(g.shape[0]):
                first = o * n_in + start
                _multiply(a, g, rows, width, v, start, o, view)
                _sweep(rows, width, v, m, e)
                _merge(seen, panel, v, m, e, state, first, view)
                for end in range(2):
                    sign = 1 - 2 * end
                    for f in range(some):
                        for j in range(width):
                            t[f, j] = sign * _ordered(end_bits[f, end, j])
                    best = state.highest if end == 0 else state.lowest
                    _insert(sign, examples, rows, ranks, bits, t, best, first, view)


@_compiled
def _add_labels(
    a: Float64s, g: Float64s, members: Keys, bounds: Keys, present: Keys, sums: Float64s, piece: Piece
) -> None:
    """Add the values of each class to its sums (k, views, classes): a (b, views or 1, n_in), g (b, views, n_out).

    `members` (b,) are the examples class by class, those of present[c] from bounds[c] to bounds[c + 1].
    """
    part = np.empty(_SPAN, np.float64)
    for start in range(piece[2], piece[3], _SPAN):
        width = min(_SPAN, piece[3] - start)
        for c in range(len(present)):
            for o in range(piece[0], piece[1]):
                for view in range(g.shape[1]):
                    w = min(view, a.shape[1] - 1)
                    for i in range(width):
                        part[i] = 0.0
                    fours = bounds[c] + (bounds[c + 1] - bounds[c]) // 4 * 4
                    for x in range(bounds[c], fours, 4):
                        n0, n1, n2, n3 = members[x], members[x + 1], members[x + 2], members[x + 3]
                        g0, g1, g2, g3 = g[n0, view, o], g[n1, view, o], g[n2, view, o], g[n3, view, o]
                        for i in range(width):
                            v0 = _finite(np.float32(a[n0, w, start + i] * g0))
                            v1 = _finite(np.float32(a[n1, w, start + i] * g1))
                            v2 = _finite(np.float32(a[n2, w, start + i] * g2))
                            v3 = _finite(np.float32(a[n3, w, start + i] * g3))
                            part[i] += (v0 + v1) + (v2 + v3)
                    for x in range(fours, bounds[c + 1]):
                        n0 = members[x]
                        for i in range(width):
                            part[i] += _finite(np.float32(a[n0, w, start + i] * g[n0, view, o]))
                    for i in range(width):
                        sums[o * a.shape[2] + start + i, view, present[c]] += part[i]


@_compiled
def _read_keys(keys: Keys, sign: int, places: Int32s, position: Int32s, bits: Int32s, first: int, last: int) -> None:
    """Positions and bits of values that keys (k, v, m) stand for; what is empty is left as it is."""
    for feature in range(first, last):
        for view in range(keys.shape[1]):
            for x in range(keys.shape[2]):
                key = keys[feature, view, x]
                if key != _EMPTY:
                    place = sign * (key >> 32)
                    position[feature, view, x] = places[_LOW_HALF - (key & _LOW_HALF)]
                    bits[feature, view, x] = place if place >= 0 else -place - 0x80000000


@_compiled
def _count_piece(a: Float64s, g: Float64s, low: Float64s, per_unit: Float64s, counts: Int32s, piece: Piece) -> None:
    """Count the values of a block in bins (k, views, bins): a (views or 1, n_in, b), g (views, n_out, b)."""
    size, bins = a.shape[2], counts.shape[2]
    quarter = (size + 3) // 4
    flat = np.full(4 * quarter, bins, np.int32)
    places = flat.reshape(4, quarter)
    # Four tables in turn, so that a run of equal values does not wait for its own counts.
    table = np.empty((4, bins + 1), np.int32)
    for o in range(piece[0], piece[1]):
        for view in range(g.shape[0]):
            w = min(view, a.shape[0] - 1)
            for i in range(piece[2], piece[3]):
                feature = o * a.shape[1] + i
                base, scale = low[feature, view], per_unit[feature, view]
                for s in range(size):
                    value = np.float32(a[w, i, s] * g[view, o, s])
                    place = (value - base) * scale
                    place = place if place > 0.0 else 0.0
                    place = place if place < bins - 1.0 else bins - 1.0
                    flat[s] = np.int32(place if abs(value) <= _LARGEST else np.float64(bins))
                table[:] = 0
                for x in range(quarter):  # an unsigned place needs no check for indices from the end
                    table[0, np.uint64(places[0, x])] += 1
                    table[1, np.uint64(places[1, x])] += 1
                    table[2, np.uint64(places[2, x])] += 1
                    table[3, np.uint64(places[3, x])] += 1
                for x in range(bins):
                    counts[feature, view, x] += table[0, x] + table[1, x] + table[2, x] + table[3, x]


class _Pieces:
    """Features (n_out, n_in) cut into fixed pieces, taken by threads from one queue."""

    def __init__(self, n_out: int, n_in: int, workers: int | None) -> None:
        # Many outputs beside few inputs, whose panel stays beside the processor from output to output.
        outputs = min(n_out, _PIECE // _SPAN)
        inputs = _PIECE // outputs
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
        self.spans(lambda first, last: _turn(flat, order, out, first, last), v * w)
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
        if keep < 1:
            raise SettingsError(f"The number of examples kept at each end must be at least 1, not {keep}.")
        n_out, n_in, n_views = shape
        self._pieces = _Pieces(n_out, n_in, workers)
        self._tile = max(1, min(tile, PANEL))
        self._ranks = id_ranks(ids).astype(np.int64)
        self._places = np.argsort(self._ranks).astype(np.int32)
        self._asked = keep
        self._classes = classes
        self._class_count = np.zeros(n_classes)
        size, kept = (n_out * n_in, n_views), max(1, min(keep, len(ids)))
        labels = (*size, 0 if classes is None else n_classes)
        self._state = _State(
            np.full((*size, kept), _EMPTY),
            np.full((*size, kept), _EMPTY),
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
        panel = _Panel(count, rows, width, self._ranks[sorted_positions], sorted_positions, labels[by_rank])
        seen, state = self._seen, self._state
        members = np.argsort(labels, kind="stable")
        present, first = np.unique(labels[members], return_index=True)
        bounds = np.append(first, count)

        def work(piece: Piece) -> None:
            _rank_piece(turned_a, turned_g, seen, panel, state, piece)
            if self._classes is not None:
                _add_labels(a, g, members, bounds, present, state.label_sums, piece)

        self._pieces.each(work)
        self._seen += count
        self._class_count += np.bincount(labels, minlength=len(self._class_count))[: len(self._class_count)]

    def _end(self, keys: Keys, sign: int) -> Extremes:
        shape = (*keys.shape[:2], self._asked)
        position, value = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
        bits = value.view(np.int32)
        self._pieces.spans(
            lambda first, last: _read_keys(keys, sign, self._places, position, bits, first, last), len(keys), _PIECE
        )
        return Extremes(position, value)

    def result(self) -> Ranking:
        """The ranking of all examples that came; raises SettingsError when there was none.

        Examples that wait for a full panel are let in now, so ask once, after the last block.
        """
        if self._waiting:
            self._let_in()
        if self._seen == 0:
            raise SettingsError(
                "A ranking needs at least one example, but none came; give a data set that is not empty."
            )
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
        while tile > 128 and tile * (n_in + n_views * n_out) * 16 > _PANEL_BYTES:
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
    """Counts (k, views, bins) as of `RunningHistogram`, of the products that OuterRanking ranks.

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
        for start in range(0, len(a), _COUNTED):
            some = slice(start, start + _COUNTED)
            order = np.arange(len(a[some]))
            turned_a, turned_g = self._pieces.turned(a[some], order), self._pieces.turned(g[some], order)

            def work(piece: Piece, a: Float64s = turned_a, g: Float64s = turned_g) -> None:
                _count_piece(a, g, self._low, self._per_unit, self.counts, piece)

            self._pieces.each(work)
