"""Combinations of neurons, and of leading eigen features, against their definitions, slower ways and planted structure."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from networks import mlp
from oracles import made
from sklearn.decomposition import NMF, PCA
from torch import nn

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.features.bases import Dictionary, Directions, Eigen, Ica, Nmf, Pca, Sae, Varimax
from feature_lens.features.bases import eigen as eigen_module
from feature_lens.features.bases.combination import Combination
from feature_lens.features.bases.spectral import matched_stability
from feature_lens.features.bases.varimax import criterion, varimax
from feature_lens.features.centred_rows import CentredDesign
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import Logits, NeuronActivations
from feature_lens.features.sparse_autoencoder import SparseAutoencoder, train
from feature_lens.networks import Network


@pytest.fixture(scope="module")
def problem() -> tuple[Network, Examples]:
    torch.manual_seed(0)
    return made(mlp(), (5,), 40, 3)


@pytest.fixture(scope="module")
def rectified() -> NeuronActivations:
    torch.manual_seed(1)
    network, examples = made(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), (5,), 60, 3)
    return NeuronActivations(network, examples, "1")


class _Logarithm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


def _mixed(sources: np.ndarray, mixing: np.ndarray) -> NeuronActivations:
    """Neurons that are sources (n, s) times mixing (s, m)."""
    layer = nn.Linear(*mixing.shape, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(mixing.T))
    network = Network.from_module(nn.Sequential(layer, nn.Linear(mixing.shape[1], 1)).eval())
    return NeuronActivations(network, Examples.from_arrays(sources), "0")


def _best(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """For every true column the largest |correlation| of a found one."""
    return np.abs(np.corrcoef(found.T, true.T)[: found.shape[1], found.shape[1] :]).max(axis=0)


# Activations


def test_principal_components_are_those_of_the_training_rows(problem: tuple[Network, Examples]) -> None:
    design = NeuronActivations(*problem, "1")
    rows, fitting = design.activations()[0], design.examples.fitting
    basis = Pca().fit(design)
    theirs = PCA().fit(rows[fitting])
    found = basis.transform(design)
    np.testing.assert_allclose(np.abs(found), np.abs(theirs.transform(rows)), atol=1e-10)
    np.testing.assert_allclose(basis.spectrum_, theirs.explained_variance_ * (len(fitting) - 1), rtol=1e-10)
    few = Pca(2).fit(design)
    np.testing.assert_allclose(few.reconstruction_, theirs.explained_variance_ratio_[:2].sum(), rtol=1e-10)
    assert few.fitted_on_ == "training examples"
    plain, eigen = Pca(centred=False).fit(design), Eigen(7).fit(design)
    np.testing.assert_allclose(plain.spectrum_, eigen.spectrum_, rtol=1e-10)
    np.testing.assert_allclose(plain.transform(design), eigen.transform(design), atol=1e-9)
    built = plain.feature_set(design, "pca")
    assert "uncentred principal component analysis" in built.card.equals
    assert list(built.read("order")) == list(range(7))
    assert {"spectrum", "group", "stability"} <= set(built.columns)
    of_logits = Pca().fit(logits := Logits(*problem)).feature_set(logits, "x").card
    assert (of_logits.title, of_logits.kernel_share) == ("Principal components of the logits", None)


def test_stability_of_a_group_that_is_cut_off_is_not_known() -> None:
    rng = np.random.default_rng(0)
    sources = np.linalg.qr(rng.standard_normal((40, 3)) - 0)[0]
    sources -= sources.mean(axis=0)
    design = _mixed(np.linalg.qr(sources)[0] * [2, 1, 1], np.eye(3))
    assert np.isnan(Pca(2).fit(design).stability_[1])
    assert np.isfinite(Pca(3).fit(design).stability_).all()


def test_non_negative_factors_are_those_of_scikit_learn(rectified: NeuronActivations) -> None:
    rows, fitting = rectified.activations()[0], rectified.examples.fitting
    basis = Nmf(3).fit(rectified)
    model = NMF(3, init="nndsvda", max_iter=1000, random_state=0).fit(rows[fitting])
    lengths = np.linalg.norm(model.components_, axis=1)
    np.testing.assert_allclose(basis.transform(rectified), model.transform(rows) * lengths, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(basis.vectors_, model.components_ / lengths[:, None])
    given = model.transform(rows[fitting]) @ model.components_
    left = np.square(rows[fitting] - given).sum() / np.square(rows[fitting] - rows[fitting].mean(axis=0)).sum()
    np.testing.assert_allclose(basis.reconstruction_, 1 - left, atol=1e-6)
    assert f"{basis.reconstruction_:.1%}" in basis.feature_set(rectified, "nmf").card.description


def test_there_are_no_more_non_negative_factors_than_the_rank() -> None:
    rows = np.abs(np.random.default_rng(0).standard_normal((30, 1))) * np.array([1.0, 2.0, 0.0, 0.0, 3.0])
    basis = Nmf(4).fit(_mixed(rows, np.eye(5)))
    assert basis.vectors_.shape == (1, 5)
    np.testing.assert_allclose(basis.vectors_[0], np.array([1, 2, 0, 0, 3]) / np.sqrt(14), atol=1e-6)
    assert np.isfinite(basis.stability_).all()
    with pytest.raises(SettingsError, match="all of them are zero"):
        Nmf()._learn(np.zeros((30, 5)), True)  # as in one half of a fit for stability


def test_negative_activations_have_no_non_negative_factors(rectified: NeuronActivations) -> None:
    network, examples = rectified.network, rectified.examples
    with pytest.raises(SettingsError, match=r"never negative, but those of the neurons, .* go down to -"):
        Nmf().fit(NeuronActivations(network, examples, "0"))
    wanted = ExtractSettings(sets=(SetSettings.parsed("nmf/neurons+2"),), neurons=())
    run = compute_run(network, examples, wanted, progress=False)
    assert list(run.sets) == ["nmf_neurons_1"]
    assert any(one.startswith("The set 'nmf_neurons_0' is left out") for one in run.provenance.remarks)
    with pytest.raises(SettingsError, match="never negative"):
        compute_run(network, examples, ExtractSettings(sets=(SetSettings.parsed("nmf/neurons:0"),)), progress=False)


def test_independent_sources_are_found_again() -> None:
    rng = np.random.default_rng(0)
    sources = rng.uniform(-1, 1, (800, 3)) * [1, 2, 3] + 5
    design = _mixed(sources, rng.standard_normal((3, 5)))
    basis = Ica().fit(design)
    assert len(basis.vectors_) == 3
    assert (_best(basis.transform(design), sources) > 0.99).all()
    assert (basis.stability_ > 0.95).all()
    np.testing.assert_allclose(basis.reconstruction_, 1, atol=1e-9)
    # Components that are mixed are not: the principal ones.
    assert _best(Pca().fit_transform(design), sources).min() < 0.95


def test_a_planted_dictionary_is_found_and_its_codes_solve_the_lasso() -> None:
    rng = np.random.default_rng(1)
    atoms = rng.standard_normal((8, 12))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = rng.standard_normal((400, 8)) * 3 * (rng.random((400, 8)) < 0.15)
    design = _mixed(codes, atoms)
    basis = Dictionary(8, alpha=0.2).fit(design)
    assert np.abs(basis.vectors_ @ atoms.T).max(axis=0).min() > 0.99
    rows = design.activations()[0]
    scaled = (rows - basis.mean_) / basis.scale_
    found = basis._codes(rows) / basis.scale_
    slope = (scaled - found @ basis.vectors_) @ basis.vectors_.T
    assert np.abs(slope).max() < 0.2 * 1.02
    np.testing.assert_allclose(slope[found != 0], 0.2 * np.sign(found[found != 0]), atol=4e-3)
    assert basis.reconstruction_ > 0.9


def test_a_sparse_autoencoder_is_what_it_says_and_finds_planted_directions() -> None:
    rng = np.random.default_rng(1)
    atoms = rng.standard_normal((6, 12))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    rows = (rng.exponential(3, (500, 6)) * (rng.random((500, 6)) < 0.12)) @ atoms
    basis = Sae(24, penalty=2.0, steps=300).fit(design := _mixed(rows, np.eye(12)))
    assert Sae(steps=1).fit(design).vectors_.shape == (48, 12)
    np.testing.assert_allclose(np.linalg.norm(basis.vectors_, axis=1), 1, atol=1e-6)
    assert np.median((basis.vectors_ @ atoms.T).max(axis=0)) > 0.9
    model = basis.model_
    codes = np.maximum((rows - model.shift) / model.scale @ model.encoder.T + model.bias, 0) * model.scale
    np.testing.assert_allclose(basis.transform(design), codes, atol=1e-9)
    left = rows - codes @ model.decoder - model.shift
    np.testing.assert_allclose(
        basis.reconstruction_, 1 - np.square(left).sum() / np.square(rows - rows.mean(axis=0)).sum(), rtol=1e-9
    )
    assert 0.8 < basis.reconstruction_ < 1
    again, other = (train(rows, 24, 2.0, None, 300, seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.decoder, model.decoder)
    assert np.abs(other.decoder - model.decoder).max() > 0.1
    card = basis.feature_set(design, "sae").card
    assert f"On average {(codes > 0).sum(axis=1).mean():.1f} of 24 are above zero" in card.description
    top = Sae(10, active=2, steps=50).fit(design)
    assert (np.count_nonzero(top.transform(design), axis=1) <= 2).all()
    assert "the 2 largest kept" in top.feature_set(design, "sae").card.description
    dead = SparseAutoencoder(np.zeros((3, 12)), -np.ones(3), np.zeros((3, 12)), rows.mean(axis=0), 1.0)
    np.testing.assert_allclose(dead.rebuilt(rows), np.tile(rows.mean(axis=0), (500, 1)))


def test_only_training_rows_are_fitted(rectified: NeuronActivations) -> None:
    inputs = np.array(rectified.examples.inputs)
    training = np.asarray(rectified.examples.training)
    inputs[~training] += 3
    moved = NeuronActivations(rectified.network, Examples.from_arrays(inputs, split=training), "1")
    for basis in (Pca(), Nmf(3), Ica(), Dictionary(4), Sae(8, steps=5), Varimax(3)):
        first, second = (basis.fit(design).vectors_.copy() for design in (rectified, moved))
        np.testing.assert_array_equal(first, second)


def test_random_directions_are_uniform_and_the_same_again(problem: tuple[Network, Examples]) -> None:
    for design in (NeuronActivations(*problem, "1"), EffectiveFeatures(*problem, outputs="trace")):
        basis = Directions(5).fit(design)
        np.testing.assert_allclose(np.linalg.norm(basis.vectors_, axis=1), 1)
        rows = np.concatenate([block for _, block in design.blocks()])
        np.testing.assert_allclose(basis.transform(design), rows @ basis.vectors_.T, atol=1e-9)
        np.testing.assert_array_equal(Directions(5).fit(design).vectors_, basis.vectors_)
        assert np.abs(Directions(5, random_state=1).fit(design).vectors_ - basis.vectors_).max() > 0.1
    assert basis.feature_set(design, "x").read("direction").shape == (5, 3, 111)
    drawn = np.concatenate([Directions(64, random_state=s).fit(design).vectors_ for s in range(4)])
    # 1/333 each, of which 256 drawings tell a tenth.
    np.testing.assert_allclose(np.square(drawn).mean(axis=0) * 333, 1, atol=6 * np.sqrt(2 / 256))
    with pytest.raises(SettingsError, match="drawn among 333 columns, but the design has 111"):
        basis.transform(EffectiveFeatures(*problem))
    with pytest.raises(SettingsError, match="At least one feature must be asked for, not 0"):
        Directions(0).fit(design)


# Inside an eigenspace


def _by_planes(columns: np.ndarray) -> np.ndarray:
    """Varimax as Kaiser had it: the best turn of each pair of columns, found on a grid and refined, until none turns."""
    turned = columns.copy()
    for _ in range(200):
        largest = 0.0
        for a, b in combinations(range(columns.shape[1]), 2):

            def pair(angle: float, a: int = a, b: int = b) -> np.ndarray:
                c, s = np.cos(angle), np.sin(angle)
                return turned[:, [a, b]] @ np.array([[c, -s], [s, c]])

            width, centre = np.pi / 4, 0.0
            for _ in range(12):
                grid = centre + np.linspace(-width, width, 9)
                centre = grid[np.argmax([criterion(pair(angle)) for angle in grid])]
                width /= 3
            turned[:, [a, b]] = pair(centre)
            largest = max(largest, abs(centre))
        if largest < 1e-6:
            break
    return turned


def test_varimax_never_falls_and_reaches_what_turning_planes_does() -> None:
    rng = np.random.default_rng(0)
    sparse = rng.standard_normal((60, 4)) * (rng.random((60, 4)) < 0.3)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    columns = np.linalg.svd(sparse @ turn, full_matrices=False)[0] * np.sqrt(60)
    reached = [criterion(columns @ varimax(columns, steps)) for steps in range(25)]
    assert (np.diff(reached) >= -1e-12).all()
    rotation = varimax(columns)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-12)
    planes = _by_planes(columns)
    np.testing.assert_allclose(criterion(columns @ rotation), criterion(planes), rtol=1e-6)
    agreement = np.abs((columns @ rotation).T @ planes) / 60
    np.testing.assert_allclose(np.sort(agreement.max(axis=0)), 1, atol=1e-4)
    # Its definition: the variance of squares, column by column.
    loadings = columns @ rotation
    slow = sum((column**4).mean() - (column**2).mean() ** 2 for column in loadings.T)
    np.testing.assert_allclose(criterion(loadings), slow)
    assert criterion(loadings) > criterion(columns)


@pytest.mark.parametrize("basis", [Varimax(4), Ica(4)])
@pytest.mark.parametrize("outputs", ["flattened", "trace"])
def test_turned_eigen_features_span_the_eigenspace_along_unit_directions(
    problem: tuple[Network, Examples], basis: Combination, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = EffectiveFeatures(*problem, outputs=outputs)
    basis.fit(design)
    phi = np.concatenate([block for _, block in design.blocks()])
    rows = phi.reshape(40, design.rows_per_example, -1)[design.examples.fitting].reshape(-1, phi.shape[1])
    directions, found = basis.directions(), basis.transform(design)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(found, phi @ directions.T, atol=1e-8)
    right = np.linalg.svd(rows, full_matrices=False)[2][:4]
    np.testing.assert_allclose(directions @ right.T @ right, directions, atol=1e-8)
    on_fitted = rows @ directions.T
    correlation = on_fitted.T @ on_fitted / np.outer(*[np.linalg.norm(on_fitted, axis=0)] * 2)
    np.testing.assert_allclose(correlation, np.eye(4), atol=1e-7)
    built = basis.feature_set(design, "turned")
    table = problem[0].parameters
    per_tensor = np.split(directions.reshape(4, -1, table.total), np.cumsum(table.sizes)[:-1], axis=2)
    np.testing.assert_allclose(
        built.read("parameter_share"), np.stack([(one**2).sum(axis=(1, 2)) for one in per_tensor], axis=1), atol=1e-9
    )
    np.testing.assert_allclose(built.card.kernel_share, Eigen(4).fit(design).kernel_share_)
    assert "inside an eigenspace" in built.card.equals or "varimax rotation" in built.card.equals
    assert built.read("direction").shape == ((4, 3, 111) if outputs == "trace" else (4, 111))
    if outputs == "trace":  # without directions the same
        monkeypatch.setattr(eigen_module, "DIRECTION_BYTES", 0)
        other = type(basis)(4).fit(design)
        np.testing.assert_allclose(np.abs(other.transform(design)), np.abs(found), atol=1e-6)
        without = other.feature_set(design, "turned")
        np.testing.assert_allclose(without.read("parameter_share"), built.read("parameter_share"), atol=1e-6)
        assert "direction" not in without


def test_atoms_are_directions_in_parameter_space(problem: tuple[Network, Examples]) -> None:
    design = EffectiveFeatures(*problem)
    basis = Dictionary(6, n_eigen=3, alpha=0.1).fit(design)
    atoms, codes = basis.directions(), basis.transform(design)
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1)
    phi = np.concatenate([block for _, block in design.blocks()]).reshape(40, 3, -1)
    fitting = design.examples.fitting
    given = (codes @ atoms).reshape(40, 3, -1)[fitting]
    inside = Eigen(3).fit(design).directions_
    left = np.square(phi[fitting] @ inside.T @ inside - given).sum()
    share = 1 - left / np.square(phi[fitting] @ inside.T).sum()
    np.testing.assert_allclose(basis.reconstruction_, share, atol=1e-8)
    built = basis.feature_set(design, "x")
    np.testing.assert_allclose(built.card.kernel_share, share * Eigen(3).fit(design).kernel_share_, atol=1e-8)
    assert "3 leading eigen features (as asked for), of which they give back" in built.card.description


def test_the_eigenspace_ends_at_the_gap() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([9, 3, 2.8, 2.7, 0.5, 0.48, 0.45, 0.4])
    left = np.linalg.qr(rng.standard_normal((200, 8)))[0]
    design = _mixed(left * scales, np.eye(8))
    basis = Varimax().fit(design)
    assert len(basis.vectors_) == 4
    np.testing.assert_allclose(basis.gap_, (2.7 / 0.5) ** 2, rtol=1e-6)
    assert "the 4 leading eigen features (up to the largest ratio of successive eigenvalues, 29.16)" in (
        basis.feature_set(design, "x").card.description
    )
    assert len(Varimax(6).fit(design).vectors_) == 6


def test_halves_are_matched_one_to_one() -> None:
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((6, 6)))[0][:4]
    first, second = vectors[[2, 0, 3, 1]], -vectors[[1, 3, 0, 2]]
    np.testing.assert_allclose(matched_stability(vectors, first, second), 1)
    second[3] = np.linalg.qr(rng.standard_normal((6, 6)))[0][0]
    found = matched_stability(vectors, first, second)
    np.testing.assert_allclose(found[[0, 1, 3]], 1)
    np.testing.assert_allclose(found[2], abs(vectors[2] @ second[3]))
    assert np.isnan(matched_stability(vectors, first, second[:2])).sum() == 2


def test_what_cannot_be_combined_is_refused(problem: tuple[Network, Examples], rectified: NeuronActivations) -> None:
    plain = EffectiveFeatures(*problem)
    for basis, instead in ((Pca(), "eigen"), (Nmf(), "ica"), (Sae(), "dictionary")):
        with pytest.raises(SettingsError, match=f"not of effective features; choose '{instead}'"):
            basis.fit(plain)
    with pytest.raises(SettingsError, match="neurons, logits or effective features, not of CentredDesign"):
        Varimax().fit(CentredDesign(plain, plain.mean()))
    with pytest.raises(SettingsError, match="At least one feature must be asked for, not 0"):
        Ica(0).fit(plain)
    with pytest.raises(
        SettingsError, match=r"penalty of 0 or more, one or more steps and active codes, but 1\.0, 0 and"
    ):
        Sae(steps=0).fit(rectified)
    with pytest.raises(SettingsError, match="fitted on 8 columns, but the design has 3"):
        Pca().fit(rectified).transform(Logits(rectified.network, rectified.examples))
    same = Examples.from_arrays(np.ones((6, 5)))
    with pytest.raises(SettingsError, match="needs examples that differ, but all rows are equal"):
        Pca().fit(NeuronActivations(rectified.network, same, "1"))
    inputs = np.random.default_rng(0).random((12, 5))
    inputs[4, 1] = 0
    steep = Network.from_module(nn.Sequential(_Logarithm(), nn.Hardtanh(), nn.Linear(5, 2)).eval())
    with pytest.raises(SettingsError, match=r"1 of 12 examples give NaN or infinity \(ids 4\)"):
        Pca().fit(NeuronActivations(steep, Examples.from_arrays(inputs), "0"))
