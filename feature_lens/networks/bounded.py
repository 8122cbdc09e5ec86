"""Embeddings of bounded norm, as functions of their weight that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# torch divides by the norm plus this.
_NEAR_ZERO = 1e-7


class Embedding(nn.Embedding):
    """nn.Embedding(max_norm=...) without its writing.

    torch's own writes every row that it shortens over the weight, unseen by autograd: the parameters would change while
    they are looked at, and gradients would be those of another function than the outputs. This one gives the very same
    vectors and their true derivatives. It goes by its parent's name, so that the architecture reads as it was given.
    """

    _writes = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Rows of the weight, those of a norm above `max_norm` shortened to it."""
        if self.max_norm is None or Embedding._writes:
            return super().forward(input)
        rows = nn.functional.embedding(
            input, self.weight, self.padding_idx, None, self.norm_type, self.scale_grad_by_freq, self.sparse
        )
        long = torch.linalg.vector_norm(rows.detach(), self.norm_type, dim=-1, keepdim=True) > self.max_norm
        # Ones where nothing is shortened: the derivative of a norm at zero may be infinite.
        norm = torch.linalg.vector_norm(torch.where(long, rows, 1.0), self.norm_type, dim=-1, keepdim=True)
        return torch.where(long, rows * (self.max_norm / (norm + _NEAR_ZERO)), rows)


def leave_weights_alone(module: nn.Module) -> None:
    """Let the embeddings of a module that have a max_norm leave their weights as they are."""
    for part in module.modules():
        if type(part) is nn.Embedding and part.max_norm is not None:
            part.__class__ = Embedding


def has_bounded(module: nn.Module) -> bool:
    """Whether some embedding of a module would write over its weight."""
    return any(isinstance(part, Embedding) and part.max_norm is not None for part in module.modules())


@contextmanager
def as_torch_does() -> Iterator[None]:
    """Bounded embeddings write over the weights they are run with, as torch's own do; for who holds ONE_PASS."""
    Embedding._writes = True
    try:
        yield
    finally:
        Embedding._writes = False
