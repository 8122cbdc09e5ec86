"""Ordinary neurons against plain forward hooks, and each known trap of taking activations."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation
from networks import Cnn, Decoder, OldWeightNorm, Recurrent, mlp, new_weight_norm
from oracles import made
from torch import nn
from torch.nn import functional

from feature_lens.errors import NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features import neurons
from feature_lens.features.bases import Canonical, Eigen
from feature_lens.features.neurons import NeuronActivations, hidden_layers
from feature_lens.networks import Network


class Functional(nn.Module):
    """Non-linearities without modules of their own: one pure, one in place; one layer is never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(functional.relu(self.first(x))).relu_())


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.act, self.out = nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.act(self.inner(torch.sin(self.inner(x)))))


class Named(nn.Module):
    """Identities: on a sum, which no other layer gives, after a layer, after a view of one, and on the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.stream, self.again, self.turned, self.last = (nn.Identity() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.again(self.first(x))
        h = self.turned(h.view(len(x), 2, 2)).flatten(1)
        return self.last(self.second(self.stream(x + h)))


class Block(nn.Module):
    """A transformer block over (b, t, d), read out as a mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.up, self.act, self.down, self.readout = nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.norm(x)
        h = x + self.attention(z, z, z)[0]
        return self.readout((h + self.down(self.act(self.up(h)))).mean(dim=1))


class Skip(nn.Module):
    """An in-place non-linearity whose input is used once more, and one whose result is not even taken."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)
        self.c, self.tanh, self.out = nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        z = self.b(self.act(h)) + h
        functional.elu(z, inplace=True)
        return self.out(self.tanh(self.c(z)))


class Counting(nn.Module):
    """A forward that writes into a buffer, and warns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 5), nn.Linear(5, 2)
        self.register_buffer("gain", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        warnings.warn("this net warns", stacklevel=1)
        outputs = self.out(torch.tanh(self.first(x * self.gain)))
        self.gain *= 2
        return outputs


class Mixed(nn.Module):
    """A map whose channels go last and come back, as in ConvNeXt; sizes agree, so that they give no hint."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.up, self.act = nn.Conv2d(1, 4, 3), nn.LayerNorm(4), nn.Linear(4, 6), nn.GELU()
        self.down, self.last, self.readout = nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x)
        z = self.down(self.act(self.up(self.norm(h.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        return self.readout(self.last(h + z).mean(dim=(2, 3)))


class Residual1d(nn.Module):
    """A non-linearity after a sum of maps (b, ch, l), and one after the axes were swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.swapped, self.readout = (
            nn.Conv1d(3, 3, 3, padding=1),
            nn.ReLU(),
            nn.Tanh(),
            nn.Linear(3, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.swapped(self.act(self.conv(x) + x).transpose(1, 2)).mean(dim=1))[:, 0]


class RmsNorm(nn.Module):
    """A norm that squares its input, which is no non-linearity of a unit."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)


class Swish(nn.Module):
    """An activation module of the user's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(input=x)


class Square(nn.Module):
    """A quadratic net without a module for its non-linearity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.first(x) ** 2)


class Tied(nn.Module):
    """Modules under two names: one called under both, one under its second only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b, self.d = self.a, self.c

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.d(torch.tanh(self.b(torch.tanh(self.a(x)))))))


class PositionsFirst(nn.Module):
    """Inner values (t, b, d), for two positions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.inner(x.transpose(0, 1))).mean(dim=0))


class Encoder(nn.Module):
    """The library's own transformer layer, which has a fast way past its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.layer(x).mean(dim=1))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(36, 3),
    )


def conv1d() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU(), nn.Conv1d(5, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 2))


