"""A trained network beside its expansion, over widths, and by several algorithms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from feature_lens.analysis.expansion_tables import best_order, order_table, training_of, verdict_on
from feature_lens.dual.perturbation import Derivatives, Linearised, Schedule, displacement, train
from feature_lens.dual.perturbation.algorithms import (
    BEFORE,
    Algorithm,
    AlgorithmSettings,
    algorithm_study,
    default_algorithms,
)
from feature_lens.dual.perturbation.expansion import ExpansionSettings, expansion, matched_time, thinned
from feature_lens.dual.perturbation.widths import PREDICTIONS, WidthSettings, network_of, slopes, task, width_study
from feature_lens.dual_record import Expansion
from feature_lens.errors import ExamplesError, NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.networks import Network


def _all_of(n: int = 6, n_test: int = 10) -> tuple[Examples, np.ndarray]:
    """Schedule and test points as one example set with real targets, and the targets (n, 1) of the training points."""
    own, targets, test = task(n, n_test)
    inputs = np.concatenate([np.asarray(own.inputs), np.asarray(test.inputs)])
    every = np.concatenate([targets.ravel(), np.zeros(n_test)])
    return Examples.from_arrays(inputs, every, split=np.arange(n + n_test) < n), targets


@pytest.fixture(scope="module")
def flowed() -> tuple[Network, Examples, np.ndarray]:
    """A network of width 128 after a flow of time 2."""
    network, (examples, targets) = network_of(1, 128, 0), _all_of()
    params = train(network, examples.on(examples.fitting), targets, Schedule(time=2.0))
    return replace(network, trained=params), examples, targets


def test_a_wide_network_is_what_the_expansion_says(flowed: tuple[Network, Examples, np.ndarray]) -> None:
    network, examples, targets = flowed
    found, orders = expansion(network, examples, ExpansionSettings(time=2.0))
    outputs, held = network.outputs(examples), ~np.asarray(examples.training)
    errors = [np.abs(total[held] - outputs[held]).max() for total in np.cumsum(orders, axis=0)]
    assert errors[0] > 3 * errors[1]
    start = Linearised.of(network, examples.on(examples.fitting), targets)
    moved, points = displacement(start, Schedule(time=2.0)), Derivatives(network, examples)
    (leading, first, second), bare = moved.orders(points), moved.orders(points, reduced=True)[2]
    np.testing.assert_allclose(orders.reshape(3, -1), [leading, first + bare, second - bare], atol=1e-7)
    spread = np.square(outputs[held] - outputs[held].mean()).sum()
    for order, total in zip(found.orders, np.cumsum(orders, axis=0), strict=True):
        assert order.r2 == pytest.approx(1 - np.square(total[held] - outputs[held]).sum() / spread)
        assert order.agreement is None
    assert found.orders[1].size == pytest.approx(np.sqrt(np.mean(orders[1][held] ** 2)))
    assert (found.step, found.time, found.matched, found.examples) == (0.0, 2.0, False, 6)
    assert verdict_on(found).startswith("The expansion holds for this network: ")
    assert "against" in best_order(found)
    assert "the expansion to leading order" not in best_order(found)


def test_kernel_change_and_displacement_are_those_of_dense_derivatives(
    flowed: tuple[Network, Examples, np.ndarray],
) -> None:
    network, examples, _ = flowed
    found, _ = expansion(network, examples, ExpansionSettings(time=2.0))
    own = examples.on(examples.fitting)
    kernels = []
    for params in (network.initial, network.trained):
        on = Derivatives(replace(network, initial=params), own)
        jacobian = np.stack([on.gradient_along(row) for row in np.eye(on.r)])
        kernels.append(jacobian @ jacobian.T)
    change = np.linalg.norm(kernels[1] - kernels[0]) / np.linalg.norm(kernels[0])
    assert found.kernel_change == pytest.approx(change, rel=1e-9)
    table = network.parameters
    scaled = [
        (network.displacement()[name] / rate**0.5).norm() ** 2
        for name, rate in zip(table.names, table.learning_rates, strict=True)
    ]
    assert found.displacement == pytest.approx(math.sqrt(sum(scaled)))


def test_the_time_of_a_flow_is_matched_to_the_training_loss(flowed: tuple[Network, Examples, np.ndarray]) -> None:
    network, examples, targets = flowed
    own = examples.on(examples.fitting)
    start = Linearised.of(network, own, targets)
    for time in (0.3, 5.0):
        loss = float(np.square(start.left(Schedule(time=time))).sum() / 2)
        assert matched_time(start, loss) == pytest.approx(time, rel=1e-9)
    assert matched_time(start, 1e9) == pytest.approx(1e-3 / start.rates[-1])
    assert matched_time(start, 0.0) == pytest.approx(1e5 / start.rates[-1])
    found, _ = expansion(network, examples)
    assert found.matched
    assert found.time == pytest.approx(2.0, rel=0.05)  # a wide network's loss falls nearly as to leading order
    assert "the training loss to leading order is the network's own" in training_of(found)


def test_class_labels_are_one_hot_targets_and_many_examples_are_thinned() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    network = Network.from_module(module, initial=module.state_dict())
    rng = np.random.default_rng(0)
    examples = Examples.from_arrays(rng.standard_normal((30, 4)), rng.integers(0, 3, 30), split=np.arange(30) < 20)
    found, orders = expansion(network, examples, ExpansionSettings(step=0.01, time=5, most_side=24))
    assert found.examples == 8
    assert orders.shape == (3, 30, 3)
    assert all(order.agreement is not None for order in found.orders)
    assert "5 steps of 0.01" in training_of(found)
    chosen = thinned(examples.fitting, 3, network.parameters.total, 24)
    own = examples.on(chosen)
    start = Linearised.of(network, own, np.eye(3)[own.labels])
    wanted = displacement(start, Schedule(0.01, 5)).orders(Derivatives(network, examples))
    np.testing.assert_allclose(orders[0].ravel(), wanted[0], atol=1e-12)
    np.testing.assert_allclose(orders.sum(axis=0).ravel(), sum(wanted), atol=1e-12)
    assert list(thinned(np.arange(10), 3, 1000, 1000)) == list(range(10))
    assert list(thinned(np.arange(1000), 3, 20, 24)) == list(range(1000))


def test_what_has_no_expansion_says_why(flowed: tuple[Network, Examples, np.ndarray]) -> None:
    network, examples, _ = flowed
    with pytest.raises(ExamplesError, match="needs targets"):
        expansion(network, replace(examples, targets=None))
    with pytest.raises(NetworkError, match="before training"):
        expansion(replace(network, initial=None), examples)
    with pytest.raises(SettingsError, match="needs its number of steps"):
        ExpansionSettings(step=0.1)
    with pytest.raises(SettingsError, match="whole number"):
        ExpansionSettings(step=0.1, time=0.5)
    with pytest.raises(SettingsError, match="both were said"):
        ExpansionSettings(time=1.0, otherwise="AdamW")
    with pytest.raises(SettingsError, match="At least one row"):
        ExpansionSettings(most_side=0)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((1.0, 0.1, 0.01), "The expansion holds for the training it is of"),
        ((1, 0.5, 0.1), "The expansion is at the edge of where it holds for the training it is of"),
        ((1.0, 2.0, 9.0), "far from"),
        ((0.0, 1.0, 0.0), "far from"),
    ],
)
def test_verdicts_follow_the_sizes_of_successive_orders(
    flowed: tuple[Network, Examples, np.ndarray], sizes: tuple[float, ...], said: str
) -> None:
    found, _ = expansion(flowed[0], flowed[1], ExpansionSettings(time=2.0))
    orders = tuple(replace(one, size=size, r2=-5.0) for one, size in zip(found.orders, sizes, strict=True))
    changed: Expansion = replace(found, orders=orders)
    assert said in verdict_on(changed)
    assert "below -1" in best_order(changed)
    assert list(order_table(changed)["size"]) == list(sizes)
    near = replace(changed, orders=tuple(replace(one, r2=0.99) for one in orders), kernel_change=0.05)
    assert ("for this network" in verdict_on(near)) == (said != "far from")
    assert "for this network" not in verdict_on(replace(near, kernel_change=0.9))


def test_errors_fall_with_width_as_the_orders_say() -> None:
    found = width_study(WidthSettings(widths=(32, 256), depths=(1,), seeds=2))
    assert set(found["prediction"]) == set(PREDICTIONS)
    assert len(found) == 2 * 2 * len(PREDICTIONS)
    assert (found.loc[found["prediction"] == "initial", "error"] == 1).all()
    table = slopes(found).set_index("prediction")
    assert table.loc["leading", "slope"] == pytest.approx(-1, abs=0.35)
    assert table.loc["next", "slope"] == pytest.approx(-2, abs=0.6)
    median = found[(found["prediction"] == "next") & (found["width"] == 256)]["error"].median()
    assert table.loc["next", "error at 256"] == median
    assert median < 0.2 * table.loc["leading", "error at 256"]


def test_descent_by_two_steps_comes_out_alike_and_adamw_does_not() -> None:
    examples, targets, test = task(8, 24)
    network = network_of(1, 32, 0)
    start = Linearised.of(network, examples, targets)
    descent, smaller, _, _, adamw, _ = default_algorithms(float(start.rates[-1]))
    settings = AlgorithmSettings(reached=0.1, features=6)
    found = algorithm_study(network, examples, targets, test, (descent, smaller, adamw), settings)
    pairs = found.pairs.set_index(["one", "other"])
    same, other = pairs.loc[(descent.name, smaller.name)], pairs.loc[(descent.name, adamw.name)]
    assert same["overlap"] > other["overlap"]
    assert 5 * same["largest_angle"] < other["largest_angle"]
    assert len(pairs) == 6
    assert (found.trained["loss"] <= 0.1).all()
    of_descent = found.trained.set_index("algorithm").loc[descent.name]
    assert of_descent["second"] < of_descent["next"] < of_descent["leading"] < 0.2
    assert found.trained.set_index("algorithm").loc[adamw.name, ["leading", "predicted_from_first"]].isna().all()
    assert list(found.features.columns) == [smaller.name, adamw.name, BEFORE]
    assert (found.features[smaller.name] > 0.99).all()


def test_studies_refuse_what_they_cannot_do() -> None:
    training = Schedule(time=0.0)
    still = train(network_of(1, 4, 0), task(4, 4)[0], task(4, 4)[1], training)
    assert all(torch.equal(still[name], value) for name, value in network_of(1, 4, 0).trained.items())
    with pytest.raises(SettingsError, match="Each width is a number of at least 1"):
        WidthSettings(widths=(0,))
    with pytest.raises(SettingsError, match="for a time above 0"):
        WidthSettings(time=0)
    with pytest.raises(SettingsError, match="descent, sgd or adamw"):
        Algorithm("adam", 0.1)
    with pytest.raises(SettingsError, match="at least one step"):
        AlgorithmSettings(most_steps=0)
    examples, targets, test = task(4, 4)
    network = network_of(1, 8, 0)
    with pytest.raises(SettingsError, match="must differ"):
        algorithm_study(network, examples, targets, test, [Algorithm("sgd", 0.1)] * 2)
    with pytest.raises(SettingsError, match="diverged after"):
        algorithm_study(network, examples, targets, test, [Algorithm("descent", 1e6)], AlgorithmSettings(reached=0.0))
