"""Feature kinds: sharp, first order and path against loops of autograd, a search for kinks and dense quadrature."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Cnn, Decoder, Recurrent, mlp
from numpy.polynomial import Polynomial
from oracles import dense_jacobian
from torch import nn

from feature_lens.errors import NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.kinds import KINDS, exact_path
from feature_lens.features.kinds.kinks import crossings, refined
from feature_lens.networks import Network

Make = Callable[[], nn.Module]


def _relu() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.LeakyReLU(0.2), nn.Linear(6, 3))


def _deep() -> nn.Module:
    """Four layers, so polynomials of degree four, and every function that has kinks."""
    return nn.Sequential(
        nn.Linear(5, 6), nn.ReLU6(), nn.Linear(6, 6), nn.Hardtanh(-0.5, 0.7), nn.Linear(6, 5), nn.ReLU(inplace=True),
        nn.Linear(5, 5), nn.Threshold(0.1, 0.1), nn.Linear(5, 2),
    )  # fmt: skip


class _Pooled(nn.Module):
    """Convolution, maximum over windows, absolute values (also of one number per example), a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out, self.side = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(12, 2), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.max_pool2d(self.conv(x), 2)
        flat = x.flatten(1)
        return (
            self.out(torch.abs(pooled).flatten(1))
            + self.side(flat).clamp(min=-0.2, max=0.3) * flat[:, 0].abs()[:, None]
        )


