"""What is found of the net that adds modulo P, seed by seed, none left out: the table that the README tells of."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from feature_lens.analysis.communities import agreement, communities
from feature_lens.analysis.dynamics import Crossing, crossing
from feature_lens.analysis.torus import mode_correlations, modes, subspace_overlap, waves
from feature_lens.dual import interactions
from feature_lens.dynamics import dynamics_tables, steps_of
from feature_lens.features.bases import Deflated, Eigen, UnitBlocks
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks.zoo import ModularAddition

FAMILIES = ("a + b", "a - b")


def _figures(modulus: int, seed: int) -> dict[str, float]:
    """Dimensions chosen, overlaps of the deflated group and of eigenvectors 57 to 112 (2 P - 1 to 4 P - 4), blocks, and
    frequencies that one feature alone holds to .9, of unit blocks and of the deflated eigenvectors."""
    net = ModularAddition(modulus=modulus, seed=seed)
    network = net.network(net.train())
    everything = replace(net.examples(), training=None)
    design = EffectiveFeatures(network, everything, outputs="trace")
    blocks, by_kernel = UnitBlocks().fit(design), UnitBlocks(turn="kernel").fit(design)
    group, pairs = blocks.deflation_.vectors, net.pairs()
    published = np.linalg.eigh(design.gram())[1][:, ::-1][:, 2 * modulus - 1 : 4 * modulus - 3]
    known = {family: modes(pairs, modulus, family) for family in FAMILIES}

    def singly(features: np.ndarray) -> int:
        return sum(int((mode_correlations(features, pairs, modulus, f).max(axis=0) >= 0.9).sum()) for f in FAMILIES)

    right = network.outputs(everything).argmax(axis=1) == everything.labels
    return {
        "accuracy": float(right.mean()),
        "removed": blocks.n_removed_,
        "dimension": group.shape[1],
        **{f"deflated {family}": subspace_overlap(group, known[family]) for family in FAMILIES},
        **{f"published {family}": subspace_overlap(published, known[family]) for family in FAMILIES},
        "blocks": len(np.unique(blocks.block_)),
        "modes": singly(blocks.vectors_),
        "modes, turned by the kernel": singly(by_kernel.vectors_),
        "modes of eigenvectors": singly(group),
    }


def _told(capsys: pytest.CaptureFixture[str], rows: dict[str, dict[str, float]]) -> None:
    with capsys.disabled():
        names = list(next(iter(rows.values())))
        print("\n" + " | ".join(["net", *names]))
        for title, row in rows.items():
            print(" | ".join([title, *(f"{row[name]:.3f}" if row[name] < 1 else f"{row[name]:g}" for name in names)]))


def test_seeds_of_the_published_setting(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {f"P = 29, seed {seed}": _figures(29, seed) for seed in range(7)}
    _told(capsys, rows)
    found = {name: np.array([row[name] for row in rows.values()]) for name in rows["P = 29, seed 0"]}
    assert (found["removed"] == 57).all()
    assert (found["dimension"] == 56).all()
    assert np.median(found["deflated a + b"]) >= 0.94
    assert np.median(found["deflated a - b"]) >= 0.90
    assert found["deflated a + b"].min() >= 0.925
    assert found["deflated a - b"].min() >= 0.875
    assert (found["blocks"] == 14).all()
    assert (found["modes"] == 28).all()
    assert np.median(found["modes, turned by the kernel"]) >= 20
    assert found["modes, turned by the kernel"].min() >= 16


def test_communities_of_interacting_features(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one output, because directions of the trace reduction do not interact; on 120 of the pairs."""
    net = ModularAddition()
    everything = replace(net.examples(), training=None)
    few = everything.on(np.sort(np.random.default_rng(0).choice(841, 120, replace=False)))
    design = EffectiveFeatures(net.shipped(), everything, outputs="output:0")
    blocks, eigen = UnitBlocks().fit(design), Eigen(113).fit(design)
    deflated = Deflated().fit(design)
    kinds = {
        "unit blocks": (blocks.directions(), blocks.transform(design)),
        "deflated": (deflated.directions(), deflated.transform(design)),
        "eigen 0-55": (eigen.directions_[:56], eigen.transform(design)[:, :56]),
        "eigen 57-112": (eigen.directions_[57:], eigen.transform(design)[:, 57:]),
    }
    found = {}
    for name, (directions, activations) in kinds.items():
        frequency = waves(activations.T, net.pairs(), 29).table["group"]
        found[name] = agreement(communities(interactions(net.shipped(), few, directions).size), frequency)
    _told(capsys, {name: asdict(one) for name, one in found.items()})
    assert found["unit blocks"].index > 0.95
    assert found["unit blocks"].found == 14
    assert found["eigen 0-55"].index < found["eigen 0-55"].null_99


def test_other_moduli(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {f"P = {modulus}, seed {seed}": _figures(modulus, seed) for modulus in (23, 31) for seed in (0, 1)}
    _told(capsys, rows)
    for title, row in rows.items():
        modulus = int(title[4:6])
        assert row["dimension"] == 4 * (modulus - 1) // 2, title


def _course(seed: int) -> dict[str, Crossing]:
    """Where held-out accuracy, the kernel's shape and its overlap with the waves pass half of their change, from 24
    snapshots of epochs 20 to 500."""
    net = ModularAddition(seed=seed)
    training = net.train(snapshots=24)
    steps = steps_of(net.network(training), {**training.snapshots, net.epochs: training.trained})
    tables = {name: pd.DataFrame(kept.arrays()) for name, kept in dynamics_tables(steps, net.examples()).items()}
    concepts = tables["dynamics_concepts"]
    named = {"accuracy": "accuracy_held_out", "kernel": "centred_distance_from_final", "learnt": "overlap_with_learnt"}
    found = {name: crossing(tables["dynamics"], column) for name, column in named.items()}
    found |= {f: crossing(concepts[concepts["concept"] == f"waves of {f}"], "overlap") for f in FAMILIES}
    return {name: one for name, one in found.items() if one is not None}


def test_the_kernel_changes_before_held_out_accuracy_rises(capsys: pytest.CaptureFixture[str]) -> None:
    courses = {seed: _course(seed) for seed in range(5)}
    with capsys.disabled():
        for seed, course in courses.items():
            print(f"\nseed {seed}", *(f"{name} {one.before}-{one.after}" for name, one in course.items()), sep=" | ")
    for course in courses.values():
        assert len(course) == 5
        assert course["accuracy"].before >= 50
        assert course["accuracy"].after <= 130
        for name in ("kernel", "learnt", *FAMILIES):
            assert course[name].before < course["accuracy"].before
