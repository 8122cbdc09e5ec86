"""The hidden layers of a network, found for the examples that reach them, and which of them can be shown.

The values of a layer are those of examples only where they come in one row for each. Which examples reach a layer may
depend on the data (experts, early exits): each layer is described as it is called for an example that reaches it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from feature_lens.errors import FeatureLensError, NetworkError, in_brief
from feature_lens.examples import Examples
from feature_lens.features.layer_trace import (
    Call,
    Trace,
    is_hidden_leaf,
    label_of,
    traced,
    unit_axis,
    weight_modules,
)
from feature_lens.networks import Network
from feature_lens.networks.passes import one_pass

_TILE = 32


@dataclass(frozen=True)
class LayerInfo:
    """A hidden layer: its module path and class, whether its values are before or after a non-linearity, how many
    units it has along which axis, the shape it is reduced over, and why it cannot be shown where it cannot. `alone`:
    only where one example is run at a time."""

    name: str
    kind: str
    label: str
    width: int
    unit_axis: int
    positions: tuple[int, ...]
    remark: str = ""
    usable: bool = True
    alone: bool = False

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of the values of one example."""
        return (*self.positions[: self.unit_axis - 1], self.width, *self.positions[self.unit_axis - 1 :])


def trace_layers(
    network: Network, examples: Examples, every: bool = False, wanted: str | None = None
) -> list[LayerInfo]:
    """Every hidden leaf layer that some example reaches, in the order of its first return for the first example, then
    those that this one does not reach; `every` adds what is left out. Examples are looked through until one
    reaches the layer `wanted`; all of them without.

    Left out: containers, layers that only reshape or drop, parametrizations of weights, and the layer whose output is
    the network's own. A layer that is called more than once for an example, returns anything but one tensor of real
    numbers, or does not put the batch first is listed as not usable with a remark. A module under several names goes
    by its first.

    Raises what `Network.check` raises, and NetworkError where the forward fails while it is followed. Cost: that of the
    check, one forward pass of all examples, three of one to three, and where layers are reached by some examples alone
    one for each example of the tiles that reach them first.
    """
    network.check(examples)
    try:
        with one_pass():
            return list(_reached(network, examples, every, wanted).values())
    except FeatureLensError:
        raise
    except Exception as error:  # the user's forward may raise anything while it is followed; told in one sentence
        raise NetworkError(
            f"The layers of the network could not be followed ({type(error).__name__}: {in_brief(error)}); take out of its "
            "forward what cannot run under hooks, or do without neurons."
        ) from error


def _reached(network: Network, examples: Examples, every: bool, wanted: str | None) -> dict[str, LayerInfo]:
    """Layers by name, from one example for each of those that the first does not reach."""
    found, known = _described_on(network, network.tensor(examples.inputs[:1]), every)
    for start in range(0, len(examples), _TILE):
        if wanted in found:
            break
        inputs = network.tensor(np.asarray(examples.inputs[start : start + _TILE]))
        new = called(network, inputs) - known
        for place in range(len(inputs)):
            one = inputs[place : place + 1]
            if not new:
                break
            if called(network, one) & new:
                more, seen = _described_on(network, one, every)
                found |= {name: info for name, info in more.items() if name in new}
                known |= seen
                new -= seen
        known |= new  # called for a tile, but for none of its examples alone
    return found


def called(network: Network, inputs: torch.Tensor) -> set[str]:
    """Names of the modules that a pass calls with at least one row."""
    names: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        def leave(_module: nn.Module, _args: Any, output: Any) -> None:
            if not is_empty(output):
                names.add(name)

        return leave

    hooks = [part.register_forward_hook(note(name)) for name, part in network.module.named_modules() if name]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            network(network.trained, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return names


def is_empty(output: Any) -> bool:
    """Whether a layer was called with no rows at all, as those are whose examples all went another way."""
    return isinstance(output, torch.Tensor) and output.numel() == 0


def _described_on(network: Network, one: torch.Tensor, every: bool) -> tuple[dict[str, LayerInfo], set[str]]:
    """What there is to say of the layers that one example (1, ...) reaches, and the names of all these layers.

    The example is run alone, twice and three times in a batch: so all rows take the same way, and the second batch size
    tells an axis that is the batch from one that happens to be as long.
    """
    passes = [
        _Pass.of(traced(network, one.expand(times, *one.shape[1:]).contiguous().clone()), times) for times in (1, 2, 3)
    ]
    weights = weight_modules(network.module)
    batch = passes[1]
    found: dict[str, LayerInfo] = {}
    for name, calls in batch.calls.items():
        if every or is_hidden_leaf(calls[-1], batch.trace, weights):
            found[name] = _described(network.module, name, passes)
    return found, set(batch.calls)


@dataclass(frozen=True)
class _Pass:
    """What one pass of so many equal examples called, but for what was called with no rows."""

    trace: Trace
    n: int
    calls: dict[str, list[Call]]

    @classmethod
    def of(cls, trace: Trace, n: int) -> _Pass:
        calls: dict[str, list[Call]] = {}
        for call in trace.calls:
            if not is_empty(call.output):
                calls.setdefault(call.name, []).append(call)
        return cls(trace, n, calls)

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """Shapes of what a layer returned, call by call; () for what is no tensor."""
        return [self.trace.shapes.get(call.key, ()) for call in self.calls.get(name, [])]

    def rows(self, name: str) -> int:
        """Rows of all calls together."""
        return sum(shape[0] for shape in self.shapes(name) if shape)


def _described(module: nn.Module, name: str, passes: list[_Pass]) -> LayerInfo:
    alone, batch, _ = passes
    calls = batch.calls[name]
    kind = parametrize.type_before_parametrizations(calls[-1].module).__name__

    def refused(remark: str) -> LayerInfo:
        return LayerInfo(name, kind, "activation", 0, 0, (), remark, usable=False)

    if not isinstance(calls[-1].output, torch.Tensor):
        return refused(f"it returns a {type(calls[-1].output).__name__}, not one tensor")
    shape = batch.shapes(name)[-1]
    in_batch = all(one.shapes(name)[-1:] == [(one.n, *shape[1:])] for one in passes[1:])
    # A forward may call it for one example after the other, and then does so once for one alone.
    by_itself = all(one.rows(name) == one.n for one in passes) and len(alone.shapes(name)) == 1
    if len(shape) < 2 or not (in_batch or by_itself):
        return refused(f"its output of shape {shape} does not have one row per example")
    source = batch if in_batch else alone
    call = source.calls[name][-1]
    if call.output.is_complex():
        return refused("it returns complex numbers")
    label, remark = label_of(call, source.trace)
    axis = unit_axis(call, source.trace)
    shape = source.shapes(name)[-1]
    positions = tuple(size for place, size in enumerate(shape) if place not in (0, axis))
    often = len(source.calls[name])
    if often > 1:
        names = [one for one, part in module.named_modules(remove_duplicate=False) if part is call.module]
        under = f" (under the names {' and '.join(names)})" if len(names) > 1 else ""
        remark = f"it is called {often} times in one pass{under}, and only the last call could be shown"
    return LayerInfo(name, kind, label, shape[axis], axis, positions, remark, often == 1, alone=not in_batch)
