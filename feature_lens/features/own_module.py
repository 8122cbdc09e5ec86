"""Passes through a private copy of a network's module, whose parameters can be differentiated or moved."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch.autograd import forward_ad
from torch.func import functional_call

from feature_lens.features.module_copy import ModuleCopy
from feature_lens.networks import Network
from feature_lens.networks.network import Params


class Along(Protocol):
    """What moves the parameters of a module from row to row while it runs."""

    def bind(self, module: torch.nn.Module) -> None:
        """Take the module."""

    def over(self, rows: int) -> AbstractContextManager[Any]:
        """The context of a pass of so many rows."""


class OwnModule:
    """A copy of a network's module at `params`, of which the tensors `chosen` are leaves that want gradients.

    `along` moves the parameters from row to row. The copy is made when it is first needed.
    """

    def __init__(self, network: Network, params: Params, chosen: tuple[str, ...], along: Along | None = None) -> None:
        self.network, self.params, self.chosen, self.along = network, params, chosen, along
        self.is_twin = False
        self.fused_recurrence = True
        self.n_outputs = 0
        self._copy: ModuleCopy | None = None

    @property
    def leaves(self) -> dict[str, torch.nn.Parameter]:
        """The chosen tensors, by name."""
        return self.copy.leaves

    @property
    def copy(self) -> ModuleCopy:
        """The copy of the module."""
        if self._copy is None:
            self._copy = ModuleCopy(self.network, self.params, self.chosen)
            if self.along is not None:
                self.along.bind(self._copy.module)
        return self._copy

    def move(self, params: Params) -> None:
        """Be at other parameters from now on."""
        self.params = params
        if self._copy is not None:
            self._copy.place(params)

    def twin(self) -> OwnModule:
        """Another with a module of its own, for a thread of its own; whoever runs it holds warnings back."""
        twin = copy.copy(self)
        twin._copy, twin.is_twin = None, True
        return twin

    @contextmanager
    def passing(self) -> Iterator[None]:
        """What surrounds a pass that leaves a graph."""
        if self.is_twin:
            with torch.enable_grad():
                yield
            return
        with torch.enable_grad(), self._recurrence(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            yield

    def _recurrence(self) -> AbstractContextManager[None]:
        plain: AbstractContextManager[None] = torch.backends.mkldnn.flags(enabled=False)
        return nullcontext() if self.fused_recurrence else plain

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs (b, c) with the graph that leads to the leaves."""
        with nullcontext() if self.along is None else self.along.over(len(inputs)):
            outputs = self.copy.outputs(inputs)
        self.n_outputs = int(outputs.shape[1])
        return outputs

    def tangents(
        self, inputs: torch.Tensor, direction: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs (b, c) and their derivative along a direction of the chosen tensors, (b, c), in forward mode.

        Raises whatever torch raises where an operation has no forward mode. Cost: about three forward passes.
        """
        self.copy.restore()
        with ExitStack() as around:
            around.enter_context(torch.no_grad())
            if not self.is_twin:
                around.enter_context(self._recurrence())
                around.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            around.enter_context(_DUAL_LEVEL)
            duals = {
                name: _DUAL.make_dual(leaf.detach(), direction[name].reshape(leaf.shape), level=0)
                for name, leaf in self.leaves.items()
            }
            placed = {at: duals[name] for at, name in self.network.places if name in duals}
            made = functional_call(self.copy.module, placed, (inputs.clone(),), tie_weights=False)
            outputs, tangent = _DUAL.unpack_dual(made, level=0)
            tangent = torch.zeros_like(outputs) if tangent is None else tangent
            rows = (outputs[:, None], tangent[:, None]) if outputs.ndim == 1 else (outputs, tangent)
            return rows[0].clone(), rows[1].clone()


class _DualLevel:
    """torch has one level of forward mode for all threads: the first that needs it enters, the last one leaves."""

    def __init__(self) -> None:
        self._lock, self._depth = threading.Lock(), 0
        self._level = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._level = ExitStack()
                self._level.enter_context(forward_ad.dual_level())
            self._depth += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._level.close()


_DUAL_LEVEL = _DualLevel()
# Functions of torch that have no types.
_DUAL: Any = forward_ad
