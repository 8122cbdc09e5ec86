"""Effective features against loops of autograd and against kernels computed in another framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import (
    Attention,
    Checkpointed,
    Cnn,
    Decoder,
    InPlace,
    OldWeightNorm,
    Recurrent,
    mlp,
    new_weight_norm,
)
from oracles import dense_jacobian, made
from torch import nn

from feature_lens.errors import ExamplesError, NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.reductions import REDUCTIONS as REDUCTIONS_REGISTERED
from feature_lens.networks import Network

REFERENCE = np.load(Path(__file__).parent / "reference" / "ntk.npz")


def _reference_network(name: str) -> tuple[Network, Examples]:
    module = {"mlp": mlp, "cnn": Cnn, "decoder": Decoder}[name]().eval()
    prefix = f"{name}/param/"
    state = {
        key.removeprefix(prefix): torch.tensor(REFERENCE[key]) for key in REFERENCE.files if key.startswith(prefix)
    }
    # Float64 before loading: the reference values would lose half their digits in a float32 module.
    return Network.from_module(module.double(), trained=state), Examples.from_arrays(REFERENCE[f"{name}/x"])


@pytest.mark.parametrize("name", ["mlp", "cnn", "decoder"])
def test_kernels_equal_those_of_another_framework(name: str) -> None:
    network, examples = _reference_network(name)
    wanted = REFERENCE[f"{name}/ntk"]
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(network.outputs(examples), REFERENCE[f"{name}/output"], rtol=0, atol=1e-13 * scale)
    features = EffectiveFeatures(network, examples)
    assert features.remarks == ()
    np.testing.assert_allclose(features.gram(), wanted, rtol=0, atol=1e-12 * scale)
    parts = {}
    for parameter in network.trained:
        parts[parameter] = EffectiveFeatures(network, examples, layers=[parameter]).gram()
        of_parameter = REFERENCE[f"{name}/ntk_of/{parameter}"]
        atol = 1e-12 * max(np.abs(of_parameter).max(), 1e-3 * scale)
        np.testing.assert_allclose(parts[parameter], of_parameter, rtol=0, atol=atol)
    np.testing.assert_allclose(sum(parts.values()), wanted, rtol=0, atol=1e-12 * scale)
    spectrum = np.sort(REFERENCE[f"{name}/eigenvalues"])
    np.testing.assert_allclose(np.linalg.eigvalsh(features.gram()), spectrum, rtol=0, atol=1e-12 * spectrum[-1])


def _tied() -> nn.Module:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), first, nn.Linear(3, 2))


def _frozen() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module[0].bias.requires_grad_(False)
    return module


class _Functional(nn.Module):
    """Uses parameters without any module, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 3))
        self.scale = nn.Parameter(torch.randn(4))
        self.out = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.sin(nn.functional.linear(x, self.matrix)) * self.scale
        return nn.functional.linear(hidden * self.scale.exp(), self.out)


