"""Slower, simpler ways to the numbers: loops of autograd, dense matrices, plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from feature_lens.examples import Examples
from feature_lens.networks import Network

Reduce = Callable[[torch.Tensor, int], torch.Tensor]


def dense_jacobian(
    module: nn.Module, inputs: np.ndarray, reduce: Reduce | None = None, labels: np.ndarray | None = None
) -> np.ndarray:
    """(n, q, p) by one autograd.grad per example and quantity, in float64, for the trainable parameters."""
    module = module.double()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    rows = []
    for position, x in enumerate(inputs):
        one = torch.as_tensor(x)[None]
        if one.is_floating_point():
            one = one.double().requires_grad_(True)
        outputs = module(one)[0].reshape(-1)
        if reduce is not None:
            outputs = reduce(outputs, 0 if labels is None else int(labels[position])).reshape(-1)
        quantities = []
        for quantity in outputs:
            for parameter in parameters:
                parameter.grad = None
            if quantity.requires_grad:
                quantity.backward(retain_graph=True)
            grads = [torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in parameters]
            quantities.append(torch.cat([grad.reshape(-1) for grad in grads]).numpy().copy())
        rows.append(np.stack(quantities))
    return np.stack(rows)


def relu_net_jacobian(module: nn.Sequential, inputs: np.ndarray) -> np.ndarray:
    """(n, c, p) of a stack of linear layers and ReLUs by the chain rule written out in numpy, in float64."""
    layers = [part for part in module if isinstance(part, nn.Linear)]
    weights = [layer.weight.detach().double().numpy() for layer in layers]
    biases = [layer.bias.detach().double().numpy() for layer in layers]
    entering, open_units = [np.asarray(inputs, dtype=float)], []
    for weight, bias in zip(weights, biases, strict=True):
        z = entering[-1] @ weight.T + bias
        open_units.append(z > 0)
        entering.append(np.maximum(z, 0))
    n, c = len(inputs), len(biases[-1])
    gradient = np.broadcast_to(np.eye(c), (n, c, c))  # of the outputs with respect to the current layer's z
    parts: list[np.ndarray] = []
    for place in reversed(range(len(layers))):
        of_weight = np.einsum("nco,ni->ncoi", gradient, entering[place])
        parts = [of_weight.reshape(n, c, -1), gradient, *parts]
        if place:
            gradient = (gradient @ weights[place]) * open_units[place - 1][:, None]
    return np.concatenate(parts, axis=2)


def made(
    module: nn.Module, shape: tuple[int, ...], n: int, classes: int, seed: int = 0, split: bool = True
) -> tuple[Network, Examples]:
    """A network and random examples for it."""
    rng = np.random.default_rng(seed)
    examples = Examples.from_arrays(
        rng.standard_normal((n, *shape)),
        rng.integers(0, classes, n),
        split=np.arange(n) % 3 != 0 if split else None,
    )
    return Network.from_module(module.eval()), examples


def histogram_counts(values: np.ndarray, minimum: np.ndarray, maximum: np.ndarray, bins: int) -> np.ndarray:
    """Counts (k, v, bins) of the finite values (k, v, n), as float32, between minimum and maximum (k, v)."""
    counts = np.zeros((*values.shape[:2], bins), dtype=np.int32)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    for at in np.ndindex(*values.shape[:2]):
        finite = rounded[at][np.isfinite(rounded[at])].astype(np.float64)
        if len(finite):
            low, width = float(minimum[at]), float(maximum[at]) - float(minimum[at])
            place = (finite - low) * (bins / width if width > 0 else 0.0)
            counts[at] = np.bincount(np.clip(place.astype(np.int64), 0, bins - 1), minlength=bins)
    return counts


def with_initial(network: Network, seed: int = 1, size: float = 0.3) -> Network:
    """The same network as if it had begun at parameters nearby."""
    generator = torch.Generator().manual_seed(seed)
    initial = {
        name: value + size * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in network.trained.items()
    }
    return replace(network, initial=initial)
