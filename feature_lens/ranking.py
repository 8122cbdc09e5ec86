"""The one total order in which examples are ranked, and what follows from it.

A feature ranks examples by (value, then example id): the highest are in falling order of value, the lowest in
rising order, and among equal values the smaller id comes first in both. -0.0 equals 0.0. Values that are not
finite take no part: they are counted, and the first example that holds one is named. Values are float32, so a
value and the rank of its example's id fit into one unsigned 64-bit key, keys are distinct, and the m best are the
same whatever the order or grouping in which examples arrive.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_lens.arrays import as_float32
from feature_lens.errors import SettingsError

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

_LOW_HALF = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_BUFFER_BYTES = 256 << 20


def id_ranks(ids: npt.NDArray[np.generic]) -> npt.NDArray[np.uint32]:
    """Place of each id among the sorted ids: (n,) -> (n,); numbers sort by size, text by code point."""
    ranks = np.empty(len(ids), dtype=np.uint32)
    ranks[np.argsort(ids, kind="stable")] = np.arange(len(ids), dtype=np.uint32)
    return ranks


def checked_keep(keep: int) -> int:
    """The number of examples kept at each end; raises SettingsError below 1."""
    if keep < 1:
        raise SettingsError(f"The number of examples kept at each end must be at least 1, not {keep}.")
    return keep


def no_examples() -> SettingsError:
    """What a ranking of nothing says."""
    return SettingsError("A ranking needs at least one example, but none came; give a data set that is not empty.")


def _ordered_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Bits of float32 values rearranged so that unsigned comparison is comparison of values; never 0 or 2^32-1."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32)
    negative = (bits >> np.uint32(31)).astype(bool)
    return np.where(negative, ~bits, bits | np.uint32(0x80000000)).astype(np.uint64)


def _values_of(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    bits = (keys >> _SHIFT).astype(np.uint32)
    positive = (bits >> np.uint32(31)).astype(bool)
    return np.where(positive, bits & np.uint32(0x7FFFFFFF), ~bits).view(np.float32)


def falling_keys(values: npt.NDArray[np.float32], ranks: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Keys (..., n) whose falling order ranks the highest first; 0 where a value is not finite."""
    keys = (_ordered_bits(values) << _SHIFT) | (_LOW_HALF - ranks.astype(np.uint64))
    return np.where(np.isfinite(values), keys, np.uint64(0))


def rising_keys(values: npt.NDArray[np.float32], ranks: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Keys (..., n) whose rising order ranks the lowest first; the largest key where a value is not finite."""
    keys = (_ordered_bits(values) << _SHIFT) | ranks.astype(np.uint64)
    return np.where(np.isfinite(values), keys, ~np.uint64(0))


def order(values: Floats, ranks: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Positions of the examples with finite values, highest first: (n,) -> (<= n,). Cost n log n."""
    keys = falling_keys(as_float32(values), ranks)
    positions = np.argsort(keys, kind="stable")[::-1]
    return positions[: int(np.count_nonzero(keys))]


def quantile_groups(ordered: Ints, groups: int) -> list[Ints]:
    """Cut an order into `groups` groups of equal count (sizes differ by at most one), highest first."""
    if groups < 1:
        raise SettingsError(f"The number of quantile groups must be at least 1, not {groups}.")
    return list(np.array_split(ordered, groups))


def range_sample(ordered: Ints, count: int) -> Ints:
    """Places in an order that cover its whole range evenly, both ends included: ranks, not positions.

    A sample of one is the highest alone. Raises SettingsError for a count below 1.
    """
    if count < 1:
        raise SettingsError(f"A sample over the range needs at least 1 example, not {count}.")
    if len(ordered) == 0:
        return np.empty(0, dtype=np.int64)
    return np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(np.int64))


@dataclass(frozen=True)
class Extremes:
    """One end of a ranking: positions and values (k, v, m); position -1 and value NaN where n < m."""

    position: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranking:
    """What is kept of every feature (k) in every view (v): both ends and the moments of its finite values."""

    highest: Extremes
    lowest: Extremes
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]
    n_nonfinite: npt.NDArray[np.int32]
    first_nonfinite: npt.NDArray[np.int32]
    class_mean: npt.NDArray[np.float32] | None


