"""Leading eigenpairs of a symmetric positive operator, dense or known only by its products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.linalg

from feature_lens.errors import SettingsError

Matrix = npt.NDArray[np.float64]
Apply = Callable[[Matrix], Matrix]

# Up to this side a full reduction is quick; above it, products of blocks are far cheaper for a few eigenpairs.
DENSE_SIDE = 1500


def leading_dense(matrix: Matrix, k: int, seed: int = 0, tolerance: float = 1e-12) -> tuple[Matrix, Matrix]:
    """The k largest eigenvalues, falling, and their vectors (side, k) of a symmetric matrix.

    LAPACK up to a side of 1,500 (cost side^3), else block products (cost side^2 * k * steps).
    """
    side = len(matrix)
    if side > DENSE_SIDE and 4 * k < side:
        return leading_matrix_free(lambda block: matrix @ block, side, k, seed, tolerance)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[side - k, side - 1], check_finite=False)
    return np.ascontiguousarray(values[::-1]), np.ascontiguousarray(vectors[:, ::-1])


def leading_matrix_free(
    apply: Apply, side: int, k: int, seed: int = 0, tolerance: float = 1e-12, max_steps: int = 300
) -> tuple[Matrix, Matrix]:
    """The k largest eigenpairs of H from products H @ block alone, by block Lanczos with thick restart.

    Blocks, not single vectors, so that all copies of a degenerate eigenvalue are found however many there are:
    the block is at least as wide as k. Full orthogonalisation; stops when |H u - w u| <= tolerance * w_1 for all k.
    Memory side * (k + 7 * max(32, k)) numbers twice. Raises SettingsError when that is not reached.
    """
    width = min(max(32, k), side)
    limit = min(side, k + 6 * width)
    rng = np.random.default_rng(seed)
    block = np.linalg.qr(rng.standard_normal((side, width)))[0]
    basis, applied = block, apply(block)
    worst = np.inf
    for _ in range(max_steps):
        projected = basis.T @ applied
        values, turn = np.linalg.eigh((projected + projected.T) / 2)
        values, turn = values[::-1], turn[:, ::-1]
        wanted = min(k, len(values))
        residual = applied @ turn[:, :wanted] - (basis @ turn[:, :wanted]) * values[:wanted]
        worst = float(np.linalg.norm(residual, axis=0).max()) / max(float(values[0]), np.finfo(float).tiny)
        if basis.shape[1] >= min(side, k) and (worst <= tolerance or basis.shape[1] == side):
            return values[:k].copy(), basis @ turn[:, :k]
        if basis.shape[1] + width > limit and limit < side:
            kept = min(k + width, basis.shape[1])
            basis, applied = basis @ turn[:, :kept], applied @ turn[:, :kept]
            block = _fresh(residual, basis, width, rng)
        else:
            block = _fresh(applied[:, -block.shape[1] :], basis, min(width, side - basis.shape[1]), rng)
        basis = np.concatenate([basis, block], axis=1)
        applied = np.concatenate([applied, apply(block)], axis=1)
    raise SettingsError(
        f"{k} eigenpairs were wanted to a relative residual of {tolerance:.1g}, but {worst:.1g} was reached in "
        f"{max_steps} steps; ask for fewer components."
    )


def _fresh(candidates: Matrix, basis: Matrix, width: int, rng: np.random.Generator) -> Matrix:
    """Up to `width` orthonormal columns orthogonal to the basis: the largest candidates, filled up at random."""
    order = np.argsort(-np.linalg.norm(candidates, axis=0), kind="stable")[:width]
    block = candidates[:, order]
    scale = np.linalg.norm(block, axis=0)
    block = np.where(scale > 0, block / np.where(scale > 0, scale, 1), 0)
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
    lost = np.linalg.norm(block, axis=0) < 1e-10
    missing = width - block.shape[1] + int(lost.sum())
    block = np.concatenate([block[:, ~lost], rng.standard_normal((len(basis), missing))], axis=1)
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
        block = np.linalg.qr(block)[0]
    return block
