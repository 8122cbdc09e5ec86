"""What features with a spectrum share: degenerate groups, stability between halves, score profiles and signs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_lens.features.design import Matrix


def degenerate_groups(spectrum: Matrix, gap: float) -> npt.NDArray[np.int32]:
    """Group number of each eigenvalue of a falling spectrum: a new group starts where the relative gap is larger."""
    apart = (spectrum[:-1] - spectrum[1:]) > gap * spectrum[:-1]
    return np.concatenate([[0], np.cumsum(apart)]).astype(np.int32)


def score_words(q: int) -> str:
    if q == 1:
        return "projection of the example's gradient on the feature's unit direction; both signs count"
    return (
        "projections of the c output gradients on the feature's unit direction, weighted by the profile over outputs "
        "that carries most of their energy on the fitted examples; both signs count"
    )


def group_stability(overlap: Matrix | None, groups: npt.NDArray[np.int32]) -> Matrix:
    """Cosine of the largest principal angle between the two half fits' subspaces, group by group; NaN for one example."""
    stability = np.full(len(groups), np.nan)
    if overlap is None:
        return stability
    for group in np.unique(groups):
        at = np.flatnonzero(groups == group)
        if at[-1] < min(overlap.shape):
            cosines = np.linalg.svd(overlap[np.ix_(at, at)], compute_uv=False)
            stability[at] = min(float(cosines[-1]), 1.0)
    return stability


def score_profile(activations: Matrix) -> tuple[Matrix, float]:
    """Leading right singular vector w (q,) of activations (n, q), largest entry positive, and its energy share."""
    values, vectors = np.linalg.eigh(activations.T @ activations)
    w = vectors[:, -1]
    total = float(np.maximum(values, 0).sum())
    share = float(values[-1]) / total if total > 0 else 1.0
    return w * np.sign(w[np.abs(w).argmax()]), share


def sign(score: Matrix) -> float:
    """+1 where the sum of cubes is positive; where it is negligible, the entry of largest magnitude decides."""
    cubes = float((score**3).sum())
    if abs(cubes) > 1e-6 * float((np.abs(score) ** 3).sum()):
        return float(np.sign(cubes))
    return float(np.sign(score[np.abs(score).argmax()])) or 1.0
