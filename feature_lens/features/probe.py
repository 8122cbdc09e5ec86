"""What a network's first pass tells: where its parameters are used, and where the examples are in what was made there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.autograd.function import BackwardCFunction

from feature_lens.features.layouts import gradients_by_owner, have_owners, layouts_of
from feature_lens.features.own_module import OwnModule
from feature_lens.features.rules import RULES, Layout
from feature_lens.features.uses import SELECTS, Found, find_uses

# Prime numbers of examples: few axes have a size that they divide by chance, and none does for all of them.
_COUNTS = (11, 13, 7)
PROBED = _COUNTS[0]


@dataclass(frozen=True)
class KnownUse:
    """A use of a parameter by its signature, the layout of the examples there, and the number of its gradient: equal
    where autograd handed the same tensor on."""

    name: str
    signature: tuple[object, ...]
    layout: Layout
    gradient: int


@dataclass
class Probe:
    """Uses of parameters that layer rules take, look-ups that only move entries, and tensors that no rule takes, each
    with the reason in words that follow 'because'."""

    uses: list[KnownUse] = field(default_factory=list)
    selecting: frozenset[int] = frozenset()
    fallen: dict[str, str] = field(default_factory=dict)


def uses_in(own: OwnModule, outputs: torch.Tensor, selecting: frozenset[int]) -> list[Found]:
    """Uses of the chosen tensors in the graph of outputs."""
    return find_uses(outputs, {id(leaf): name for name, leaf in own.leaves.items()}, selecting)


def probe(own: OwnModule, inputs: torch.Tensor) -> Probe:
    """Run a few examples, over and over where they are few. Cost: three passes, more where layouts are ambiguous."""
    made = Probe()
    few = _repeated(inputs, PROBED)
    if own.fused_recurrence:
        with own.passing():
            fused = any("MkldnnRnn" in use.kind for use in uses_in(own, own.outputs(few), frozenset()))
        own.fused_recurrence = not fused  # the fused recurrence hides its steps; the plain one shows them
    with own.passing():
        outputs = own.outputs(few)
        if _hides(outputs):
            seen = {use.name for use in uses_in(own, outputs, frozenset())}
            hidden = "a function written in Python may hide where it is used"
            made.fallen = {name: hidden for name in own.chosen if name not in seen}
        while True:
            uses = uses_in(own, outputs, made.selecting)
            plain, owned = gradients_by_owner(outputs, [use.node for use in uses])
            fitting = [layouts_of(one, other, PROBED) for one, other in zip(plain, owned, strict=True)]
            # A look-up that is the same for all examples only moves entries: the use is further on.
            pairs = zip(uses, fitting, plain, strict=True)
            extended = {
                use.number for use, layouts, g in pairs if not layouts and g is not None and use.kind in SELECTS
            }
            if extended <= made.selecting:
                break
            made.selecting |= extended
    fitting = _narrowed(own, inputs, made.selecting, uses, fitting)
    for use, layouts, gradient, g, owner in zip(uses, fitting, numbered(plain), plain, owned, strict=True):
        if g is None:
            made.fallen.setdefault(use.name, "it has no gradient for the examples tried")
        elif len(layouts) != 1:
            made.fallen.setdefault(use.name, _unowned(use, bool(layouts), g, owner))
        elif use.kind not in RULES:
            made.fallen.setdefault(use.name, f"there is no layer rule for {use.kind}")
        else:
            made.uses.append(KnownUse(use.name, use.signature, next(iter(layouts)), gradient))
    made.uses = [use for use in made.uses if use.name not in made.fallen]
    return made


def _unowned(use: Found, is_ambiguous: bool, plain: torch.Tensor, owned: torch.Tensor | None) -> str:
    """Why the rows of what a use made are not those of the examples, in order."""
    if is_ambiguous:
        return "its gradient does not tell the examples apart"
    if plain.is_complex():
        return f"its use in {use.kind} made complex numbers"
    if owned is None or not have_owners(plain, owned):
        return f"its use in {use.kind} made what examples share"
    if max(use.output_shape, default=0) < PROBED:
        return f"its use in {use.kind} made fewer rows than there are examples"
    return f"its use in {use.kind} made rows that are not those of the examples in their order"


def _narrowed(
    own: OwnModule,
    inputs: torch.Tensor,
    selecting: frozenset[int],
    uses: Sequence[Found],
    fitting: Sequence[frozenset[Layout]],
) -> list[frozenset[Layout]]:
    """The layouts that also fit other numbers of examples, where several do: of 12 positions with a gradient at one
    of them, 11 examples may be told apart in two ways, 13 in one."""
    left = list(fitting)
    for count in _COUNTS[1:]:
        if all(len(layouts) < 2 for layouts in left):
            break
        with own.passing():
            outputs = own.outputs(_repeated(inputs, count))
            again = uses_in(own, outputs, selecting)
            if [use.signature for use in again] != [use.signature for use in uses]:
                continue  # the graph depends on the number of examples: every tile will say so
            pairs = gradients_by_owner(outputs, [use.node for use in again])
        for at, (plain, owned) in enumerate(zip(*pairs, strict=True)):
            if len(left[at]) > 1:
                left[at] &= layouts_of(plain, owned, count)
    return left


def numbered(gradients: Sequence[torch.Tensor | None]) -> list[int]:
    """Equal numbers for equal tensors: autograd hands one tensor on where a node passes its gradient through."""
    numbers: dict[tuple[object, ...], int] = {}
    return [
        -1 - at if g is None else numbers.setdefault((g.data_ptr(), tuple(g.shape), g.stride()), len(numbers))
        for at, g in enumerate(gradients)
    ]


def _repeated(inputs: torch.Tensor, count: int) -> torch.Tensor:
    return inputs[torch.arange(count) % len(inputs)]


def _hides(outputs: torch.Tensor) -> bool:
    """Whether a function written in Python is in the graph, which may use parameters that autograd cannot see."""
    seen, stack = {outputs.grad_fn}, [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if isinstance(node, BackwardCFunction):
            return True
        for above, _ in node.next_functions if node is not None else ():
            if above is not None and above not in seen:
                seen.add(above)
                stack.append(above)
    return False
