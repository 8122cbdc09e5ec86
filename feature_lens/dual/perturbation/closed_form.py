"""The trained function in closed form, to next-to-leading order in 1 / width.

In the eigenbasis (h_a, e_a) of the initial kernel, eps_a = e_a . (f(A; theta0) - y), summed over repeated modes,

    f_d = f_d(0) - H_da b_a eps_a
          + P[dH_{a1 d a2}] Z_A eps eps + P[dH_{d a1 a2}] Z_B eps eps                            "next"
          + P[ddI_{a1 d a2 a3}] Z_IA eps^3 + P[ddI_{d a1 a2 a3}] Z_IB eps^3
          + P[ddII_{a1 a2 d a3}] Z_IIA eps^3 + P[ddII_{d a1 a2 a3}] Z_IIB eps^3                  "second"

with the differentials of the kernel dH, ddI and ddII named in this package, Z of `coefficients`, and P what is left after the
training points have answered: at T = infinity X_d - H_dA H^-1 X_A, so that they stay interpolated, and before it the
answer of every mode up to then. The algorithm, flow or descent with its step, enters through Z alone.

Derived independently; intended to correspond to eq. (infinity.154) of Roberts, Yaida and Hanin, The Principles of Deep
Learning Theory, arXiv:2106.10165. dNTK and ddNTK are both of relative order 1 / width; terms in dNTK^2, of order
1 / width^2, are left out here and present in `hierarchy`. Holds for the squared loss, the full batch, no momentum and
no weight decay, about theta0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg.interpolative import interp_decomp

from feature_lens.dual.perturbation import coefficients as z
from feature_lens.dual.perturbation.coefficients import Term, coefficients, responses
from feature_lens.dual.perturbation.derivatives import Derivatives
from feature_lens.dual.perturbation.linearised import Linearised
from feature_lens.dual.perturbation.schedule import Schedule

Array = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]
# Directions along which f is derived.
Product = tuple[Vector, ...]
Pair = tuple[Vector, Vector]

# Below this share of the largest a singular value of coefficients is rounding.
_ROUNDING: Final = 1e-15
# Times, evenly spaced in their logarithm, at which modes are compared.
_TIMES: Final = 240


@dataclass(frozen=True)
class ClosedForm:
    """f at theta0 + J D1 ("leading"), the terms in dNTK and those in ddNTK, (r,) each, on the
    points asked for; the running sum predicts the trained function. `modes` is the number of modes summed over."""

    leading: Vector
    dntk: Vector
    ddntk: Vector
    modes: int

    @property
    def prediction(self) -> Vector:
        """All terms together: to next-to-leading order in 1 / width."""
        return self.leading + self.dntk + self.ddntk


def closed_form(start: Linearised, points: Derivatives, training: Schedule, *, tolerance: float = 0.0) -> ClosedForm:
    """Evaluate the formula on any points. Raises SettingsError for what `Linearised.check` refuses.

    tolerance: 0 sums over every mode of the kernel. Above 0 modes of like rates are merged: as many are kept, R, as
    reproduce the decay of all modes at all times to this share, some 20 to 30 of any number for 1e-10.

    Cost, chains of derivatives of the training set: at most R^2 along three directions and 2 R^2 along two for
    T = infinity, and about R on the points; for a finite T as many again for each of the R modes that answer. R^3
    coefficients, R vectors of length p, and the kernel's eigenvectors, r^2.
    """
    start.check(training)
    kept, shares = _representatives(start.rates, training, tolerance)
    rows = start.modes @ (shares * (start.modes.T @ start.residual)[:, None])
    rates = start.rates[kept]
    if len(start.rates) < start.on.r:  # what no mode reaches stays, and turns the features of the others
        rows, rates = np.append(rows, start.outside[:, None], axis=1), np.append(rates, 0.0)
    modes = _Modes.of(start.on, rates, rows, max(_ROUNDING, tolerance / 10))
    moved = start.displacement(training)
    found = [_answered(start, points, training, modes, shares, order) for order in (_next, _second)]
    return ClosedForm(points.value + points.along(moved), found[0], found[1], len(kept))


def _representatives(rates: Array, training: Schedule, tolerance: float) -> tuple[npt.NDArray[np.int64], Array]:
    """Modes whose decay, with shares (r, R), stands for that of all: exp(-h t) is the sum of shares * exp(-h_R t)."""
    r = len(rates)
    if tolerance <= 0:
        return np.arange(r), np.eye(r)
    last = training.finite(rates)
    times = np.unique(np.append(0.0, np.geomspace(min(0.01 / rates[-1], last), last, _TIMES)))
    if not training.is_flow:
        times = np.unique(np.round(np.append(np.arange(min(last, 64)), np.geomspace(1, max(last, 1), _TIMES))))
    decays = np.stack([training.left(rates, time) for time in times])
    count, order, rest = interp_decomp(decays, tolerance, rand=False)  # type: ignore[misc]  # stubs know ranks only
    if count >= r:
        return np.arange(r), np.eye(r)
    shares = np.zeros((r, count))
    shares[order[:count], np.arange(count)] = 1.0
    shares[order[count:]] = rest.T
    return order[:count].astype(np.int64), shares


def _answered(
    start: Linearised, points: Derivatives, training: Schedule, modes: _Modes, shares: Array, order: Order
) -> Vector:
    """The terms of one order on the points, less what the training points' answer to them adds there."""
    products = order(modes, partial(coefficients, rates=modes.rates, training=training))
    if training.ends:
        answer = np.zeros(len(start.rates))
        for rate, share in zip(modes.rates, shares.T, strict=False):  # what lies outside does not answer
            undone = order(modes, partial(responses, rates=modes.rates, training=training, answering=rate))
            answer += share * (start.modes.T @ _along(start.on, undone))
    else:
        answer = start.modes.T @ _along(start.on, products) / start.rates
    return _along(points, products) - points.along(start.on.gradient_along(start.modes @ answer))


