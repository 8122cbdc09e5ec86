"""The m best of a row of values, kept sorted as keys: most values are passed over by one comparison."""

from __future__ import annotations

import numpy as np

from feature_lens.features.compiled import Float64s, Int32s, Keys, compiled

LANES = 128
ROWS = 16
INFINITE = 0x7F800000  # bits of float32 infinity: the place in the order of values of what is not finite
LARGEST = np.float32(3.4028234663852886e38)
LOW_HALF = 0xFFFFFFFF
EMPTY = np.iinfo(np.int64).min


@compiled
def ordered(bits: int) -> int:
    """Place of a float32 in the order of values, from its bits; of both zeros 0, and of -x minus that of x."""
    sign = bits >> 31
    return ((bits & 0x7FFFFFFF) ^ sign) - sign


@compiled
def finite(value: np.float32) -> float:
    return np.float64(value) if abs(value) <= LARGEST else 0.0


@compiled
def turn(rows: Float64s, order: Keys, out: Float64s, first: int, last: int) -> None:
    """Columns first..last of rows (b, w), in an order (s,) of the rows: out (w, s). Sixteen at a time: whole lines."""
    for start in range(first, last, 16):
        for slot in range(len(order)):
            row = order[slot]
            for column in range(start, min(start + 16, last)):
                out[column, slot] = rows[row, column]


@compiled
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
        keys[x] = EMPTY
    for x in range(size):
        key = keys[x]
        place = 0
        for y in range(padded):
            place += int(keys[y] > key)
        spare[place] = key
    for x in range(size):
        keys[x] = spare[x]


@compiled
def _limit(worst: int, next_rank: int) -> int:
    """Least place in the order of values that can still be kept: ties with the worst that is kept need a smaller id."""
    value = worst >> 32
    rank = LOW_HALF - (worst & LOW_HALF)
    return max(value + int(rank < next_rank), -INFINITE + 1)


@compiled
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


@compiled
def insert(
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
            held += int(keys[held] != EMPTY)
        size = held
        for x in range(lanes):
            lane = chosen[x]
            if tops[f, lane] < limit:
                continue
            start = lane * rows
            for row in range(min(rows, examples - start)):
                value = sign * ordered(bits[f, row, lane])
                if limit <= value < INFINITE:
                    keys[size] = (value << 32) | (LOW_HALF - ranks[start + row])
                    size += 1
            if size >= 3 * keep:
                _select(keys, size, spare)
                size, held = keep, -1
                limit = max(limit, _limit(keys[keep - 1], ranks[min(start + rows, examples - 1)]))
        if size != held:
            _select(keys, size, spare)
            for x in range(min(size, keep)):
                best[feature, view, x] = keys[x]
