"""Leading eigenpairs of a symmetric positive operator, dense or known only by its products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.special

from feature_lens.errors import SettingsError

Matrix = npt.NDArray[np.float64]
Apply = Callable[[Matrix], Matrix]
# A tall array of the operator's own precision: float64, or float32 where the products are.
Tall = npt.NDArray[Any]
Relative = Literal["first", "each"]

# Up to this side a full reduction is quick; above it, products of blocks are far cheaper for a few eigenpairs.
DENSE_SIDE = 1500
# Wider needs fewer calls but more columns; best is a little wider than the number of copies of an eigenvalue.
BLOCK = 8
# Steps over which the worst residual must fall by a tenth; otherwise rounding, not the subspace, holds it up.
_PATIENCE = 60
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Eigenpairs:
    """Leading eigenpairs and how good they are.

    values (k,) falling; vectors (side, k) orthonormal, of the working precision; residuals (k,), |H u - w u|, absolute;
    value_errors (k,), the estimated error of each value, absolute; applied_columns: columns of H @ block in all;
    reached: whether what was asked for was reached.
    """

    values: Matrix
    vectors: Tall
    residuals: Matrix
    value_errors: Matrix
    applied_columns: int
    reached: bool


def leading_dense(matrix: Matrix, k: int, seed: int = 0, tolerance: float = 1e-12) -> tuple[Matrix, Matrix]:
    """The k largest eigenvalues, falling, and their vectors (side, k) of a symmetric matrix.

    LAPACK up to a side of 1,500 (cost side^3), else block products (cost side^2 times the columns applied).
    """
    side = len(matrix)
    if side > DENSE_SIDE and 4 * k < side:
        return leading_matrix_free(lambda block: matrix @ block, side, k, seed, tolerance)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[side - k, side - 1], check_finite=False)
    return np.ascontiguousarray(values[::-1]), np.ascontiguousarray(vectors[:, ::-1])


def leading_matrix_free(
    apply: Apply, side: int, k: int, seed: int = 0, tolerance: float = 1e-12, max_steps: int = 1000
) -> tuple[Matrix, Matrix]:
    """The k largest eigenvalues and vectors (side, k) by `leading_eigenpairs`, with |H u - w u| <= tolerance * w_1.

    Raises SettingsError when that is not reached.
    """
    found = leading_eigenpairs(apply, side, k, seed=seed, tolerance=tolerance, bound=tolerance, max_steps=max_steps)
    return found.values, found.vectors


def leading_eigenpairs(
    apply: Callable[[Any], Any],
    side: int,
    k: int,
    *,
    seed: int = 0,
    tolerance: float = 1e-12,
    eigenvalue_tolerance: float | None = None,
    relative_to: Relative = "first",
    bound: float | None = None,
    block: int = BLOCK,
    basis: int | None = None,
    max_steps: int = 1000,
    measure: bool = False,
) -> Eigenpairs:
    """The k largest eigenpairs of H (side, side), symmetric positive, from products H @ block (side, <= block) alone.

    Block Lanczos with full orthogonalisation and thick restart (Golub & Underwood 1977; Wu & Simon 2000). A pair is
    accepted at |H u - w u| <= tolerance * w_1, or * w of its own for relative_to='each'; with `eigenvalue_tolerance`
    at an estimated error of the value below that share instead, which is quadratic in the residual (Li & Li 2005) and
    so comes far sooner, while its vector is good to the residual only.

    Copies: a Krylov space of B random vectors holds min(copies, B) of each eigenvalue. So where B or more accepted
    values above the last agree to their residuals, another random block orthogonal to them all is iterated until a
    copy that is missing would have shown but for a chance below 1e-6; this is repeated, and never needed otherwise.

    Noisy products (float32 inside `apply`): the noise is estimated at no cost from the asymmetry of the projected
    matrix and counted in the residuals; pairs whose residual lies below it are accepted, and the search also stops
    where residuals stagnate or after max_steps blocks. `reached` then says whether the tolerance was met; only a
    `bound`, in the units of the tolerance that was given, that is missed raises SettingsError; so do products that
    are not finite and settings that are impossible. measure: apply H to the k vectors once more (k columns), and
    report residuals that are measured, not estimated.

    block: wider means fewer calls but more columns; best a little above the number of copies where that is known.
    Cost: applied columns, plus 8 * side * basis operations for each. Memory: side * basis float64 numbers, less than
    twice that for a moment at a restart; basis defaults to 2 k + 8 * block columns (or side). The same seed gives the
    same bytes on one thread.
    """
    width, k, limit = _checked(side, k, block, basis, relative_to)
    kept = k + max(width, (limit - k) // 3)
    space = _Krylov(apply, side, limit, np.random.default_rng(seed))
    goal = tolerance if eigenvalue_tolerance is None else eigenvalue_tolerance
    best, waited, owed = np.inf, 0, 0
    for _ in range(max_steps):
        if space.width == 0:
            space.inject(width)
        if space.columns + space.width > limit:
            space.restart(kept)
        space.step()
        owed, waited = owed - 1, waited + 1
        ritz = space.ritz()
        if len(ritz.values) < k:
            continue
        quality = ritz.residuals[:k] if eigenvalue_tolerance is None else ritz.value_errors(k)
        share = space.relative(quality, ritz.values[:k], relative_to)
        missed = (share > goal) & (ritz.visible[:k] > ritz.noise[:k])
        if space.columns == side or (waited > _PATIENCE and missed.any()):
            break
        worst = float(share[missed].max(initial=0.0))
        if worst < 0.9 * best:
            best, waited = worst or np.inf, 0
        if missed.any() or owed > 0:
            continue
        needed = _steps_owed(ritz, k, space.injected, width, side)
        if needed == 0:
            break
        # What couples to the old blocks is dropped with them, so it has to be well below what was asked for.
        if not ((share > 0.1 * goal) & (ritz.visible[:k] > ritz.noise[:k])).any():
            space.restart(k)
            space.inject(width)
            owed, best, waited = needed, np.inf, 0
    if len(ritz.values) < k:
        raise SettingsError(
            f"{k} eigenpairs were wanted, but {max_steps} blocks of {width} columns do not hold as many; allow more."
        )
    vectors = space.combined(ritz.turn[:, :k])
    values, residuals = ritz.values[:k].copy(), ritz.residuals[:k]
    if measure:
        residuals = space.measured(values, vectors)
        zero = np.zeros(len(ritz.values))
        ritz = replace(ritz, visible=np.append(residuals, ritz.visible[k:]), noise=zero, dropped=zero)
    errors = ritz.value_errors(k)
    worst = float(space.relative(residuals if eigenvalue_tolerance is None else errors, values, relative_to).max())
    if bound is not None and not worst <= bound:
        kind = "residual" if eigenvalue_tolerance is None else "error of the value"
        raise SettingsError(
            f"{k} eigenpairs were wanted to a relative {kind} of {bound:.1g}, but {worst:.1g} was reached with "
            f"{space.applied} columns; ask for fewer components or a larger bound."
        )
    return Eigenpairs(values, vectors, residuals, errors, space.applied, worst <= goal)


@dataclass(frozen=True)
class _Ritz:
    """Ritz values (m,) falling, their coordinates (m, m), and the parts of their residuals: what the next block would
    see, the noise of the products, and couplings that were dropped."""

    values: Matrix
    turn: Matrix
    visible: Matrix
    noise: Matrix
    dropped: Matrix

    @property
    def residuals(self) -> Matrix:
        together: Matrix = np.sqrt(self.visible**2 + self.noise**2 + self.dropped**2)
        return together

    def value_errors(self, k: int) -> Matrix:
        """Estimates for the k first values: 2 e^2 / (gap + sqrt(gap^2 + 4 e^2)), e the residual of a group of the pairs
        nearest to it together and the gap that to all others, for the best group; never above its own residual. The
        gap is itself an estimate: from Ritz values, less their residuals."""
        apart = np.abs(self.values[:k, None] - self.values)
        order = np.argsort(apart, axis=1, kind="stable")
        square = np.cumsum(np.square(self.residuals)[order], axis=1)
        left = np.take_along_axis(apart, order, axis=1) - self.residuals[order]
        nearest = np.minimum.accumulate(left[:, ::-1], axis=1)[:, ::-1]
        gap = np.pad(np.maximum(nearest[:, 1:], 0), ((0, 0), (0, 1)))
        error = 2 * square / np.maximum(gap + np.sqrt(gap**2 + 4 * square), _TINY)
        best: Matrix = np.minimum(error.min(axis=1), self.residuals[:k])
        return best


class _Krylov:
    """An orthonormal basis Q (side, m) with T = Q^T H Q and H Q = Q T + R S + errors.

    R (side, width) is the next block, S (width, m) its coupling. The errors are noise of the products, its norm for
    each column `noisy` (m,), and couplings to blocks that were dropped, `dropped` (any, m). T grows by the new columns
    alone.
    """

    def __init__(self, apply: Callable[[Any], Any], side: int, limit: int, rng: np.random.Generator) -> None:
        self.apply, self.side, self.rng = apply, side, rng
        # Columns are appended, so they are what lies together.
        self.store: Tall = np.empty((side, limit), order="F")
        self.following: Tall = np.empty((side, 0))
        self.projected: Matrix = np.zeros((0, 0))
        self.coupling: Matrix = np.zeros((0, 0))
        self.noisy: Matrix = np.zeros(0)
        self.dropped: Matrix = np.zeros((0, 0))
        self.noise, self.norm = 0.0, 0.0
        self.applied = self.injected = 0

    @property
    def columns(self) -> int:
        return int(self.projected.shape[0])

    @property
    def width(self) -> int:
        return int(self.following.shape[1])

    @property
    def basis(self) -> Tall:
        return self.store[:, : self.columns]

    def step(self) -> None:
        """Take the next block into the basis and apply H to it."""
        old, width = self.columns, self.width
        new = slice(old, old + width)
        self.store[:, new] = self.following
        rest = self._product(np.ascontiguousarray(self.following))
        basis = self.store[:, : new.stop]
        # The couplings to the old basis are taken from the product, not from S: they hold what was dropped, too.
        inner = self._remove(basis, rest)
        if not np.isfinite(inner).all():
            raise SettingsError("Eigenpairs need products that are finite, but NaN or infinity came; look at the rows.")
        self.norm = max(self.norm, float(np.linalg.norm(inner, axis=0).max()))
        self._note_noise(inner[new])
        grown = np.zeros((new.stop, new.stop))
        grown[:old, :old] = self.projected
        grown[:, new], grown[new, :] = inner, inner.T
        grown[new, new] = (inner[new] + inner[new].T) / 2
        self.projected = grown
        self.noisy = np.append(self.noisy, np.full(width, self.noise))
        self.dropped = np.pad(self.dropped, ((0, 0), (0, width)))
        self.following, part = self._orthonormal(rest)
        self.coupling = np.zeros((self.width, new.stop))
        self.coupling[:, new] = part

    def _product(self, block: Tall) -> Tall:
        out = np.array(self.apply(block), dtype=np.float64, order="F")
        if out.shape != block.shape:
            raise SettingsError(f"A product of shape {block.shape} was wanted, but {out.shape} came; return H @ block.")
        self.applied += block.shape[1]
        return out

    def _remove(self, basis: Tall, block: Tall) -> Matrix:
        """Make the block orthogonal to the basis, in place and twice, as once is not enough; what was taken off."""
        taken = np.zeros((basis.shape[1], block.shape[1]))
        for _ in range(2):
            inner = basis.T @ block
            block -= basis @ inner
            taken += inner
        return taken

    def _note_noise(self, square: Matrix) -> None:
        """H is symmetric, so Q^T (H + noise) Q shows the noise by its asymmetry; white noise is sqrt(side) as long."""
        width = len(square)
        if width > 1:
            apart = float(np.linalg.norm(square - square.T)) / np.sqrt(2 * width * (width - 1))
            self.noise = apart * np.sqrt(self.side)

    def _orthonormal(self, rest: Tall) -> tuple[Tall, Matrix]:
        """R (side, rank) and S (rank, width) of a remainder R S; directions of rounding alone are left out."""
        q, r, order = scipy.linalg.qr(rest, mode="economic", pivoting=True, overwrite_a=True, check_finite=False)
        sizes = np.abs(np.diag(r))
        rank = int(np.count_nonzero(sizes > 10 * np.finfo(np.float64).eps * self.norm))
        rank = min(rank, self.side - self.columns)
        part = np.empty((rank, len(order)))
        part[:, order] = r[:rank]
        q = np.asfortranarray(q[:, :rank])
        small = max(0.01 * sizes[0], np.sqrt(np.finfo(np.float64).eps) * self.norm)
        if rank and sizes[rank - 1] < small:
            # A small remainder, made a unit vector, is no longer orthogonal to the basis.
            self._remove(self.basis, q)
            q, again = np.linalg.qr(q)
            part = again.astype(np.float64) @ part
        return q, part

    def inject(self, width: int) -> None:
        """Go on from random vectors orthogonal to the basis; the coupling to the next block is dropped."""
        self.dropped = np.concatenate([self.dropped, self.coupling])
        width = min(width, self.side - self.columns)
        block = np.asfortranarray(self.rng.standard_normal((self.side, width)))
        self._remove(self.basis, block)
        self.following = np.linalg.qr(block)[0]
        self.coupling = np.zeros((width, self.columns))
        self.injected += width

    def ritz(self) -> _Ritz:
        values, turn = np.linalg.eigh(self.projected)
        turn = turn[:, ::-1]
        noise = np.sqrt(np.square(self.noisy) @ np.square(turn))
        visible, dropped = (np.linalg.norm(part @ turn, axis=0) for part in (self.coupling, self.dropped))
        return _Ritz(values[::-1], turn, visible, noise, dropped)

    def restart(self, kept: int) -> None:
        """Keep the leading Ritz vectors and the next block."""
        found = self.ritz()
        turn = found.turn[:, :kept]
        self.store[:, : turn.shape[1]] = self.combined(turn)
        self.projected = np.diag(found.values[:kept])
        self.coupling = self.coupling @ turn
        self.dropped = self.dropped @ turn
        self.noisy = np.hypot(found.noise[:kept], np.finfo(np.float64).eps * self.norm)

    def relative(self, errors: Matrix, values: Matrix, relative_to: Relative) -> Matrix:
        """Errors as shares of w_1 or of each w; none where they are rounding of H, as for eigenvalues of zero."""
        scale = np.maximum(values if relative_to == "each" else values[0], _TINY)
        rounding = 100 * float(np.finfo(np.float64).eps) * self.norm
        out: Matrix = np.where(errors > rounding, errors, 0) / scale if relative_to == "each" else errors / scale
        return out

    def combined(self, turn: Matrix) -> Tall:
        """Q @ turn (side, .)."""
        out: Tall = self.basis @ turn
        return out

    def measured(self, values: Matrix, vectors: Tall) -> Matrix:
        """|H u - w u| of each pair, by as many products."""
        norms = []
        for at in range(0, len(values), BLOCK):
            some = np.ascontiguousarray(vectors[:, at : at + BLOCK])
            rest = self._product(some).astype(np.float64) - some * values[at : at + BLOCK]
            norms.append(np.linalg.norm(rest, axis=0))
        return np.concatenate(norms)


def _steps_owed(ritz: _Ritz, k: int, injected: int, width: int, side: int) -> int:
    """Steps of a fresh block that would show a missing copy; 0 where the blocks so far must hold all of them.

    Values that agree to their residuals are copies as far as is known. A copy u of a value w above the last one, v,
    has a part in a random block of at least `seen` but for a chance of 1e-6; Chebyshev polynomials of degree d on
    [0, v] raise it by T_d(2 w / v - 1), and its Ritz value above v once that outweighs all else (Saad 2011, ch. 6).
    """
    values, radius = np.maximum(ritz.values[:k], 0), ritz.residuals[:k]
    apart = values[:-1] - values[1:] > 3 * (radius[:-1] + radius[1:]) + 1e-8 * values[:-1]
    chain = np.concatenate([[0], np.cumsum(apart)])
    sizes = np.bincount(chain)
    # Copies of the last value itself would change nothing.
    full = np.flatnonzero(sizes[:-1] >= injected)
    if len(full) == 0:
        return 0
    lowest = float(values[chain == full[-1]].min())
    ratio = float(np.clip(lowest / max(float(values[-1]), _TINY), 1.005, 1e6))
    seen = 2 * scipy.special.gammaincinv(width / 2, 1e-6) / side
    needed = np.arccosh(max(np.sqrt(1 / (seen * (1 - 1 / ratio))), 1.0)) / np.arccosh(2 * ratio - 1)
    return 1 + int(np.ceil(needed))


def _checked(side: int, k: int, block: int, basis: int | None, relative_to: str) -> tuple[int, int, int]:
    """Width of a block, number of pairs and columns of the basis; SettingsError where they cannot be."""
    if relative_to not in ("first", "each"):
        raise SettingsError(f"Residuals are relative to 'first' or 'each', not '{relative_to}'; choose one of them.")
    if k < 1 or side < 1 or block < 1:
        raise SettingsError(
            f"At least one eigenpair of one row by blocks of one column is wanted, not k={k}, side={side}, "
            f"block={block}; give positive numbers."
        )
    k, width = min(k, side), min(block, side)
    least = min(side, k + 3 * width)
    if basis is not None and basis < least:
        raise SettingsError(f"A basis of at least {least} columns is needed for k={k}, not {basis}; give more.")
    return width, k, min(side, 2 * k + 8 * width if basis is None else basis)