def _along(points: Derivatives, products: Sequence[Product]) -> Vector:
    total: Vector = np.sum([points.along(*directions) for directions in products], axis=0)
    return total


@dataclass(frozen=True)
class _Modes:
    """Modes with their part of the residual: rates (R,), unit rows (r, R) and gradients J^T rows (p, R), and the sizes
    that both had, which go into the coefficients so that their rounding is that of what they multiply."""

    on: Derivatives
    rates: Array
    rows: Array
    gradients: Array
    row_sizes: Array
    gradient_sizes: Array
    rounding: float

    @classmethod
    def of(cls, on: Derivatives, rates: Array, rows: Array, rounding: float) -> _Modes:
        gradients = np.stack([on.gradient_along(row) for row in rows.T], axis=1)
        sizes = [np.linalg.norm(one, axis=0) for one in (rows, gradients)]
        safe = [np.where(size > 0, size, 1.0) for size in sizes]
        return cls(on, rates, rows / safe[0], gradients / safe[1], sizes[0], sizes[1], rounding)

    def weighted(self, tensor: Array, slots: str) -> Array:
        """Coefficients times the sizes in their slots, "u" of rows and "g" of gradients."""
        for axis, slot in enumerate(slots):
            sizes = self.row_sizes if slot == "u" else self.gradient_sizes
            tensor = tensor * sizes.reshape([-1 if place == axis else 1 for place in range(tensor.ndim)])
        return tensor

    def pairs(self, matrix: Array, size: float | None = None) -> list[Pair]:
        """A matrix of coefficients as a sum of products, as few as rounding allows, relative to `size` or its own."""
        left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
        floor = self.rounding * (sizes[0] if size is None else size)
        return [(left[:, place], sizes[place] * right[place]) for place in np.flatnonzero(sizes > floor)]

    def split(self, tensor: Array, axis: int) -> Iterator[tuple[Vector, list[Pair]]]:
        """The same with three slots: a vector over one of them, and products over the others."""
        others = [size for place, size in enumerate(tensor.shape) if place != axis]
        unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
        size = float(np.linalg.norm(unfolded, 2))
        for one, rest in self.pairs(unfolded):
            yield one, self.pairs(rest.reshape(others), size)


Coefficients = Callable[[Sequence[Term]], Array]
Order = Callable[[_Modes, Coefficients], list[Product]]


def _next(modes: _Modes, of: Coefficients) -> list[Product]:
    """P[..] of dH: directions whose derivatives of f add up to X_d Z eps eps."""
    turned = _turned(modes, modes.pairs(modes.weighted(of(z.Z_A), "ug")))
    bent = [(modes.gradients @ g, modes.gradients @ h) for g, h in modes.pairs(modes.weighted(of(z.Z_B), "gg"))]
    return [(turned,), *bent]


def _second(modes: _Modes, of: Coefficients) -> list[Product]:
    """The same of ddI and ddII, with eps^3."""
    on, rows, gradients = modes.on, modes.rows, modes.gradients
    turned = np.zeros(on.p)
    for g, rest in modes.split(modes.weighted(of(z.Z_IA), "ugg"), 2):
        for u, h in rest:
            turned += on.gradient_along(rows @ u, gradients @ g, gradients @ h)
    for u, rest in modes.split(modes.weighted(of(z.Z_IIA), "uug"), 0):
        turned += on.gradient_along(rows @ u, _turned(modes, rest))
    products: list[Product] = [(turned,)]
    for g, rest in modes.split(modes.weighted(of(z.Z_IB), "ggg"), 0):
        products += [(gradients @ g, gradients @ h, gradients @ k) for h, k in rest]
    for g, rest in modes.split(modes.weighted(of(z.Z_IIB), "ugg"), 1):
        products.append((gradients @ g, _turned(modes, rest)))
    return products


def _turned(modes: _Modes, pairs: list[Pair]) -> Vector:
    """Sum of psi[u] g."""
    total = np.zeros(modes.on.p)
    for u, g in pairs:
        total += modes.on.gradient_along(modes.rows @ u, modes.gradients @ g)
    return total
