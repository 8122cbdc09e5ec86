"""Slower, simpler ways to the numbers: loops of autograd, dense matrices, plain numpy."""

from __future__ import annotations

from collections.abc import Callable

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
        outputs = module(one)[0]
        if reduce is not None:
            outputs = reduce(outputs, 0 if labels is None else int(labels[position])).reshape(-1)
        quantities = []
        for quantity in outputs:
            for parameter in parameters:
                parameter.grad = None
            quantity.backward(retain_graph=True)
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            quantities.append(torch.cat([grad.reshape(-1) for grad in grads]).numpy().copy())
        rows.append(np.stack(quantities))
    return np.stack(rows)


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
