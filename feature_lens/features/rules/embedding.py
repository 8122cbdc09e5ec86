"""Look-ups of rows of a parameter: gradients are zero but in the rows that were looked up."""

from __future__ import annotations

import torch

from feature_lens.features.rules.rule import RULES, Factor, GradientId, NoRule, Outer, Use


def _rows(use: Use, g: torch.Tensor, tokens: torch.Tensor, gradients: tuple[GradientId, ...]) -> Outer:
    """Rows `tokens` (..) of a parameter (kinds, d ..), looked up to (.., d ..)."""
    if use.layout.axis >= tokens.ndim:
        raise NoRule("the examples are on an axis of what is looked up")
    split = use.layout.split(g, lead=1)
    split = split.flatten(2, 1 + tokens.ndim).flatten(3)  # (b, q, t, d)
    found = use.layout.split(tokens).flatten(1)  # (b, t)
    return Outer(split, found, use.shape[0], gradients, transposed=True)


def _as_rows(use: Use) -> tuple[GradientId, ...]:
    return use.arranged() if len(use.shape) == 2 else use.arranged("rows")


@RULES.register("EmbeddingBackward0")
def embedding(use: Use, g: torch.Tensor) -> list[Factor]:
    """nn.Embedding; the padding row gets no gradient."""
    node = use.node
    if node._saved_scale_grad_by_freq:
        raise NoRule("its gradients are scaled by frequency")
    tokens = node._saved_indices
    padding = node._saved_padding_idx
    # Saved as an unsigned number: -1, for none, comes as 2^64 - 1.
    if 0 <= padding < use.shape[0]:
        return [
            _rows(use, g * (tokens != padding)[..., None], tokens, use.arranged("rows without padding", use.number))
        ]
    return [_rows(use, g, tokens, _as_rows(use))]


@RULES.register("IndexBackward0")
def index(use: Use, g: torch.Tensor) -> list[Factor]:
    """parameter[tokens]."""
    indices = list(use.node._saved_indices)
    if len(indices) != 1 or indices[0] is None or indices[0].dtype == torch.bool:
        raise NoRule("it is indexed otherwise than by rows")
    tokens = indices[0] % use.shape[0]
    return [_rows(use, g, tokens, _as_rows(use))]
