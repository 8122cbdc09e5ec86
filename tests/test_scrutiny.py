"""One function of one example: company, gradients, chance and writing over parameters, looked for on every tile."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev

from feature_lens.analysis import open_run
from feature_lens.dual import contributions
from feature_lens.errors import NetworkError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, extract_run
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.jacobian import Jacobian
from feature_lens.features.neurons import Logits, NeuronActivations, hidden_layers
from feature_lens.features.reductions import reduction
from feature_lens.networks import Network
from feature_lens.networks.network import Precision
from feature_lens.networks.passes import one_pass
from feature_lens.networks.scrutiny import refuse_written

# A few examples of 70 are probed; these are not among them, and what is wrong is so at them alone.
N, RARE = 70, (33, 34)


def _rare(n: int = N) -> Examples:
    """Examples of which two have a large first entry."""
    inputs = np.random.default_rng(0).uniform(-1, 1, (n, 3))
    inputs[[at for at in RARE if at < n] or [1], 0] = 6
    return Examples.from_arrays(inputs, ids=[f"e{place}" for place in range(n)])


class Readout(nn.Module):
    """A linear layer followed by any function of its outputs and of the inputs."""

    def __init__(self, after: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.after = nn.Linear(3, 2), after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.linear(x), x[:, 0] > 5)


def _raise_where(y: torch.Tensor, rare: torch.Tensor) -> torch.Tensor:
    if rare.any():
        raise IndexError("no such row")
    return y


# What a network may do to the outputs y of a batch in which some examples are rare.
RARELY: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str]] = {
    "a capacity of one": (lambda y, rare: y + (rare & (rare.cumsum(0) <= 1))[:, None], "batch it is in, .* differed by 1; "),
    "a maximum over the batch": (lambda y, rare: y + rare.any() * 0.5, "batch it is in, .* differed by 0.5; "),
    "padding to the longest": (
        lambda y, rare: nn.functional.pad(y[:, :, None], (0, 9 if rare.any() else 1)).mean(dim=2),
        "batch it is in",
    ),
    "not a number for its company": (lambda y, rare: y / (~rare.any()), "batch it is in, .* differed by inf; "),
    "otherwise with gradients": (
        lambda y, rare: y + 0.25 * (rare & torch.is_grad_enabled())[:, None],
        "output of example e3[34] must be the same with gradients as without, but it differed by 0.25; ",
    ),
    "chance": (lambda y, rare: y + torch.rand(len(y), 1) * rare[:, None], "two passes differed; remove the randomness"),
    "an error": (_raise_where, r"inputs of shape \(32, 3\) in float64 \(IndexError: no such row\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", RARELY)
def test_what_only_few_examples_show_is_refused_with_its_size(case: str) -> None:
    after, sentence = RARELY[case]
    network, state = Network.from_module(Readout(after)), torch.get_rng_state()
    for refused in (network.check, network.outputs, lambda examples: Logits(network, examples)):
        with pytest.raises(NetworkError, match=sentence) as error:
            refused(_rare())
        said = str(error.value)
        assert "\n" not in said
        assert said.endswith(".")
    assert torch.equal(torch.get_rng_state(), state)
    common = Examples.from_arrays(np.asarray(_rare().inputs[:30]))
    assert network.check(common) == 2


@pytest.mark.parametrize(("n", "tile"), [(2, 32), (5, 1), (40, 32), (70, 7), (300, 256)])
def test_company_is_never_the_same_twice(n: int, tile: int) -> None:
    network = Network.from_module(Readout(lambda y, rare: y + 1e-6 * rare.any()))
    with pytest.raises(NetworkError, match="batch it is in, but it differed by 1e-06"):
        network.outputs(_rare(n), tile)
    lonely = Network.from_module(Readout(lambda y, rare: y + rare[:, None]))
    assert np.ptp(lonely.outputs(_rare(n), tile)) > 0.5


def test_outputs_at_any_parameters_are_looked_at() -> None:
    network = Network.from_module(Readout(lambda y, _: y - y.relu().mean(dim=0) * (y > 50).any()))
    examples = _rare()
    assert network.check(examples) == 2
    far = {name: value * 100 for name, value in network.trained.items()}
    with pytest.raises(NetworkError, match="batch it is in"):
        network.outputs_at(far, examples)
    start = replace(network, initial=far)
    with pytest.raises(NetworkError, match="batch it is in"):
        start.check(examples)


def test_what_is_not_finite_is_no_difference_and_rounding_neither() -> None:
    torch.manual_seed(0)
    # The same for every example in any company: NaN for some, infinity for others, differences of large numbers.
    network = Network.from_module(
        Readout(lambda y, rare: torch.where(rare[:, None], y / 0, y + 1e6 - 1e6)), precision="float32"
    )
    assert network.check(_rare()) == 2
    assert np.isinf(network.outputs(_rare())[list(RARE)]).all()


class Cancelling(nn.Module):
    """Two halves that cancel but for rounding, as at an antisymmetric start; the rounding depends on the batch."""

    def __init__(self, company: float = 0.0) -> None:
        super().__init__()
        self.one, self.other, self.company = nn.Linear(3, 2), nn.Linear(3, 2), company
        self.other.load_state_dict(self.one.state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        third = len(x) / 30
        return (self.one(x) + third) - self.other(x) - third + self.company * (x[:, :1] > 5).any()


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_what_is_left_of_numbers_that_cancel_is_rounding(precision: Precision) -> None:
    torch.manual_seed(0)
    examples = _rare()
    start = Network.from_module(Cancelling(), precision=precision)
    found = start.outputs(examples)
    assert 0 < np.abs(found).max() < 1e-4
    assert start.check(examples) == 2
    size = 1e-9 if precision == "float64" else 1e-2
    with pytest.raises(NetworkError, match=f"batch it is in, but it differed by {size:.3g}; "):
        Network.from_module(Cancelling(size), precision=precision).check(examples)
    hidden = nn.Sequential(nn.Linear(3, 128), nn.Tanh(), nn.Linear(128, 2, bias=False))
    with torch.no_grad():
        for value in (hidden[0].weight, hidden[0].bias):
            value[64:] = value[:64]
        hidden[2].weight[:, 64:] = -hidden[2].weight[:, :64]
    assert Network.from_module(hidden, initial=hidden.state_dict(), precision=precision).check(examples) == 2


def test_who_cannot_be_differentiated_is_looked_at_without_gradients() -> None:
    network = Network.from_module(Readout(lambda y, _: torch.as_tensor(np.tanh(y.numpy()))))
    assert network.check(_rare()) == 2
    mixed = Network.from_module(Readout(lambda y, rare: torch.as_tensor(y.numpy()) + rare.any()))
    with pytest.raises(NetworkError, match="batch it is in, but it differed by 1; "):
        mixed.check(_rare())
    wrong = Network.from_module(Readout(lambda y, _: y.argmax(dim=1) if torch.is_grad_enabled() else y))
    with pytest.raises(NetworkError, match="must return real numbers, but int64 came"):
        wrong.check(_rare())


def test_examples_are_looked_at_once() -> None:
    passes: list[int] = []
    network = Network.from_module(Readout(lambda y, _: (passes.append(len(y)), y)[1]))
    examples = _rare()
    network.check(examples)
    first = len(passes)
    network.check(examples)
    assert len(passes) == first
    network.outputs(examples, tile=70)
    assert len(passes) == first + 1
    network.check(_rare())  # others, though equal
    assert len(passes) > first + 8
    for other in (copy.deepcopy(network), replace(network, trained=dict(network.trained))):
        assert other.seen.n_outputs(examples) is None
    assert pickle.loads(pickle.dumps(network.seen)).n_outputs(examples) is None


# Writing over parameters


class Bounded(nn.Module):
    """Tokens in an embedding of bounded norm, which torch writes over in its forward."""

    def __init__(self, **settings: float) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 4, max_norm=1.0, **settings), nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.embed(tokens)).sum(dim=1))


class Tied(Bounded):
    """The same, read out by the very weight that is written over."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embed(tokens).sum(dim=1) @ self.embed.weight.T


