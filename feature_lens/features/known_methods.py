"""In words, which known method a feature set reduces to, found from what the network does."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from feature_lens.errors import in_brief, refuse_out_of_memory
from feature_lens.examples import Examples
from feature_lens.features.design import TILE, DesignMatrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.networks.passes import ONE_PASS

_LOG = logging.getLogger("feature_lens")


@dataclass(frozen=True)
class LastLinear:
    """The linear layer whose output is the network's, called once: its parameters, and whether it takes the inputs."""

    weight: str
    bias: str
    takes_inputs: bool


def eigen_equals(
    design: DesignMatrix, centred: bool, cosine: bool = False, tensors: tuple[str, ...] | None = None
) -> str:
    """What eigen features of this design are called elsewhere; cosine: of rows divided by their lengths; tensors: of
    these parameters alone.

    Of a last linear layer the kernel is the Gram matrix of its input activations (and 1, for the bias) for every
    output, so its eigen features are the principal components of those activations.
    """
    how = "centred" if centred else "uncentred"
    if not isinstance(design, EffectiveFeatures):
        return f"{how} principal component analysis of the columns{', rows divided by their lengths' if cosine else ''}"
    layer = last_linear(design.network, design.examples)
    chosen = set(tensors or design.parameters.names)
    often = {
        "flattened": ", each eigenvalue once per output",
        "trace": ", eigenvalues times the number of outputs",
        "sum": ", eigenvalues times the number of outputs",
    }.get(design.reduction.name, "" if design.reduction.name.startswith("output:") else None)
    if layer is not None and often is not None and layer.weight in chosen <= {layer.weight, layer.bias}:
        what = "inputs" if layer.takes_inputs else "last hidden activations"
        # Rows of different outputs are orthogonal, and as long as one another.
        unit = ", divided by their lengths" if cosine else ""
        often = often.replace(", eigenvalues times the number of outputs", "") if cosine else often
        one = "" if (centred and not cosine) or layer.bias not in chosen else _appended(design, layer)
        return f"{how} principal component analysis of the {what}{one}{unit}{often}"
    cosines = "cosine-normalised " if cosine else ""
    summed = " summed over outputs" if design.reduction.joined else f" ({design.reduction.name})"
    source = " (Lin, arXiv:2510.00468)" if design.reduction.joined and not (centred or cosine) else ""
    return f"kernel PCA {'with' if centred else 'without'} centring, with the {cosines}empirical NTK{summed} as its kernel{source}"


def _appended(design: EffectiveFeatures, layer: LastLinear) -> str:
    rates = dict(zip(design.parameters.names, design.parameters.learning_rates, strict=True))
    if rates[layer.weight] == rates[layer.bias]:
        return " with a 1 appended for the bias"
    return " with a constant appended for the bias, the root of the ratio of the learning rates"


def last_linear(network: Network, examples: Examples) -> LastLinear | None:
    """The linear layer whose output is the network's for all examples; None where some of them end otherwise, or where it
    cannot be run under hooks and nothing is known of its end. Cost: a forward pass of all examples."""
    found: LastLinear | None = None
    for start in range(0, len(examples), TILE):
        one = _last_linear_of(network, network.tensor(np.asarray(examples.inputs[start : start + TILE])))
        if one is None or (found is not None and one.weight != found.weight):
            return None
        found = replace(one, takes_inputs=one.takes_inputs and (found is None or found.takes_inputs))
    return found


def _last_linear_of(network: Network, inputs: torch.Tensor) -> LastLinear | None:
    """The same of one batch."""
    seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def noted(name: str) -> Any:
        def note(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen.append((name, args[0], output))

        return note

    with ONE_PASS:
        parts = [(name, part) for name, part in network.module.named_modules() if isinstance(part, torch.nn.Linear)]
        hooks = [part.register_forward_hook(noted(name)) for name, part in parts]
        try:
            with torch.no_grad():
                outputs = network(network.trained, inputs)
        except RuntimeError as error:  # it runs without hooks; torch.cond, for one, refuses them
            refuse_out_of_memory(error)
            _LOG.info("The network could not be run under hooks (%s).", in_brief(error))
            return None
        finally:
            for hook in hooks:
                hook.remove()
    if not seen:
        return None
    name, taken, given = seen[-1]
    called = sum(name == other for other, _, _ in seen)
    if called > 1 or given.shape != outputs.shape or not torch.equal(given, outputs):
        return None
    prefix = f"{name}." if name else ""
    takes_inputs = taken.shape == inputs.flatten(1).shape and torch.equal(taken, inputs.flatten(1).to(taken.dtype))
    return LastLinear(f"{prefix}weight", f"{prefix}bias", takes_inputs)
