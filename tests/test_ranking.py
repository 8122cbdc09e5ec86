"""The one total order: extremes, moments and histograms against plain Python over (value, then id)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_lens.errors import SettingsError
from feature_lens.ranking import (
    Ranking,
    RunningRanking,
    id_ranks,
    order,
    quantile_groups,
    range_sample,
    rank_values,
)

TINY = float(np.finfo(np.float32).smallest_subnormal)
COLUMNS: dict[str, list[float]] = {
    "ties": [1, 2, 2, 1, 3, 3, 3, 0, 2],
    "all negative": [-1, -5, -2, -2, -7, -0.5, -1],
    "constant": [0.1] * 8,
    "dead": [0.0] * 8,
    "both zeros": [0.0, -0.0, 0.0, -0.0, 1.0, -1.0],
    "not finite": [math.nan, 3, math.inf, -1, -math.inf, 3, math.nan],
    "nothing finite": [math.nan, math.inf, -math.inf],
    "subnormal": [TINY, -TINY, 0.0, 3 * TINY, 2 * TINY, -2 * TINY, TINY],
    "extremes of float32": [3.4028235e38, -3.4028235e38, 1.0, 1e39, -1e39],
    "fewer than kept": [2.0, 1.0],
    "one": [5.0],
}
IDS: dict[str, Any] = {
    "in order": lambda n: np.arange(n),
    "negative and out of order": lambda n: np.array([(-1) ** i * (37 * i % 101) for i in range(n)]),
    "text by code point": lambda n: np.array(
        [w * (1 + i // 8) for i, w in enumerate(["b", "B", "10", "9", "é", "z", "_", "Ω"] * 8)][:n]
    ),
}


def _ends(values: np.ndarray, ids: np.ndarray, keep: int) -> tuple[list[int], list[int]]:
    """Positions of the highest and the lowest, by Python's sort over (value in float64, id)."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(values).astype(np.float32).astype(np.float64)
    finite = [i for i in range(len(rounded)) if math.isfinite(rounded[i])]
    names = ids.tolist()
    highest = sorted(finite, key=lambda i: names[i])
    highest.sort(key=lambda i: rounded[i], reverse=True)  # stable: the smaller id stays first among equals
    lowest = sorted(finite, key=lambda i: (rounded[i], names[i]))
    return highest[:keep], lowest[:keep]


def _check_ends(ranking: Ranking, values: np.ndarray, ids: np.ndarray, keep: int) -> None:
    """Both ends of every feature and view of a ranking of values (k, v, n)."""
    for k in range(values.shape[0]):
        for v in range(values.shape[1]):
            for end, wanted in zip((ranking.highest, ranking.lowest), _ends(values[k, v], ids, keep), strict=True):
                padding = keep - len(wanted)
                assert end.position[k, v].tolist() == wanted + [-1] * padding
                with np.errstate(over="ignore"):
                    stored = values[k, v][wanted].astype(np.float32)
                np.testing.assert_array_equal(end.value[k, v, : len(wanted)], stored)
                assert np.isnan(end.value[k, v, len(wanted) :]).all()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("keep", [1, 4])
def test_extremes_are_those_of_a_plain_sort(column: str, ids: str, keep: int) -> None:
    values = np.array(COLUMNS[column])
    names = IDS[ids](len(values))
    _check_ends(rank_values(values[None, None], names, keep), values[None, None], names, keep)


def test_among_equal_values_the_smaller_id_is_first_at_both_ends() -> None:
    ranking = rank_values(np.zeros((1, 1, 4)), np.array([7, -3, 5, -1]), 3)
    assert ranking.highest.position[0, 0].tolist() == [1, 3, 2]
    assert ranking.lowest.position[0, 0].tolist() == [1, 3, 2]
    words = rank_values(np.array([[[0.0, -0.0, -0.0]]]), np.array(["9", "10", "A"]), 3)
    assert words.highest.position[0, 0].tolist() == words.lowest.position[0, 0].tolist() == [1, 0, 2]


