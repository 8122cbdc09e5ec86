"""In words, which known method a feature set reduces to, found from the network's structure."""

from __future__ import annotations

import torch

from feature_lens.features.design import DesignMatrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks.network import ONE_PASS


def eigen_equals(design: DesignMatrix) -> str:
    """What eigen features of this design are called elsewhere."""
    if not isinstance(design, EffectiveFeatures):
        return "principal component analysis of the columns, without centring"
    module = design.network.module
    parts = [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]
    names = set(design.parameters.names)
    last = last_linear(design)
    all_parameters = names == set(design.network.parameters.names)
    if all_parameters and len(parts) == 1 and isinstance(parts[0], torch.nn.Linear) and last is not None:
        return "uncentred principal component analysis of the inputs (with a 1 appended where there is a bias), because the network is linear"
    if last is not None and names <= last:
        return (
            "uncentred principal component analysis of the last hidden activations (with a 1 appended for the bias), "
            "each eigenvalue once per output, because the kernel of a last linear layer is the Gram matrix of its inputs"
        )
    if design.reduction.joined:
        return "kernel PCA without centring, with the empirical NTK summed over outputs as its kernel (Lin, arXiv:2510.00468)"
    return f"kernel PCA without centring, with the empirical NTK ({design.reduction.name}) as its kernel"


def last_linear(design: EffectiveFeatures) -> set[str] | None:
    """Parameter names of the linear layer whose output is the network's output; None where there is no such layer."""
    seen: list[tuple[str, torch.Tensor]] = []
    with ONE_PASS:
        outputs = _watched_pass(design, seen)
    for name, out in reversed(seen):
        if out is outputs or (out.shape == outputs.shape and torch.equal(out, outputs)):
            prefix = f"{name}." if name else ""
            return {f"{prefix}weight", f"{prefix}bias"}
    return None


def _watched_pass(design: EffectiveFeatures, seen: list[tuple[str, torch.Tensor]]) -> torch.Tensor:
    """Outputs of one example, with the output of every linear layer noted on the way."""
    network = design.network
    hooks = [
        part.register_forward_hook(lambda _m, _i, out, name=name: seen.append((name, out)))
        for name, part in network.module.named_modules()
        if isinstance(part, torch.nn.Linear)
    ]
    try:
        with torch.no_grad():
            return network(network.trained, network.tensor(design.examples.inputs[:1]))
    finally:
        for hook in hooks:
            hook.remove()
