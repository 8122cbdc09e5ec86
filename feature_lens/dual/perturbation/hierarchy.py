"""The trained function order by order in the network's higher derivatives, by following training in time.

With J, K, L the derivatives of f at theta0, the displacement is D1 + D2 + D3 + .. and the residual on the training set
e0 + e1 + e2 + .., each order linear in its own unknowns and driven by those before:

    D1' = -J^T e0                                            e0 = eps + J D1
    D2' = -(K[D1]^T e0 + J^T e1)                             e1 = J D2 + K[D1, D1] / 2
    D3' = -(K[D2]^T e0 + K[D1]^T e1 + L[D1, D1]^T e0 / 2 + J^T e2)
                                                             e2 = J D3 + K[D1, D2] + L[D1, D1, D1] / 6

For descent ' is the difference over one step, divided by it. Order k is of relative size 1 / width^k. Derived
independently; intended to be the expansion that PDLT (Roberts, Yaida and Hanin, arXiv:2106.10165), ch. infinity, takes
to order one; `reduced` leaves out the terms of second order in dNTK, as its closed form does.

Holds for the squared loss, the full batch, no momentum and no weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre
from scipy.special import roots_jacobi

from feature_lens.dual.perturbation.derivatives import Derivatives
from feature_lens.dual.perturbation.linearised import Linearised
from feature_lens.dual.perturbation.schedule import Schedule

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Displacement:
    """What training adds to theta0, in orders: D1, D2 and D3 (p,), and without terms of second order in dNTK: of D2
    the part D2a' = -K[D1]^T e0 that then drives the third order, and the D3 that follows."""

    first: Vector
    second: Vector
    third: Vector
    bare_second: Vector
    reduced_third: Vector

    def orders(self, points: Derivatives, *, reduced: bool = False) -> tuple[Vector, Vector, Vector]:
        """f at theta0 + J D1, e1, e2 at any points, (r,) each; their running sum predicts the trained function.
        `reduced` leaves terms of second order in dNTK out of e2. Cost: two chains for each of one, two, three
        directions."""
        d1, d2 = self.first, self.second
        bent, third = (self.bare_second, self.reduced_third) if reduced else (d2, self.third)
        return (
            points.value + points.along(d1),
            points.along(d2) + points.along(d1, d1) / 2,
            points.along(third) + points.along(d1, bent) + points.along(d1, d1, d1) / 6,
        )

    def squared(self, points: Derivatives) -> Vector:
        """What terms of second order in dNTK add to e2 (r,): the whole less the reduced one, by two chains."""
        return points.along(self.third - self.reduced_third) + points.along(self.first, self.second - self.bare_second)


def displacement(start: Linearised, training: Schedule, *, stages: int = 10) -> Displacement:
    """The displacement after T, in three orders. Raises SettingsError for what `Linearised.check` refuses.

    Descent takes T steps of 14 chains of derivatives each. A flow takes implicit Runge-Kutta steps (Radau IIA of order
    2 stages - 1) whose lengths double, whatever the kernel's condition: stages (2 + log2(h T)) points in time of 17
    chains, h the largest eigenvalue; 10 stages agree with the explicit formula to 1e-12, 5 to about 1e-6. Memory: 8
    vectors of length p + r for every stage of a flow, 8 for descent, beside the kernel's eigenvectors, r^2.
    """
    start.check(training)
    return _flow(start, training, stages) if training.is_flow else _descent(start, training)


@dataclass
class _State:
    """Displacements so far, by the names of `Displacement`."""

    second: Vector
    bare: Vector
    third: Vector
    reduced: Vector


@dataclass(frozen=True)
class _Driving:
    """What drives the third order at one time, on the parameters (p,) and on the residual (r,), both ways."""

    force: Vector
    bend: Vector
    reduced_force: Vector
    reduced_bend: Vector


def _driving(on: Derivatives, d1: Vector, d2: Vector, bare: Vector, e0: Vector, e1: Vector) -> _Driving:
    turned, cubed = on.gradient_along(e0, d1, d1) / 2, on.along(d1, d1, d1) / 6
    return _Driving(
        turned + on.gradient_along(e0, d2) + on.gradient_along(e1, d1),
        cubed + on.along(d1, d2),
        turned + on.gradient_along(e0, bare),
        cubed + on.along(d1, bare),
    )


