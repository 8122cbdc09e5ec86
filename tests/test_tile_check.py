"""Networks whose graph depends on the data: every tile's gradients are those of a loop of autograd, and what is wrong
in any tile is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import dense_jacobian
from torch import nn

from feature_lens.examples import Examples
from feature_lens.features import factors as factors_module
from feature_lens.features import own_module as own_module_module
from feature_lens.features.bases import Eigen
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.rules import RULES, GradientId, Outer, Use
from feature_lens.features.stored_factors import weight_factors
from feature_lens.features.weight_ranking import Wanted, rank_weights
from feature_lens.networks import Network
from feature_lens.networks.network import Precision

N = 48


class Routed(nn.Module):
    """Two layers of one shape whose rows depend on the batch: `way` says how. The first column of the inputs is large
    for rare examples, zeros in the others stand for what is missing."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = getattr(self, "_" + self.way)(x)
        return self.out(hidden)

    def _sorted(self, x: torch.Tensor) -> torch.Tensor:
        order = torch.argsort(x[:, 0], stable=True)
        return torch.tanh(self.second(torch.tanh(self.first(x[order]))))[torch.argsort(order)]

    def _masked(self, x: torch.Tensor) -> torch.Tensor:
        parts = torch.stack([x, x.roll(1, dims=1)], dim=1)
        seen = torch.stack([torch.ones(len(x), dtype=torch.bool), x[:, 0] < 2], dim=1)
        hidden = x.new_zeros(len(x), 2, 4)
        hidden[seen] = torch.tanh(self.first(parts[seen]))
        return torch.tanh(self.second(hidden.sum(dim=1)))

    def _experts(self, x: torch.Tensor) -> torch.Tensor:
        rare = x[:, 0] > 2
        hidden = x.new_zeros(len(x), 4)
        hidden[~rare] = torch.tanh(self.first(x[~rare]))
        hidden[rare] = torch.tanh(self.second(x[rare]))
        return hidden

    def _early(self, x: torch.Tensor) -> torch.Tensor:
        hidden, hard = torch.tanh(self.first(x)), x[:, 0] > 2
        return hidden.masked_scatter(hard[:, None], torch.tanh(self.second(hidden[hard])))

    def _branch(self, x: torch.Tensor) -> torch.Tensor:
        """The same numbers by other operations."""
        rare = bool((x[:, 0] > 2).any())
        hidden = x @ self.first.weight.T + self.first.bias if rare else self.first(x)
        return torch.tanh(self.second(torch.tanh(hidden)))

    def _swapped(self, x: torch.Tensor) -> torch.Tensor:
        """Both layers of one input, in an order that the batch decides."""
        layers = [self.first, self.second] if bool((x[:, 0] > 2).any()) else [self.second, self.first]
        made = {layer: torch.tanh(layer(x)) for layer in layers}
        return made[self.first] * made[self.second].square()

    def _packed(self, x: torch.Tensor) -> torch.Tensor:
        lengths = torch.where(x[:, 0] > 2, 1, 2)
        steps = torch.stack([x, x.square()], dim=1)
        packed = nn.utils.rnn.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
        changed = packed._replace(data=torch.tanh(self.second(torch.tanh(self.first(packed.data)))))
        return nn.utils.rnn.pad_packed_sequence(changed, batch_first=True, total_length=2)[0].sum(dim=1)


WAYS = ["sorted", "masked", "experts", "early", "branch", "swapped", "packed"]


def _routed(way: str, rare: list[int], seed: int = 0) -> tuple[Network, np.ndarray, np.ndarray]:
    """A network, inputs of which those at `rare` take the rare way, and the dense Jacobian (n, q, p)."""
    torch.manual_seed(seed)
    module = Routed(way).double().eval()
    x = np.random.default_rng(seed).standard_normal((N, 4)).clip(-1.9, 1.9)
    x[rare, 0] = 3
    return Network.from_module(module), x, dense_jacobian(module, x)


def _right(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-11) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def _holds(design: EffectiveFeatures, rows: np.ndarray) -> None:
    _right(np.concatenate([block for _, block in design.blocks()]), rows)
    _right(design.gram(), rows @ rows.T)
    _right(design.diagonal(), (rows**2).sum(axis=1))
    u = np.random.default_rng(0).standard_normal((len(rows), 2))
    _right(design.rmatmul(u), rows.T @ u)
    _right(design.held().matmul(rows.T @ u), rows @ (rows.T @ u))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_rare_examples_of_any_kind_have_right_features(way: str, workers: int) -> None:
    network, x, jacobian = _routed(way, [1, 20, 33])
    design = EffectiveFeatures(network, Examples.from_arrays(x), tile=8, workers=workers)
    _holds(design, jacobian.reshape(-1, jacobian.shape[2]))