class _Alias(nn.Module):
    """Reaches a parameter through a plain list, where swapped-in parameters are not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.kept = [self.first.weight]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(x @ self.kept[0].T + self.first.bias))


TABLE = {
    "tied": (_tied, (3,)),
    "frozen parameter": (_frozen, (3,)),
    "no modules": (_Functional, (3,)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.SiLU(), nn.Linear(4, 2)), (3,)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), (3,)),
    "group norm": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(12, 2)),
        (2, 5),
    ),
    "dilated": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 2, dilation=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)),
        (2, 4, 4),
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(15, 2)),
        (2, 4),
    ),
    "one output": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)), (3,)),
    "dropout off": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2)), (3,)),
}
BY_RULES = {
    "gru": (lambda: Recurrent(nn.GRU), (5, 3)),
    "lstm": (lambda: Recurrent(nn.LSTM), (5, 3)),
    "in place": (InPlace, (3,)),
    "checkpointed": (lambda: Checkpointed(reentrant=False), (3,)),
    "attention": (Attention, (3, 4)),
    "alias": (_Alias, (3,)),
}
BY_LOOP = {
    "checkpointed, reentrant": (lambda: Checkpointed(reentrant=True), (3,)),
    "weight_norm": (new_weight_norm, (3,)),
    "weight_norm by hooks": (OldWeightNorm, (3,)),
}


@pytest.mark.parametrize("name", [*TABLE, *BY_RULES, *BY_LOOP])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_rows_equal_a_loop_of_autograd(name: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    make, shape = (TABLE | BY_RULES | BY_LOOP)[name]
    module = make()
    network, examples = made(module, shape, 7, 1 if name == "one output" else 2)
    with caplog.at_level("INFO", logger="feature_lens"):
        features = EffectiveFeatures(network, examples, tile=3)
        found = np.concatenate([block for _, block in features.blocks()])
    wanted = _by_oracle(module.eval(), np.asarray(examples.inputs))
    assert features.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)
    assert any("loop of autograd" in remark for remark in features.remarks) == (name in BY_LOOP)
    assert any("without a layer rule" in remark for remark in features.remarks) == (name in (*BY_LOOP, "no modules"))
    assert [record.message for record in caplog.records] == list(features.remarks)


def _by_oracle(module: nn.Module, inputs: np.ndarray) -> np.ndarray:
    if isinstance(module[-1] if isinstance(module, nn.Sequential) else None, nn.Flatten):
        module = module[:-1]
    jacobian = dense_jacobian(module, inputs)
    return jacobian.reshape(-1, jacobian.shape[2])


REDUCTIONS = {
    "sum": lambda f, _: f.sum(),
    "target": lambda f, y: f[y],
    "predicted": lambda f, _: f[f.argmax()],
    "margin": lambda f, y: f[y] - max(f[j] for j in range(len(f)) if j != y),
    "output:2": lambda f, _: f[2],
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_scalar_reductions_are_gradients_of_that_scalar(name: str) -> None:
    torch.manual_seed(2)
    module = mlp()
    network, examples = made(module, (5,), 8, 3)
    features = EffectiveFeatures(network, examples, outputs=name, tile=3)
    found = np.concatenate([block for _, block in features.blocks()])
    wanted = dense_jacobian(module, np.asarray(examples.inputs), REDUCTIONS[name], examples.labels)[:, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
    assert features.views == ("score",)


@pytest.mark.parametrize("name", list(REDUCTIONS_REGISTERED))
def test_every_registered_reduction_conforms(name: str) -> None:
    network, examples = made(mlp(), (5,), 8, 3)
    features = EffectiveFeatures(network, examples, outputs=name, tile=3)
    rows = [block for _, block in features.blocks()]
    assert np.concatenate(rows).shape == features.shape
    assert features.shape[0] == 8 * len(features.views)
    kernel = features.gram()
    np.testing.assert_allclose(kernel, kernel.T)
    assert np.linalg.eigvalsh(kernel)[0] > -1e-10 * np.trace(kernel)
    assert REDUCTIONS_REGISTERED[name].description in features.card[1]


def test_callable_reduction() -> None:
    network, examples = made(mlp(), (5,), 6, 3)
    features = EffectiveFeatures(network, examples, outputs=lambda f: f.square().sum())
    wanted = dense_jacobian(
        network.module.requires_grad_(True), np.asarray(examples.inputs), lambda f, _: f.square().sum()
    )
    np.testing.assert_allclose(np.concatenate([b for _, b in features.blocks()]), wanted[:, 0], rtol=1e-12)


def test_trace_joins_the_outputs_in_one_row() -> None:
    network, examples = made(mlp(), (5,), 9, 3)
    flattened, trace = (EffectiveFeatures(network, examples, outputs=o, tile=4) for o in ("flattened", "trace"))
    kernel = flattened.gram().reshape(9, 3, 9, 3)
    np.testing.assert_allclose(trace.gram(), np.einsum("aibi->ab", kernel), rtol=1e-12)
    assert trace.shape == (9, 3 * network.parameters.total)


def test_derived_products_equal_dense_ones() -> None:
    network, examples = made(mlp(), (5,), 11, 3)
    features = EffectiveFeatures(network, examples, tile=4)
    phi = np.concatenate([block for _, block in features.blocks()])
    rng = np.random.default_rng(0)
    v, u = rng.standard_normal((phi.shape[1], 2)), rng.standard_normal((phi.shape[0], 2))
    np.testing.assert_allclose(features.gram(), phi @ phi.T, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(features.cogram(), phi.T @ phi, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(features.matmul(v), phi @ v, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(features.matmul(v[:, 0]), phi @ v[:, 0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(features.rmatmul(u), phi.T @ u, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(features.squared_norm(), np.square(phi).sum(), rtol=1e-12)
    assert features.rank == np.linalg.matrix_rank(phi)
    assert list(features.row_example[:4]) == [0, 0, 0, 1]
    assert list(features.row_output[:4]) == [0, 1, 2, 0]
    chosen = np.array([1, 4, 9])
    some = np.concatenate([block for _, block in features.on(chosen).blocks()])
    np.testing.assert_allclose(some.reshape(3, 3, -1), phi.reshape(11, 3, -1)[chosen], rtol=1e-12)


def test_learning_rates_scale_features_by_their_root() -> None:
    module = mlp()
    plain, examples = made(module, (5,), 6, 3)
    scaled = Network.from_module(module.eval(), learning_rates={"*.bias": 0.25, "0.*": 4.0})
    phi = np.concatenate([b for _, b in EffectiveFeatures(plain, examples).blocks()])
    found = np.concatenate([b for _, b in EffectiveFeatures(scaled, examples).blocks()])
    rates = np.repeat(scaled.learning_rates, scaled.parameters.sizes)
    assert sorted(set(rates)) == [0.25, 1.0, 4.0]
    np.testing.assert_allclose(found, phi * np.sqrt(rates), rtol=1e-13)


def test_initial_features_are_taken_at_the_initial_parameters() -> None:
    module, start = mlp(), mlp()
    network = Network.from_module(module.eval(), initial=start.state_dict())
    _, examples = made(mlp(), (5,), 6, 3)
    found = np.concatenate([b for _, b in EffectiveFeatures(network, examples, at="initial").blocks()])
    np.testing.assert_allclose(found, _by_oracle(start, np.asarray(examples.inputs)), rtol=1e-12, atol=1e-13)
    with pytest.raises(NetworkError, match="parameters before training"):
        EffectiveFeatures(Network.from_module(module), examples, at="initial")


def test_values_do_not_depend_on_threads() -> None:
    network, examples = made(mlp(), (5,), 50, 3)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(np.concatenate([b for _, b in EffectiveFeatures(network, examples).blocks()]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert results[0].tobytes() == results[1].tobytes()


def test_an_example_has_the_same_row_wherever_its_tile_ends() -> None:
    network, examples = made(mlp(), (5,), 10, 3)
    features = EffectiveFeatures(network, examples, tile=8)
    whole = np.concatenate([b for _, b in features.blocks()])
    short = np.concatenate([b for _, b in features.on(np.arange(9)).blocks()])
    assert whole[: 9 * 3].tobytes() == short.tobytes()


class _Counter(nn.Module):
    """Writes into a buffer that its outputs depend on, and cannot be vmapped."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = Recurrent(nn.GRU)
        self.register_buffer("count", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.inner(x) * self.count.clone()
        self.count += 1
        return outputs


def test_rows_do_not_depend_on_what_a_forward_wrote_before() -> None:
    network, examples = made(_Counter(), (5, 3), 6, 2)
    features = EffectiveFeatures(network, examples, tile=4)
    first, second = (np.concatenate([block for _, block in features.blocks()]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    plain = EffectiveFeatures(Network.from_module(network.module.inner.requires_grad_(True)), examples)  # type: ignore[arg-type]  # a module
    np.testing.assert_allclose(first, np.concatenate([block for _, block in plain.blocks()]), rtol=1e-12)


class _NoBackward(nn.Module):
    """Its outputs are made of numbers that autograd may no longer use."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = (x * self.scale).exp()
        outputs = hidden * 2
        hidden.add_(1)
        return outputs


class _SeldomUsed(nn.Module):
    """A layer for nothing and one for inputs beyond 50 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.seldom = nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        far = x.abs().amax(dim=1) > 50
        outputs: torch.Tensor = self.used(x)
        return torch.where(far[:, None], self.seldom(x), outputs) if bool(far.any()) else outputs


@pytest.mark.parametrize("at", ["effective", "sharp", "first_order", "path"])
@pytest.mark.parametrize("outputs", ["flattened", "trace"])
def test_layers_that_are_never_or_seldom_used_can_be_looked_at_alone(at: str, outputs: str) -> None:
    torch.manual_seed(0)
    module = _SeldomUsed()
    network = Network.from_module(module, initial=module.state_dict())
    inputs = np.random.default_rng(0).standard_normal((30, 3))
    inputs[20] *= 1000
    examples = Examples.from_arrays(inputs)
    for layer in ("unused", "seldom"):
        features = EffectiveFeatures(network, examples, at, outputs, layers=[layer], tile=7)
        assert features.kernels(by="layer")[layer].shape == features.gram().shape
        rows = np.zeros((30, 2, 8))
        if layer == "seldom":
            rows[20, [0, 1], [6, 7]] = 1
            rows[20, 0, :3] = rows[20, 1, 3:6] = inputs[20]
        wanted = rows[..., :6] if layer == "unused" else rows
        flat = wanted.reshape(features.shape)
        np.testing.assert_allclose(np.concatenate([block for _, block in features.blocks()]), flat, rtol=1e-12)
        np.testing.assert_allclose(features.gram(), flat @ flat.T, rtol=1e-12)
        np.testing.assert_allclose(features.diagonal(), (flat**2).sum(axis=1), rtol=1e-12)


def test_gradients_that_cannot_be_taken_are_told() -> None:
    network, examples = made(_NoBackward(), (3,), 4, 3)
    with pytest.raises(NetworkError, match="Gradients of the network could not be taken"):
        EffectiveFeatures(network, examples).gram()


def test_reductions_of_ones_own_are_tried_first() -> None:
    network, examples = made(mlp(), (5,), 6, 3)
    for function, sentence in (
        (lambda f: f[:2], "shape .2,."),
        (lambda _: 1.0, "float came"),
        (lambda _: torch.ones(()), "depends on the outputs"),
        (lambda f: f[7], "raised IndexError"),
        (lambda _: nn.Linear(3, 2).load_state_dict({}), r"raised RuntimeError: Error.*: Missing key.*; correct it\.$"),
    ):
        with pytest.raises(SettingsError, match=sentence) as error:
            EffectiveFeatures(network, examples, outputs=function)
        assert "\n" not in str(error.value)


def test_errors_say_what_to_do() -> None:
    network, examples = made(mlp(), (5,), 6, 3)
    unlabelled = Examples.from_arrays(np.asarray(examples.inputs))
    with pytest.raises(ExamplesError, match="needs a class label"):
        EffectiveFeatures(network, unlabelled, outputs="margin")
    with pytest.raises(SettingsError, match="Did you mean 'flattened'"):
        EffectiveFeatures(network, examples, outputs="flatened")
    with pytest.raises(SettingsError, match="0 to 2"):
        EffectiveFeatures(network, examples, outputs="output:3")
    with pytest.raises(SettingsError, match="0 to 2"):
        EffectiveFeatures(network, examples, outputs="output:²")
    with pytest.raises(SettingsError, match="At least one layer"):
        EffectiveFeatures(network, examples, layers=[])
    with pytest.raises(SettingsError, match="'tile' must be at least 1"):
        EffectiveFeatures(network, examples, tile=0)
    one, few = made(nn.Linear(5, 1), (5,), 6, 1)
    with pytest.raises(SettingsError, match="needs at least two outputs"):
        EffectiveFeatures(one, few, outputs="target")
    with pytest.raises(SettingsError, match="layer or parameter"):
        EffectiveFeatures(network, examples, layers=["nine"])
    with pytest.raises(SettingsError, match="No feature kind is called 'final'"):
        EffectiveFeatures(network, examples, at="final")
    with pytest.raises(NetworkError, match="does not take inputs of shape"):
        EffectiveFeatures(network, Examples.from_arrays(np.ones((4, 6))))
