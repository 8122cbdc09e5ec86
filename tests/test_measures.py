"""Measures against scikit-learn, SciPy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from feature_lens.analysis.measures.classes import class_auroc, selectivity
from feature_lens.analysis.measures.purity import top_purity
from feature_lens.analysis.measures.ranks import average_ranks


@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_average_ranks_are_scipys(rows: list[list[int]]) -> None:
    values = np.array(rows, dtype=np.float32)
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values, axis=1))


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_scikit_learns(ties: bool) -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal((7, 50)).astype(np.float32)
    values = np.round(values) if ties else values
    labels = rng.integers(0, 4, 50) * 2  # numbers of classes need not be without gaps
    auroc, classes = class_auroc(values, labels)
    assert classes.tolist() == [0, 2, 4, 6]
    for feature in range(7):
        for place, label in enumerate(classes):
            assert auroc[feature, place] == pytest.approx(roc_auc_score(labels == label, values[feature]), abs=1e-12)
    score, best = selectivity(values, labels)
    folded = np.maximum(auroc, 1 - auroc)
    np.testing.assert_allclose(score, folded.max(axis=1))
    np.testing.assert_array_equal(best, classes[folded.argmax(axis=1)])


def test_perfect_constant_and_reversed_features() -> None:
    labels = np.array([0, 0, 1, 1])
    score, _ = selectivity(np.array([[0.0, 1, 2, 3], [5, 5, 5, 5], [3, 2, 1, 0]]), labels)
    np.testing.assert_allclose(score, [1, 0.5, 1])


def test_values_that_are_not_finite_take_no_part() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 30))
    labels = rng.integers(0, 2, 30)
    holed = values.copy()
    holed[0, :4] = np.nan
    holed[1] = np.inf
    auroc, _ = class_auroc(holed, labels)
    assert auroc[0, 1] == pytest.approx(roc_auc_score(labels[4:], values[0, 4:]))
    assert np.isnan(auroc[1]).all()
    score, best = selectivity(holed, labels)
    assert np.isnan(score[1])
    assert best[1] == -1
    assert score[2] == pytest.approx(selectivity(values, labels).score[2])


def test_one_class_has_no_selectivity() -> None:
    score, best = selectivity(np.ones((2, 5)), np.zeros(5, dtype=int))
    assert np.isnan(score).all()
    assert best.tolist() == [-1, -1]


def test_top_purity_counts_the_commonest_class() -> None:
    labels = np.array([4, 4, 9, 9, 9])
    positions = np.array([[0, 1, 2], [2, 3, 4], [0, 2, -1], [-1, -1, -1]])
    purity = top_purity(positions, labels)
    np.testing.assert_allclose(purity[:3], [2 / 3, 1, 1 / 2])
    assert np.isnan(purity[3])