class RunningRanking:
    """Ranks features over examples that arrive in tiles, in memory k*v*(m + buffer), never k*v*n.

    `update` takes one tile at a time in a fixed order; moments are merged tile by tile (Chan's formula, float64),
    so the result does not depend on how tiles are grouped. Extremes are exact. Cost k*v*n*(1 + m/buffer).
    """

    def __init__(
        self,
        n_features: int,
        n_views: int,
        ids: npt.NDArray[np.generic],
        keep: int,
        classes: npt.NDArray[np.int64] | None = None,
        n_classes: int = 0,
        buffer: int = 256,
    ) -> None:
        self._shape = (n_features, n_views)
        self._ranks = id_ranks(ids)
        self._position_of_rank = np.empty(len(ids), dtype=np.int32)
        self._position_of_rank[self._ranks] = np.arange(len(ids), dtype=np.int32)
        self._asked = checked_keep(keep)
        self._keep = min(keep, len(ids))
        # Keys take 16 bytes per example, feature and view; the limit changes memory, never a value.
        self._buffer_limit = max(1, min(buffer, _BUFFER_BYTES // (16 * max(n_features * n_views, 1))))
        self._falling: list[npt.NDArray[np.uint64]] = []
        self._rising: list[npt.NDArray[np.uint64]] = []
        self._buffered = 0
        self._count = np.zeros(self._shape, dtype=np.float64)
        self._mean = np.zeros(self._shape, dtype=np.float64)
        self._squares = np.zeros(self._shape, dtype=np.float64)
        self._nonfinite = np.zeros(self._shape, dtype=np.int32)
        self._first = np.full(self._shape, -1, dtype=np.int32)
        self._classes = classes
        self._class_sum = np.zeros((*self._shape, n_classes), dtype=np.float64)
        self._class_count = np.zeros((*self._shape, n_classes), dtype=np.float64)

    def update(self, values: Floats, start: int) -> None:
        """Take the values (k, v, b) of examples start .. start+b-1."""
        tile = as_float32(values)
        width = tile.shape[-1]
        ranks = self._ranks[start : start + width]
        self._falling.append(falling_keys(tile, ranks))
        self._rising.append(rising_keys(tile, ranks))
        self._buffered += width
        if self._buffered >= self._buffer_limit:
            self._compact()
        finite = np.isfinite(tile)
        clean = np.where(finite, tile, 0).astype(np.float64)
        self._merge_moments(clean, finite)
        self._note_nonfinite(finite, start)
        if self._classes is not None:
            present, place = np.unique(self._classes[start : start + width], return_inverse=True)
            one_hot = np.eye(len(present))[place]
            self._class_sum[..., present] += clean @ one_hot
            self._class_count[..., present] += finite @ one_hot

    def _merge_moments(self, clean: npt.NDArray[np.float64], finite: npt.NDArray[np.bool_]) -> None:
        count = finite.sum(axis=-1).astype(np.float64)
        mean = clean.sum(axis=-1) / np.maximum(count, 1)
        squares = (np.square(clean - mean[..., None]) * finite).sum(axis=-1)
        total = self._count + count
        delta = mean - self._mean
        share = count / np.maximum(total, 1)
        self._mean += delta * share
        self._squares += squares + np.square(delta) * self._count * share
        self._count = total

    def _note_nonfinite(self, finite: npt.NDArray[np.bool_], start: int) -> None:
        if finite.all():
            return
        self._nonfinite += (~finite).sum(axis=-1).astype(np.int32)
        fresh = (self._first < 0) & ~finite.all(axis=-1)
        self._first[fresh] = start + (~finite).argmax(axis=-1)[fresh]

    def _compact(self) -> None:
        with ThreadPoolExecutor(2) as both:  # numpy selects without holding the interpreter
            falling = both.submit(_largest, self._falling, self._keep)
            rising = both.submit(_smallest, self._rising, self._keep)
            self._falling, self._rising, self._buffered = [falling.result()], [rising.result()], 0

    def _extremes(self, keys: npt.NDArray[np.uint64], ranks: npt.NDArray[np.uint64], empty: np.uint64) -> Extremes:
        missing = keys == empty
        position = self._position_of_rank[np.where(missing, 0, ranks).astype(np.int64)]
        value = _values_of(keys)
        position = np.where(missing, np.int32(-1), position)
        value = np.where(missing, np.float32(np.nan), value)
        if (short := self._asked - keys.shape[-1]) > 0:
            pad = ((0, 0), (0, 0), (0, short))
            position = np.pad(position, pad, constant_values=-1)
            value = np.pad(value, pad, constant_values=np.nan)
        return Extremes(position.astype(np.int32), value.astype(np.float32))

    def result(self) -> Ranking:
        """The ranking of all tiles seen; raises SettingsError when there was none."""
        if not self._falling:
            raise no_examples()
        self._compact()
        falling = np.sort(self._falling[0], axis=-1)[..., ::-1]
        rising = np.sort(self._rising[0], axis=-1)
        highest = self._extremes(falling, _LOW_HALF - (falling & _LOW_HALF), np.uint64(0))
        lowest = self._extremes(rising, rising & _LOW_HALF, ~np.uint64(0))
        none = self._count == 0
        class_mean = None
        if self._classes is not None:
            with np.errstate(invalid="ignore"):  # a class without a finite value has no mean: NaN
                class_mean = (self._class_sum / self._class_count).astype(np.float32)
        return Ranking(
            highest=highest,
            lowest=lowest,
            mean=np.where(none, np.nan, self._mean),
            std=np.where(none, np.nan, np.sqrt(self._squares / np.maximum(self._count, 1))),
            minimum=lowest.value[..., 0],
            maximum=highest.value[..., 0],
            n_nonfinite=self._nonfinite,
            first_nonfinite=self._first,
            class_mean=class_mean,
        )


def _largest(parts: list[npt.NDArray[np.uint64]], keep: int) -> npt.NDArray[np.uint64]:
    keys = np.concatenate(parts, axis=-1)
    if keys.shape[-1] > keep:
        keys.partition(keys.shape[-1] - keep, axis=-1)
    return keys[..., -keep:].copy()


def _smallest(parts: list[npt.NDArray[np.uint64]], keep: int) -> npt.NDArray[np.uint64]:
    keys = np.concatenate(parts, axis=-1)
    if keys.shape[-1] > keep:
        keys.partition(keep - 1, axis=-1)
    return keys[..., :keep].copy()


def rank_values(
    values: Floats,
    ids: npt.NDArray[np.generic],
    keep: int,
    classes: npt.NDArray[np.int64] | None = None,
    n_classes: int = 0,
    buffer: int = 256,
) -> Ranking:
    """Rank values (k, v, n) that are in memory, in tiles of 256 examples so that keys stay small."""
    running = RunningRanking(values.shape[0], values.shape[1], ids, keep, classes, n_classes, buffer)
    for start in range(0, values.shape[2], 256):
        running.update(values[..., start : start + 256], start)
    return running.result()
