"""Training by minibatches with squared loss, the regression that effective features belong to."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def squared_loss_epochs(
    module: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    batch: int,
    epochs: int,
    seed: int,
) -> Iterator[None]:
    """Train a module in place on inputs (n, ...) and targets (n, c), an epoch for every item, in an order that is drawn
    anew for each; the loss is half the square, summed over outputs, averaged over the batch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        shuffled = torch.randperm(len(inputs), generator=generator)
        for start in range(0, len(inputs), batch):
            chosen = shuffled[start : start + batch]
            optimiser.zero_grad()
            loss = (module(inputs[chosen]) - targets[chosen]).square().sum(dim=1).mean() / 2
            loss.backward()
            optimiser.step()
        yield
