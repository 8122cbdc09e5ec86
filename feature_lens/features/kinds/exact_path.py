"""Path features of piecewise-linear networks: exact, from the kinks of every example along the line."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.features.design import as_matrix
from feature_lens.features.factors import Factors
from feature_lens.features.forms import FormChanged, until_kept
from feature_lens.features.kinds.completeness import left_over
from feature_lens.features.kinds.kind import Ask
from feature_lens.features.kinds.kinks import crossings, refined
from feature_lens.features.kinds.pencil import NotAPencil, Pencil
from feature_lens.features.module_copy import ModuleCopy
from feature_lens.features.pieces import Piece, as_pieces, as_rows, product
from feature_lens.features.rules import Dense, Factor

Array = npt.NDArray[np.float64]
# Bytes of what is held at once of the rows of a pass, and pieces of the line beyond which nodes are too many.
_PASS_BYTES = 64 << 20
_MOST_PIECES = 2048
# Nodes per piece tried beyond those that linear layers alone need: products of activations need more.
_MORE_NODES = 3
# Relative difference that rounding may make between quadratures that are both exact, and between forward passes.
_SAME = {torch.float64: 1e-10, torch.float32: 1e-4}


class ExactPath:
    """integral over s in (0, 1) of d f / d theta at theta0 + s d, where f is a polynomial of s between kinks.

    Kinks are zeros of the polynomials that the inputs of ReLUs and the like are, found layer by layer; ceil(L / 2)
    Gauss nodes in each piece, L linear maps along the way, then integrate exactly. `prepare` raises NotAPencil, with
    the reason, where the network is not of this form. Cost: one forward and backward pass per example and node.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        start, added = ask.network.at("initial"), ask.network.displacement()
        self._copy = ModuleCopy(ask.network, start, ())
        self._lines, self._own = Pencil(added), Pencil(added)
        self._lines.bind(self._copy.module)
        # Of all tensors, whatever is looked at: only those of all add up to what training added.
        self._factors = Factors(ask.network, start, ask.reduction, tuple(start), self._own)
        self._sizes = {name: start[name].numel() for name in ask.chosen}
        self._added = {name: value.flatten().cpu() for name, value in added.items()}
        self._n_nodes, self._n_outputs = 1, 1

    @property
    def version(self) -> int:
        """Whole gradients have one form."""
        return 0

    def fall(self, names: tuple[str, ...], reason: str) -> None:
        """Whole gradients have no layer rules that could fall."""

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        """Try the form on a few examples: passes against the network moved as a whole, and one node more per piece."""
        if not self._ask.reduction.linear:
            raise NotAPencil(f"'{self._ask.reduction.name}' is not a linear function of the outputs")
        self._check_passes(inputs)
        self._own.places = self._ask.network.real([0.0])
        until_kept(lambda: self._factors.version, lambda: self._factors.prepare(inputs, labels))
        if self._factors.fallen:
            raise NotAPencil(f"'{self._factors.fallen[0]}' has no layer rule")
        edges = self._edges(inputs)
        tolerance = _SAME[self._ask.network.dtype]
        for n_nodes in range(self._n_nodes, self._n_nodes + _MORE_NODES):
            one, more = (self._rows(inputs, labels, edges, n)[0] for n in (n_nodes, n_nodes + 1))
            self._n_nodes = n_nodes
            if float((one - more).abs().max()) <= tolerance * max(float(more.abs().max()), 1e-30):
                return as_pieces(one, self._sizes)
        raise NotAPencil("the network is not piecewise polynomial along the line")

    def twin(self) -> None:
        """Its passes stay in one thread."""
        return None

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, verify: bool = True) -> list[Piece]:
        rows, shares = self._rows(inputs, labels, self._edges(inputs), self._n_nodes)
        if verify:
            self._require_completeness(shares, inputs, labels)
        return as_pieces(rows, self._sizes)

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._factors.remarks

    def _require_completeness(self, shares: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Hold what tensors contribute, (tensors, b, q), against what training added: a kink that was missed shows."""
        apart, size = left_over(self._ask, shares, inputs, labels)
        if bool((apart > _SAME[self._ask.network.dtype] * size).any()):
            raise NotAPencil("its features do not add up to what training added on a tile")

    def _pieces(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        try:
            return self._factors(inputs, labels)
        except FormChanged:
            raise NotAPencil("the network runs otherwise from one tile of examples to the next") from None

    def _check_passes(self, inputs: torch.Tensor) -> None:
        """Hold a pass with a place for every row against passes of the whole network, at two places."""
        network = self._ask.network
        start, added = network.at("initial"), network.displacement()
        for place in (0.37, 1.0):
            found = self._forward(inputs, network.real([place]))
            with torch.no_grad():
                moved = {name: value + place * added[name] for name, value in start.items()}
                wanted = network(moved, inputs).detach()  # a forward may take gradients itself
            if float((found - wanted).abs().max()) > _SAME[network.dtype] * max(float(wanted.abs().max()), 1e-30):
                raise NotAPencil("its passes at places of their own differ from those of the whole network")
        self._n_outputs = wanted.shape[1]
        self._n_nodes = max(1, -(-self._lines.n_moved // 2))

    def _forward(self, inputs: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        self._lines.places = places
        with torch.no_grad(), self._lines.over(len(inputs)):
            return self._copy.outputs(inputs).detach()

    def _edges(self, inputs: torch.Tensor) -> Array:
        """(b, m + 1) edges of the pieces of each example, rising from 0 to 1, repeated at the end."""
        self._forward(inputs[:1], self._ask.network.real([0.0]))
        calls = [(degree, values.shape[1]) for degree, values in self._lines.crossings]
        edges = np.tile([0.0, 1.0], (len(inputs), 1))
        for call, (degree, units) in enumerate(calls):
            if degree == 0:
                continue
            row = (edges.shape[1] - 1) * (degree + 1) * units * 8
            group = max(1, _PASS_BYTES // max(row, 1))
            found: list[Array] = []
            for first in range(0, len(inputs), group):
                part = slice(first, first + group)
                found += crossings(partial(self._values, inputs[part], call), edges[part], degree)
            edges = refined(edges, found)
            if edges.shape[1] > _MOST_PIECES:
                raise NotAPencil(f"an example has {edges.shape[1]:,} kinks along the line, more than {_MOST_PIECES:,}")
        return edges

    def _values(self, inputs: torch.Tensor, call: int, places: Array) -> Array:
        """What is zero at the kinks of one call, (b, m, units), at places (b, m) of their own for b examples."""
        rows = self._ask.network.real(places.reshape(-1))
        self._forward(inputs.repeat_interleave(places.shape[1], dim=0), rows)
        values: Array = as_matrix(self._lines.crossings[call][1])
        return values.reshape(*places.shape, -1)

    def _rows(
        self, inputs: torch.Tensor, labels: torch.Tensor, edges: Array, n_nodes: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, q, p): Gauss sums over the pieces, a group of examples at a time; and what every tensor of the network
        contributes, (tensors, b, q)."""
        nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
        width = np.diff(edges, axis=1)[:, :, None]
        network = self._ask.network
        places = network.real((edges[:, :-1, None] + width * (nodes + 1) / 2).reshape(len(edges), -1))
        weight = torch.as_tensor((width * weights / 2).reshape(len(edges), -1), dtype=network.dtype)
        m = places.shape[1]
        group = max(1, _PASS_BYTES // max(self._row_bytes(inputs, labels) * m, 1))
        made: list[torch.Tensor] = []
        shares: list[torch.Tensor] = []
        for first in range(0, len(inputs), group):
            part = slice(first, first + group)
            self._own.places = places[part].reshape(-1)
            repeated = (tensor[part].repeat_interleave(m, dim=0) for tensor in (inputs, labels))
            joined = [
                replace(piece, factor=joined_over(piece.factor, weight[part])) for piece in self._pieces(*repeated)
            ]
            q = self._ask.reduction.quantities(self._n_outputs)
            like = weight.new_zeros(len(weight[part]), q)
            chosen = [piece for piece in joined if piece.name in self._sizes]
            made.append(as_rows(chosen, self._sizes, like))
            shares.append(torch.stack([product(piece, self._added[piece.name]) for piece in joined]))
        return torch.cat(made), torch.cat(shares, dim=1)

    def _row_bytes(self, inputs: torch.Tensor, labels: torch.Tensor) -> int:
        """Bytes of the factors of one row of a pass."""
        self._own.places = self._ask.network.real([0.0])
        pieces = self._pieces(inputs[:1], labels[:1])
        return sum(piece.numbers for piece in pieces) * self._ask.network.dtype.itemsize


def joined_over(factor: Factor, shares: torch.Tensor) -> Factor:
    """The weighted sum of the factors of every m successive rows: shares (b, m), factor of b * m rows."""
    b, m = shares.shape
    if isinstance(factor, Dense):
        values = factor.values.reshape(b, m, *factor.values.shape[1:])
        return Dense(torch.einsum("bmqk,bm->bqk", values, shares))
    g = factor.g.reshape(b, m, *factor.g.shape[1:]) * shares[:, :, None, None, None]
    joined = g.transpose(1, 2).flatten(2, 3)  # (b, q, m * t, o)
    a = None if factor.a is None else factor.a.reshape(b, -1, *factor.a.shape[2:])
    return replace(factor, g=joined, a=a)
