"""On which axis of a tensor the examples are: asked of gradients whose weight tells the example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

from feature_lens.features.rules import Layout

# Entries below the first share of the largest are noise; the weights of two examples differ by a tenth at least.
_NEGLIGIBLE = {torch.float64: 1e-6, torch.float32: 1e-3}
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}


Gradients = tuple[torch.Tensor | None, ...]


def gradients_by_owner(outputs: torch.Tensor, nodes: Sequence[Any]) -> tuple[Gradients, Gradients]:
    """Gradients of the outputs (b, c), weighted at random, with respect to what each node made; and the same with
    example n weighted n + 1 times."""
    if not nodes:
        return (), ()
    edges = [GradientEdge(node, 0) for node in nodes]
    weights = 1 + torch.rand(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
    owner = torch.arange(1, len(outputs) + 1, dtype=outputs.dtype, device=outputs.device)
    plain, owned = (
        torch.autograd.grad(outputs, edges, own, retain_graph=True, allow_unused=True)
        for own in (weights, weights * owner[:, None])
    )
    return plain, owned


def layouts_of(plain: torch.Tensor | None, owned: torch.Tensor | None, examples: int) -> frozenset[Layout]:
    """The layouts that b examples may have in a tensor, from its gradient and the one with example n weighted n + 1
    times; none where the entries belong to no single example, or are complex, which no rule knows."""
    if plain is None or owned is None or plain.is_complex():
        return frozenset()
    return frozenset(layout for layout in _candidates(plain, examples) if _fits(layout, plain, owned, examples))


def have_owners(plain: torch.Tensor, owned: torch.Tensor) -> bool:
    """Whether each entry belongs to one example, wherever that is: its weight is a whole number."""
    told = plain.abs() > _NEGLIGIBLE.get(plain.dtype, 1e-3) * plain.abs().max()
    weight = (owned / plain)[told]
    return bool(((weight - weight.round()).abs() <= _TOLERANCE.get(plain.dtype, 1e-2)).all())


def _candidates(tensor: torch.Tensor, examples: int) -> list[Layout]:
    found: list[Layout] = []
    for axis, size in enumerate(tensor.shape):
        if size == examples:
            found.append(Layout(axis))
        elif size % examples == 0 and size:
            found += [Layout(axis, size // examples, True), Layout(axis, size // examples, False)]
    return found


def _fits(layout: Layout, plain: torch.Tensor, owned: torch.Tensor, examples: int) -> bool:
    weight = torch.arange(1, examples + 1, dtype=plain.dtype, device=plain.device)
    one, other = layout.split(plain), layout.split(owned)
    wanted = one * weight.reshape(-1, *[1] * (one.ndim - 1))
    largest = float(one.abs().nan_to_num().max()) if one.numel() else 0.0
    told = one.abs() > _NEGLIGIBLE.get(plain.dtype, 1e-3) * largest
    return bool(((other - wanted).abs()[told] <= _TOLERANCE.get(plain.dtype, 1e-2) * wanted.abs()[told]).all())