@settings(max_examples=12, deadline=None)
@given(
    way=st.sampled_from(WAYS),
    rare=st.lists(st.integers(0, N - 1), max_size=5),
    tile=st.integers(2, 50),
    outputs=st.sampled_from(["trace", "flattened"]),
    seed=st.integers(0, 3),
)
def test_rare_examples_at_random_places(way: str, rare: list[int], tile: int, outputs: str, seed: int) -> None:
    network, x, jacobian = _routed(way, rare, seed)
    design = EffectiveFeatures(network, Examples.from_arrays(x), outputs=outputs, tile=tile)
    rows = jacobian.reshape(N, -1) if outputs == "trace" else jacobian.reshape(-1, jacobian.shape[2])
    _right(design.gram(), rows @ rows.T)
    _right(design.diagonal(), (rows**2).sum(axis=1))


@pytest.mark.parametrize("way", ["masked", "branch", "swapped"])
def test_designs_that_share_a_source_share_its_form(way: str) -> None:
    network, x, jacobian = _routed(way, [33])
    rows = jacobian.reshape(-1, jacobian.shape[2])
    examples = Examples.from_arrays(x, split=np.arange(N) < 30)
    design = EffectiveFeatures(network, examples, tile=6)
    part, rest = design.on(np.arange(30)), design.on(np.arange(30, N))
    design.plan()
    _right(part.gram(), rows[:60] @ rows[:60].T)  # the usual way alone
    _right(part.kernels(rest)[""], rows[:60] @ rows[60:].T)  # the form changes in here
    _right(part.gram(), rows[:60] @ rows[:60].T)
    _holds(design, rows)
    fresh = EffectiveFeatures(network, examples, tile=6).on(np.arange(30))
    _right(fresh.kernels(rest)[""], rows[:60] @ rows[60:].T)  # two sources, of which one has changed
    basis = Eigen(4).fit(EffectiveFeatures(network, examples, tile=6))
    values, vectors = np.linalg.eigh(rows[:60] @ rows[:60].T)
    wanted = np.abs(rows @ (rows[:60].T @ vectors[:, ::-1][:, :4]) / np.sqrt(values[::-1][:4]))
    found = np.abs(basis.transform(EffectiveFeatures(network, examples, tile=6)))
    np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.mark.parametrize("way", ["masked", "experts"])
def test_rankings_and_kept_factors_begin_again_where_the_form_changes(way: str) -> None:
    network, x, jacobian = _routed(way, [33])
    examples = Examples.from_arrays(x)
    found = rank_weights(EffectiveFeatures(network, examples, tile=6), Wanted(2, lambda g, _: g, 3))
    _right(found.ranking.maximum, jacobian.max(axis=0).T, 1e-6)
    kept = weight_factors(EffectiveFeatures(network, examples, tile=6))
    wanted = np.moveaxis(jacobian, 2, 0)
    _right(np.stack([kept.values(feature).T for feature in range(jacobian.shape[2])]), wanted)


class Scaled(nn.Module):
    """Parameters whose gradients differ by sign, by a factor, or by which axis they lie on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.less, self.twice, self.other = (nn.Parameter(torch.randn(3)) for _ in range(3))
        self.rows = nn.Parameter(torch.randn(3, 1))
        self.last = nn.Linear(9, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sub(self.linear(x) - self.less, self.twice, alpha=2)
        h = torch.add(h, self.other, alpha=-1)
        grid = torch.add(h[:, None, :] * x[:, :, None] + self.rows, self.twice, alpha=-1)
        return self.last(torch.tanh(grid).flatten(1))


class Looked(nn.Module):
    """Two look-ups with padding rows of their own, added: one gradient is handed on to both."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.kind = nn.Embedding(5, 3, padding_idx=0), nn.Embedding(5, 3, padding_idx=1)
        self.out = nn.Linear(3, 2)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.word(t) + self.kind(t.flip(1))).sum(dim=1))


