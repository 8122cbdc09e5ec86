"""The trained function as an expansion: two ways against each other, against training itself and against a reference."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from feature_lens.dual.perturbation import (
    Derivatives,
    Linearised,
    Schedule,
    closed_form,
    coefficients,
    displacement,
    hierarchy,
    outputs_after,
    train,
)
from feature_lens.errors import NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.networks import Network

REFERENCE = np.load(Path(__file__).parent / "reference" / "perturbation.npz")
TRAIN = Examples.from_arrays(REFERENCE["x_train"])
TEST = Examples.from_arrays(REFERENCE["x_test"])
EVERY = Examples.from_arrays(np.concatenate([REFERENCE["x_train"], REFERENCE["x_test"]]))


class _Reference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("W1", "W2", "W3"):
            self.register_parameter(name, nn.Parameter(torch.as_tensor(REFERENCE[name])))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = 1.5 * torch.tanh(x @ self.W1.T / 2)
        hidden = 1.5 * torch.tanh(hidden @ self.W2.T / 12**0.5)
        return hidden @ self.W3.T / 12**0.5


class _NoMetaFeatures(nn.Module):
    """f whose dNTK is zero though its higher derivatives are not: alpha moves outputs at first order, beta only together
    with alpha, and there are terms of third and fourth order in alpha."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.alpha, self.beta = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(5))
        self.register_buffer("linear", torch.randn(4, 6, generator=generator) / 2)
        self.register_buffer("bilinear", torch.randn(4, 6, 5, generator=generator) / 4)
        self.register_buffer("cubic", torch.randn(4, 6, generator=generator) / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bent = torch.einsum("ni,ijk,j,k->n", x, self.bilinear, self.alpha, self.beta)
        other = x @ self.cubic @ self.alpha
        return (x @ self.linear @ self.alpha + bent + other**3 / 6 + other**4 / 24)[:, None]


def _frozen(module: nn.Module, **rates: float) -> Network:
    module = module.double()
    return Network.from_module(module, initial=module.state_dict(), learning_rates=rates or None)


def _reference() -> tuple[Network, Examples, np.ndarray]:
    return _frozen(_Reference()), TRAIN, REFERENCE["y_train"][:, None]


def _three_outputs() -> tuple[Network, Examples, np.ndarray]:
    torch.manual_seed(4)
    module = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))
    rates = {"*.bias": 0.5, "2.weight": 2.0}
    network = _frozen(module, **rates)
    examples = Examples.from_arrays(1.5 * np.eye(4)[:2])
    return network, examples, np.random.default_rng(0).standard_normal((2, 3))


CASES: dict[str, Callable[[], tuple[Network, Examples, np.ndarray]]] = {
    "one output": _reference,
    "three outputs": _three_outputs,
}


def _schedules(largest: float) -> dict[str, Schedule]:
    return {
        "flow": Schedule(time=3.0),
        "flow to the end": Schedule(),
        "descent": Schedule(0.4 / largest, 20),
        "descent to the end": Schedule(1.3 / largest),
    }


@pytest.fixture(scope="module", params=CASES)
def started(request: pytest.FixtureRequest) -> tuple[Linearised, Derivatives]:
    network, examples, targets = CASES[request.param]()
    return Linearised.of(network, examples, targets), Derivatives(network, EVERY)


