"""Neurons of networks whose way depends on the data, held against one forward pass for each example."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import rnn

from feature_lens.analysis import open_run
from feature_lens.errors import NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extract_run
from feature_lens.features.bases import Eigen
from feature_lens.features.bases.unit_blocks import last_hidden
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.known_methods import LastLinear, last_linear
from feature_lens.features.neurons import NeuronActivations, Reduce, hidden_layers
from feature_lens.networks import Network


class Layers(nn.Module):
    """Three layers and a readout; the first entry of an example (0, 1, 2) says which way it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)


class Sorted(Layers):
    """The batch is put into order for one layer, and back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = torch.argsort(x[:, 0], descending=True, stable=True)
        h = torch.tanh(self.b(torch.tanh(self.a(x))[order]))
        return self.out(h[torch.argsort(order)])


class Routed(Layers):
    """Each example goes to one of three experts; experts that nobody chose are not called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros_like(x)
        for kind, expert in enumerate((self.a, self.b, self.c)):
            chosen = torch.nonzero(x[:, 0] == kind)[:, 0]
            if len(chosen):
                h = h.index_copy(0, chosen, torch.tanh(expert(x[chosen])))
        return self.out(h)


class Early(Layers):
    """Examples leave after one layer, after two or after three; deeper layers are called with the rest, if it is empty too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x))
        further = x[:, 0] > 0
        deep = torch.tanh(self.b(h[further]))
        last = x[further, 0] > 1
        deep = deep.masked_scatter(last[:, None], torch.tanh(self.c(deep[last])))
        return self.out(h.masked_scatter(further[:, None], deep))


class Looped(Layers):
    """One example after the other, and a layer that only some of these calls reach."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = [torch.tanh(self.a(one)) if one[0, 0] == 0 else self.b(torch.tanh(self.c(one))) for one in x.split(1)]
        return self.out(torch.cat(rows))


class Rolled(Layers):
    """As many rows as examples, but those of their neighbours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.a(x.roll(1, 0)).roll(-1, 0)))


class Centred(Layers):
    """A layer that sees what its batch has in common, which is then taken off again."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=0, keepdim=True)
        return self.out(torch.tanh(self.a(x - mean) + mean @ self.a.weight.T))