TABLE: dict[str, tuple[Any, tuple[int, ...], dict[str, tuple[str, int, tuple[int, ...]]]]] = {
    "mlp": (
        mlp,
        (5,),
        {
            "0": ("pre-activation", 7, ()),
            "1": ("post-activation", 7, ()),
            "2": ("pre-activation", 6, ()),
            "3": ("post-activation", 6, ()),
        },
    ),
    "functional": (Functional, (5,), {"first": ("pre-activation", 6, ()), "second": ("pre-activation", 4, ())}),
    "conv": (
        conv,
        (1, 8, 8),
        {
            "0": ("pre-activation", 4, (6, 6)),
            "1": ("pre-activation", 4, (6, 6)),
            "2": ("post-activation", 4, (6, 6)),
            "3": ("post-activation", 4, (3, 3)),
        },
    ),
    "groups": (
        Cnn,
        (2, 9, 9),
        {
            "0": ("pre-activation", 6, (5, 5)),
            "1": ("post-activation", 6, (5, 5)),
            "2": ("pre-activation", 8, (3, 3)),
            "3": ("post-activation", 8, (3, 3)),
        },
    ),
    "conv1d": (
        conv1d,
        (2, 9),
        {
            "0": ("pre-activation", 5, (7,)),
            "1": ("post-activation", 5, (7,)),
            "2": ("pre-activation", 4, (6,)),
            "3": ("post-activation", 4, (6,)),
        },
    ),
    "block": (
        Block,
        (3, 4),
        {
            "norm": ("activation", 4, (3,)),
            "up": ("pre-activation", 8, (3,)),
            "act": ("post-activation", 8, (3,)),
            "down": ("activation", 4, (3,)),
        },
    ),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 2))),
        (3,),
        {"0.0": ("pre-activation", 4, ()), "0.1": ("post-activation", 4, ())},
    ),
    "in place, used again": (
        Skip,
        (4,),
        {
            "a": ("pre-activation", 4, ()),
            "act": ("post-activation", 4, ()),
            "b": ("activation", 4, ()),
            "c": ("pre-activation", 3, ()),
            "tanh": ("post-activation", 3, ()),
        },
    ),
    "buffer": (Counting, (4,), {"first": ("pre-activation", 5, ())}),
    "channels last and back": (
        Mixed,
        (1, 6, 6),
        {
            "stem": ("activation", 4, (4, 4)),
            "norm": ("activation", 4, (4, 4)),
            "up": ("pre-activation", 6, (4, 4)),
            "act": ("post-activation", 6, (4, 4)),
            "down": ("activation", 4, (4, 4)),
            "last": ("post-activation", 4, (4, 4)),
        },
    ),
    "sum of maps": (
        Residual1d,
        (3, 7),
        {
            "conv": ("activation", 3, (7,)),
            "act": ("post-activation", 3, (7,)),
            "swapped": ("post-activation", 3, (7,)),
        },
    ),
    "weight norm": (new_weight_norm, (3,), {"0": ("pre-activation", 4, ()), "1": ("post-activation", 4, ())}),
    "own modules": (
        lambda: nn.Sequential(nn.Linear(4, 5), RmsNorm(), nn.Linear(5, 6), Swish(), nn.Linear(6, 2)),
        (4,),
        {
            "0": ("activation", 5, ()),
            "1": ("activation", 5, ()),
            "2": ("pre-activation", 6, ()),
            "3": ("post-activation", 6, ()),
        },
    ),
    "square": (Square, (4,), {"first": ("pre-activation", 5, ())}),
    "tied": (Tied, (4,), {"c": ("pre-activation", 4, ())}),
    "encoder": (
        Encoder,
        (3, 4),
        {
            "layer.norm1": ("activation", 4, (3,)),
            "layer.linear1": ("pre-activation", 8, (3,)),
            "layer.linear2": ("activation", 4, (3,)),
            "layer.norm2": ("activation", 4, (3,)),
        },
    ),
    # A non-linearity at the end changes nothing if all is positive; what comes before is hidden all the same.
    "positive end": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2), nn.Softplus(), nn.ReLU()),
        (4,),
        {
            "0": ("pre-activation", 3, ()),
            "1": ("post-activation", 3, ()),
            "2": ("pre-activation", 2, ()),
            "3": ("post-activation", 2, ()),
        },
    ),
}
# Where the units are, for the layers of the table that have positions and units as many as positions along an axis.
AXES = {"channels last and back": (1, 3, 3, 3, 3, 1), "sum of maps": (1, 1, 2)}


def _by_hook(network: Network, examples: Examples, layer: str) -> np.ndarray:
    """What a plain hook on a copy sees, kept before anything can write into it."""
    kept: list[torch.Tensor] = []
    module = copy.deepcopy(network.module)
    module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out.detach().clone()))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module(network.tensor(examples.inputs))
    return kept[0].numpy()


