"""Every layer rule, crossed with everything that is computed from it, against a loop of autograd in float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Attention, Checkpointed, Cnn, Decoder, InPlace, Recurrent, mlp
from oracles import dense_jacobian
from torch import nn

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.centred_rows import CentredDesign
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.rules import RULES
from feature_lens.networks import Network


class _Bare(nn.Module):
    """Parameters that are added, multiplied in, taken off, divided by, expanded, indexed and joined by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.add, self.mul, self.sub, self.div, self.scale = (nn.Parameter(torch.rand(4) + 1) for _ in range(5))
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(3, 4))
        self.heads, self.table = nn.Parameter(torch.randn(2, 4, 3)), nn.Parameter(torch.randn(5, 4))
        self.left = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh((x + self.add) * self.mul - self.sub) / self.div * self.gain + self.gain
        h = h + self.table[(x[:, 0].abs() * 10).long() % 5]
        h = torch.cat([self.token.expand(len(x), -1, -1), h[:, None], h[:, None].square()], dim=1) + self.places
        heads = torch.einsum("btd,hde->bthe", h, self.heads)
        side = (self.left @ torch.sin(h[:, 1] * self.scale).T).T
        return heads.square().sum(dim=(1, 2)) + side - 2 * torch.rsub(side, 1)


class _Twice(nn.Module):
    """One linear layer called with two inputs, and its weight used as an embedding and by a function of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.layer(x)) + torch.sin(self.layer(x.square()))
        return self.out(h + self.layer.weight[(x[:, 1].abs() * 10).long() % 4]) + (h @ self.layer.weight)[:, :2]


class _Positions(nn.Module):
    """Learnt positions looked up by the same numbers for all examples, packed and separate projections, two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, 4, padding_idx=0), nn.Embedding(5, 4)
        self.norm, self.rms = nn.LayerNorm(4), nn.RMSNorm(4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=False)
        self.cross = nn.MultiheadAttention(4, 1, batch_first=True, bias=False)
        self.out = nn.Linear(4, 3)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        h = self.tokens(t) + self.places(torch.arange(t.shape[1]))
        z = self.norm(h).transpose(0, 1)
        h = h + self.attend(z, z, z, need_weights=False)[0].transpose(0, 1)
        h = h + self.cross(self.rms(h), h * 2, h, need_weights=False)[0]
        return self.out(h[:, -1])


class _Maps(nn.Module):
    """Convolutions of every kind: strided, padded, dilated, grouped, depthwise, transposed, of 1, 2 and 3 dimensions."""

    def __init__(self, stride: int, padding: int, dilation: int, groups: int) -> None:
        super().__init__()
        self.two = nn.Conv2d(2, 4, 3, stride=stride, padding=padding + dilation, dilation=dilation, groups=groups)
        self.depth = nn.Conv2d(4, 4, (1, 3), groups=4, padding="same", bias=False)
        self.norm, self.group = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
        self.up = nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=groups, dilation=dilation)
        self.one, self.three = nn.Conv1d(2, 3, 2, stride=stride), nn.Conv3d(1, 2, (2, 1, 2), padding=padding)
        self.back = nn.ConvTranspose1d(3, 2, 2, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.group(torch.tanh(self.depth(self.norm(self.two(x)))))
        h = self.up(h)
        volume = self.three(x[:, None]).square().mean(dim=(2, 3, 4))
        return self.back(torch.sin(self.one(h.flatten(2)))).mean(dim=2) + volume


def _tied() -> nn.Module:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), first, nn.Linear(3, 2))


