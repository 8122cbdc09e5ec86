"""Norm layers: gains multiply the normalised input, shifts are added."""

from __future__ import annotations

import torch

from feature_lens.features.rules.rule import RULES, Factor, NoRule, Use, added, multiplied


def _gain_or_shift(use: Use, g: torch.Tensor, normalised: torch.Tensor, over: tuple[int, ...]) -> list[Factor]:
    """`over`: shape of the parameter where it is broadcast to the output."""
    broadcast = Use(use.node, use.slot, over, use.layout, use.number, use.gradient)
    if use.slot == 2:
        return [added(broadcast, g)]
    return [multiplied(broadcast, g * normalised)]


@RULES.register("NativeLayerNormBackward0")
def layer_norm(use: Use, g: torch.Tensor) -> list[Factor]:
    node = use.node
    normalised = (node._saved_input - node._saved_result1) * node._saved_result2
    return _gain_or_shift(use, g, normalised, use.shape)


@RULES.register("NativeGroupNormBackward0")
def group_norm(use: Use, g: torch.Tensor) -> list[Factor]:
    node = use.node
    inputs = node._saved_input
    grouped = inputs.reshape(inputs.shape[0], node._saved_group, -1)
    normalised = (grouped - node._saved_result1[..., None]) * node._saved_result2[..., None]
    return _gain_or_shift(use, g, normalised.reshape(inputs.shape), (use.shape[0], *[1] * (inputs.ndim - 2)))


@RULES.register("NativeBatchNormBackward0")
def batch_norm(use: Use, g: torch.Tensor) -> list[Factor]:
    node = use.node
    if node._saved_training:
        raise NoRule("its norm is over the batch")
    inputs = node._saved_input
    over = (-1, *[1] * (inputs.ndim - 2))
    scale = torch.rsqrt(node._saved_running_var + node._saved_eps)
    normalised = (inputs - node._saved_running_mean.reshape(over)) * scale.reshape(over)
    return _gain_or_shift(use, g, normalised, (use.shape[0], *over[1:]))
