"""Projected gradients against the dense product, and their distortion against what is expected of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import Cnn, mlp
from oracles import made
from torch import nn

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features import sketch
from feature_lens.features.bases import Sketch
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import NeuronActivations
from feature_lens.features.sketch import distortion, random_columns, sketched
from feature_lens.networks import Network


@pytest.fixture(scope="module")
def problem() -> tuple[Network, Examples]:
    torch.manual_seed(0)
    return made(mlp(), (5,), 40, 3)


@pytest.mark.parametrize("entries", ["gaussian", "sparse"])
@pytest.mark.parametrize("outputs", ["flattened", "trace"])
def test_it_is_the_product_with_one_matrix_however_little_memory_there_is(
    problem: tuple[Network, Examples], entries: str, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    asked: list[int] = []
    drawn = sketch.random_columns

    def noted(n: int, columns: range, entries: str, seed: int) -> np.ndarray:
        asked.append(len(columns))
        return drawn(n, columns, entries, seed)

    monkeypatch.setattr(sketch, "random_columns", noted)
    for network, examples in (problem, made(Cnn(), (2, 9, 9), 9, 4)):
        network = Network.from_module(network.module.requires_grad_(True), learning_rates={"*.bias": 0.3})
        design = EffectiveFeatures(network, examples, outputs=outputs)
        omega = random_columns(design.n_columns, range(7), entries, 5)
        rows = np.concatenate([block for _, block in design.blocks()])
        wanted = rows @ omega / np.sqrt(7)
        np.testing.assert_allclose(sketched(design, 7, entries, 5), wanted, atol=1e-9)
        asked.clear()
        small = EffectiveFeatures(network, examples, outputs=outputs, memory=8 * 8 * 2 * design.n_columns, tile=4)
        np.testing.assert_allclose(sketched(small, 7, entries, 5), wanted, atol=1e-9)
        assert max(asked) == 2  # columns of p numbers in memory at once
        assert sum(asked) % 7 == 0  # once for every block of examples


@pytest.mark.parametrize("entries", ["gaussian", "sparse"])
def test_entries_have_mean_0_and_variance_1(entries: str) -> None:
    omega = random_columns(4000, range(5), entries, 0)
    np.testing.assert_allclose(omega.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(omega.var(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(np.corrcoef(omega.T) - np.eye(5), 0, atol=0.06)
    np.testing.assert_array_equal(random_columns(4000, range(3, 5), entries, 0), omega[:, 3:])
    if entries == "sparse":
        assert set(np.unique(omega.round(9))) == {-round(3**0.5, 9), 0.0, round(3**0.5, 9)}
        np.testing.assert_allclose((omega == 0).mean(), 2 / 3, atol=0.02)


def test_the_distortion_is_what_gaussian_directions_are_expected_to_have(problem: tuple[Network, Examples]) -> None:
    design = EffectiveFeatures(*problem)
    few = design.on(np.arange(8))
    kernel = np.asarray(few.gram())
    errors, alone = [], []
    for seed in range(30):
        rows = sketched(few, 50, "gaussian", seed)
        found = distortion(few, rows)
        slow = [
            (rows[i] @ rows[j] - kernel[i, j]) / np.sqrt(kernel[i, i] * kernel[j, j])
            for i in range(24)
            for j in range(i, 24)
        ]
        np.testing.assert_allclose(found.measured, np.sqrt(np.mean(np.square(slow))), rtol=1e-9)
        errors.append(found.measured**2)
        alone += [rows[i] @ rows[i] / kernel[i, i] - 1 for i in range(24)]
    np.testing.assert_allclose(np.sqrt(np.mean(errors)), found.expected, rtol=0.1)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(alone))), np.sqrt(2 / 50), rtol=0.15)
    wide = [distortion(few, sketched(few, d, "gaussian", 0)).measured for d in (50, 5000)]
    assert wide[1] < wide[0] / 5


def test_the_card_tells_the_distortion(problem: tuple[Network, Examples]) -> None:
    design = EffectiveFeatures(*problem, outputs="trace")
    basis = Sketch(64).fit(design)
    rows, found = basis.transform(design), basis.distortion_
    assert found.n_rows == 26
    assert 0.5 < found.measured / found.expected < 2
    built = basis.feature_set(design, "sketch")
    assert f"{found.measured:.2%} of sqrt(K_ii K_jj)" in built.card.description
    assert f"sqrt(2 / d) = {np.sqrt(2 / 64):.2%}" in built.card.description
    np.testing.assert_allclose(built.read("values")[:, 0].T, rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.abs(rows), np.abs(sketched(design, 64, "gaussian", 0)))


def test_what_cannot_be_sketched_is_refused(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    design = EffectiveFeatures(network, examples)
    with pytest.raises(
        SettingsError, match="made of effective features, not of NeuronActivations; choose 'directions'"
    ):
        Sketch().fit(NeuronActivations(network, examples, "1"))
    with pytest.raises(SettingsError, match="No kind of random entries is called 'normal'"):
        Sketch(entries="normal").fit(design)
    with pytest.raises(SettingsError, match="At least one direction must be asked for, not 0"):
        Sketch(0).fit(design)
    with pytest.raises(SettingsError, match="made of 111 columns, but the design has 333"):
        Sketch(2).fit(design).transform(EffectiveFeatures(network, examples, outputs="trace"))
    closed = Network.from_module(nn.Sequential(nn.Linear(5, 1, bias=False)).eval())
    zero = EffectiveFeatures(closed, Examples.from_arrays(np.zeros((3, 5))))
    assert distortion(zero, np.zeros((3, 2))).measured == 0
