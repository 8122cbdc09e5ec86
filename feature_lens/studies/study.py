"""What a study is: a network of the zoo, the feature sets that are held against each other, seeds and budget, all fixed
in the file that names it before it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.study.families import (
    CONTROLS,
    FAMILIES,
    LOGITS,
    NEURONS,
    OTHER,
    PCA,
    RANDOM,
    SHUFFLED,
    SPARSE,
    UNTRAINED,
)
from feature_lens.errors import SettingsError
from feature_lens.registry import Registry
from feature_lens.run_contents import RunContents


@dataclass(frozen=True)
class Contender:
    """One feature set of a study, as `--set` takes it, and what it competes as; those of `SHUFFLED` are made of a
    network trained on labels that were permuted."""

    spec: str
    family: str

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise SettingsError(
                f"A set competes as one of {', '.join(FAMILIES)}, but '{self.family}' came; choose one of them."
            )


BASELINES: Final = (
    Contender("canonical/neurons", NEURONS),
    Contender("pca/neurons", PCA),
    Contender("nmf/neurons", OTHER),
    Contender("ica/neurons", OTHER),
    Contender("dictionary/neurons", OTHER),
    Contender("sae/neurons", SPARSE),
    Contender("directions/neurons", RANDOM),
    Contender("canonical/neurons@initial", UNTRAINED),
    Contender("eigen/trace@initial", UNTRAINED),
    Contender("canonical/neurons", SHUFFLED),
    Contender("eigen/trace", SHUFFLED),
)


@dataclass(frozen=True)
class Study:
    """A question put to one network of the zoo.

    recipe: what differs from the shipped recipe, as 'setting=value'. contenders: the sets compared; every one of
    `CONTROLS` must be among their families, but for logits, which are always compared. components: features that
    every set is given, the leading ones. seeds: of the network's recipe, all reported. draws: of examples and seeds,
    for intervals. keep: examples kept at each end of a ranking. concepts: what else is known of the examples once the
    network is trained, from its run. tables: further tables of the run of a seed, by name.
    """

    question: str
    net: str
    contenders: tuple[Contender, ...]
    recipe: tuple[str, ...] = ()
    components: int = 32
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: int = 200
    keep: int = 16
    concepts: Callable[[RunContents], Mapping[str, npt.NDArray[np.float64]]] | None = None
    tables: Mapping[str, Callable[[RunContents], pd.DataFrame]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        held = {LOGITS, *(one.family for one in self.contenders)}
        if missing := [family for family in CONTROLS if family not in held]:
            raise SettingsError(
                f"The study of '{self.net}' is incomplete without {' and '.join(missing)}; add a set of each."
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingsError(f"A study has one or more seeds, all different, but {self.seeds} came; name them so.")

    def plain(self) -> dict[str, Any]:
        """What shapes the runs of its seeds, as the plain data that JSON gives back."""
        kept = {"net", "contenders", "recipe", "components", "keep"}
        plain = {key: value for key, value in asdict(self).items() if key in kept}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


STUDIES: Final[Registry[Study]] = Registry("study")
