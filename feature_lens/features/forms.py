"""The form of a network's gradients, kept in one place: it belongs to the source of the pieces, never to who reads them.

Designs on different examples share a source, and plans and room for factors are made from the form it had then. A
source counts its changes, so whoever holds something older finds out before numbers are put in the wrong place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from feature_lens.features.pieces import Piece
from feature_lens.features.rules import Dense, GradientId

T = TypeVar("T")


class Source(Protocol):
    """Gives pieces of tiles of examples in one form, which is that of `prepare` until `version` says otherwise."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the computation wants to be known, such as a fallback that was taken."""

    @property
    def version(self) -> int:
        """How often the form has changed since there is one."""

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        """Look at a few examples and return their pieces."""

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, verify: bool) -> list[Piece]:
        """(b, ...) inputs and (b,) labels -> pieces of b examples, held against autograd first where `verify` says so.
        Raises FormChanged where they do not have the form that was known, or are not right in it."""

    def fall(self, names: tuple[str, ...], reason: str) -> None:
        """Take no layer rules for some tensors from now on."""

    def twin(self) -> Source | None:
        """Another that gives the same, for passes in a thread of its own; None where that cannot be."""


class FormChanged(Exception):
    """The network ran otherwise than on the examples before, so what was gathered is void: whoever gathers pieces
    starts again, with `until_kept`; it never leaves the engine."""


@dataclass(frozen=True)
class PieceForm:
    """What must be the same of a piece in every tile: its tensor, how many entries it is about and, of a product over
    positions, its sizes (t, o, i), what its inputs are, how its entries lie and which gradients it has."""

    name: str
    n_entries: int
    sizes: tuple[int, int, int] | None = None
    inputs: str = ""
    entries: tuple[bool, int] = (False, 0)
    gradients: tuple[GradientId, ...] = ()


Form = tuple[PieceForm, ...]


def form_of(pieces: Sequence[Piece]) -> Form:
    """The form of pieces, in their order. Cost: a few numbers a piece."""
    return tuple(_form_of(piece) for piece in pieces)


def _form_of(piece: Piece) -> PieceForm:
    factor = piece.factor
    if isinstance(factor, Dense):
        return PieceForm(piece.name, piece.n_entries)
    inputs = "ones" if factor.a is None else "tokens" if factor.is_tokens else "numbers"
    sizes = factor.g.shape[2], factor.g.shape[3], factor.n_in
    entries = factor.transposed, factor.offset
    return PieceForm(piece.name, piece.n_entries, sizes, inputs, entries, factor.gradients)


def _by_tensor(pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    """The pieces of each tensor."""
    made: dict[str, list[Piece]] = {}
    for piece in pieces:
        made.setdefault(piece.name, []).append(piece)
    return made


def _same_form(one: Sequence[Piece], other: Sequence[Piece]) -> bool:
    """Whether the pieces of a tensor have the same form and are about the same entries."""
    return form_of(one) == form_of(other) and all(
        a.entries is b.entries
        or (a.entries is not None and b.entries is not None and torch.equal(a.entries, b.entries))
        for a, b in zip(one, other, strict=True)
    )


class SharedSource:
    """A source and the pieces of the few examples that say what form there is, for every design that reads it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._tried: tuple[torch.Tensor, torch.Tensor] | None = None
        self._few: list[Piece] = []
        self._form: Form = ()
        self._version, self._grouped = -1, -1

    @property
    def version(self) -> int:
        """How often the form has changed."""
        return self._source.version

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._source.remarks

    @property
    def is_prepared(self) -> bool:
        return self._tried is not None

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Look at a few examples, once."""
        few = until_kept(lambda: self.version, lambda: self._source.prepare(inputs, labels))
        self._tried = inputs, labels
        self._keep(few)

    def few(self, refused: Callable[[list[Piece]], bool]) -> list[Piece]:
        """Pieces of the examples that were looked at, in the form that there is now, unless what is grouped by their
        forms is `refused`: then all of them fall."""
        if self._tried is None:
            raise RuntimeError("a source is prepared before its pieces are asked for")
        inputs, labels = self._tried
        if self._version != self.version:
            self._keep(until_kept(lambda: self.version, lambda: self._source(inputs, labels, True)))
        if self._grouped != self._version:
            self._grouped = self._version
            if refused(self._few):
                outer = sorted({piece.name for piece in self._few if not isinstance(piece.factor, Dense)})
                if not outer:
                    raise RuntimeError("products of whole gradients differ from sums over their tensors")
                self.fall(outer, "products of its gradients with others differ")
                return self.few(refused)
        return self._few

    def _keep(self, few: list[Piece]) -> None:
        self._few, self._form, self._version = few, form_of(few), self.version

    def pieces(
        self, inputs: torch.Tensor, labels: torch.Tensor, verify: bool, twin: Source | None = None
    ) -> list[Piece]:
        """Pieces of a tile in the form of `few`, by a twin where one is given; raises FormChanged where they are not."""
        source = self._source if twin is None else twin
        version = self.version
        made = source(inputs, labels, verify)
        if version != self._version or version != self.version:
            raise FormChanged
        if form_of(made) != self._form:
            raise RuntimeError(f"pieces of the form {form_of(made)} came where {self._form} was known")
        return made

    def fall(self, names: Sequence[str], reason: str) -> None:
        """Let tensors go without layer rules from now on."""
        self._source.fall(tuple(names), reason)

    def make_alike(self, few: Sequence[Piece], other: SharedSource, others: Sequence[Piece]) -> None:
        """Bring two sources to one form: what is otherwise in one of them falls in both, and FormChanged is raised."""
        mine, theirs = _by_tensor(few), _by_tensor(others)
        unlike = [name for name in mine | theirs if not _same_form(mine.get(name, []), theirs.get(name, []))]
        if unlike:
            for source in (self, other):
                source.fall(unlike, "two designs of one kernel have it in other forms")
            raise FormChanged

    def twins(self, count: int) -> list[Source]:
        """Sources for so many threads, the source itself where there can be no more than one."""
        made = [self._source.twin() for _ in range(count)] if count > 1 else []
        return [twin for twin in made if twin is not None] or [self._source]


def until_kept(version: Callable[[], object], work: Callable[[], T]) -> T:
    """What `work` returns, begun again as often as the form changes under it. Each time something falls down the ladder
    for good, or `version` shows that nothing did, which cannot be: so this ends."""
    while True:
        before = version()
        try:
            return work()
        except FormChanged as changed:
            if before == version():
                raise RuntimeError("a form was said to have changed, but it has not") from changed
