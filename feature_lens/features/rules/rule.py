"""The contract of a layer rule: what one use of a parameter gives for every example, without its gradient summed.

A forward pass leaves autograd's graph. A node of it that takes a parameter is one *use*; the gradient that flows into
the node, example by example, and the tensors that the node saved are all that a rule needs. To add a rule, decorate
a function with `@RULES.register("<name of the node>")` in a module of this folder; the conformance test then asks for
a network that needs it. A use that no rule takes makes its parameter fall down the ladder of `features/jacobian.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from feature_lens.registry import Registry


class NoRule(Exception):
    """Why a rule does not apply to a use, in words that follow 'because'; never leaves the engine."""


@dataclass(frozen=True)
class GradientId:
    """Which tensor a factor's g is: equal where and only where the numbers are the same, in the same arrangement.

    node: number of the gradient among those of a pass; two nodes have one number where autograd handed the same tensor
    on. arrangement: what a rule did to bring it into the form (b, q, t, o). scale: what it was multiplied by.
    """

    node: int
    arrangement: tuple[str | int, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True)
class Outer:
    """phi[n, j, o, i] = sum_t g[n, j, t, o] a[n, t, i], the form of every linear map shared over positions t.

    g (b, q, t, o): output gradients. a: inputs (b, t, i); or tokens (b, t) of `n_in` kinds, which stand for one-hot
    rows; or None for ones (a bias, i = 1). Entry (o, i) is the parameter's entry o * i in C order as the node saw it,
    of (i, o) if `transposed`, `offset` further on. `gradients` are equal where g is the same tensor: one identity, or
    those of all parts that were joined over positions.
    """

    g: torch.Tensor
    a: torch.Tensor | None
    n_in: int
    gradients: tuple[GradientId, ...]
    transposed: bool = False
    offset: int = 0

    def entries(self) -> torch.Tensor | None:
        """Place (o, i) of each entry in the parameter as the node saw it; None where they are all of it in order."""
        o, i = self.g.shape[3], self.n_in
        if not self.transposed and not self.offset:
            return None
        every = torch.arange(o * i) + self.offset
        return every.reshape(i, o).T if self.transposed else every.reshape(o, i)

    @property
    def is_tokens(self) -> bool:
        return self.a is not None and self.a.ndim == 2

    def dense(self) -> torch.Tensor:
        """Per-example gradients (b, q, o * i) in the order of o and i. Cost b q t o i."""
        b, q, t, o = self.g.shape
        if self.a is None:
            return self.g.sum(dim=2)
        if self.is_tokens:
            rows = self.g.new_zeros(b, q, self.n_in, o)
            at = self.a[:, None, :, None].expand(b, q, t, o)
            return rows.scatter_add_(2, at, self.g).transpose(2, 3).flatten(2)
        a = self.a
        if t == 1:
            return (self.g[:, :, 0, :, None] * a[:, None, 0, None, :]).reshape(b, q, -1)
        rows = self.g.transpose(2, 3).reshape(b, q * o, t)
        return torch.bmm(rows, a).reshape(b, q, -1)


@dataclass(frozen=True)
class Dense:
    """Per-example gradients themselves: values (b, q, m) in the order in which the node saw the parameter."""

    values: torch.Tensor

    def entries(self) -> torch.Tensor | None:
        return None

    def dense(self) -> torch.Tensor:
        return self.values


Factor = Outer | Dense


@dataclass(frozen=True)
class Layout:
    """Where the examples are in a node's output: on `axis`, of size b * m, example-major or position-major."""

    axis: int
    positions: int = 1
    example_major: bool = True

    def split(self, tensor: torch.Tensor, lead: int = 0) -> torch.Tensor:
        """Examples to the front; the axis keeps the m positions: (lead.., s0, .., b*m, ..) -> (b, lead.., s0, .., m, ..)."""
        axis = self.axis + lead
        b = tensor.shape[axis] // self.positions
        sizes = (b, self.positions) if self.example_major else (self.positions, b)
        split = tensor.reshape(*tensor.shape[:axis], *sizes, *tensor.shape[axis + 1 :])
        return split.movedim(axis if self.example_major else axis + 1, 0)


