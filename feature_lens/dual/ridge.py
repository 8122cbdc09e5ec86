"""Ridge regression in its dual form, its ridge chosen by leaving training examples out, without a refit.

K = U diag(w) U^T is the kernel of the training rows, t their targets: yhat(x) = K(x, A) alpha, alpha = (K + rho)^-1 t.
Leaving an example out of the regression changes the residual of its rows B to (I - S_BB)^-1 (t - yhat)_B, S = K (K +
rho)^-1: the block form of the identity of ridge regression. It leaves the example out of the regression only, not out
of the network whose features make the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.linalg

from feature_lens.errors import SettingsError
from feature_lens.features.design import DesignMatrix

Matrix = npt.NDArray[np.float64]
# Ridges that are tried, relative to the mean of the kernel's diagonal.
RIDGES: Final = tuple(float(ridge) for ridge in np.logspace(-8, 1, 19))
# Eigenvalues below this share of the first, times the side, are rounding.
_RANK = 1e-14
# Numbers of eigenvectors taken at once: they stay beside the processor for all ridges.
_TOGETHER = 1 << 17
# Directions multiplied at once: products with more of them take more room than they save time.
_COLUMNS = 256


@dataclass(frozen=True)
class Spectral:
    """A kernel of r rows as its eigenvalues (k,) and eigenvectors (r, k), those of its range, and its mean diagonal."""

    values: Matrix
    vectors: Matrix
    mean_diagonal: float

    @classmethod
    def of_kernel(cls, kernel: Matrix) -> Spectral:
        """From the kernel (r, r) itself. Cost r^3. Raises SettingsError for one that is zero or not finite."""
        kernel = np.asarray(kernel, dtype=np.float64)
        mean = _usable(float(np.trace(kernel)) / len(kernel))
        values, vectors = scipy.linalg.eigh(kernel, driver="evd", check_finite=False)
        kept = values > _RANK * len(kernel) * values[-1]
        return cls(values[kept], vectors[:, kept], mean)

    @classmethod
    def of_columns(cls, design: DesignMatrix) -> tuple[Spectral, Matrix]:
        """From Phi^T Phi (p, p), for designs of more rows than columns, with the directions V (p, k) that give the
        eigenvectors U = Phi V / S. Cost r p^2 + p^3; r p numbers."""
        cogram = design.cogram()
        mean = _usable(float(np.trace(cogram)) / design.shape[0])
        values, directions = scipy.linalg.eigh(cogram, driver="evd", overwrite_a=True, check_finite=False)
        kept = values > _RANK * len(values) * values[-1]
        values, directions = values[kept], directions[:, kept]
        vectors, held = np.empty((design.shape[0], len(values))), design.held()
        for first in range(0, len(values), _COLUMNS):
            own = slice(first, first + _COLUMNS)
            vectors[:, own] = held.matmul(directions[:, own]) / np.sqrt(values[own])
        return cls(values, vectors, mean), directions


@dataclass(frozen=True)
class Ridge:
    """A fit: `ridge` relative to the mean diagonal, chosen from `tried`, whose mean squared errors with examples left
    out are `errors`; dual coefficients alpha (r, t), and the predictions for left-out examples (r, t)."""

    ridge: float
    coefficients: Matrix
    left_out: Matrix
    tried: tuple[float, ...]
    errors: tuple[float, ...]


def fit_ridge(spectral: Spectral, targets: Matrix, block: int = 1, ridges: Sequence[float] = RIDGES) -> Ridge:
    """Fit targets (r, t) of rows that come `block` to an example. Cost r k (t + block) for each ridge.

    The ridge is the one of least error for left-out examples; on a tie the largest. Raises SettingsError for targets
    that are not finite, or ridges that are not positive.
    """
    if not np.isfinite(targets).all():
        raise SettingsError("A regression needs finite targets, but NaN or infinity came; leave those examples out.")
    if not len(ridges) or min(ridges) <= 0:
        raise SettingsError(f"Ridges are positive numbers, but {tuple(ridges)} came; give at least one such number.")
    u, w, mean = spectral.vectors, spectral.values, spectral.mean_diagonal
    along = u.T @ targets
    beside = targets - u @ along
    tried = tuple(sorted(float(ridge) for ridge in ridges))
    left = _left_out(spectral, along, beside, block, [ridge * mean for ridge in tried])
    errors = np.square(left).mean(axis=(1, 2))
    best = int(len(errors) - 1 - np.argmin(errors[::-1]))
    rho = tried[best] * mean
    coefficients = beside / rho + u @ (along / (w + rho)[:, None])
    return Ridge(tried[best], coefficients, targets - left[best], tried, tuple(float(error) for error in errors))


def _left_out(spectral: Spectral, along: Matrix, beside: Matrix, block: int, ridges: Sequence[float]) -> Matrix:
    """Residuals (ridges, r, t) of examples that are left out."""
    r, t = beside.shape
    missed = [rho / (spectral.values + rho) for rho in ridges]
    made = np.empty((len(ridges), r, t))
    some = block * max(1, _TOGETHER // (block * len(along)))
    for first in range(0, r, some):
        rows = slice(first, min(first + some, r))
        u = spectral.vectors[rows]
        blocks = u.reshape(-1, block, len(along))
        outside = np.eye(block) - blocks @ blocks.transpose(0, 2, 1)
        for place, share in enumerate(missed):
            residual = beside[rows] + u @ (share[:, None] * along)
            own = outside + (blocks * share) @ blocks.transpose(0, 2, 1)
            made[place, rows] = np.linalg.solve(own, residual.reshape(len(own), block, t)).reshape(-1, t)
    return made


def _usable(mean_diagonal: float) -> float:
    if np.isfinite(mean_diagonal) and mean_diagonal > 0:
        return mean_diagonal
    found = "zero" if mean_diagonal == 0 else "not finite"
    raise SettingsError(
        f"A regression needs a kernel that is finite and not zero, but it is {found}; look at the data."
    )
