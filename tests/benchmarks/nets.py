"""The nets and inputs of the comparison with peers, made once and handed over as .npz files.

Needs torch and numpy alone, so that peers with torch build the same modules in environments of their own.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

MODULUS = 113


class Decoder(nn.Module):
    """One ReLU transformer layer without norms and biases; logits at the last position for a + b modulo 113."""

    def __init__(self, tokens: int = MODULUS + 1, width: int = 128, heads: int = 4, length: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(tokens, width)
        self.pos = nn.Parameter(torch.randn(length, width) / width**0.5)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.unembed = nn.Linear(width, tokens - 1, bias=False)
        self.register_buffer("mask", torch.ones(length, length, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = self.embed(tokens) + self.pos
        q, k, v = (self._split(layer(h)) for layer in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        mixed = (scores.masked_fill(self.mask, float("-inf")).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        h = h + self.o(mixed)
        h = h + self.down(torch.relu(self.up(h)))
        return self.unembed(h[:, -1])

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _cnn() -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels_in, channels_out in ((1, 32), (32, 64), (64, 96)):
        layers += [nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1536, 10))


# Untrained modules by net; `mlp_outputs` and `mlp_width` double the outputs and the parameters of `mlp`.
MODULES = {
    "mlp": lambda: _mlp(784, 256, 256, 10),
    "mlp_outputs": lambda: _mlp(784, 256, 256, 20),
    "mlp_width": lambda: _mlp(784, 436, 436, 10),
    "cnn": _cnn,
    "decoder": Decoder,
    "digits": lambda: _mlp(64, 32, 32, 10),
}
_MOST = {"mlp": 4000, "mlp_outputs": 2000, "mlp_width": 2000, "cnn": 600, "decoder": 200}


def write_nets(folder: Path) -> None:
    """One <net>.npz each with the parameters by name and `inputs`; torch's own initialisation from fixed seeds."""
    for seed, name in enumerate(_MOST):
        torch.manual_seed(seed)
        _write(folder / f"{name}.npz", MODULES[name]().state_dict(), _inputs(name, np.random.default_rng(seed)))


def write_digits(folder: Path) -> None:
    """digits.npz from the demo's network and images; needs feature_lens."""
    from feature_lens.networks.zoo import Digits

    _write(folder / "digits.npz", dict(Digits().shipped().at("effective")), np.asarray(Digits().examples().inputs))


def read_net(folder: Path, name: str, n: int) -> tuple[nn.Module, np.ndarray[Any, Any]]:
    """The module with its parameters, frozen in evaluation mode, and the first n inputs."""
    module = MODULES[name]()
    with np.load(folder / f"{name}.npz") as held:
        state = {key: torch.as_tensor(held[key]) for key in held.files if key != "inputs"}
        inputs = held["inputs"][:n]
    module.load_state_dict(state)
    if len(inputs) < n:
        raise ValueError(f"The net '{name}' has {len(inputs)} inputs, but {n} were asked for.")
    return module.eval(), inputs


def _inputs(name: str, random: np.random.Generator) -> np.ndarray[Any, Any]:
    n = _MOST[name]
    if name == "decoder":
        pairs = random.choice(MODULUS**2, size=n, replace=False)
        return np.stack([pairs // MODULUS, pairs % MODULUS, np.full(n, MODULUS)], axis=1)
    shape = (1, 28, 28) if name == "cnn" else (784,)
    return random.standard_normal((n, *shape), dtype=np.float32)


def _write(path: Path, state: dict[str, torch.Tensor], inputs: np.ndarray[Any, Any]) -> None:
    arrays = {key: value.detach().numpy() for key, value in state.items()}
    np.savez(path, inputs=inputs, **arrays)
