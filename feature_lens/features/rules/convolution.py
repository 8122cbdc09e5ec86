"""Convolutions of one, two and three dimensions, plain and transposed, as matrix products over patches."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch.nn.functional import pad

from feature_lens.features.rules.rule import RULES, Factor, Outer, Use


def patches(
    maps: torch.Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    counts: tuple[int, ...],
) -> torch.Tensor:
    """(N, channels, *sizes) -> (N, positions, channels * kernel entries), zero outside the map.

    Position s of an axis sees entries s * stride - padding + k * dilation. `counts` are the positions per axis.
    """
    spatial = len(kernel)
    reach = [
        (counts[d] - 1) * stride[d] + (kernel[d] - 1) * dilation[d] + 1 - padding[d] - maps.shape[2 + d]
        for d in range(spatial)
    ]
    around = [size for d in reversed(range(spatial)) for size in (padding[d], max(reach[d], 0))]
    padded = pad(maps, around)
    pieces = []
    for offset in product(*(range(size) for size in kernel)):
        at = tuple(
            slice(k * dilation[d], k * dilation[d] + (counts[d] - 1) * stride[d] + 1, stride[d])
            for d, k in enumerate(offset)
        )
        pieces.append(padded[(slice(None), slice(None), *at)].flatten(2))
    seen = torch.stack(pieces, dim=2)  # (N, channels, kernel entries, positions)
    return seen.flatten(1, 2).transpose(1, 2)


@RULES.register("ConvolutionBackward0")
def convolution(use: Use, g: torch.Tensor) -> list[Factor]:
    """Weight and bias; groups give one factor each."""
    node = use.node
    outs = use.layout.split(g, lead=1)  # (b, q, m, out, *sizes): positions of the axis, then of the map
    outs = outs.flatten(4).permute(0, 1, 2, 4, 3).flatten(2, 3)  # (b, q, t, out)
    if use.slot == 2:
        return [Outer(outs, None, 1, use.arranged())]
    return _transposed(use, node, g) if node._saved_transposed else _plain(use, node, g, outs)


def _plain(use: Use, node: Any, g: torch.Tensor, outs: torch.Tensor) -> list[Factor]:
    n_out, _n_in, *kernel = use.shape
    spatial = len(kernel)
    seen = patches(
        node._saved_input,
        tuple(kernel),
        tuple(node._saved_stride)[:spatial],
        tuple(node._saved_padding)[:spatial],
        tuple(node._saved_dilation)[:spatial],
        tuple(g.shape[-spatial:]),
    )
    a = use.layout.split(seen).flatten(1, 2)  # (b, t, in * kernel)
    groups, width, size = node._saved_groups, a.shape[2] // node._saved_groups, n_out // node._saved_groups
    each = width * size
    return [
        Outer(
            outs[..., group * size : (group + 1) * size],
            a[..., group * width : (group + 1) * width],
            width,
            use.arranged() if groups == 1 else use.arranged("group", group, groups),
            offset=group * each,
        )
        for group in range(groups)
    ]


def _transposed(use: Use, node: Any, g: torch.Tensor) -> list[Factor]:
    """out[s * stride - padding + k * dilation] += x[s] w[k]: patches of the output's gradient at the input's places."""
    n_in, _n_out, *kernel = use.shape
    spatial = len(kernel)
    inputs = node._saved_input
    stride, padding, dilation = (
        tuple(saved)[:spatial] for saved in (node._saved_stride, node._saved_padding, node._saved_dilation)
    )
    seen = patches(g.flatten(0, 1), tuple(kernel), stride, padding, dilation, tuple(inputs.shape[-spatial:]))
    seen = seen.reshape(*g.shape[:2], *seen.shape[1:])
    rows = use.layout.split(seen, lead=1).flatten(2, 3)  # (b, q, t, groups * out * kernel)
    a = use.layout.split(inputs.flatten(2).transpose(1, 2)).flatten(1, 2)  # (b, t, groups * in)
    groups = node._saved_groups
    width, size = n_in // groups, rows.shape[3] // groups
    return [
        Outer(
            rows[..., group * size : (group + 1) * size],
            a[..., group * width : (group + 1) * width],
            width,
            use.arranged("patches", group, groups, *kernel, *stride, *padding, *dilation),
            transposed=True,
            offset=group * width * size,
        )
        for group in range(groups)
    ]
