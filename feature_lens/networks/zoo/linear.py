"""A linear network, of which everything is known: its effective features are its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from feature_lens.examples import Examples
from feature_lens.networks.zoo.zoo_net import ZOO, ZooNet


@ZOO.register("linear")
@dataclass(frozen=True)
class Linear(ZooNet):
    """f = W x on the 13 measurements of 178 wines, each divided by its largest value, squared loss on one-hot classes
    of 3 cultivars, full-batch gradient descent. The kernel is that of the inputs, before and after training: eigen
    features are the uncentred principal components of the inputs, and nothing is learnt that `learnt` could show."""

    data: ClassVar[str] = "sklearn.datasets.load_wine (UCI wine recognition, CC BY 4.0)"

    held_out: float = 0.3
    learning_rate: float = 0.2
    epochs: int = 2000

    @property
    def title(self) -> str:
        return "linear 13-3"

    def examples(self) -> Examples:
        """The 178 wines with a stratified split."""
        from sklearn.datasets import load_wine
        from sklearn.model_selection import train_test_split

        measured, cultivars = load_wine(return_X_y=True)
        positions = np.arange(len(cultivars))
        training, _ = train_test_split(positions, test_size=self.held_out, stratify=cultivars, random_state=self.seed)
        return Examples.from_arrays(
            (measured / measured.max(axis=0)).astype(np.float32),
            cultivars,
            split=np.isin(positions, training),
            class_names=["cultivar 1", "cultivar 2", "cultivar 3"],
        )

    def module(self) -> nn.Linear:
        """One linear map without a bias, torch's own initial parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return nn.Linear(13, 3, bias=False)

    def course(self, module: nn.Module) -> Iterator[None]:
        """All training examples at once."""
        examples = self.examples()
        inputs = torch.as_tensor(np.asarray(examples.inputs[examples.fitting]))
        labels = self.taught(examples)[examples.fitting]
        targets = nn.functional.one_hot(labels, 3).to(inputs.dtype)
        optimiser = torch.optim.SGD(module.parameters(), lr=self.learning_rate)
        for _ in range(self.epochs):
            optimiser.zero_grad()
            loss = (module(inputs) - targets).square().sum(dim=1).mean() / 2
            loss.backward()
            optimiser.step()
            yield
