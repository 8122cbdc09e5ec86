"""Matrix products with a parameter: Linear, attention's projections, unembeddings, einsum, recurrent cells."""

from __future__ import annotations

import torch

from feature_lens.features.rules.rule import RULES, Factor, NoRule, Outer, Use, added, scaled


def _right(use: Use, g: torch.Tensor, rows: torch.Tensor) -> Factor:
    """rows (M, i) @ W (i, o), examples among the rows: phi[i, o] = sum over the example's rows of rows[i] g[o]."""
    if use.layout.axis != 0:
        raise NoRule("the examples are on the axis of its own columns")
    return Outer(use.layout.split(g, lead=1), use.layout.split(rows), use.shape[0], use.arranged(), transposed=True)


def _left(use: Use, g: torch.Tensor, columns: torch.Tensor) -> Factor:
    """W (o, i) @ columns (i, M), examples among the columns."""
    if use.layout.axis != 1:
        raise NoRule("the examples are on the axis of its own rows")
    split = use.layout.split(g, lead=1)  # (b, q, o, m)
    a = use.layout.split(columns)  # (b, i, m)
    return Outer(split.transpose(2, 3), a.transpose(1, 2), use.shape[1], use.arranged("columns"))


@RULES.register("AddmmBackward0")
def addmm(use: Use, g: torch.Tensor) -> list[Factor]:
    """beta * bias + alpha * mat1 @ mat2."""
    node = use.node
    if use.slot == 0:
        return [scaled(added(use, g), float(node._saved_beta))]
    alpha = float(node._saved_alpha)
    made = _right(use, g, node._saved_mat1) if use.slot == 2 else _left(use, g, node._saved_mat2)
    return [scaled(made, alpha)]


@RULES.register("MmBackward0")
def mm(use: Use, g: torch.Tensor) -> list[Factor]:
    """self @ mat2."""
    node = use.node
    return [_right(use, g, node._saved_self) if use.slot == 1 else _left(use, g, node._saved_mat2)]


@RULES.register("BmmBackward0")
def bmm(use: Use, g: torch.Tensor) -> list[Factor]:
    """self (h, M, i) @ mat2 (h, i, o) with a parameter of h matrices: one factor per matrix, as einsum makes them."""
    if use.slot != 1 or use.layout.axis != 1:
        raise NoRule("its batched matrix product is of another form than rows times matrices")
    heads, n_in, n_out = use.shape
    split = use.layout.split(g, lead=1)  # (b, q, h, m, o)
    rows = use.layout.split(use.node._saved_self)  # (b, h, m, i)
    each = n_in * n_out
    return [
        Outer(split[:, :, h], rows[:, h], n_in, use.arranged("matrix", h), transposed=True, offset=h * each)
        for h in range(heads)
    ]
