"""The sets that a run may be asked for by text: derivatives, neurons and logits, trained and not, with options."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import mlp
from oracles import made, with_initial
from torch import nn

from feature_lens.analysis import class_figures, headline
from feature_lens.analysis.example_features import strongest_neurons
from feature_lens.analysis.headline import LOGITS
from feature_lens.analysis.kinds import kinds
from feature_lens.errors import ExamplesError, NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extract_run
from feature_lens.features.bases import Canonical
from feature_lens.features.centred_rows import CentredDesign
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import Logits, NeuronActivations
from feature_lens.networks import Network
from feature_lens.store import RunFile


@pytest.fixture(scope="module")
def problem() -> tuple[Network, Examples]:
    torch.manual_seed(0)
    network, examples = made(mlp(), (5,), 40, 3)
    return with_initial(network), examples


def _hidden(network: Network, examples: Examples, at: str, layer: int) -> np.ndarray:
    """Activations after so many parts of the stack, by the module itself."""
    module = mlp().double()
    module.load_state_dict(network.at(at))
    with torch.no_grad():
        return module[: layer + 1](torch.as_tensor(np.asarray(examples.inputs))).numpy()


@pytest.mark.parametrize("at", ["effective", "initial"])
def test_neurons_and_logits_are_those_of_the_network_that_is_asked_for(
    problem: tuple[Network, Examples], at: str
) -> None:
    network, examples = problem
    neurons, logits = NeuronActivations(network, examples, "1", at=at), Logits(network, examples, at=at)
    np.testing.assert_allclose(neurons.activations()[0], _hidden(*problem, at, 1), atol=1e-12)
    np.testing.assert_allclose(Canonical().fit_transform(neurons), _hidden(*problem, at, 1), atol=1e-12)
    np.testing.assert_allclose(Canonical().fit_transform(logits), _hidden(*problem, at, 4), atol=1e-12)
    built = Canonical().fit(logits).feature_set(logits, "logits", keep=4)
    assert built.label(1) == "logit of 1"
    assert ("untrained" in built.card.title) == (at == "initial")
    assert ("untrained" in Canonical().fit(neurons).feature_set(neurons, "x").card.title) == (at == "initial")


def test_text_says_which_set_it_is() -> None:
    said = {
        "eigen": ("eigen", "flattened", "effective", None, None, None),
        "eigen/trace": ("eigen", "trace", "effective", None, None, None),
        "eigen+3+cosine@initial": ("eigen", "flattened", "initial", 3, None, True),
        "eigen/output:3@initial": ("eigen", "output:3", "initial", None, None, None),
        "eigen/trace+centred+cosine+12@sharp": ("eigen", "trace", "sharp", 12, True, True),
        "pca/neurons:net.0+uncentred": ("pca", "neurons:net.0", "effective", None, False, None),
        "canonical/logits@initial": ("canonical", "logits", "initial", None, None, None),
    }
    for text, (basis, outputs, at, k, centred, cosine) in said.items():
        assert SetSettings.parsed(text) == SetSettings(basis, outputs, at, None, k, centred, cosine)
    names = {
        "canonical": "weights",
        "canonical/neurons:net.0": "neurons_net.0",
        "canonical/neurons@initial": "neurons_initial",
        "canonical/logits": "logits",
        "pca/logits+uncentred": "pca_logits_uncentred",
        "eigen/trace+centred+cosine": "eigen_trace_centred_cosine",
    }
    assert {text: SetSettings.parsed(text).title() for text in names} == names
    # Options of the command count where the text does not say otherwise, and where they mean something.
    given = {"layers": ("0",), "n_components": 5, "centred": True}
    assert SetSettings.parsed("eigen/trace", **given) == SetSettings(
        "eigen", "trace", layers=("0",), n_components=5, centred=True
    )
    assert SetSettings.parsed("eigen/trace+uncentred+7", **given).centred is False
    assert SetSettings.parsed("eigen/trace+uncentred+7", **given).n_components == 7
    assert SetSettings.parsed("unit", **given).centred is None
    assert SetSettings.parsed("eigen/neurons", **given) == SetSettings("eigen", "neurons", n_components=5)
    with pytest.raises(SettingsError, match="written BASIS/OUTPUTS"):
        SetSettings.parsed("/trace")
    with pytest.raises(SettingsError, match=r"No option of a set is called 'centered'.*Did you mean 'centred'"):
        SetSettings.parsed("eigen/trace+centered")


def test_a_set_of_neurons_is_one_for_every_layer(problem: tuple[Network, Examples]) -> None:
    texts = (
        "canonical/neurons@initial",
        "eigen/neurons+centred+3",
        "canonical/neurons:1",
        "canonical/logits",
        "varimax+3",
    )
    sets = tuple(SetSettings.parsed(text) for text in texts)
    run = compute_run(*problem, ExtractSettings(sets=sets, dual=True, trained_otherwise="AdamW"), progress=False)
    layers = ["0", "1", "2", "3"]
    assert list(run.sets) == [
        *(f"neurons_{layer}_initial" for layer in layers),
        *(f"eigen_neurons_{layer}_centred" for layer in layers),
        *("neurons_1", "logits", "varimax", "neurons_0", "neurons_2", "neurons_3"),
    ]
    untrained = run.sets["neurons_1_initial"]
    np.testing.assert_allclose(untrained.read("values")[:, 0].T, _hidden(*problem, "initial", 1), atol=1e-6)
    assert len(run.sets["eigen_neurons_0_centred"]) == 3
    assert "ablation/loss" in run.sets["neurons_1"]
    assert "ablation/loss" not in untrained
    named = SetSettings("pca", "neurons", n_components=1, name="mine")
    few = compute_run(*problem, ExtractSettings(sets=(named,), neurons=()), progress=False)
    assert list(few.sets) == [f"mine_{layer}" for layer in layers]
    assert "ablation/loss" in run.sets["varimax"]  # its directions are those of parameters
    assert untrained.of_activations
    assert not untrained.is_neurons
    assert not any("initial" in name for name in strongest_neurons(run, 0, "activation", 100)["set"])
    # Logits are one kind, whether they are a set or not.
    figures = class_figures(run)
    assert list(figures["set"]).count("logits") == 1
    assert (figures["kind"] == LOGITS).sum() == 1
    assert headline(run).lower().count("logits") == 1


def test_options_stand_side_by_side_in_a_run(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    texts = [f"eigen/trace{options}+4" for options in ("", "+centred", "+cosine", "+centred+cosine")]
    sets = tuple(SetSettings.parsed(text) for text in texts)
    run = compute_run(network, examples, ExtractSettings(sets=sets, neurons=()), progress=False)
    assert list(run.sets) == ["eigen_trace", "eigen_trace_centred", "eigen_trace_cosine", "eigen_trace_centred_cosine"]
    phi = np.concatenate([block for _, block in EffectiveFeatures(network, examples, outputs="trace").blocks()])
    for (centred, cosine), made_set in zip(((0, 0), (1, 0), (0, 1), (1, 1)), run.sets.values(), strict=True):
        rows = phi / np.linalg.norm(phi, axis=1, keepdims=True) if cosine else phi
        rows = rows - rows[examples.fitting].mean(axis=0) if centred else rows
        wanted = np.linalg.svd(rows[examples.fitting], compute_uv=False)[:4] ** 2
        np.testing.assert_allclose(made_set.read("spectrum"), wanted, rtol=1e-6)
        assert ("centred" in made_set.card.title, "unit length" in made_set.card.title) == (bool(centred), bool(cosine))
    assert run.provenance.settings["sets"][2]["cosine"] is True


def test_sets_that_cannot_be_are_refused(problem: tuple[Network, Examples]) -> None:
    network, examples = problem

    def run(text: str, net: Network = network, **more: object) -> None:
        wanted = replace(SetSettings.parsed(text), **more)
        compute_run(net, examples, ExtractSettings(sets=(wanted,), neurons=()), progress=False)

    with pytest.raises(SettingsError, match="taken at 'effective' or 'initial' parameters, not at 'sharp'"):
        run("canonical/logits@sharp")
    with pytest.raises(NetworkError, match="need the parameters before training"):
        run("canonical/neurons@initial", replace(network, initial=None))
    with pytest.raises(SettingsError, match="neither with nor without 'centred'"):
        run("unit/flattened+centred")
    with pytest.raises(SettingsError, match="Layers are chosen among parameters"):
        run("canonical/neurons", layers=("0",))
    with pytest.raises(SettingsError, match="Unit features are made of effective features, not of NeuronActivations"):
        run("unit/neurons")
    with pytest.raises(SettingsError, match="made of hidden layers, but the network has none"):
        run("canonical/neurons", with_initial(Network.from_module(nn.Linear(5, 3).eval())))
    plain = EffectiveFeatures(network, examples)
    with pytest.raises(SettingsError, match="takes weights, neurons or logits, not CentredDesign"):
        Canonical().feature_set(CentredDesign(plain, plain.mean()), "x")


def test_sets_that_read_labels_take_no_part_in_comparisons_by_class() -> None:
    torch.manual_seed(0)
    _, examples = made(mlp(), (5,), 30, 3)
    network = Network.from_module(mlp().eval())
    wanted = (SetSettings("eigen", "target", n_components=3), SetSettings("eigen", "trace", n_components=3))
    run = compute_run(network, examples, ExtractSettings(sets=wanted, neurons=()), progress=False)
    target, trace = run.sets.values()
    assert (target.card.reads_labels, trace.card.reads_labels) == (True, False)
    assert "takes no part in comparisons by class" in target.card.description
    assert [kind.set_name for kind in kinds(run)] == ["eigen_trace", "", "eigen_trace"]


class _Alike(nn.Module):
    """Layers whose names are written alike in a set's name."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"a/b": (3, 4), "a_b": (4, 4), "a_b_2": (4, 4), "a b": (4, 1)}
        self.parts = nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in ("a/b", "a_b", "a_b_2"):
            x = torch.tanh(self.parts[name](x))
        return self.parts["a b"](x)


