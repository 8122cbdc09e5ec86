"""Leading singular directions of a design matrix, on whichever side is smaller, and how alike those of two halves are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.features.design import DesignMatrix, Matrix, Operator
from feature_lens.features.eigen_solvers import DENSE_SIDE, Apply, Eigenpairs, leading_dense, leading_eigenpairs
from feature_lens.features.spectrum import Spread, estimated_spectrum

Side = Literal["auto", "rows", "columns", "matrix_free"]

# Residuals |H u - w u| / w_1 of the features themselves and of the half fits, which are only compared with each other:
# where products are of float64, and where they are of float32.
_TOLERANCE = {8: 1e-10, 4: 1e-6}
_HALF_TOLERANCE = {8: 1e-6, 4: 1e-5}
_BOUND = {8: 1e-10, 4: 1e-4}
# Eigenvalues of a half fit below this share of its first belong to no direction that its examples determine.
_RANK = {8: 1e-12, 4: 1e-5}
# Columns of products that k eigenpairs take, and how much slower they are than products of square matrices.
_COLUMNS_EACH, _COLUMNS_MORE, _SKINNY = 5, 60, 4
# Probes and steps for what lies below the leading eigenvalues.
_PROBES, _STEPS = 8, 30


@dataclass(frozen=True)
class Decomposition:
    """Phi = U S V^T, truncated: spectrum S^2 (k,) falling, directions V^T (k, p) or, where those were not asked for,
    left U (r, k), residuals |H u - w u| / w (k,), trace of the kernel, where the rest of the trace lies, and overlap
    V_A^T V_B of the directions of two halves of the examples, None where there are no two."""

    spectrum: Matrix
    directions: Matrix | None
    left: Matrix | None
    residuals: Matrix
    total: float
    tail: Spread | None
    overlap: Matrix | None


def chosen_side(side: Side, design: DesignMatrix, k: int) -> Side:
    """The cheapest way to k eigenpairs that fits in memory, where none is asked for; SettingsError if unknown.

    Counted are multiply-adds: the kernel or the cogram and its reduction, against products with all columns that block
    Lanczos applies, those of the half fits included. A dense side holds two matrices of it in float64.
    """
    if side not in ("auto", "rows", "columns", "matrix_free"):
        raise SettingsError(f"A side is auto, rows, columns or matrix_free, not '{side}'; choose one of them.")
    if side != "auto":
        return side
    rows, columns = design.shape
    applied = _COLUMNS_EACH * k + _COLUMNS_MORE
    costs: dict[Side, float] = {
        "matrix_free": 2.0 * _SKINNY * applied * (design.product_cost + min(rows, columns) * 8 * k)
    }
    dense: tuple[tuple[Side, int, float], ...] = (
        ("rows", rows, design.gram_cost),
        ("columns", columns, rows * columns**2 / 2),
    )
    for name, length, cost in dense:
        if 16 * length**2 <= design.memory:
            reduction = 4.0 * length**3 if length <= DENSE_SIDE else float(_SKINNY) * applied * length**2
            costs[name] = cost + 2 * reduction
    return min(costs, key=lambda name: costs[name])


def decompose(design: DesignMatrix, side: Side, k: int, seed: int, directions: bool = True) -> Decomposition:
    """The k leading directions by the kernel (r, r), the cogram (p, p) or products alone; all give the same. Without
    `directions` the kernel gives left vectors instead, and no vector of p entries is formed.

    Raises SettingsError for a matrix that is zero, or not finite, which names the examples.
    Cost: the kernel or the cogram and side^2 k dense; about 5 k + 60 columns of products matrix-free.
    """
    k = min(k, *design.shape)
    if side == "rows":
        return _by_rows(design, k, seed, directions)
    return (_by_columns if side == "columns" else _by_products)(design, k, seed)


def _by_rows(design: DesignMatrix, k: int, seed: int, with_directions: bool) -> Decomposition:
    kernel = np.asarray(design.gram(), dtype=np.float64)
    total = _usable(float(np.trace(kernel)), design)
    values, left, overlap = leading_of_kernel(kernel, design.rows_per_example, k, seed, design.itemsize)
    directions = _directions(design, values, left) if with_directions else None
    return _described(lambda block: kernel @ block, values, left, directions, total, overlap, seed, design.itemsize)


def leading_of_kernel(kernel: Matrix, q: int, k: int, seed: int, itemsize: int) -> tuple[Matrix, Matrix, Matrix | None]:
    """The k leading eigenvalues of a kernel of q rows per example, their vectors (r, k), and the overlap V_A^T V_B of the
    directions of two halves of the examples: these are blocks of the kernel, so it is U_A^T H_AB U_B / (S_A S_B)."""
    values, left = leading_dense(kernel, k, seed)
    halves = [(half[:, None] * q + np.arange(q)).ravel() for half in _halves(len(kernel) // q, seed)]
    if len(halves) < 2:
        return values, left, None
    (a_values, a), (b_values, b) = (_of_half(kernel[np.ix_(rows, rows)], k, seed, itemsize) for rows in halves)
    return values, left, (a.T @ kernel[np.ix_(*halves)] @ b) / np.sqrt(a_values)[:, None] / np.sqrt(b_values)


def _by_columns(design: DesignMatrix, k: int, seed: int) -> Decomposition:
    """The half fits add up to the whole."""
    grams = [design.on(half).cogram() for half in _halves(len(design.examples), seed)]
    cogram: Matrix = np.sum(grams, axis=0)
    total = _usable(float(np.trace(cogram)), design)
    values, right = leading_dense(cogram, k, seed)
    parts = [_of_half(gram, k, seed, design.itemsize)[1] for gram in grams]
    overlap = parts[0].T @ parts[1] if len(parts) == 2 else None
    apply: Apply = lambda block: cogram @ block  # noqa: E731  # named for what it does
    return _described(apply, values, right, _unit_rows(right), total, overlap, seed, design.itemsize)


def _by_products(design: DesignMatrix, k: int, seed: int) -> Decomposition:
    total = _usable(design.squared_norm(), design)
    operator = design.held()
    apply, found = _streamed(design, operator, k, seed, _TOLERANCE, _BOUND)
    vectors = np.asarray(found.vectors, dtype=np.float64)
    by_rows = design.shape[0] < design.shape[1]
    directions = _directions(operator, found.values, vectors) if by_rows else _unit_rows(vectors)
    parts = []
    for half in _halves(len(design.examples), seed):
        part = design.on(half)
        operator = part.held()
        _, pairs = _streamed(part, operator, min(k, *part.shape), seed, _HALF_TOLERANCE, _BOUND)
        determined = pairs.values > _RANK[design.itemsize] * pairs.values[0]
        own = np.asarray(pairs.vectors[:, determined], dtype=np.float64)
        rows_side = part.shape[0] < part.shape[1]
        parts.append(_directions(operator, pairs.values[determined], own) if rows_side else _unit_rows(own))
    overlap = parts[0] @ parts[1].T if len(parts) == 2 else None
    return _described(apply, found.values, vectors, directions, total, overlap, seed, design.itemsize)


def _streamed(
    design: DesignMatrix, operator: Operator, k: int, seed: int, tolerance: dict[int, float], bound: dict[int, float]
) -> tuple[Apply, Eigenpairs]:
    """Eigenpairs on the smaller side from products alone, and the product."""
    rows, columns = design.shape
    q, size = design.rows_per_example, design.itemsize

    # Products in the network's precision, vectors in float64: in float32 they would not stay orthogonal for long.
    precision = np.dtype(f"f{size}")

    def of_rows(u: Matrix) -> Matrix:
        return operator.matmul(operator.rmatmul(u.astype(precision, copy=False))).astype(np.float64, copy=False)

    def of_columns(v: Matrix) -> Matrix:
        return operator.rmatmul(operator.matmul(v.astype(precision, copy=False))).astype(np.float64, copy=False)

    apply = of_rows if rows < columns else of_columns
    # The last layer's share alone has every eigenvalue q times: a block as wide finds the copies at once.
    block = q + 2 if 8 <= q <= 14 else 8
    wanted, most = tolerance[size], max(tolerance[size], bound[size])
    side = min(rows, columns)
    found = leading_eigenpairs(apply, side, k, seed=seed, tolerance=wanted, bound=most, block=block)
    return apply, found


def _described(
    apply: Apply,
    values: Matrix,
    vectors: Matrix,
    directions: Matrix | None,
    total: float,
    overlap: Matrix | None,
    seed: int,
    itemsize: int,
) -> Decomposition:
    """With what the residuals are, and where the eigenvalues lie that were not asked for."""
    positive = np.maximum(values, np.finfo(float).tiny)
    residuals = np.linalg.norm(apply(vectors) - vectors * values, axis=0) / positive
    rest = estimated_spectrum(
        apply,
        len(vectors),
        total,
        leading=values,
        vectors=vectors,
        probes=_PROBES,
        steps=_STEPS,
        floor=1e-12 if itemsize == 8 else 1e-6,
        seed=seed,
    )
    return Decomposition(
        values, directions, vectors if directions is None else None, residuals, total, rest.tail_spread(), overlap
    )


def _directions(operator: Operator, values: Matrix, left: Matrix) -> Matrix:
    """v_k = Phi^T u_k / S_k as rows; zero where the eigenvalue is."""
    return _unit_rows(operator.rmatmul(left) * np.where(values > 0, 1, 0))


def _unit_rows(columns: Matrix) -> Matrix:
    norms = np.linalg.norm(columns, axis=0)
    return np.ascontiguousarray((columns / np.where(norms > 0, norms, 1)).T)


def _of_half(gram: Matrix, k: int, seed: int, itemsize: int) -> tuple[Matrix, Matrix]:
    values, vectors = leading_dense(gram, min(k, len(gram)), seed, _HALF_TOLERANCE[8])
    determined = (values > _RANK[itemsize] * values[0]) & (values > 0)
    return values[determined], vectors[:, determined]


def _halves(n: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Two random halves of the examples; one part where there is one example."""
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
    if len(bad) == 0:
        raise SettingsError(
            "Eigen features need a kernel of finite numbers, but products of the features, which are finite, are beyond what "
            "float64 holds, 1.8e308; scale the network's outputs down."
        )
    named = ", ".join(str(one) for one in design.examples.ids[bad[:3]]) + (", ..." if len(bad) > 3 else "")
    raise SettingsError(
        f"Eigen features need finite values, but {len(bad)} of {len(design.examples)} examples give NaN or infinity "
        f"(ids {named}); leave them out, or look at weight features alone."
    )