class _Ignoring(nn.Module):
    """Its second output does not depend on the input, its third not on the parameters; a layer runs without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.unseen, self.free = nn.Linear(3, 2), nn.Linear(3, 2), nn.Parameter(torch.randn(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden = self.unseen(x)
        return torch.stack([self.seen(x * hidden.mean(1)[:, None]).sum(1), self.free.expand(len(x)), x[:, 0]], dim=1)


class _Hooked(nn.Module):
    """Hooks that its user has installed: one changes what a layer returns, one counts backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.first.register_forward_hook(lambda _m, _i, out: out * 2)
        self.first.register_full_backward_hook(lambda *_: None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def _numbers(*shape: int) -> Callable[[int], np.ndarray]:
    return lambda n: np.random.default_rng(n).standard_normal((n, *shape))


def _tokens(kinds: int, length: int) -> Callable[[int], np.ndarray]:
    return lambda n: np.random.default_rng(n).integers(0, kinds, (n, length))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], np.ndarray]]] = {
    "mlp": (mlp, _numbers(5)),
    "cnn": (Cnn, _numbers(2, 8, 8)),
    "decoder": (Decoder, _tokens(11, 4)),
    "positions": (_Positions, _tokens(7, 4)),
    "bare": (_Bare, _numbers(4)),
    "twice": (_Twice, _numbers(4)),
    "tied": (_tied, _numbers(3)),
    "maps": (lambda: _Maps(2, 1, 1, 2), _numbers(2, 5, 6)),
    "gru": (lambda: Recurrent(nn.GRU), _numbers(5, 3)),
    "lstm": (lambda: Recurrent(nn.LSTM), _numbers(5, 3)),
    "rnn": (lambda: Recurrent(nn.RNN), _numbers(5, 3)),
    "attention": (Attention, _numbers(3, 4)),
    "in place": (InPlace, _numbers(3)),
    "checkpointed": (lambda: Checkpointed(reentrant=False), _numbers(3)),
    "ignoring": (_Ignoring, _numbers(3)),
    "hooked": (_Hooked, _numbers(3)),
    "image tokens": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm((3, 6)), nn.Flatten(), nn.Linear(18, 2)),
        _numbers(3, 4),
    ),
}
# Fall down the ladder, each with its reason.
FALLING = {
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 2)), _numbers(3), "PreluKernel"),
    "bilinear": (lambda: _Bilinear(), _numbers(3), "Trilinear"),
    "reentrant": (lambda: Checkpointed(reentrant=True), _numbers(3), "may hide"),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)),
        _numbers(3),
        "made what examples share",
    ),
}


class _Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(3, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, x.square())


_KNOWN: dict[str, np.ndarray] = {}


def _design(
    make: Callable[[], nn.Module], inputs: np.ndarray, outputs: str = "flattened", case: str = "", **more: int
) -> tuple[EffectiveFeatures, np.ndarray]:
    """Effective features and their dense matrix from the oracle, (n, c, p), with unlike learning rates.

    A case that has a name always has the same inputs, so its matrix is made once.
    """
    torch.manual_seed(0)
    module = make().double().eval()
    rated = [name for place, (name, _) in enumerate(module.named_parameters()) if place % 3 == 1]
    network = Network.from_module(module, learning_rates=dict.fromkeys(rated, 0.25))
    labels = np.arange(len(inputs)) % 2
    jacobian = _KNOWN[case] if case in _KNOWN else dense_jacobian(module, inputs)
    if case:
        _KNOWN[case] = jacobian
    scale = np.sqrt(np.repeat(network.parameters.learning_rates, network.parameters.sizes))
    design = EffectiveFeatures(network, Examples.from_arrays(inputs, labels), outputs=outputs, **more)
    return design, jacobian * scale


def _rows(jacobian: np.ndarray, outputs: str) -> np.ndarray:
    n, _, p = jacobian.shape
    return {
        "flattened": lambda: jacobian.reshape(-1, p),
        "trace": lambda: jacobian.reshape(n, -1),
        "target": lambda: jacobian[np.arange(n), np.arange(n) % 2],
    }[outputs]()


def _close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * max(1.0, float(np.abs(wanted).max())))


