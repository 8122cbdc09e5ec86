"""Whether features along a path add up to what training added to the outputs."""

from __future__ import annotations

import torch

from feature_lens.features.kinds.kind import Ask


def left_over(
    ask: Ask, shares: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How far what all tensors of a network contribute, (tensors, b, q), is from what training added, (b, q), and the
    size of what was added up. Cost: two forward passes."""
    network, reduce = ask.network, ask.reduction.reduce
    with torch.no_grad():
        ends = [
            torch.stack([reduce(row, label) for row, label in zip(network(params, inputs), labels, strict=True)])
            .detach()
            .cpu()
            for params in (network.at("initial"), network.at("effective"))
        ]
    size = torch.maximum(shares.abs().sum(dim=0), ends[0].abs() + ends[1].abs())
    return (shares.sum(dim=0) - (ends[1] - ends[0])).abs(), size
