"""Factors of one parameter tensor put together: apart where they are about other entries, summed where they are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from feature_lens.features.rules import Dense, Factor, Outer, scaled


@dataclass(frozen=True)
class Piece:
    """A share of one parameter tensor's gradient: a factor, and the tensor's entries (m,) that it is about, in the
    order of the factor; None for all of them in C order."""

    name: str
    factor: Factor
    entries: torch.Tensor | None = None

    @property
    def n_entries(self) -> int:
        """m."""
        factor = self.factor
        return factor.values.shape[2] if isinstance(factor, Dense) else factor.g.shape[3] * factor.n_in

    @property
    def n_examples(self) -> int:
        """b."""
        return len(self.factor.values if isinstance(self.factor, Dense) else self.factor.g)

    @property
    def numbers(self) -> int:
        """Numbers that the factor takes per example."""
        factor = self.factor
        if isinstance(factor, Dense):
            return factor.values[0].numel()
        return factor.g[0].numel() + (0 if factor.a is None else factor.a[0].numel())

    def take(self, at: list[int] | slice) -> Piece:
        """The same of some of the examples."""
        factor = self.factor
        if isinstance(factor, Dense):
            return replace(self, factor=Dense(factor.values[at]))
        return replace(self, factor=replace(factor, g=factor.g[at], a=None if factor.a is None else factor.a[at]))


def composed(factor: Factor, moved: torch.Tensor | None, size: int) -> torch.Tensor | None:
    """Entries of a tensor of `size` that a factor is about; `moved` as from `uses.entries_of`."""
    own = factor.entries()
    if own is None:
        count = factor.values.shape[2] if isinstance(factor, Dense) else factor.g.shape[3] * factor.n_in
        own = torch.arange(count)
    made = own.flatten() if moved is None else moved[own.flatten()]
    return None if len(made) == size and torch.equal(made, torch.arange(size)) else made


def put_together(
    name: str, factors: Sequence[Factor], entries: Sequence[torch.Tensor | None], size: int
) -> list[Piece]:
    """The pieces of a tensor of `size` entries from all factors of its uses; their sum is its gradient.

    Uses of the same entries by the same kind of map become one factor over the positions of both, uses of other
    entries stay apart, and what overlaps otherwise is summed entry by entry.
    """
    pieces = [Piece(name, factor, own) for factor, own in zip(factors, entries, strict=True)]
    if len(pieces) == 1 or _apart(entries, size):
        return pieces
    if all(_same(own, entries[0]) for own in entries):
        joined = _joined(factors)
        if joined is not None:
            return [Piece(name, joined, entries[0])]
    return [Piece(name, Dense(summed(pieces, size)))]


def summed(pieces: Sequence[Piece], size: int) -> torch.Tensor:
    """Gradient (b, q, size) of one tensor from its pieces, at least one."""
    total: torch.Tensor | None = None
    for piece in pieces:
        values = piece.factor.dense()
        if piece.entries is not None:
            placed = values.new_zeros(*values.shape[:2], size)
            placed[:, :, piece.entries] = values
            values = placed
        total = values if total is None else total + values
    if total is None:
        raise ValueError("no pieces")
    return total


def product(piece: Piece, v: torch.Tensor) -> torch.Tensor:
    """A piece's share in the products of the rows with v (size,), of its whole tensor: (b, q)."""
    factor = piece.factor
    own = v if piece.entries is None else v[piece.entries]
    if isinstance(factor, Dense):
        return factor.values @ own
    matrix = own.reshape(factor.g.shape[3], factor.n_in)
    if factor.a is None:
        return factor.g.sum(dim=2) @ matrix[:, 0]
    met = matrix.T[factor.a] if factor.is_tokens else factor.a @ matrix.T  # (b, t, o)
    return (factor.g.flatten(2) @ met.flatten(1)[..., None])[..., 0]


