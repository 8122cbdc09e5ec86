"""Rankings and histograms of products that are never formed, against those of the formed values."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import histogram_counts

from feature_lens.errors import SettingsError
from feature_lens.features import outer_ranking
from feature_lens.features.outer_ranking import PANEL, OuterHistogram, OuterRanking, ValueRanking
from feature_lens.ranking import Ranking, rank_values

# One worker compiles for all of them.
SCALE = 0.7
BLOCK = 333


def _formed(a: np.ndarray, g: np.ndarray, scale: float = SCALE) -> np.ndarray:
    """Values (k, v, n) in float32, by numpy."""
    dtype = np.result_type(a, g)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaled = dtype.type(scale) * a.astype(dtype)
        values = (g.astype(dtype)[..., None] * scaled[:, None, None]).astype(np.float32)
    return values.reshape(*g.shape[:2], -1).transpose(2, 1, 0)


def _outer(a: np.ndarray, g: np.ndarray, *rest: Any, block: int = BLOCK, scale: float = SCALE, **more: Any) -> Ranking:
    ranking = OuterRanking(g.shape[2], a.shape[1], g.shape[1], *rest, scale=scale, **more)
    for start in range(0, len(a), block):
        part_a, part_g = a[start : start + block].copy(), g[start : start + block].copy()
        ranking.update(part_a, part_g, start)
        part_a[:], part_g[:] = np.nan, np.nan  # the caller may use its blocks again
    return ranking.result()


def _valued(values: np.ndarray, *rest: Any, block: int = BLOCK, **more: Any) -> Ranking:
    ranking = ValueRanking(values.shape[0], values.shape[1], *rest, **more)
    rows = np.ascontiguousarray(values.transpose(2, 1, 0))
    for start in range(0, len(rows), block):
        ranking.update(rows[start : start + block], start)
    return ranking.result()


def _check(found: Ranking, values: np.ndarray, ids: np.ndarray, keep: int, classes: np.ndarray | None = None) -> None:
    """What must be the same is the same to the last bit, moments up to rounding."""
    wanted = rank_values(values, ids, keep, classes, 4)
    exact = [
        (getattr(one, part), getattr(two, part))
        for one, two in ((found.highest, wanted.highest), (found.lowest, wanted.lowest))
        for part in ("position", "value")
    ]
    exact += [(getattr(found, p), getattr(wanted, p)) for p in ("minimum", "maximum", "n_nonfinite", "first_nonfinite")]
    for one, two in exact:
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert one.tobytes() == two.tobytes()
    size = np.where(np.isfinite(values), np.abs(values), 0).max(axis=-1).astype(np.float64)
    for one, two in ((found.mean, wanted.mean), (found.std, wanted.std)):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(two))
        assert (np.nan_to_num(np.abs(one - two)) <= 1e-12 * size).all()
    assert (found.std[found.minimum == found.maximum] == 0).all()
    if classes is None:
        assert found.class_mean is None
        return
    assert found.class_mean is not None
    assert wanted.class_mean is not None
    assert found.class_mean.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found.class_mean), np.isnan(wanted.class_mean))
    apart = np.nan_to_num(np.abs(found.class_mean.astype(np.float64) - wanted.class_mean))
    assert (apart <= 1e-7 * size[..., None]).all()


def _bytes(ranking: Ranking) -> list[bytes]:
    parts = [getattr(ranking, field.name) for field in fields(ranking) if field.name not in ("highest", "lowest")]
    for end in (ranking.highest, ranking.lowest):
        parts += [end.position, end.value]
    return [part.tobytes() for part in parts if part is not None]


def _data(n: int, seed: int, dtype: str = "f8", bad: bool = True) -> tuple[np.ndarray, ...]:
    """Inputs (n, 21) as of a ReLU, gradients (n, 2, 3) with ties, ids that are not in order, classes."""
    rng = np.random.default_rng(seed)
    a = np.maximum(rng.standard_normal((n, 21)), 0).astype(dtype)
    a[:, 4] = 0
    a[:, 5] = 1
    a[:, 6] *= rng.random(n) < 0.02
    g = (rng.integers(-8, 8, (n, 2, 3)) / 4).astype(dtype)
    g[:, 1] = rng.standard_normal((n, 3)) + 1e4
    g[:, 0, 2] = 0.1
    if bad:
        a[n // 3, 1], g[n // 2, 0, 1], a[n // 4, 2], g[n // 4, 1, 1] = np.nan, np.inf, 1e30, 1e30
        a[:, 7] = np.nan
    return a, g, rng.permutation(n) - n // 2, rng.integers(0, 4, n)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("n", "keep"), [(1, 1), (1, 3), (5, 9), (300, 16), (PANEL + 700, 16), (900, 90), (900, 900)])
def test_products_and_values_are_ranked_as_if_formed(dtype: str, n: int, keep: int) -> None:
    a, g, ids, classes = _data(n, n, dtype)
    values = _formed(a, g)
    _check(_outer(a, g, ids, keep, classes, 4), values, ids, keep, classes)
    _check(_valued(values, ids, keep, classes, 4), values, ids, keep, classes)
    _check(_outer(a, g, ids, keep), values, ids, keep)
    words = np.array([f"{'aB_é'[i % 4]}{i}" for i in ids])
    _check(_outer(a, g, words, keep), values, words, keep)


def test_no_bit_depends_on_blocks_or_workers() -> None:
    a, g, ids, classes = _data(PANEL + 500, 0)
    values = _formed(a, g)
    outer = [
        _outer(a, g, ids, 16, classes, 4, block=block, workers=workers)
        for block, workers in ((5000, 1), (1, 2), (64, 3), (PANEL, 2), (PANEL + 1, 1))
    ]
    valued = [
        _valued(values, ids, 16, classes, 4, block=block, workers=workers)
        for block, workers in ((5000, 1), (7, 2), (128, 3), (300, 2))
    ]
    for found in (outer, valued):
        for other in found[1:]:
            assert _bytes(other) == _bytes(found[0])


def test_no_bit_depends_on_workers_for_many_pieces() -> None:
    rng = np.random.default_rng(1)
    a, g = rng.standard_normal((200, 130)), rng.standard_normal((200, 1, 70))
    found = [
        _outer(a, g, np.arange(200), 3, np.zeros(200, dtype=np.int64), 4, workers=workers)
        for workers in (1, 2, 5, None)
    ]
    for other in found[1:]:
        assert _bytes(other) == _bytes(found[0])
    _check(found[0], _formed(a, g), np.arange(200), 3, np.zeros(200, dtype=np.int64))
    wide = rng.standard_normal((5000, 1, 60))
    _check(_valued(wide, np.arange(60), 3, workers=3), wide.astype(np.float32), np.arange(60), 3)


def test_ties_of_zeros_go_to_the_smallest_ids_at_both_ends() -> None:
    n = PANEL + 300
    a, g = np.zeros((n, 2)), np.ones((n, 1, 2))
    a[::2] = -0.0
    a[[40, 900], 1] = 1.0
    ids = np.arange(n)[::-1]
    found = _outer(a, g, ids, 4)
    assert found.highest.position[0, 0].tolist() == [n - 1, n - 2, n - 3, n - 4]
    assert found.highest.position[1, 0].tolist() == [900, 40, n - 1, n - 2]
    assert found.lowest.position[1, 0].tolist() == [n - 1, n - 2, n - 3, n - 4]
    assert not np.signbit(found.lowest.value[0]).any()
    _check(found, _formed(a, g), ids, 4)


@pytest.mark.parametrize("turn", [1, -1])
def test_values_that_rise_or_fall_through_all_panels(turn: int) -> None:
    a = np.arange(2.0 * PANEL)[::turn, None] * [1, -1, 1e-30]
    _check(
        _outer(a, np.ones((len(a), 1, 1)), np.arange(len(a)), 16),
        _formed(a, np.ones((len(a), 1, 1))),
        np.arange(len(a)),
        16,
    )


def test_a_shifted_feature_keeps_its_spread_and_a_constant_has_none() -> None:
    rng = np.random.default_rng(0)
    a = np.stack([1e6 + rng.standard_normal(5000), np.full(5000, 0.1)], axis=1)
    found = _outer(a, np.ones((5000, 1, 1)), np.arange(5000), 2, scale=1.0)
    rounded = a[:, 0].astype(np.float32).astype(np.float64)
    assert found.std[0, 0] == pytest.approx(rounded.std(), rel=1e-10)
    assert found.std[1, 0] == 0


def test_wide_layers_take_smaller_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    a, g, ids, classes = _data(1000, 5)
    values = _formed(a, g)
    whole = _outer(a, g, ids, 5, classes, 4)
    monkeypatch.setattr(outer_ranking, "PANEL_BYTES", 1 << 17)
    found = [_outer(a, g, ids, 5, classes, 4, block=block) for block in (1000, 77)]
    assert _bytes(found[0]) == _bytes(found[1])
    assert found[0].mean.tobytes() != whole.mean.tobytes()
    _check(found[0], values, ids, 5, classes)


numbers = st.one_of(
    st.floats(width=32, allow_subnormal=True),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 3e38, np.inf, -np.inf, np.nan]),
    st.integers(-2, 2).map(float),
)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([np.float32, np.float64]), st.integers(1, 40), st.integers(1, 5), st.randoms())
def test_any_numbers_are_ranked_and_counted_as_if_formed(
    data: st.DataObject, dtype: Any, n: int, keep: int, random: Any
) -> None:
    n_in, n_out, views, block = (data.draw(st.integers(1, most)) for most in (4, 3, 2, 9))
    pool = data.draw(st.lists(numbers, min_size=1, max_size=12))
    a = np.array(random.choices(pool, k=n * n_in), dtype).reshape(n, n_in)
    g = np.array(random.choices(pool, k=n * views * n_out), dtype).reshape(n, views, n_out)
    ids = np.array(random.sample(range(-100, 100), n))
    if data.draw(st.booleans()):
        ids = ids.astype(str)
    classes = np.array(random.choices(range(3), k=n))
    values = _formed(a, g)
    found = _outer(a, g, ids, keep, classes, 4, block=block)
    _check(found, values, ids, keep, classes)
    _check(_valued(values, ids, keep, classes, 4, block=block, tile=7), values, ids, keep, classes)
    _check_counts(found, a, g, block)


def _check_counts(ranking: Ranking, a: np.ndarray, g: np.ndarray, block: int, bins: int = 40) -> None:
    values = _formed(a, g)
    wanted = histogram_counts(values, ranking.minimum, ranking.maximum, bins)
    outer = OuterHistogram(ranking.minimum, ranking.maximum, g.shape[2], a.shape[1], SCALE, bins)
    valued = OuterHistogram(ranking.minimum, ranking.maximum, 1, len(values), bins=bins, workers=1)
    for start in range(0, len(a), block):
        outer.update(a[start : start + block], g[start : start + block])
        valued.update_values(values.transpose(2, 1, 0)[start : start + block])
    for found in (outer, valued):
        assert found.counts.dtype == np.int32
        np.testing.assert_array_equal(found.counts, wanted)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("bins", [1, 40])
def test_histograms_count_as_if_formed(dtype: str, bins: int) -> None:
    a, g, ids, _ = _data(1500, 3, dtype)
    ranking = _outer(a, g, ids, 1)
    for block in (1500, 401):
        _check_counts(ranking, a, g, block, bins)


def test_histograms_of_columns_without_a_range() -> None:
    values = np.array([[[0.5] * 6], [[np.nan] * 6], [[np.inf, 1.0, np.nan, 2.0, -np.inf, 1e300]]])
    ranking = rank_values(values, np.arange(6), 2)
    found = OuterHistogram(ranking.minimum, ranking.maximum, 1, 3, bins=4, workers=1)
    found.update_values(values.transpose(2, 1, 0))
    assert found.counts[:, 0].tolist() == [[6, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]


def test_what_cannot_be_ranked_is_said() -> None:
    with pytest.raises(SettingsError, match="kept at each end must be at least 1, not 0"):
        OuterRanking(1, 1, 1, np.arange(3), 0)
    with pytest.raises(SettingsError, match="at least one example, but none came"):
        ValueRanking(1, 1, np.arange(3), 2).result()