def _check_all(design: EffectiveFeatures, phi: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    v, u = rng.standard_normal((phi.shape[1], 9)), rng.standard_normal((phi.shape[0], 9))
    _close(np.concatenate([block for _, block in design.blocks()]), phi)
    kernel = phi @ phi.T
    _close(design.gram(), kernel)
    _close(sum(design.kernels(by="tensor").values()), kernel)
    _close(design.diagonal(), np.diag(kernel))
    for operator in (design, design.held()):
        _close(operator.matmul(v), phi @ v)
        _close(operator.matmul(v[:, 0]), phi @ v[:, 0])
        _close(operator.rmatmul(u), phi.T @ u)
    q = design.rows_per_example
    _close(design.mean(), phi.reshape(-1, q, phi.shape[1]).mean(axis=0))
    centred = CentredDesign(design, design.mean())
    less = (phi.reshape(-1, q, phi.shape[1]) - design.mean()).reshape(phi.shape)
    _close(centred.gram(), less @ less.T)
    _close(centred.held().matmul(v), less @ v)
    _close(centred.rmatmul(u), less.T @ u)
    assert centred.squared_norm() == pytest.approx(float(np.square(less).sum()), rel=1e-10)


@pytest.mark.parametrize("outputs", ["flattened", "trace", "target"])
@pytest.mark.parametrize("name", CASES)
def test_everything_equals_a_loop_of_autograd(name: str, outputs: str) -> None:
    make, inputs = CASES[name]
    design, jacobian = _design(make, inputs(4), outputs, case=name)
    _check_all(design, _rows(jacobian, outputs))
    assert design.remarks == ()


@pytest.mark.parametrize("name", FALLING)
def test_what_no_rule_takes_falls_by_itself_and_says_so(name: str) -> None:
    make, inputs, reason = FALLING[name]
    design, jacobian = _design(make, inputs(6))
    _check_all(design, _rows(jacobian, "flattened"))
    assert any("without a layer rule" in remark and reason in remark for remark in design.remarks)


def test_every_rule_is_needed_by_some_case() -> None:
    """A rule that no case runs would be tested by nothing."""
    met: set[str] = set()
    known = dict(RULES.items())
    original = type(RULES).__getitem__

    def noted(registry: object, name: str) -> object:
        met.add(name)
        return original(registry, name)  # type: ignore[arg-type]  # the registry itself

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(RULES), "__getitem__", noted)
        for make, inputs in CASES.values():
            design, _ = _design(make, inputs(3))
            design.plan()
    assert met >= set(known)
    assert all(inspect.isfunction(rule) for rule in known.values())


@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(1, 13),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
)
def test_convolutions_of_any_shape(n: int, stride: int, padding: int, dilation: int, groups: int) -> None:
    design, jacobian = _design(lambda: _Maps(stride, padding, dilation, groups), _numbers(2, 7, 6)(n))
    _close(np.concatenate([block for _, block in design.blocks()]), _rows(jacobian, "flattened"))
    _close(design.gram(), _rows(jacobian, "flattened") @ _rows(jacobian, "flattened").T)
    assert design.remarks == ()


@settings(max_examples=6, deadline=None)
@given(n=st.integers(1, 16), length=st.integers(2, 5), tile=st.integers(1, 9), memory=st.integers(400_000, 800_000))
def test_blocks_and_tiles_of_any_size(n: int, length: int, tile: int, memory: int) -> None:
    design, jacobian = _design(_Positions, _tokens(7, length)(n), tile=tile, memory=memory)
    phi = _rows(jacobian, "flattened")
    _close(design.gram(), phi @ phi.T)
    _close(design.rmatmul(np.ones(len(phi))), phi.sum(axis=0))


