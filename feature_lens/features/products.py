"""Products of the design matrix with vectors, from factors held in memory: never more than p k + r k numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.features.design import one_thread
from feature_lens.features.gathered import Gathered, Inputs, Pairs, Rows
from feature_lens.features.work import run_all

Array = npt.NDArray[Any]

# Output units that one piece of work takes: fixed, so that the number of workers shapes no rounding.
_UNITS = 64
Task = Callable[[], None]


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
        held, k = self._held, v.shape[1]
        given = np.ascontiguousarray(v, dtype=held.matrix.dtype).reshape(self._blocks, self._p, k)
        tasks: list[Task] = []
        parts: list[Array] = []

        def part(compute: Callable[[Array], None]) -> None:
            parts.append(np.empty(0))
            place = len(parts) - 1

            def task() -> None:
                parts[place] = np.zeros((held.n, self._q, k), dtype=given.dtype)
                compute(parts[place])

            tasks.append(task)

        for rows in held.rows:
            part(partial(self._forward_rows, rows, given))
        for pairs in held.pairs:
            for units in self._units(pairs):
                part(partial(self._forward_pairs, pairs, units, given))
        run_all(tasks, self._workers)
        # Added in the order of the tasks, whichever was done first.
        total = np.zeros((held.n, self._q, k), dtype=given.dtype)
        for one in parts:
            total += one
        return total.reshape(-1, k)

    def rmatmul(self, u: Array) -> Array:
        """(n q, k) -> (columns, k)."""
        held, k = self._held, u.shape[1]
        out = np.zeros((self._blocks * self._p, k), dtype=held.matrix.dtype)
        by_block = out.reshape(self._blocks, self._p, k)
        given = np.ascontiguousarray(u, dtype=out.dtype).reshape(held.n, self._q, k)
        tasks: list[Task] = [partial(self._backward_rows, rows, given, by_block) for rows in held.rows]
        for pairs in held.pairs:
            tasks += [partial(self._backward_pairs, pairs, at, given, by_block) for at in self._units(pairs)]
        run_all(tasks, self._workers)
        return out

    def _units(self, pairs: Pairs) -> list[slice]:
        width = self._blocks * pairs.n_out
        return [slice(first, min(first + _UNITS, width)) for first in range(0, width, _UNITS)]

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

    def _forward_rows(self, rows: Rows, v: Array, out: Array) -> None:
        own = self._of(rows.name, rows.entries, v)
        matrix = self._held.matrix[:, :, rows.columns]
        if self._joined:
            out[:, 0] += np.einsum("nqm,qmk->nk", matrix, own, optimize=True)
        else:
            out += (matrix.reshape(-1, matrix.shape[2]) @ own[0]).reshape(out.shape)

    def _forward_pairs(self, pairs: Pairs, units: slice, v: Array, out: Array) -> None:
        """g (a V) of some units."""
        held, k = self._held, v.shape[2]
        places = [self._of_units(inputs, pairs, units, v) for inputs in pairs.inputs]
        for t in pairs.positions():
            z: Any = 0
            for inputs, own in zip(pairs.inputs, places, strict=True):
                z = z + inputs.apply(t, own)
            g = pairs.g[t].reshape(held.n, self._q, -1)[:, :, units]
            out += g @ np.broadcast_to(z, (held.n, units.stop - units.start, k))

    def _of(self, name: str, entries: Array | None, v: Array) -> Array:
        """A tensor's part of v (blocks, m, k)."""
        own = v[:, self._slices[name]]
        return own if entries is None else own[:, entries]

    def _of_units(self, inputs: Inputs, pairs: Pairs, units: slice, v: Array) -> Array:
        """A tensor's part of v for some units, times sqrt(lambda): (i, units, k)."""
        own = self._of(inputs.name, inputs.entries, v).reshape(self._blocks * pairs.n_out, inputs.n_in, -1)
        made = np.ascontiguousarray(own[units].transpose(1, 0, 2))
        return made if inputs.rate == 1 else made * np.sqrt(inputs.rate).astype(made.dtype)

    def _backward_rows(self, rows: Rows, u: Array, by_block: Array) -> None:
        matrix = self._held.matrix[:, :, rows.columns]
        if self._joined:
            own = np.einsum("nqm,nk->qmk", matrix, u[:, 0], optimize=True)
        else:
            own = (matrix.reshape(-1, matrix.shape[2]).T @ u.reshape(-1, u.shape[2]))[None]
        self._add(by_block, rows.name, rows.entries, own)

    def _backward_pairs(self, pairs: Pairs, units: slice, u: Array, by_block: Array) -> None:
        """a^T (g^T u) of some units, which are entries of their own."""
        held, k, width = self._held, u.shape[2], units.stop - units.start
        totals = [np.zeros((inputs.n_in, width, k), dtype=u.dtype) for inputs in pairs.inputs]
        for t in pairs.positions():
            w = pairs.g[t].reshape(held.n, self._q, -1)[:, :, units].transpose(0, 2, 1) @ u
            for inputs, total in zip(pairs.inputs, totals, strict=True):
                total += inputs.collect(t, w)
        for inputs, total in zip(pairs.inputs, totals, strict=True):
            own = total.transpose(1, 0, 2)
            own = own if inputs.rate == 1 else own * np.sqrt(inputs.rate).astype(u.dtype)
            # Units count outputs first where the rows are joined; no block of a tensor is met by two tasks.
            for block in range(units.start // pairs.n_out, (units.stop - 1) // pairs.n_out + 1):
                first = max(units.start, block * pairs.n_out)
                last = min(units.stop, (block + 1) * pairs.n_out)
                part = own[first - units.start : last - units.start].reshape(-1, k)
                places = np.arange(
                    (first - block * pairs.n_out) * inputs.n_in, (last - block * pairs.n_out) * inputs.n_in
                )
                at = self._slices[inputs.name].start + (places if inputs.entries is None else inputs.entries[places])
                by_block[block, at] += part

    def _add(self, by_block: Array, name: str, entries: Array | None, own: Array) -> None:
        at = self._slices[name]
        if entries is None:
            by_block[:, at] += own
        else:
            by_block[:, at.start + entries] += own


class Held:
    """Products of a design of some shape, with its factors in memory."""

    def __init__(self, shape: tuple[int, int], products: Products) -> None:
        self.shape = shape
        self._products = products

    def matmul(self, v: Array) -> Array:
        with one_thread():
            return self._products.matmul(v.reshape(len(v), -1)).reshape(-1, *v.shape[1:])

    def rmatmul(self, u: Array) -> Array:
        with one_thread():
            return self._products.rmatmul(u.reshape(len(u), -1)).reshape(-1, *u.shape[1:])
