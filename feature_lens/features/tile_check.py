"""Whether the pieces of a tile are its gradients: held against autograd in every tile, row by row.

What a network did with a few examples need not hold for the next ones: a batch is sorted, masked or routed by its own
data. So the product J v of the pieces with one direction v of all tensors is compared with the derivative of the
outputs along v, in forward mode; where an operation has none, the sum of all rows, each brought to the same length, is
compared with one backward pass. Both tell a single wrong row, however small, in a tile of large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from feature_lens.features.jacobian import AGREEMENT, Jacobian, gradient_of
from feature_lens.features.own_module import OwnModule
from feature_lens.features.pieces import Piece, lengths, over_rows, product, summed
from feature_lens.features.reductions import Reduction
from feature_lens.features.rules import Dense, contracted

# What rounding leaves of a sum whose parts cancel, relative to the gradients of the same layer.
ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-5}
# Examples whose rows are taken by a loop of autograd where forward mode and pieces disagree.
_EXAMINED = 4
# What torch's operations raise that have no forward mode, and modules that a tensor in a parameter's place surprises.
_NO_FORWARD_MODE = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)
_DIFFERS = "its layer rule differs from autograd"
Cotangents = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class TileCheck:
    """Holds pieces against autograd. `cotangents` as of `Factors`: derivatives (q, b, c) of quantities by outputs."""

    def __init__(self, own: OwnModule, reduction: Reduction, cotangents: Cotangents) -> None:
        self._own, self._reduction, self._cotangents = own, reduction, cotangents
        self._sizes: dict[str, float] = {}
        self._directions: dict[int, dict[str, torch.Tensor]] = {}
        self._sides: dict[tuple[object, ...], tuple[torch.Tensor, torch.Tensor] | None] = {}
        self._forward_mode = own.along is None

    def of(self, own: OwnModule) -> TileCheck:
        """The same for passes through another copy of the module."""
        other = TileCheck(own, self._reduction, self._cotangents)
        other._sizes, other._directions, other._sides = self._sizes, self._directions, self._sides
        other._forward_mode = self._forward_mode
        return other

    def learn_sizes(self, pieces: Sequence[Piece]) -> None:
        """Take the size of each tensor's gradients from those of a few examples, so that none is lost beside others."""
        squares: dict[str, float] = {}
        for piece in pieces:
            squares[piece.name] = squares.get(piece.name, 0.0) + float(lengths(piece).square().mean())
        self._sizes = {name: math.sqrt(square) for name, square in squares.items() if math.isfinite(square)}
        self._directions, self._sides = {}, {}

    def against_loop(
        self, pieces: Sequence[Piece], names: tuple[str, ...], n_rows: int, inputs: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, str]:
        """Those of the tensors `names` whose gradients differ from a loop of autograd over the first and the last
        example, each with the reason: the q = `n_rows` rows are weighted at random and added up."""
        weights = torch.randn(n_rows, generator=torch.Generator().manual_seed(1))
        wrong: dict[str, str] = {}
        for example in dict.fromkeys((0, len(inputs) - 1)):
            wrong |= self._examined(pieces, names, inputs, labels, example, weights)
        return wrong

    def __call__(
        self, pieces: Sequence[Piece], exact: Sequence[str], inputs: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, str]:
        """Tensors whose gradients are wrong somewhere in a tile, each with the reason; none where all is right.

        exact: tensors whose pieces come of a loop of autograd, which is what others are held against.
        Cost: three forward passes and the products of the pieces with one direction, or one backward pass.
        """
        doubted = tuple(name for name in self._own.chosen if name not in exact)
        if not doubted:
            return {}
        if self._forward_mode:
            try:
                apart = self._apart(pieces, inputs, labels, 0)
            except _NO_FORWARD_MODE:
                self._forward_mode = False
            else:
                if not bool(apart.any()):
                    return {}
                wrong = self._look(pieces, doubted, inputs, labels, apart)
                if wrong or not bool((apart & self._apart(pieces, inputs, labels, 1)).any()):
                    return wrong
                # Forward mode differs from backward mode, of which features are made.
                self._forward_mode = False
        return self._backward(pieces, doubted, inputs, labels)

    def _apart(self, pieces: Sequence[Piece], inputs: torch.Tensor, labels: torch.Tensor, number: int) -> torch.Tensor:
        """(b, q), whether a row's product with a direction differs from forward mode's."""
        direction = self._direction(number)
        outputs, tangent = self._own.tangents(inputs, direction)
        wanted = tangent.cpu()
        if not (self._reduction.all_outputs and self._reduction.linear):
            weights = self._cotangents(outputs, labels).cpu()
            wanted = torch.einsum("qbc,bc->bq", weights, wanted)
        found, scale = torch.zeros_like(wanted), torch.zeros_like(wanted)
        for piece in pieces:
            share = self._along(piece, number)
            found += share
            scale += share.abs()
        tolerance = AGREEMENT[wanted.dtype] * torch.maximum(scale, wanted.abs())
        finite = wanted.isfinite() | found.isfinite()
        return finite & ~((found - wanted).abs() <= tolerance)

    def _along(self, piece: Piece, number: int) -> torch.Tensor:
        """(b, q): a piece's share in the products of the rows with a direction."""
        factor, whole = piece.factor, self._direction(number)[piece.name]
        if isinstance(factor, Dense) or factor.a is None:
            return product(piece, whole.cpu())
        key = number, piece.name, id(piece.entries), factor.g.shape[3], factor.n_in
        if key not in self._sides:
            own = whole.cpu() if piece.entries is None else whole.cpu()[piece.entries]
            self._sides[key] = _sides(own.reshape(factor.g.shape[3], factor.n_in))
        sides = self._sides[key]
        if sides is None:
            return product(piece, whole.cpu())
        of_outputs, of_inputs = sides
        met = of_inputs[factor.a] if factor.is_tokens else _over_last(factor.a, of_inputs)  # (b, t)
        return (_over_last(factor.g, of_outputs) * met[:, None]).sum(dim=2)

    def _direction(self, number: int) -> dict[str, torch.Tensor]:
        """Random entries for each tensor, larger where its gradients are smaller. The same for all tiles. Matrices are
        products of two vectors, whose product with a factor takes no more than to read it."""
        if number not in self._directions:
            generator = torch.Generator().manual_seed(2 + number)
            known = [size for size in self._sizes.values() if size > 0]
            usual = math.exp(sum(map(math.log, known)) / len(known)) if known else 1.0
            made: dict[str, torch.Tensor] = {}
            for name in self._own.chosen:
                value = self._own.params[name]
                size = self._sizes.get(name, 0.0) or usual
                outer, inner = (
                    (value.shape[0], value[0].numel()) if value.ndim > 1 and value.numel() else (value.numel(), 1)
                )
                sides = [torch.randn(n, generator=generator, dtype=value.dtype) for n in (outer, inner)]
                sides[1] = sides[1] if inner > 1 else torch.ones(1, dtype=value.dtype)
                made[name] = (torch.outer(*sides).flatten() / size).to(value.device)
            self._directions[number] = made
        return self._directions[number]

    def _look(
        self,
        pieces: Sequence[Piece],
        names: tuple[str, ...],
        inputs: torch.Tensor,
        labels: torch.Tensor,
        apart: torch.Tensor,
    ) -> dict[str, str]:
        """Tensors that are wrong in some of the rows that seem so."""
        wrong: dict[str, str] = {}
        for example in torch.nonzero(apart.any(dim=1)).flatten().tolist()[:_EXAMINED]:
            weights = torch.zeros(apart.shape[1])
            weights[int(torch.nonzero(apart[example])[0])] = 1
            wrong |= self._examined(pieces, names, inputs, labels, example, weights)
        return wrong

    def _examined(
        self,
        pieces: Sequence[Piece],
        names: tuple[str, ...],
        inputs: torch.Tensor,
        labels: torch.Tensor,
        example: int,
        weights: torch.Tensor,
    ) -> dict[str, str]:
        """Tensors whose share in the weighted sum of an example's rows differs from a loop of autograd."""
        own, at = self._own, slice(example, example + 1)
        loop = Jacobian(own.network, own.params, self._reduction, names, own.copy)
        exact = loop.exact(inputs[at], labels[at], weights)[0, 0]
        parts = torch.split(exact, [own.params[name].numel() for name in names])
        of_layer: dict[str, float] = {}
        for name, wanted in zip(names, parts, strict=True):
            layer = name.rpartition(".")[0]
            of_layer[layer] = max(of_layer.get(layer, 0.0), _largest(wanted))
        wrong: dict[str, str] = {}
        for name, wanted in zip(names, parts, strict=True):
            rows = [piece.take(at) for piece in pieces if piece.name == name]
            weighted = [replace(row, factor=contracted(row.factor, weights)) for row in rows]
            found = summed(weighted, len(wanted))[0, 0] if weighted else torch.zeros_like(wanted)
            size = max(_largest(wanted), *(_uncancelled(piece) for piece in weighted), 0.0)
            allowed = AGREEMENT[wanted.dtype] * size + ROUNDING[wanted.dtype] * of_layer[name.rpartition(".")[0]]
            if not _largest(_difference(found, wanted)) <= allowed:
                wrong[name] = _DIFFERS
        return wrong

    def _backward(
        self, pieces: Sequence[Piece], names: tuple[str, ...], inputs: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, str]:
        """Tensors whose sum over all rows, each of them brought to the same length, differs from one backward pass. Rows
        that are said to be zero are summed by themselves."""
        row_lengths = torch.stack([lengths(piece) for piece in pieces]).square().sum(dim=0).sqrt()
        alive = (row_lengths > 0) & row_lengths.isfinite()
        signs = torch.randn(row_lengths.shape, generator=torch.Generator().manual_seed(4)).to(row_lengths.dtype)
        usual = float(row_lengths[alive].median()) if bool(alive.any()) else 1.0
        wrong: dict[str, str] = {}
        for rows, length in ((alive, row_lengths), (~alive, torch.full_like(row_lengths, usual))):
            if bool(rows.any()):
                weights = torch.where(rows, signs / length, torch.zeros_like(signs))
                wrong |= self._unequal(pieces, names, weights, self._weighted_gradients(weights, inputs, labels))
        return wrong

    def _unequal(
        self,
        pieces: Sequence[Piece],
        names: tuple[str, ...],
        weights: torch.Tensor,
        exact: Mapping[str, torch.Tensor],
    ) -> dict[str, str]:
        """Tensors whose rows, summed with weights (b, q), are not `exact`."""
        wrong: dict[str, str] = {}
        for name in names:
            rows = [piece for piece in pieces if piece.name == name]
            wanted = exact[name]
            found = over_rows(rows, weights, len(wanted))
            apart = _largest(_difference(found, wanted))
            if apart <= AGREEMENT[wanted.dtype] * _largest(wanted):
                continue
            size = over_rows([_absolute(row) for row in rows], weights.abs(), len(wanted))
            if not apart <= AGREEMENT[wanted.dtype] * max(_largest(size), ROUNDING[wanted.dtype]):
                wrong[name] = _DIFFERS
        return wrong

    def _weighted_gradients(
        self, weights: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Gradient (m,) of each chosen tensor of the sum of all rows, weighted (b, q)."""
        own = self._own

        def gradients() -> Mapping[str, torch.Tensor]:
            outputs = own.outputs(inputs)
            weight = torch.einsum("qbc,bq->bc", self._cotangents(outputs.detach(), labels), weights.to(outputs))
            for leaf in own.leaves.values():
                leaf.grad = None
            if outputs.requires_grad:
                torch.autograd.backward(outputs, weight)  # a reentrant checkpoint takes no other way
            return {name: gradient_of(leaf).cpu() for name, leaf in own.leaves.items()}

        with own.passing():
            found = own.copy.taken(gradients)
        for leaf in own.leaves.values():
            leaf.grad = None
        return found


def _over_last(tensor: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """The product over the last axis, read in the order in which the tensor lies in memory: no copy is made."""
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=strides.__getitem__, reverse=True)
    lying = tensor.permute(order)
    if not lying.is_contiguous():
        return torch.matmul(tensor, vector)
    last = order.index(tensor.ndim - 1)
    after = math.prod(lying.shape[last + 1 :])
    if after == 1:
        made = lying.reshape(-1, len(vector)) @ vector
    else:
        before = lying.reshape(-1, len(vector), after)
        made = torch.bmm(vector.expand(len(before), 1, -1), before)
    others = [axis for axis in order if axis != tensor.ndim - 1]
    there = made.reshape([tensor.shape[axis] for axis in others])
    return there.permute([others.index(axis) for axis in range(len(others))])


def _sides(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Two vectors (o,) and (i,) whose product is a matrix (o, i); None where there are none."""
    row = int(matrix.abs().amax(dim=1).argmax())
    column = int(matrix[row].abs().argmax())
    largest = matrix[row, column]
    if not float(largest.abs()) > 0:
        return torch.zeros_like(matrix[:, 0]), torch.zeros_like(matrix[0])
    of_outputs, of_inputs = matrix[:, column] / largest, matrix[row]
    apart = _largest(torch.outer(of_outputs, of_inputs) - matrix)
    return (of_outputs, of_inputs) if apart <= 4 * torch.finfo(matrix.dtype).eps * float(largest.abs()) else None


def _absolute(piece: Piece) -> Piece:
    factor = piece.factor
    if isinstance(factor, Dense):
        return replace(piece, factor=Dense(factor.values.abs()))
    a = factor.a if factor.a is None or factor.is_tokens else factor.a.abs()
    return replace(piece, factor=replace(factor, g=factor.g.abs(), a=a))


def _uncancelled(piece: Piece) -> float:
    """The largest entry of a piece's gradient, as if nothing of a sum over positions cancelled."""
    return _largest(_absolute(piece).factor.dense())


def _difference(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """found - wanted, zero where neither is a number and infinite where one of them is none."""
    numbers = found.isfinite(), wanted.isfinite()
    apart = torch.where(numbers[0] & numbers[1], found - wanted, torch.zeros_like(found))
    return torch.where(numbers[0] ^ numbers[1], torch.full_like(apart, torch.inf), apart)


def _largest(values: torch.Tensor) -> float:
    finite = values.abs().nan_to_num(0.0, torch.inf, 0.0) if values.numel() else torch.zeros(1)
    return float(finite.max())
