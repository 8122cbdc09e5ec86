"""What a network of the zoo is: a recipe, from which its data, its module, its training and its shipped parameters follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
import torch

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.networks.network import Network, Params
from feature_lens.networks.zoo.parameter_files import packed, shipped_states
from feature_lens.registry import Registry, unknown_name

Z = TypeVar("Z", bound="ZooNet")
Progress = Callable[[Iterable[int], str], Iterable[int]]
_EPOCH: Final = "epoch_"


@dataclass(frozen=True)
class Training:
    """Parameters before and after training, and after some of its epochs, the earliest first."""

    initial: Params = field(repr=False)
    trained: Params = field(repr=False)
    snapshots: Mapping[int, Params] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class ZooNet(ABC):
    """A recipe: the fields of a frozen dataclass, all with defaults, of which the default ones are shipped.

    `data` says where the examples come from and under which licence. `sets`, as `--set` takes them, and `components`
    are what a run shows it by, without sets the default ones, and `dual` and `dynamics` whether it has the dual model and the dynamics of training. `epochs` counts the steps of its training, of which
    `snapshots` are kept with the parameters that are shipped, none earlier than `first_snapshot`. Where `shuffled` is
    not 0, the network is trained on the labels of other training examples, drawn from that number as a seed: a
    baseline that can learn nothing of its labels but to repeat them. `classes` says whether there are any labels.
    """

    data: ClassVar[str]
    sets: ClassVar[tuple[str, ...]] = ()
    components: ClassVar[int] = 64
    dual: ClassVar[bool] = True
    dynamics: ClassVar[bool] = True
    snapshots: ClassVar[int] = 8
    first_snapshot: ClassVar[int] = 1
    classes: ClassVar[bool] = True

    epochs: int = 1
    seed: int = 0
    shuffled: int = 0

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_size(one.name, getattr(self, one.name))
        at_least(1, epochs=self.epochs)
        at_least(0, shuffled=self.shuffled, seed=self.seed)
        if self.shuffled and not self.classes:
            raise SettingsError(
                f"Labels can be shuffled where examples have classes, but those of '{self.key()}' have none; leave "
                "shuffled=0."
            )

    @property
    @abstractmethod
    def title(self) -> str:
        """What the network is called in a run."""

    @abstractmethod
    def examples(self) -> Examples:
        """Its examples with their split."""

    @abstractmethod
    def module(self) -> torch.nn.Module:
        """The untrained network; its parameters depend on the recipe alone."""

    @abstractmethod
    def course(self, module: torch.nn.Module) -> Iterator[None]:
        """Train a module in place, an epoch for every item."""

    def taught(self, examples: Examples) -> torch.Tensor:
        """(n,) labels of the examples as training has them: the true ones, or those of other training examples."""
        labels = np.array(examples.labels)
        if self.shuffled:
            drawn = np.random.default_rng(self.shuffled).permutation(examples.fitting)
            labels[examples.fitting] = labels[drawn]
        return torch.as_tensor(labels)

    def remarks(self) -> tuple[str, ...]:
        """What is to be said of a run of it."""
        return ()

    def train(self, progress: Progress = lambda epochs, _: epochs, snapshots: int = 0) -> Training:
        """Train a new module from the recipe's seed, in one thread, so that rounding does not depend on the cores.

        snapshots: how many to take on the way, at epochs of about equal ratios, from `first_snapshot` on; fewer where
        there are fewer epochs. Raises SettingsError for a negative number.
        """
        if snapshots < 0:
            raise SettingsError(f"The number of snapshots is 0 or more, but {snapshots} came; leave it out for none.")
        first = min(self.first_snapshot, self.epochs)
        wanted = set(np.geomspace(first, self.epochs, min(snapshots, self.epochs) + 1).round().astype(int).tolist()) - {
            self.epochs
        }
        module = self.module()
        initial, taken = _copied(module), dict[int, Params]()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for epoch, _ in zip(progress(range(1, self.epochs + 1), "training"), self.course(module), strict=True):
                if epoch in wanted:
                    taken[epoch] = _copied(module)
        finally:
            torch.set_num_threads(threads)
        return Training(initial, _copied(module), taken)

    def network(self, training: Training) -> Network:
        """The network with given parameters."""
        name = f"{self.title}, trained on shuffled labels" if self.shuffled else self.title
        return Network.from_module(self.module(), trained=training.trained, initial=training.initial, name=name)

    def shipped(self) -> Network:
        """The network with the parameters that travel with the package; raises what `shipped_training` raises."""
        return self.network(self.shipped_training())

    def shipped_training(self) -> Training:
        """Parameters that travel with the package, with its snapshots.

        Raises CheckpointError where they were altered, or belong to another recipe.
        """
        states = shipped_states(self.key(), asdict(self))
        initial, trained = states.pop("initial"), states.pop("trained")
        epochs = {int(name.removeprefix(_EPOCH)): state for name, state in states.items()}
        return Training(initial, trained, dict(sorted(epochs.items())))

    def files(self, training: Training) -> dict[str, bytes]:
        """What is kept of a training: parameters, recipe with checksums, and factories that `feature-lens extract`
        takes, by file name."""
        card = {
            "made by": " ".join(["feature-lens train", self.key(), *self._changes(), "--out FOLDER"]),
            "data": self.data,
            "licence": "MIT",
            "recipe": asdict(self),
            "software": {"torch": torch.__version__.split("+")[0]},
        }
        states = {"initial": training.initial, "trained": training.trained}
        states |= {f"{_EPOCH}{epoch:06d}": state for epoch, state in training.snapshots.items()}
        return packed(states, card) | {"net.py": self._factories().encode()}

    @classmethod
    def key(cls) -> str:
        """The name under which the net is registered."""
        return next(name for name, kind in ZOO.items() if kind is cls)

    @classmethod
    def from_text(cls: type[Z], entries: Sequence[str]) -> Z:
        """A recipe from entries 'setting=value', the rest as shipped; tuples are written 64,32,10.

        Raises SettingsError for an unknown setting or a value of another type.
        """
        defaults = {one.name: getattr(cls, one.name) for one in fields(cls)}
        changed: dict[str, Any] = {}
        for entry in entries:
            name, _, text = entry.partition("=")
            if name not in defaults:
                raise unknown_name(f"setting of the recipe '{cls.key()}'", name, list(defaults))
            if name in changed:
                raise SettingsError(
                    f"The setting '{name}' of a recipe takes one value, but was given twice; give it once."
                )
            changed[name] = _read(name, text, defaults[name])
        return cls(**changed)

    def _changes(self) -> list[str]:
        """What differs from the shipped recipe, as options of the command line."""
        shipped = asdict(type(self)())
        return [f"--recipe {name}={_written(value)}" for name, value in asdict(self).items() if value != shipped[name]]

    def _factories(self) -> str:
        shipped = asdict(type(self)())
        changed = ", ".join(f"{name}={value!r}" for name, value in asdict(self).items() if value != shipped[name])
        return (
            f'"""Factories of {self.title}, for `feature-lens extract`."""\n\n'
            "from feature_lens.networks.zoo import ZOO\n\n"
            f'RECIPE = ZOO["{self.key()}"]({changed})\nmodule, examples = RECIPE.module, RECIPE.examples\n'
        )


# Settings of recipes that size nothing, or the square of something, are bounded otherwise than numbers of units.
_MOST: Final[Mapping[str, int]] = {
    **dict.fromkeys(("epochs", "batch", "shown"), 10_000_000),
    **dict.fromkeys(("seed", "shuffled"), (1 << 63) - 1),
    "modulus": 1000,
    "layers": 100,
}
_MOST_UNITS: Final = 16_384

ZOO: Final[Registry[type[ZooNet]]] = Registry("network of the zoo")


def at_least(least: float, **settings: float) -> None:
    """Raise SettingsError for a setting of a recipe that is too small."""
    for name, value in settings.items():
        if not value >= least:
            raise SettingsError(
                f"The setting '{name}' must be at least {least:g}, but {value:g} came; give a larger one."
            )


def _check_size(name: str, value: float | tuple[int, ...]) -> None:
    """Raise SettingsError for a setting of a recipe that is no number, or that asks for more than a machine has."""
    most = _MOST.get(name, _MOST_UNITS)
    for number in value if isinstance(value, tuple) else (value,):
        if not abs(number) <= most:
            raise SettingsError(
                f"The setting '{name}' is a number of at most {most:,}, but {number} came; give a smaller one."
            )


def _copied(module: torch.nn.Module) -> Params:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read(name: str, text: str, default: Any) -> Any:
    """A value of the default's type."""
    try:
        if isinstance(default, tuple):
            return tuple(int(part) for part in text.split(","))
        return type(default)(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}.get(type(default), "whole numbers with commas between")
        raise SettingsError(
            f"The setting '{name}' is {wanted}, but '{text}' came; write {name}={_written(default)}."
        ) from None
