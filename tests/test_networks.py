"""Networks: the user's module is never changed, and what is no frozen function of one example is refused in a sentence."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Cnn, Decoder, OldWeightNorm, PaddedEncoder, mlp, new_weight_norm
from oracles import dense_jacobian
from torch import nn

from feature_lens.errors import ExamplesError, FeatureLensError, NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import NeuronActivations, hidden_layers
from feature_lens.networks import Network
from feature_lens.networks.factories import call_factory, make_examples, make_module
from feature_lens.networks.passes import ONE_PASS, one_pass


def _examples(n: int = 7, width: int = 3) -> Examples:
    return Examples.from_arrays(np.random.default_rng(0).standard_normal((n, width)))


def _said(error: pytest.ExceptionInfo[FeatureLensError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


class Readout(nn.Module):
    """A linear layer followed by any function of its outputs."""

    def __init__(self, after: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.after = after

    def forward(self, x: torch.Tensor) -> Any:
        return self.after(self.linear(x))


# The user's module stays as it was


class _Everything(nn.Module):
    """Frozen and trainable parameters, buffers, a tie, hooks, parts in different modes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Tanh())
        self.twin = nn.Linear(3, 3)
        self.twin.weight = self.body[0].weight
        self.head = nn.Linear(3, 2)
        self.head.bias.requires_grad_(False)
        self.head.register_forward_hook(lambda *_: None)
        self.head.register_full_backward_hook(lambda *_: None)
        self.register_forward_pre_hook(lambda *_: None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.twin(self.body(x)))


def _everything_about(module: nn.Module) -> dict[str, Any]:
    """All that could be changed on a module, as plain values."""
    found: dict[str, Any] = {"repr": str(module)}
    for name, part in module.named_modules(remove_duplicate=False):
        found[f"{name} mode"] = part.training
        for kind, hooks in vars(part).items():
            if kind.endswith("_hooks"):
                found[f"{name} {kind}"] = {key: id(hook) for key, hook in hooks.items()}
        found[f"{name} names"] = sorted(vars(part))
        for key, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None:
                place = f"{name}.{key}"
                found[place] = (id(tensor), tensor.data_ptr(), tensor.dtype, tensor.requires_grad, tensor._version)
                found[f"{place} value"] = tensor.detach().numpy().tobytes()
                found[f"{place} grad"] = None if tensor.grad is None else tensor.grad.numpy().tobytes()
    return found