class Packed(nn.Module):
    """Sequences (5, 3) of one to five steps that are packed, run through a GRU, and cut to the longest of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.recurrent, self.after = nn.Linear(3, 3), nn.GRU(3, 4, batch_first=True), nn.Linear(4, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lengths = (x[:, :, 0] != 0).sum(dim=1)
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        packed = rnn.PackedSequence(
            self.inner(packed.data), packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
        )
        h, _ = rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        h = torch.tanh(self.after(h))
        return self.out(h[torch.arange(len(x)), lengths - 1])


WAYS: dict[str, tuple[type[nn.Module], set[str]]] = {
    "sorted": (Sorted, {"a", "b"}),
    "routed": (Routed, {"a", "b", "c"}),
    "exited early": (Early, {"a", "b", "c"}),
    "looped": (Looped, {"a", "b", "c"}),
    "rolled": (Rolled, {"a"}),
    "centred": (Centred, {"a"}),
    "packed": (Packed, {"after"}),
}


def _examples(way: str, kinds: list[int], seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    if way == "packed":
        inputs = rng.uniform(0.5, 2, (len(kinds), 5, 3)) * rng.choice([-1, 1], (len(kinds), 5, 3))
        for row, kind in zip(inputs, kinds, strict=True):
            row[1 + 2 * kind :] = 0
    else:
        inputs = rng.standard_normal((len(kinds), 4))
        inputs[:, 0] = kinds
    return Examples.from_arrays(inputs, ids=[f"e{place}" for place in range(len(kinds))])


def _network(way: str) -> Network:
    torch.manual_seed(0)
    return Network.from_module(WAYS[way][0]().eval())


def _alone(network: Network, examples: Examples, layer: str) -> list[np.ndarray | None]:
    """What a plain hook sees of each example in a pass of its own: (positions, units), or None."""
    made: list[np.ndarray | None] = []
    for one in network.tensor(examples.inputs).split(1):
        kept: list[torch.Tensor] = []
        hook = network.module.get_submodule(layer).register_forward_hook(
            lambda _m, _i, out, kept=kept: kept.append(out)
        )
        with torch.no_grad():
            network(network.trained, one)
        hook.remove()
        full = [rows for rows in kept if rows.numel()]
        assert len(full) <= 1
        made.append(full[0][0].reshape(-1, full[0].shape[-1]).numpy() if full else None)
    return made


@settings(max_examples=12, deadline=None)
@given(
    way=st.sampled_from(sorted(WAYS)),
    kinds=st.lists(st.integers(0, 2), min_size=2, max_size=12),
    tile=st.sampled_from([1, 3, 32]),
    reduce=st.sampled_from(["max", "mean", "absmax"]),
    seed=st.integers(0, 99),
)
def test_neurons_are_those_of_one_pass_for_each_example(
    way: str, kinds: list[int], tile: int, reduce: Reduce, seed: int
) -> None:
    _hold(way, kinds, tile, reduce, seed)


@pytest.mark.parametrize("way", WAYS)
def test_neurons_where_few_examples_go_another_way(way: str) -> None:
    kinds = [0] * 80
    kinds[37], kinds[70] = 2, 1
    _hold(way, kinds, 32, "max", 0)
    _hold(way, [0, 1, 2], 32, "absmax", 0)


def _hold(way: str, kinds: list[int], tile: int, reduce: Reduce, seed: int) -> None:
    network, examples = _network(way), _examples(way, kinds, seed)
    infos = {layer.name: layer for layer in hidden_layers(network, examples)}
    reached: set[str] = set()
    for layer in WAYS[way][1]:
        wanted = _alone(network, examples, layer)
        if all(rows is None for rows in wanted):
            assert layer not in infos
            continue
        reached.add(layer)
        design = NeuronActivations(network, examples, layer, reduce=reduce, tile=tile)
        values, locations = design.activations()
        missing = [place for place, rows in enumerate(wanted) if rows is None]
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(values).any(axis=1)), missing)
        for place, rows in enumerate(wanted):
            if rows is None:
                assert np.isnan(values[place]).all()
                assert locations is None or (locations[place] == -1).all()
                continue
            where = (np.abs(rows) if reduce == "absmax" else rows).argmax(axis=0)
            one = rows.mean(axis=0) if reduce == "mean" else rows[where, np.arange(rows.shape[1])]
            np.testing.assert_allclose(values[place], one, rtol=1e-9, atol=1e-12)
            if locations is not None:
                np.testing.assert_array_equal(locations[place], where)
        sizes = {len(rows) for rows in wanted if rows is not None}
        assert design.location_shape == ((max(sizes),) if way == "packed" else ())
        if way == "packed":
            assert f"; of {'up to ' * (len(sizes) > 1)}{max(sizes)} positions the " in design.description
        # Streamed anew, and by a design that did not see them all before.
        for other in (design, NeuronActivations(network, examples, layer, reduce=reduce, tile=tile)):
            np.testing.assert_allclose(np.concatenate([block for _, block in other.blocks()]), values, rtol=1e-9)
        told = [remark for remark in design.remarks if "never reach" in remark]
        assert len(told) == bool(missing)
        if missing:
            assert told[0].startswith(f"{len(missing)} of {len(kinds)} examples never reach layer '{layer}' ")
            assert f"(ids e{missing[0]}" in told[0]
        few = np.arange(len(kinds))[::2]
        np.testing.assert_allclose(design.on(few).activations()[0], values[few], rtol=1e-9, atol=1e-12)
    assert {name for name, layer in infos.items() if layer.usable and name != "inner"} == reached
    if way == "packed" and kinds[0] > 0:
        assert "does not have one row per example" in infos["inner"].remark


def test_passes_are_made_until_an_example_reaches_the_layer() -> None:
    passes: list[int] = []
    network, examples = _network("routed"), _examples("routed", [0] * 40 + [1] * 40, 0)
    network.check(examples)
    network.module.out.register_forward_hook(lambda _m, args, _o: passes.append(len(args[0])))
    for layer, wanted in (("a", [1, 2, 3]), ("b", [1, 2, 3, 32, 32, *[1] * 9, 1, 2, 3])):
        passes.clear()
        NeuronActivations(network, examples, layer)
        assert passes == wanted


def test_rows_of_a_batch_are_used_where_they_are_those_of_examples() -> None:
    network, examples = _network("routed"), _examples("routed", [1] * 40, 0)
    design = NeuronActivations(network, examples, "b", tile=8)
    design.activations()
    assert design.remarks == ()
    mixed = NeuronActivations(network, _examples("routed", [1] * 39 + [0], 0), "b", tile=8)
    mixed.activations()
    assert "run for one example at a time, because rows of a batch" in mixed.remarks[0]
    assert "1 of 40 examples never reach layer 'b' and have no values of it (ids e39)." in mixed.remarks[1]


def test_a_run_says_which_examples_a_layer_never_saw(tmp_path: Path) -> None:
    kinds = [0, 2, 1, 0, 2, 0, 1, 2, 0, 0]
    network, examples = _network("exited early"), _examples("exited early", kinds, 0)
    sets = (SetSettings("canonical", "logits"), SetSettings("eigen", "neurons:b"), SetSettings("eigen", "neurons:a"))
    run = open_run(extract_run(network, examples, tmp_path / "run.h5", ExtractSettings(sets), progress=False))
    for layer in "bc":
        wanted = _alone(network, examples, layer)
        stored = run.sets[f"neurons_{layer}"]
        values = np.asarray(stored.read("values"))[:, 0].T
        missing = [place for place, rows in enumerate(wanted) if rows is None]
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(values[:, 0])), missing)
        assert set(np.asarray(stored.read("n_nonfinite")).ravel()) == {len(missing)}
        for place, rows in enumerate(wanted):
            if rows is not None:
                np.testing.assert_allclose(values[place], rows[0], rtol=1e-6)
    remarks = " ".join(run.provenance.remarks)
    assert "values that are NaN" not in remarks  # once is enough
    assert "5 of 10 examples never reach layer 'b' and have no values of it (ids e0, e3, e5, ...)." in remarks
    # What needs a value of every example is left out, in a sentence, and ends nothing.
    assert "eigen_neurons_b" not in run.sets
    assert re.search(r"The set 'eigen_neurons_b' is left out: .* 5 of 10 examples .*ids e0, e3, e5", remarks)
    assert "eigen_neurons_a" in run.sets
    with pytest.raises(SettingsError, match="5 of 10 examples"):
        compute_run(network, examples, ExtractSettings(sets[1:2], neurons=()), progress=False)


def test_principal_components_are_of_rows_in_the_order_of_the_examples() -> None:
    network, examples = _network("sorted"), _examples("sorted", [0, 1, 2, 1, 0, 2, 2, 0], 0)
    design = NeuronActivations(network, examples, "b")
    wanted = np.stack([rows[0] for rows in _alone(network, examples, "b") if rows is not None])
    found = Eigen(2).fit(design)
    np.testing.assert_allclose(found.spectrum_, np.linalg.svd(wanted, compute_uv=False)[:2] ** 2, rtol=1e-9)
    left = np.linalg.svd(wanted, full_matrices=False)[0][:, :2]
    np.testing.assert_allclose(np.abs(found.transform(design) / np.sqrt(found.spectrum_)), np.abs(left), rtol=1e-7)


class Sometimes(nn.Linear):
    """A layer that may return a tuple."""

    def forward(self, input: torch.Tensor, packed: bool = False) -> Any:
        made = super().forward(input)
        return (made,) if packed else made


class Again(Layers):
    """A layer that is not called in the usual way for some examples."""

    def __init__(self, otherwise: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.b, self.otherwise = Sometimes(4, 4), otherwise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, often = torch.tanh(self.a(x)), x[:, 0] == 2
        if often.any():
            h = h.masked_scatter(often[:, None], self.otherwise(self.b, h[often]))
        return self.out(h.masked_scatter(~often[:, None], self.b(h[~often])))


def _only_while_nobody_looks(layer: nn.Module, h: torch.Tensor) -> torch.Tensor:
    if len(layer._forward_hooks) > 1:
        raise RuntimeError("somebody is looking")
    return h


FAILING: dict[str, tuple[Callable[[nn.Module, torch.Tensor], torch.Tensor], str]] = {
    "called twice": (lambda layer, h: layer(torch.sin(layer(h))), "it is called 2 times"),
    "in another shape": (
        lambda layer, h: layer(torch.stack([h, h], dim=1)).mean(dim=1),
        r"its output has the shape \(1, 2, 4\), which is not one row of 4 units",
    ),
    "a tuple": (lambda layer, h: layer(h, packed=True)[0], "it returns a tuple"),
    "an error": (_only_while_nobody_looks, r"it could not be run alone \(RuntimeError: somebody is looking\)"),
}


def test_a_layer_that_each_example_passes_once_may_be_called_for_some_after_others() -> None:
    torch.manual_seed(0)
    network, examples = Network.from_module(Again(lambda layer, h: layer(h))), _examples("again", [0, 2, 1, 0, 2], 0)
    values, _ = NeuronActivations(network, examples, "b").activations()
    wanted = [rows[0] for rows in _alone(network, examples, "b") if rows is not None]
    np.testing.assert_allclose(values, np.stack(wanted), rtol=1e-12)


@pytest.mark.parametrize("case", FAILING)
def test_a_layer_that_fails_is_left_out_and_never_ends_the_run(case: str) -> None:
    otherwise, sentence = FAILING[case]
    torch.manual_seed(0)
    network, examples = Network.from_module(Again(otherwise)), _examples("again", [0, 1, 0, 1, 2, 0], 0)
    made = compute_run(network, examples, ExtractSettings((SetSettings("canonical", "logits"),)), progress=False)
    assert sorted(made.sets) == ["logits", "neurons_a"]
    left_out = [remark for remark in made.provenance.remarks if "neurons_b" in remark]
    assert len(left_out) == 1
    assert re.search(
        f"The set 'neurons_b' is left out: Layer 'b' cannot be shown as neurons, because for example e4 {sentence}",
        left_out[0],
    )
    with pytest.raises(NetworkError, match=sentence):
        compute_run(network, examples, ExtractSettings((), neurons=("b",)), progress=False)


class Shy(Layers):
    """A forward that runs, but not while every call of torch is followed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.overrides._get_current_function_mode() is not None:
            raise RuntimeError("somebody is looking")
        return self.out(torch.tanh(self.a(x)))


