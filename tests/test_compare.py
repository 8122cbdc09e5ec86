"""Correlations against SciPy loops, overlaps against sets, matches against what was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from feature_lens.analysis import best_matches, jaccard_matrix, similar_features, spearman_matrix, verdict
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents


def test_spearman_is_scipys_pair_by_pair() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((4, 40)), np.round(rng.standard_normal((5, 40)))
    found = spearman_matrix(a, b)
    for i in range(4):
        for j in range(5):
            assert found[i, j] == pytest.approx(stats.spearmanr(a[i], b[j]).statistic, abs=1e-12)


def test_constant_features_have_no_correlation_and_no_warning() -> None:
    a = np.array([[1.0, 1, 1, 1], [0, 1, 2, 3]])
    found = spearman_matrix(a, a)
    assert np.isnan(found[0]).all()
    assert np.isnan(found[:, 0]).all()
    assert found[1, 1] == pytest.approx(1)


def test_correlation_is_taken_where_both_are_finite() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 20)), rng.standard_normal((3, 20))
    a[0, :3], b[1, 5], b[2] = np.nan, np.inf, np.nan
    found = spearman_matrix(a, b)
    both = np.isfinite(a[0]) & np.isfinite(b[1])
    assert found[0, 1] == pytest.approx(stats.spearmanr(a[0, both], b[1, both]).statistic)
    assert np.isnan(found[:, 2]).all()
    assert found[1, 0] == pytest.approx(stats.spearmanr(a[1], b[0]).statistic)


def test_arrays_over_other_examples_are_refused() -> None:
    with pytest.raises(SettingsError, match="same examples"):
        spearman_matrix(np.zeros((2, 3)), np.zeros((2, 4)))


@given(
    st.lists(st.sets(st.integers(0, 12), max_size=5), min_size=1, max_size=4),
    st.lists(st.sets(st.integers(0, 12), max_size=5), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_jaccard_is_that_of_sets(left: list[set[int]], right: list[set[int]]) -> None:
    def padded(sets: list[set[int]]) -> np.ndarray:
        return np.array([[*sorted(s), *[-1] * (5 - len(s))] for s in sets])

    found = jaccard_matrix(padded(left), padded(right))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            assert found[i, j] == pytest.approx(len(a & b) / len(a | b) if a | b else 0.0)


@pytest.fixture
def planted() -> RunContents:
    """Neurons that are eigen feature 2, its negative, a monotone function of feature 4, and a constant."""
    run = synthetic.contents(80, "vector")
    eigen = np.asarray(run.sets["eigen"].columns["values"])[:, 0]
    values = np.stack([eigen[2], -eigen[2], np.exp(eigen[4]), np.ones(80)])[:, None]
    neurons = synthetic._set("neurons", values, ("activation",), run.examples, labels=np.array(list("abcd")))
    return replace(run, sets={**run.sets, "neurons": neurons})


def test_planted_matches_are_found_with_their_sign(planted: RunContents) -> None:
    found = best_matches(planted, "neurons", "eigen", "activation", "score")
    assert found["label"].tolist() == list("abcd")
    assert found["match"].tolist() == [2, 2, 4, -1]
    np.testing.assert_allclose(found["spearman"][:3], [1, -1, 1])
    # The highest of the negated feature are the lowest of the other.
    np.testing.assert_allclose(found["jaccard"][:3], 1)
    assert np.isnan(found["spearman"][3])
    assert found["match_label"][3] == ""
    assert (found["null_spearman"][:3] < 0.6).all()
    assert (found["null_jaccard"][:3] < 0.5).all()


def test_null_is_the_same_statistic_after_a_shuffle(planted: RunContents) -> None:
    found = best_matches(planted, "eigen", "unit", "score", "output:1", seed=7)
    a = np.asarray(planted.sets["eigen"].columns["values"])[:, 0]
    b = np.asarray(planted.sets["unit"].columns["values"])[:, 1]
    shuffled = b[:, np.random.default_rng(7).permutation(80)]
    expected = spearman_matrix(a, shuffled)
    np.testing.assert_allclose(found["null_spearman"], np.abs(expected).max(axis=1))
    feature = 0
    match = int(np.abs(expected[feature]).argmax())
    order = np.argsort(-shuffled[match] * np.sign(expected[feature, match]))[:16]
    top = set(np.argsort(-a[feature])[:16].tolist())
    both = set(order.tolist())
    assert found["null_jaccard"][feature] == pytest.approx(len(top & both) / len(top | both))


def test_null_of_unrelated_features_is_like_their_matches() -> None:
    run = synthetic.contents(200, "vector", seed=5)
    found = best_matches(run, "unit", "neurons", "output:0", "activation")
    assert abs(found["spearman"].abs().mean() - found["null_spearman"].mean()) < 0.08


def test_same_seed_same_null(planted: RunContents) -> None:
    first = best_matches(planted, "eigen", "neurons", "score", "activation", seed=1)
    again = best_matches(planted, "eigen", "neurons", "score", "activation", seed=1)
    other = best_matches(planted, "eigen", "neurons", "score", "activation", seed=2)
    assert first.equals(again)
    assert not first["null_spearman"].equals(other["null_spearman"])


def test_a_set_beside_itself_leaves_each_feature_out(planted: RunContents) -> None:
    found = best_matches(planted, "eigen", "eigen", "score", "score")
    assert (found["match"] != found["feature"]).all()


def test_sets_without_values_are_refused(planted: RunContents) -> None:
    with pytest.raises(SettingsError, match="choose a stored set"):
        best_matches(planted, "eigen", "weights", "score", "output:0")
    with pytest.raises(SettingsError, match="at least one example"):
        best_matches(planted, "eigen", "unit", "score", "output:0", top=0)


def test_similar_features_are_those_most_correlated(planted: RunContents) -> None:
    found = similar_features(planted, "neurons", 0, "activation", count=2)
    assert found["feature"].tolist()[0] == 1
    assert found["spearman"][0] == pytest.approx(-1)
    assert found["jaccard"][0] == pytest.approx(1)
    assert 3 not in similar_features(planted, "neurons", 0, "activation")["feature"].tolist()


def test_similar_weights_share_examples_at_the_top(planted: RunContents) -> None:
    found = similar_features(planted, "weights", 3, "output:0", count=4)
    highest = np.asarray(planted.sets["weights"].columns["highest/position"])[:, 0]
    own = set(highest[3].tolist())
    overlaps = [len(own & set(row.tolist())) / len(own | set(row.tolist())) for row in highest]
    overlaps[3] = -1
    np.testing.assert_allclose(found["jaccard"], sorted(overlaps, reverse=True)[:4])
    assert found["spearman"].isna().all()


def test_constant_weights_are_not_called_similar() -> None:
    run = synthetic.contents(40)
    values = np.random.default_rng(0).standard_normal((4, 1, 40))
    values[0], values[1], values[2] = 0, 0, values[3] + 0.01
    flat = synthetic._set("flat", values, ("activation",), run.examples, keep_values=False)  # type: ignore[arg-type]  # see there
    run = replace(run, sets={"flat": flat})
    assert similar_features(run, "flat", 0, "activation").empty
    assert similar_features(run, "flat", 2, "activation")["feature"].tolist() == [3]


def test_the_verdict_says_whether_matches_beat_the_null() -> None:
    made = synthetic.contents(200)
    eigen = made.sets["eigen"]
    itself = replace(made, sets={**made.sets, "copy": replace(eigen, name="copy")})
    same = verdict(best_matches(itself, "eigen", "copy", "score", "score"))
    assert same.startswith("6 of 6 features are matched better than any feature is after the examples were shuffled")
    noise = verdict(best_matches(made, "unit", "neurons", "output:0", "activation"))
    assert "after shuffling" in noise or "were shuffled" in noise
    nothing = best_matches(made, "unit", "neurons", "output:0", "activation").assign(match=-1)
    assert verdict(nothing) == "No feature varies enough to be matched."
    unbeaten = best_matches(made, "unit", "neurons", "output:0", "activation").assign(null_spearman=1.0)
    assert verdict(unbeaten).startswith("The matches do not beat the null")


def test_examples_that_only_their_ids_put_at_an_end_are_no_agreement() -> None:
    made = synthetic.contents(60)
    values = np.zeros((3, 1, 60))
    values[0, 0, 50:], values[1, 0, 55:], values[2, 0] = 1, 1, np.arange(60)
    rectified = synthetic._set("rectified", values, ("activation",), made.examples, keep_values=False)  # type: ignore[arg-type]  # see _set
    run = replace(made, sets={"rectified": rectified})
    found = similar_features(run, "rectified", 0, "activation")
    # Ten ones and five ones, and zeros by their ids: nothing is known to be shared but the ones.
    assert set(found["feature"]) <= {1, 2}
    assert (found["jaccard"] < 1).all()