def test_the_module_given_is_not_changed_in_any_way() -> None:
    module = _Everything().eval()
    module.body[3].train()  # a mode of its own must stay
    module(torch.ones(4, 3)).sum().backward()
    state = copy.deepcopy(module.state_dict())
    before, generator = _everything_about(module), torch.get_rng_state().numpy().tobytes()
    network = Network.from_module(module, trained=state, initial=state, learning_rates={"*bias": 0.5}, name="x")
    network.check(_examples())
    network.outputs(_examples())
    network.card(2, {})
    assert _everything_about(module) == before
    assert torch.get_rng_state().numpy().tobytes() == generator


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [mlp, Cnn, Decoder, OldWeightNorm, new_weight_norm])
def test_networks_of_all_kinds_give_what_their_modules_give(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = make().eval()
    if make is Decoder:
        inputs = np.random.default_rng(0).integers(0, 11, (5, 4))
    else:
        inputs = np.random.default_rng(0).standard_normal(
            {mlp: (5, 5), Cnn: (5, 2, 9, 9)}.get(make, (5, 3))  # type: ignore[arg-type]  # functions as keys
        )
    examples = Examples.from_arrays(inputs)
    network = Network.from_module(module)
    n_outputs = network.check(examples)
    exact = copy.deepcopy(Network.from_module(module).module)  # a deep copy in float64
    with torch.no_grad():
        wanted = exact(network.tensor(inputs)).numpy()
    assert wanted.shape == (5, n_outputs)
    np.testing.assert_allclose(network.outputs(examples, tile=2), wanted, rtol=1e-12, atol=1e-14)


def test_later_training_of_the_module_changes_nothing() -> None:
    module = _net()
    start = {key: value.clone() for key, value in module.state_dict().items()}
    network = Network.from_module(module, initial=start)
    before, digest = network.outputs(_examples()), network.digest
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    for _ in range(3):
        module(torch.ones(4, 3)).square().sum().backward()
        optimiser.step()
    for value in start.values():
        value.zero_()
    module.train()
    np.testing.assert_array_equal(network.outputs(_examples()), before)
    assert network.initial is not None
    assert network.initial["0.weight"].any()
    again = Network.from_module(network.module.requires_grad_(True), initial=network.initial)
    assert (again.digest == digest, all(value.requires_grad for value in network.trained.values())) == (True, False)


# One function for outputs, neurons and features


def test_outputs_neurons_and_features_are_of_one_function() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 7, (9, 5))
    for place, row in enumerate(tokens):
        row[2 + place % 3 :] = 0
    module = PaddedEncoder().double().eval()
    network, examples = Network.from_module(module), Examples.from_arrays(tokens)
    seen: dict[str, torch.Tensor] = {}
    for name, part in module.named_modules():
        part.register_forward_hook(lambda _m, _i, made, name=name: seen.__setitem__(name, made))
    wanted = module(torch.tensor(tokens)).detach().numpy()  # with gradients, which the fast way never has
    np.testing.assert_allclose(network.outputs(examples, tile=4), wanted, rtol=1e-12)
    layers = [layer for layer in hidden_layers(network, examples) if layer.usable]
    assert "encoder.layers.1.linear2" in [layer.name for layer in layers]
    for layer in layers:
        values, _ = NeuronActivations(network, examples, layer.name, reduce="mean", tile=4).activations()
        np.testing.assert_allclose(values, seen[layer.name].detach().mean(dim=1).numpy(), rtol=1e-10, atol=1e-12)
    design = EffectiveFeatures(network, examples, layers=["encoder.layers.1.linear2.bias"])
    rows = np.concatenate([block for _, block in design.blocks()]).reshape(9, 3, -1)
    moved = {name: value.clone() for name, value in network.trained.items()}
    ends = []
    for step in (1e-5, -2e-5):
        moved["encoder.layers.1.linear2.bias"][0] += step
        ends.append(network.outputs_at(moved, examples))
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, rows[:, :, 0], atol=1e-8)


@pytest.mark.parametrize("before", [True, False])
def test_fast_paths_are_off_while_passes_run_and_as_before_afterwards(before: bool) -> None:
    enabled = torch.backends.mha.get_fastpath_enabled
    kept = enabled()
    torch.backends.mha.set_fastpath_enabled(before)
    inside: list[bool] = []

    def failing() -> None:
        with one_pass(), ONE_PASS:
            with ONE_PASS:
                pass
            other = threading.Thread(target=lambda: inside.append(enabled()))
            other.start()
            other.join()
            inside.append(enabled())
            raise ZeroDivisionError

    try:
        network = Network.from_module(Readout(lambda y: (inside.append(enabled()), y)[1]))
        network.outputs(_examples(), tile=4)
        with pytest.raises(ZeroDivisionError):
            failing()
        assert enabled() == before
        assert len(inside) >= 4
        assert not any(inside)
    finally:
        torch.backends.mha.set_fastpath_enabled(kept)


# What is refused


class _Batched(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x))


