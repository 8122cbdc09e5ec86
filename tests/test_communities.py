"""Communities of interacting features: planted ones, those of the net that adds, and the index beside its null."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from feature_lens.analysis.communities import agreement, communities
from feature_lens.analysis.torus import waves
from feature_lens.dual import interactions
from feature_lens.errors import SettingsError
from feature_lens.features.bases import Eigen, UnitBlocks
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks.zoo import ModularAddition


def _planted(within: float, between: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    known = np.repeat(np.arange(6), 5)
    size = rng.uniform(0, 1, (30, 30)) * np.where(known[:, None] == known, within, between)
    return size + size.T, rng.permutation(known) if within == between else known


def test_planted_groups_are_found_and_absent_ones_are_not() -> None:
    size, known = _planted(1.0, 0.05)
    found = agreement(communities(size), known)
    assert (found.index, found.found, found.known) == (1, 6, 6)
    assert found.null_99 < 0.2
    assert abs(found.null_mean) < 0.02
    assert found.p == 1 / 1001
    size, known = _planted(1.0, 1.0)
    nothing = agreement(communities(size), known)
    assert nothing.index < nothing.null_99 + 0.05
    assert nothing.p > 0.01


def test_the_diagonal_and_weak_pairs_make_no_edges() -> None:
    size = np.eye(4) * 9
    assert sorted(communities(size).tolist()) == [0, 1, 2, 3]
    size[0, 1] = size[1, 0] = size[2, 3] = size[3, 2] = 1.0
    size[1, 2] = size[2, 1] = 0.4
    assert communities(size, threshold=0.5).tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(np.diag(size), 9)


def test_the_index_is_that_of_pairs() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 3, 20), rng.integers(0, 4, 20)
    same_one, same_other = (
        np.array([labels[i] == labels[j] for i, j in combinations(range(20), 2)]) for labels in (one, other)
    )
    both, pairs = (same_one & same_other).sum(), len(same_one)
    expected = same_one.sum() * same_other.sum() / pairs
    wanted = (both - expected) / ((same_one.sum() + same_other.sum()) / 2 - expected)
    found = agreement(one, other, permutations=200)
    np.testing.assert_allclose(found.index, wanted)
    assert 0 < found.p <= 1


def test_what_has_no_communities_is_refused() -> None:
    for wrong in (np.ones((2, 3)), np.array([[0.0, 1.0], [2.0, 0.0]]), -np.ones((2, 2))):
        with pytest.raises(SettingsError, match="a symmetric matrix of sizes, 0 or more"):
            communities(wrong)
    with pytest.raises(SettingsError, match=r"Two groupings of the same features were wanted, but \(3,\) and \(2,\)"):
        agreement([0, 1, 1], [0, 1])


def test_unit_blocks_of_the_net_that_adds_interact_within_frequencies_and_eigen_features_do_not() -> None:
    net = ModularAddition(modulus=13, width=160, training=1.0)
    network, pairs = net.network(net.train()), net.pairs()
    everything = replace(net.examples(), training=None)
    design = EffectiveFeatures(network, everything, outputs="output:0")
    blocks = UnitBlocks().fit(design)
    eigen = Eigen(len(blocks.spectrum_)).fit(design)
    some = everything.on(np.arange(0, 169, 6))
    found = {}
    for name, directions, activations in (
        ("blocks", blocks.directions(), blocks.transform(design)),
        ("eigen", eigen.directions_, eigen.transform(design)),
    ):
        frequency = waves(activations.T, pairs, 13).table["group"]
        found[name] = agreement(communities(interactions(network, some, directions).size), frequency)
    assert found["blocks"].known == 6
    assert found["blocks"].index > 0.8
    assert found["blocks"].p < 0.01
    assert found["eigen"].index < 0.2
