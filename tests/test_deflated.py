"""Deflated features and unit blocks against the dense Jacobian, planted structure, and the net that adds modulo P."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from networks import Cnn, mlp
from oracles import dense_jacobian, made, with_initial
from torch import nn

from feature_lens.analysis.torus import mode_correlations, modes, subspace_overlap
from feature_lens.errors import NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.features.bases import Deflated, Eigen, Learnt, UnitBlocks
from feature_lens.features.bases.gaps import count_by_difference, count_by_ratio
from feature_lens.features.bases.unit_blocks import group_units, last_hidden
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import NeuronActivations
from feature_lens.networks import Network
from feature_lens.networks.zoo import ModularAddition


@pytest.fixture(scope="module")
def problem() -> tuple[Network, Examples]:
    torch.manual_seed(0)
    network, examples = made(mlp(), (5,), 40, 3)
    return with_initial(network), examples


def _rows(network: Network, examples: Examples, outputs: str, at: str) -> np.ndarray:
    """(n, q, columns) by loops of autograd."""
    module = mlp().double()
    module.load_state_dict(network.at(at))
    phi = dense_jacobian(module, np.asarray(examples.inputs))
    if outputs == "trace":
        return phi.reshape(len(phi), 1, -1)
    return phi if outputs == "flattened" else phi[:, [int(outputs[-1])]]


@pytest.mark.parametrize("outputs", ["flattened", "trace", "output:1"])
def test_deflated_features_are_singular_vectors_outside_the_initial_eigenspace(
    problem: tuple[Network, Examples], outputs: str
) -> None:
    network, examples = problem
    fitting = examples.fitting
    phi, first = (_rows(network, examples, outputs, at) for at in ("effective", "initial"))
    q, columns = phi.shape[1:]
    fitted, fitted_first = phi[fitting].reshape(-1, columns), first[fitting].reshape(-1, columns)
    # The initial directions v0 and their left vectors; P takes the left vectors out of the effective rows.
    left, singular, right = np.linalg.svd(fitted_first, full_matrices=False)
    taken, taken_directions = left[:, :3], right[:3]
    outside = fitted - taken @ (taken.T @ fitted)
    _, wanted, directions = np.linalg.svd(outside, full_matrices=False)
    basis = Deflated(4, 3).fit(EffectiveFeatures(network, examples, outputs=outputs))
    np.testing.assert_allclose(basis.spectrum_, wanted[:4] ** 2, rtol=1e-9)
    # Anywhere: the projection on v, less that part of it which the initial eigenfunctions, extended to x, hold.
    everywhere = phi.reshape(-1, columns) @ directions[:4].T
    eigenfunctions = first.reshape(-1, columns) @ taken_directions.T / singular[:3]
    everywhere -= eigenfunctions @ (taken.T @ (fitted @ directions[:4].T))
    found = basis.transform(EffectiveFeatures(network, examples, outputs=outputs))
    flips = np.sign((found * everywhere).sum(axis=0))
    np.testing.assert_allclose(found, everywhere * flips, atol=1e-8)
    np.testing.assert_allclose(basis.directions(), directions[:4] * flips[:, None], atol=1e-8)
    on_fitted = found.reshape(40, q, 4)[fitting].reshape(-1, 4)
    np.testing.assert_allclose(on_fitted.T @ on_fitted, np.diag(wanted[:4] ** 2), atol=1e-8)
    np.testing.assert_allclose(taken.T @ on_fitted, 0, atol=1e-8)
    # Shares of tensors are those of the unit directions.
    parts = np.split(directions[:4].reshape(4, -1, 111), np.cumsum(network.parameters.sizes)[:-1], axis=2)
    np.testing.assert_allclose(basis.parameter_share_, np.stack([(p**2).sum(axis=(1, 2)) for p in parts], 1), atol=1e-9)
    np.testing.assert_allclose(basis.kernel_share_, (wanted[:4] ** 2).sum() / (fitted**2).sum(), rtol=1e-9)


def test_without_anything_taken_out_they_are_eigen_features(problem: tuple[Network, Examples]) -> None:
    for outputs in ("flattened", "trace"):
        design = EffectiveFeatures(*problem, outputs=outputs)
        plain, deflated = Eigen(5).fit(design), Deflated(5, 0).fit(design)
        np.testing.assert_allclose(deflated.spectrum_, plain.spectrum_, rtol=1e-9)
        np.testing.assert_allclose(deflated.transform(design), plain.transform(design), atol=1e-7)
        np.testing.assert_allclose(deflated.parameter_share_, plain.feature_set(design, "x").read("parameter_share"))
        np.testing.assert_array_equal(deflated.groups_, plain.groups_)
        np.testing.assert_allclose(deflated.stability_, plain.stability_, atol=1e-6)
        np.testing.assert_allclose(deflated.mean_share_, plain.mean_share_, atol=1e-9)
        if outputs == "flattened":
            np.testing.assert_allclose(deflated.profile_, plain.profile_, atol=1e-7)


def test_learning_rates_are_carried(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    rates = tuple(float(rate) for rate in np.linspace(0.5, 2, len(network.learning_rates)))
    fast = EffectiveFeatures(replace(network, learning_rates=rates), examples, outputs="trace")
    kernels = [
        np.asarray(EffectiveFeatures(fast.network, examples, at, "trace").gram()) for at in ("effective", "initial")
    ]
    fitting = np.ix_(examples.fitting, examples.fitting)
    taken = np.linalg.eigh(kernels[1][fitting])[1][:, -2:]
    projector = np.eye(len(taken)) - taken @ taken.T
    wanted = np.linalg.eigvalsh(projector @ kernels[0][fitting] @ projector)[::-1][:3]
    np.testing.assert_allclose(Deflated(3, 2).fit(fast).spectrum_, wanted, rtol=1e-9)


def test_gaps_are_found_where_they_were_put() -> None:
    spectrum = np.concatenate([[100.0], np.linspace(10, 9, 30), np.linspace(1, 0.8, 20), np.zeros(10)])
    assert count_by_ratio(spectrum, 1, 199, 1e-12) == 31
    assert count_by_ratio(spectrum, 31, 199, 1e-12) - 31 in range(1, 20)
    assert count_by_difference(np.array([1, 0.9, 0.85, 0.84, 0.2, 0.15, 0.1]), 2, 39) == 4
    with pytest.raises(SettingsError, match="after the first 5 eigenvalues, but there are 6"):
        count_by_ratio(np.linspace(2, 1, 6), 4, 299, 0.0)


def test_units_are_grouped_by_what_they_carry() -> None:
    rng = np.random.default_rng(0)
    planted = rng.integers(0, 5, 60)
    vectors = np.linalg.qr(rng.standard_normal((200, 20)))[0]
    vectors = np.linalg.qr(vectors - vectors.mean(axis=0))[0]
    inner = np.zeros((20, 60))
    for unit, group in enumerate(planted):
        inner[4 * group : 4 * group + 4, unit] = rng.standard_normal(4)
    activations = vectors @ inner + 3 + 0.02 * rng.standard_normal((200, 60))
    activations[:, 7] = 3.0  # a unit that does nothing belongs to no group
    found = group_units(vectors, activations, rng.uniform(0.5, 2, 60), None, 0)
    assert found.label[7] == -1
    kept = np.arange(60) != 7
    pairs = {(int(a), int(b)) for a, b in zip(planted[kept], found.label[kept], strict=True)}
    assert len(pairs) == 5
    with pytest.raises(SettingsError, match="units form 1 to 58 blocks, but 59 were asked for"):
        group_units(vectors, activations, np.ones(60), 59, 0)
    with pytest.raises(SettingsError, match="at least four hidden units that carry the deflated features, but 0 do"):
        group_units(vectors, np.ones((200, 60)), np.ones(60), None, 0)


@pytest.mark.parametrize("turn", ["outputs", "kernel"])
def test_unit_blocks_span_what_their_units_load(problem: tuple[Network, Examples], turn: str) -> None:
    network, examples = problem
    design = EffectiveFeatures(network, examples, outputs="trace")
    basis = UnitBlocks(2, 3, n_deflated=8, n_blocks=2, turn=turn).fit(design)
    assert sorted(basis.block_.tolist()) == [0, 0, 1, 1]
    assert (np.diff(basis.spectrum_) <= 0).all()
    fitting = examples.fitting
    on_fitted = basis.transform(design)[fitting]
    # Activations are the combinations of the deflated vectors, of unit directions, diagonal under the kernel by block.
    scale = (on_fitted * basis.vectors_).sum(axis=0)
    np.testing.assert_allclose(on_fitted, basis.vectors_ * scale, atol=1e-8)
    kernel = np.asarray(design.gram())[np.ix_(fitting, fitting)]
    np.testing.assert_allclose(
        (basis.coefficients_ * (kernel @ basis.coefficients_)).sum(axis=0), np.ones(4), atol=1e-8
    )
    deflated = basis.deflation_.vectors
    hidden, weights = last_hidden(design.on(fitting))
    np.testing.assert_allclose(
        hidden, NeuronActivations(network, examples.on(fitting), "3").activations()[0], atol=1e-12
    )
    np.testing.assert_array_equal(weights, network.trained["4.weight"].numpy())
    for block in range(2):
        own = basis.block_ == block
        inside = basis.vectors_[:, own].T @ kernel @ basis.vectors_[:, own]
        np.testing.assert_allclose(np.diag(inside), basis.spectrum_[own], atol=1e-8 * basis.spectrum_[0])
        outputs = network.outputs(examples.on(fitting))
        reached = basis.vectors_[:, own].T @ (outputs - outputs.mean(axis=0))
        diagonal = inside if turn == "kernel" else reached @ reached.T
        np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=1e-8 * np.abs(diagonal).max())
        units = basis.blocks_.label == block
        loads = deflated.T @ (hidden - hidden.mean(axis=0))[:, units] * np.linalg.norm(weights[:, units], axis=0)
        span = np.linalg.svd(loads, full_matrices=False)[0][:, :2]
        np.testing.assert_allclose(subspace_overlap(deflated @ span, basis.vectors_[:, own]), 1, atol=1e-9)


@pytest.mark.parametrize("outputs", ["flattened", "trace"])
@pytest.mark.parametrize("method", ["ratio", "difference"])
def test_learnt_features_solve_their_eigenproblem_and_extend_it(
    problem: tuple[Network, Examples], outputs: str, method: str
) -> None:
    network, examples = problem
    fitting = examples.fitting
    phi, first = (_rows(network, examples, outputs, at) for at in ("effective", "initial"))
    q, columns = phi.shape[1:]
    after, before = phi.reshape(-1, columns), first.reshape(-1, columns)
    rows = (fitting[:, None] * q + np.arange(q)).ravel()
    after, before = (one / np.sqrt(np.square(one[rows]).sum()) for one in (after, before))
    kernel, initial = after @ after[rows].T, before @ before[rows].T
    design = EffectiveFeatures(network, examples, outputs=outputs)
    basis = Learnt(4, rho=0.5, method=method).fit(design)
    w, r = basis.spectrum_, len(rows)
    found = basis.transform(design)
    v = found[rows]
    np.testing.assert_allclose(np.abs((v * basis.vectors_).sum(axis=0)), 1, atol=1e-8)
    if method == "ratio":
        np.testing.assert_allclose(kernel[rows] @ v, w * (initial[rows] @ v + 0.5 / r * v), atol=1e-9)
        np.testing.assert_allclose(found * w * 0.5 / r, kernel @ v - initial @ v * w, atol=1e-9)
        largest = scipy.linalg.eigvalsh(kernel[rows], initial[rows] + 0.5 / r * np.eye(r))[::-1]
    else:
        np.testing.assert_allclose(found * w, (kernel - initial) @ v, atol=1e-9)
        largest = np.linalg.eigvalsh(kernel[rows] - initial[rows])[::-1]
    np.testing.assert_allclose(w, largest[:4], rtol=1e-7)
    same = EffectiveFeatures(replace(network, initial=network.trained), examples, outputs=outputs)
    if method == "ratio":  # where nothing was learnt, nothing outweighs
        assert Learnt(4, rho=0.5).fit(same).spectrum_.max() < 1
    for wrong in (Learnt(0), Learnt(rho=0.0)):
        with pytest.raises(SettingsError, match="one or more components and a positive rho"):
            wrong.fit(design)
    with pytest.raises(SettingsError, match="No method of learnt features is called 'quotient'"):
        Learnt(method="quotient").fit(design)


def test_what_cannot_be_deflated_is_refused(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    trace = EffectiveFeatures(network, examples, outputs="trace")
    with pytest.raises(NetworkError, match="need the parameters before training"):
        Deflated().fit(EffectiveFeatures(replace(network, initial=None), examples))
    with pytest.raises(SettingsError, match="'Deflated' compares with initial features"):
        Deflated().fit(EffectiveFeatures(network, examples, "initial"))
    with pytest.raises(SettingsError, match="not of NeuronActivations"):
        Deflated().fit(NeuronActivations(network, examples, "1"))
    with pytest.raises(SettingsError, match="choose a reduction by name"):
        Deflated().fit(EffectiveFeatures(network, examples, outputs=lambda f: f[0] - f[1]))
    with pytest.raises(SettingsError, match="30 deflated features were asked for, but"):
        Deflated(30, 2).fit(trace)
    small = EffectiveFeatures(network, examples, memory=1 << 16)
    with pytest.raises(SettingsError, match="kernels of 78 rows in memory, 1 MiB, but 0 MiB may be used"):
        Deflated(2, 2).fit(small)
    with pytest.raises(SettingsError, match="No way to turn unit blocks is called 'left'"):
        UnitBlocks(turn="left").fit(trace)
    with pytest.raises(SettingsError, match="one row per example"):
        UnitBlocks().fit(EffectiveFeatures(network, examples))
    smooth = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2), nn.Tanh())
    other = with_initial(Network.from_module(smooth))
    ends_smooth = EffectiveFeatures(other, Examples.from_arrays(np.asarray(examples.inputs)), outputs="trace")
    with pytest.raises(SettingsError, match="before a last linear layer, but there is none"):
        UnitBlocks().fit(ends_smooth)
    with pytest.raises(SettingsError, match="must end in a linear layer"):
        last_hidden(ends_smooth)
    fitted = Deflated(2, 2).fit(trace)
    with pytest.raises(SettingsError, match="fitted on 333 columns, but the design has 111"):
        fitted.transform(EffectiveFeatures(network, examples))


def test_they_are_sets_of_a_run() -> None:
    torch.manual_seed(3)
    network, examples = made(Cnn(), (2, 9, 9), 24, 4)
    wanted = tuple(SetSettings(basis, "trace", n_components=5) for basis in ("deflated", "unit_blocks", "learnt"))
    run = compute_run(with_initial(network), examples, ExtractSettings(sets=wanted, neurons=()), progress=False)
    deflated, blocks = run.sets["deflated_trace"], run.sets["unit_blocks_trace"]
    assert {"group", "stability", "spectrum", "parameter_share"} <= set(deflated.columns)
    assert "leading eigenvectors of the initial kernel (chosen by the largest gap)" in deflated.card.description
    assert deflated.read("direction").shape[1:] == (4, network.parameters.total)
    assert len(run.sets["learnt_trace"]) == 5
    assert blocks.label(0).startswith("block 0, feature 1")


def test_features_of_some_layers_are_taken_away_like_those_of_all(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    layers = ("0", "4.weight")
    wanted = (SetSettings("eigen", "output:1", layers=layers, n_components=3),)
    run = compute_run(network, examples, ExtractSettings(sets=wanted, neurons=(), dual=True), progress=False)
    (made_set,) = run.sets.values()
    (direction, *_) = made_set.read("direction").astype(float)
    added = np.concatenate([value.numpy().ravel() for value in network.displacement().values()])
    less = (direction @ added) * direction
    params = {
        name: value - torch.as_tensor(less[at]).reshape(value.shape)
        for (name, at), value in zip(network.parameters.slices, network.trained.values(), strict=True)
    }
    change = (network.outputs_at(params, examples) - network.outputs(examples))[~np.asarray(examples.training)]
    np.testing.assert_allclose(made_set.read("ablation/output")[0], change.mean(axis=0), atol=1e-6)


# The net of which it is known


def test_both_find_the_waves_of_the_net_that_adds_and_choose_their_dimensions() -> None:
    net = ModularAddition()
    everything = replace(net.examples(), training=None)
    blocks = UnitBlocks().fit(EffectiveFeatures(net.shipped(), everything, outputs="trace"))
    coarse = Network.from_module(
        net.module(), trained=net.shipped().trained, initial=net.shipped().initial, precision="float32"
    )
    narrow = Deflated().fit(EffectiveFeatures(coarse, everything, outputs="trace"))
    assert (narrow.n_removed_, len(narrow.spectrum_)) == (57, 56)
    group, pairs = blocks.deflation_.vectors, net.pairs()
    assert (blocks.n_removed_, group.shape[1], len(np.unique(blocks.block_))) == (57, 56, 14)
    assert subspace_overlap(group, modes(pairs, 29, "a + b")) > 0.94
    assert subspace_overlap(group, modes(pairs, 29, "a - b")) > 0.89
    single, raw = (
        sum(
            int((mode_correlations(features, pairs, 29, family).max(axis=0) >= 0.9).sum())
            for family in ("a + b", "a - b")
        )
        for features in (blocks.vectors_, group)
    )
    learnt = Learnt(56).fit(EffectiveFeatures(net.shipped(), everything, outputs="trace")).vectors_
    np.testing.assert_allclose(subspace_overlap(learnt, modes(pairs, 29, "a + b")), 0.927, atol=2e-3)
    np.testing.assert_allclose(subspace_overlap(learnt, modes(pairs, 29, "a - b")), 0.852, atol=2e-3)
    assert single == 28
    assert raw <= 2