class Writing(nn.Module):
    """A forward that writes over its weight where an example is rare."""

    def __init__(self, write: Callable[[nn.Parameter], None]) -> None:
        super().__init__()
        self.linear, self.write = nn.Linear(3, 2), write
        with torch.no_grad():
            self.linear.weight.fill_(2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x[:, 0] > 5).any():
            self.write(self.linear.weight)
        return self.linear(x)


def _by_data(weight: nn.Parameter) -> None:
    weight.data = torch.renorm(weight.data, p=2, dim=0, maxnorm=1.0)


def _in_place(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.clamp_(max=1.0)


def _through_a_view(weight: nn.Parameter) -> None:
    weight.detach()[0, 0] = 1.0


class Replacing(nn.Module):
    """A forward that puts another tensor, of the same or of other numbers, in the place of its weight."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.inner, self.bound = nn.Sequential(nn.Linear(3, 2)), bound

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x[:, 0] > 5).any():
            self.inner[0].weight = nn.Parameter(self.inner[0].weight.detach().clamp(-self.bound, self.bound))
        return self.inner(x)


@pytest.mark.parametrize("bound", [0.1, 100.0])
def test_another_tensor_in_the_place_of_a_parameter_is_refused(bound: float) -> None:
    network = Network.from_module(Replacing(bound))
    weight, before = network.module.inner[0].weight, _bytes_of(network)
    with pytest.raises(NetworkError, match=r"must leave its parameters in place, but .* that of 'inner.0.weight'; "):
        network.check(_rare())
    assert network.module.inner[0].weight is weight
    assert _bytes_of(network) == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.module.modules())
    assert network.check(Examples.from_arrays(np.asarray(_rare().inputs[:30]))) == 2


def _bytes_of(network: Network) -> list[bytes]:
    states = (network.trained, network.initial or {}, network.constants, dict(network.module.named_parameters()))
    return [value.detach().numpy().tobytes() for state in states for value in state.values()]


@pytest.mark.parametrize("write", [_by_data, _in_place, _through_a_view])
@pytest.mark.parametrize("which", ["trained", "initial", "frozen"])
def test_writing_over_parameters_is_refused_and_changes_nothing(
    which: str, write: Callable[[nn.Parameter], None]
) -> None:
    module, settled = Writing(write), Writing(write)
    with torch.no_grad():
        settled.linear.weight.fill_(0.5)
        settled.linear.weight[0, 0] = 1.0 if write is _through_a_view else 0.5
    if which == "frozen":
        module.linear.weight.requires_grad_(False)
    calm = settled.state_dict()
    network = Network.from_module(module, trained=calm if which == "initial" else None, initial=module.state_dict())
    before, digest = _bytes_of(network), network.digest
    with pytest.raises(
        NetworkError, match=r"leave the parameters as they are, but 'linear.weight' differed by [0-9.]+ "
    ):
        network.check(_rare())
    with pytest.raises(NetworkError, match="leave the parameters as they are"):
        network.outputs_at(network.at("initial"), _rare()) if which != "frozen" else network.outputs(_rare())
    assert _bytes_of(network) == before
    assert network.at_state(network.trained, "same").digest == digest
    # Where nothing is left to write over, the function is as good as any other.
    fine = Network.from_module(settled, initial=calm)
    assert fine.check(_rare()) == 2
    assert _bytes_of(fine)[0] == calm["linear.weight"].double().numpy().tobytes()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (torch.tensor([1.0, torch.nan]), torch.tensor([4.0, torch.nan])),
        (torch.tensor([True, False]), torch.tensor([True, True])),
        (torch.tensor([3, 4]), torch.tensor([3, 1])),
        (torch.tensor([1j, 2.0]), torch.tensor([4j, 2.0])),
        (torch.eye(2).to_sparse(), (torch.eye(2) * 4).to_sparse()),
        (torch.ones(2), torch.ones(1)),
    ],
)
def test_numbers_of_every_kind_are_compared(value: torch.Tensor, written: torch.Tensor) -> None:
    refuse_written({"it": value}, {"it": value.clone()})
    with pytest.raises(NetworkError, match=r"but 'it' (differed by [13]|had the shape \(1,\)) after a pass; give"):
        refuse_written({"it": value}, {"it": written})


def test_a_copy_that_is_written_over_is_seen_where_gradients_are_taken() -> None:
    network = Network.from_module(Writing(_in_place))
    inputs = network.tensor(_rare().inputs[30:36])
    with one_pass(), pytest.raises(NetworkError, match=r"leave the parameters as they are, but 'linear.weight'"):
        Jacobian(network, network.trained, reduction("sum", 2), ("linear.weight",)).exact(
            inputs, torch.zeros(6, dtype=torch.int64)
        )


@pytest.mark.parametrize("settings", [{}, {"norm_type": 1.0}, {"padding_idx": 0}])
def test_embeddings_of_bounded_norm_are_functions_of_their_weight(settings: dict[str, float], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Bounded(**settings).eval()
    start = {key: value * (0.3 if key.startswith("embed") else 1) for key, value in module.state_dict().items()}
    given = {key: value.clone() for key, value in module.state_dict().items()}
    tokens = np.random.default_rng(0).integers(0, 6, (12, 5))
    examples = Examples.from_arrays(tokens, np.arange(12) % 3)
    network = Network.from_module(module, initial=start)
    before, architecture = _bytes_of(network), str(module)
    # Outputs and neurons are those of torch's own forward, which writes.
    torchs = copy.deepcopy(module).double()
    with torch.no_grad():
        np.testing.assert_allclose(network.outputs(examples, 5), torchs(torch.tensor(tokens)).numpy(), rtol=1e-12)
        embedded = torchs.embed(torch.tensor(tokens)).mean(dim=1).numpy()
    assert [layer.name for layer in hidden_layers(network, examples)] == ["embed"]
    found, _ = NeuronActivations(network, examples, "embed", reduce="mean", tile=5).activations()
    np.testing.assert_allclose(found, embedded, rtol=1e-12)
    # Features are the derivatives of these outputs.
    rows = np.concatenate([block for _, block in EffectiveFeatures(network, examples).blocks()]).reshape(12, 3, -1)
    step, place = 1e-6, 0
    for name, value in network.trained.items():
        for entry in range(0, value.numel(), 3):
            ends = []
            for sign in (1, -1):
                moved = {key: one.clone() for key, one in network.trained.items()}
                moved[name].view(-1)[entry] += sign * step
                ends.append(network(moved, network.tensor(tokens)))
            slope = ((ends[0] - ends[1]) / (2 * step)).numpy()
            padding = settings.get("padding_idx") == 0 and name == "embed.weight" and entry < 4
            np.testing.assert_allclose(rows[:, :, place + entry], slope * (not padding), atol=1e-8)
        place += value.numel()
    made = jacrev(lambda params: network(params, network.tensor(tokens)))(network.trained)
    np.testing.assert_allclose(rows[..., :28], made["embed.weight"].reshape(12, 3, 28).numpy(), atol=1e-12)
    if not settings:  # within the bound all along the line, but for the end
        assert contributions(network, examples).completeness < 1e-2
        sets = (SetSettings("eigen", "trace"), SetSettings("canonical"))
        out = extract_run(network, examples, tmp_path / "run.h5", ExtractSettings(sets), progress=False)
        stored = open_run(out).network
        flat = np.concatenate([given[name].numpy().ravel() for name in network.trained])
        np.testing.assert_array_equal(np.asarray(stored.trained), flat)
        assert (stored.digest, stored.architecture) == (network.digest, architecture)
    assert _bytes_of(network) == before
    assert all(torch.equal(value, given[key]) for key, value in module.state_dict().items())


def test_a_bounded_weight_that_is_used_elsewhere_is_refused() -> None:
    torch.manual_seed(0)
    examples = Examples.from_arrays(np.random.default_rng(0).integers(0, 7, (9, 5)))
    module = Tied()
    with pytest.raises(NetworkError, match="max_norm writes over must not be used elsewhere, but outputs differed by"):
        Network.from_module(module).check(examples)
    with torch.no_grad():
        module.embed.weight.mul_(0.1)
    assert Network.from_module(module).check(examples) == 7