def _hessians(network: Network, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First, second and third derivative of every output row in theta, dense, by torch's jacobian of jacobians."""
    table = network.parameters
    initial = network.initial
    assert initial is not None
    inputs = network.tensor(x)

    def rows(theta: torch.Tensor) -> torch.Tensor:
        params = {n: theta[at].reshape(s) for (n, at), s in zip(table.slices, table.shapes, strict=True)}
        return network(params, inputs).reshape(-1)

    start = torch.cat([value.reshape(-1) for value in initial.values()])
    first = torch.func.jacrev(rows)
    second, third = torch.func.jacfwd(first), torch.func.jacfwd(torch.func.jacfwd(first))
    scale = np.sqrt(np.repeat(table.learning_rates, table.sizes))
    j, k, m = (of(start).detach().numpy() for of in (first, second, third))
    return j * scale, k * np.multiply.outer(scale, scale), np.einsum("rabc,a,b,c->rabc", m, scale, scale, scale)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own jacfwd calls it
def test_contractions_are_those_of_the_dense_derivatives() -> None:
    torch.manual_seed(0)
    network = _frozen(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)), **{"*.bias": 0.3})
    x = np.random.default_rng(0).standard_normal((3, 2))
    on, (j, k, m) = Derivatives(network, Examples.from_arrays(x)), _hessians(network, x)
    rng = np.random.default_rng(1)
    v, w, z = rng.standard_normal((3, on.p))
    u = rng.standard_normal(on.r)
    same = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(on.along(v), j @ v, **same)
    np.testing.assert_allclose(on.along(v, w), np.einsum("rab,a,b->r", k, v, w), **same)
    np.testing.assert_allclose(on.along(v, w, z), np.einsum("rabc,a,b,c->r", m, v, w, z), **same)
    np.testing.assert_allclose(on.gradient_along(u), j.T @ u, **same)
    np.testing.assert_allclose(on.gradient_along(u, v), np.einsum("rab,a,r->b", k, v, u), **same)
    np.testing.assert_allclose(on.gradient_along(u, v, w), np.einsum("rabc,a,b,r->c", m, v, w, u), **same)


def test_derivatives_of_a_linear_model_beyond_the_first_are_zero() -> None:
    network = _frozen(nn.Linear(4, 2))
    on = Derivatives(network, TRAIN)
    v, u = np.ones(on.p), np.ones(on.r)
    assert not on.along(v, v).any()
    assert not on.along(v, v, v).any()
    assert not on.gradient_along(u, v).any()
    assert not on.gradient_along(u, v, v).any()


def test_orders_and_flow_are_those_of_the_reference() -> None:
    network, examples, targets = _reference()
    start, points = Linearised.of(network, examples, targets), Derivatives(network, EVERY)
    orders = displacement(start, Schedule(time=float(REFERENCE["T"]))).orders(points)
    for alpha in (1, 4, 16):
        for k, found in enumerate(orders):
            wanted = REFERENCE[f"alpha{alpha}_order{k}"]
            np.testing.assert_allclose(found / float(alpha) ** k, wanted, atol=1e-6 * np.abs(orders[0]).max())
        params = train(network, examples, targets, Schedule(time=3.0), alpha=alpha)
        made = outputs_after(network, params, EVERY, alpha)
        np.testing.assert_allclose(made.ravel(), REFERENCE[f"alpha{alpha}_flow"], atol=1e-6)


