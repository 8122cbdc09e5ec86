"""How the kernel of each layer is computed, chosen from shapes by counts of multiply-adds and bytes.

A linear map shared over t positions, with o outputs and i inputs, gives for n examples and q rows each (r = n q):
*pairs*: sum over pairs of positions of (a . a') (g . g'), n^2 t^2 i + r^2 t^2 (o + 1) multiply-adds, and t (i + q o)
numbers held per example; for t = 1 that is the outer-product identity. *rows*: per-example gradients, then one
product, r t o i + r^2 o i, and q o i numbers held. Whatever has no such form goes by rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from feature_lens.features.forms import Form, form_of
from feature_lens.features.pieces import Piece
from feature_lens.features.rules import Dense, Outer

How = Literal["pairs", "rows"]


@dataclass(frozen=True)
class Share:
    """Pieces (numbers `members` in the order of the pieces) that are computed together, since their g is the same.

    `positions` are those of the t whose gradient is not zero on the examples tried. `cost` and `other_cost` are
    multiply-adds of the way taken and of the way not taken (None where there is none), `held` numbers per example.
    """

    names: tuple[str, ...]
    members: tuple[int, ...]
    how: How
    positions: int
    n_out: int
    n_in: tuple[int, ...]
    cost: float
    other_cost: float | None
    held: int


@dataclass(frozen=True)
class Plan:
    """Shares of the kernel, in order; `str()` is a table of them. n examples of `rows` rows each, whose pieces have
    this form."""

    n: int
    rows: int
    joined: bool
    shares: tuple[Share, ...]
    form: Form

    @property
    def held(self) -> int:
        """Numbers held per example."""
        return sum(share.held for share in self.shares)

    @property
    def product_cost(self) -> float:
        """Multiply-adds of Phi v and Phi^T u together, for one column each."""
        each = (
            share.positions * share.n_out * (sum(share.n_in) + self.rows) if share.how == "pairs" else share.held
            for share in self.shares
        )
        return 2.0 * self.n * sum(each)

    @property
    def cost(self) -> float:
        """Multiply-adds of the whole kernel, before its symmetry halves them."""
        return sum(share.cost for share in self.shares)

    def __str__(self) -> str:
        side = self.n if self.joined else self.n * self.rows
        lines = [f"kernel {side:,} x {side:,}: {self.cost:.2e} multiply-adds, {self.held:,} numbers per example"]
        for share in self.shares:
            shape = f"t={share.positions} o={share.n_out} i={'+'.join(map(str, share.n_in))}"
            other = "" if share.other_cost is None else f", {share.other_cost:.2e} by the other way"
            lines.append(f"  {share.how:5} {shape:24} {share.cost:.2e}{other}: {', '.join(share.names)}")
        return "\n".join(lines)


def make_plan(pieces: Sequence[Piece], n: int, rows: int, joined: bool, most_held: int) -> Plan:
    """Choose for every piece; `pieces` are those of a few examples, `most_held` numbers an example may take by rows."""
    return _plan(pieces, n, rows, joined, most_held)


def smallest_plan(pieces: Sequence[Piece], n: int, rows: int) -> Plan:
    """Of both ways the one that holds fewer numbers, whatever a kernel would cost: for factors that are to be kept."""
    return _plan(pieces, n, rows, joined=False, most_held=None)


def _plan(pieces: Sequence[Piece], n: int, rows: int, joined: bool, most_held: int | None) -> Plan:
    groups: dict[tuple[object, ...], list[int]] = {}
    shares: list[Share] = []
    for place, piece in enumerate(pieces):
        if isinstance(piece.factor, Dense):
            shares.append(_dense(piece, place, n, rows, joined))
        else:
            groups.setdefault((piece.factor.gradients, tuple(piece.factor.g.shape)), []).append(place)
    shares += [
        _outer([pieces[place] for place in members], tuple(members), n, rows, joined, most_held)
        for members in groups.values()
    ]
    return Plan(n, rows, joined, tuple(sorted(shares, key=lambda share: share.members)), form_of(pieces))


def live_positions(g: torch.Tensor) -> list[int]:
    """Positions t of g (b, q, t, o) at which any entry is not zero; a single position always counts."""
    t = g.shape[2]
    return [0] if t == 1 else [int(place) for place in np.flatnonzero(g.numpy().any(axis=(0, 1, 3)))]


def _pairs_of_rows(n: int, rows: int, joined: bool) -> tuple[float, int]:
    """Pairs of kernel rows, and how many gradients each row joins."""
    return (float(n) ** 2, rows) if joined else (float(n * rows) ** 2, 1)


def _dense(piece: Piece, place: int, n: int, rows: int, joined: bool) -> Share:
    m = piece.n_entries
    pairs, together = _pairs_of_rows(n, rows, joined)
    return Share((piece.name,), (place,), "rows", 1, m, (1,), pairs * together * m, None, rows * m)


def _outer(
    pieces: Sequence[Piece], members: tuple[int, ...], n: int, rows: int, joined: bool, most_held: int | None
) -> Share:
    """The way that costs less, unless rows take more than `most_held` numbers; without that the way that holds less."""
    factors = [piece.factor for piece in pieces if isinstance(piece.factor, Outer)]
    g = factors[0].g
    t, o = max(len(live_positions(g)), 1), g.shape[3]
    n_in = tuple(factor.n_in for factor in factors)
    written = sum(factor.n_in for factor in factors if factor.a is not None and not factor.is_tokens)
    pairs, together = _pairs_of_rows(n, rows, joined)
    by_pairs = float(n) ** 2 * t**2 * (written + 1) + pairs * t**2 * (together * o + 1)
    by_rows = float(n) * rows * t * o * sum(n_in) + pairs * together * o * sum(n_in)
    held_pairs, held_rows = g.shape[2] * (written + len(factors) + rows * o), rows * o * sum(n_in)
    fits = by_pairs > by_rows and held_rows <= most_held if most_held is not None else held_rows < held_pairs
    how: How = "rows" if fits else "pairs"
    names = tuple(piece.name for piece in pieces)
    if how == "pairs":
        return Share(names, members, how, t, o, n_in, by_pairs, by_rows, held_pairs)
    return Share(names, members, how, t, o, n_in, by_rows, by_pairs, held_rows)