def test_whole_orders_and_places_of_ids() -> None:
    for values in map(np.array, COLUMNS.values()):
        for make in IDS.values():
            names = make(len(values))
            assert order(values, id_ranks(names)).tolist() == _ends(values, names, len(values))[0]
    assert id_ranks(np.array([5, -7, 0])).tolist() == [2, 0, 1]
    assert id_ranks(np.array(["b", "a", "B", "é", "10", "9"])).tolist() == [4, 3, 2, 5, 0, 1]


@pytest.mark.parametrize("column", COLUMNS)
def test_moments_are_those_of_the_finite_values(column: str) -> None:
    values = np.array(COLUMNS[column])
    ranking = rank_values(values[None, None], np.arange(len(values)), 3)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    finite = rounded[np.isfinite(rounded)].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rounded))
    assert ranking.n_nonfinite[0, 0] == len(bad)
    assert ranking.first_nonfinite[0, 0] == (bad[0] if len(bad) else -1)
    found = [float(part[0, 0]) for part in (ranking.mean, ranking.std, ranking.minimum, ranking.maximum)]
    if len(finite) == 0:
        assert all(math.isnan(value) for value in found)
    else:
        wanted = [finite.mean(), finite.std(), finite.min(), finite.max()]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-50)


def test_a_constant_has_exactly_no_spread_and_a_shifted_one_its_own() -> None:
    rng = np.random.default_rng(0)
    wiggle = rng.standard_normal(1000)
    values = np.stack([np.full(1000, 0.1), 1e6 + wiggle])[:, None]
    ranking = rank_values(values, np.arange(1000), 2)
    assert ranking.std[0, 0] == 0
    assert ranking.minimum[0, 0] == ranking.maximum[0, 0] == np.float32(0.1)
    rounded = values[1, 0].astype(np.float32).astype(np.float64)
    assert ranking.std[1, 0] == pytest.approx(rounded.std(), rel=1e-9)


def _large(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three features in two views over 700 examples with many ties and some values that are not finite."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-40, 40, (3, 2, 700)) / 8
    values[1] = rng.standard_normal((2, 700))
    values[2, 1, [3, 400]] = np.nan
    values[0, 0, 699] = np.inf
    return values, rng.permutation(700) - 350, rng.integers(0, 4, 700)


def _fed(values: np.ndarray, ids: np.ndarray, tile: int, buffer: int, classes: np.ndarray, keep: int = 9) -> Ranking:
    running = RunningRanking(*values.shape[:2], ids, keep, classes, 4, buffer)
    for start in range(0, values.shape[2], tile):
        running.update(values[..., start : start + tile], start)
    return running.result()


def _parts(ranking: Ranking) -> list[bytes]:
    """All that must not depend on anything but values and ids, bit for bit."""
    ends = [ranking.highest.position, ranking.highest.value, ranking.lowest.position, ranking.lowest.value]
    rest = [ranking.minimum, ranking.maximum, ranking.n_nonfinite, ranking.first_nonfinite]
    return [array.tobytes() for array in ends + rest]


def test_extremes_do_not_depend_on_tiles_or_buffers() -> None:
    values, ids, classes = _large()
    found = [_fed(values, ids, tile, buffer, classes) for tile in (1, 7, 64, 700) for buffer in (1, 10, 256, 5000)]
    _check_ends(found[0], values, ids, 9)
    for other in found[1:]:
        assert _parts(other) == _parts(found[0])
        np.testing.assert_allclose(other.mean, found[0].mean, rtol=1e-12)
        np.testing.assert_allclose(other.std, found[0].std, rtol=1e-12)


def test_with_the_same_tiles_everything_is_the_same_bits_for_any_buffer() -> None:
    values, ids, classes = _large(1)
    found = [_fed(values, ids, 32, buffer, classes) for buffer in (1, 32, 100, 9999)]
    for other in found[1:]:
        for part in ("mean", "std", "class_mean"):
            assert getattr(other, part).tobytes() == getattr(found[0], part).tobytes()


def test_examples_may_arrive_in_any_order_of_tiles() -> None:
    values, ids, classes = _large(2)
    straight = _fed(values, ids, 50, 64, classes)
    running = RunningRanking(3, 2, ids, 9, classes, 4, 64)
    for start in np.random.default_rng(0).permutation(14) * 50:
        running.update(values[..., start : start + 50], int(start))
    shuffled = running.result()
    assert _parts(shuffled)[:6] == _parts(straight)[:6]
    np.testing.assert_array_equal(shuffled.n_nonfinite, straight.n_nonfinite)


def test_a_result_can_be_asked_for_again_and_again() -> None:
    values, ids, classes = _large(3)
    running = RunningRanking(3, 2, ids, 5, classes, 4)
    running.update(values[..., :300], 0)
    first = running.result()
    _check_ends(first, values[..., :300], ids[:300], 5)
    running.update(values[..., 300:], 300)
    _check_ends(running.result(), values, ids, 5)


def test_class_means_leave_out_what_is_not_finite_and_name_absent_classes() -> None:
    values, ids, classes = _large(4)
    ranking = rank_values(values, ids, 3, classes, 5)
    assert ranking.class_mean is not None
    rounded = values.astype(np.float32).astype(np.float64)
    for label in range(4):
        chosen = rounded[..., classes == label]
        counts = np.isfinite(chosen)
        wanted = np.where(counts, chosen, 0).sum(axis=-1) / counts.sum(axis=-1)
        np.testing.assert_allclose(ranking.class_mean[..., label], wanted, rtol=1e-5, atol=1e-7)
    assert np.isnan(ranking.class_mean[..., 4]).all()
    assert rank_values(values, ids, 3).class_mean is None


float32s = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, TINY, -TINY, math.inf, math.nan]), st.integers(-3, 3)
)