class _Square(nn.Module):
    """Quadratic units: polynomial along the line without any kink."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x) ** 2)


class _Tied(nn.Module):
    """ReLU((W^T W + V^T) x + b): a matrix that is used twice, once transposed, and one transposed the other way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.other = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5, 5))
        self.bias = nn.Parameter(torch.randn(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.linear(x, self.weight)
        turned = nn.functional.linear(x, self.other.mT)
        return torch.relu(nn.functional.linear(hidden, self.weight.T, self.bias) + turned)


SHAPES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "relu": (_relu, (5,)),
    "deep": (_deep, (5,)),
    "pooled": (_Pooled, (1, 4, 4)),
    "square": (_Square, (5,)),
    "tied": (_Tied, (5,)),
    "mlp": (mlp, (5,)),
    "cnn": (Cnn, (2, 8, 8)),
    "gru": (lambda: Recurrent(nn.GRU), (5, 3)),
    "decoder": (Decoder, ()),
}


def _pair(make: Make, spread: float = 0.5) -> tuple[nn.Module, nn.Module]:
    """A module before and after a random displacement, in float64."""
    torch.manual_seed(0)
    start, end = make().double().eval(), make().double().eval()
    with torch.no_grad():
        for before, after in zip(start.parameters(), end.parameters(), strict=True):
            after.copy_(before + spread * torch.randn_like(before))
    return start, end


def _inputs(shape: tuple[int, ...], n: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.standard_normal((n, *shape)) if shape else rng.integers(0, 11, (n, 4))


def _made(name: str, n: int = 5, at: str = "path", outputs: str = "flattened", **more: float) -> EffectiveFeatures:
    make, shape = SHAPES[name]
    start, end = _pair(make)
    network = Network.from_module(end, initial=start.state_dict())
    examples = Examples.from_arrays(_inputs(shape, n), np.arange(n) % 2)
    return EffectiveFeatures(network, examples, at, outputs, **more)  # type: ignore[arg-type]  # tile, tolerance


def _along(name: str, places: np.ndarray, weights: np.ndarray, n: int = 5) -> np.ndarray:
    """Weighted sum of dense Jacobians (n, c, p) at places along the line."""
    make, shape = SHAPES[name]
    start, end = _pair(make)
    moving = make().double().eval()
    total = 0.0
    for place, weight in zip(places, weights, strict=True):
        with torch.no_grad():
            for own, before, after in zip(moving.parameters(), start.parameters(), end.parameters(), strict=True):
                own.copy_(before + place * (after - before))
        total = total + weight * dense_jacobian(moving, _inputs(shape, n))
    return np.asarray(total)


def _added(design: EffectiveFeatures) -> np.ndarray:
    return np.concatenate([value.numpy().ravel() for value in design.network.displacement().values()])


def _change(design: EffectiveFeatures) -> np.ndarray:
    """f(theta*) - f(theta0), by two passes."""
    inputs = design.network.tensor(design.examples.inputs)
    with torch.no_grad():
        ends = [design.network(design.network.at(at), inputs) for at in ("initial", "effective")]
    return (ends[1] - ends[0]).numpy()


def _rows(design: EffectiveFeatures) -> np.ndarray:
    return np.concatenate([block for _, block in design.blocks()])


@pytest.mark.parametrize("name", ["relu", "mlp", "cnn", "decoder", "gru"])
def test_sharp_is_the_mean_of_both_ends_in_every_product(name: str) -> None:
    design = _made(name, at="sharp")
    phi = _along(name, np.array([0.0, 1.0]), np.array([0.5, 0.5])).reshape(design.shape)
    v = np.random.default_rng(0).standard_normal((phi.shape[1], 3))
    np.testing.assert_allclose(_rows(design), phi, atol=1e-12)
    np.testing.assert_allclose(design.gram(), phi @ phi.T, atol=1e-11 * np.abs(phi @ phi.T).max())
    np.testing.assert_allclose(design.matmul(v), phi @ v, atol=1e-11)
    np.testing.assert_allclose(design.held().rmatmul(phi @ v), phi.T @ (phi @ v), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["relu", "mlp", "square", "decoder", "gru"])
def test_first_order_adds_the_derivative_of_the_jacobian_along_the_displacement(name: str) -> None:
    step = 1e-4
    at = np.array([0.0, step, -step, 2 * step, -2 * step])
    # Five points: the error is of fourth order in the step.
    weights = np.array([1.0, 8 / (12 * step), -8 / (12 * step), -1 / (12 * step), 1 / (12 * step)])
    wanted = _along(name, at, weights)
    design = _made(name, at="first_order")
    np.testing.assert_allclose(_rows(design), wanted.reshape(design.shape), atol=3e-8 * np.abs(wanted).max())
    # Where vmap refuses, or gives another answer than autograd, rows are taken one by one, and the run says so.
    assert bool(design.remarks) == (name in ("gru", "decoder"))


def test_first_order_of_some_layers_takes_the_displacement_of_all() -> None:
    whole, part = _made("mlp", at="first_order"), _made("mlp", at="first_order")
    part = EffectiveFeatures(part.network, part.examples, "first_order", layers=["2"])
    at = dict(whole.parameters.slices)
    columns = np.r_[at["2.weight"], at["2.bias"]]
    np.testing.assert_allclose(_rows(part), _rows(whole)[:, columns], atol=1e-13)


@pytest.mark.parametrize("name", ["relu", "deep", "pooled", "square", "tied"])
def test_path_features_of_piecewise_polynomial_nets_add_up_to_rounding(name: str) -> None:
    design = _made(name, n=40)
    found = design.matmul(_added(design)).reshape(40, -1)
    assert design.remarks == ()
    np.testing.assert_allclose(found, _change(design), atol=1e-12 * np.abs(_change(design)).max())


@pytest.mark.parametrize("name", ["relu", "deep", "pooled", "tied"])
def test_path_features_are_the_integral_entry_by_entry(name: str) -> None:
    """Against a midpoint rule, whose error is a kink's jump times the width of its interval at most."""
    nodes = 400
    wanted = _along(name, (np.arange(nodes) + 0.5) / nodes, np.full(nodes, 1 / nodes), n=1)
    found = _rows(_made(name, n=1))
    np.testing.assert_allclose(found, wanted.reshape(found.shape), atol=8 / nodes * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["mlp", "cnn", "decoder"])
def test_path_features_of_other_nets_are_integrated_to_the_tolerance_and_say_so(name: str) -> None:
    design = _made(name, n=3, tolerance=1e-9)
    assert not any("adaptive" in remark for remark in design.remarks)
    if name == "mlp":
        nodes, weights = np.polynomial.legendre.leggauss(40)
        wanted = _along(name, (nodes + 1) / 2, weights / 2, n=3)
        rows = _rows(design)
        np.testing.assert_allclose(rows, wanted.reshape(rows.shape), atol=1e-9 * np.abs(wanted).max())
    change = _change(design)
    tolerance = 1e-8 if name == "mlp" else 1e-2  # kinks that are not looked for leave a residual
    found = design.matmul(_added(design)).reshape(change.shape)
    np.testing.assert_allclose(found, change, atol=tolerance * np.abs(change).max())
    assert any("adaptive quadrature, because" in remark for remark in design.remarks)
    stopped = any("stopped at an estimated error" in remark for remark in design.remarks)
    assert stopped == (name != "mlp")


class _Jumping(nn.Module):
    """Jumps where the sum of its weights changes its sign, which no derivative shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x)) + (self.layer.weight.sum() > 0)


def test_path_features_that_do_not_add_up_say_so() -> None:
    module = _Jumping().double().eval()
    ends = [{name: value.fill_(end) for name, value in _Jumping().double().state_dict().items()} for end in (-0.5, 0.5)]
    network = Network.from_module(module, trained=ends[1], initial=ends[0])
    design = EffectiveFeatures(network, Examples.from_arrays(_inputs((3,), 6)), "path")
    design.gram()
    assert any("do not add up to what training added" in remark for remark in design.remarks)


@pytest.mark.parametrize("layers", [None, ["0"]])
def test_a_kink_that_is_missed_on_a_later_tile_is_seen(
    layers: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _rows(_made("relu", n=14, tile=4))[:, : None if layers is None else 42]
    design = _made("relu", n=14, tile=4, layers=layers)  # type: ignore[arg-type]  # passed on
    design.pieces()
    monkeypatch.setattr(exact_path, "crossings", lambda values, edges, degree: [np.empty(0) for _ in edges])
    found = _rows(design)
    assert any("do not add up to what training added on a tile" in remark for remark in design.remarks)
    # Kinks that are not looked for leave a residual, as in other nets.
    np.testing.assert_allclose(found, wanted[:, : found.shape[1]], atol=1e-2 * np.abs(wanted).max())


@pytest.mark.parametrize("outputs", ["trace", "target", "output:1", "margin"])
def test_path_features_of_every_reduction(outputs: str) -> None:
    n = 2 if outputs == "margin" else 12
    whole, design = _made("relu", n=n), _made("relu", n=n, outputs=outputs, tile=n)
    phi, found = _rows(whole).reshape(n, 3, -1), _rows(design)
    if outputs == "trace":
        np.testing.assert_allclose(found, phi.reshape(12, -1), atol=1e-13)
    elif outputs == "margin":
        assert any("not a linear function" in remark for remark in design.remarks)
    else:
        chosen = np.arange(12) % 2 if outputs == "target" else np.ones(12, dtype=int)
        np.testing.assert_allclose(found, phi[np.arange(12), chosen], atol=1e-13)


@pytest.mark.parametrize("at", ["sharp", "path", "first_order"])
def test_no_kind_depends_on_tiles(at: str) -> None:
    one, other = (_rows(_made("relu", n=9, at=at, tile=tile)) for tile in (9, 2))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)
    kernel = _made("relu", n=9, at=at).gram()
    np.testing.assert_allclose(kernel, one @ one.T, atol=1e-12 * np.abs(kernel).max())


def test_a_line_of_no_length_gives_the_effective_features() -> None:
    torch.manual_seed(0)
    module = _relu().double()
    network = Network.from_module(module, initial=module.state_dict())
    examples = Examples.from_arrays(_inputs((5,), 6))
    wanted = _rows(EffectiveFeatures(network, examples))
    for at in KINDS:
        np.testing.assert_allclose(_rows(EffectiveFeatures(network, examples, at)), wanted, atol=1e-13)


def test_kinds_need_initial_parameters_and_a_known_name() -> None:
    network = Network.from_module(mlp())
    examples = Examples.from_arrays(_inputs((5,), 4))
    for at in set(KINDS) - {"effective"}:
        with pytest.raises(NetworkError, match="need the parameters before training"):
            EffectiveFeatures(network, examples, at)
    with pytest.raises(SettingsError, match=r"No feature kind is called 'sharpe'; .*Did you mean 'sharp'"):
        EffectiveFeatures(network, examples, "sharpe")


@settings(max_examples=40, deadline=None)
@given(degree=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_zeros_of_piecewise_polynomials_are_all_found(degree: int, seed: int) -> None:
    """Two examples of three pieces each, with simple roots at known places."""
    rng = np.random.default_rng(seed)
    edges = np.array([[0.0, 0.3, 0.7, 1.0], [0.0, 0.45, 1.0, 1.0]])
    inside = [np.sort(rng.uniform(low, high, degree)) for row in edges for low, high in itertools.pairwise(row)]
    polynomials = [Polynomial.fromroots(roots) for roots in inside]

    def evaluate(places: np.ndarray) -> np.ndarray:
        per_piece = places.reshape(2, 3, degree + 1)
        values = [[polynomials[3 * b + m](per_piece[b, m]) for m in range(3)] for b in range(2)]
        return np.array(values).reshape(2, -1, 1)

    found = crossings(evaluate, edges, degree)
    for example, pieces in ((0, (0, 1, 2)), (1, (3, 4))):
        for root in np.concatenate([inside[piece] for piece in pieces]):
            gap = np.diff(np.sort(np.concatenate([inside[piece] for piece in pieces]))).min(initial=1.0)
            if gap > 0.01:  # of roots that nearly coincide the place is ill-conditioned
                assert np.abs(found[example] - root).min() < 1e-8


def test_edges_are_refined_example_by_example() -> None:
    edges = refined(np.array([[0.0, 1.0], [0.0, 1.0]]), [np.array([0.5, 0.25]), np.array([])])
    np.testing.assert_array_equal(edges, [[0.0, 0.25, 0.5, 1.0], [0.0, 1.0, 1.0, 1.0]])
