"""Bases against dense linear algebra, known special cases, and conformance of every registered one."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from networks import Cnn, mlp
from oracles import dense_jacobian, made, with_initial
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.bases import BASES, Canonical, Eigen, Unit
from feature_lens.features.bases import eigen as eigen_module
from feature_lens.features.bases.spectral import degenerate_groups
from feature_lens.features.centred_rows import CentredDesign
from feature_lens.features.design import DesignMatrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import NeuronActivations
from feature_lens.features.unit_rows import UnitRowDesign
from feature_lens.networks import Network
from feature_lens.ranking import id_ranks


def _phi(design: EffectiveFeatures) -> np.ndarray:
    return np.concatenate([block for _, block in design.blocks()])


def _subspace_gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.T @ a - b.T @ b, 2))


@pytest.fixture(scope="module")
def problem() -> tuple[Network, Examples]:
    torch.manual_seed(0)
    return made(mlp(), (5,), 40, 3)


@pytest.mark.parametrize("outputs", ["flattened", "trace", "output:1", "margin"])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("side", ["rows", "columns", "matrix_free"])
def test_all_sides_give_the_singular_vectors(
    problem: tuple[Network, Examples], outputs: str, centred: bool, cosine: bool, side: str
) -> None:
    design = EffectiveFeatures(*problem, outputs=outputs, tile=8)
    phi = _phi(design)
    q = design.rows_per_example
    fitting = design.examples.fitting
    phi = phi / np.linalg.norm(phi, axis=1, keepdims=True) if cosine else phi
    rows = phi.reshape(40, q, -1)
    mean = rows[fitting].mean(axis=0) if centred else 0
    fitted = (rows[fitting] - mean).reshape(-1, phi.shape[1])
    left, singular, right = np.linalg.svd(fitted, full_matrices=False)
    eigen = Eigen(6, centred=centred, cosine=cosine, side=side).fit(design)  # type: ignore[arg-type]  # a parameter of the test
    np.testing.assert_allclose(eigen.spectrum_, singular[:6] ** 2, rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(eigen.directions_ * right[:6], axis=1)), 1, atol=1e-8)
    np.testing.assert_allclose(eigen.kernel_share_, (singular[:6] ** 2).sum() / (singular**2).sum(), rtol=1e-9)
    activations = eigen.transform(design)
    np.testing.assert_allclose(activations, (rows - mean).reshape(phi.shape) @ eigen.directions_.T, atol=1e-9)
    # On the fitted rows the activation of feature k is S_k u_k.
    on_fitted = activations.reshape(40, q, 6)[fitting].reshape(-1, 6)
    np.testing.assert_allclose(np.abs(on_fitted), np.abs(left[:, :6] * singular[:6]), atol=1e-7)
    assert eigen.fitted_on_ == "training examples"


def test_trace_activations_are_the_nystroem_extension(problem: tuple[Network, Examples]) -> None:
    design = EffectiveFeatures(*problem, outputs="trace")
    kernel = design.gram()
    fitting = design.examples.fitting
    values, vectors = np.linalg.eigh(kernel[np.ix_(fitting, fitting)])
    nystroem = kernel[:, fitting] @ vectors[:, ::-1][:, :5] / np.sqrt(values[::-1][:5])
    np.testing.assert_allclose(np.abs(Eigen(5).fit_transform(design)), np.abs(nystroem), rtol=1e-7, atol=1e-9)


def test_directions_too_large_to_form_are_done_without(
    problem: tuple[Network, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    design = EffectiveFeatures(*problem, outputs="trace")
    formed = Eigen(5, side="rows").fit(design)
    monkeypatch.setattr(eigen_module, "DIRECTION_BYTES", 0)
    implicit = Eigen(5, side="rows").fit(design)
    assert implicit.directions_.shape == (0, 333)
    np.testing.assert_array_equal(implicit.spectrum_, formed.spectrum_)
    np.testing.assert_array_equal(implicit.stability_, formed.stability_)
    np.testing.assert_allclose(implicit.mean_share_, formed.mean_share_, atol=1e-9)
    np.testing.assert_allclose(implicit.transform(design), formed.transform(design), atol=1e-9)
    sets = [basis.feature_set(design, "one") for basis in (implicit, formed)]
    assert ["direction" in one for one in sets] == [False, True]
    shares = [one.read("parameter_share") for one in sets]
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-9)
    with pytest.raises(SettingsError, match="effective features, but a CentredDesign came"):
        implicit.transform(CentredDesign(design, design.mean()))
    assert Eigen(5, side="rows").fit(EffectiveFeatures(*problem)).directions_.shape == (5, 111)


@pytest.mark.parametrize(("centred", "cosine"), [(True, False), (False, True), (True, True)])
def test_options_hold_where_directions_are_not_formed(
    problem: tuple[Network, Examples], centred: bool, cosine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = EffectiveFeatures(*problem, outputs="trace")
    formed = Eigen(5, centred=centred, cosine=cosine, side="rows").fit(design)
    monkeypatch.setattr(eigen_module, "DIRECTION_BYTES", 0)
    implicit = Eigen(5, centred=centred, cosine=cosine, side="rows").fit(design)
    assert implicit.directions_.shape == (0, 333)
    np.testing.assert_allclose(implicit.transform(design), formed.transform(design), atol=1e-9)
    np.testing.assert_allclose(implicit.leading(2).transform(design), formed.transform(design)[:, :2], atol=1e-9)
    shares = [basis.feature_set(design, "one").read("parameter_share") for basis in (implicit, formed)]
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-9)


def test_the_leading_part_of_a_fit_is_a_fit(problem: tuple[Network, Examples]) -> None:
    for outputs in ("flattened", "trace"):
        design = EffectiveFeatures(*problem, outputs=outputs)
        part, whole = Eigen(6).fit(design).leading(3), Eigen(3).fit(design)
        np.testing.assert_allclose(part.transform(design), whole.transform(design), atol=1e-9)
        np.testing.assert_allclose(part.kernel_share_, whole.kernel_share_)
        one, other = (basis.feature_set(design, "x") for basis in (part, whole))
        assert len(one) == len(other) == 3
        np.testing.assert_allclose(
            one.read("profile" if outputs == "flattened" else "spectrum"),
            other.read("profile" if outputs == "flattened" else "spectrum"),
        )
    last = EffectiveFeatures(*problem, layers=["4"])
    assert Eigen(6).fit(last).leading(4).cut_group_
    assert not Eigen(9).fit(last).leading(6).cut_group_


def test_a_cosine_is_that_of_the_rows(problem: tuple[Network, Examples]) -> None:
    design = EffectiveFeatures(*problem, tile=8)
    unit = UnitRowDesign(design)
    kernel = np.asarray(design.gram())
    scale = np.sqrt(np.diag(kernel))
    np.testing.assert_allclose(unit.gram(), kernel / np.outer(scale, scale), atol=1e-12)
    rows = np.concatenate([block for _, block in unit.blocks()])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1)
    np.testing.assert_allclose(unit.mean(), rows.reshape(40, 3, -1).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(unit.cogram(), rows.T @ rows, atol=1e-10)
    assert unit.squared_norm() == pytest.approx(120)
    few = np.array([7, 3, 30])
    np.testing.assert_allclose(
        np.concatenate([b for _, b in unit.on(few).blocks()]), rows.reshape(40, 3, -1)[few].reshape(9, -1)
    )
    # Rows of zeros stay: of a unit that is closed there is no derivative.
    network = Network.from_module(
        nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).eval()
    )
    closed = UnitRowDesign(EffectiveFeatures(network, Examples.from_arrays(np.array([[1.0], [-1.0]]))))
    assert closed.squared_norm() == pytest.approx(1)
    assert np.isfinite(closed.gram()).all()
    card = Eigen(2, cosine=True).fit(design).feature_set(design, "x").card
    assert (card.design, "cosine-normalised" in card.equals) == ("effective features, of unit length", True)
    neurons = NeuronActivations(*problem, "1")
    assert "divided by their lengths" in Eigen(2, cosine=True).fit(neurons).feature_set(neurons, "x").card.equals


def test_the_last_layers_cosines_are_those_of_its_inputs(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    design = EffectiveFeatures(network, examples, layers=["4"], outputs="trace")
    with torch.no_grad():
        hidden = network.module[:-1](network.tensor(examples.inputs)).numpy()
    rows = np.column_stack([hidden, np.ones(40)])[examples.fitting]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for centred in (False, True):
        eigen = Eigen(4, centred=centred, cosine=True).fit(design)
        about = rows - rows.mean(axis=0) if centred else rows
        np.testing.assert_allclose(eigen.spectrum_, np.linalg.svd(about, compute_uv=False)[:4] ** 2, rtol=1e-9)
        assert eigen.feature_set(design, "x").card.equals.endswith(
            "with a 1 appended for the bias, divided by their lengths"
        )


def test_score_is_the_leading_singular_combination(problem: tuple[Network, Examples]) -> None:
    design = EffectiveFeatures(*problem)
    eigen = Eigen(5).fit(design)
    built = eigen.feature_set(design, "eigen", keep=4)
    assert built.views == ("score", "output:0", "output:1", "output:2")
    values = built.read("values")
    activations = eigen.transform(design).reshape(40, 3, 5)
    np.testing.assert_allclose(values[:, 1:], activations.transpose(2, 1, 0).astype(np.float32))
    fitting = design.examples.fitting
    for k in range(5):
        _, singular, right = np.linalg.svd(activations[fitting, :, k])
        w = right[0] * np.sign(right[0][np.abs(right[0]).argmax()])
        np.testing.assert_allclose(built.read("profile")[k], w, atol=1e-9)
        np.testing.assert_allclose(built.read("energy")[k], singular[0] ** 2 / np.square(singular).sum(), rtol=1e-9)
        score = activations[:, :, k] @ w
        np.testing.assert_allclose(values[k, 0], score, rtol=1e-5, atol=1e-6)
        assert (score[fitting] ** 3).sum() > 0
        mean_share = len(fitting) * np.square(activations[fitting, :, k].mean(axis=0)).sum()
        np.testing.assert_allclose(
            built.read("mean_share")[k], mean_share / np.square(activations[fitting, :, k]).sum(), rtol=1e-9
        )


def test_stability_is_the_cosine_between_half_fits(problem: tuple[Network, Examples]) -> None:
    sides = {side: Eigen(4, side=side).fit(EffectiveFeatures(*problem)) for side in ("rows", "columns", "matrix_free")}
    design = EffectiveFeatures(*problem)
    rows = _phi(design).reshape(40, 3, -1)[design.examples.fitting]
    shuffled = np.random.default_rng(0).permutation(len(rows))
    halves = [rows[np.sort(part)].reshape(-1, rows.shape[2]) for part in (shuffled[:13], shuffled[13:])]
    a, b = (np.linalg.svd(half, full_matrices=False)[2][:4] for half in halves)
    groups = sides["rows"].groups_
    assert list(groups) == [0, 1, 2, 3]
    for eigen in sides.values():
        np.testing.assert_allclose(eigen.stability_, np.abs(np.sum(a * b, axis=1)), atol=1e-5)


def test_degenerate_groups_by_relative_gap() -> None:
    spectrum = np.array([10, 9.95, 5, 2, 1.999, 1.998, 1e-3])
    assert list(degenerate_groups(spectrum, 0.01)) == [0, 0, 1, 2, 2, 2, 3]


def test_eigen_features_of_a_linear_model_are_uncentred_pca_of_the_inputs() -> None:
    torch.manual_seed(3)
    network, examples = made(nn.Linear(6, 1), (6,), 30, 1, split=False)
    eigen = Eigen(7).fit(EffectiveFeatures(network, examples))
    with_one = np.column_stack([np.asarray(examples.inputs), np.ones(30)])
    _, singular, right = np.linalg.svd(with_one, full_matrices=False)
    np.testing.assert_allclose(eigen.spectrum_, singular**2, rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(eigen.directions_ * right, axis=1)), 1, atol=1e-9)
    card = eigen.feature_set(EffectiveFeatures(network, examples), "eigen").card
    assert "principal component analysis of the inputs" in card.equals
    assert card.fitted_on == "all examples (in sample)"


def test_last_layer_kernel_is_pca_of_activations_once_per_output(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    design = EffectiveFeatures(network, examples, layers=["4"])
    eigen = Eigen(21).fit(design)
    with torch.no_grad():
        hidden = network.module[:-1](network.tensor(examples.inputs)).numpy()
    with_one = np.column_stack([hidden, np.ones(40)])[examples.fitting]
    singular = np.linalg.svd(with_one, compute_uv=False)
    np.testing.assert_allclose(eigen.spectrum_, np.repeat(singular**2, 3), rtol=1e-8, atol=1e-9)
    _, sizes = np.unique(eigen.groups_, return_counts=True)
    assert set(sizes) == {3}
    assert "last hidden activations" in eigen.feature_set(design, "last").card.equals


def test_cards_claim_a_known_method_only_where_it_is_true(problem: tuple[Network, Examples]) -> None:
    network, examples = problem

    def equals(net: Network = network, centred: bool = False, **more: Any) -> str:
        design = EffectiveFeatures(net, examples, **more)
        return Eigen(3, centred=centred).fit(design).feature_set(design, "x").card.equals

    assert "last hidden activations with a 1 appended for the bias, each eigenvalue once per output" in equals(
        layers=["4"]
    )
    assert "times the number of outputs" in equals(layers=["4"], outputs="trace")
    assert "times the number of outputs" in equals(layers=["4"], outputs="sum")
    assert equals(layers=["4.weight"], outputs="output:1") == (
        "uncentred principal component analysis of the last hidden activations"
    )
    assert equals(layers=["4"], centred=True).startswith("centred principal component analysis of the last hidden")
    scaled = Network.from_module(network.module.requires_grad_(True), learning_rates={"*.bias": 0.5})
    assert "ratio of the learning rates" in equals(scaled, layers=["4"])
    for reduction in ("target", "predicted", "margin"):
        assert "kernel PCA" in equals(layers=["4"], outputs=reduction)
    assert "kernel PCA" in equals(layers=["4.bias"])
    assert "kernel PCA" in equals(layers=["2"])
    assert equals(centred=True).startswith("kernel PCA with centring")


def test_titles_and_descriptions_say_what_was_left_out(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    design = EffectiveFeatures(network, examples, layers=["2"])
    card = Eigen(3, centred=True).fit(design).feature_set(design, "x").card
    assert "centred" in card.title
    assert "centred" in card.design
    assert "Only 2.weight, 2.bias are looked at; shares are of their part of the kernel." in card.description
    assert "Only 2.weight" in Canonical().fit(design).feature_set(design, "w").card.description


def test_a_group_that_is_cut_off_has_no_stability(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    design = EffectiveFeatures(network, examples, layers=["4"])
    cut, whole = Eigen(4).fit(design), Eigen(6).fit(design)
    assert cut.cut_group_
    assert np.isnan(cut.stability_[3])
    assert np.isfinite(cut.stability_[:3]).all()
    assert not whole.cut_group_
    assert np.isfinite(whole.stability_).all()
    assert "cut off" in cut.feature_set(design, "x").card.description


def test_stability_is_unknown_beyond_the_rank_of_a_half_on_every_side() -> None:
    torch.manual_seed(8)
    network, examples = made(nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 1)), (20,), 24, 1, split=False)
    design = EffectiveFeatures(network, examples)
    found = [Eigen(20, side=side).fit(design).stability_ for side in ("rows", "columns", "matrix_free")]  # type: ignore[arg-type]  # a loop over its values
    for stability in found:
        assert np.isnan(stability[12:]).all()
        np.testing.assert_allclose(stability[:8], found[0][:8], atol=1e-4)


def test_centred_features_of_equal_examples_are_refused(problem: tuple[Network, Examples]) -> None:
    same = Examples.from_arrays(np.ones((6, 5)))
    with pytest.raises(SettingsError, match="examples that differ"):
        Eigen(2, centred=True).fit(EffectiveFeatures(problem[0], same))


def test_a_basis_must_be_fitted_on_the_same_columns(problem: tuple[Network, Examples]) -> None:
    flattened, trace = (EffectiveFeatures(*problem, outputs=outputs) for outputs in ("flattened", "trace"))
    with pytest.raises(NotFittedError):
        Eigen(2).transform(flattened)
    with pytest.raises(SettingsError, match="fitted on 111 columns, but the design has 333"):
        Eigen(2).fit(flattened).transform(trace)


def test_units_of_embeddings_and_weight_norm() -> None:
    torch.manual_seed(9)
    tokens = Examples.from_arrays(np.random.default_rng(0).integers(0, 7, (6, 3)))
    network = Network.from_module(nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2)).eval())
    built = Unit().fit(design := EffectiveFeatures(network, tokens)).feature_set(design, "unit")
    assert [str(label) for label in built.read("labels")][:4] == [f"0 unit {i}" for i in range(4)]
    plain = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    _, examples = made(plain, (3,), 6, 2)
    normed = copy.deepcopy(plain)
    nn.utils.parametrizations.weight_norm(normed[0])
    sets = []
    for module in (plain, normed):
        design = EffectiveFeatures(Network.from_module(module.eval()), examples)
        sets.append(Unit().fit(design).feature_set(design, "unit"))
    np.testing.assert_array_equal(
        sets[0].read("labels")[np.argsort(sets[0].read("labels"))], np.sort(sets[1].read("labels"))
    )
    by_label = [dict(zip(map(str, s.read("labels")), s.read("values"), strict=True)) for s in sets]
    for label, values in by_label[0].items():
        np.testing.assert_allclose(by_label[1][label], values, rtol=1e-4, atol=1e-6)


def test_many_classes_have_no_means() -> None:
    network, examples = made(nn.Linear(3, 1), (3,), 8, 1)
    numbers = Examples.from_arrays(np.asarray(examples.inputs), np.arange(8) * 100_000)
    built = Canonical().fit(design := EffectiveFeatures(network, numbers)).feature_set(design, "weights")
    assert "class_mean" not in built


def test_directions_live_in_all_of_theta(problem: tuple[Network, Examples]) -> None:
    network, examples = problem
    table = network.parameters
    part = Eigen(3).fit(design := EffectiveFeatures(network, examples, layers=["2"])).feature_set(design, "part")
    direction, share = part.read("direction"), part.read("parameter_share")
    np.testing.assert_allclose(np.square(direction).sum(axis=1), 1, rtol=1e-6)
    for place, (name, at) in enumerate(table.slices):
        inside = np.square(direction[:, at]).sum(axis=1)
        np.testing.assert_allclose(share[:, place], inside, atol=1e-6)
        assert name.startswith("2.") or not inside.any()
    trace = Eigen(3).fit(design := EffectiveFeatures(network, examples, outputs="trace")).feature_set(design, "trace")
    assert trace.read("direction").shape == (3, 3, table.total)
    np.testing.assert_allclose(trace.read("parameter_share").sum(axis=1), 1, rtol=1e-9)


def test_unit_features_are_gradient_times_preactivation() -> None:
    torch.manual_seed(4)
    for module, shape in ((mlp(), (5,)), (Cnn(), (2, 9, 9))):
        network, examples = made(module, shape, 6, 3)
        built = Unit().fit(design := EffectiveFeatures(network, examples)).feature_set(design, "unit")
        layers = [part for part in network.module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
        values = built.read("values")
        start = 0
        for layer in layers:
            width = layer.weight.shape[0]
            for n in range(6):
                for i in range(design.n_outputs):
                    np.testing.assert_allclose(
                        values[start : start + width, i, n], _flow(network, layer, examples, n, i), rtol=1e-5, atol=1e-6
                    )
            start += width
        assert start == len(built)


def _flow(network: Network, layer: nn.Module, examples: Examples, n: int, i: int) -> np.ndarray:
    """g (z - b), summed over positions, by a hook."""
    kept = []
    hook = layer.register_forward_hook(lambda _m, _i, out: kept.append(out))
    x = network.tensor(examples.inputs[n : n + 1]).requires_grad_(True)
    outputs = network.module(x)
    hook.remove()
    (g,) = torch.autograd.grad(outputs[0, i], kept[0])
    bias = layer.bias.reshape(-1, *([1] * (g.ndim - 2)))
    return (
        (g * (kept[0] - bias))[0].flatten(1).sum(dim=1).detach().numpy()
        if g.ndim > 2
        else (g * (kept[0] - layer.bias))[0].detach().numpy()
    )


def test_unit_features_do_not_depend_on_learning_rates_and_know_transposed_layers() -> None:
    torch.manual_seed(5)
    module = nn.Sequential(nn.ConvTranspose1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(15, 2))
    _, examples = made(module, (2, 4), 5, 2)
    built = []
    for rates in (None, {"0.weight": 9.0, "*.bias": 0.1}):
        network = Network.from_module(module.eval(), learning_rates=rates)
        built.append(Unit().fit(design := EffectiveFeatures(network, examples)).feature_set(design, "unit"))
    np.testing.assert_allclose(built[0].read("values"), built[1].read("values"), rtol=1e-5)
    assert [str(label) for label in built[0].read("labels")] == [f"0 unit {i}" for i in range(3)] + [
        "3 unit 0",
        "3 unit 1",
    ]
    jacobian = dense_jacobian(module, np.asarray(examples.inputs))[:, :, :12].reshape(5, 2, 2, 3, 2)
    weight = module[0].weight.detach().double().numpy()
    np.testing.assert_allclose(
        built[0].read("values")[:3], np.einsum("ncioh,ioh->ocn", jacobian, weight), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_weight_features_are_ranked_as_a_sort_of_all_of_them(
    problem: tuple[Network, Examples], batch_size: int
) -> None:
    design = EffectiveFeatures(*problem, tile=8)
    built = Canonical().fit(design).feature_set(design, "weights", keep=5, batch_size=batch_size)
    values = _phi(design).reshape(40, 3, -1).transpose(2, 1, 0).astype(np.float32)
    _assert_ranked(built, values, design.examples.ids, 5)
    np.testing.assert_allclose(built.read("mean"), values.astype(float).mean(axis=2), atol=1e-9)
    np.testing.assert_allclose(built.read("std"), values.astype(float).std(axis=2), atol=1e-9)
    spread = np.sqrt(np.square(values.astype(float).std(axis=2)).mean(axis=1))
    assert (np.diff(spread[built.read("order")]) <= 1e-9).all()
    for k, v in ((0, 0), (7, 1), (102, 2)):
        counts, _ = np.histogram(values[k, v], bins=40)
        # A value on an edge may fall to either side of it by rounding.
        assert np.abs(np.cumsum(built.read("histogram")[k, v]) - np.cumsum(counts)).max() <= 1
    assert (built.read("histogram").sum(axis=2) == 40).all()
    assert not built.stores_values
    assert len(built) == problem[0].parameters.total


def _assert_ranked(built: object, values: np.ndarray, ids: np.ndarray, keep: int) -> None:
    ranks = id_ranks(ids)
    for k in range(values.shape[0]):
        for v in range(values.shape[1]):
            column = values[k, v].astype(float)
            falling = sorted(range(len(column)), key=lambda n: (-column[n], ranks[n]))[:keep]
            rising = sorted(range(len(column)), key=lambda n: (column[n], ranks[n]))[:keep]
            assert list(built.read("highest/position")[k, v]) == falling  # type: ignore[attr-defined]  # a feature set
            assert list(built.read("lowest/position")[k, v]) == rising  # type: ignore[attr-defined]  # a feature set


def test_many_outputs_are_ranked_by_the_largest_own_and_predicted() -> None:
    torch.manual_seed(6)
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 17))
    network, examples = made(module, (4,), 30, 17)
    design = EffectiveFeatures(network, examples, tile=8)
    phi = _phi(design).reshape(30, 17, -1)
    built = Canonical().fit(design).feature_set(design, "weights", keep=5)
    assert built.views == ("largest", "own", "predicted")
    which = np.abs(phi).argmax(axis=1)
    largest = np.take_along_axis(phi, which[:, None], axis=1)[:, 0]
    own = phi[np.arange(30), examples.labels]
    predicted = phi[np.arange(30), network.outputs(examples).argmax(axis=1)]
    values = np.stack([largest, own, predicted]).transpose(2, 0, 1).astype(np.float32)
    _assert_ranked(built, values, examples.ids, 5)
    for end in ("highest", "lowest"):
        positions = built.read(f"{end}/position")[:, 0]
        np.testing.assert_array_equal(built.read(f"{end}/output")[:, 0], np.take_along_axis(which.T, positions, axis=1))
        assert (built.read(f"{end}/output")[:, 1:] == -1).all()
    everything = Canonical("all").fit(design).feature_set(design, "weights", keep=5)
    assert len(everything.views) == 17
    unlabelled = Examples.from_arrays(np.asarray(examples.inputs))
    design = EffectiveFeatures(network, unlabelled)
    assert Canonical().fit(design).feature_set(design, "weights").views == ("largest", "predicted")


@pytest.mark.parametrize("name", list(BASES))
def test_every_registered_basis_conforms(name: str, problem: tuple[Network, Examples]) -> None:
    """What holds for all: habits of scikit-learn, shapes, rankings of its values, the same bytes again."""
    network, examples = problem
    outputs = "output:1" if name == "unit_blocks" else "flattened"  # a unit has one activation
    design: DesignMatrix = EffectiveFeatures(with_initial(network), examples, outputs=outputs, tile=8)
    if not getattr(BASES[name], "in_eigenspace", True):
        rectified = Network.from_module(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval())
        design = NeuronActivations(rectified, examples, "1", tile=8)
    basis = clone(BASES[name]())
    assert basis.fit(design) is basis
    activations = basis.transform(design)
    assert activations.shape[0] == design.shape[0]
    np.testing.assert_array_equal(activations, clone(basis).fit_transform(design))
    sets = [basis.feature_set(design, "one", keep=3, batch_size=size) for size in (1, 500)]
    assert len(sets[0]) == activations.shape[1]
    for column in sets[0].columns:
        assert sets[0].read(column).tobytes() == sets[1].read(column).tobytes(), column
    assert sorted(sets[0].read("order")) == list(range(len(sets[0])))
    assert sets[0].card.basis == name
    assert sets[0].card.title
    assert sets[0].card.description
    assert sets[0].card.score
    if sets[0].stores_values:
        _assert_ranked(sets[0], sets[0].read("values"), design.examples.ids, 3)


def test_impossible_settings_are_refused(problem: tuple[Network, Examples]) -> None:
    flattened, trace = (EffectiveFeatures(*problem, outputs=outputs) for outputs in ("flattened", "trace"))
    with pytest.raises(SettingsError, match="At least one"):
        Eigen(0).fit(flattened)
    with pytest.raises(SettingsError, match="A side is"):
        Eigen(side="left").fit(flattened)  # type: ignore[arg-type]  # what a user may type
    for basis in (Unit(), Canonical()):
        with pytest.raises(SettingsError, match="trace reduction joins"):
            basis.fit(trace)
    with pytest.raises(SettingsError, match="'auto' or 'all'"):
        Canonical("some").fit(flattened)  # type: ignore[arg-type]  # what a user may type
    with pytest.raises(SettingsError, match="registered already"):
        BASES.register("eigen")(Eigen)
    with pytest.raises(SettingsError, match="two or more dimensions"):
        Unit().fit(EffectiveFeatures(*problem, layers=["0.bias"]))
    dead = Network.from_module(nn.Sequential(nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 2, bias=False)).eval())
    with torch.no_grad():
        for value in dead.trained.values():
            value.zero_()
    with pytest.raises(SettingsError, match="not zero, but it is"):
        Eigen(2).fit(EffectiveFeatures(dead, problem[1].__class__.from_arrays(np.ones((4, 5)))))


def test_a_basis_is_a_step_of_a_pipeline(problem: tuple[Network, Examples]) -> None:
    design = EffectiveFeatures(*problem)
    steps = make_pipeline(Eigen(5), StandardScaler())
    np.testing.assert_allclose(steps.fit_transform(design).std(axis=0), 1)
    assert steps.named_steps["eigen"].spectrum_.shape == (5,)


def test_few_components_where_the_kernel_has_low_rank() -> None:
    torch.manual_seed(7)
    network, examples = made(nn.Linear(3, 1), (3,), 20, 1, split=False)
    eigen = Eigen(64).fit(EffectiveFeatures(network, examples))
    assert len(eigen.spectrum_) == 4
