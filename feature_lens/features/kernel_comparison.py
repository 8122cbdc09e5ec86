"""Figures of one kernel and of two beside each other: how far they differ, what they align with, how many directions count."""

from __future__ import annotations

import numpy as np

from feature_lens.features.design import Matrix


def relative_change(kernel: Matrix, reference: Matrix) -> float:
    """|K - K'| / |K'| of kernels (n, n), Frobenius norms."""
    return float(np.linalg.norm(kernel - reference) / np.linalg.norm(reference))


def cosine_distance(kernel: Matrix, other: Matrix) -> float:
    """1 - <K, K'> / (|K| |K'|) of kernels (n, n): their difference in shape, whatever their sizes; NaN where
    one is zero."""
    sizes = float(np.linalg.norm(kernel) * np.linalg.norm(other))
    return float("nan") if sizes == 0 else max(0.0, 1 - float(np.vdot(kernel, other)) / sizes)


def centred(kernel: Matrix) -> Matrix:
    """The kernel (n, n) of the same features with their mean over the examples taken off."""
    means = kernel.mean(axis=0)
    return np.asarray(kernel - means - means[:, None] + means.mean())


def unit_rows(kernel: Matrix) -> Matrix:
    """The kernel (n, n) of the same rows divided by their lengths, K_ij / sqrt(K_ii K_jj); rows of zeros stay."""
    lengths = np.sqrt(np.diag(kernel))
    lengths = np.where(lengths > 0, lengths, 1)
    return np.asarray(kernel / lengths / lengths[:, None])


def alignment(kernel: Matrix, values: Matrix) -> float:
    """Centred alignment of a kernel (n, n) with that of known values (n, d), <K, Y Y^T> / (|K| |Y Y^T|) of centred ones:
    1 where the kernel is theirs but for its size and mean; NaN where either does not vary. Cost n^2 d.

    Cortes, Mohri and Rostamizadeh, Algorithms for learning kernels based on centered alignment (2012), eq. 3.
    """
    k, y = centred(kernel), values - values.mean(axis=0)
    size = float(np.linalg.norm(k) * np.linalg.norm(y.T @ y))
    # What is left by rounding of values, or of a kernel, that are constant.
    nothing = 1e-12 * float(np.linalg.norm(kernel) * np.linalg.norm(values.T @ values))
    return float(np.vdot(y, k @ y)) / size if size > nothing else float("nan")


def effective_rank(spectrum: Matrix) -> float:
    """exp of the entropy of the shares of the eigenvalues (k,) in their sum.

    Roy and Vetterli, The effective rank (2007), there of singular values.
    """
    shares = spectrum[spectrum > 0] / spectrum[spectrum > 0].sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def subspace_overlap(basis: Matrix, known: Matrix) -> float:
    """Share of a known span, given by orthonormal columns (n, d), that lies in that of orthonormal columns (n, k): the
    mean of squared cosines of their principal angles; k / n is what chance gives."""
    return float(np.square(basis.T @ known).sum() / known.shape[1])