def over_rows(pieces: Sequence[Piece], weights: torch.Tensor, size: int) -> torch.Tensor:
    """The sum of all rows of a tensor of `size` entries, weighted (b, q): (size,)."""
    total = torch.zeros(size, dtype=weights.dtype)
    for piece in pieces:
        factor = piece.factor
        if isinstance(factor, Dense):
            values = torch.einsum("bqm,bq->m", factor.values, weights.to(factor.values.dtype))
        else:
            g = torch.einsum("bqto,bq->bto", factor.g, weights.to(factor.g.dtype)).flatten(0, 1)
            joined = Outer(g[None, None], None if factor.a is None else factor.a.flatten(0, 1)[None], factor.n_in, ())
            values = joined.dense()[0, 0]
        if piece.entries is None:
            total += values
        else:
            total[piece.entries] += values
    return total


def lengths(piece: Piece) -> torch.Tensor:
    """(b, q) lengths of a piece's rows, as if nothing of a sum over positions cancelled."""
    factor = piece.factor
    if isinstance(factor, Dense):
        whole: torch.Tensor = torch.linalg.vector_norm(factor.values, dim=2)
        return whole
    made: torch.Tensor = torch.linalg.vector_norm(factor.g, dim=3)  # (b, q, t)
    if factor.a is not None and not factor.is_tokens:
        made = made * torch.linalg.vector_norm(factor.a, dim=2)[:, None]
    return made.sum(dim=2)


def as_pieces(rows: torch.Tensor, sizes: Mapping[str, int]) -> list[Piece]:
    """Pieces of whole gradients (b, q, p), the tensors of `sizes` side by side."""
    parts = torch.split(rows, list(sizes.values()), dim=2)
    return [Piece(name, Dense(part)) for name, part in zip(sizes, parts, strict=True)]


def as_rows(pieces: Sequence[Piece], sizes: Mapping[str, int], like: torch.Tensor) -> torch.Tensor:
    """Whole gradients (b, q, p) of the tensors of `sizes`, zero where a tensor has no piece; `like` (b, q)."""
    own: dict[str, list[Piece]] = {name: [] for name in sizes}
    for piece in pieces:
        own[piece.name].append(piece)
    parts = [
        summed(own[name], size) if own[name] else like.new_zeros(*like.shape, size) for name, size in sizes.items()
    ]
    return torch.cat(parts, dim=2)


def weighted_sum(terms: Sequence[tuple[float, Sequence[Piece]]], sizes: Mapping[str, int]) -> list[Piece]:
    """The pieces of a sum of gradients, each with its weight."""
    own: dict[str, list[tuple[Factor, torch.Tensor | None]]] = {}
    for weight, pieces in terms:
        for piece in pieces:
            own.setdefault(piece.name, []).append((scaled(piece.factor, weight), piece.entries))
    made: list[Piece] = []
    for name, parts in own.items():
        made += put_together(name, [factor for factor, _ in parts], [entries for _, entries in parts], sizes[name])
    return made


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _apart(entries: Sequence[torch.Tensor | None], size: int) -> bool:
    if any(own is None for own in entries):
        return False
    times = torch.zeros(size, dtype=torch.long)
    for own in entries:
        if own is not None:
            times[own] += 1
    return bool((times <= 1).all())


def _joined(factors: Sequence[Factor]) -> Outer | None:
    """One factor over the positions of all; None where they are not maps of one kind."""
    outer = [factor for factor in factors if isinstance(factor, Outer)]
    first = outer[0] if len(outer) == len(factors) else None
    if first is None or any(
        (one.n_in, one.is_tokens, one.a is None, one.transposed)
        != (first.n_in, first.is_tokens, first.a is None, first.transposed)
        for one in outer
    ):
        return None
    gradients = tuple(own for one in outer for own in one.gradients)
    a = None if first.a is None else torch.cat([one.a for one in outer if one.a is not None], dim=1)
    return replace(first, g=torch.cat([one.g for one in outer], dim=2), a=a, gradients=gradients)
