"""The demo: its run against a dense Jacobian."""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg

from feature_lens.analysis import Run

# One worker makes the demo run and keeps it for all tests that need it.


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


def test_all_weight_features_are_ranked_as_a_float64_sort_says(digits_run: Run, digits_jacobian: np.ndarray) -> None:
    weights = digits_run.sets["weights"]
    for output in range(10):
        values = digits_jacobian[:, output].T
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


def _assert_leading(phi: np.ndarray, directions: np.ndarray, spectrum: np.ndarray) -> None:
    """Directions are eigenvectors of phi^T phi with these eigenvalues, orthonormal, and none that is larger is missing.

    The missing one is looked for on the smaller side, in float32, which is far finer than the gaps.
    """
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-6)
    activations = phi @ directions.T
    products = (phi.T @ activations).T
    assert np.abs(products - spectrum[:, None] * directions).max() < 1e-5 * spectrum[0]
    narrow = phi.astype(np.float32)
    if len(phi) < phi.shape[1]:
        side, known = narrow @ narrow.T, (activations / np.sqrt(spectrum)).T
    else:
        side, known = narrow.T @ narrow, directions
    deflated = side.astype(float) - (known.T * spectrum) @ known
    (largest,) = scipy.sparse.linalg.eigsh(deflated, k=1, v0=np.ones(len(side)), return_eigenvectors=False, tol=1e-4)
    assert largest < spectrum[-1] * (1 + 1e-3)


def test_eigen_features_are_singular_vectors_of_the_dense_jacobian(
    digits_run: Run, digits_jacobian: np.ndarray
) -> None:
    eigen = digits_run.sets["eigen"]
    fitted = digits_jacobian[digits_run.examples.fitting].reshape(-1, 3466)
    directions = eigen.read("direction").astype(float)
    _assert_leading(fitted, directions, eigen.read("spectrum"))
    np.testing.assert_allclose(
        eigen.card.kernel_share, eigen.read("spectrum").sum() / np.square(fitted).sum(), rtol=1e-9
    )
    activations = (digits_jacobian @ directions.T).transpose(2, 1, 0)
    np.testing.assert_allclose(eigen.read("values")[:, 1:], activations, atol=1e-4)
    score = np.einsum("kcn,kc->kn", activations, eigen.read("profile"))
    np.testing.assert_allclose(eigen.read("values")[:, 0], score, atol=1e-4)


def test_trace_features_are_singular_vectors_of_the_joined_jacobian(
    digits_run: Run, digits_jacobian: np.ndarray
) -> None:
    trace = digits_run.sets["eigen_trace"]
    joined = digits_jacobian.reshape(len(digits_jacobian), -1)
    directions = trace.read("direction").astype(float).reshape(64, -1)
    _assert_leading(joined[digits_run.examples.fitting], directions, trace.read("spectrum"))
    np.testing.assert_allclose(trace.read("values")[:, 0], directions @ joined.T, atol=1e-4)