def _diverged() -> nn.Module:
    module = _net()
    with torch.no_grad():
        module[0].weight[1, 2] = torch.nan  # type: ignore[index]  # an entry of a sequence
    return module


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "dropout": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.1)), r"Dropout must be off, but '1' .* module.eval"),
    "dropout of channels": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout1d(0.1)), "Dropout must be off, but '1'"),
    "dropout inside": (lambda: nn.GRU(3, 4, num_layers=2, dropout=0.1), "Dropout must be off, but 'GRU' is in training"),
    "batch norm": (lambda: _Batched(nn.BatchNorm1d(2)), "Batch statistics must not .* but 'norm' is in training mode"),
    "no statistics": (
        lambda: _Batched(nn.BatchNorm1d(2, track_running_stats=False)).eval(),
        "but 'norm' keeps no running statistics; call module.eval",
    ),
    "all frozen": (lambda: _net().requires_grad_(False), "one trainable parameter, but none with entries has requires_grad"),
    "no parameters": (lambda: nn.Tanh(), "at least one trainable parameter"),
    "nan": (_diverged, "trained parameters must be finite, but '0.weight' holds 1 NaN or infinite values"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_modules_that_are_no_frozen_function_are_refused(case: str) -> None:
    make, sentence = REFUSED[case]
    with pytest.raises(NetworkError, match=sentence) as error:
        Network.from_module(make())
    _said(error)


def test_training_mode_without_effect_is_accepted() -> None:
    for harmless in (nn.Dropout(0.0), nn.BatchNorm1d(2).eval(), nn.LayerNorm(2), nn.Dropout(0.5).eval()):
        assert Network.from_module(_Batched(harmless)).check(_examples()) == 2


def _raising(y: torch.Tensor) -> torch.Tensor:
    raise IndexError("the first line\nthe second line")


FORWARDS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "random": (lambda y: y + torch.randn_like(y), "two passes differed; remove the randomness or call module.eval"),
    "dropout by function": (lambda y: nn.functional.dropout(y, 0.5), "two passes differed"),
    "the batch mean": (lambda y: y - y.mean(dim=0), "depend on the batch it is in, but it differed by"),
    "the batch maximum": (lambda y: y / y.abs().max(), "depend on the batch it is in, but it differed by"),
    "statistics by function": (
        lambda y: nn.functional.batch_norm(torch.cat([y, -y]), None, None, training=True)[: len(y)],
        "depend on the batch it is in",
    ),
    "outputs by batch": (lambda y: torch.cat([y] * len(y), dim=1), "must not depend on the batch, but 2 came for one example and"),
    "a tuple": (lambda y: (y, y), "must return one tensor .* but tuple came; wrap the module"),
    "a dictionary": (lambda y: {"logits": y}, "must return one tensor .* but dict came"),
    "three axes": (lambda y: y[:, :, None], r"must return the shape \(b, c\), but \(\d, 2, 1\) came for \d examples"),
    "a number": (lambda y: y.sum(), r"must return the shape \(b, c\), but \(\) came"),
    "one row only": (lambda y: y[:1], r"must return the shape \(b, c\), but \(1, 2\) came for \d"),
    "no outputs": (lambda y: y[:, :0], r"must return the shape \(b, c\), but \(\d, 0\) came"),
    "classes": (lambda y: y.argmax(dim=1), "must return real numbers, but int64 came"),
    "truth values": (lambda y: y > 0, "must return real numbers, but bool came"),
    "complex numbers": (lambda y: y + 1j, "must return real numbers, but complex128 came"),
    "an error": (_raising, r"inputs of shape \(\d, 3\) in float64 \(IndexError: the first line\); check the shapes"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORWARDS)
def test_forwards_that_cannot_be_used_are_refused(case: str) -> None:
    after, sentence = FORWARDS[case]
    network = Network.from_module(Readout(after))
    state = torch.get_rng_state()
    with pytest.raises(NetworkError, match=sentence) as error:
        network.check(_examples())
    _said(error)
    assert torch.equal(torch.get_rng_state(), state)


def test_dependence_on_the_batch_is_seen_even_if_most_examples_are_alike() -> None:
    alike = np.zeros((40, 3))
    alike[30:] = 1
    with pytest.raises(NetworkError, match="depend on the batch"):
        Network.from_module(Readout(lambda y: y - y.mean(dim=0))).check(Examples.from_arrays(alike))


class _Counter(nn.Module):
    """Takes a number at every pass from what nobody can put back."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.passes = nn.Linear(3, 2), itertools.count()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * next(self.passes)


def test_a_forward_that_remembers_out_of_reach_is_refused() -> None:
    with pytest.raises(NetworkError, match="two passes differed"):
        Network.from_module(_Counter()).check(_examples())


def test_data_that_do_not_go_with_the_network_are_refused() -> None:
    network = Network.from_module(_net())
    with pytest.raises(
        NetworkError, match=r"does not take inputs of shape \(\d, 4\) in float64 .*RuntimeError"
    ) as error:
        network.check(_examples(width=4))
    _said(error)
    labelled = Examples.from_arrays(np.zeros((4, 3)), [1, 1, 2, 1], ids=list("abcd"))
    with pytest.raises(ExamplesError, match="must be 0 to 1, the outputs of the network, but 1 to 2 came; subtract 1"):
        network.check(labelled)
    assert network.check(Examples.from_arrays(np.zeros((4, 3)), [0, 1, 2, 1])) == 2  # classes of something else
    assert network.check(_examples(1)) == 2


# Parameters, buffers, precision, learning rates


def test_frozen_parameters_and_buffers_are_constants() -> None:
    module = _Everything().eval()
    network = Network.from_module(module)
    assert list(network.trained) == [
        "body.0.weight",
        *("body.0.bias", "body.1.weight", "body.1.bias"),
        *("twin.bias", "head.weight"),
    ]
    assert set(network.constants) == {
        "head.bias",
        *(f"body.1.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")),
    }
    other = {key: torch.zeros_like(value) for key, value in network.trained.items()}
    with torch.no_grad():
        found = network(other, network.tensor(np.ones((2, 3))))
    np.testing.assert_allclose(found.numpy(), module.head.bias.detach().double().expand(2, 2).numpy())


def test_tied_parameters_are_one_tensor_and_move_together() -> None:
    network = Network.from_module(_Everything().eval())
    assert "twin.weight" not in network.trained
    assert network.parameters.total == sum(value.numel() for value in network.trained.values()) == 9 + 3 + 3 + 3 + 3 + 6
    zeroed = {**network.trained, "body.0.weight": torch.zeros(3, 3, dtype=torch.float64)}
    with torch.no_grad():
        found = network(zeroed, network.tensor(np.eye(3)))
    assert torch.equal(found[0], found[2])  # nothing passes through either of the two


class _Averaging(nn.Module):
    """Updates buffers in its forward, in place and by assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x.detach().sum(dim=0)
        self.count = self.count + 1
        return self.linear(x) + self.seen.sum() * 0 + self.count


def test_buffers_that_a_forward_updates_do_not_leak() -> None:
    module = _Averaging()
    network = Network.from_module(module)
    network.check(_examples())
    first = network.outputs(_examples(), tile=2)
    np.testing.assert_array_equal(network.outputs(_examples(), tile=2), first)
    for buffers in (network.constants, dict(network.module.named_buffers()), dict(module.named_buffers())):
        assert not buffers["seen"].any()
        assert not buffers["count"].any()


def test_precision() -> None:
    for precision, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        network = Network.from_module(_net().half(), precision=precision)  # type: ignore[arg-type]  # from a loop
        assert network.dtype == dtype
        assert {value.dtype for value in network.trained.values()} == {dtype}
        assert network.tensor(np.ones((1, 3), dtype=np.float16)).dtype == dtype
        assert network.tensor(np.ones((1, 3), dtype=bool)).dtype == dtype
        assert network.tensor(np.ones((1, 3), dtype=np.uint8)).dtype == torch.long
        assert network.outputs(_examples()).dtype == np.float64
    with pytest.raises(SettingsError, match="precision is float64 or float32, not 'float16'") as error:
        Network.from_module(_net(), precision="float16")  # type: ignore[arg-type]  # what is being tested
    _said(error)


def test_learning_rates_by_the_first_pattern_that_matches() -> None:
    rates = {"0.*": 0.5, "*bias": 2}
    network = Network.from_module(_net(), learning_rates=rates)
    assert network.parameters.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert network.parameters.learning_rates == (0.5, 0.5, 1.0, 2.0)
    assert Network.from_module(_net()).learning_rates == (1.0, 1.0, 1.0, 1.0)
    for wrong, sentence in (
        ({"*": 0.0}, r"must be positive, but 0.0 came for '\*'"),
        ({"*": -1}, "must be positive, but -1 came"),
        ({"*": float("nan")}, "must be positive, but nan came"),
        ({"*": float("inf")}, "must be positive, but inf came"),
        ({"*": "fast"}, "must be positive, but fast came"),
        ({"1.*": 1.0}, r"The pattern '1.\*' names no parameter; there is 0.weight, 0.bias"),
    ):
        with pytest.raises(SettingsError, match=sentence) as error:
            Network.from_module(_net(), learning_rates=wrong)  # type: ignore[arg-type]  # what is being tested
        _said(error)


def test_where_features_are_taken() -> None:
    network = Network.from_module(_net())
    assert network.at("effective") is network.trained
    with pytest.raises(NetworkError, match="parameters before training, but none were given"):
        network.at("initial")
    with pytest.raises(SettingsError, match="not at 'sharp'"):
        network.at("sharp")  # type: ignore[arg-type]  # what is being tested


def test_digests_tell_networks_apart() -> None:
    base = _net()
    moved = copy.deepcopy(base)
    with torch.no_grad():
        moved[2].bias[0] += 1e-7  # type: ignore[index]  # an entry of a sequence
    half_frozen = copy.deepcopy(base)
    half_frozen[0].requires_grad_(False)
    other_step = nn.Sequential(base[0], nn.ReLU(), base[2])
    made = [
        Network.from_module(base),
        Network.from_module(moved),
        Network.from_module(half_frozen),
        Network.from_module(other_step),
        Network.from_module(base, precision="float32"),
        Network.from_module(base, initial=base.state_dict()),
        Network.from_module(base, initial=moved.state_dict()),
    ]
    assert len({network.digest for network in made}) == len(made)
    assert Network.from_module(copy.deepcopy(base), name="another").digest == made[0].digest
    assert Network.from_module(_Averaging()).digest != Network.from_module(_Averaging()).digest


# Factories


SOURCE = """
import sys
from dataclasses import dataclass
import numpy as np
import torch
from neighbour import WIDTH
from feature_lens.errors import ExamplesError
from feature_lens.examples import Examples

@dataclass
class Settings:
    width: int = WIDTH

def net(): return torch.nn.Linear(Settings().width, 2)
def pair(): return np.zeros((4, 3)), [0, 1, 0, 1]
def triple(): return 1, 2, 3
def array(): return np.zeros((4, 3))
def tensor(): return torch.zeros(4, 3)
def examples(): return Examples.from_arrays(np.zeros((4, 3)))
def dataset(): return torch.utils.data.TensorDataset(torch.zeros(4, 3), torch.zeros(4))
def raising(): raise RuntimeError("first line\\nsecond line")
def leaving(): sys.exit(3)
def own(): raise ExamplesError("A sentence.")
def needy(x): return x
NUMBER = 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of factories and a module beside it."""
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "some_factories.py").write_text(SOURCE)
    (tmp_path / "neighbour.py").write_text("WIDTH = 3\n")
    (tmp_path / "broken.py").write_text("def net(:\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit('bye')\n")
    return tmp_path


