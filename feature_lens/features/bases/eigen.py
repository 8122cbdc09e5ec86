"""Eigen features: the principal directions of a design matrix, eigenvectors of its kernel."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, Basis, ranked, stored_columns
from feature_lens.features.design import CentredDesign, DesignMatrix, Matrix, one_thread
from feature_lens.features.eigen_solvers import Apply, leading_dense, leading_matrix_free
from feature_lens.features.known_methods import eigen_equals

Side = Literal["auto", "rows", "columns", "matrix_free"]

# Directions larger than this are not put into a run; the share of each tensor still is.
_DIRECTION_BYTES = 64 << 20

# Relative residuals: of the features themselves where only products are known, and of the half fits, which are
# only compared with each other.
_PRODUCT_TOLERANCE = 1e-10
_HALF_TOLERANCE = 1e-6


@BASES.register("eigen")
class Eigen(Basis):
    """Principal effective features: Phi = U S V^T on the fitted rows, direction v_k, activation Phi v_k.

    Derived independently; intended to correspond to the principal components of the effective features of PDLT,
    arXiv:2106.10165, ch. infinity; for the trace reduction they are the traced eNTK eigenvectors of Lin,
    arXiv:2510.00468, extended to new examples by Nystroem, H(x, A) u_k / S_k = Phi(x) v_k.

    n_components: k, fewer where an eigenvalue falls below `drop` times the first. centred: take the mean row of each
    output off first. side: the kernel (r, r), the smaller of it and the cogram (p, p) by 'auto', or 'matrix_free',
    which 'auto' takes when both exceed `dense_limit`; all give the same features. group_gap: eigenvalues closer than
    this, relatively, form one degenerate group. Cost: min(r, p)^2 max(r, p) dense, r p k steps matrix-free.

    Learnt: spectrum_ (k), directions_ (k, p), groups_ (k), stability_ (k), mean_share_ (k), kernel_share_, side_,
    and for several rows per example profile_ (k, q) and energy_ (k). The sign of a feature makes the sum of
    cubes of its training scores positive.
    """

    def __init__(
        self,
        n_components: int = 64,
        *,
        centred: bool = False,
        side: Side = "auto",
        dense_limit: int = 6000,
        drop: float = 1e-6,
        group_gap: float = 0.01,
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.centred = centred
        self.side = side
        self.dense_limit = dense_limit
        self.drop = drop
        self.group_gap = group_gap
        self.random_state = random_state

    def fit(self, design: DesignMatrix, y: None = None) -> Eigen:
        """Learn directions on the training examples; raises SettingsError for impossible settings or a zero matrix."""
        if self.n_components < 1:
            raise SettingsError(f"At least one eigen feature must be asked for, not {self.n_components}.")
        fitting = design.examples.fitting
        self._note_fit(design, fitting)
        fitted = design.on(fitting)
        self.mean_: Matrix | None = fitted.mean() if self.centred else None
        if self.mean_ is not None:
            fitted = CentredDesign(fitted, self.mean_)
        with one_thread():
            self.side_ = _side(self.side, fitted.shape, self.dense_limit)
            total = {"rows": self._by_rows, "columns": self._by_columns, "matrix_free": self._by_products}[self.side_](
                fitted
            )
            self.directions_ /= np.linalg.norm(self.directions_, axis=1, keepdims=True)
            self.kernel_share_ = float(self.spectrum_.sum() / total)
            self._orient(fitted)
        return self

    def _by_rows(self, fitted: DesignMatrix) -> float:
        """Decompose the kernel (r, r); return its trace. The half fits are blocks of it."""
        kernel = fitted.gram()
        total = _usable(float(np.trace(kernel)))
        values, left = leading_dense(kernel, self._wanted(fitted), self.random_state)
        k = self._keep(values)
        self.directions_ = (fitted.rmatmul(left[:, :k]) / np.sqrt(self.spectrum_)).T
        q = fitted.rows_per_example
        halves = [(half[:, None] * q + np.arange(q)).ravel() for half in self._halves(fitted)]
        self._compare_halves(_overlap_rows(kernel, halves, k, self.random_state))
        return total

    def _by_columns(self, fitted: DesignMatrix) -> float:
        """Decompose the cogram (p, p); return its trace. The half fits add up to it."""
        halves = [fitted.on(half).cogram() for half in self._halves(fitted)]
        cogram = np.sum(halves, axis=0)
        total = _usable(float(np.trace(cogram)))
        values, right = leading_dense(cogram, self._wanted(fitted), self.random_state)
        k = self._keep(values)
        self.directions_ = np.ascontiguousarray(right[:, :k].T)
        parts = [leading_dense(half, k, self.random_state, _HALF_TOLERANCE)[1] for half in halves]
        self._compare_halves(parts[0].T @ parts[1] if len(parts) == 2 else None)
        return total

    def _by_products(self, fitted: DesignMatrix) -> float:
        """Decompose by streamed products alone; return the trace of the kernel."""
        total = _usable(fitted.squared_norm())
        side, seed = fitted.shape[1], self.random_state
        values, right = leading_matrix_free(_normal(fitted), side, self._wanted(fitted), seed, _PRODUCT_TOLERANCE)
        k = self._keep(values)
        self.directions_ = np.ascontiguousarray(right[:, :k].T)
        parts = [
            leading_matrix_free(_normal(fitted.on(half)), side, k, seed, _HALF_TOLERANCE)[1]
            for half in self._halves(fitted)
        ]
        self._compare_halves(parts[0].T @ parts[1] if len(parts) == 2 else None)
        return total

    def _wanted(self, fitted: DesignMatrix) -> int:
        return min(self.n_components, *fitted.shape)

    def _halves(self, fitted: DesignMatrix) -> list[npt.NDArray[np.int64]]:
        """Two random halves of the fitted examples; one part where there is one example."""
        n = len(fitted.examples)
        shuffled = np.random.default_rng(self.random_state).permutation(n)
        return [np.sort(half) for half in (shuffled[: n // 2], shuffled[n // 2 :]) if len(half)]

    def _compare_halves(self, overlap: Matrix | None) -> None:
        self.groups_ = degenerate_groups(self.spectrum_, self.group_gap)
        self.stability_ = _stability(overlap, self.groups_)

    def _keep(self, values: Matrix) -> int:
        kept = max(1, int(np.count_nonzero(values > self.drop * values[0])))
        self.spectrum_ = values[:kept].copy()
        return kept

    def _orient(self, fitted: DesignMatrix) -> None:
        """Fix score profiles and signs from the training activations."""
        q = fitted.rows_per_example
        activations = fitted.matmul(self.directions_.T).reshape(-1, q, len(self.spectrum_))
        energy = np.square(activations).sum(axis=(0, 1))
        means = activations.mean(axis=0)
        self.mean_share_ = len(activations) * np.square(means).sum(axis=0) / np.maximum(energy, np.finfo(float).tiny)
        self.profile_ = np.ones((len(self.spectrum_), q))
        self.energy_ = np.ones(len(self.spectrum_))
        for k in range(len(self.spectrum_)):
            if q > 1:
                self.profile_[k], self.energy_[k] = _profile(activations[:, :, k])
            if _sign(activations[:, :, k] @ self.profile_[k]) < 0:
                self.directions_[k] *= -1

    def transform(self, design: DesignMatrix) -> Matrix:
        """Activations (r, k) = Phi v of all rows, also of examples that were not fitted."""
        centred = design if self.mean_ is None else CentredDesign(design, self.mean_)
        return centred.matmul(self.directions_.T)

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with its spectrum, directions, groups and stability; for several outputs the view 'score' leads."""
        q, k = design.rows_per_example, len(self.spectrum_)
        by_output = self.transform(design).reshape(-1, q, k)
        views = ("score",) if q == 1 else ("score", *design.views)
        values: npt.NDArray[np.float32] = np.empty((k, len(views), len(by_output)), dtype=np.float32)
        values[:, 0] = np.einsum("nqk,kq->kn", by_output, self.profile_)
        if q > 1:
            values[:, 1:] = by_output.transpose(2, 1, 0)
        ranking = ranked(design, values, keep, batch_size)
        columns = stored_columns(ranking, values, np.arange(k, dtype=np.int32))
        columns |= {
            "spectrum": self.spectrum_,
            "group": self.groups_,
            "stability": self.stability_,
            "mean_share": self.mean_share_,
        }
        if q > 1:
            columns |= {"profile": self.profile_, "energy": self.energy_}
        columns |= self._direction_columns(design)
        kind, outputs = design.card
        title = f"Eigen features of the {kind}, {outputs.split(':')[0]}"
        card = self._card(
            design,
            title,
            f"The {k} directions in which the {kind} of the fitted examples vary most; the activation of an example is "
            f"the projection of its row on the direction.",
            eigen_equals(design),
            _score_words(q),
            kernel_share=self.kernel_share_,
        )
        return FeatureSet(name, views, card, columns, design.network.parameters)

    def _direction_columns(self, design: DesignMatrix) -> dict[str, Column]:
        """Directions in all of theta, zero in tensors that were not chosen, and each tensor's share of them."""
        chosen = getattr(design, "parameters", None)
        if chosen is None:
            return {}
        table = design.network.parameters
        k = len(self.spectrum_)
        joined = self.directions_.reshape(k, -1, chosen.total)
        full = np.zeros((k, joined.shape[1], table.total), dtype=np.float32)
        source = dict(chosen.slices)
        share = np.zeros((k, len(table.names)))
        for place, (tensor, at) in enumerate(table.slices):
            if tensor in source:
                part = joined[:, :, source[tensor]]
                full[:, :, at] = part
                share[:, place] = np.square(part).sum(axis=(1, 2))
        columns: dict[str, Column] = {"parameter_share": share}
        if full.nbytes <= _DIRECTION_BYTES:
            columns["direction"] = full[:, 0] if full.shape[1] == 1 else full
        return columns


