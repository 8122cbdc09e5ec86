"""Jacobians of a tile of examples, by the first way that works on the network at hand.

The ladder: `torch.func.vmap` of `jacrev` over examples; where that raises, warns that a batching rule is missing, or
gives another answer for the first example than autograd does, a loop of autograd over examples and outputs. The step
taken is logged and kept as a remark of the run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
from torch.func import jacrev, vmap

from feature_lens.errors import NetworkError, in_brief
from feature_lens.features.module_copy import ModuleCopy
from feature_lens.features.reductions import Reduction
from feature_lens.networks import Network
from feature_lens.networks.network import Params
from feature_lens.networks.scrutiny import refuse_written

_LOG = logging.getLogger("feature_lens")
# Relative difference from autograd that rounding may make.
AGREEMENT = {torch.float64: 1e-8, torch.float32: 1e-3}
# What vmap says of passes whose way or sizes depend on numbers that it hides.
_BY_DATA = ("data-dependent control flow", "dynamic shape", "stack expects each tensor to be equal size")


class Jacobian:
    """d reduce(f(x; theta)) / d theta for tiles of examples, at fixed parameters.

    `chosen` names the tensors of theta that are differentiated. `own`: a copy of the network's module at these
    parameters, made when it is needed without. Cost per tile of b examples with q quantities:
    b*q backward passes, and b*q*p numbers.
    """

    def __init__(
        self,
        network: Network,
        params: Params,
        reduction: Reduction,
        chosen: tuple[str, ...],
        own: ModuleCopy | None = None,
    ) -> None:
        self._network = network
        self._params = params
        self._reduction = reduction
        self.chosen = chosen
        self._own = own
        self.step = "vmap"
        self.remarks: tuple[str, ...] = ()
        self._verified = False

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(b, ...) inputs and (b,) labels -> (b, q, p), on the CPU."""
        if self.step == "vmap":
            found = self._tried_vmap(inputs, labels)
            if found is not None:
                return found.cpu()
        return self.exact(inputs, labels)

    def exact(self, inputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """The same by a loop of autograd over examples and quantities; with weights (q,) of the sum of the weighted
        quantities alone, (b, 1, p)."""
        return self._copy().taken(lambda: self._loop(inputs, labels, weights)).cpu()

    def move(self, params: Params) -> None:
        """Be at other parameters from now on."""
        self._params = params
        if self._own is not None:
            self._own.place(params)

    def _tried_vmap(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
        exact = None if self._verified else lambda: self._loop(inputs[:1], labels[:1])
        self._verified = True
        return believed(lambda: self._vmap(inputs, labels), exact, self.descend)

    def descend(self, reason: str) -> None:
        """Take the loop from now on."""
        self.step = "loop"
        remark = f"Gradients by a loop of autograd instead of vmap ({reason})."
        self.remarks = (remark,)
        _LOG.info(remark)

    def _vmap(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        rest = {key: value for key, value in self._params.items() if key not in self.chosen}

        def quantities(params: Params, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return self._reduction.reduce(self._network(params | rest, x[None])[0], label)

        chosen = {key: self._params[key] for key in self.chosen}
        parts = vmap(jacrev(quantities), in_dims=(None, 0, 0))(chosen, inputs, labels)
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts.values()], dim=2)

    def _loop(self, inputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """One backward pass per example and quantity, through the module's own parameters: a checkpointed block
        runs its forward again during backward, when swapped-in parameters would be gone."""
        own = self._copy()
        leaves = dict(own.module.named_parameters())
        rows: list[torch.Tensor] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            for x, label in zip(inputs, labels, strict=True):
                outputs = own.outputs(x[None])
                quantities = self._reduction.reduce(outputs[0], label)
                for quantity in quantities if weights is None else (weights.to(quantities) @ quantities)[None]:
                    for leaf in leaves.values():
                        leaf.grad = None
                    if quantity.requires_grad:
                        torch.autograd.backward(quantity, retain_graph=True)
                    rows.append(torch.cat([gradient_of(leaves[key]) for key in self.chosen]))
        for leaf in leaves.values():
            leaf.grad = None
        refuse_written(self._params, dict(leaves))
        return torch.stack(rows).reshape(len(inputs), -1, rows[0].shape[0])

    def _copy(self) -> ModuleCopy:
        if self._own is None:
            self._own = ModuleCopy(self._network, self._params, tuple(self._params))
        return self._own


def gradient_of(leaf: torch.nn.Parameter) -> torch.Tensor:
    """The gradient (m,) that backward passes left at a leaf, zero where they did not reach it; that of a look-up that
    gives sparse ones in full."""
    if leaf.grad is None:
        return torch.zeros_like(leaf.detach()).reshape(-1)
    grad = leaf.grad.detach()
    return (grad if grad.layout == torch.strided else grad.to_dense()).reshape(-1)


def believed(
    together: Callable[[], torch.Tensor],
    exact: Callable[[], torch.Tensor] | None,
    refuse: Callable[[str], None],
) -> torch.Tensor | None:
    """What examples give together under vmap; None, after `refuse` was told why, where it raises, lacks a batching rule,
    or differs from what autograd gives for the first of them (`exact`, None where that was seen before)."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = together()
    except NetworkError:
        raise
    except Exception as error:  # noqa: BLE001  # a net may do anything under vmap; the reason is recorded and logged
        by_data = any(words in str(error) for words in _BY_DATA)
        refuse("what is run depends on the data" if by_data else f"{type(error).__name__}: {in_brief(error)}")
        return None
    if any("batching rule" in str(warning.message) for warning in caught):
        refuse("a batching rule is missing")
        return None
    if exact is not None:
        wanted = exact()
        apart = float((found[:1] - wanted).abs().nan_to_num().max())
        if apart > AGREEMENT[found.dtype] * max(float(wanted.abs().nan_to_num().max()), 1e-30):
            refuse(f"it differs from autograd by {apart:.2g} on the first example")
            return None
    return found
