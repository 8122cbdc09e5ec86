"""The demo network: scikit-learn's digits, a 64-32-32-10 ReLU net, squared loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples, Modality
from feature_lens.networks.zoo.minibatches import squared_loss_epochs
from feature_lens.networks.zoo.zoo_net import ZOO, ZooNet, at_least


@ZOO.register("digits")
@dataclass(frozen=True)
class Digits(ZooNet):
    """1,797 real 8x8 images scaled to 0..1, stratified 30 % held out, squared loss on one-hot targets, SGD with
    momentum, batches in an order shuffled anew every epoch. Training takes about a second."""

    data: ClassVar[str] = "sklearn.datasets.load_digits (UCI optical recognition of handwritten digits, CC BY 4.0)"

    widths: tuple[int, ...] = (64, 32, 32, 10)
    held_out: float = 0.3
    learning_rate: float = 0.1
    momentum: float = 0.9
    batch: int = 64
    epochs: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch=self.batch, widths=min(self.widths))
        if len(self.widths) < 2 or (self.widths[0], self.widths[-1]) != (64, 10):
            raise SettingsError(
                f"The widths go from 64 pixels to 10 digits, but {self.widths} came; change those between."
            )

    @property
    def title(self) -> str:
        return f"digits {'-'.join(map(str, self.widths))} ReLU"

    def examples(self) -> Examples:
        """The 1,797 images of scikit-learn's digits with their stratified split."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        positions = np.arange(len(labels))
        training, _ = train_test_split(positions, test_size=self.held_out, stratify=labels, random_state=self.seed)
        return Examples.from_arrays(
            (images / 16).astype(np.float32),
            labels,
            split=np.isin(positions, training),
            modality=Modality("image", (1, 8, 8), 0.0, 1.0),
            class_names=[str(digit) for digit in range(10)],
        )

    def module(self) -> torch.nn.Sequential:
        """Linear layers with ReLUs between them, torch's own initial parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            layers: list[torch.nn.Module] = []
            for fan_in, fan_out in zip(self.widths[:-1], self.widths[1:], strict=True):
                layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
            return torch.nn.Sequential(*layers[:-1])

    def course(self, module: torch.nn.Module) -> Iterator[None]:
        """Squared loss summed over outputs, as in the regression that the effective features belong to."""
        examples = self.examples()
        inputs = torch.as_tensor(np.asarray(examples.inputs[examples.fitting]))
        labels = self.taught(examples)[examples.fitting]
        targets = torch.nn.functional.one_hot(labels, self.widths[-1]).to(inputs.dtype)
        optimiser = torch.optim.SGD(module.parameters(), lr=self.learning_rate, momentum=self.momentum)
        yield from squared_loss_epochs(
            module, optimiser, inputs, targets, batch=self.batch, epochs=self.epochs, seed=self.seed
        )
