"""The networks that the tests share: the three of the reference kernels, and one for each thing that can go wrong."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Cnn(nn.Sequential):
    """Strided, padded and grouped convolutions, a mean over pixels, a linear readout."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, groups=2), nn.Tanh())
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in list(self)[:4]:
            x = layer(x)
        return self.head(x.mean(dim=(2, 3)))


class Decoder(nn.Module):
    """One pre-norm causal attention block with an unembedding tied to the embedding."""

    def __init__(self, tokens: int = 11, width: int = 8, positions: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.pos = nn.Parameter(torch.randn(positions, width))
        self.ln1 = nn.LayerNorm(width, eps=1e-5)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = self.embed(tokens) + self.pos
        z = self.ln1(h)
        length = z.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        h = h + self.attn(z, z, z, attn_mask=mask, need_weights=True)[0]
        h = h + self.mlp(h)
        return h[:, -1] @ self.embed.weight.T


def mlp() -> nn.Module:
    """Two hidden layers of different non-linearities, three outputs."""
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.GELU(), nn.Linear(6, 3))


class Recurrent(nn.Module):
    """A GRU or an LSTM read out at the last position."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent = kind(3, 4, batch_first=True)
        self.readout = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.recurrent(x)[0][:, -1])


class InPlace(nn.Module):
    """Writes its hidden values into a fresh tensor, entry by entry."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros(x.shape[0], 4, dtype=x.dtype)
        values = self.first(x)
        for unit in range(4):
            hidden[:, unit] = torch.tanh(values[:, unit])
        return self.second(hidden)


class Checkpointed(nn.Module):
    """A block whose forward runs again during backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())
        self.second = nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(checkpoint(self.block, x, use_reentrant=self.reentrant))


class Attention(nn.Module):
    """scaled_dot_product_attention over three positions."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 12)
        self.readout = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part[:, None] for part in self.project(x).chunk(3, dim=-1))
        return self.readout(nn.functional.scaled_dot_product_attention(q, k, v)[:, 0].mean(dim=1))


class OldWeightNorm(nn.Module):
    """weight_norm by hooks, which leaves a computed tensor on the module."""

    def __init__(self) -> None:
        super().__init__()
        from torch.nn.utils.weight_norm import WeightNorm

        self.first = nn.Linear(3, 4)
        WeightNorm.apply(self.first, "weight", 0)
        self.second = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def new_weight_norm() -> nn.Module:
    """weight_norm as a parametrisation."""
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2))


class PaddedEncoder(nn.Module):
    """The library's own transformer over tokens with 0 as padding. Without gradients it has a fast way of its own, which
    leaves zeros at padded positions and cuts off those that are padding in all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=0)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)
        self.readout = nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = self.encoder(self.embed(tokens), src_key_padding_mask=tokens == 0)
        short = tokens.shape[1] - h.shape[1]
        return self.readout(nn.functional.pad(h, (0, 0, 0, short)).mean(dim=1))
