"""Addition modulo P by a quadratic network, which learns Fourier modes of a + b and a - b."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from feature_lens.concepts import Concept
from feature_lens.examples import Examples, Modality
from feature_lens.networks.zoo.zoo_net import ZOO, ZooNet, at_least


class Quadratic(nn.Module):
    """z -> (z / sqrt(fan_in))^2 / width."""

    def __init__(self, fan_in: int, width: int) -> None:
        super().__init__()
        self.fan_in, self.width = fan_in, width

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = (z / self.fan_in**0.5).square() / self.width
        return found

    def extra_repr(self) -> str:
        return f"{self.fan_in}, {self.width}"


@ZOO.register("modular_addition")
@dataclass(frozen=True)
class ModularAddition(ZooNet):
    """f = W2 (W1 x / sqrt(2 P))^2 / width on one-hot pairs x, squared loss on one-hot sums, full-batch AdamW.

    The setting of Lin, arXiv:2510.00468. From the recipe's seed W1 is drawn, then W2, both normal, then the order of
    the pairs, of which the first `training` share is trained on. At the shipped modulus the trained kernel, summed
    over outputs, has cliffs after 2 P - 1 and 4 P - 3 eigenvalues, the latter group being Fourier modes of a + b and
    a - b. Training takes about a second.
    """

    data: ClassVar[str] = "all pairs of residues, made by the recipe"
    sets: ClassVar[tuple[str, ...]] = ("unit_blocks/trace", "deflated/trace", "eigen/trace", "eigen/trace@initial")
    components: ClassVar[int] = 128
    snapshots: ClassVar[int] = 12
    first_snapshot: ClassVar[int] = 25  # held-out pairs come right between epochs 68 and 112

    modulus: int = 29
    width: int = 512
    training: float = 0.7
    learning_rate: float = 0.05
    weight_decay: float = 0.01
    epochs: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(3, modulus=self.modulus)
        at_least(1, width=self.width, **{"training share times pairs": self.n_training})

    @property
    def title(self) -> str:
        return f"addition modulo {self.modulus}, {self.width} quadratic units"

    @property
    def n_training(self) -> int:
        """Number of pairs that are trained on."""
        return min(int(self.training * self.modulus**2), self.modulus**2)

    def pairs(self) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """(n, 2) a and b of every example, b running fastest."""
        return np.stack(np.divmod(np.arange(self.modulus**2), self.modulus), axis=1)

    def examples(self) -> Examples:
        """All P^2 pairs as two one-hot vectors, called '3 + 17 = 20'; the label is the sum modulo P."""
        p, pairs = self.modulus, self.pairs()
        inputs = np.eye(p, dtype=np.float32)[pairs].reshape(p * p, 2 * p)
        sums = pairs.sum(axis=1) % p
        training = self._drawn()[2][: self.n_training].numpy()
        return Examples.from_arrays(
            inputs,
            sums,
            ids=[f"{a} + {b} = {s}" for (a, b), s in zip(pairs, sums, strict=True)],
            split=np.isin(np.arange(p * p), training),
            modality=Modality("pair", (p, p)),
            class_names=[str(residue) for residue in range(p)],
            concepts={concept.name: concept for concept in self._waves()},
        )

    def _waves(self) -> Iterator[Concept]:
        """Waves of a + b and of a - b, which a network that has learnt to add is known to show (Lin)."""
        a, b = self.pairs().T
        frequencies = range(1, (self.modulus - 1) // 2 + 1)
        labels = [f"{wave} {frequency}" for frequency in frequencies for wave in ("cos", "sin")]
        for name, residue in (("waves of a + b", a + b), ("waves of a - b", a - b)):
            angles = 2 * np.pi / self.modulus * np.outer(residue, frequencies)
            yield Concept(name, np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(len(a), -1), tuple(labels))

    def module(self) -> nn.Sequential:
        """Two linear maps without biases and the squares between them."""
        first, second, _ = self._drawn()
        with torch.random.fork_rng(devices=[]):  # torch draws parameters of its own, which are replaced
            inner = nn.Linear(2 * self.modulus, self.width, bias=False)
            outer = nn.Linear(self.width, self.modulus, bias=False)
        inner.weight, outer.weight = nn.Parameter(first), nn.Parameter(second)
        return nn.Sequential(inner, Quadratic(2 * self.modulus, self.width), outer)

    def course(self, module: nn.Module) -> Iterator[None]:
        """The training pairs all at once, in the order in which they were drawn."""
        examples = self.examples()
        order = self._drawn()[2][: self.n_training]
        inputs = torch.as_tensor(np.asarray(examples.inputs))[order]
        targets = nn.functional.one_hot(self.taught(examples)[order], self.modulus).float()
        optimiser = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.epochs):
            optimiser.zero_grad()
            loss = (module(inputs) - targets).square().mean()
            loss.backward()
            optimiser.step()
            yield

    def _drawn(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """W1, W2 and the order of the pairs, in the order in which they are drawn."""
        generator = torch.Generator().manual_seed(self.seed)
        first = torch.randn(self.width, 2 * self.modulus, generator=generator)
        second = torch.randn(self.modulus, self.width, generator=generator)
        return first, second, torch.randperm(self.modulus**2, generator=generator)
