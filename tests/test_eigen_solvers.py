"""Leading eigenpairs against LAPACK, with and without the matrix."""

from __future__ import annotations

import numpy as np
import pytest

from feature_lens.errors import SettingsError
from feature_lens.features.eigen_solvers import leading_dense, leading_matrix_free


def _matrix(spectrum: np.ndarray, seed: int = 0) -> np.ndarray:
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(spectrum), len(spectrum))))[0]
    return (turn * spectrum) @ turn.T


SPECTRA = {
    "geometric": 0.9 ** np.arange(300.0),
    "slow": 1 / (1 + np.arange(300.0)),
    "degenerate": np.repeat([5.0, 4.0, 1.0, 0.1], [10, 20, 3, 267]),
    "low rank": np.concatenate([np.arange(12.0, 0, -1), np.zeros(288)]),
    "small": np.array([3.0, 2.0, 1.0]),
    "one": np.array([2.0]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_block_lanczos_finds_what_lapack_finds(name: str) -> None:
    spectrum = SPECTRA[name]
    matrix = _matrix(spectrum)
    k = min(24, len(spectrum))
    values, vectors = leading_matrix_free(lambda block: matrix @ block, len(matrix), k)
    dense_values, dense_vectors = leading_dense(matrix, k)
    np.testing.assert_allclose(values, np.sort(spectrum)[::-1][:k], atol=1e-11 * spectrum.max())
    np.testing.assert_allclose(values, dense_values, atol=1e-11 * spectrum.max())
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-11)
    residual = matrix @ vectors - vectors * values
    assert np.abs(residual).max() < 1e-10 * spectrum.max()
    # Projectors on the space above the last gap, because vectors inside a degenerate space are arbitrary.
    above = spectrum[:k] > 1.0001 * spectrum[min(k, len(spectrum) - 1)]
    if name != "low rank":
        ours, theirs = vectors[:, above], dense_vectors[:, above]
        np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-8)


def test_more_copies_of_an_eigenvalue_than_a_narrow_block_holds() -> None:
    gram = _matrix(0.8 ** np.arange(30.0))
    matrix = np.kron(gram, np.eye(60))
    values, vectors = leading_matrix_free(lambda block: matrix @ block, len(matrix), 70)
    np.testing.assert_allclose(values, np.repeat([1.0, 0.8], [60, 10]), atol=1e-11)
    assert np.abs(matrix @ vectors - vectors * values).max() < 1e-10


def test_large_dense_matrices_take_the_block_way(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = _matrix(SPECTRA["slow"])
    exact = leading_dense(matrix, 10)
    monkeypatch.setattr("feature_lens.features.eigen_solvers.DENSE_SIDE", 100)
    values, vectors = leading_dense(matrix, 10)
    np.testing.assert_allclose(values, exact[0], rtol=1e-11)
    np.testing.assert_allclose(np.abs(np.sum(vectors * exact[1], axis=0)), 1, atol=1e-10)


def test_the_same_seed_gives_the_same_bytes() -> None:
    matrix = _matrix(SPECTRA["geometric"])
    first, second = (leading_matrix_free(lambda b: matrix @ b, 300, 8, seed=3)[1] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_a_residual_that_is_not_reached_is_told() -> None:
    matrix = _matrix(SPECTRA["slow"])
    with pytest.raises(SettingsError, match="relative residual"):
        leading_matrix_free(lambda block: matrix @ block, 300, 24, tolerance=1e-30, max_steps=3)
