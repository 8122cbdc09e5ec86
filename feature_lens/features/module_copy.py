"""A private copy of a network's module at some parameters, which is as it was before every pass."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from feature_lens.errors import NetworkError, in_brief, refuse_out_of_memory
from feature_lens.networks import Network
from feature_lens.networks.held import Held
from feature_lens.networks.network import Params, copied

T = TypeVar("T")
_LOG = logging.getLogger("feature_lens")


class ModuleCopy:
    """A copy of a network's module with the parameters `params`, of which those of `chosen` want gradients."""

    def __init__(self, network: Network, params: Params, chosen: tuple[str, ...]) -> None:
        self._network = network
        self.module = copied(network.module)
        self.place(params)
        self.leaves: dict[str, torch.nn.Parameter] = {}
        for name, parameter in self.module.named_parameters():
            if name in chosen:
                parameter.requires_grad_(True)
                self.leaves[name] = parameter
        self._held = Held(self.module)
        self._inputs_too = True

    def place(self, params: Params) -> None:
        """Be at other parameters from now on."""
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if name in params:
                    parameter.copy_(params[name])

    def restore(self) -> None:
        """Undo what the last forward left on the module and wrote into buffers, so that no row depends on those before
        it."""
        self._held.put_back()
        names, made = dict(self._network.places), dict[str, torch.Tensor]()
        with torch.no_grad():
            for path, part in self.module.named_modules():
                for key, buffer in part._buffers.items():
                    if buffer is None:
                        continue
                    name = names[f"{path}.{key}" if path else key]
                    wanted = self._network.constants[name]
                    # One that was computed still hangs on what it was computed from.
                    if buffer.requires_grad or buffer.shape != wanted.shape or wanted.layout != torch.strided:
                        part._buffers[key] = made.setdefault(name, wanted.clone())
                    else:
                        buffer.copy_(wanted)

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs (b, c) of a pass that leaves a graph where gradients are on."""
        return self._with_or_without(lambda: self._run(inputs))

    def taken(self, work: Callable[[], T]) -> T:
        """Gradients as `work` takes them, all the way back through passes of this module. Raises NetworkError where they
        cannot be taken."""
        try:
            return self._with_or_without(work)
        except NetworkError:
            raise
        except Exception as error:  # the user's forward may raise anything in backward; told in one sentence
            refuse_out_of_memory(error)
            raise NetworkError(
                f"Gradients of the network could not be taken ({type(error).__name__}: {in_brief(error)}); "
                "check that autograd can go back through its forward."
            ) from error

    def _with_or_without(self, work: Callable[[], T]) -> T:
        """What `work` returns where inputs want gradients, or, where it fails so, where they want none: a reentrant
        checkpoint passes gradients only if its input needs one, and other operations have none that goes there."""
        wanting = self._inputs_too
        try:
            return work()
        except NetworkError:
            raise
        except Exception:
            if not wanting:
                raise
            _LOG.debug("Once more without gradients of the inputs.", exc_info=True)
        self._inputs_too = False
        try:
            return work()
        finally:
            self._inputs_too = wanting

    def _run(self, inputs: torch.Tensor) -> torch.Tensor:
        self.restore()
        own = inputs.clone()
        if self._inputs_too and own.is_floating_point() and torch.is_grad_enabled():
            own = own.requires_grad_(True).clone()  # which a forward may write over
        outputs: torch.Tensor = self.module(own)
        return outputs[:, None] if outputs.ndim == 1 else outputs
