"""The toy model of superposition: its draws, its kernel's rows, and features whose directions are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import dense_jacobian

from feature_lens.analysis.true_directions import column_cosines, direction_cosines, mean_max
from feature_lens.errors import SettingsError
from feature_lens.features.bases import Eigen
from feature_lens.features.bases.gaps import count_by_ratio
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks.zoo import Superposition

SMALL = Superposition(features=5, hidden=2, importance=0.5, sparsity=0.6, points=40, epochs=30)


def test_points_are_sparse_and_of_unit_norm_and_their_entries_are_the_known_features() -> None:
    examples = Superposition().examples()
    inputs = np.asarray(examples.inputs)
    np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 1, rtol=1e-6)
    assert abs((inputs > 0).mean() - 0.1) < 0.01
    assert inputs.min() == 0
    (concept,) = examples.concepts
    np.testing.assert_array_equal(concept.values, inputs)
    np.testing.assert_array_equal(np.asarray(examples.targets), inputs)


def test_the_loss_trained_on_is_the_squared_loss_of_the_weighted_network() -> None:
    network = SMALL.network(SMALL.train())
    weighted = SMALL.weighted(SMALL.train())
    inputs = np.asarray(SMALL.examples().inputs, dtype=np.float64)
    w, bias = (network.trained[name].double().numpy() for name in ("W", "bias"))
    by_hand = np.maximum(inputs @ w.T @ w + bias, 0)
    np.testing.assert_allclose(network.outputs(SMALL.examples()), by_hand, atol=1e-6)
    root = np.sqrt(0.5 ** np.arange(5))
    np.testing.assert_allclose(weighted.outputs(SMALL.examples()), by_hand * root, atol=1e-6)
    losses = []
    for net in (SMALL, Superposition(**{**vars(SMALL), "epochs": 400})):
        f = net.weighted(net.train()).outputs(net.examples())
        losses.append(np.square(f - inputs * root).mean())
    assert losses[1] < losses[0]


@pytest.mark.parametrize("batch", [0, 16])
def test_what_is_drawn_follows_from_the_seed(batch: int) -> None:
    net = Superposition(**{**vars(SMALL), "batch": batch, "epochs": 3})
    first, second = net.train(), net.train()
    assert all(torch.equal(first.trained[name], second.trained[name]) for name in first.trained)


def test_the_kernel_of_the_weighted_network_has_rows_scaled_by_the_root_of_importance() -> None:
    training = SMALL.train()
    rows = np.tile(np.sqrt(SMALL.importances), 40)
    plain = np.asarray(EffectiveFeatures(SMALL.network(training), SMALL.examples()).gram())
    scaled = np.asarray(EffectiveFeatures(SMALL.weighted(training), SMALL.examples()).gram())
    np.testing.assert_allclose(scaled, plain * np.outer(rows, rows), atol=1e-6)


def test_rows_of_squares_are_those_of_outputs_times_the_outputs() -> None:
    network, examples = SMALL.network(SMALL.train()), SMALL.examples()
    module = SMALL.module()
    module.load_state_dict(dict(network.trained), strict=False)
    wanted = dense_jacobian(module.double(), np.asarray(examples.inputs, dtype=np.float64))
    wanted = wanted * network.outputs(examples)[:, :, None]
    design = EffectiveFeatures(network, examples, outputs="squares")
    found = np.concatenate([block for _, block in design.blocks()])
    np.testing.assert_allclose(found, wanted.reshape(found.shape), atol=1e-6)
    assert design.views == tuple(f"output:{i}" for i in range(5))
    np.testing.assert_allclose(np.asarray(design.gram()), found @ found.T, atol=1e-5)


def test_every_parameter_has_a_layer_rule() -> None:
    plan = str(EffectiveFeatures(SMALL.network(SMALL.train()), SMALL.examples()).plan())
    assert "vmap" not in plan
    assert "loop" not in plan


def test_gaps_of_the_shipped_network() -> None:
    """As many leading eigenvalues as features that are there or reconstructable, where rows are scaled by outputs; all
    50 in the plain kernel."""
    net = Superposition()
    network, examples = net.shipped(), net.examples()
    there = int(net.reconstructable(network).sum())
    assert there == 19
    assert int(net.reconstructable(network, 0.5).sum()) == 20
    found = {}
    for outputs in ("squares", "flattened"):
        basis = Eigen(64).fit(EffectiveFeatures(network, examples, outputs=outputs))
        found[outputs] = count_by_ratio(basis.spectrum_, 4, 62, 0)
    assert found == {"squares": 20, "flattened": 50}


def test_cosines_of_directions_with_known_columns() -> None:
    rng = np.random.default_rng(0)
    directions, known = rng.normal(size=(6, 3, 4)), rng.normal(size=(3, 4))
    directions[0] = 0
    directions[1] = 0
    directions[1][:, 2] = -5 * known[:, 2]
    columns, whole = column_cosines(directions, known), direction_cosines(directions, known)
    for k in range(1, 6):
        for j in range(4):
            inner, size = abs(directions[k, :, j] @ known[:, j]), np.linalg.norm(known[:, j])
            if np.linalg.norm(directions[k, :, j]) > 0:
                assert columns[k, j] == pytest.approx(inner / np.linalg.norm(directions[k, :, j]) / size)
            assert whole[k, j] == pytest.approx(inner / np.linalg.norm(directions[k]) / size)
    assert not columns[0].any()
    assert whole[1].tolist() == pytest.approx([0, 0, 1, 0])
    assert mean_max(np.array([[0.2, 1.0], [0.6, 0.5]])) == pytest.approx(0.8)
    with pytest.raises(SettingsError, match=r"shape \(3, 4\) are wanted"):
        column_cosines(directions[0], known)
    with pytest.raises(SettingsError, match=r"shape \(4, 3\) are wanted"):
        direction_cosines(directions, known.T)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(SettingsError, match="share of inputs that are not zero"):
        Superposition(sparsity=1)
    with pytest.raises(SettingsError, match="'sparsity' must be at least 0"):
        Superposition(sparsity=-0.1)