def test_factories_in_files_and_in_modules(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"{code}/some_factories.py"
    assert make_module(f"{file}:net")(torch.zeros(1, 3)).shape == (1, 2)
    for name in ("pair", "array", "tensor", "examples", "dataset"):
        examples = make_examples(f"{file}:{name}")
        assert (len(examples), examples.modality.shape) == (4, (3,))
        assert (examples.targets is not None) == (name in ("pair", "dataset"))
    monkeypatch.chdir(code)
    assert isinstance(make_module("some_factories:net"), nn.Linear)
    assert isinstance(make_module("some_factories.py:net"), nn.Linear)
    assert call_factory("collections:OrderedDict") == {}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("some_factories.py", "named 'pkg.mod:make' or 'file.py:make', but 'some_factories.py' came"),
        (":net", "named 'pkg.mod:make'"),
        ("some_factories.py:", "named 'pkg.mod:make'"),
        ("some_factories.py:a b", "named 'pkg.mod:make'"),
        ("missing.py:net", "There is no file 'missing.py'"),
        ("no_such_package.module:net", r"could not be imported \(ModuleNotFoundError: No module named"),
        ("broken.py:net", r"could not be imported \(SyntaxError"),
        ("leaving.py:net", r"could not be imported \(SystemExit: bye\)"),
        ("some_factories.py:missing", "has no function 'missing'; define it, without arguments"),
        ("some_factories.py:NUMBER", "has no function 'NUMBER'"),
        ("some_factories.py:raising", "raised RuntimeError: first line; mend it"),
        ("some_factories.py:leaving", "raised SystemExit: 3; mend it"),
        ("some_factories.py:needy", "raised TypeError: needy"),
    ],
)
def test_factories_that_cannot_be_called(spec: str, sentence: str, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(code)
    with pytest.raises(SettingsError, match=sentence) as error:
        call_factory(spec)
    _said(error)


def test_factories_that_make_something_else(code: Path) -> None:
    file = f"{code}/some_factories.py"
    with pytest.raises(NetworkError, match=r"must return a torch\.nn\.Module, but ndarray came"):
        make_module(f"{file}:array")
    with pytest.raises(ExamplesError, match=r"must return \(inputs, targets\), but 3 parts came"):
        make_examples(f"{file}:triple")
    with pytest.raises(ExamplesError, match="needs a length and items by index, but Linear has not"):
        make_examples(f"{file}:net")
    with pytest.raises(ExamplesError, match=r"^A sentence\.$"):
        make_examples(f"{file}:own")


class _Masked(nn.Module):
    """Attention whose causal mask is a buffer of minus infinity, as many transformers keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(3, 3), nn.Linear(3, 2)
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.query(x) @ x.transpose(1, 2) + self.mask, dim=2)
        return self.out((weights @ x)[:, -1])


def test_a_mask_of_minus_infinity_is_a_constant_like_others() -> None:
    module = _Masked().double()
    network = Network.from_module(module)
    examples = Examples.from_arrays(np.random.default_rng(0).standard_normal((5, 4, 3)))
    phi = dense_jacobian(module, np.asarray(examples.inputs)).reshape(10, -1)
    np.testing.assert_allclose(EffectiveFeatures(network, examples).gram(), phi @ phi.T, atol=1e-12)
    module.mask[0, 0] = torch.nan
    with pytest.raises(NetworkError, match="'mask' holds 1 NaN"):
        Network.from_module(module)


def test_learning_rates_by_the_scaling_of_the_theory() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Flatten(), nn.Linear(24, 5))
    network = Network.from_module(module, learning_rates="pdlt")
    rates = dict(zip(network.parameters.names, network.learning_rates, strict=True))
    assert rates == {
        "0.weight": 1 / 18, "0.bias": 1.0, "1.weight": 1 / 8, "1.bias": 1.0, "3.weight": 1 / 24, "3.bias": 1.0
    }  # fmt: skip
    table = Network.from_module(nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 2)), learning_rates="pdlt")
    assert table.learning_rates == (1.0, 1 / 3, 1.0)
    with pytest.raises(SettingsError, match="No choice of learning rates is called 'ntk'"):
        Network.from_module(module, learning_rates="ntk")
