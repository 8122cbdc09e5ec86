"""The network that adds modulo P: its recipe against an independent training, and what is known of its kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_lens.analysis.torus import (
    FAMILIES,
    mode_correlations,
    modes,
    pictures,
    subspace_overlap,
    torus_view,
    waves,
)
from feature_lens.errors import ExamplesError, SettingsError
from feature_lens.examples import Examples, Modality
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.networks.zoo import ModularAddition

REFERENCE = np.load(Path(__file__).parent / "reference" / "modular_addition.npz")
NET = ModularAddition()
PAIRS = NET.pairs()


@pytest.fixture(scope="module")
def network() -> Network:
    return NET.shipped()


def test_the_recipe_draws_and_trains_as_the_reference_did(network: Network) -> None:
    examples = NET.examples()
    np.testing.assert_array_equal(examples.fitting, np.sort(REFERENCE["train_index"]))
    assert network.initial is not None
    for name, tensor in (("0.weight", "W1"), ("2.weight", "W2")):
        np.testing.assert_array_equal(network.initial[name][:4].numpy(), REFERENCE[f"{tensor}_initial_rows"])
        np.testing.assert_allclose(network.trained[name][:4].numpy(), REFERENCE[f"{tensor}_trained_rows"], atol=1e-4)
    a, b = PAIRS.T
    inputs = np.asarray(examples.inputs, dtype=np.float64)
    np.testing.assert_array_equal(np.flatnonzero(inputs[30]), [a[30], 29 + b[30]])
    first, second = network.trained["0.weight"].numpy(), network.trained["2.weight"].numpy()
    written_out = np.square(inputs @ first.T / np.sqrt(58)) @ second.T / 512
    np.testing.assert_allclose(network.outputs(examples), written_out, atol=1e-12)
    assert (written_out.argmax(axis=1) == (a + b) % 29).all()


@pytest.mark.parametrize("at", ["effective", "initial"])
def test_kernels_have_the_eigenvalues_of_the_reference(network: Network, at: str) -> None:
    everything = replace(NET.examples(), training=None)
    kernel = EffectiveFeatures(network, everything, at, "trace").gram() / 29
    values, vectors = np.linalg.eigh(kernel)
    known = REFERENCE["trace_eigenvalues_" + ("trained" if at == "effective" else at)]
    np.testing.assert_allclose(values[::-1], known, atol=1e-7)
    if at == "initial":  # no more of the sums than chance
        assert subspace_overlap(vectors[:, ::-1][:, 57:113], modes(PAIRS, 29, "a + b")) < 56 / 841 + 0.01
    else:
        group = vectors[:, ::-1][:, 57:113]
        for family, wanted in (("a + b", "overlap_sum_57_112"), ("a - b", "overlap_diff_57_112")):
            np.testing.assert_allclose(subspace_overlap(group, modes(PAIRS, 29, family)), REFERENCE[wanted], atol=1e-5)


def test_other_moduli_train_too() -> None:
    net = ModularAddition(modulus=5, width=64, epochs=200, training=1.0)
    network = net.network(net.train())
    outputs = network.outputs(net.examples())
    assert (outputs.argmax(axis=1) == net.examples().labels).all()
    for wrong in ({"modulus": 2}, {"training": 0.01, "modulus": 5}, {"width": 0}):
        with pytest.raises(SettingsError, match="must be at least"):
            ModularAddition(**wrong)


def test_pairs_are_read_from_one_hot_vectors_and_from_tokens() -> None:
    examples = NET.examples()
    np.testing.assert_array_equal(examples.pairs, PAIRS)
    assert examples.ids[29 * 3 + 28] == "3 + 28 = 2"
    tokens = np.column_stack([PAIRS, np.full(841, 29)])
    as_tokens = Examples.from_arrays(tokens, modality=Modality("pair", (29, 29)))
    np.testing.assert_array_equal(as_tokens.pairs, PAIRS)
    with pytest.raises(ExamplesError, match="'pair' were wanted, but these are 'vector'"):
        len(Examples.from_arrays(np.zeros((2, 3))).pairs)
    with pytest.raises(ExamplesError, match=r"shape \(3, 3\) shows 6 entries, but an input has 4"):
        Examples.from_arrays(np.zeros((2, 4)), modality=Modality("pair", (3, 3)))
    with pytest.raises(ExamplesError, match=r"\(number of the first, of the second\), but \(3,\) came"):
        Modality("pair", (3,))


# Waves


def test_modes_are_orthonormal_and_span_the_functions_of_a_family() -> None:
    spans = np.concatenate([modes(PAIRS, 29, family) for family in FAMILIES] + [np.full((841, 1), 1 / 29)], axis=1)
    np.testing.assert_allclose(spans.T @ spans, np.eye(4 * 28 + 1), atol=1e-12)
    any_function_of_sums = np.random.default_rng(0).standard_normal(29)[PAIRS.sum(axis=1) % 29]
    centred = (any_function_of_sums - any_function_of_sums.mean())[:, None]
    np.testing.assert_allclose(subspace_overlap(modes(PAIRS, 29, "a + b"), centred), 1, atol=1e-12)
    np.testing.assert_allclose(subspace_overlap(modes(PAIRS, 29, "a - b"), centred), 0, atol=1e-12)
    with pytest.raises(SettingsError, match="family of waves"):
        modes(PAIRS, 29, "a * b")


def test_examples_carry_the_waves_that_are_known_as_concepts() -> None:
    concepts = NET.examples().concepts
    assert [concept.name for concept in concepts] == ["waves of a + b", "waves of a - b"]
    for concept, family in zip(concepts, ("a + b", "a - b"), strict=True):
        own = concept.values / np.linalg.norm(concept.values, axis=0)
        np.testing.assert_allclose(own, modes(PAIRS, 29, family), atol=1e-12)
        assert concept.labels[:3] == ("cos 1", "sin 1", "cos 2")


def test_overlap_is_what_principal_angles_say() -> None:
    rng = np.random.default_rng(1)
    features, known = rng.standard_normal((60, 9)), rng.standard_normal((60, 4))
    projector = features @ np.linalg.pinv(features)
    basis = np.linalg.svd(known, full_matrices=False)[0]
    np.testing.assert_allclose(subspace_overlap(features, known), np.trace(basis.T @ projector @ basis) / 4)
    chance = [subspace_overlap(rng.standard_normal((60, 9)), known) for _ in range(200)]
    np.testing.assert_allclose(np.mean(chance), 9 / 60, atol=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wave_is_told_by_family_and_frequency_whatever_its_phase(family: str) -> None:
    p, pairs = 11, ModularAddition(modulus=11).pairs()
    angle = 2 * np.pi / p * (pairs @ np.array(FAMILIES[family]))
    values = np.stack([np.cos(3 * angle + 0.7) + 5, 0.1 * np.sin(5 * angle - 1)])
    found = waves(values, pairs, p)
    table = found.table
    assert table["family"].tolist() == [family] * 2
    assert table["frequency"].tolist() == table["group"].tolist() == [3, 5]
    np.testing.assert_allclose(table["share"], 1, atol=1e-12)
    correlations = mode_correlations(values.T, pairs, p, family)
    np.testing.assert_allclose(correlations, np.eye(5)[[2, 4]], atol=1e-12)
    # Shares are squared correlations, whatever the feature.
    noise = np.random.default_rng(2).standard_normal((3, p * p))
    shares = waves(noise, pairs, p).share
    for row, name in enumerate(FAMILIES):
        np.testing.assert_allclose(shares[:, row], mode_correlations(noise.T, pairs, p, name) ** 2, atol=1e-12)
    by_output = np.stack([noise, noise], axis=1)
    np.testing.assert_allclose(waves(by_output, pairs, p).share, shares, atol=1e-12)


def test_pictures_are_a_by_b() -> None:
    some = PAIRS[[0, 30, 840]]
    (drawn,) = pictures(np.array([[1.0, 2.0, 3.0]]), some, 29)
    assert (drawn[0, 0], drawn[1, 1], drawn[28, 28]) == (1, 2, 3)
    assert np.isnan(drawn).sum() == 838
    with pytest.raises(SettingsError, match="all pairs of residues of an odd modulus, but 3 pairs modulo 29 came"):
        waves(np.ones((1, 3)), some, 29)


def test_a_feature_of_a_run_is_drawn_on_all_pairs(tmp_path: Path) -> None:
    net = ModularAddition(modulus=7, width=24, epochs=60)
    network, examples = net.network(net.train()), net.examples()
    wanted = ExtractSettings(sets=(SetSettings("eigen", "trace", n_components=3),), neurons=())
    run = compute_run(network, examples, wanted, progress=False)
    found = torus_view(run, "eigen_trace", 1, "score")
    assert found is not None
    values = run.sets["eigen_trace"].values(1, "score")
    assert found.limit == np.abs(run.sets["eigen_trace"].values(1, "score")).max()
    assert found.picture[3, 5] == values[3 * 7 + 5]
    row = waves(values[None].astype(float), net.pairs(), 7).table.iloc[0]
    assert (
        f"one of {row['family']}, of frequency {row['frequency']} modulo 7, and holds {row['share']:.0%}"
        in found.sentence
    )
    # In steps of the inverse, waves of that frequency go round once.
    if found.in_steps is not None:
        assert found.steps * row["group"] % 7 == 1
        assert waves(found.in_steps.reshape(1, -1), net.pairs(), 7).table["group"].tolist() == [1]
    # Some pairs alone are drawn without a word on waves; other examples not at all.
    part = compute_run(network, examples.on(np.arange(20)), wanted, progress=False)
    drawn = torus_view(part, "eigen_trace", 1, "score")
    assert drawn is not None
    assert (np.isnan(drawn.picture).sum(), drawn.sentence, drawn.in_steps) == (29, "", None)
    plain = replace(examples, modality=Modality("vector", (14,)))
    assert torus_view(compute_run(network, plain, wanted, progress=False), "eigen_trace", 1, "score") is None
    with pytest.raises(SettingsError, match="has features 0 to 2, but 9 was asked for"):
        torus_view(run, "eigen_trace", 9, "score")
