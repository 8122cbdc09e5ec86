"""Leading eigenpairs against LAPACK, with and without the matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse.linalg
from threadpoolctl import threadpool_limits

from feature_lens.errors import SettingsError
from feature_lens.features.eigen_solvers import leading_dense, leading_eigenpairs, leading_matrix_free


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products in several threads of several workers only wait for each other."""
    with threadpool_limits(limits=1):
        yield


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


@pytest.mark.parametrize("k", [32, 120])
@pytest.mark.parametrize("block", [4, 8, 12])
def test_a_hundred_copies_are_all_found_by_a_narrow_block(k: int, block: int) -> None:
    spectrum = np.concatenate([np.full(100, 2.0), 0.5 / np.arange(1.0, 301)])
    matrix = _matrix(spectrum)
    found = leading_eigenpairs(lambda b: matrix @ b, 400, k, tolerance=1e-10, block=block)
    np.testing.assert_allclose(found.values, spectrum[:k], rtol=1e-9)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(k), atol=1e-12)
    assert found.reached


@pytest.mark.parametrize("seed", range(6))
def test_copies_of_lower_values_and_exactly_full_blocks(seed: int) -> None:
    # As many copies as the block is wide (nothing is missing), one more, and many in the middle of the spectrum.
    spectrum = np.repeat([7.0, 6.0, 5.0, 4.0, 3.0, 1.0], [1, 8, 9, 40, 2, 240])
    matrix = _matrix(spectrum, seed)
    found = leading_eigenpairs(lambda b: matrix @ b, 300, 60, tolerance=1e-9, block=8, seed=seed)
    np.testing.assert_allclose(found.values, spectrum[:60], rtol=1e-9)


def test_residuals_and_errors_of_values_are_what_they_say() -> None:
    spectrum = np.arange(1.0, 601) ** -1.5
    matrix = _matrix(spectrum)
    for relative_to, settings in (("first", {"tolerance": 1e-4}), ("each", {"eigenvalue_tolerance": 1e-6})):
        found = leading_eigenpairs(lambda b: matrix @ b, 600, 24, relative_to=relative_to, **settings)
        actual = np.linalg.norm(matrix @ found.vectors - found.vectors * found.values, axis=0)
        np.testing.assert_allclose(found.residuals, actual, rtol=1e-6, atol=1e-13)
        assert (np.abs(found.values - spectrum[:24]) <= found.value_errors + 1e-14).all()
        assert (found.value_errors <= found.residuals).all()
        assert found.reached
        if relative_to == "each":
            assert (found.value_errors <= 1e-6 * found.values).all()
            # Far from converged as vectors: that is what the quadratic error of the values saves.
            assert (found.residuals / found.values).max() > 1e-6


def test_values_cost_no_more_columns_than_arpack_where_it_is_right() -> None:
    side, k = 3000, 32
    spectrum = np.arange(1.0, side + 1) ** -1.5
    mirror = np.random.default_rng(0).standard_normal(side)
    mirror /= np.linalg.norm(mirror)

    def turned(block: np.ndarray) -> np.ndarray:
        return block - 2 * np.outer(mirror, mirror @ block)

    used = 0

    def one(column: np.ndarray) -> np.ndarray:
        nonlocal used
        used += 1
        return turned(spectrum[:, None] * turned(column.reshape(-1, 1)))[:, 0]

    operator = scipy.sparse.linalg.LinearOperator((side, side), matvec=one, dtype=np.float64)
    start = np.random.default_rng(1).standard_normal(side)
    scipy.sparse.linalg.eigsh(operator, k, tol=1e-6, which="LA", v0=start)
    columns = {}
    for block in (2, 4, 8):
        found = leading_eigenpairs(
            lambda b: turned(spectrum[:, None] * turned(b)),
            side,
            k,
            eigenvalue_tolerance=1e-6,
            relative_to="each",
            block=block,
        )
        np.testing.assert_allclose(found.values, spectrum[:k], rtol=1e-6)
        columns[block] = found.applied_columns
    assert columns[2] <= used
    assert columns[4] <= 1.15 * used
    assert columns[8] <= 1.5 * used