def _descent(start: Linearised, training: Schedule) -> Displacement:
    on, step = start.on, training.step
    state = _State(*np.zeros((4, on.p)))
    for t in range(int(training.finite(start.rates))):
        e0, d1 = start.left(training, t), start.displacement(training, t)
        e1 = on.along(state.second) + on.along(d1, d1) / 2
        bare = on.gradient_along(e0, d1)
        driving = _driving(on, d1, state.second, state.bare, e0, e1)
        e2, reduced_e2 = on.along(state.third) + driving.bend, on.along(state.reduced) + driving.reduced_bend
        state.third = state.third - step * (driving.force + on.gradient_along(e2))
        state.reduced = state.reduced - step * (driving.reduced_force + on.gradient_along(reduced_e2))
        state.second = state.second - step * (bare + on.gradient_along(e1))
        state.bare = state.bare - step * bare
    return Displacement(start.displacement(training), state.second, state.third, state.bare, state.reduced)


def _flow(start: Linearised, training: Schedule, stages: int) -> Displacement:
    on, solver = start.on, _Radau(start, stages)
    state = _State(*np.zeros((4, on.p)))
    for first, length in _intervals(training.finite(start.rates), float(start.rates[-1])):
        times = first + length * solver.nodes
        e0 = [start.left(training, t) for t in times]
        d1 = [start.displacement(training, t) for t in times]
        bare_force = [on.gradient_along(e, d) for e, d in zip(e0, d1, strict=True)]
        bend = [on.along(d, d) / 2 for d in d1]
        d2, e1 = solver.solve(state.second, length, bare_force, bend)
        bare = solver.advance(state.bare, length, bare_force)
        driving = [_driving(on, *at) for at in zip(d1, d2, bare, e0, e1, strict=True)]
        d3, _ = solver.solve(state.third, length, [at.force for at in driving], [at.bend for at in driving])
        reduced, _ = solver.solve(
            state.reduced, length, [at.reduced_force for at in driving], [at.reduced_bend for at in driving]
        )
        state = _State(d2[-1], bare[-1], d3[-1], reduced[-1])
    return Displacement(start.displacement(training), state.second, state.third, state.bare, state.reduced)


def _intervals(time: float, fastest: float) -> Iterator[tuple[float, float]]:
    """Starts and lengths of intervals that fill [0, T]: the first is 1 / h, each as long as all before it together."""
    first, length = 0.0, 1 / fastest if fastest else time
    while first < time:
        length = min(max(first, length), time - first)
        yield first, length
        first += length


class _Radau:
    """Collocation at the nodes of Radau's quadrature: D' = -(force + J^T e), e = J D + bend, at all nodes at once.

    In the eigenbasis of H = J J^T the equations for e fall apart into one of the size of the nodes for each mode, so
    modes that are long gone put no limit on an interval.
    """

    def __init__(self, start: Linearised, stages: int) -> None:
        self._start = start
        self.nodes = np.append((roots_jacobi(stages - 1, 1, 0)[0] + 1) / 2, 1.0)
        # Integrals of the polynomials that are one at a node and zero at the others, up to each node.
        inner = legendre.legvander(2 * self.nodes - 1, stages - 1)
        whole = [legendre.legint(unit, lbnd=-1, scl=0.5) for unit in np.eye(stages)]
        self._up_to = np.stack([legendre.legval(2 * self.nodes - 1, one) for one in whole], axis=1) @ np.linalg.inv(
            inner
        )

    def advance(self, value: Vector, length: float, force: list[Vector]) -> list[Vector]:
        """value - the integral of force up to each node."""
        return [value - length * sum(a * one for a, one in zip(row, force, strict=True)) for row in self._up_to]

    def solve(
        self, value: Vector, length: float, force: list[Vector], bend: list[Vector]
    ) -> tuple[list[Vector], list[Vector]]:
        """D and e at every node, from D at the start of the interval."""
        on, modes, rates = self._start.on, self._start.modes, self._start.rates
        moved = self.advance(value, length, force)
        known = np.stack([on.along(d) + b for d, b in zip(moved, bend, strict=True)])
        along = known @ modes
        system = np.eye(len(self.nodes)) + length * rates[:, None, None] * self._up_to
        # What lies outside the kernel's range is not answered.
        residual = known + (np.linalg.solve(system, along.T[:, :, None])[:, :, 0].T - along) @ modes.T
        whole = [f + on.gradient_along(e) for f, e in zip(force, residual, strict=True)]
        return self.advance(value, length, whole), list(residual)
