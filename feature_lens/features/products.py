"""Products of the design matrix with vectors, from factors held in memory: never more than p k + r k numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.features.gathered import Gathered, Inputs, Pairs
from feature_lens.features.work import run_all

Array = npt.NDArray[Any]

# Columns that one piece of work takes: fixed, so that the number of workers shapes no rounding.
_COLUMNS = 8


class Products:
    """Phi v, Phi^T u and the diagonal of Phi Phi^T for gathered examples.

    For a linear layer used once Phi v is g . (a V): n i o k + r o k multiply-adds instead of the r i o k of a dense
    product, and Phi^T u costs the same. `slices` says where each tensor is among the p columns; `joined` rows have
    q p columns, one block of p per output.
    """

    def __init__(self, held: Gathered, slices: dict[str, slice], p: int, joined: bool, workers: int | None) -> None:
        self._held, self._slices, self._p, self._joined, self._workers = held, slices, p, joined, workers
        # Outputs that are apart in the rows, and those that are apart in the columns.
        self._q, self._blocks = (1, held.q) if joined else (held.q, 1)

    def matmul(self, v: Array) -> Array:
        """(columns, k) -> (n q, k)."""
        held, dtype = self._held, self._held.matrix.dtype
        out = np.empty((held.n, self._q, v.shape[1]), dtype=dtype)

        def columns(at: slice) -> Callable[[], None]:
            return lambda: self._forward(np.ascontiguousarray(v[:, at], dtype=dtype), out[:, :, at])

        run_all([columns(at) for at in _chunks(v.shape[1])], self._workers)
        return out.reshape(-1, v.shape[1])

    def rmatmul(self, u: Array) -> Array:
        """(n q, k) -> (columns, k)."""
        held, dtype = self._held, self._held.matrix.dtype
        k = u.shape[1]
        out = np.zeros((self._blocks * self._p, k), dtype=dtype)
        given = u.reshape(held.n, self._q, k)

        def columns(at: slice) -> Callable[[], None]:
            return lambda: self._backward(np.ascontiguousarray(given[:, :, at], dtype=dtype), out[:, at])

        run_all([columns(at) for at in _chunks(k)], self._workers)
        return out

    def diagonal(self) -> npt.NDArray[np.float64]:
        """(n, q) squares of the rows, accumulated in float64; (n, 1) for joined rows."""
        held = self._held
        total = np.einsum("nqm,nqm->nq", held.matrix, held.matrix, dtype=np.float64)
        for pairs in held.pairs:
            live = pairs.positions()
            shape = (held.n, held.q, pairs.n_out)
            for place, t in enumerate(live):
                for s in live[place:]:
                    g = np.einsum("nqo,nqo->nq", pairs.g[t].reshape(shape), pairs.g[s].reshape(shape), dtype=np.float64)
                    scale: Any = 0.0
                    for inputs in pairs.inputs:
                        scale = scale + inputs.dots(t, s)
                    total += (1 if t == s else 2) * g * np.reshape(scale, (-1, 1))
        found: npt.NDArray[np.float64] = total.sum(axis=1, keepdims=True) if self._joined else total
        return found

    def _forward(self, v: Array, out: Array) -> None:
        held, k = self._held, v.shape[1]
        out[...] = 0
        by_block = v.reshape(self._blocks, self._p, k)
        for rows in held.rows:
            own = by_block[:, self._slices[rows.name]]
            own = own if rows.entries is None else own[:, rows.entries]
            matrix = held.matrix[:, :, rows.columns]
            if self._joined:
                out[:, 0] += np.einsum("nqm,qmk->nk", matrix, own, optimize=True)
            else:
                out += matrix @ own[0]
        for pairs in held.pairs:
            places = [self._of(inputs, by_block, pairs) for inputs in pairs.inputs]
            for t in pairs.positions():
                z: Any = 0
                for inputs, own in zip(pairs.inputs, places, strict=True):
                    z = z + inputs.apply(t, own)
                out += pairs.g[t].reshape(held.n, self._q, -1) @ z

    def _of(self, inputs: Inputs, by_block: Array, pairs: Pairs) -> Array:
        """A tensor's part of v, times sqrt(lambda): (i, blocks * o, k)."""
        own = by_block[:, self._slices[inputs.name]]
        own = own if inputs.entries is None else own[:, inputs.entries]
        own = own.reshape(self._blocks, pairs.n_out, inputs.n_in, -1).transpose(2, 0, 1, 3)
        made = own.reshape(inputs.n_in, self._blocks * pairs.n_out, -1)
        return made if inputs.rate == 1 else made * np.sqrt(inputs.rate).astype(made.dtype)

    def _backward(self, u: Array, out: Array) -> None:
        held, k = self._held, u.shape[2]
        by_block = out.reshape(self._blocks, self._p, k)
        for rows in held.rows:
            matrix = held.matrix[:, :, rows.columns]
            if self._joined:
                own = np.einsum("nqm,nk->qmk", matrix, u[:, 0], optimize=True)
            else:
                own = (matrix.reshape(held.n * self._q, -1).T @ u.reshape(-1, k))[None]
            _add(by_block, self._slices[rows.name], rows.entries, own)
        for pairs in held.pairs:
            width = self._blocks * pairs.n_out
            totals = [np.zeros((inputs.n_in, width, k), dtype=u.dtype) for inputs in pairs.inputs]
            for t in pairs.positions():
                w = pairs.g[t].reshape(held.n, self._q, -1).transpose(0, 2, 1) @ u
                for inputs, total in zip(pairs.inputs, totals, strict=True):
                    total += inputs.collect(t, w)
            for inputs, total in zip(pairs.inputs, totals, strict=True):
                own = total.reshape(inputs.n_in, self._blocks, pairs.n_out, k).transpose(1, 2, 0, 3)
                own = own.reshape(self._blocks, -1, k)
                own = own if inputs.rate == 1 else own * np.sqrt(inputs.rate).astype(u.dtype)
                _add(by_block, self._slices[inputs.name], inputs.entries, own)


def _add(by_block: Array, at: slice, entries: Array | None, own: Array) -> None:
    if entries is None:
        by_block[:, at] += own
    else:
        by_block[:, at.start + entries] += own


def _chunks(k: int) -> list[slice]:
    return [slice(first, min(first + _COLUMNS, k)) for first in range(0, k, _COLUMNS)]