def degenerate_groups(spectrum: Matrix, gap: float) -> npt.NDArray[np.int32]:
    """Group number of each eigenvalue of a falling spectrum: a new group starts where the relative gap is larger."""
    apart = (spectrum[:-1] - spectrum[1:]) > gap * spectrum[:-1]
    return np.concatenate([[0], np.cumsum(apart)]).astype(np.int32)


def _score_words(q: int) -> str:
    if q == 1:
        return "projection of the example's gradient on the feature's unit direction; both signs count"
    return (
        "projections of the c output gradients on the feature's unit direction, weighted by the profile over outputs "
        "that carries most of their energy on the fitted examples; both signs count"
    )


def _side(side: Side, shape: tuple[int, int], dense_limit: int) -> Side:
    if side not in ("auto", "rows", "columns", "matrix_free"):
        raise SettingsError(f"A side is auto, rows, columns or matrix_free, not '{side}'; choose one of them.")
    if side != "auto":
        return side
    rows, columns = shape
    if min(rows, columns) > dense_limit:
        return "matrix_free"
    return "rows" if rows <= columns else "columns"


def _normal(design: DesignMatrix) -> Apply:
    """v -> Phi^T (Phi v) in one stream of the design."""

    def apply(v: Matrix) -> Matrix:
        out = np.zeros_like(v)
        for _, block in design.blocks():
            out += block.T @ (block @ v)
        return out

    return apply


