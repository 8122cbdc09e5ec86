"""Passes over panels of examples: products, their moments, what of them is kept, and their histograms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from feature_lens.features.compiled import Float32s, Float64s, Int32s, Keys, compiled
from feature_lens.features.compiled.selection import (
    EMPTY,
    LANES,
    LARGEST,
    LOW_HALF,
    ROWS,
    finite,
    insert,
    ordered,
)

SPAN = 64  # columns of `a` that stay near the processor
TOGETHER = 16  # features ranked in one call
Piece = tuple[int, int, int, int]


class Panel(NamedTuple):
    """Examples in the order of their ids: how many, in how many rows and lanes; rank, position and class of each."""

    examples: int
    rows: int
    width: int
    ranks: Keys
    positions: Keys
    labels: Keys


class State(NamedTuple):
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


@compiled
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


@compiled
def _sweep_finite(
    panel: Panel, values: Float32s, ends: Float32s, state: State, feature: int, view: int
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
        if abs(value) <= LARGEST:
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


@compiled
def _merge(
    seen: int, panel: Panel, values: Float32s, moments: Float64s, ends: Float32s, state: State, first: int, view: int
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


@compiled
def _multiply(a: Float64s, g: Float64s, rows: int, width: int, values: Float32s, i: int, o: int, view: int) -> None:
    """Values (f, ROWS, LANES) of the features (o, i) ..; eight rows at a time, which stay beside the processor."""
    of_view = min(view, a.shape[0] - 1)
    for first in range(0, rows, 8):
        for f in range(len(values)):
            for row in range(first, min(first + 8, rows)):
                for j in range(width):
                    values[f, row, j] = np.float32(a[of_view, i + f, row, j] * g[view, o, row, j])


@compiled
def rank_piece(a: Float64s, g: Float64s, seen: int, panel: Panel, state: State, piece: Piece) -> None:
    """Rank a piece (outputs, inputs) over a panel: a (views or 1, n_in, rows, LANES), g (views, n_out, rows, LANES)."""
    n_in = a.shape[1]
    # Some features per call: a call counts references to arrays, for which threads would wait.
    values = np.empty((TOGETHER, ROWS, LANES), np.float32)
    moments, ends = np.empty((TOGETHER, 2)), np.empty((TOGETHER, 2, LANES), np.float32)
    tops = np.empty((TOGETHER, LANES), np.int32)
    examples, rows, width, ranks = panel.examples, panel.rows, panel.width, panel.ranks
    for start in range(piece[2], piece[3], TOGETHER):
        some = min(TOGETHER, piece[3] - start)
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
                            t[f, j] = sign * ordered(end_bits[f, end, j])
                    best = state.highest if end == 0 else state.lowest
                    insert(sign, examples, rows, ranks, bits, t, best, first, view)


@compiled
def add_labels(
    a: Float64s, g: Float64s, members: Keys, bounds: Keys, present: Keys, sums: Float64s, piece: Piece
) -> None:
    """Add the values of each class to its sums (k, views, classes): a (b, views or 1, n_in), g (b, views, n_out).

    `members` (b,) are the examples class by class, those of present[c] from bounds[c] to bounds[c + 1].
    """
    part = np.empty(SPAN, np.float64)
    near = np.empty((piece[1] - piece[0], len(members)))  # factors of one class, example beside example
    for start in range(piece[2], piece[3], SPAN):
        width = min(SPAN, piece[3] - start)
        for c in range(len(present)):
            count = bounds[c + 1] - bounds[c]
            class_members = members[bounds[c] : bounds[c + 1]]
            fours = count // 4 * 4
            for view in range(g.shape[1]):
                w = min(view, a.shape[1] - 1)
                for x in range(count):
                    for o in range(piece[0], piece[1]):
                        near[o - piece[0], x] = g[class_members[x], view, o]
                for o in range(piece[1] - piece[0]):
                    for i in range(width):
                        part[i] = 0.0
                    for x in range(0, fours, 4):
                        n0, n1 = class_members[x], class_members[x + 1]
                        n2, n3 = class_members[x + 2], class_members[x + 3]
                        g0, g1, g2, g3 = near[o, x], near[o, x + 1], near[o, x + 2], near[o, x + 3]
                        for i in range(width):
                            v0 = finite(np.float32(a[n0, w, start + i] * g0))
                            v1 = finite(np.float32(a[n1, w, start + i] * g1))
                            v2 = finite(np.float32(a[n2, w, start + i] * g2))
                            v3 = finite(np.float32(a[n3, w, start + i] * g3))
                            part[i] += (v0 + v1) + (v2 + v3)
                    for x in range(fours, count):
                        n0, g0 = class_members[x], near[o, x]
                        for i in range(width):
                            part[i] += finite(np.float32(a[n0, w, start + i] * g0))
                    first = (piece[0] + o) * a.shape[2] + start
                    for i in range(width):
                        sums[first + i, view, present[c]] += part[i]


@compiled
def read_keys(keys: Keys, sign: int, places: Int32s, position: Int32s, bits: Int32s, first: int, last: int) -> None:
    """Positions and bits of values that keys (k, v, m) stand for; what is empty is left as it is."""
    for feature in range(first, last):
        for view in range(keys.shape[1]):
            for x in range(keys.shape[2]):
                key = keys[feature, view, x]
                if key != EMPTY:
                    place = sign * (key >> 32)
                    position[feature, view, x] = places[LOW_HALF - (key & LOW_HALF)]
                    bits[feature, view, x] = place if place >= 0 else -place - 0x80000000


@compiled
def count_piece(a: Float64s, g: Float64s, low: Float64s, per_unit: Float64s, counts: Int32s, piece: Piece) -> None:
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
                    flat[s] = np.int32(place if abs(value) <= LARGEST else np.float64(bins))
                table[:] = 0
                for x in range(quarter):  # an unsigned place needs no check for indices from the end
                    table[0, np.uint64(places[0, x])] += 1
                    table[1, np.uint64(places[1, x])] += 1
                    table[2, np.uint64(places[2, x])] += 1
                    table[3, np.uint64(places[3, x])] += 1
                for x in range(bins):
                    counts[feature, view, x] += table[0, x] + table[1, x] + table[2, x] + table[3, x]
