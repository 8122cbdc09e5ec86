"""The whole spectrum of a positive operator known by its products: leading eigenvalues exactly, the tail estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg

from feature_lens.errors import SettingsError
from feature_lens.features.eigen_solvers import Apply, Matrix

# A Ritz value this close to an eigenvalue, relatively, stands for it alone and not for an interval.
_SETTLED = 1e-3
# Logarithms closer than this are of the same eigenvalue.
_SAME = 1e-9
_TINY = float(np.finfo(np.float64).tiny)


class Estimate(NamedTuple):
    """A mean over probes, its standard error, and how far either way so few nodes leave the mean itself open."""

    value: float
    error: float
    doubt: float = 0.0


class Spread(NamedTuple):
    """About `number` eigenvalues between `low` and `high` hold `share` of the trace of H."""

    share: float
    number: Estimate
    low: float
    high: float


@dataclass(frozen=True)
class SpectrumEstimate:
    """Eigenvalues of H (side, side): the leading ones (k,) as given, and a density of the others.

    Of the tail: edges (b + 1,), log10 of eigenvalues, counts, count_errors and count_doubts (b,); sums,
    sum_errors and sum_doubts (b,), of the eigenvalues of a bin; below: the number under the first edge, zeros among them. Counts and `below` add up
    to side - k. trace: as given, exact; tail_trace: the same for the tail, `estimated_tail` what the probes say of it,
    so how far they can be trusted. participation: trace^2 / trace of H^2; entropy_rank: exp of the entropy of the
    eigenvalues as shares of the trace. Errors are standard errors over probes, doubts what a quadrature of few nodes
    leaves open, which is most of all in the smallest eigenvalues and none where every eigenvalue is found.
    nodes, weights, settled (probes, steps): the quadrature itself, weight 0 where a probe ended early.
    """

    side: int
    trace: float
    leading: Matrix
    edges: Matrix
    counts: Matrix
    count_errors: Matrix
    count_doubts: Matrix
    sums: Matrix
    sum_errors: Matrix
    sum_doubts: Matrix
    below: Estimate
    estimated_tail: Estimate
    participation: Estimate
    entropy_rank: Estimate
    applied_columns: int
    nodes: Matrix
    weights: Matrix
    settled: npt.NDArray[np.bool_]
    floor: float

    @property
    def leading_share(self) -> float:
        """Share of the trace that the leading eigenvalues hold; 0 for a zero operator."""
        return float(self.leading.sum()) / self.trace if self.trace > 0 else 0.0

    @property
    def tail_trace(self) -> float:
        """Trace without the leading eigenvalues, exact up to their error."""
        return max(self.trace - float(self.leading.sum()), 0.0)

    def count_above(self, threshold: float) -> Estimate:
        """Number of eigenvalues above a positive threshold, the leading ones included, which are counted exactly.

        Raises SettingsError for a threshold that is not above `floor`.
        """
        self._refuse_low(threshold)
        above, doubt = _above(self.nodes, self.weights, self.settled, self.floor, np.array([threshold]))
        exact = float(np.count_nonzero(self.leading > threshold))
        tail = _mean(above[:, 0])
        return Estimate(exact + tail.value, tail.error, float(doubt.mean()))

    def share_above(self, threshold: float) -> Estimate:
        """Share of the trace in eigenvalues above a positive threshold; the tail is scaled to its exact trace.

        Raises SettingsError for a threshold that is not above `floor`, or a trace of zero.
        """
        self._refuse_low(threshold)
        if self.trace <= 0:
            raise SettingsError("A share of the trace needs a trace above zero, but it is zero; look for dead outputs.")
        mass = self._mass()
        above, doubt = _above(self.nodes, mass, self.settled, self.floor, np.array([threshold]))
        scale = self.tail_trace / np.maximum(mass.sum(axis=1), _TINY) / self.trace
        exact = float(self.leading[self.leading > threshold].sum()) / self.trace
        tail = _mean(above[:, 0] * scale)
        return Estimate(exact + tail.value, tail.error, float((doubt[:, 0] * scale).mean()))

    def tail_spread(self, central: float = 0.9) -> Spread | None:
        """Where the tail lies: the eigenvalues that hold its central part by trace; None for a tail of nothing.

        Raises SettingsError for a part that is not between 0 and 1.
        """
        if not 0 < central < 1:
            raise SettingsError(f"A central part lies between 0 and 1, but {central:g} came; give one such as 0.9.")
        if len(self.counts) == 0 or self.tail_trace <= 0:
            return None
        grid = np.geomspace(10 ** self.edges[0], 10 ** self.edges[-1], 64 * len(self.counts) + 1)
        mass = self._mass()
        held = _above(self.nodes, mass, self.settled, self.floor, grid)[0].mean(axis=0)
        if held[0] <= 0:
            return None
        high = float(grid[np.flatnonzero(held >= (1 - central) / 2 * held[0])[-1]])
        low = float(grid[np.flatnonzero(held >= (1 + central) / 2 * held[0])[-1]])
        # An eigenvalue that alone holds a quantile belongs to the range, so its upper end lies just above it.
        high *= float(grid[1] / grid[0])
        ends = np.array([low, high])
        numbers, doubt = _above(self.nodes, self.weights, self.settled, self.floor, ends)
        inside = _above(self.nodes, mass, self.settled, self.floor, ends)[0].mean(axis=0)
        share = float((inside[0] - inside[1]) / mass.sum(axis=1).mean()) * self.tail_trace / self.trace
        number = _mean(numbers[:, 0] - numbers[:, 1])._replace(doubt=float(doubt.mean(axis=0).sum()))
        return Spread(share, number, low, high)

    def _mass(self) -> Matrix:
        """What each node holds of the trace (probes, steps)."""
        return self.weights * np.maximum(self.nodes, 0)

    def _refuse_low(self, threshold: float) -> None:
        if not threshold > self.floor:
            raise SettingsError(
                f"A threshold above {self.floor:.3g} is wanted, below which eigenvalues are not told from zero, but "
                f"{threshold:.3g} came; give a larger one."
            )


def estimated_spectrum(
    apply: Apply,
    side: int,
    trace: float,
    *,
    leading: Matrix | None = None,
    vectors: Matrix | None = None,
    probes: int = 10,
    steps: int = 40,
    bins_per_decade: int = 4,
    floor: float = 1e-12,
    seed: int = 0,
) -> SpectrumEstimate:
    """The spectrum of a symmetric positive H (side, side) from products H @ block, by stochastic Lanczos quadrature.

    Ubaru, Chen & Saad 2017, 'Fast estimation of tr(f(A)) via stochastic Lanczos quadrature'; Lin, Saad & Yang 2016,
    'Approximating spectral densities of large matrices'. Each probe, random signs made orthogonal to the known
    `vectors` (side, k) of the `leading` eigenvalues (k,), gives a Gauss quadrature of as many nodes as steps; with the
    leading part off, which varies most, only the tail is estimated. trace: of H, exact. floor: eigenvalues below this
    share of the largest count as zero; give 1e-6 for products in float32. The same seed gives the same answer.

    Cost: probes * steps columns of H @ block in `steps` calls, plus probes * steps * side * (4 k + 4 steps)
    operations for orthogonalisation. Memory: side * probes * (steps + 3) numbers. Raises SettingsError for settings
    that cannot be and for a trace or products that are not finite.
    """
    values, known = _checked(side, trace, leading, vectors, probes, steps, bins_per_decade, floor)
    steps = min(steps, side - len(values))
    if steps == 0:
        nodes, weights, settled, applied = np.zeros((probes, 1)), np.zeros((probes, 1)), np.ones((probes, 1), bool), 0
    else:
        nodes, weights, settled, applied = _quadratures(apply, known, probes, steps, np.random.default_rng(seed))
        weights = weights * (side - len(values))
    largest = max(float(values.max(initial=0.0)), float(nodes.max()))
    cut = max(floor * largest, _TINY)
    edges = _edges(nodes[weights > 0], cut, bins_per_decade)
    mass = weights * np.maximum(nodes, 0)
    counts, sums = (_binned(nodes, part, settled, cut, edges) for part in (weights, mass))
    squares = float(np.square(values).sum()) + (mass * nodes).sum(axis=1)
    # The trace is exact, so probes enter by the shape of the tail alone: x log x scaled to the tail's trace.
    tail = max(trace - float(values.sum()), 0.0)
    masses = mass.sum(axis=1)
    scale = np.divide(tail, masses, out=np.zeros_like(masses), where=masses > _TINY)
    logs = _xlogx(values).sum() + scale * (weights * _xlogx(nodes)).sum(axis=1)
    square, log = _mean(squares), _mean(logs)
    return SpectrumEstimate(
        side=side,
        trace=trace,
        leading=values,
        edges=edges,
        counts=counts[0],
        count_errors=counts[1],
        count_doubts=counts[2],
        sums=sums[0],
        sum_errors=sums[1],
        sum_doubts=sums[2],
        below=_mean(np.where(nodes > cut, 0, weights).sum(axis=1)),
        estimated_tail=_mean(mass.sum(axis=1)),
        participation=_participation(trace, square),
        entropy_rank=_entropy_rank(trace, log),
        applied_columns=applied,
        nodes=nodes,
        weights=weights,
        settled=settled,
        floor=cut,
    )


def _quadratures(
    apply: Apply, known: Matrix, probes: int, steps: int, rng: np.random.Generator
) -> tuple[Matrix, Matrix, npt.NDArray[np.bool_], int]:
    """Nodes, weights adding up to 1 and whether a node is settled (probes, steps), and the columns applied.

    All probes advance together, each by its own Lanczos recurrence, orthogonalised in full.
    """
    side = len(known)
    basis = np.zeros((probes, steps, side))
    diagonal, beside = np.zeros((probes, steps)), np.zeros((probes, steps))
    length, ended = np.full(probes, steps), np.zeros(probes, dtype=bool)
    current = rng.choice([-1.0, 1.0], size=(side, probes))
    for _ in range(2):
        current -= known @ (known.T @ current)
    current /= np.maximum(np.linalg.norm(current, axis=0), _TINY)
    norm, applied = 0.0, 0
    for step in range(steps):
        basis[:, step] = current.T
        product = np.array(apply(current.copy()), dtype=np.float64)
        applied += probes
        if product.shape != current.shape or not np.isfinite(product).all():
            raise SettingsError(
                f"Finite products of shape {current.shape} are needed, but {product.shape} or values that are not "
                "finite came; look at the rows."
            )
        norm = max(norm, float(np.linalg.norm(product, axis=0).max()))
        for _ in range(2):
            product -= known @ (known.T @ product)
            for one in range(probes):
                held = basis[one, : step + 1]
                inner = held @ product[:, one]
                product[:, one] -= inner @ held
                diagonal[one, step] += inner[-1]
        size = np.linalg.norm(product, axis=0)
        # What is left of a probe whose Krylov space is whole is rounding; it stands still from here.
        whole = size <= 1e-13 * norm * np.sqrt(side)
        length = np.where(whole & ~ended, step + 1, length)
        ended |= whole
        beside[:, step] = np.where(ended, 0, size)
        current = np.where(ended, 0, product / np.maximum(size, _TINY))
        if ended.all():
            break
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    settled = np.ones((probes, steps), dtype=bool)
    for one, count in enumerate(length):
        values, turn = scipy.linalg.eigh_tridiagonal(diagonal[one, :count], beside[one, : count - 1])
        nodes[one, :count], weights[one, :count] = values, np.square(turn[0])
        settled[one, :count] = beside[one, count - 1] * np.abs(turn[-1]) <= _SETTLED * np.abs(values)
    return nodes, weights, settled, applied


def _above(
    nodes: Matrix, weights: Matrix, settled: npt.NDArray[np.bool_], cut: float, at: Matrix
) -> tuple[Matrix, Matrix]:
    """Weight above each threshold and its doubt, both (probes, thresholds).

    A node that is settled is an eigenvalue. Any other stands for the eigenvalues about it: half of its weight lies
    evenly, on a logarithmic axis, between it and either neighbour, which keeps the distribution function in the middle
    of the bounds that Gauss quadrature sets it at the nodes (Chebyshev, Markov & Stieltjes). Between two nodes the
    bounds leave half the weight of both open.
    """
    out, doubt = np.zeros((len(nodes), len(at))), np.zeros((len(nodes), len(at)))
    # An eigenvalue that equals the threshold but for rounding is not above it.
    place = np.log(at) + _SAME
    for one in range(len(nodes)):
        held = np.flatnonzero((nodes[one] > cut) & (weights[one] > 0))
        if len(held) == 0:
            continue
        centre, weight = np.log(nodes[one][held]), weights[one][held]
        spread = ~settled[one][held]
        lower = np.where(spread, np.concatenate([centre[:1], centre[:-1]]), centre)
        upper = np.where(spread, np.concatenate([centre[1:], centre[-1:]]), centre)
        for low, high in ((lower, centre), (centre, upper)):
            width = high - low
            part = (high[:, None] - place) / np.where(width > 0, width, 1)[:, None]
            share = np.where(width[:, None] > 0, np.clip(part, 0, 1), high[:, None] > place)
            out[one] += weight / 2 @ share
        following = np.searchsorted(centre, place)
        open_weight = np.concatenate([[0.0], np.where(spread, weight / 2, 0), [0.0]])
        doubt[one] = open_weight[following] + open_weight[following + 1]
    return out, doubt


def _binned(
    nodes: Matrix, weights: Matrix, settled: npt.NDArray[np.bool_], cut: float, edges: Matrix
) -> tuple[Matrix, Matrix, Matrix]:
    """Mean, standard error and doubt of the weight in each bin (b,)."""
    above, doubt = _above(nodes, weights, settled, cut, 10**edges)
    inside = -np.diff(above, axis=1)
    open_ends = doubt.mean(axis=0)
    return inside.mean(axis=0), _errors(inside), open_ends[1:] + open_ends[:-1]


def _edges(nodes: Matrix, cut: float, per_decade: int) -> Matrix:
    """Edges (b + 1,) at whole fractions of a decade that hold all nodes above the cut; one edge where none is."""
    positive = nodes[nodes > cut]
    if len(positive) == 0:
        return np.zeros(1)
    # An eigenvalue on an edge lies in the bin below it, as in `_above`.
    low, high = (
        int(np.ceil((np.log(end) - _SAME) / np.log(10) * per_decade)) for end in (positive.min(), positive.max())
    )
    return np.arange(low - 1, high + 1) / per_decade


def _participation(trace: float, square: Estimate) -> Estimate:
    if square.value <= 0:
        return Estimate(0.0, 0.0)
    value = float(trace**2 / square.value)
    return Estimate(value, value * square.error / square.value)


def _entropy_rank(trace: float, log: Estimate) -> Estimate:
    """exp(-sum p log p) for p = w / trace, from the sum of w log w."""
    if trace <= 0:
        return Estimate(0.0, 0.0)
    value = float(np.exp(np.log(trace) - log.value / trace))
    return Estimate(value, value * log.error / trace)


def _xlogx(values: Matrix) -> Matrix:
    safe = np.maximum(values, _TINY)
    out: Matrix = np.where(values > 0, values * np.log(safe), 0.0)
    return out


def _mean(samples: Matrix) -> Estimate:
    return Estimate(float(samples.mean()), float(_errors(samples)))


def _errors(samples: Matrix) -> Matrix:
    """Standard errors of the mean over probes, the first axis."""
    out: Matrix = np.asarray(samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))
    return out


def _checked(
    side: int,
    trace: float,
    leading: Matrix | None,
    vectors: Matrix | None,
    probes: int,
    steps: int,
    per_decade: int,
    floor: float,
) -> tuple[Matrix, Matrix]:
    """Leading values (k,) and vectors (side, k), both possibly of none; SettingsError where they do not fit."""
    if side < 1 or probes < 2 or steps < 1 or per_decade < 1 or not 0 < floor < 1:
        raise SettingsError(
            "A spectrum needs at least one row, two probes (for their error), one step, one bin per decade and a floor "
            f"between 0 and 1, but side={side}, probes={probes}, steps={steps}, bins_per_decade={per_decade}, "
            f"floor={floor:g} came; change them."
        )
    if not (np.isfinite(trace) and trace >= 0):
        raise SettingsError(f"A trace that is finite and not negative is needed, but {trace:g} came; look at the rows.")
    values = np.zeros(0) if leading is None else np.asarray(leading, dtype=np.float64)
    known = np.zeros((side, 0)) if vectors is None else np.asarray(vectors, dtype=np.float64)
    if known.shape != (side, len(values)):
        raise SettingsError(
            f"Vectors of shape {(side, len(values))} are needed for {len(values)} leading eigenvalues, but "
            f"{known.shape} came; give both, of the same pairs."
        )
    return values, known
