"""A feature set: what a basis made of a design matrix, in the one form that everything after it reads.

Letters: n examples, c outputs, p parameters, k features, v views, m kept extremes, l parameter tensors.

A feature has one or more *views*, each one number per example: a neuron has the view `activation`, a flattened
eigen feature has `score` and one `output:i` per output. Rankings and moments exist for every feature in every view;
values (k, v, n) are there for stored sets; the values of weight features are never stored, but follow from factors
where a run keeps those.
The columns, their shapes and meaning are those of `feature_lens.store.schema`, under the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.cards import ParameterTable, Provenance
from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.ranking import Ranking
from feature_lens.registry import unknown_name
from feature_lens.weight_factors import FactoredValues

# A set's name is a group of the file, a part of file names and of links in the app.
SET_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Card:
    """What a feature set is, in words and a few figures; shown beside everything it is used in. reads_labels: its values
    are made with the example's own label, so how they follow classes says nothing."""

    title: str
    description: str
    design: str
    basis: str
    outputs: str
    score: str
    equals: str = ""
    kernel_share: float | None = None
    fitted_on: str = "all examples (in sample)"
    n_fitted: int = 0
    reads_labels: bool = False
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True)
class FeatureSet:
    """k features of one kind. `name` is made of letters, digits, '_', '-' and '.'. `columns` holds arrays, or columns of a file that read what is indexed."""

    name: str
    views: tuple[str, ...]
    card: Card
    columns: Mapping[str, Column] = field(repr=False)
    parameters: ParameterTable | None = None

    def __len__(self) -> int:
        return int(self.columns["highest/position"].shape[0])

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def column(self, name: str) -> Column:
        """A column by name; raises SettingsError where this set has none of that name."""
        if name not in self.columns:
            raise unknown_name(f"column of feature set '{self.name}'", name, sorted(self.columns))
        return self.columns[name]

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole column as an array."""
        return np.asarray(self.column(name))

    @property
    def stores_values(self) -> bool:
        """Whether the values of all features are stored, so that the whole matrix of them can be read."""
        return "values" in self.columns and not self.keeps_factors

    @property
    def keeps_factors(self) -> bool:
        """Whether values are not stored but computed from factors, a feature at a time."""
        return isinstance(self.columns.get("values"), FactoredValues)

    @property
    def gives_values(self) -> bool:
        """Whether a feature's value on every example can be had, stored or from factors."""
        return "values" in self.columns

    def view_index(self, view: str) -> int:
        """Place of a view; raises SettingsError for an unknown one."""
        if view not in self.views:
            raise unknown_name(f"view of feature set '{self.name}'", view, list(self.views))
        return self.views.index(view)

    def check(self, feature: int) -> int:
        """The feature number itself; raises SettingsError when there is no such feature."""
        if not 0 <= feature < len(self):
            raise SettingsError(
                f"Feature set '{self.name}' has features 0 to {len(self) - 1}, but {feature} was asked for; choose one of them."
            )
        return feature

    @property
    def is_canonical(self) -> bool:
        """Whether feature number mu is entry mu of theta: a weight feature."""
        named = any(column in self.columns for column in ("labels", "spectrum", "direction", "layer"))
        return self.parameters is not None and len(self) == self.parameters.total and not named

    @property
    def of_activations(self) -> bool:
        """Whether features are made of neurons or logits, in the network's own units, not of derivatives by parameters."""
        return self.card.design.startswith(("neurons", "logits"))

    @property
    def is_neurons(self) -> bool:
        """Whether features are single neurons of the trained network."""
        return self.views == ("activation",) and "untrained" not in self.card.design

    def label(self, feature: int) -> str:
        """Readable name of a feature."""
        self.check(feature)
        if "labels" in self.columns:
            raw = self.columns["labels"][feature]
            return raw.decode() if isinstance(raw, bytes) else str(raw)
        if self.is_canonical and self.parameters is not None:
            return self.parameters.label(feature)
        return f"{self.name} {feature}"

    def values(self, feature: int, view: str) -> npt.NDArray[np.float32]:
        """Values (n,) of one feature in one view; raises SettingsError where values are not kept."""
        at = self.check(feature), self.view_index(view)
        if not self.gives_values:
            raise SettingsError(
                f"Feature set '{self.name}' keeps extremes and moments only, not the value of every example; "
                "choose a stored set."
            )
        return np.asarray(self.columns["values"][at])

    def extremes(self, feature: int, view: str, end: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Positions and values of the kept examples at the 'highest' or 'lowest' end, without padding."""
        if end not in ("highest", "lowest"):
            raise unknown_name("end of a ranking", end, ["highest", "lowest"])
        at = self.check(feature), self.view_index(view)
        position = np.asarray(self.columns[f"{end}/position"][at])
        value = np.asarray(self.columns[f"{end}/value"][at])
        return position[position >= 0], value[position >= 0]


def ranking_columns(ranking: Ranking) -> dict[str, Column]:
    """A ranking as columns of a feature set, with the default order of its features when they have no spectrum."""
    columns: dict[str, Column] = {
        "highest/position": ranking.highest.position,
        "highest/value": ranking.highest.value,
        "lowest/position": ranking.lowest.position,
        "lowest/value": ranking.lowest.value,
        "mean": ranking.mean,
        "std": ranking.std,
        "minimum": ranking.minimum,
        "maximum": ranking.maximum,
        "n_nonfinite": ranking.n_nonfinite,
        "first_nonfinite": ranking.first_nonfinite,
    }
    if ranking.class_mean is not None:
        columns["class_mean"] = ranking.class_mean
    return columns
