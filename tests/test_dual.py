"""The dual model: contributions that add up, ridge against refits, regressions against sklearn and plain numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import mlp
from sklearn.kernel_ridge import KernelRidge
from torch import nn

from feature_lens.dual import (
    Interactions,
    Regressions,
    Spectral,
    contributions,
    fit_ridge,
    interactions,
    lottery,
    regressions,
    tickets,
)
from feature_lens.dual.beside import Beside
from feature_lens.errors import ExamplesError, NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.networks.zoo import Digits


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))


def _trained(n: int = 40, rates: dict[str, float] | None = None, factor: float = 1.0) -> tuple[Network, Examples]:
    """A net before and after a displacement, and examples with a split; `factor` rescales the second layer."""
    torch.manual_seed(0)
    start, end = _net().double(), _net().double()
    with torch.no_grad():
        for before, after in zip(start.parameters(), end.parameters(), strict=True):
            after.copy_(before + 0.3 * torch.randn_like(before))
    rng = np.random.default_rng(0)
    examples = Examples.from_arrays(rng.standard_normal((n, 5)), np.arange(n) % 3, split=np.arange(n) % 4 != 0)
    return Network.from_module(end, initial=start.state_dict(), learning_rates=rates), examples


def _change(network: Network, examples: Examples) -> np.ndarray:
    inputs = network.tensor(examples.inputs)
    with torch.no_grad():
        return (network(network.trained, inputs) - network(network.at("initial"), inputs)).numpy()


# Contributions


def test_contributions_add_up_in_every_grouping() -> None:
    network, examples = _trained()
    found = contributions(network, examples, keep=5)
    change = _change(network, examples)
    np.testing.assert_allclose(found.change, change, atol=1e-14)
    assert found.completeness < 1e-13
    for grouped in found.groups.values():
        assert grouped.values.shape == (*change.shape, len(grouped.names))
        np.testing.assert_allclose(grouped.values.sum(axis=2), change, atol=1e-13)
    assert found.groups["tensor"].names == network.parameters.names
    assert found.groups["layer"].names == ("0", "2", "4")
    assert found.groups["unit"].names[:2] == ("0 unit 0", "0 unit 1")
    assert len(found.groups["unit"].names) == 7 + 6 + 3


def test_each_contribution_is_the_displacement_times_its_path_feature() -> None:
    network, examples = _trained(12)
    found = contributions(network, examples, keep=4)
    phi = np.concatenate([block for _, block in EffectiveFeatures(network, examples, "path").blocks()])
    d = np.concatenate([value.numpy().ravel() for value in network.displacement().values()])
    shares = (phi * d).reshape(12, 3, -1)
    np.testing.assert_allclose(found.weights, np.abs(shares[examples.fitting]).mean(axis=(0, 1)), atol=1e-15)
    order = np.argsort(-np.abs(shares), axis=2)[:, :, :4]
    np.testing.assert_allclose(found.strength, np.take_along_axis(shares, order, axis=2), atol=1e-15)
    label, share = found.ranked(3, 1)[0]
    assert label == network.parameters.label(int(order[3, 1, 0]))
    assert share == pytest.approx(shares[3, 1, order[3, 1, 0]])
    unit = found.groups["unit"]
    at = dict(network.parameters.slices)
    wanted = shares[:, :, np.r_[at["2.weight"].start + 6 * 0 + np.arange(7), at["2.bias"].start]].sum(axis=2)
    np.testing.assert_allclose(unit.values[:, :, unit.names.index("2 unit 0")], wanted, atol=1e-14)


def test_a_contribution_that_is_wrong_moves_the_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    network, examples = _trained(8)
    exact = contributions(network, examples)
    original = EffectiveFeatures._tile_values

    def wrong(design: EffectiveFeatures, inputs: torch.Tensor, positions: np.ndarray) -> np.ndarray:
        values = original(design, inputs, positions)
        values[:, 3] *= 1.01
        return values

    monkeypatch.setattr(EffectiveFeatures, "_tile_values", wrong)
    moved = contributions(network, examples)
    assert exact.completeness < 1e-13 < 1e-6 < moved.completeness


def test_contributions_are_the_same_for_every_learning_rate() -> None:
    plain, rated = (
        contributions(*_trained(10, rates)) for rates in (None, {"0.weight": 0.1, "*.bias": 7.0, "4.*": 0.5})
    )
    np.testing.assert_allclose(rated.groups["unit"].values, plain.groups["unit"].values, atol=1e-13)
    np.testing.assert_allclose(rated.weights, plain.weights, atol=1e-14)


def test_eigen_contributions_and_their_remainder_add_up() -> None:
    network, examples = _trained(10, {"2.*": 0.3})
    p = network.parameters.total
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((p, 6)))[0].T
    found = contributions(network, examples, directions=directions).eigen
    np.testing.assert_allclose(found.values.sum(axis=2) + found.remainder, _change(network, examples), atol=1e-13)
    assert np.abs(found.remainder).max() > 1e-3
    whole = contributions(network, examples, directions=np.eye(p)).eigen
    np.testing.assert_allclose(whole.remainder, 0, atol=1e-13)
    # One of them by hand: the displacement and the path features, both along the direction.
    design = EffectiveFeatures(network, examples, "path")
    phi = np.concatenate([block for _, block in design.blocks()])
    d = np.concatenate([value.numpy().ravel() for value in network.displacement().values()]) / design.scale
    np.testing.assert_allclose(found.values[:, :, 2].ravel(), (directions[2] @ d) * (phi @ directions[2]), atol=1e-14)
    with pytest.raises(SettingsError, match="those of the trace reduction live in outputs x parameters"):
        contributions(network, examples, directions=np.zeros((2, 3, p)))


def test_contributions_need_initial_parameters_and_something_to_keep() -> None:
    network, examples = _trained(6)
    with pytest.raises(NetworkError, match="need the parameters before training"):
        contributions(replace(network, initial=None), examples)
    with pytest.raises(SettingsError, match="At least one weight per output must be kept, not 0"):
        contributions(network, examples, keep=0)


# Ridge


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 8), block=st.integers(1, 3), p=st.integers(1, 12), t=st.integers(1, 3), seed=st.integers(0, 999)
)
def test_left_out_predictions_are_those_of_a_refit(n: int, block: int, p: int, t: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    phi, targets = rng.standard_normal((n * block, p)), rng.standard_normal((n * block, t))
    kernel = phi @ phi.T
    fit = fit_ridge(Spectral.of_kernel(kernel), targets, block, [0.03])
    rho = 0.03 * np.trace(kernel) / len(kernel)
    np.testing.assert_allclose(
        fit.coefficients, np.linalg.solve(kernel + rho * np.eye(len(kernel)), targets), rtol=1e-7
    )
    for example in range(n):
        own = np.arange(example * block, (example + 1) * block)
        rest = np.setdiff1d(np.arange(n * block), own)
        alpha = np.linalg.solve(kernel[np.ix_(rest, rest)] + rho * np.eye(len(rest)), targets[rest])
        np.testing.assert_allclose(fit.left_out[own], kernel[np.ix_(own, rest)] @ alpha, rtol=1e-6, atol=1e-8)


def test_the_ridge_of_least_error_is_taken() -> None:
    rng = np.random.default_rng(0)
    phi = rng.standard_normal((60, 40))
    targets = phi @ rng.standard_normal((40, 1)) + 3 * rng.standard_normal((60, 1))
    fit = fit_ridge(Spectral.of_kernel(phi @ phi.T), targets)
    assert fit.ridge == fit.tried[int(np.argmin(fit.errors))]
    assert 1e-4 < fit.ridge < 10
    assert fit.errors[fit.tried.index(fit.ridge)] == pytest.approx(np.square(fit.left_out - targets).mean())


def test_both_sides_give_the_same_fit() -> None:
    network, examples = _trained()
    design = EffectiveFeatures(network, examples, layers=["4"])
    assert design.shape[0] > design.shape[1]
    targets = np.random.default_rng(0).standard_normal((design.shape[0], 1))
    columns, directions = Spectral.of_columns(design)
    assert directions.shape == (design.shape[1], len(columns.values))
    one = fit_ridge(Spectral.of_kernel(design.gram()), targets, 3, [1e-3])
    other = fit_ridge(columns, targets, 3, [1e-3])
    np.testing.assert_allclose(other.coefficients, one.coefficients, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(other.left_out, one.left_out, rtol=1e-6, atol=1e-8)


def test_what_no_regression_can_be_made_of_is_one_sentence() -> None:
    with pytest.raises(SettingsError, match="finite and not zero, but it is zero"):
        Spectral.of_kernel(np.zeros((3, 3)))
    with pytest.raises(SettingsError, match="finite and not zero, but it is not finite"):
        Spectral.of_kernel(np.full((3, 3), np.nan))
    spectral = Spectral.of_kernel(np.eye(3))
    with pytest.raises(SettingsError, match="needs finite targets, but NaN"):
        fit_ridge(spectral, np.array([[1.0], [np.nan], [0.0]]))
    with pytest.raises(SettingsError, match="Ridges are positive"):
        fit_ridge(spectral, np.ones((3, 1)), ridges=[0.0])


# Regressions


def test_designs_beside_each_other_add_their_kernels() -> None:
    network, examples = _trained(7)
    ends = [EffectiveFeatures(network, examples, at) for at in ("initial", "effective")]
    beside = Beside(ends, np.sqrt(0.5))
    rows = np.concatenate([block for _, block in beside.blocks()])
    wanted = (ends[0].gram() + ends[1].gram()) / 2
    v = np.random.default_rng(0).standard_normal((beside.shape[1], 2))
    np.testing.assert_allclose(beside.gram(), wanted, atol=1e-12)
    np.testing.assert_allclose(rows @ rows.T, wanted, atol=1e-12)
    np.testing.assert_allclose(beside.matmul(v), rows @ v, atol=1e-12)
    np.testing.assert_allclose(beside.rmatmul(rows @ v), rows.T @ rows @ v, atol=1e-10)
    np.testing.assert_allclose(
        beside.on(np.array([1, 4])).gram(), wanted.reshape(7, 3, 7, 3)[[1, 4]][:, :, [1, 4]].reshape(6, 6)
    )


@pytest.mark.parametrize("reduction", ["trace", "flattened"])
def test_regressions_are_those_of_sklearn(reduction: str) -> None:
    network, examples = _trained(36)
    ridge = 1e-2
    found = regressions(network, examples, reductions=[reduction], ridges=[ridge])  # type: ignore[list-item]  # a case
    one = next(one for one in found.fidelities if (one.kernel, one.target, one.form) == ("effective", "labels", "bare"))
    kernel = EffectiveFeatures(network, examples, outputs=reduction).gram()
    targets = np.eye(3)[np.asarray(examples.targets)]
    train, held = examples.fitting, np.flatnonzero(~np.asarray(examples.training))
    if reduction == "flattened":
        rows = [np.concatenate([np.arange(3) + 3 * example for example in part]) for part in (train, held)]
        wanted = targets[train].reshape(-1, 1)
    else:
        rows, wanted = [train, held], targets[train]
    inner = kernel[np.ix_(rows[0], rows[0])]
    model = KernelRidge(alpha=ridge * np.trace(inner) / len(inner), kernel="precomputed").fit(inner, wanted)
    predicted = model.predict(kernel[np.ix_(rows[1], rows[0])]).reshape(len(held), 3)
    outputs = network.outputs(examples)[held]
    around = np.square(outputs - outputs.mean(axis=0)).sum()
    assert one.r2 == pytest.approx(1 - np.square(predicted - outputs).sum() / around, abs=1e-9)
    assert one.agreement == np.mean(predicted.argmax(axis=1) == outputs.argmax(axis=1))
    assert one.accuracy == np.mean(predicted.argmax(axis=1) == np.asarray(examples.targets)[held])
    assert one.reduction == reduction


def test_every_kernel_stands_beside_its_controls() -> None:
    network, examples = _trained()
    found = regressions(network, examples, reductions=["trace", "flattened"])
    kernels = {"initial", "sharp", "mean", "effective", "last_layer", "without_last_layer"}
    for reduction in ("trace", "flattened"):
        for target in ("labels", "distillation"):
            assert {o.kernel for o in found.fidelities if (o.reduction, o.target) == (reduction, target)} == kernels
    # A distillation by the last layer alone is exact, so it takes the smallest ridge, which is told.
    least = [one for one in found.fidelities if one.ridge == 1e-8]
    assert {("last_layer", reduction, "distillation", "bare") for reduction in ("trace", "flattened")} <= {
        (one.kernel, one.reduction, one.target, one.form) for one in least
    }
    assert max(one.ridge for one in found.fidelities) < 10
    (remark,) = found.remarks
    assert f"In {len(least)} of {len(found.fidelities)} regressions the best ridge was the smallest one tried" in remark
    assert "1e-08 of the mean diagonal, and a smaller one might do better" in remark
    assert "says nothing about the other layers" in found.notes[0]
    alone = next(o for o in found.fidelities if (o.kernel, o.target) == ("last_layer", "distillation"))
    assert alone.r2 > 1 - 1e-6  # f = W a + b lies in its span
    # About theta* the correction of a distillation is zero, so there is no such row.
    expanded = {(o.kernel, o.target) for o in found.fidelities if o.form == "expanded"}
    assert ("effective", "labels") in expanded
    assert ("initial", "distillation") in expanded
    assert ("effective", "distillation") not in expanded


def test_an_expansion_about_parameters_that_fit_already_changes_nothing() -> None:
    network, examples = _trained()
    outputs = network.outputs(examples)
    fitted = Examples.from_arrays(np.asarray(examples.inputs), outputs, split=examples.training)
    found = regressions(network, fitted)
    one = next(o for o in found.fidelities if (o.kernel, o.target, o.form) == ("effective", "labels", "expanded"))
    assert one.r2 == 1.0
    assert one.accuracy is None


def test_rescaled_parameters_with_rescaled_learning_rates_change_nothing() -> None:
    """theta = s thetahat, lambda = 1 / s^2 on the first layer, and the inverse scale after it: the same function."""
    network, examples = _trained()
    rated, _ = _trained(rates={"0.*": 0.25})

    class Scaled(nn.Module):
        def __init__(self, inner: nn.Module, factor: float) -> None:
            super().__init__()
            self.inner, self.factor = inner, factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.inner[0](x) * self.factor
            return self.inner[1:](hidden)

    def scaled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {f"inner.{k}": v / 0.5 if k.startswith("0.") else v for k, v in state.items()}

    module = Scaled(_net().double(), 0.5)
    module.load_state_dict(scaled(dict(rated.trained)))
    start = Network.from_module(module, initial=scaled(dict(rated.initial or {})))
    for one, other in zip(
        regressions(rated, examples).fidelities, regressions(start, examples).fidelities, strict=True
    ):
        assert one.r2 == pytest.approx(other.r2, abs=1e-9)
        assert one.ridge == other.ridge
    assert any(
        abs(one.r2 - other.r2) > 1e-6
        for one, other in zip(
            regressions(network, examples).fidelities, regressions(rated, examples).fidelities, strict=True
        )
    )


def test_what_a_network_lacks_is_left_out_and_said() -> None:
    network, examples = _trained()
    found = regressions(replace(network, initial=None), examples, reductions=["flattened"], most_side=60)
    assert {one.kernel for one in found.fidelities} == {"last_layer"}
    assert any("Initial parameters were not given" in remark for remark in found.remarks)
    assert any("its smaller side is 90, above 60" in remark for remark in found.remarks)
    other = Network.from_module(nn.Sequential(mlp(), nn.Softplus()))
    assert any("does not end in a linear layer" in remark for remark in regressions(other, examples).remarks)
    whole = Examples.from_arrays(np.asarray(examples.inputs), np.asarray(examples.targets))
    with pytest.raises(ExamplesError, match="judged on held-out examples, but there is no split"):
        regressions(network, whole)


def test_a_kernel_that_is_zero_is_left_out_and_said() -> None:
    """Without weights after it nothing before the last layer has a feature, and of it only biases and activations."""
    network, examples = _trained()
    start = network.at("initial")
    silent = {name: torch.zeros_like(value) if name == "4.weight" else value for name, value in network.trained.items()}
    module = _net().double()
    module.load_state_dict(silent)
    found = regressions(Network.from_module(module, initial=dict(start)), examples, reductions=["trace", "flattened"])
    assert {one.kernel for one in found.fidelities} == {"initial", "sharp", "mean", "effective", "last_layer"}
    for whole in ("The", "The whole"):
        sentence = f"{whole} effective kernel without the last linear layer is left out. A regression needs a kernel"
        assert any(remark.startswith(sentence) for remark in found.remarks)


@pytest.mark.parametrize("split", [np.arange(12) < 1, np.arange(12) < 11, np.ones(12, dtype=bool)])
def test_one_example_alone_judges_nothing(split: np.ndarray) -> None:
    network, examples = _trained(12)
    few = Examples.from_arrays(np.asarray(examples.inputs), np.asarray(examples.targets), split=split)
    with pytest.raises(ExamplesError, match="there is no split with two or more of both kinds"):
        regressions(network, few)
    with pytest.raises(ExamplesError, match="there is no split with two or more of both kinds"):
        tickets(network, few, contributions(network, few))


# Interactions


def test_interactions_are_the_change_of_a_feature_along_another() -> None:
    """Against finite differences of the effective features along v_l, of a smooth net with unlike learning rates."""
    torch.manual_seed(0)
    module = mlp().double()
    rates = {"0.*": 0.25, "*.bias": 3.0}
    network = Network.from_module(module, learning_rates=rates)
    examples = Examples.from_arrays(np.random.default_rng(0).standard_normal((6, 5)))
    p = network.parameters.total
    directions = np.linalg.qr(np.random.default_rng(1).standard_normal((p, 4)))[0].T
    found = interactions(network, examples, directions)
    scale = np.sqrt(np.repeat(network.parameters.learning_rates, network.parameters.sizes))
    step = 1e-4
    for other in range(4):
        ends = []
        for sign in (1, -1):
            moved, at = {}, 0
            for name, value in network.trained.items():
                own = (scale * directions[other])[at : at + value.numel()].reshape(value.shape)
                moved[name] = value + sign * step * torch.as_tensor(own)
                at += value.numel()
            there = Network.from_module(module, trained=moved, learning_rates=rates)
            ends.append(EffectiveFeatures(there, examples).matmul(directions.T).reshape(6, 3, 4))
        np.testing.assert_allclose(found.values[:, :, :, other], (ends[0] - ends[1]) / (2 * step), atol=1e-6)
    np.testing.assert_allclose(found.values, found.values.transpose(0, 1, 3, 2), atol=0)
    chosen = np.array([2, 0, 1, 1, 2, 0])
    np.testing.assert_array_equal(found.of_outputs(chosen)[4], found.values[4, 2])


def test_edges_stand_above_directions_turned_at_random() -> None:
    rng = np.random.default_rng(0)
    values = 0.01 * rng.standard_normal((50, 2, 6, 6))
    values = values + values.transpose(0, 1, 3, 2)
    values[:, :, 1, 4] += 1.0
    values[:, :, 4, 1] += 1.0
    found = Interactions(values)
    assert [edge[:2] for edge in found.edges()] == [(1, 4)]
    assert found.edges()[0][2] == pytest.approx(found.size[1, 4])
    assert found.mean[1, 4] == pytest.approx(1.0, abs=0.01)
    noise = Interactions(values[:, :, [0, 2, 3, 5]][:, :, :, [0, 2, 3, 5]])
    assert len(noise.edges()) <= 1
    # The threshold by rotating every matrix itself.
    rng, sizes = np.random.default_rng(0), []
    for _ in range(100):
        turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
        sizes.append(np.sqrt(np.square(turn.T @ values @ turn).mean(axis=(0, 1)))[np.triu_indices(6, 1)])
    assert found.threshold() == pytest.approx(np.quantile(np.concatenate(sizes), 0.99))
    assert Interactions(values[:, :, :1, :1]).edges() == []


def test_interactions_need_directions_over_parameters_and_forward_derivatives() -> None:
    network, examples = _trained(4)
    with pytest.raises(SettingsError, match="those of the trace reduction live in outputs x parameters"):
        interactions(network, examples, np.zeros((2, 3, network.parameters.total)))

    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(*given: torch.Tensor) -> torch.Tensor:
            return given[-1] / 2

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Halved.apply(self.layer(x))

    other = Network.from_module(Net())
    with pytest.raises(NetworkError, match="Interactions need second derivatives forward"):
        interactions(other, examples, np.eye(other.parameters.total)[:2])


# Lottery tickets


def test_tickets_are_sums_of_kept_contributions_and_real_sparse_networks() -> None:
    network, examples = _trained(24)
    shared = contributions(network, examples)
    found = tickets(network, examples, shared, counts=[0, 5, 30, network.parameters.total])
    phi = np.concatenate([block for _, block in EffectiveFeatures(network, examples, "path").blocks()])
    d = np.concatenate([value.numpy().ravel() for value in network.displacement().values()])
    shares = (phi * d).reshape(24, 3, -1)
    held = ~np.asarray(examples.training)
    outputs, start = network.outputs(examples), network.outputs(examples, at="initial")
    by = {(one.order, one.kind, one.kept): one for one in found}
    assert len(by) == len(found) == 4 * 2 * 4
    largest = np.argsort(-shared.weights, kind="stable")
    for order, kept in (("contribution", largest[:5]), ("smallest", largest[::-1][:5])):
        wanted = start + shares[:, :, kept].sum(axis=2)
        one = by[order, "sum", 5]
        around = np.square(outputs[held] - outputs[held].mean(axis=0)).sum()
        assert one.r2 == pytest.approx(1 - np.square(wanted - outputs)[held].sum() / around, abs=1e-12)
        assert one.agreement == (wanted.argmax(axis=1) == outputs.argmax(axis=1))[held].mean()
        assert one.accuracy == (wanted.argmax(axis=1) == np.asarray(examples.targets))[held].mean()
        assert one.training_agreement == (wanted.argmax(axis=1) == outputs.argmax(axis=1))[~held].mean()
        # The same weights moved in the module itself.
        module, at = _net().double(), 0
        ends = (network.at("initial"), network.trained)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                flat = ends[0][name].flatten().clone()
                own = kept[(kept >= at) & (kept < at + flat.numel())] - at
                flat[own] = ends[1][name].flatten()[own]
                parameter.copy_(flat.reshape(parameter.shape))
                at += flat.numel()
            real = module(torch.as_tensor(np.asarray(examples.inputs))).numpy()
        assert by[order, "network", 5].r2 == pytest.approx(
            1 - np.square(real - outputs)[held].sum() / around, abs=1e-12
        )
    for order in ("contribution", "per_layer", "random", "smallest"):
        for kind in ("sum", "network"):
            assert by[order, kind, network.parameters.total].r2 == pytest.approx(1.0)
            assert by[order, kind, 0].r2 == pytest.approx(by["random", "sum", 0].r2)


def test_tickets_of_eigen_features_keep_them_in_their_order() -> None:
    network, examples = _trained(24, {"0.*": 0.5})
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((network.parameters.total, 4)))[0].T
    shared = contributions(network, examples, directions=directions)
    found, shares = tickets(network, examples, shared, counts=[1]), shared.eigen.values
    held, outputs = ~np.asarray(examples.training), network.outputs(examples)
    around = np.square(outputs[held] - outputs[held].mean(axis=0)).sum()
    for one in (one for one in found if one.order == "eigen"):
        wanted = network.outputs(examples, at="initial") + shares[:, :, : one.kept].sum(axis=2)
        assert one.r2 == pytest.approx(1 - np.square(wanted - outputs)[held].sum() / around, abs=1e-12)


def test_equal_shares_of_layers_take_something_of_each() -> None:
    network, _ = _trained()
    rng = np.random.default_rng(0)
    weights = rng.random(network.parameters.total) * np.repeat([100.0, 1.0, 0.01], [42, 48, 21])
    order = lottery._orders(network, weights, 0)["per_layer"]
    first = order[: network.parameters.total // 3]
    taken = [np.count_nonzero((first >= low) & (first < high)) for low, high in ((0, 42), (42, 90), (90, 111))]
    assert taken == [14, 16, 7]


def test_tickets_need_held_out_examples_and_possible_counts() -> None:
    network, examples = _trained(12)
    shared = contributions(network, examples)
    with pytest.raises(SettingsError, match="Between 0 and 111 features can be kept"):
        tickets(network, examples, shared, counts=[112])
    whole = Examples.from_arrays(np.asarray(examples.inputs), np.asarray(examples.targets))
    with pytest.raises(ExamplesError, match="there is no split with two or more of both kinds"):
        tickets(network, whole, shared)


@pytest.fixture(scope="module")
def digits() -> Regressions:
    return regressions(Digits().shipped(), Digits().examples())


def test_the_demo_is_distilled_by_its_effective_kernel(digits: Regressions) -> None:
    by = {(one.kernel, one.target, one.form): one for one in digits.fidelities}
    effective = by["effective", "distillation", "bare"]
    assert effective.r2 >= 0.999
    assert effective.agreement >= 0.99
    assert by["initial", "distillation", "bare"].r2 < 0.97
    # From labels the network's own last layer does better than the whole kernel, and that is told, not hidden.
    assert by["last_layer", "labels", "bare"].r2 > by["effective", "labels", "bare"].r2


def test_contributions_of_the_demo_are_complete() -> None:
    found = contributions(Digits().shipped(), Digits().examples().on(np.arange(0, 1797, 6)))
    assert found.remarks == ()
    assert found.completeness <= 1e-10