@pytest.mark.parametrize("name", TABLE)
def test_activations_equal_those_of_a_hook(name: str) -> None:
    torch.manual_seed(0)
    make, shape, wanted = TABLE[name]
    network, examples = made(make(), shape, 7, 2)
    found = {info.name: info for info in hidden_layers(network, examples) if info.usable}
    assert {n: (i.label, i.width, i.positions) for n, i in found.items()} == wanted
    if name in AXES:
        assert tuple(info.unit_axis for info in found.values()) == AXES[name]
    for layer, info in found.items():
        oracle = np.moveaxis(_by_hook(network, examples, layer), info.unit_axis, 1)
        flat = oracle.reshape(*oracle.shape[:2], -1)
        for reduce in ("max", "mean", "absmax"):
            design = NeuronActivations(network, examples, layer, reduce=reduce, tile=3)  # type: ignore[arg-type]  # a loop over its values
            values, locations = design.activations()
            if reduce == "mean" or not info.positions:
                np.testing.assert_allclose(values, flat.mean(axis=2), rtol=1e-12)
                assert locations is None
            else:
                where = (flat if reduce == "max" else np.abs(flat)).argmax(axis=2)
                np.testing.assert_array_equal(locations, where)
                np.testing.assert_allclose(values, np.take_along_axis(flat, where[..., None], 2)[..., 0], rtol=1e-12)
            np.testing.assert_array_equal(np.concatenate([block for _, block in design.blocks()]), values)


def test_the_copy_computes_the_same_function() -> None:
    network, examples = made(conv(), (1, 8, 8), 5, 2)
    x = network.tensor(examples.inputs)
    with torch.no_grad():
        torch.testing.assert_close(network.module(x), network(network.trained, x))


def test_values_do_not_depend_on_what_else_is_there() -> None:
    network, examples = made(conv(), (1, 8, 8), 8, 2)
    design = NeuronActivations(network, examples, "1", tile=3)
    values, locations = design.activations()
    assert locations is not None
    fewer, fewer_locations = design.on(np.arange(4)).activations()
    np.testing.assert_array_equal(fewer, values[:4])
    np.testing.assert_array_equal(fewer_locations, locations[:4])
    turned, turned_locations = design.on(np.arange(8)[::-1]).activations()
    np.testing.assert_allclose(turned, values[::-1], rtol=1e-12)
    np.testing.assert_array_equal(turned_locations, locations[::-1])
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        np.testing.assert_array_equal(design.activations()[0], values)
    finally:
        torch.set_num_threads(threads)


def test_passes_in_other_threads_are_not_mistaken_for_own() -> None:
    network, examples = made(mlp(), (5,), 40, 2)

    def taken(layer: str) -> np.ndarray:
        return NeuronActivations(network, examples, layer, tile=4).activations()[0]

    layers = ["0", "1", "2", "3"] * 3
    alone = {layer: taken(layer) for layer in layers}
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(network.outputs, examples, 1) for _ in range(4)]
        together = list(pool.map(taken, layers))
        for other in others:
            other.result()
    for layer, values in zip(layers, together, strict=True):
        np.testing.assert_array_equal(values, alone[layer])


def test_weight_norm_by_hooks_is_no_obstacle() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old way is what is tried
        network, examples = made(OldWeightNorm(), (3,), 5, 2)
    values, _ = NeuronActivations(network, examples, "first", tile=2).activations()
    np.testing.assert_allclose(values, _by_hook(network, examples, "first"), rtol=1e-12)


def test_captum_takes_the_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    class Recorder(LayerActivation):  # type: ignore[misc]  # Captum ships no types
        def attribute(self, *args: Any, **kwargs: Any) -> Any:
            found = super().attribute(*args, **kwargs)
            seen.append((type(self.layer).__name__, tuple(found.shape)))
            return found + 1000

    monkeypatch.setattr(neurons, "LayerActivation", Recorder)
    network, examples = made(mlp(), (5,), 7, 2)
    for info in hidden_layers(network, examples):
        values, _ = NeuronActivations(network, examples, info.name, tile=4).activations()
        assert (values > 900).all()
    # Each tile as it is, once more by halves, and some of its examples alone.
    assert {shape for _, shape in seen} == {(b, w) for b in (4, 2, 1) for w in (7, 6)}
    whole = [(kind, shape[1]) for kind, shape in seen if shape[0] == 4]
    assert whole == [one for one in (("Linear", 7), ("Tanh", 7), ("Linear", 6), ("GELU", 6)) for _ in (0, 1)]


def test_a_functional_relu_is_told() -> None:
    network, examples = made(Functional(), (5,), 4, 2)
    first, second = hidden_layers(network, examples)
    assert "functional relu follows" in first.remark
    assert "functional relu follows" in second.remark
    assert [info.remark for info in hidden_layers(*made(mlp(), (5,), 4, 2))] == [""] * 4
    own = nn.Sequential(nn.Linear(4, 3), Swish(), nn.Linear(3, 2))
    assert hidden_layers(*made(own, (4,), 4, 2))[0].remark == ""
    values, _ = NeuronActivations(network, examples, "second").activations()
    assert (values < 0).any()
    assert "pre-activation" in NeuronActivations(network, examples, "second").description


