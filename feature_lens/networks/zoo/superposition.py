"""More features than hidden units: the toy model of superposition, whose features are its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from feature_lens.concepts import Concept
from feature_lens.examples import Examples, Modality
from feature_lens.networks.network import Network
from feature_lens.networks.zoo.zoo_net import ZOO, Training, ZooNet, at_least


class Hidden(nn.Module):
    """The hidden units as they are, so that they are seen as neurons."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z


class Tied(nn.Module):
    """ReLU(W^T W x + bias), each output times `scale`."""

    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.W = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_zeros(weight.shape[1]))
        self.hidden = Hidden()
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.hidden(nn.functional.linear(x, self.W))
        return torch.relu(nn.functional.linear(hidden, self.W.T, self.bias)) * self.scale

    def extra_repr(self) -> str:
        return f"{self.W.shape[1]} features, {self.W.shape[0]} hidden"


@ZOO.register("superposition")
@dataclass(frozen=True)
class Superposition(ZooNet):
    """f = ReLU(W^T W x + b), which squeezes `features` inputs through `hidden` units and back, AdamW.

    The model of Elhage et al., Toy Models of Superposition (2022): an input is 0 with probability `sparsity`, else
    uniform in 0..1; the loss is the mean of importance^i (f_i - x_i)^2 over features i = 0, 1, ... and examples. The
    examples are `points` inputs that are not zero altogether, divided by their norms, as Lin, arXiv:2510.00468, takes
    them. `batch` 0 trains on these points, all at once; otherwise each epoch is one step on so many inputs drawn anew
    from the model's own distribution, whatever their norms. From the recipe's seed W is drawn, normal of variance
    2 / (features + hidden), then the points, then what training draws.

    A feature counts as reconstructable where diag(W^T W) is at least 0.75. Published for three settings are 10
    (`hidden` 10, `sparsity` .3), 21 (10, .9) and 42 (40, .9); the shipped net, of the second, has 19, nets of the first
    and third have 10 and 43. Training takes about five seconds.
    """

    data: ClassVar[str] = "sparse random inputs, made by the recipe"
    classes: ClassVar[bool] = False
    sets: ClassVar[tuple[str, ...]] = ("eigen/squares", "eigen", "eigen/squares@initial", "unit", "canonical")

    features: int = 50
    hidden: int = 10
    sparsity: float = 0.9
    importance: float = 0.8
    points: int = 500
    batch: int = 0
    learning_rate: float = 0.001
    weight_decay: float = 0.01
    epochs: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, features=self.features, hidden=self.hidden, points=self.points)
        at_least(0, batch=self.batch, sparsity=self.sparsity, importance=self.importance)
        at_least(0.001, **{"share of inputs that are not zero": 1 - self.sparsity})

    @property
    def title(self) -> str:
        return f"superposition {self.features}-{self.hidden}"

    @property
    def importances(self) -> npt.NDArray[np.float64]:
        """(features,) weight of each feature's squared error in the loss."""
        return np.asarray(self.importance ** np.arange(self.features), dtype=np.float64)

    def examples(self) -> Examples:
        """The points, whose targets and known features are their own entries."""
        inputs = self._drawn()[1].numpy()
        names = [str(feature) for feature in range(self.features)]
        return Examples.from_arrays(
            inputs,
            inputs,
            modality=Modality("vector", (self.features,), 0, 1),
            concepts={"feature": Concept.of("feature", inputs, names)},
        )

    def module(self) -> Tied:
        """W as drawn, biases of zero, outputs as they are."""
        return Tied(self._drawn()[0], torch.ones(self.features))

    def weighted(self, training: Training) -> Network:
        """The network with each output times sqrt(importance): its plain squared loss is the one trained on, and the
        rows of its kernel are scaled so."""
        module = Tied(self._drawn()[0], torch.as_tensor(np.sqrt(self.importances), dtype=torch.float32))
        return Network.from_module(
            module, trained=training.trained, initial=training.initial, name=f"{self.title}, weighted"
        )

    def reconstructable(self, network: Network, least: float = 0.75) -> npt.NDArray[np.bool_]:
        """(features,) whether diag(W^T W) of the trained network is at least that."""
        return np.asarray(network.trained["W"].square().sum(dim=0).cpu().numpy() >= least)

    def course(self, module: nn.Module) -> Iterator[None]:
        """The points, or a batch drawn anew, at every step."""
        _, points, generator = self._drawn()
        importances = torch.as_tensor(self.importances, dtype=torch.float32)
        optimiser = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.epochs):
            inputs = self._sparse(self.batch, generator) if self.batch else points
            optimiser.zero_grad()
            loss = (importances * (module(inputs) - inputs).square()).mean()
            loss.backward()
            optimiser.step()
            yield

    def _sparse(self, n: int, generator: torch.Generator) -> torch.Tensor:
        values = torch.rand(n, self.features, generator=generator)
        return values * (torch.rand(n, self.features, generator=generator) >= self.sparsity)

    def _drawn(self) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        """W, the points, and the generator after them."""
        generator = torch.Generator().manual_seed(self.seed)
        weight = torch.randn(self.hidden, self.features, generator=generator)
        weight *= (2 / (self.features + self.hidden)) ** 0.5
        points = torch.empty(0, self.features)
        while len(points) < self.points:
            more = self._sparse(self.points, generator)
            points = torch.cat([points, more[more.any(dim=1)]])
        points = points[: self.points]
        return weight, points / points.norm(dim=1, keepdim=True), generator
