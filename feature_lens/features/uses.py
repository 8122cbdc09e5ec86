"""Every use of every parameter, read from the graph that a forward pass left behind.

Autograd must know each place where a parameter enters, or it could not differentiate: its graph is the one complete
account of weights shared over positions, modules called twice, tied tensors and functional calls alike.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

import torch

from feature_lens.features.rules import NoRule

# Nodes that only move entries about; what they do to a parameter is asked of themselves, see `entries_of`.
_MOVES: Final = frozenset(
    f"{name}Backward{number}"
    for name in (
        *("T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Select", "Slice"),
        *("Split", "SplitWithSizes", "Unbind", "Clone", "Alias", "Diagonal", "Flip", "Narrow", "Movedim"),
    )
    for number in range(3)
)
# Nodes that move entries of a parameter where what they look up is the same for every example.
SELECTS: Final = frozenset({"EmbeddingBackward0", "IndexBackward0", "IndexSelectBackward0"})
_LEAF: Final = "torch::autograd::AccumulateGrad"

Moves = tuple[tuple[Any, int], ...]


@dataclass(frozen=True)
class Found:
    """A parameter at slot `slot` of a node, after `moves`, from the parameter on. `number` counts the places where
    parameters enter the graph; moves may lead from one to several nodes."""

    name: str
    number: int
    node: Any
    slot: int
    moves: Moves

    @property
    def kind(self) -> str:
        return str(self.node.name())

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what the node made."""
        return tuple(int(size) for size in self.node._input_metadata[0].shape)

    @property
    def signature(self) -> tuple[Any, ...]:
        """What must be the same for two passes to be of one form."""
        return self.name, self.number, self.kind, self.slot


def find_uses(outputs: torch.Tensor, leaves: dict[int, str], selecting: frozenset[int] = frozenset()) -> list[Found]:
    """Uses of the leaves (id of tensor -> name) in the graph of `outputs`, in an order that the graph alone decides.

    `selecting`: numbers of the uses whose look-up only moves entries, since it is the same for every example.
    Cost: the size of the graph.
    """
    if outputs.grad_fn is None:
        return []
    seen = {outputs.grad_fn}
    stack = [outputs.grad_fn]
    consumers: dict[Any, list[tuple[Any, int, int]]] = defaultdict(list)
    entering: list[tuple[str, Any, int]] = []
    while stack:
        node = stack.pop()
        for slot, (above, number) in enumerate(node.next_functions):
            if above is None:
                continue
            if above.name() == _LEAF:
                leaf = id(getattr(above, "variable", None))
                if leaf in leaves:
                    entering.append((leaves[leaf], node, slot))
                continue
            consumers[above].append((node, slot, number))
            if above not in seen:
                seen.add(above)
                stack.append(above)
    found: list[Found] = []
    for number, (name, node, slot) in enumerate(entering):
        moving = _MOVES | SELECTS if number in selecting else _MOVES
        for end, end_slot, moves in _ends(node, slot, (), consumers, moving):
            found.append(Found(name, number, end, end_slot, moves))
    return found


def _ends(
    node: Any, slot: int, moves: Moves, consumers: dict[Any, list[tuple[Any, int, int]]], moving: frozenset[str]
) -> list[tuple[Any, int, Moves]]:
    """Where what enters a node at a slot is first computed with."""
    if node.name() not in moving:
        return [(node, slot, moves)]
    ends: list[tuple[Any, int, Moves]] = []
    for user, user_slot, output in consumers[node]:
        ends += _ends(user, user_slot, (*moves, (node, output)), consumers, moving)
    return ends


def moved_shape(found: Found, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the parameter where the node took it; `shape` is its own."""
    if not found.moves:
        return shape
    node, output = found.moves[-1]
    return tuple(int(size) for size in node._input_metadata[output].shape)


def entries_of(found: Found, shape: tuple[int, ...], device: torch.device) -> torch.Tensor | None:
    """Flat entry of the parameter for each entry of what the node took, (m,); None where they are the same.

    The moving nodes themselves, on their `device`, say where each entry goes back to. Raises NoRule where they do anything but move.
    """
    if not found.moves:
        return None
    taken = moved_shape(found, shape)
    m = int(torch.Size(taken).numel())
    counted = torch.arange(1, m + 1, dtype=torch.float64, device=device).reshape(taken)
    for node, output in reversed(found.moves):
        outputs = [counted if place == output else None for place in range(len(node._input_metadata))]
        counted = node(*outputs)
        counted = counted[0] if isinstance(counted, tuple) else counted
    back = counted.cpu().to(torch.float64).flatten()
    places = torch.nonzero(back).flatten()
    numbers = back[places]
    whole = len(places) == m and bool(((numbers >= 1) & (numbers <= m) & (numbers == numbers.round())).all())
    entries = torch.full((m,), -1)
    if whole:
        entries[numbers.long() - 1] = places
    if not whole or bool((entries < 0).any()):
        raise NoRule("its entries are not only moved before they are used")
    return None if m == back.numel() and torch.equal(entries, torch.arange(m)) else entries
