"""Bare parameters that are added, multiplied in, or expanded over the examples."""

from __future__ import annotations

import torch

from feature_lens.features.rules.rule import RULES, Factor, Use, added, multiplied, scaled


@RULES.register("AddBackward0")
def add(use: Use, g: torch.Tensor) -> list[Factor]:
    """self + alpha * other."""
    return [scaled(added(use, g), float(use.node._saved_alpha) if use.slot == 1 else 1.0)]


@RULES.register("SubBackward0")
def sub(use: Use, g: torch.Tensor) -> list[Factor]:
    """self - alpha * other."""
    return [scaled(added(use, g), -float(use.node._saved_alpha) if use.slot == 1 else 1.0)]


@RULES.register("ExpandBackward0")
def expand(use: Use, g: torch.Tensor) -> list[Factor]:
    """One tensor for all examples, such as a class token."""
    return [added(use, g)]


@RULES.register("MulBackward0")
def mul(use: Use, g: torch.Tensor) -> list[Factor]:
    """self * other."""
    return [multiplied(use, g * (use.node._saved_other if use.slot == 0 else use.node._saved_self))]


@RULES.register("DivBackward0")
def div(use: Use, g: torch.Tensor) -> list[Factor]:
    """self / other."""
    other = use.node._saved_other
    return [multiplied(use, g / other if use.slot == 0 else -g * use.node._saved_self / other.square())]