def _slopes(
    network: Network,
    examples: Examples,
    targets: np.ndarray,
    training: Schedule,
    orders: list,
    alphas: tuple[float, ...],
) -> np.ndarray:
    """Slopes of log error against log alpha on the test points, of predictions whose order k is of size alpha^-k."""
    errors = []
    for alpha in alphas:
        params = train(network, examples, targets, training, alpha=alpha, tolerance=1e-12)
        sums = np.cumsum([order / alpha**k for k, order in enumerate(orders)], axis=0)
        errors.append(np.linalg.norm(sums - outputs_after(network, params, TEST, alpha).ravel(), axis=1))
    return np.polyfit(np.log(alphas), np.log(errors), 1)[0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("schedule", ["flow", "descent"])
def test_each_order_takes_a_power_off_the_error_against_real_training(case: str, schedule: str) -> None:
    network, examples, targets = CASES[case]()
    start, points = Linearised.of(network, examples, targets), Derivatives(network, TEST)
    training = _schedules(start.rates[-1])[schedule]
    orders = displacement(start, training).orders(points)
    slopes = _slopes(network, examples, targets, training, list(orders), (8, 16, 32, 64))
    np.testing.assert_allclose(slopes, [-1, -2, -3], atol=0.1)
    if schedule == "flow":  # the closed form lacks terms of second order in dNTK, so it stops one power earlier
        found = closed_form(start, points, training)
        sums = [found.leading, found.dntk, found.ddntk]
        last = _slopes(network, examples, targets, training, sums, (64, 128, 256))[2]
        assert last == pytest.approx(-2, abs=0.1)


def test_without_dntk_the_closed_form_is_as_good_as_the_whole_hierarchy() -> None:
    network, targets = _frozen(_NoMetaFeatures()), REFERENCE["y_train"][:, None]
    start, points = Linearised.of(network, TRAIN, targets), Derivatives(network, TEST)
    training = Schedule(time=3.0)
    found = closed_form(start, points, training)
    np.testing.assert_allclose(found.dntk, 0, atol=1e-14)
    sums = [found.leading, found.dntk, found.ddntk]
    slopes = _slopes(network, TRAIN, targets, training, sums, (8, 16, 32, 64))
    np.testing.assert_allclose(slopes, [-2, -2, -3], atol=0.1)


@pytest.mark.parametrize("schedule", _schedules(1.0))
def test_the_closed_form_is_the_reduced_hierarchy(started: tuple[Linearised, Derivatives], schedule: str) -> None:
    start, points = started
    training = _schedules(start.rates[-1])[schedule]
    found = closed_form(start, points, training)
    moved = displacement(start, training)
    wanted, full = moved.orders(points, reduced=True), moved.orders(points)
    for one, other in zip((found.leading, found.dntk, found.ddntk), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * max(1, np.abs(other).max()))
    assert np.abs(full[2] - wanted[2]).max() > 1e-4  # they are not the same by being alike


@pytest.mark.parametrize("name", ["Z_A", "Z_B", "Z_IA", "Z_IB", "Z_IIA", "Z_IIB"])
@pytest.mark.parametrize("schedule", ["descent", "flow to the end"])
def test_no_coefficient_may_be_another(name: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, examples, targets = _reference()
    start = Linearised.of(network, examples.on([0, 3]), targets[[0, 3]])
    points = Derivatives(network, TEST)
    training = _schedules(start.rates[-1])[schedule]
    wanted = sum(displacement(start, training).orders(points, reduced=True))
    np.testing.assert_allclose(closed_form(start, points, training).prediction, wanted, rtol=0, atol=1e-12)
    terms = getattr(coefficients, name)
    for place, term in enumerate(terms):
        if training.is_flow and term.coincidences:
            continue  # a flow has no two times that coincide
        changed = (*terms[:place], replace(term, factor=term.factor * 1.001), *terms[place + 1 :])
        monkeypatch.setattr(coefficients, name, changed)
        assert np.abs(closed_form(start, points, training).prediction - wanted).max() > 1e-11, place


def test_training_points_are_interpolated_at_the_end(started: tuple[Linearised, Derivatives]) -> None:
    start, _ = started
    wanted = start.on.value - start.residual
    for training in (Schedule(), Schedule(1.0 / start.rates[-1])):
        np.testing.assert_allclose(closed_form(start, start.on, training).prediction, wanted, atol=1e-10)
    np.testing.assert_allclose(sum(displacement(start, Schedule()).orders(start.on)), wanted, atol=1e-10)


def test_rescaled_parameters_with_their_rates_are_trained_alike() -> None:
    class Scaled(_Reference):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor
            with torch.no_grad():
                self.W2 /= factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = 1.5 * torch.tanh(x @ self.W1.T / 2)
            hidden = 1.5 * torch.tanh(hidden @ (self.factor * self.W2).T / 12**0.5)
            return hidden @ self.W3.T / 12**0.5

    plain = _frozen(_Reference())
    scaled = _frozen(Scaled(3.0), W2=1 / 9)
    made = []
    for network in (plain, scaled):
        start, points = Linearised.of(network, TRAIN, REFERENCE["y_train"]), Derivatives(network, TEST)
        found = closed_form(start, points, Schedule())
        made.append([found.leading, found.dntk, found.ddntk, *displacement(start, Schedule(time=2.0)).orders(points)])
    np.testing.assert_allclose(made[0], made[1], atol=1e-11)
    other = _frozen(Scaled(3.0))  # without the rates it is another training
    start = Linearised.of(other, TRAIN, REFERENCE["y_train"])
    assert np.abs(closed_form(start, Derivatives(other, TEST), Schedule()).leading - made[0][0]).max() > 1e-2


def test_descent_of_small_steps_is_flow_and_long_training_ends() -> None:
    start, points = Linearised.of(*_reference()), Derivatives(_reference()[0], TEST)
    flow = closed_form(start, points, Schedule(time=2.0)).prediction
    errors = [
        np.abs(closed_form(start, points, Schedule(2.0 / steps, steps)).prediction - flow).max() for steps in (256, 512)
    ]
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)
    long = closed_form(start, points, Schedule(time=45 / start.rates[0])).prediction
    np.testing.assert_allclose(long, closed_form(start, points, Schedule()).prediction, atol=1e-9)


def test_modes_of_like_rates_are_merged() -> None:
    torch.manual_seed(0)
    network = _frozen(nn.Sequential(nn.Linear(4, 40), nn.Tanh(), nn.Linear(40, 2)))
    rng = np.random.default_rng(0)
    examples, targets = Examples.from_arrays(rng.standard_normal((7, 4))), rng.standard_normal((7, 2))
    start, points = Linearised.of(network, examples, targets), Derivatives(network, TEST)
    for training, most in ((Schedule(1 / start.rates[-1], 4), 5), (Schedule(), 12)):
        found = closed_form(start, points, training, tolerance=1e-5)
        assert found.modes <= most < len(start.rates)
        every = closed_form(start, points, training)
        for one, other in zip(
            (found.leading, found.dntk, found.ddntk), (every.leading, every.dntk, every.ddntk), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * np.abs(other).max())


@pytest.mark.parametrize("examples", ["repeated", "few parameters"])
def test_a_singular_kernel_is_trained_for_a_time_but_not_to_the_end(examples: str) -> None:
    rng = np.random.default_rng(0)
    if examples == "repeated":
        network, given = _reference()[0], TRAIN.on([0, 1, 1])
    else:
        torch.manual_seed(0)
        network = _frozen(nn.Sequential(nn.Linear(4, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False)))
        given = Examples.from_arrays(rng.standard_normal((7, 4)))
    targets = rng.standard_normal((len(given), network.check(given)))
    start, points = Linearised.of(network, given, targets), Derivatives(network, TEST)
    assert len(start.rates) < start.on.r
    training = Schedule(time=0.5)
    found, wanted = closed_form(start, points, training), displacement(start, training).orders(points, reduced=True)
    for one, other in zip((found.leading, found.dntk, found.ddntk), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * max(1, np.abs(other).max()))
    for way in (closed_form, lambda *given: displacement(given[0], given[2])):
        with pytest.raises(SettingsError, match="full rank"):
            way(start, points, Schedule())


def test_what_cannot_be_expanded_is_refused_in_a_sentence() -> None:
    network, examples, targets = _reference()
    start = Linearised.of(network, examples, targets)
    with pytest.raises(SettingsError, match="diverges"):
        displacement(start, Schedule(2.1 / start.rates[-1], 5))
    with pytest.raises(SettingsError, match=r"steps of 1e-06 here, above 1,000,000"):
        displacement(start, Schedule(1e-6))
    with pytest.raises(SettingsError, match="a target for each"):
        Linearised.of(network, examples, targets[:2])
    with pytest.raises(SettingsError, match="finite targets"):
        Linearised.of(network, examples, targets * math.nan)
    with pytest.raises(NetworkError, match="before training"):
        Derivatives(Network.from_module(_Reference()), TRAIN)
    with pytest.raises(NetworkError, match="float64"):
        Derivatives(Network.from_module(_Reference(), initial=_Reference().state_dict(), precision="float32"), TRAIN)
    with pytest.raises(SettingsError, match="for a time that ends"):
        train(network, examples, targets, Schedule())
    with pytest.raises(SettingsError, match="diverged"):
        train(network, examples, 1e3 * targets, Schedule(1e3, 400))
    for step, time, said in (
        (-1.0, 1.0, "a positive number"),
        (0.0, math.nan, "0 or more"),
        (0.1, -1, "0 or more"),
        (0.1, 2.5, "whole number"),
    ):
        with pytest.raises(SettingsError, match=said):
            Schedule(step, time)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.shape = x.shape
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad.reshape(ctx.shape)


def test_operations_that_are_derived_only_once_are_refused_in_a_sentence() -> None:
    class Module(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return _Once.apply(super().forward(x))

    with pytest.raises(NetworkError, match="derived only once"):
        Derivatives(_frozen(Module(4, 1)), TRAIN)

    class Raises(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("not with gradients")
            return super().forward(x)

    with pytest.raises(NetworkError, match="not with gradients"):
        Derivatives(_frozen(Raises(4, 1)), TRAIN)


def test_neither_way_knows_the_other() -> None:
    for module, other in ((hierarchy, "closed_form"), (inspect.getmodule(closed_form), "hierarchy")):
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert other not in f"{node.module} {' '.join(alias.name for alias in node.names)}"
