"""The demo network: scikit-learn's digits, a 64-32-32-10 ReLU net, squared loss.

Recipe: 1,797 real 8x8 images scaled to 0..1, stratified 30 % held out (seed 0), squared loss on one-hot targets, SGD
with learning rate 0.1 and momentum 0.9, batches of 64, 60 epochs, seed 0. The parameters before and after training
travel with the package (`initial.safetensors`, `trained.safetensors`, `recipe.json` with their sha256).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feature_lens.errors import CheckpointError
from feature_lens.examples import Examples, Modality
from feature_lens.networks.checkpoints import load_checkpoint
from feature_lens.networks.network import Network, Params

Progress = Callable[[Iterable[int], str], Iterable[int]]


@dataclass(frozen=True)
class Recipe:
    """Settings of the demo's training; everything that is needed to make its parameters again."""

    widths: tuple[int, ...] = (64, 32, 32, 10)
    held_out: float = 0.3
    learning_rate: float = 0.1
    momentum: float = 0.9
    batch: int = 64
    epochs: int = 60
    seed: int = 0


def digits_examples(recipe: Recipe = Recipe()) -> Examples:
    """The 1,797 images of scikit-learn's digits with their stratified split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    positions = np.arange(len(labels))
    training, _ = train_test_split(positions, test_size=recipe.held_out, stratify=labels, random_state=recipe.seed)
    return Examples.from_arrays(
        (images / 16).astype(np.float32),
        labels,
        split=np.isin(positions, training),
        modality=Modality("image", (1, 8, 8), 0.0, 1.0),
        class_names=[str(digit) for digit in range(10)],
    )


def digits_module(recipe: Recipe = Recipe()) -> torch.nn.Sequential:
    """The untrained network; its parameters depend on the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        layers: list[torch.nn.Module] = []
        for fan_in, fan_out in zip(recipe.widths[:-1], recipe.widths[1:], strict=True):
            layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])


def train_digits(recipe: Recipe = Recipe(), progress: Progress = lambda epochs, _: epochs) -> tuple[Params, Params]:
    """Train the demo network: (initial, trained) state dicts. About a second on one core."""
    examples = digits_examples(recipe)
    module = digits_module(recipe)
    initial = {key: value.detach().clone() for key, value in module.state_dict().items()}
    inputs = torch.as_tensor(np.asarray(examples.inputs[examples.fitting]))
    labels = torch.as_tensor(np.asarray(examples.labels)[examples.fitting])
    targets = torch.nn.functional.one_hot(labels, recipe.widths[-1]).to(inputs.dtype)
    optimiser = torch.optim.SGD(module.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    generator = torch.Generator().manual_seed(recipe.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same rounding whatever the number of cores
    try:
        for _ in progress(range(recipe.epochs), "training"):
            shuffled = torch.randperm(len(inputs), generator=generator)
            for start in range(0, len(inputs), recipe.batch):
                batch = shuffled[start : start + recipe.batch]
                optimiser.zero_grad()
                # Squared loss summed over outputs, as in the regression that the effective features belong to.
                loss = (module(inputs[batch]) - targets[batch]).square().sum(dim=1).mean() / 2
                loss.backward()
                optimiser.step()
    finally:
        torch.set_num_threads(threads)
    return initial, {key: value.detach().clone() for key, value in module.state_dict().items()}


def digits_network(initial: Params, trained: Params, recipe: Recipe = Recipe()) -> Network:
    """The demo network with given parameters."""
    return Network.from_module(digits_module(recipe), trained=trained, initial=initial, name="digits 64-32-32-10 ReLU")


def shipped_folder() -> Path:
    """Where the demo's parameters are: beside this module in an installed package, under data/ in a checkout."""
    packaged = Path(__file__).parent / "digits"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "data" / "digits"


def shipped_digits() -> Network:
    """The demo network with the parameters that travel with the package; raises CheckpointError if they were altered."""
    folder = shipped_folder()
    recipe = json.loads((folder / "recipe.json").read_text())
    for name, wanted in recipe["sha256"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != wanted:
            raise CheckpointError(f"'{name}' of the demo is not the file that was shipped; install the package again.")
    return digits_network(
        load_checkpoint(folder / "initial.safetensors"), load_checkpoint(folder / "trained.safetensors")
    )


def write_shipped(folder: Path, recipe: Recipe = Recipe()) -> None:
    """Train and write the shipped files with their recipe and checksums; run when the recipe changes."""
    from safetensors.torch import save_file

    initial, trained = train_digits(recipe)
    sums: dict[str, str] = {}
    for name, state in (("initial.safetensors", initial), ("trained.safetensors", trained)):
        save_file(state, folder / name)
        sums[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    card: dict[str, Any] = {
        "made by": 'python -c "from pathlib import Path; from feature_lens.networks.digits import write_shipped; '
        "write_shipped(Path('data/digits'))\"",
        "data": "sklearn.datasets.load_digits (UCI optical recognition of handwritten digits, CC BY 4.0)",
        "licence": "MIT",
        "recipe": asdict(recipe),
        "software": {"torch": torch.__version__.split("+")[0]},
        "sha256": sums,
    }
    (folder / "recipe.json").write_text(json.dumps(card, indent=2) + "\n")