def test_layers_that_are_written_alike_have_sets_of_their_own_and_one_output_has_one_kernel() -> None:
    torch.manual_seed(0)
    network, examples = (
        Network.from_module(_Alike().eval()),
        Examples.from_arrays(np.random.default_rng(0).normal(size=(12, 3))),
    )
    run = compute_run(network, examples, progress=False)
    names = [f"neurons_parts.{written}" for written in ("a_b", "a_b_2", "a_b_2_2")]
    assert [name for name in run.sets if name.startswith("neurons")] == names
    with torch.no_grad():
        first = network.module.parts["a/b"](network.tensor(examples.inputs))
        second = network.module.parts["a_b"](torch.tanh(first))
        third = network.module.parts["a_b_2"](torch.tanh(second))
    for name, wanted in zip(names, (first, second, third), strict=True):
        np.testing.assert_allclose(np.asarray(run.sets[name].read("values"))[:, 0].T, wanted.numpy(), atol=1e-6)
    assert "eigen" in run.sets
    assert "eigen_trace" not in run.sets
    assert any("with one output it is 'eigen'" in remark for remark in run.provenance.remarks)
    alone = ExtractSettings(sets=(SetSettings("eigen", "trace"),), neurons=())
    assert list(compute_run(network, examples, alone, progress=False).sets) == ["eigen_trace"]
    twice = ExtractSettings(sets=(SetSettings("canonical", "neurons:parts.a_b"),) * 2, neurons=("parts.a/b",))
    with pytest.raises(SettingsError, match=r"Two feature sets are called 'neurons_parts\.a_b'"):
        compute_run(network, examples, twice, progress=False)