def _usable(total: float) -> float:
    """The trace of a kernel when it is finite and positive; raises SettingsError otherwise."""
    if not np.isfinite(total) or total <= 0:
        raise SettingsError(
            "Eigen features need a design matrix that is finite and not zero, but it is not; "
            "look for dead outputs or infinite gradients first."
        )
    return total


def _overlap_rows(kernel: Matrix, half_rows: list[npt.NDArray[np.int64]], k: int, seed: int) -> Matrix | None:
    """V_A^T V_B of two half fits from the kernel alone: U_A^T H_AB U_B / (S_A S_B)."""
    if len(half_rows) < 2:
        return None
    fits = [leading_dense(kernel[np.ix_(rows, rows)], min(k, len(rows)), seed, _HALF_TOLERANCE) for rows in half_rows]
    (a_values, a), (b_values, b) = fits
    scale_a, scale_b = (np.sqrt(np.maximum(values, np.finfo(float).tiny)) for values in (a_values, b_values))
    overlap: Matrix = (a.T @ kernel[np.ix_(*half_rows)] @ b) / scale_a[:, None] / scale_b
    overlap[a_values <= 1e-12 * a_values[0]] = 0
    overlap[:, b_values <= 1e-12 * b_values[0]] = 0
    return overlap


def _stability(overlap: Matrix | None, groups: npt.NDArray[np.int32]) -> Matrix:
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


def _profile(activations: Matrix) -> tuple[Matrix, float]:
    """Leading right singular vector w (q,) of activations (n, q), largest entry positive, and its energy share."""
    values, vectors = np.linalg.eigh(activations.T @ activations)
    w = vectors[:, -1]
    total = float(np.maximum(values, 0).sum())
    share = float(values[-1]) / total if total > 0 else 1.0
    return w * np.sign(w[np.abs(w).argmax()]), share


def _sign(score: Matrix) -> float:
    """+1 where the sum of cubes is positive; where it is negligible, the entry of largest magnitude decides."""
    cubes = float((score**3).sum())
    if abs(cubes) > 1e-6 * float((np.abs(score) ** 3).sum()):
        return float(np.sign(cubes))
    return float(np.sign(score[np.abs(score).argmax()])) or 1.0
