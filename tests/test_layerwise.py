"""Eigen features of every module from one pass, against those of each module by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import Cnn, mlp
from oracles import made
from torch import nn

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.features import effective
from feature_lens.features.bases import Eigen, Layerwise
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import NeuronActivations
from feature_lens.networks import Network


@pytest.fixture(scope="module")
def problem() -> tuple[Network, Examples]:
    torch.manual_seed(0)
    return made(mlp(), (5,), 40, 3)


@pytest.mark.parametrize("outputs", ["flattened", "trace", "output:1"])
@pytest.mark.parametrize("by", ["layer", "tensor"])
def test_they_are_those_of_each_module_by_itself(problem: tuple[Network, Examples], outputs: str, by: str) -> None:
    network, examples = problem
    design = EffectiveFeatures(network, examples, outputs=outputs)
    basis = Layerwise(4, by=by).fit(design)
    found, directions, built = basis.transform(design), basis.directions(), basis.feature_set(design, "x")
    assert (np.diff(basis.spectrum_) <= 0).all()
    names = ["0", "2", "4"] if by == "layer" else list(network.parameters.names)
    total = EffectiveFeatures(network, examples.on(examples.fitting), outputs=outputs).squared_norm()
    for name in names:
        own = basis.part_ == name
        part = EffectiveFeatures(network, examples, outputs=outputs, layers=[name])
        alone = Eigen(4).fit(part)
        np.testing.assert_allclose(basis.spectrum_[own], alone.spectrum_, rtol=1e-8)
        np.testing.assert_array_equal(np.unique(basis.groups_[own], return_inverse=True)[1], alone.groups_)
        np.testing.assert_allclose(basis.stability_[own], alone.stability_, atol=1e-6)
        np.testing.assert_allclose(
            basis.part_share_[name],
            EffectiveFeatures(
                network, part.examples.on(examples.fitting), outputs=outputs, layers=[name]
            ).squared_norm()
            / total,
        )
        other = alone.feature_set(part, "y")
        np.testing.assert_allclose(built.read("parameter_share")[own], other.read("parameter_share"), atol=1e-8)
        if (np.bincount(alone.groups_) == 1).all():  # else features are told from one another by chance
            np.testing.assert_allclose(found[:, own], alone.transform(part), atol=1e-7)
            np.testing.assert_allclose(built.read("values")[own], other.read("values"), atol=1e-6)
            np.testing.assert_allclose(built.read("direction")[own], other.read("direction"), atol=1e-6)
    rows = np.concatenate([block for _, block in design.blocks()])
    np.testing.assert_allclose(found, rows @ directions.T, atol=1e-7)
    np.testing.assert_allclose(basis.kernel_share_, basis.spectrum_.sum() / total)
    assert len(set(basis.groups_)) == sum(len(set(basis.groups_[basis.part_ == name])) for name in names)


def test_one_pass_makes_all_of_them(problem: tuple[Network, Examples], monkeypatch: pytest.MonkeyPatch) -> None:
    design = EffectiveFeatures(*problem, outputs="trace")
    design.plan()  # tries a kernel of a few examples
    passes = []
    run = effective.KernelWork.run
    monkeypatch.setattr(effective.KernelWork, "run", lambda work, out: (passes.append(len(out)), run(work, out)))
    basis = Layerwise(2).fit(design)
    basis.transform(design)
    assert passes == [6, 3]  # a kernel for each tensor, then one for each module


def test_the_set_says_what_each_module_holds(problem: tuple[Network, Examples]) -> None:
    sets = (SetSettings.parsed("layerwise/trace+3"), SetSettings.parsed("layerwise"))
    run = compute_run(*problem, ExtractSettings(sets=sets, neurons=()), progress=False)
    made_set = run.sets["layerwise_trace"]
    assert len(made_set) == 9
    labels = [made_set.label(k) for k in range(9)]
    assert sorted(labels) == [f"{layer} feature {k}" for layer in ("0", "2", "4") for k in range(3)]
    assert [str(one) for one in made_set.read("layer")] == [label.split()[0] for label in labels]
    assert "of '4' uncentred principal component analysis of the last hidden activations" in made_set.card.equals
    assert "of '2'" not in made_set.card.equals
    assert "Shares of the kernel: '" in made_set.card.description
    assert {"group", "stability", "profile", "energy"} <= set(run.sets["layerwise"].columns)
    torch.manual_seed(1)
    network, examples = made(Cnn(), (2, 9, 9), 12, 4)
    convolutions = Layerwise(2).fit(EffectiveFeatures(network, examples, outputs="trace"))
    assert list(convolutions.part_share_) == ["0", "2", "head"]


def test_dead_modules_have_no_features_and_wrong_settings_are_refused(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    design = EffectiveFeatures(network, examples)
    with pytest.raises(SettingsError, match="'Layerwise' is made of effective features, not of NeuronActivations"):
        Layerwise().fit(NeuronActivations(network, examples, "1"))
    with pytest.raises(SettingsError, match="No part of a network is called 'module'"):
        Layerwise(by="module").fit(design)
    with pytest.raises(SettingsError, match="At least one feature of each module must be asked for, not 0"):
        Layerwise(0).fit(design)
    with pytest.raises(SettingsError, match="kernels of 78 rows in memory"):
        Layerwise().fit(EffectiveFeatures(network, examples, memory=1 << 16))
    stack = nn.Sequential(nn.Linear(5, 2, bias=False), nn.ReLU(), nn.Linear(2, 3)).eval()
    with torch.no_grad():
        stack[0].weight.zero_()
    dead = Layerwise().fit(EffectiveFeatures(Network.from_module(stack), examples))
    assert set(dead.part_) == {"2"}
    assert dead.part_share_ == {"0": 0.0, "2": 1.0}
    without = EffectiveFeatures(Network.from_module(stack), examples, layers=["0"])
    with pytest.raises(SettingsError, match="not zero, but it is"):
        Layerwise().fit(without)