def test_products_in_single_precision_stop_at_their_noise() -> None:
    spectrum = np.arange(1.0, 801) ** -1.5
    exact = _matrix(spectrum)
    matrix = exact.astype(np.float32)

    def apply(block: np.ndarray) -> np.ndarray:
        return matrix @ block.astype(np.float32)

    found = leading_eigenpairs(apply, 800, 20, tolerance=1e-12)
    assert not found.reached
    assert found.applied_columns < 400
    np.testing.assert_allclose(found.values, spectrum[:20], rtol=2e-5)
    vectors = found.vectors
    actual = np.linalg.norm(exact @ vectors - vectors * found.values, axis=0)
    assert actual.max() < 1e-5
    assert actual.max() < 3 * found.residuals.max() < 1e-3
    measured = leading_eigenpairs(apply, 800, 20, tolerance=1e-12, measure=True)
    assert measured.applied_columns == found.applied_columns + 20
    np.testing.assert_allclose(measured.residuals, actual, atol=2e-6)
    leading_eigenpairs(apply, 800, 20, tolerance=1e-12, bound=1e-4)
    with pytest.raises(SettingsError, match="relative residual"):
        leading_eigenpairs(apply, 800, 20, tolerance=1e-12, bound=1e-9)


def test_noise_that_does_not_repeat_ends_the_search_too() -> None:
    matrix = _matrix(np.arange(1.0, 401) ** -1.0)
    rng = np.random.default_rng(0)

    def apply(block: np.ndarray) -> np.ndarray:
        return matrix @ block + 1e-5 * rng.standard_normal(block.shape)

    found = leading_eigenpairs(apply, 400, 10, tolerance=1e-12)
    assert not found.reached
    assert found.applied_columns < 2000
    np.testing.assert_allclose(found.values, 1 / np.arange(1.0, 11), atol=1e-4)


def test_a_small_basis_restarts_and_finds_the_same() -> None:
    matrix = _matrix(SPECTRA["slow"])
    small = leading_eigenpairs(lambda b: matrix @ b, 300, 10, tolerance=1e-11, block=4, basis=22)
    np.testing.assert_allclose(small.values, SPECTRA["slow"][:10], rtol=1e-12)
    np.testing.assert_allclose(small.vectors.T @ small.vectors, np.eye(10), atol=1e-12)


@pytest.mark.parametrize("relative_to", ["first", "each"])
def test_zero_low_rank_and_whole_operators(relative_to: str) -> None:
    for spectrum in (np.zeros(50), np.repeat([3.0, 0.0], [5, 45]), np.ones(50), np.arange(50.0, 0, -1)):
        matrix = _matrix(spectrum)
        for k in (1, 20, 50):
            found = leading_eigenpairs(lambda b, m=matrix: m @ b, 50, k, tolerance=1e-10, relative_to=relative_to)
            np.testing.assert_allclose(found.values, spectrum[:k], atol=1e-12)
            assert found.reached


def test_impossible_settings_and_products_are_told() -> None:
    matrix = np.eye(30)
    for settings in ({"relative_to": "last"}, {"block": 0}, {"basis": 5}):
        with pytest.raises(SettingsError):
            leading_eigenpairs(lambda b: matrix @ b, 30, 4, **settings)
    with pytest.raises(SettingsError, match="At least one"):
        leading_eigenpairs(lambda b: matrix @ b, 30, 0)
    with pytest.raises(SettingsError, match="shape"):
        leading_eigenpairs(lambda b: b[:5], 30, 4)
    with pytest.raises(SettingsError, match="finite"):
        leading_eigenpairs(lambda b: b * np.nan, 30, 4)
    with pytest.raises(SettingsError, match="allow more"):
        leading_eigenpairs(lambda b: matrix @ b, 30, 20, max_steps=1)