def test_layers_that_cannot_be_shown_say_why() -> None:
    cases = [
        (Twice(), (4,), "inner", "called 2 times"),
        (Recurrent(nn.LSTM), (5, 3), "recurrent", "returns a tuple"),
        (Recurrent(nn.GRU), (5, 3), "recurrent", "returns a tuple"),
        (Block(), (3, 4), "attention", "returns a tuple"),
        (Tied(), (4,), "a", "'a' .* called 2 times in one pass .under the names a and b."),
        (Tied(), (4,), "b", "'b' .* called 2 times in one pass"),
        (PositionsFirst(), (2, 4), "inner", "does not have one row per example"),
        (new_weight_norm(), (3,), "0.parametrizations.weight.0", "does not have one row per example"),
        (Functional(), (5,), "unused", "does not; choose one of first, second, third"),
    ]
    for module, shape, layer, reason in cases:
        network, examples = made(module, shape, 4, 2)
        assert layer not in [info.name for info in hidden_layers(network, examples) if info.usable]
        with pytest.raises(NetworkError, match=reason):
            NeuronActivations(network, examples, layer)
    tied, few = made(Tied(), (4,), 4, 2)
    for name in ("c", "d"):
        values, _ = NeuronActivations(tied, few, name).activations()
        np.testing.assert_allclose(values, _by_hook(tied, few, "c"), rtol=1e-12)
    network, examples = made(Functional(), (5,), 4, 2)
    with pytest.raises(NetworkError, match="does not take inputs of shape"):
        hidden_layers(*made(mlp(), (6,), 4, 2))
    with pytest.raises(SettingsError, match="Did you mean 'first'"):
        NeuronActivations(network, examples, "firts")
    with pytest.raises(SettingsError, match="max, mean or absmax"):
        NeuronActivations(network, examples, "first", reduce="median")  # type: ignore[arg-type]  # what a user may type


def test_tokens_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    examples = Examples.from_arrays(np.random.default_rng(0).integers(0, 11, (6, 4)))
    network = Network.from_module(Decoder().eval())
    names = {info.name: info for info in hidden_layers(network, examples)}
    assert names["mlp.0"].label == "pre-activation"
    assert names["embed"].positions == (4,)
    values, locations = NeuronActivations(network, examples, "mlp.1").activations()
    assert values.shape == (6, 16)
    assert locations is not None
    assert locations.max() <= 3


def test_hooks_of_the_user_stay_and_none_are_left() -> None:
    module = mlp()
    calls: list[int] = []
    module[0].register_forward_hook(lambda *_: calls.append(1))
    network, examples = made(module, (5,), 4, 2)
    hidden_layers(network, examples)
    NeuronActivations(network, examples, "1").activations()
    for part in (*module.modules(), *network.module.modules()):
        assert len(part._forward_hooks) == (1 if part in (module[0], network.module[0]) else 0)
        assert not part._forward_pre_hooks


def test_neurons_become_a_set_and_have_principal_components() -> None:
    network, examples = made(conv(), (1, 8, 8), 9, 3)
    design = NeuronActivations(network, examples, "2", tile=4)
    built = Canonical().fit(design).feature_set(design, "neurons_2", keep=3)
    values, locations = design.activations()
    np.testing.assert_allclose(built.values(1, "activation"), values[:, 1].astype(np.float32))
    np.testing.assert_array_equal(built.read("location"), locations.T if locations is not None else None)
    assert built.read("location_shape").tolist() == [[6, 6]] * 4
    assert built.label(1) == "2[1]"
    assert built.card.equals == "Captum's LayerActivation"
    pca = Eigen(3, centred=True).fit(design)
    fitted = values[examples.fitting] - values[examples.fitting].mean(axis=0)
    np.testing.assert_allclose(pca.spectrum_, np.linalg.svd(fitted, compute_uv=False)[:3] ** 2, rtol=1e-9)
    assert "principal component analysis" in pca.feature_set(design, "pca").card.equals


def test_an_identity_is_a_layer_where_it_names_values_that_no_other_gives() -> None:
    network, examples = made(Named().double().eval(), (4,), 6, 2)
    assert [layer.name for layer in hidden_layers(network, examples)] == ["first", "stream"]
    found = np.concatenate([rows for _, rows in NeuronActivations(network, examples, "stream").blocks()])
    inputs = network.tensor(np.asarray(examples.inputs))
    np.testing.assert_allclose(found, (inputs + network.module.first(inputs)).detach().numpy(), atol=1e-12)
