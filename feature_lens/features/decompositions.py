"""Leading singular directions of a design matrix, on whichever side is smaller, and how alike those of two halves are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.eigen_solvers import Apply, leading_dense, leading_matrix_free

Side = Literal["auto", "rows", "columns", "matrix_free"]

# Relative residuals: of the features themselves where only products are known, and of the half fits, which are
# only compared with each other.
_PRODUCT_TOLERANCE = 1e-10
_HALF_TOLERANCE = 1e-6
# Eigenvalues of a half fit below this share of its first belong to no direction that its examples determine.
_RANK = 1e-12


@dataclass(frozen=True)
class Decomposition:
    """Phi = U S V^T, truncated: spectrum S^2 (k,) falling, directions V^T (k, p), trace of the kernel, and
    overlap V_A^T V_B of the directions of two halves of the examples, None where there are no two."""

    spectrum: Matrix
    directions: Matrix
    total: float
    overlap: Matrix | None


def chosen_side(side: Side, shape: tuple[int, int], dense_limit: int) -> Side:
    """The side to work on: the smaller of (r, p), 'matrix_free' where both exceed the limit; SettingsError if unknown."""
    if side not in ("auto", "rows", "columns", "matrix_free"):
        raise SettingsError(f"A side is auto, rows, columns or matrix_free, not '{side}'; choose one of them.")
    if side != "auto":
        return side
    rows, columns = shape
    if min(rows, columns) > dense_limit:
        return "matrix_free"
    return "rows" if rows <= columns else "columns"


def decompose(design: DesignMatrix, side: Side, k: int, seed: int) -> Decomposition:
    """The k leading directions by the kernel (r, r), the cogram (p, p) or products alone; all give the same.

    Raises SettingsError for a matrix that is zero, or not finite, which names the examples.
    Cost: min(r, p)^2 max(r, p) and side^2 k dense; about 20 to 60 streams of r p k matrix-free.
    """
    ways = {"rows": _by_rows, "columns": _by_columns, "matrix_free": _by_products}
    return ways[side](design, min(k, *design.shape), seed)


def _by_rows(design: DesignMatrix, k: int, seed: int) -> Decomposition:
    """The half fits are blocks of the kernel, so their overlap is U_A^T H_AB U_B / (S_A S_B)."""
    kernel = design.gram()
    total = _usable(float(np.trace(kernel)), design)
    values, left = leading_dense(kernel, k, seed)
    q = design.rows_per_example
    halves = [(half[:, None] * q + np.arange(q)).ravel() for half in _halves(design, seed)]
    overlap = None
    if len(halves) == 2:
        (a_values, a), (b_values, b) = (_of_half(kernel[np.ix_(rows, rows)], k, seed) for rows in halves)
        overlap = (a.T @ kernel[np.ix_(*halves)] @ b) / np.sqrt(a_values)[:, None] / np.sqrt(b_values)
    return Decomposition(values, _directions(design, values, left), total, overlap)


def _by_columns(design: DesignMatrix, k: int, seed: int) -> Decomposition:
    """The half fits add up to the whole."""
    grams = [design.on(half).cogram() for half in _halves(design, seed)]
    cogram = np.sum(grams, axis=0)
    total = _usable(float(np.trace(cogram)), design)
    values, right = leading_dense(cogram, k, seed)
    parts = [_of_half(gram, k, seed)[1] for gram in grams]
    return Decomposition(values, _unit_rows(right), total, parts[0].T @ parts[1] if len(parts) == 2 else None)


def _by_products(design: DesignMatrix, k: int, seed: int) -> Decomposition:
    total = _usable(design.squared_norm(), design)
    values, directions = _streamed(design, k, seed, _PRODUCT_TOLERANCE)
    parts = []
    for half in _halves(design, seed):
        part = design.on(half)
        half_values, half_directions = _streamed(part, min(k, *part.shape), seed, _HALF_TOLERANCE)
        parts.append(half_directions[half_values > _RANK * half_values[0]])
    return Decomposition(values, directions, total, parts[0] @ parts[1].T if len(parts) == 2 else None)


def _streamed(design: DesignMatrix, k: int, seed: int, tolerance: float) -> tuple[Matrix, Matrix]:
    """Eigenvalues and directions (k, p) from products on the smaller side, one or two streams each."""
    rows, columns = design.shape
    if rows < columns:
        values, left = leading_matrix_free(lambda u: design.matmul(design.rmatmul(u)), rows, k, seed, tolerance)
        return values, _directions(design, values, left)
    values, right = leading_matrix_free(_normal(design), columns, k, seed, tolerance)
    return values, _unit_rows(right)


def _normal(design: DesignMatrix) -> Apply:
    """v -> Phi^T (Phi v) in one stream of the design."""

    def apply(v: Matrix) -> Matrix:
        out = np.zeros_like(v)
        for _, block in design.blocks():
            out += block.T @ (block @ v)
        return out

    return apply


def _directions(design: DesignMatrix, values: Matrix, left: Matrix) -> Matrix:
    """v_k = Phi^T u_k / S_k as rows; zero where the eigenvalue is."""
    return _unit_rows(design.rmatmul(left) * np.where(values > 0, 1, 0))


def _unit_rows(columns: Matrix) -> Matrix:
    norms = np.linalg.norm(columns, axis=0)
    return np.ascontiguousarray((columns / np.where(norms > 0, norms, 1)).T)


def _of_half(gram: Matrix, k: int, seed: int) -> tuple[Matrix, Matrix]:
    values, vectors = leading_dense(gram, min(k, len(gram)), seed, _HALF_TOLERANCE)
    determined = (values > _RANK * values[0]) & (values > 0)
    return values[determined], vectors[:, determined]


def _halves(design: DesignMatrix, seed: int) -> list[npt.NDArray[np.int64]]:
    """Two random halves of the examples; one part where there is one example."""
    n = len(design.examples)
    shuffled = np.random.default_rng(seed).permutation(n)
    return [np.sort(half) for half in (shuffled[: n // 2], shuffled[n // 2 :]) if len(half)]


def _usable(total: float, design: DesignMatrix) -> float:
    """The trace of a kernel when it is finite and positive; raises SettingsError otherwise."""
    if np.isfinite(total) and total > 0:
        return total
    if np.isfinite(total):
        raise SettingsError(
            "Eigen features need a design matrix that is not zero, but it is; look for dead outputs first."
        )
    rows = [at.start + np.flatnonzero(~np.isfinite(block).all(axis=1)) for at, block in design.blocks()]
    bad = np.unique(np.concatenate(rows) // design.rows_per_example).astype(np.int64)
    named = ", ".join(str(one) for one in design.examples.ids[bad[:3]]) + (", ..." if len(bad) > 3 else "")
    raise SettingsError(
        f"Eigen features need finite values, but {len(bad)} of {len(design.examples)} examples give NaN or infinity "
        f"(ids {named}); leave them out, or look at weight features alone."
    )