def test_names_that_no_file_can_hold_are_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_lens.extract.jobs_of", lambda *_: pytest.fail("computed"))
    examples = Examples.from_arrays(np.zeros((4, 2)) + np.arange(4)[:, None])
    fine = nn.Linear(2, 2)
    for module, run, network in (
        (fine, "a\0b", "net"),
        (fine, "half \ud800", "net"),
        (fine, "run", "net\0"),
        (nn.Sequential(OrderedDict({"a\0b": fine})), "run", "net"),
    ):
        with pytest.raises(ExamplesError, match="A file cannot hold the text"):
            compute_run(Network.from_module(module, name=network), examples, name=run, progress=False)


class _Saying(nn.Linear):
    def extra_repr(self) -> str:
        return "\0\ud800"


def test_a_module_that_says_what_no_file_holds_is_kept_with_it_written_out(tmp_path: Path) -> None:
    examples = Examples.from_arrays(np.random.default_rng(0).normal(size=(6, 2)))
    settings = ExtractSettings(sets=(SetSettings("unit"),), neurons=())
    extract_run(Network.from_module(_Saying(2, 2)), examples, tmp_path / "run.h5", settings, progress=False)
    with RunFile(tmp_path / "run.h5") as run:
        assert run.network.architecture == "_Saying(\\x00\\ud800)"
