"""Zeros of piecewise polynomials: where along a line a piecewise-linear network changes its piece."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import comb

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
# places (b, m) -> values of one call (b, m, units)
Evaluate = Callable[[Array], Array]
# Pieces narrower than this are taken for one place.
_NARROW = 1e-14


def crossings(evaluate: Evaluate, edges: Array, degree: int) -> list[Array]:
    """Zeros within (0, 1), example by example, of functions that are polynomials on every piece between `edges`.

    edges (b, m + 1): rising from 0 to 1, equal ones for pieces that are not there. evaluate: the functions at places
    (b, m) that belong to the examples. Cost: degree + 1 evaluations of every piece, and roots where the signs of a
    polynomial's Bernstein coefficients differ.
    """
    nodes = _nodes(degree)
    left, width = edges[:, :-1], np.diff(edges, axis=1)
    places = left[:, :, None] + width[:, :, None] * nodes
    b, m = left.shape
    values = evaluate(places.reshape(b, -1)).reshape(b, m, degree + 1, -1)
    bernstein = np.einsum("dk,bmku->bmud", _to_bernstein(degree), values)
    crossing = (bernstein.min(axis=3) < 0) & (bernstein.max(axis=3) > 0) & (width > _NARROW)[:, :, None]
    example, piece, unit = np.nonzero(crossing)
    roots = _roots(bernstein[example, piece, unit])
    found = left[example, piece, None] + width[example, piece, None] * roots
    return [found[example == one][np.isfinite(found[example == one])] for one in range(b)]


def refined(edges: Array, found: list[Array]) -> Array:
    """The edges with more of them in between, as many for every example; the last is repeated where there are fewer."""
    rows = [np.unique(np.concatenate([own, more])) for own, more in zip(edges, found, strict=True)]
    longest = max(len(row) for row in rows)
    return np.stack([np.concatenate([row, np.ones(longest - len(row))]) for row in rows])


def _nodes(degree: int) -> Array:
    """Chebyshev nodes of a piece, in (0, 1)."""
    return np.asarray((1 - np.cos((2 * np.arange(degree + 1) + 1) * np.pi / (2 * degree + 2))) / 2)


@cache
def _to_bernstein(degree: int) -> Array:
    """Matrix from values at the nodes to Bernstein coefficients on (0, 1)."""
    t = _nodes(degree)
    basis = np.stack([comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)], axis=1)
    return np.asarray(np.linalg.inv(basis), dtype=np.float64)


@cache
def _to_powers(degree: int) -> Array:
    """Matrix from Bernstein coefficients to those of 1, t, t^2 .."""
    made = np.zeros((degree + 1, degree + 1))
    for k in range(degree + 1):
        for power in range(k, degree + 1):
            made[power, k] = comb(degree, k) * comb(degree - k, power - k) * (-1) ** (power - k)
    return made


def _roots(bernstein: Array) -> Array:
    """Roots in (0, 1) of polynomials (j, degree + 1), NaN where there are fewer than the degree: (j, degree)."""
    degree = bernstein.shape[1] - 1
    powers = bernstein @ _to_powers(degree).T
    if degree == 1:
        roots = -powers[:, :1] / powers[:, 1:]
    elif degree == 2:
        roots = _of_quadratics(powers)
    else:
        roots = _of_companions(powers)
    return np.where((roots > 0) & (roots < 1), roots, np.nan)


def _of_quadratics(powers: Array) -> Array:
    """Both roots without cancellation; a vanishing leading coefficient gives one of them."""
    c, b, a = powers.T
    with np.errstate(all="ignore"):
        turned = -(b + np.copysign(np.sqrt(b * b - 4 * a * c), b)) / 2
        return np.stack([turned / a, c / turned], axis=1)


def _of_companions(powers: Array) -> Array:
    """Real parts of the roots that are real to rounding, polished by Newton's steps."""
    degree = powers.shape[1] - 1
    # Of the reversed polynomial, whose leading coefficient p(0) is not small where p has no root at 0.
    lead = np.where(powers[:, :1] == 0, np.finfo(np.float64).tiny, powers[:, :1])
    companion = np.zeros((len(powers), degree, degree))
    companion[:, 0] = -powers[:, 1:] / lead
    companion[:, np.arange(1, degree), np.arange(degree - 1)] = 1
    inverse = np.linalg.eigvals(companion)
    with np.errstate(all="ignore"):
        roots = 1 / inverse
    real = np.where(np.abs(roots.imag) < 1e-6 * (1 + np.abs(roots.real)), roots.real, np.nan)
    return _polished(powers, real)


def _polished(powers: Array, roots: Array) -> Array:
    degree = powers.shape[1] - 1
    slopes = powers[:, 1:] * np.arange(1, degree + 1)
    with np.errstate(all="ignore"):
        for _ in range(3):
            step = _horner(powers, roots) / _horner(slopes, roots)
            roots = np.where(np.isfinite(step) & (np.abs(step) < 0.1), roots - step, roots)
    return roots


def _horner(powers: Array, t: Array) -> Array:
    value = np.zeros_like(t)
    for coefficient in powers.T[::-1]:
        value = value * t + coefficient[:, None]
    return value