@settings(deadline=None, max_examples=60)
@given(st.lists(float32s, min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 9), st.randoms())
def test_any_column_is_ranked_like_a_sort_in_any_order(column: list[float], keep: int, tile: int, random: Any) -> None:
    values = np.array(column, dtype=np.float64)
    ids = np.array(random.sample(range(-100, 100), len(values)))
    running = RunningRanking(1, 1, ids, keep, buffer=random.randint(1, 20))
    for start in range(0, len(values), tile):
        running.update(values[None, None, start : start + tile], start)
    ranking = running.result()
    _check_ends(ranking, values[None, None], ids, keep)
    turned = np.array(random.sample(range(len(values)), len(values)))
    other = rank_values(values[turned][None, None], ids[turned], keep)
    for one, two in ((ranking.highest, other.highest), (ranking.lowest, other.lowest)):
        there = one.position[0, 0] >= 0
        assert ids[one.position[0, 0][there]].tolist() == ids[turned][two.position[0, 0][there]].tolist()
        assert one.value.tobytes() == two.value.tobytes()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 50), st.integers(1, 12))
def test_quantile_groups_cut_the_order_into_equal_counts(n: int, groups: int) -> None:
    ordered = np.arange(n)[::-1]
    parts = quantile_groups(ordered, groups)
    assert len(parts) == groups
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert np.concatenate(parts).tolist() == ordered.tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 70))
def test_a_range_sample_covers_the_whole_range_evenly(n: int, count: int) -> None:
    places = range_sample(np.arange(n)[::-1], count)
    assert len(places) == min(count, n)
    assert places[0] == 0
    if len(places) > 1:
        assert places[-1] == n - 1
        gaps = np.diff(places)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_what_cannot_be_ranked_is_said() -> None:
    with pytest.raises(SettingsError, match="kept at each end must be at least 1, not 0"):
        RunningRanking(1, 1, np.arange(3), 0)
    with pytest.raises(SettingsError, match="at least one example, but none came"):
        RunningRanking(1, 1, np.arange(3), 2).result()
    with pytest.raises(SettingsError, match="quantile groups must be at least 1, not 0"):
        quantile_groups(np.arange(3), 0)
    with pytest.raises(SettingsError, match="at least 1 example, not 0"):
        range_sample(np.arange(3), 0)
    assert len(range_sample(np.arange(0), 5)) == 0