@dataclass(frozen=True)
class Use:
    """One use of a parameter: the node, which of its inputs the parameter is, the shape it has there, its number among
    the uses of a network, and the number of the gradient of what the node made."""

    node: Any
    slot: int
    shape: tuple[int, ...]
    layout: Layout
    number: int = 0
    gradient: int = 0

    def arranged(self, *arrangement: str | int) -> tuple[GradientId, ...]:
        """Identity of the gradient after a rule brought it into an arrangement."""
        return (GradientId(self.gradient, arrangement),)


Rule = Callable[[Use, torch.Tensor], list[Factor]]

RULES: Final[Registry[Rule]] = Registry("layer rule")


def _own_axes(use: Use, ndim: int) -> list[int]:
    """Axes of a node's output on which the parameter has entries, not broadcast. Raises NoRule where one of them
    is that of the examples."""
    sizes = (1,) * (ndim - len(use.shape)) + use.shape
    if sizes[use.layout.axis] != 1:
        raise NoRule("it has an entry of its own for each example")
    return [axis for axis in range(ndim) if sizes[axis] != 1]


def added(use: Use, g: torch.Tensor) -> Outer:
    """The factor of a parameter that was broadcast and added: g (q, *shape of the output).

    The last axis of its own is o, all others are positions; those of its own among them count as tokens.
    """
    split = use.layout.split(g, lead=1)  # (b, q, *shape)
    ndim = split.ndim - 2
    own = _own_axes(use, ndim)
    last = own[-1] if own else ndim - 1
    others = [axis for axis in range(ndim) if axis != last]
    if not own:
        return Outer(split.flatten(2)[..., None], None, 1, use.arranged("one number"))
    arranged = split.permute(0, 1, *(axis + 2 for axis in others), last + 2)
    sizes = arranged.shape[2:-1]
    rows = arranged.flatten(2, -2) if ndim > 1 else arranged[:, :, None]
    gradients = use.arranged() if last == ndim - 1 else use.arranged("last axis", last)
    if len(own) == 1:
        return Outer(rows, None, 1, gradients)
    kinds = torch.zeros(1, dtype=torch.long)
    total = 1
    for axis, size in zip(others, sizes, strict=True):
        of_axis = torch.arange(size) if axis in own else torch.zeros(size, dtype=torch.long)
        count = size if axis in own else 1
        kinds, total = (kinds[:, None] * count + of_axis).flatten(), total * count
    return Outer(rows, kinds.expand(rows.shape[0], -1), total, gradients, transposed=True)


def multiplied(use: Use, products: torch.Tensor) -> Dense:
    """The factor of a parameter that was broadcast and multiplied in: products (q, *shape) of g with what it met."""
    split = use.layout.split(products, lead=1)
    ndim = split.ndim - 2
    own = _own_axes(use, ndim)
    summed = [axis + 2 for axis in range(ndim) if axis not in own]
    total = split.sum(dim=summed) if summed else split
    return Dense(total.reshape(*split.shape[:2], -1))


def scaled(factor: Factor, scale: float) -> Factor:
    """The factor times a number."""
    if scale == 1:
        return factor
    if isinstance(factor, Dense):
        return replace(factor, values=factor.values * scale)
    gradients = tuple(replace(own, scale=own.scale * scale) for own in factor.gradients)
    return replace(factor, g=factor.g * scale, gradients=gradients)


def contracted(factor: Factor, weights: torch.Tensor) -> Factor:
    """The factor of the sum of the quantities with weights (q,): one quantity."""
    if isinstance(factor, Dense):
        return Dense(torch.einsum("bqm,q->bm", factor.values, weights.to(factor.values.dtype))[:, None])
    return replace(factor, g=torch.einsum("bqto,q->bto", factor.g, weights.to(factor.g.dtype))[:, None])