class _Branching(nn.Module):
    """Computes the same by another way where any example of a batch is large."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x > 50).any()):
            return self.out(torch.tanh(x @ self.layer.weight.T + self.layer.bias))
        return self.out(torch.tanh(self.layer(x)))


def test_a_network_that_takes_another_way_later_falls_down_the_ladder() -> None:
    inputs = _numbers(3)(40)
    inputs[5] = 60.0  # not among the examples that are tried first
    design, jacobian = _design(_Branching, inputs, tile=4)
    _check_all(design, _rows(jacobian, "flattened"))
    assert any("run otherwise than before" in remark for remark in design.remarks)


def test_kernels_between_two_sets_of_examples_and_of_each_output() -> None:
    design, jacobian = _design(_Positions, _tokens(7, 4)(9))
    left, right = np.arange(4), np.arange(4, 9)
    phi = _rows(jacobian, "flattened").reshape(9, -1, jacobian.shape[2])
    wanted = phi[left].reshape(-1, phi.shape[2]) @ phi[right].reshape(-1, phi.shape[2]).T
    for by in ("whole", "layer", "tensor"):
        parts = design.on(left).kernels(design.on(right), by=by)
        _close(sum(parts.values()), wanted)
    each = design.kernels(each_output=True)[""]
    _close(each, np.einsum("nip,mip->inm", jacobian, jacobian))
    trace, _ = _design(_Positions, _tokens(7, 4)(9), "trace")
    _close(each.sum(axis=0), trace.gram())
    of_tensor = design.kernels(by="tensor")
    for name, at in design.parameters.slices:
        own = phi.reshape(-1, phi.shape[2])[:, at]
        _close(of_tensor[name], own @ own.T)


@pytest.mark.parametrize(("memory", "outputs"), [(1 << 17, "flattened"), (1 << 29, "trace")])
def test_no_bit_depends_on_workers_whatever_the_memory(memory: int, outputs: str) -> None:
    one, four = (
        _design(_Positions, _tokens(7, 4)(40), outputs, memory=memory, workers=workers)[0] for workers in (1, 4)
    )
    u = np.random.default_rng(0).standard_normal((one.shape[0], 2))
    assert one.gram().tobytes() == four.gram().tobytes()
    assert one.rmatmul(u).tobytes() == four.rmatmul(u).tobytes()


def test_too_little_memory_and_unlike_designs_are_told() -> None:
    little, _ = _design(mlp, _numbers(5)(240), memory=1 << 16)
    plenty, _ = _design(mlp, _numbers(5)(240))
    # Blocks and tiles of a few examples: the same products, in other orders.
    np.testing.assert_allclose(little.gram(), plenty.gram(), rtol=1e-12, atol=1e-12)
    design, _ = _design(mlp, _numbers(5)(240), memory=1 << 10)
    with pytest.raises(SettingsError, match="working memory of at least"):
        design.gram()
    other, _ = _design(_tied, _numbers(3)(4))
    with pytest.raises(SettingsError, match="two different ones"):
        design.kernels(other)
    with pytest.raises(SettingsError, match="whole, layer or tensor"):
        design.kernels(by="row")  # type: ignore[arg-type]  # what a user may type


def test_the_plan_counts_both_ways_and_prints_them() -> None:
    design, _ = _design(Decoder, _tokens(11, 4)(6))
    plan = design.plan(40)
    assert sorted(place for share in plan.shares for place in share.members) == list(range(len(design.pieces())))
    for share in plan.shares:
        assert share.other_cost is None or share.cost <= share.other_cost
    said = str(plan)
    assert said.startswith("kernel 440 x 440")
    assert all(name in said for name in design.parameters.names)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_results_do_not_depend_on_the_number_of_workers(precision: str) -> None:
    torch.manual_seed(0)
    network = Network.from_module(Cnn().eval(), precision=precision)  # type: ignore[arg-type]  # one of two
    inputs = _numbers(2, 8, 8)(70)
    found = []
    for workers in (1, 3):
        design = EffectiveFeatures(network, Examples.from_arrays(inputs), workers=workers)
        u = np.random.default_rng(0).standard_normal((design.shape[0], 5))
        found.append((design.gram(), design.rmatmul(u), design.held().matmul(design.rmatmul(u))))
    for one, other in zip(*found, strict=True):
        assert one.tobytes() == other.tobytes()
    assert found[0][0].dtype == precision


def test_float32_kernels_agree_with_a_float64_jacobian() -> None:
    for make, inputs in (CASES[name] for name in ("mlp", "cnn", "decoder")):
        torch.manual_seed(0)
        module = make().eval()
        network = Network.from_module(module, precision="float32")
        design = EffectiveFeatures(network, Examples.from_arrays(inputs(5)))
        rows = _rows(dense_jacobian(module, inputs(5)), "flattened")
        wanted = rows @ rows.T
        assert np.abs(design.gram() - wanted).max() <= 1e-6 * np.abs(wanted).max()