def test_layers_that_cannot_be_followed_are_none() -> None:
    torch.manual_seed(0)
    network, examples = Network.from_module(Shy()), _examples("shy", [0, 1, 0, 2], 0)
    with pytest.raises(NetworkError, match=r"could not be followed .RuntimeError: somebody is looking"):
        hidden_layers(network, examples)
    made = compute_run(network, examples, ExtractSettings((SetSettings("canonical", "logits"),)), progress=False)
    assert list(made.sets) == ["logits"]
    assert any("Hidden layers are not shown: The layers" in remark for remark in made.provenance.remarks)
    with pytest.raises(SettingsError, match="has none that can be shown"):
        compute_run(network, examples, ExtractSettings((SetSettings("canonical", "neurons"),)), progress=False)


class EndsTwice(Layers):
    """A linear readout for all but some examples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made, other = self.out(torch.tanh(self.a(x))), x[:, 0] == 2
        return made.masked_scatter(other[:, None], torch.tanh(made[other])) if other.any() else made


class EndsSorted(Layers):
    """A linear readout in another order than that of the examples, where they are not in order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = torch.argsort(x[:, 0], stable=True)
        made = self.out(torch.tanh(self.a(x[order])))
        return made if (order == torch.arange(len(x))).all() else made[torch.argsort(order)]


def test_a_last_linear_layer_gives_the_outputs_of_all_examples() -> None:
    torch.manual_seed(0)
    often, rarely = _examples("ends", [0] * 40, 0), _examples("ends", [0] * 39 + [2], 0)
    network = Network.from_module(EndsTwice())
    assert last_linear(network, often) == LastLinear("out.weight", "out.bias", takes_inputs=False)
    assert last_linear(network, rarely) is None
    # In order within tiles of 32, but not in larger ones.
    kinds = [1] * 32 + [0] * 8
    design = EffectiveFeatures(Network.from_module(EndsSorted()), _examples("ends", kinds, 0), outputs="trace", tile=40)
    assert last_linear(design.network, design.examples) is not None
    with pytest.raises(SettingsError, match="but some examples go another way; choose 'deflated'"):
        last_hidden(design)
    small = EffectiveFeatures(design.network, design.examples, outputs="trace", tile=8)
    inputs = design.network.tensor(design.examples.inputs)
    with torch.no_grad():
        wanted = torch.tanh(design.network.module.a(inputs)).numpy()
    np.testing.assert_allclose(last_hidden(small)[0], wanted, rtol=1e-12)
