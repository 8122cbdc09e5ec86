"""Whether factors that are computed together give what each of them gives alone: tried when a design is prepared.

Pieces are grouped by the identity of their gradients. One random column of J v and one of J J^T u, both by the grouped
products, and the kernel times u, are compared with sums over single pieces, which are held against autograd by
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from feature_lens.features.rules import Dense

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
    are beyond the precision. Rows of several outputs are tried apart, and joined in the kernel alone.

    Cost: kernels of 256 rows, or of one example where that has more, and a few numbers for each parameter.
    """
    if not few:
        return False  # tensors that the network never uses have no gradients to group
    q = plan.rows
    factor = few[0].factor.values if isinstance(few[0].factor, Dense) else few[0].factor.g
    m = max(1, min(len(factor), _ROWS // q))
    pieces = [piece.take(slice(0, m)) for piece in few]
    dtype = np.dtype(str(factor.dtype).removeprefix("torch."))
    squares = sum(float(lengths(piece).square().sum()) for piece in pieces)
    if not squares * len(pieces) < np.finfo(dtype).max / 1e6:
        return False
    rates = dict(zip(parameters.names, parameters.learning_rates, strict=True))
    held = Gathered.room(plan, pieces, m, rates, dtype)
    held.put(plan, pieces, 0, m)
    products = Products(held, dict(parameters.slices), parameters.total, False, 1)
    rng = np.random.default_rng(0)
    v, u = (rng.standard_normal((size, 1)).astype(dtype) for size in (parameters.total, m * q))
    back = _times_rows(pieces, u, parameters, rates)
    both = _rows_times(pieces, back, parameters, rates)
    apart = replace(plan, joined=False), replace(reduction, joined=False)
    kernel = _kernel(Few(range(m), apart[1], parameters, held, apart[0], dtype))
    right = [
        (products.matmul(v), _rows_times(pieces, v, parameters, rates)),
        (products.rmatmul(u), back),
        (products.matmul(products.rmatmul(u)), both),
        (kernel @ u, both),
    ]
    if plan.joined:
        joined = _kernel(Few(range(m), reduction, parameters, held, plan, dtype))
        right.append((joined, np.einsum("iqjq->ij", kernel.reshape(m, q, m, q))))
    return not all(_agree(found, wanted, AGREEMENT[factor.dtype]) for found, wanted in right)


def _kernel(few: Few) -> Array:
    work = KernelWork(few, None, KernelRequest(), 1)
    kernel = np.empty(work.shape, few.dtype)
    work.run({"": kernel})
    return kernel


def _rows_times(pieces: Sequence[Piece], v: Array, parameters: ParameterTable, rates: Mapping[str, float]) -> Array:
    """Phi v, (rows, 1), piece by piece, of rows that are apart."""
    slices = dict(parameters.slices)
    shares = [
        product(piece, torch.from_numpy(np.ascontiguousarray(v[slices[piece.name], 0]))).numpy()
        * np.sqrt(rates[piece.name]).astype(v.dtype)
        for piece in pieces
    ]
    total: Array = np.sum(shares, axis=0).reshape(-1, 1)
    return total


def _times_rows(pieces: Sequence[Piece], u: Array, parameters: ParameterTable, rates: Mapping[str, float]) -> Array:
    """Phi^T u, (columns, 1), piece by piece, of rows that are apart."""
    total = np.zeros((parameters.total, 1), dtype=u.dtype)
    slices = dict(parameters.slices)
    for piece in pieces:
        weights = torch.from_numpy(u.reshape(piece.n_examples, -1))
        at = slices[piece.name]
        made = over_rows([piece], weights, at.stop - at.start).numpy()
        total[at, 0] += made * np.sqrt(rates[piece.name]).astype(u.dtype)
    return total


def _agree(found: Array, wanted: Array, tolerance: float) -> bool:
    size = float(np.abs(np.nan_to_num(wanted, posinf=0, neginf=0)).max(initial=0))
    return bool(np.allclose(found, wanted, rtol=tolerance, atol=tolerance * size, equal_nan=True))
