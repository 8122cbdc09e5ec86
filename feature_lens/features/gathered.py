"""Factors of a range of examples side by side in memory, in the form that a plan chose for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from feature_lens.features.forms import FormChanged, form_of
from feature_lens.features.pieces import Piece
from feature_lens.features.plan import Plan, Share, live_positions
from feature_lens.features.rules import Outer

Array = npt.NDArray[Any]
# Gradients that are made at once on their way into the common matrix.
_ROWS_BYTES = 4 << 20


def rows_of(values: Array, positions: Sequence[int], at: slice) -> Array:
    """Rows (b t, k) of some examples at some positions of values (t, n, k), example by example. All positions of
    values that lie example by example are not copied."""
    by_example = values[:, at].swapaxes(0, 1)
    chosen = by_example if len(positions) == len(values) else by_example[:, list(positions)]
    rows: Array = chosen.reshape(-1, values.shape[2])
    return rows


@dataclass
class Inputs:
    """What one tensor's factor has besides g: a (t, n, i), tokens (t, n), or neither for ones; and its lambda."""

    name: str
    n_in: int
    rate: float
    a: Array | None = None
    tokens: Array | None = None
    entries: npt.NDArray[np.int64] | None = None

    def gram(self, t: int, at: slice, other: Inputs, u: int, to: slice) -> Array | float:
        """lambda times a . a' of positions t and u: (b, b'), or one number for ones."""
        if self.a is not None and other.a is not None:
            product: Array = self.a[t, at] @ other.a[u, to].T
            return product if self.rate == 1 else product * self.rate
        if self.tokens is not None and other.tokens is not None:
            same: Array = (self.tokens[t, at][:, None] == other.tokens[u, to]) * self.rate
            return same
        return self.rate

    def gram_over(self, ts: Sequence[int], at: slice, other: Inputs, us: Sequence[int], to: slice) -> Array | float:
        """lambda times a . a' of every position in ts with every one in us: (b t, b' u), or one number for ones."""
        if self.a is not None and other.a is not None:
            left, right = rows_of(self.a, ts, at), rows_of(other.a, us, to)
            product: Array = left @ right.T
            return product if self.rate == 1 else product * self.rate
        if self.tokens is not None and other.tokens is not None:
            left, right = rows_of(self.tokens[..., None], ts, at), rows_of(other.tokens[..., None], us, to)
            same: Array = (left == right[:, 0]) * self.rate
            return same
        return self.rate

    def dots(self, t: int, u: int) -> Array | float:
        """lambda times a . a' of positions t and u of the same example: (n,), or one number for ones."""
        if self.a is not None:
            dots: Array = self.rate * np.einsum("ni,ni->n", self.a[t], self.a[u], dtype=np.float64)
            return dots
        if self.tokens is not None:
            same: Array = self.rate * (self.tokens[t] == self.tokens[u])
            return same
        return self.rate

    def apply(self, t: int, v: Array) -> Array:
        """a V of position t: (i, o, k) -> (n, o, k), or (1, o, k) for ones."""
        if self.a is not None:
            made: Array = (self.a[t] @ v.reshape(len(v), -1)).reshape(-1, *v.shape[1:])
            return made
        return v if self.tokens is None else v[self.tokens[t]]

    def collect(self, t: int, w: Array) -> Array:
        """a^T W of position t: (n, o, k) -> (i, o, k)."""
        flat = w.reshape(len(w), -1)
        if self.a is not None:
            made = self.a[t].T @ flat
        elif self.tokens is not None:
            n = len(flat)
            kinds = (np.ones(n, dtype=flat.dtype), (self.tokens[t], np.arange(n)))
            made = scipy.sparse.csr_array(kinds, shape=(self.n_in, n)) @ flat
        else:
            made = flat.sum(axis=0)
        result: Array = made.reshape(self.n_in, *w.shape[1:])
        return result


@dataclass
class Pairs:
    """A share by pairs of positions: g (t, n, q * o), which positions are not all zero, and its tensors' inputs."""

    g: Array
    live: npt.NDArray[np.bool_]
    inputs: list[Inputs]
    n_out: int

    def positions(self) -> list[int]:
        """Those that are not all zero."""
        return [int(t) for t in np.flatnonzero(self.live)]


@dataclass
class Rows:
    """Where the per-example gradients of one tensor, times sqrt(lambda), are in the common matrix, and which of the
    tensor's entries they are about (None: all, in order)."""

    name: str
    columns: slice
    rate: float
    entries: npt.NDArray[np.int64] | None


