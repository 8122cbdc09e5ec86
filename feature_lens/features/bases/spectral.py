"""What features with a spectrum share: degenerate groups, stability between halves, score profiles and signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from feature_lens.arrays import as_float32
from feature_lens.cards import ParameterTable
from feature_lens.examples import Column
from feature_lens.features.design import Matrix

# Directions larger than this are not put into a run; the share of each tensor still is. Those of the trace reduction,
# which have c * p entries, are not even formed: activations then follow from kernels.
DIRECTION_BYTES = 64 << 20


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


@dataclass(frozen=True)
class Profiles:
    """Of activations (n, q, k) on the fitted rows: weights of the outputs in the score (k, q) and the share of energy it
    carries (k,), the share of energy that is the mean (k,), and the sign that features are to have (k,)."""

    profile: Matrix
    energy: Matrix
    mean_share: Matrix
    signs: Matrix

    @classmethod
    def of(cls, activations: Matrix) -> Profiles:
        n, q, k = activations.shape
        total = np.maximum(np.square(activations).sum(axis=(0, 1)), np.finfo(float).tiny)
        mean_share = n * np.square(activations.mean(axis=0)).sum(axis=0) / total
        profile, energy, signs = np.ones((k, q)), np.ones(k), np.ones(k)
        for feature in range(k):
            if q > 1:
                profile[feature], energy[feature] = score_profile(activations[:, :, feature])
            signs[feature] = sign(activations[:, :, feature] @ profile[feature])
        return cls(profile, energy, mean_share, signs)


def score_values(by_output: Matrix, profile: Matrix) -> npt.NDArray[np.float32]:
    """(k, v, n) from activations (n, q, k): the score, and where there are several outputs each of them."""
    n, q, k = by_output.shape
    values: npt.NDArray[np.float32] = np.empty((k, 1 if q == 1 else q + 1, n), dtype=np.float32)
    values[:, 0] = as_float32(np.einsum("nqk,kq->kn", by_output, profile))
    if q > 1:
        values[:, 1:] = as_float32(by_output.transpose(2, 1, 0))
    return values


def matched_stability(vectors: Matrix, first: Matrix, second: Matrix) -> Matrix:
    """|cosine| between those of two half fits that are matched one to one to each of the unit vectors (k, m) of the whole
    fit, as alike as can be; NaN where a half has fewer."""
    found = np.full(len(vectors), np.nan)
    own, a = linear_sum_assignment(-np.abs(vectors @ first.T))
    other, b = linear_sum_assignment(-np.abs(vectors @ second.T))
    shared, at_a, at_b = np.intersect1d(own, other, return_indices=True)
    found[shared] = np.minimum(np.abs((first[a[at_a]] * second[b[at_b]]).sum(axis=1)), 1.0)
    return found


def sign(score: Matrix) -> float:
    """+1 where the sum of cubes is positive; where it is negligible, the entry of largest magnitude decides."""
    score = score / (np.abs(score).max() or 1.0)  # cubes of large numbers may be infinite
    cubes = float((score**3).sum())
    if abs(cubes) > 1e-6 * float((np.abs(score) ** 3).sum()):
        return float(np.sign(cubes))
    return float(np.sign(score[np.abs(score).argmax()])) or 1.0


def direction_columns(directions: Matrix, chosen: ParameterTable, table: ParameterTable) -> dict[str, Column]:
    """Directions (k, p), or (k, c p) for trace, over the chosen tensors, in all of theta: zero in the others; and each
    tensor's share of them."""
    joined = directions.reshape(len(directions), -1, chosen.total)
    parts = {name: joined[:, :, at] for name, at in chosen.slices}
    share = [np.square(parts[n]).sum(axis=(1, 2)) if n in parts else np.zeros(len(joined)) for n in table.names]
    columns: dict[str, Column] = {"parameter_share": np.stack(share, axis=1)}
    if joined.shape[0] * joined.shape[1] * table.total * 4 <= DIRECTION_BYTES:
        full = np.zeros((*joined.shape[:2], table.total), dtype=np.float32)
        for name, at in table.slices:
            if name in parts:
                full[:, :, at] = parts[name]
        columns["direction"] = full[:, 0] if full.shape[1] == 1 else full
    return columns


def tensor_shares(kernels: Mapping[str, Matrix], coefficients: Matrix, names: Sequence[str]) -> Matrix:
    """(k, l) share of |v_k|^2 within each tensor, v = Phi^T C: C^T H C with that tensor's share of the kernel."""
    share = np.zeros((coefficients.shape[1], len(names)))
    for name, part in kernels.items():
        share[:, names.index(name)] = (coefficients * (part @ coefficients)).sum(axis=0)
    return np.asarray(share / share.sum(axis=1, keepdims=True))
