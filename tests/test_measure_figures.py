"""Measures with draws and nulls, each against scikit-learn, SciPy, a plain loop or a derivative by differences."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import subspace_angles
from sklearn.linear_model import RidgeCV, orthogonal_mp
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from feature_lens.analysis.measures.alignment import (
    best_matches_of_concept,
    correlation_influence,
    mean_max_cosine,
    orthonormal,
    overlap_curve,
    overlap_influence,
    unit,
)
from feature_lens.analysis.measures.bootstrap import Measured, linear_draws, pooled, resampled, shuffled
from feature_lens.analysis.measures.concept_selectivity import concept_auroc, is_binary
from feature_lens.analysis.measures.purity import class_entropy, purity_figures, top_purity
from feature_lens.analysis.measures.removal import removal_figures
from feature_lens.analysis.measures.reproduction import RIDGES, Reproduction, pursuit_order, standardised
from feature_lens.analysis.measures.selectivity import Halves, selectivity_curve, weighted_figures
from feature_lens.analysis.measures.sparsity import energy_share, hoyer, kurtosis, sparsity_figures
from feature_lens.analysis.measures.stability import matched, matched_correlation, span_overlap

RNG = np.random.default_rng(5)
N = 60
HALVES = Halves(np.arange(0, N, 2), np.arange(1, N, 2), "the other half")
WEIGHTS = resampled(N, 40, 0)
SHUFFLES = shuffled(N, 30, 1)
LABELS = RNG.integers(0, 3, N)
VALUES = RNG.standard_normal((6, N)) + (np.arange(6)[:, None] % 3 == LABELS) * RNG.choice([-1.5, 1.5], (6, 1))


# Properties


def test_properties_are_told_by_a_feature_chosen_on_one_half() -> None:
    known = np.stack([LABELS == 0, LABELS == 2, np.arange(N) == 0, np.ones(N)], axis=1).astype(float)
    assert is_binary(known)
    assert not is_binary(known / 2)
    found = concept_auroc(VALUES, known, HALVES, WEIGHTS[:, HALVES.reporting], SHUFFLES)

    def slow(columns: np.ndarray, weight: np.ndarray | None = None) -> float:
        figures = []
        for column in columns.T:
            halves = [column[half] for half in (HALVES.choosing, HALVES.reporting)]
            if any(len(np.unique(half)) < 2 for half in halves):
                continue
            own = [roc_auc_score(halves[0], one[HALVES.choosing]) for one in VALUES]
            best = int(np.argmax(np.abs(np.array(own) - 0.5)))
            scores = np.sign(own[best] - 0.5) * VALUES[best, HALVES.reporting]
            figures.append(roc_auc_score(halves[1], scores, sample_weight=weight))
        return float(np.mean(figures))

    assert found.value == pytest.approx(slow(known[:, :2]), abs=1e-12)
    np.testing.assert_allclose(found.draws[:5], [slow(known[:, :2], w) for w in WEIGHTS[:5, HALVES.reporting]])
    np.testing.assert_allclose(found.null[:5], [slow(known[order][:, :2]) for order in SHUFFLES[:5]])
    assert np.isnan(concept_auroc(VALUES, known[:, 3:], HALVES, WEIGHTS[:, HALVES.reporting], SHUFFLES).value)


# Draws


def test_resampling_draws_every_example_equally_often() -> None:
    weights = resampled(50, 4000, 3)
    assert (weights.sum(axis=1) == 50).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.09)
    np.testing.assert_allclose(weights.var(axis=0), 0.98, atol=0.15)
    assert (np.sort(shuffled(9, 5, 0), axis=1) == np.arange(9)).all()


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    x = np.random.default_rng(0).standard_normal(400)
    found = Measured(float(x.mean()), linear_draws(float(x.mean()), (x - x.mean()) / 400, resampled(400, 2000, 1)))
    value, low, high = found.interval()
    np.testing.assert_allclose([low - value, high - value], np.array([-1.96, 1.96]) * x.std() / 20, rtol=0.15)
    assert np.isnan(Measured(1.0).interval()[1:]).all()
    assert np.isnan(Measured(1.0).null_figures()).all()
    assert Measured(1.0, null=np.linspace(0, 1, 101)).null_figures() == pytest.approx((0.5, 0.99))


def test_seeds_are_drawn_as_examples_are() -> None:
    runs = [Measured(value, np.full(300, value), np.full(20, value)) for value in (0.0, 1.0, 5.0)]
    found = pooled(runs)
    assert found.value == 2
    assert found.interval().low == 0
    assert found.interval().high == 5
    assert found.draws.std() == pytest.approx(np.std([0, 1, 5]) / 3**0.5, rel=0.15)
    assert found.null_figures() == (2, 2)
    assert pooled(runs[:1]) is runs[0]
    assert len(pooled([Measured(1.0), Measured(2.0)]).draws) == 0


# Classes


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_figures_are_scikit_learns(ties: bool) -> None:
    scores = np.round(VALUES[0]) if ties else VALUES[0]
    truth = LABELS == 1
    auroc, precision = weighted_figures(scores, WEIGHTS * truth, WEIGHTS * ~truth)
    for place, weight in enumerate(WEIGHTS):
        assert auroc[place] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight), abs=1e-12)
        assert precision[place] == pytest.approx(
            average_precision_score(truth, scores, sample_weight=weight), abs=1e-12
        )
    ones = np.ones((1, N))
    assert np.isnan(weighted_figures(scores, ones, 0 * ones)).all()


def test_selectivity_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    counts = [1, 2, 3]
    weights = WEIGHTS[:, HALVES.reporting]
    found = selectivity_curve(VALUES[:3], LABELS, HALVES, counts, weights, SHUFFLES)
    chosen, scores = VALUES[:, HALVES.choosing], VALUES[:, HALVES.reporting]
    on, off = LABELS[HALVES.choosing], LABELS[HALVES.reporting]

    def auroc(row: int, label: int) -> float:
        return float(roc_auc_score(on == label, chosen[row]))

    def reported(row: int, label: int, weight: np.ndarray | None = None) -> tuple[float, float]:
        signed = scores[row] * (1 if auroc(row, label) >= 0.5 else -1)
        return tuple(m(off == label, signed, sample_weight=weight) for m in (roc_auc_score, average_precision_score))

    pairs = [(row, label) for row in range(3) for label in range(3)]

    def best(among: list[tuple[int, int]]) -> tuple[int, int]:
        return max(among, key=lambda pair: round(abs(auroc(*pair) - 0.5), 12))

    for count in counts:
        by_class = [best([pair for pair in pairs if pair[1] == c and pair[0] < count]) for c in range(3)]
        by_feature = [best([pair for pair in pairs if pair[0] == f]) for f in range(count)]
        for name, taken in (("class", by_class), ("feature", by_feature)):
            wanted = np.mean([reported(*pair) for pair in taken], axis=0)
            drawn = np.mean([reported(*pair, weights[7]) for pair in taken], axis=0)
            for one, measure in enumerate(("auroc", "precision")):
                figure = found[f"{name}_{measure}"][count]
                assert figure.value == pytest.approx(wanted[one], abs=1e-12)
                assert figure.draws[7] == pytest.approx(drawn[one], abs=1e-12)


def test_classes_that_one_half_lacks_are_only_outside_of_the_others() -> None:
    labels = LABELS.copy()
    labels[HALVES.choosing[:5]] = 7
    found = selectivity_curve(VALUES, labels, HALVES, [6], WEIGHTS[:, HALVES.reporting], SHUFFLES)["class_auroc"][6]
    on, off = labels[HALVES.choosing], labels[HALVES.reporting]
    wanted = []
    for label in range(3):
        aurocs = [roc_auc_score(on == label, row) for row in VALUES[:, HALVES.choosing]]
        best = int(np.abs(np.array(aurocs) - 0.5).round(12).argmax())
        sign = 1 if aurocs[best] >= 0.5 else -1
        wanted.append(roc_auc_score(off == label, sign * VALUES[best, HALVES.reporting]))
    assert found.value == pytest.approx(np.mean(wanted))


def test_shuffled_labels_are_chosen_and_reported_again() -> None:
    weights = WEIGHTS[:1, HALVES.reporting]
    shuffles = shuffled(N, 200, 4)
    found = selectivity_curve(VALUES, LABELS, HALVES, [6], weights, shuffles)["class_auroc"][6]
    mean, bar = found.null_figures()
    assert mean == pytest.approx(0.5, abs=0.02)
    assert 0.55 < bar < 0.7
    assert found.value > bar
    alone = selectivity_curve(VALUES, LABELS[shuffles[5]], HALVES, [6], weights, shuffles[:0])["class_auroc"][6]
    assert found.null[5] == pytest.approx(alone.value, abs=1e-12)


def test_purity_and_entropy_are_plain_counts() -> None:
    shown = np.argsort(-VALUES, axis=1)[:, :8].copy()
    shown[4, 5:] = -1
    shown[5] = -1
    purity, entropy = purity_figures(shown, LABELS, WEIGHTS, SHUFFLES)
    counts = [np.bincount(LABELS[row[row >= 0]], minlength=3) for row in shown[:5]]
    assert purity.value == pytest.approx(np.mean([c.max() / c.sum() for c in counts]))
    assert entropy.value == pytest.approx(np.mean([stats.entropy(c, base=2) for c in counts]))
    np.testing.assert_allclose(class_entropy(shown, LABELS)[:5], [stats.entropy(c, base=2) for c in counts])
    assert np.isnan(class_entropy(shown, LABELS)[5])
    assert purity.null[3] == pytest.approx(np.nanmean(top_purity(shown, LABELS[SHUFFLES[3]])))
    assert purity.interval().low < purity.value < purity.interval().high
    # A draw is the weighted share of the class that is commonest now.
    drawn = []
    for row, c in zip(shown, counts, strict=False):
        at = row[row >= 0]
        if WEIGHTS[2][at].sum():
            drawn.append(np.average(LABELS[at] == c.argmax(), weights=WEIGHTS[2][at]))
    assert purity.draws[2] == pytest.approx(np.mean(drawn))


# Concepts


def _weighted_overlap(features: np.ndarray, known: np.ndarray, weight: np.ndarray) -> float:
    root = np.sqrt(weight)[:, None]
    sides = [np.linalg.qr(root * (x - np.average(x, axis=0, weights=weight)))[0] for x in (features, known)]
    return float(np.square(sides[0].T @ sides[1]).sum() / known.shape[1])


def test_overlap_is_that_of_principal_angles_at_every_count() -> None:
    features, known = VALUES.T, RNG.standard_normal((N, 4)) + VALUES[:4].T
    found = overlap_curve(features, known, [1, 3, 6], WEIGHTS, SHUFFLES)
    for count, figure in found.items():
        sides = [x - x.mean(axis=0) for x in (features[:, :count], known)]
        cosines = np.cos(subspace_angles(*sides))
        assert figure.value == pytest.approx(np.square(cosines).sum() / 4, abs=1e-12)
    chance = overlap_curve(features, known, [6], WEIGHTS, shuffled(N, 300, 2))[6].null_figures()[0]
    assert chance == pytest.approx(6 / (N - 1), rel=0.05)


def test_influences_are_derivatives_by_the_weight_of_an_example() -> None:
    features, known = VALUES.T, RNG.standard_normal((N, 4)) + VALUES[:4].T
    influence = overlap_influence(orthonormal(features)[0], orthonormal(known)[0])
    x, y = unit(VALUES[:4].T), unit(known)
    correlation = correlation_influence(x, y)
    step = 1e-5
    for example in range(0, N, 7):
        overlap, plain = [], []
        for sign in (1, -1):
            weight = np.ones(N)
            weight[example] += sign * step
            overlap.append(_weighted_overlap(features, known, weight))
            covariance = np.cov(VALUES[:4], known.T, aweights=weight, ddof=0)
            spread = np.sqrt(np.diag(covariance))
            plain.append((covariance / np.outer(spread, spread))[np.arange(4), np.arange(4) + 4])
        assert influence[example] == pytest.approx((overlap[0] - overlap[1]) / (2 * step), abs=1e-8)
        np.testing.assert_allclose(correlation[example], (plain[0] - plain[1]) / (2 * step), atol=1e-8)


def test_columns_that_add_nothing_are_left_out() -> None:
    columns = np.stack([VALUES[0], np.full(N, 3.0), 2 * VALUES[0] + 1, VALUES[1], np.zeros(N)], axis=1)
    basis, made = orthonormal(columns.astype(np.float32))
    assert made.tolist() == [0, 3]
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-12)
    found = overlap_curve(columns, VALUES[:2].T, [1, 3, 5], WEIGHTS, SHUFFLES)
    assert found[5].value == pytest.approx(1)
    assert found[3].value == found[1].value < 0.9
    assert np.isnan(overlap_curve(columns, np.ones((N, 2)), [5], WEIGHTS, SHUFFLES)[5].value)
    assert np.isnan(mean_max_cosine(columns, np.ones((N, 2)), WEIGHTS, SHUFFLES).value)


def test_best_matches_and_their_mean_are_the_largest_correlations() -> None:
    known = np.stack([-VALUES[3], VALUES[1] + RNG.standard_normal(N), np.ones(N)], axis=1)
    correlation = np.corrcoef(VALUES, known[:, :2].T)[:6, 6:]
    table = best_matches_of_concept(VALUES.T, known[:, :2], ["first", "second"])
    assert table["column"].tolist() == ["first", "second"]
    assert table["feature"].tolist() == np.abs(correlation).argmax(axis=0).tolist()
    assert table["cosine"][0] == pytest.approx(-1)
    found = mean_max_cosine(VALUES.T, known, WEIGHTS, SHUFFLES)
    assert found.value == pytest.approx(np.abs(correlation).max(axis=0).mean())
    by_hand = np.abs(np.corrcoef(VALUES, known[SHUFFLES[2], :2].T)[:6, 6:]).max(axis=0).mean()
    assert found.null[2] == pytest.approx(by_hand)


# Sparsity


def test_sparsity_of_single_features() -> None:
    single = np.zeros(N)
    single[7] = -3
    np.testing.assert_allclose(hoyer(np.stack([single, np.full(N, -2.0)])), [1, 0], atol=1e-12)
    np.testing.assert_allclose(kurtosis(VALUES), stats.kurtosis(VALUES, axis=1))
    for feature, share in zip(VALUES, energy_share(VALUES), strict=True):
        squares = np.sort(feature**2)[::-1]
        least = next(m for m in range(1, N + 1) if squares[:m].sum() >= 0.9 * squares.sum())
        assert share == pytest.approx(least / N)
    dead = np.zeros((1, N))
    assert np.isnan([hoyer(dead)[0], energy_share(dead)[0], kurtosis(dead)[0], kurtosis(dead + 3)[0]]).all()


def test_draws_of_sparsity_are_those_of_repeated_examples() -> None:
    values = np.random.default_rng(1).laplace(size=(3, 1500))
    weights = resampled(1500, 50, 2)
    found = sparsity_figures(values, weights, 40, 0)
    again = [np.repeat(values, weight.astype(int), axis=1) for weight in weights]
    for name, single in (("hoyer", hoyer), ("kurtosis", kurtosis)):
        np.testing.assert_allclose(found[name].draws, [single(x).mean() for x in again], rtol=1e-9)
    exact = np.array([energy_share(x).mean() for x in again])
    # To first order only, so not the same but near, compared with how far draws lie apart.
    assert np.abs(found["energy"].draws - exact).max() < 0.4 * exact.std()
    assert found["hoyer"].value > found["hoyer"].null_figures()[1] > 0.2
    assert found["kurtosis"].null_figures()[0] == pytest.approx(0, abs=0.05)
    assert np.isnan(sparsity_figures(np.zeros((2, N)), WEIGHTS, 5, 0)["energy"].interval()).all()


# Outputs


def test_reproduction_is_scikit_learns_ridge() -> None:
    outputs = VALUES[:4].T @ RNG.standard_normal((4, 3)) + 0.05 * RNG.standard_normal((N, 3))
    features = (VALUES * [[1], [100], [1e-3], [1], [1], [1]]).T
    weights = WEIGHTS[:, HALVES.reporting]
    model = Reproduction(features, outputs, HALVES, weights)
    x = standardised(features, HALVES.choosing)
    np.testing.assert_allclose(x[HALVES.choosing].std(axis=0), 1)
    wanted = outputs[HALVES.reporting]
    curve = []
    for count in range(1, 7):
        ridge = RidgeCV(RIDGES * len(HALVES.choosing)).fit(x[HALVES.choosing, :count], outputs[HALVES.choosing])
        predicted = ridge.predict(x[HALVES.reporting, :count])
        curve.append(r2_score(wanted, predicted, multioutput="variance_weighted"))
        found = model.r2(count)
        assert found.value == pytest.approx(curve[-1])
        drawn = r2_score(wanted, predicted, multioutput="variance_weighted", sample_weight=weights[3])
        # scikit-learn's mean of the outputs over weights, but their variances without; one output at a time is weighted.
        single = r2_score(wanted[:, 0], predicted[:, 0], sample_weight=weights[3])
        alone = Reproduction(features, outputs[:, :1], HALVES, weights)
        assert drawn != found.draws[3] or count
        if (
            ridge.alpha_
            == RidgeCV(RIDGES * len(HALVES.choosing))
            .fit(x[HALVES.choosing, :count], outputs[HALVES.choosing, 0])
            .alpha_
        ):
            assert alone.r2(count).draws[3] == pytest.approx(single)
    smallest = Reproduction(features, outputs, HALVES, weights).smallest(0.9, 6)
    assert smallest.value == 1 + next(place for place, r2 in enumerate(curve) if r2 >= 0.9) == 4
    assert np.isnan(model.smallest(0.9, 3).value)
    null = model.null(6, SHUFFLES)
    assert len(null) == 30
    assert null.max() < 0.5 < curve[-1]
    assert len(model.null(6, SHUFFLES[:0])) == 0


def test_pursuit_is_scikit_learns_for_one_output_and_finds_what_outputs_are_made_of() -> None:
    every = np.arange(N)
    features = RNG.standard_normal((N, 12))
    outputs = features[:, [7, 2, 9]] @ np.diag([3, 2, 1]) @ RNG.standard_normal((3, 1)) + 0.3 * RNG.standard_normal(
        (N, 1)
    )
    x = standardised(features, every) / N**0.5
    order = pursuit_order(features, outputs, every, 6)
    for count in range(1, 7):
        chosen = np.flatnonzero(orthogonal_mp(x, outputs[:, 0] - outputs.mean(), n_nonzero_coefs=count))
        assert sorted(order[:count]) == chosen.tolist()
    several = features[:, [7, 2, 9]] @ RNG.standard_normal((3, 4))
    assert sorted(pursuit_order(features, several, every, 12)) == [2, 7, 9]
    twice = np.hstack([features, features])
    assert len(pursuit_order(twice, RNG.standard_normal((N, 4)), every, 24)) == 12


# Seeds, removal


def test_matching_is_the_best_of_all_permutations() -> None:
    a, b = VALUES[:4].T, RNG.standard_normal((N, 4)) - VALUES[[2, 0, 3, 1]].T
    correlation = np.abs(np.corrcoef(a.T, b.T)[:4, 4:])
    best = max(correlation[np.arange(4), order].mean() for order in map(list, permutations(range(4))))
    found = matched_correlation(a, b, WEIGHTS, SHUFFLES)
    assert found.value == pytest.approx(best)
    assert found.value > found.null_figures()[1]
    again = matched_correlation(a, b[SHUFFLES[4]], WEIGHTS, SHUFFLES[:0])
    assert found.null[4] == pytest.approx(again.value)
    order = [3, 1, 0]
    assert [column.tolist() for column in matched(a, -a[:, order])] == [[0, 1, 3], [2, 1, 0]]
    assert matched_correlation(a, -a[:, order] * [1, 2, 3] + 5, WEIGHTS, SHUFFLES).value == pytest.approx(1)


def test_spans_of_two_runs_overlap_by_their_angles() -> None:
    a, b = VALUES.T, VALUES[:3].T + RNG.standard_normal((N, 3))
    angles = subspace_angles(a - a.mean(axis=0), b - b.mean(axis=0))
    for pair in ((a, b), (b, a)):
        found = span_overlap(*pair, WEIGHTS, SHUFFLES)
        assert found.value == pytest.approx(np.square(np.cos(angles)).mean())
    assert span_overlap(a, a @ RNG.standard_normal((6, 6)), WEIGHTS, SHUFFLES).value == pytest.approx(1)
    assert np.isnan(span_overlap(a, np.ones((N, 2)), WEIGHTS, SHUFFLES).value)


def test_removal_is_told_by_the_size_of_changes() -> None:
    change = np.stack([np.full(N, -2.0), np.where(LABELS == 0, 3.0, 0), np.full(N, np.nan), np.full(N, 0.5)])
    found = removal_figures(change, 2.0, WEIGHTS)
    sizes = np.array([2, 3 * (LABELS == 0).mean(), 0.5]) / 2
    assert found["removal_median"].value == pytest.approx(np.median(sizes))
    assert found["removal_top"].value == pytest.approx(1)
    assert found["removal_top"].interval().high == pytest.approx(1)
    assert found["removal_median"].draws[6] == pytest.approx(1.5 * np.average(LABELS == 0, weights=WEIGHTS[6]))
    assert np.isnan(removal_figures(change[2:3], 2.0, WEIGHTS)["removal_top"].value)