class ReadAtOne(nn.Module):
    """Attention over so many positions, read out at the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.key, self.value, self.out = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        weights = (h[:, :1] @ self.key(x).transpose(1, 2)).softmax(dim=-1)
        return self.out(torch.tanh(h[:, 0] + (weights @ self.value(h))[:, 0]))


def _inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (Scaled, _inputs(15, 3)),
        (Looked, np.random.default_rng(0).integers(0, 5, (20, 4))),
        *((ReadAtOne, _inputs(15, positions, 3)) for positions in (12, 13, 14, 23, 34)),
    ],
    ids=["scaled", "two paddings", *(f"{positions} positions" for positions in (12, 13, 14, 23, 34))],
)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_rules_hold_where_they_seem_to_meet(
    make: Callable[[], nn.Module], inputs: np.ndarray, precision: Precision
) -> None:
    torch.manual_seed(0)
    module = make().eval()
    network = Network.from_module(module, precision=precision)
    design = EffectiveFeatures(network, Examples.from_arrays(inputs))
    jacobian = dense_jacobian(module, inputs)
    rows = jacobian.reshape(-1, jacobian.shape[2])
    u = np.random.default_rng(0).standard_normal((len(rows), 2))
    tolerance = {"float64": 1e-12, "float32": 1e-5}[precision]
    for found, wanted in ((design.gram(), rows @ rows.T), (design.rmatmul(u), rows.T @ u)):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    assert design.remarks == ()  # key.bias, whose gradient is zero but for rounding, has its rule too


def test_identities_of_gradients_are_equal_only_where_all_of_them_is() -> None:
    kinds = [
        GradientId(node, arrangement, scale)
        for node in (-2, -1, 1, 2)
        for arrangement in ((), ("last axis", 1), ("last axis", 2), ("matrix", 2))
        for scale in (-2.0, -1.0, 1.0, 2.0)
    ]
    assert all((one == other) == (i == j) for i, one in enumerate(kinds) for j, other in enumerate(kinds))


class _OneWrongRow:
    """A rule that gives one small row of one later tile to nobody."""

    def __init__(self, threshold: float) -> None:
        self.threshold, self.known, self.met = threshold, dict(RULES.items())["AddmmBackward0"], set[int]()

    def __call__(self, use: Use, g: torch.Tensor) -> list[object]:
        made = self.known(use, g)
        if use.slot == 2 and use.shape[0] == 4:
            small = use.node._saved_mat1[:, 0] < self.threshold
            self.met.update(torch.nonzero(small).flatten().tolist())
            made = [replace(one, g=one.g * ~small[:, None, None, None]) for one in made if isinstance(one, Outer)]
        return list(made)


@pytest.mark.parametrize("forward_mode", [True, False])
def test_a_single_wrong_small_row_is_seen(forward_mode: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double().eval()
    x = _inputs(N, 4)
    x[:, 0] = 1
    x[13] = [-1e-5, 1e-6, 1e-6, 1e-6]
    with torch.no_grad():
        module[0].bias.zero_()
    wrong = _OneWrongRow(0.0)
    monkeypatch.setattr(factors_module, "RULES", dict(RULES.items()) | {"AddmmBackward0": wrong})
    if not forward_mode:

        def none(*_: object) -> object:
            raise NotImplementedError("no forward mode")

        monkeypatch.setattr(own_module_module.OwnModule, "tangents", none)
    design = EffectiveFeatures(Network.from_module(module), Examples.from_arrays(x), tile=12, layers=["0.weight"])
    jacobian = dense_jacobian(module, x)[:, :, :20]
    _right(design.gram(), jacobian.reshape(-1, 20) @ jacobian.reshape(-1, 20).T)
    found = np.concatenate([block for _, block in design.blocks()]).reshape(jacobian.shape)
    np.testing.assert_allclose(found[13], jacobian[13], rtol=1e-9)
    assert wrong.met
    assert any("'0.weight'" in remark and "differs from autograd" in remark for remark in design.remarks)


class _NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh().square())


class _Half(torch.autograd.Function):
    """Backward mode halves a gradient, as straight-through tricks do; forward mode does not."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def backward(ctx: object, g: torch.Tensor) -> torch.Tensor:
        return g / 2

    @staticmethod
    def jvp(ctx: object, tangent: torch.Tensor) -> torch.Tensor:
        return tangent.clone()


@pytest.mark.parametrize("function", [_NoForwardMode, _Half])
@pytest.mark.parametrize("rare", [[], [17]])
def test_backward_mode_is_what_counts(function: type[torch.autograd.Function], rare: list[int]) -> None:
    class Net(Routed):
        def _masked(self, x: torch.Tensor) -> torch.Tensor:
            return function.apply(super()._masked(x))

    torch.manual_seed(0)
    module = Net("masked").double().eval()
    x = _inputs(N, 4).clip(-1.9, 1.9)
    x[rare, 0] = 3
    design = EffectiveFeatures(Network.from_module(module), Examples.from_arrays(x), tile=8)
    jacobian = dense_jacobian(module, x)
    _holds(design, jacobian.reshape(-1, jacobian.shape[2]))


def test_fewer_rows_than_examples_fall_at_once_and_one_reason_is_one_remark() -> None:
    network, x, jacobian = _routed("early", [0, 9, 18])
    design = EffectiveFeatures(network, Examples.from_arrays(x), tile=8)
    _right(design.gram(), jacobian.reshape(-1, 50) @ jacobian.reshape(-1, 50).T)
    remarks = [remark for remark in design.remarks if "without a layer rule" in remark]
    assert remarks == [
        "Gradients without a layer rule for 'second.weight', 'second.bias', because its use in AddmmBackward0 made fewer "
        "rows than there are examples."
    ]


def test_gradients_taken_for_one_though_they_are_two_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single pieces are right here: it is their products together that would be wrong."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double().eval()
    x = _inputs(12, 4)
    monkeypatch.setattr(Use, "arranged", lambda use, *_: (GradientId(0),))
    design = EffectiveFeatures(Network.from_module(module), Examples.from_arrays(x))
    jacobian = dense_jacobian(module, x).reshape(48, -1)
    _right(design.gram(), jacobian @ jacobian.T)
    assert any("products of its gradients with others differ" in remark for remark in design.remarks)