@dataclass
class Gathered:
    """Factors of `n` examples of `q` quantities. `matrix` (n, q, columns) holds all per-example gradients together."""

    n: int
    q: int
    matrix: Array
    rows: list[Rows] = field(default_factory=list)
    pairs: list[Pairs] = field(default_factory=list)

    @classmethod
    def room(
        cls, plan: Plan, pieces: Sequence[Piece], n: int, rates: dict[str, float], dtype: npt.DTypeLike
    ) -> Gathered:
        """Empty room for n examples. Zeros cost no memory until something is written to them."""
        q = plan.rows
        if form_of(pieces) != plan.form:
            raise RuntimeError("room is made for pieces of the form that a plan was made for")
        by_rows = [place for share in plan.shares if share.how == "rows" for place in share.members]
        width = sum(pieces[place].n_entries for place in by_rows)
        made = cls(n, q, np.zeros((n, q, width), dtype=dtype))
        start = 0
        for place in by_rows:
            stop = start + pieces[place].n_entries
            name = pieces[place].name
            made.rows.append(Rows(name, slice(start, stop), rates[name], _places(pieces[place])))
            start = stop
        for share in plan.shares:
            if share.how == "pairs":
                made.pairs.append(_room_for_pairs(share, pieces, n, q, rates, dtype))
        return made

    def put(self, plan: Plan, pieces: Sequence[Piece], start: int, count: int) -> None:
        """Take the pieces of examples start .. start+count-1, of the plan's form, which others are not put in place
        of: raises FormChanged. Threads may put different examples at once."""
        if form_of(pieces) != plan.form:
            raise FormChanged
        at = slice(start, start + count)
        rows, pairs = iter(self.rows), iter(self.pairs)
        for share in plan.shares:
            if share.how == "rows":
                for place in share.members:
                    _put_rows(self.matrix[at], next(rows), pieces[place])
            else:
                _put_pairs(next(pairs), [pieces[place] for place in share.members], at)


def _put_rows(matrix: Array, own: Rows, piece: Piece) -> None:
    """Per-example gradients of some examples at a time: what they take on the way stays near the processor."""
    step = max(1, _ROWS_BYTES // max(matrix[0, :, own.columns].nbytes, 1))
    for first in range(0, len(matrix), step):
        part = slice(first, first + step)
        values = piece.take(part).factor.dense().numpy()
        matrix[part, :, own.columns] = values if own.rate == 1 else values * np.sqrt(own.rate)


def _places(piece: Piece) -> npt.NDArray[np.int64] | None:
    return None if piece.entries is None else piece.entries.numpy()


def _room_for_pairs(
    share: Share, pieces: Sequence[Piece], n: int, q: int, rates: dict[str, float], dtype: npt.DTypeLike
) -> Pairs:
    inputs: list[Inputs] = []
    positions = 1
    for place in share.members:
        factor = pieces[place].factor
        if not isinstance(factor, Outer):
            raise TypeError(type(factor).__name__)
        positions = factor.g.shape[2]
        name = pieces[place].name
        made = Inputs(name, factor.n_in, rates[name], entries=_places(pieces[place]))
        if factor.is_tokens:
            made.tokens = np.zeros((positions, n), dtype=np.int64)
        elif factor.a is not None:
            made.a = np.zeros((n, positions, factor.n_in), dtype=dtype).swapaxes(0, 1)
        inputs.append(made)
    # Positions of an example lie beside each other, so that some examples with all of them are rows of one matrix.
    g = np.zeros((n, positions, q * share.n_out), dtype=dtype).swapaxes(0, 1)
    return Pairs(g, np.zeros(positions, dtype=bool), inputs, share.n_out)


def _put_pairs(pairs: Pairs, pieces: Sequence[Piece], at: slice) -> None:
    live: list[int] = []
    for piece, inputs in zip(pieces, pairs.inputs, strict=True):
        factor = piece.factor
        if not isinstance(factor, Outer):
            raise TypeError(type(factor).__name__)
        if inputs is pairs.inputs[0]:  # they share g
            live = live_positions(factor.g)
        if inputs is pairs.inputs[0]:
            for t in live:
                pairs.live[t] = True
                pairs.g[t, at].reshape(factor.g.shape[0], -1, pairs.n_out)[...] = factor.g[:, :, t].numpy()
        if factor.a is None:
            continue
        for t in live:
            a = factor.a[:, t].numpy()
            if inputs.tokens is not None:
                inputs.tokens[t, at] = a
            elif inputs.a is not None:
                inputs.a[t, at] = a
