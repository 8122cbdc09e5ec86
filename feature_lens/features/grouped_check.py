"""Whether factors that are computed together give what each of them gives alone: tried when a design is prepared.

Pieces are grouped by the identity of their gradients. One random column of J v and one of J J^T u, both by the grouped
products, and the kernel times u, are compared with sums over single pieces, which are held against autograd by
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.cards import ParameterTable
from feature_lens.features.gathered import Gathered
from feature_lens.features.jacobian import AGREEMENT
from feature_lens.features.kernels import KernelRequest, KernelWork
from feature_lens.features.pieces import Piece, lengths, over_rows, product
from feature_lens.features.plan import Plan
from feature_lens.features.products import Products
from feature_lens.features.reductions import Reduction

Array = npt.NDArray[Any]
# Rows of the kernel that is tried.
_ROWS = 256


@dataclass(frozen=True)
class Few:
    """A few examples, gathered, in the form in which kernels are computed of many."""

    examples: range
    reduction: Reduction
    parameters: ParameterTable
    held: Gathered
    planned: Plan
    dtype: np.dtype[Any]
    tile_bytes: int = 0
    memory: int = 1 << 62  # a few examples are taken at once, whatever is allowed for many

    def plan(self, n: int | None = None) -> Plan:
        """The plan of many examples."""
        del n
        return self.planned

    def gathered(self, first: int, stop: int, plan: Plan) -> Gathered:
        """All of them, which are few enough to be taken at once."""
        if (first, stop) != (0, len(self.examples)) or plan is not self.planned:
            raise RuntimeError("a few examples are gathered all at once")
        return self.held


def grouped_differ(few: Sequence[Piece], plan: Plan, parameters: ParameterTable, reduction: Reduction) -> bool:
    """Whether grouped products of a few examples differ from sums over their pieces, which is not known where products
    are beyond the precision. Cost: a kernel of 256 rows."""
    q = plan.rows
    factor = few[0].factor.values if hasattr(few[0].factor, "values") else few[0].factor.g
    m = max(1, min(len(factor), _ROWS // q))
    pieces = [piece.take(slice(0, m)) for piece in few]
    dtype = np.dtype(str(factor.dtype).removeprefix("torch."))
    squares = sum(float(lengths(piece).square().sum()) for piece in pieces)
    if not squares * len(pieces) < np.finfo(dtype).max / 1e6:
        return False
    rates = dict(zip(parameters.names, parameters.learning_rates, strict=True))
    held = Gathered.room(plan, pieces, m, rates, dtype)
    held.put(plan, pieces, 0, m)
    products = Products(held, dict(parameters.slices), parameters.total, plan.joined, 1)
    blocks = q if plan.joined else 1
    rng = np.random.default_rng(0)
    v = rng.standard_normal((blocks * parameters.total, 1)).astype(dtype)
    u = rng.standard_normal((m * (1 if plan.joined else q), 1)).astype(dtype)
    wanted = _rows_times(pieces, v[:, 0], parameters, rates, m, q, plan.joined)
    transposed = _times_rows(pieces, u[:, 0], parameters, rates, m, q, plan.joined)
    both = _rows_times(pieces, transposed, parameters, rates, m, q, plan.joined)
    work = KernelWork(Few(range(m), reduction, parameters, held, plan, dtype), None, KernelRequest(), 1)
    kernel = np.empty(work.shape, dtype)
    work.run({"": kernel})
    tolerance = AGREEMENT[factor.dtype]
    return not (
        _agree(products.matmul(v)[:, 0], wanted, tolerance)
        and _agree(products.rmatmul(u)[:, 0], transposed, tolerance)
        and _agree(products.matmul(products.rmatmul(u))[:, 0], both, tolerance)
        and _agree((kernel @ u)[:, 0], both, tolerance)
    )


def _rows_times(
    pieces: Sequence[Piece], v: Array, parameters: ParameterTable, rates: dict[str, float], m: int, q: int, joined: bool
) -> Array:
    """Phi v, (rows,), piece by piece."""
    slices, total = dict(parameters.slices), np.zeros((m, q))
    blocks = v.reshape(-1, parameters.total)
    for piece in pieces:
        for block, part in enumerate(blocks):
            share = product(piece, torch.from_numpy(np.ascontiguousarray(part[slices[piece.name]])))
            own = share.numpy().astype(np.float64) * np.sqrt(rates[piece.name])
            if joined:
                total[:, block] += own[:, block]
            else:
                total += own
    return total.sum(axis=1) if joined else total.ravel()


def _times_rows(
    pieces: Sequence[Piece], u: Array, parameters: ParameterTable, rates: dict[str, float], m: int, q: int, joined: bool
) -> Array:
    """Phi^T u, (columns,), piece by piece."""
    slices = dict(parameters.slices)
    total = np.zeros((q if joined else 1, parameters.total), dtype=u.dtype)
    for block in range(len(total)):
        weights = np.zeros((m, q), dtype=u.dtype)
        if joined:
            weights[:, block] = u
        else:
            weights = u.reshape(m, q)
        for piece in pieces:
            at = slices[piece.name]
            made = over_rows([piece], torch.from_numpy(weights), at.stop - at.start).numpy()
            total[block, at] += made * np.sqrt(rates[piece.name]).astype(u.dtype)
    return total.ravel()


def _agree(found: Array, wanted: Array, tolerance: float) -> bool:
    size = float(np.abs(np.nan_to_num(wanted, posinf=0, neginf=0)).max(initial=0))
    return bool(np.allclose(found, wanted, rtol=tolerance, atol=tolerance * size, equal_nan=True))
