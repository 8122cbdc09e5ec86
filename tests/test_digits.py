"""The demo: its recipe, its shipped parameters, and its run against a dense Jacobian."""

from __future__ import annotations

import json

import numpy as np
import pytest
from oracles import dense_jacobian

from feature_lens.analysis import Run
from feature_lens.errors import CheckpointError
from feature_lens.networks import digits

# One worker makes the demo run and keeps it for all tests that need it.
pytestmark = pytest.mark.xdist_group("demo")


def test_the_recipe_makes_the_shipped_parameters_again() -> None:
    initial, trained = digits.train_digits()
    shipped = digits.shipped_digits()
    assert shipped.initial is not None
    for name in shipped.trained:
        np.testing.assert_array_equal(initial[name].numpy(), shipped.initial[name].numpy().astype(np.float32))
        # Training amplifies rounding, which differs between processors.
        np.testing.assert_allclose(trained[name].numpy(), shipped.trained[name].numpy(), atol=2e-2)
    card = json.loads((digits.shipped_folder() / "recipe.json").read_text())
    assert card["recipe"]["widths"] == [64, 32, 32, 10]
    assert sum((digits.shipped_folder() / name).stat().st_size for name in card["sha256"]) < 30_000


def test_an_altered_parameter_file_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in digits.shipped_folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damaged = bytearray((tmp_path / "trained.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "trained.safetensors").write_bytes(bytes(damaged))
    monkeypatch.setattr(digits, "shipped_folder", lambda: tmp_path)
    with pytest.raises(CheckpointError, match="not the file that was shipped"):
        digits.shipped_digits()


def test_the_demo_net_is_accurate_on_held_out_digits(digits_run: Run) -> None:
    assert digits_run.network.metrics["accuracy (held-out)"] >= 0.97
    assert len(digits_run.examples) == 1797
    training = digits_run.examples.training
    assert training is not None
    assert (~training).sum() == 540
    assert digits_run.network.parameters.total == 3466
    assert digits_run.network.initial is not None


def test_the_demo_run_holds_its_default_sets(digits_run: Run) -> None:
    assert list(digits_run.sets)[:4] == ["eigen", "eigen_trace", "unit", "weights"]
    assert {"neurons_0", "neurons_1", "neurons_2", "neurons_3"} <= set(digits_run.sets)
    assert len(digits_run.sets["eigen"]) == len(digits_run.sets["eigen_trace"]) == 64
    assert len(digits_run.sets["unit"]) == 74
    assert len(digits_run.sets["weights"]) == 3466


@pytest.fixture(scope="module")
def jacobian() -> np.ndarray:
    """(n, c, p) by a loop of autograd over every example and output."""
    network, examples = digits.shipped_digits(), digits.digits_examples()
    return dense_jacobian(network.module.requires_grad_(True), np.asarray(examples.inputs))


def test_all_weight_features_are_ranked_as_a_float64_sort_says(digits_run: Run, jacobian: np.ndarray) -> None:
    weights = digits_run.sets["weights"]
    for output in range(10):
        values = jacobian[:, output].T
        for end, sign in (("highest", -1), ("lowest", 1)):
            positions = weights.read(f"{end}/position")[:, output]
            kept = np.take_along_axis(values, positions, axis=1)
            best = sign * np.sort(sign * values, axis=1)[:, :16]
            np.testing.assert_allclose(kept, best, rtol=1e-6, atol=1e-9)
            # Stored as float32: equal values there are ties, which the smaller id wins.
            stored = weights.read(f"{end}/value")[:, output]
            np.testing.assert_allclose(stored, best, rtol=1e-6, atol=1e-9)
            ties = np.diff(stored, axis=1) == 0
            assert (np.diff(positions, axis=1)[ties] > 0).all()
        np.testing.assert_allclose(weights.read("mean")[:, output], values.mean(axis=1), atol=1e-6)
        np.testing.assert_allclose(weights.read("std")[:, output], values.std(axis=1), rtol=1e-4, atol=1e-7)


def test_eigen_features_are_singular_vectors_of_the_dense_jacobian(digits_run: Run, jacobian: np.ndarray) -> None:
    eigen, trace = digits_run.sets["eigen"], digits_run.sets["eigen_trace"]
    fitting = digits_run.examples.fitting
    flattened = jacobian[fitting].reshape(-1, 3466)
    values, vectors = np.linalg.eigh(flattened.T @ flattened)
    np.testing.assert_allclose(eigen.read("spectrum"), values[::-1][:64], rtol=1e-8)
    directions = eigen.read("direction").astype(float)
    np.testing.assert_allclose(np.abs(np.sum(directions * vectors[:, ::-1][:, :64].T, axis=1)), 1, atol=1e-5)
    np.testing.assert_allclose(eigen.card.kernel_share, values[::-1][:64].sum() / values.sum(), rtol=1e-9)
    activations = np.einsum("ncp,kp->kcn", jacobian, directions)
    np.testing.assert_allclose(eigen.read("values")[:, 1:], activations, atol=1e-4)
    joined = jacobian.reshape(len(jacobian), -1)
    kernel = joined @ joined[fitting].T
    values, vectors = np.linalg.eigh(kernel[fitting])
    np.testing.assert_allclose(trace.read("spectrum"), values[::-1][:64], rtol=1e-8)
    nystroem = kernel @ vectors[:, ::-1][:, :64] / np.sqrt(values[::-1][:64])
    np.testing.assert_allclose(np.abs(trace.read("values")[:, 0].T), np.abs(nystroem), atol=1e-3)
