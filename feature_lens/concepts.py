"""Known properties of examples, beside which features are held: what a good set of features should show, where that is
known. A concept is a class of characters, the waves of a sum of residues, the true features of a toy model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.arrays import array_of, require_storable
from feature_lens.errors import ExamplesError

# A name is a group of the file and the head of a column of tables.
_NAME: Final = re.compile(r"(?![. ])[^/\x00-\x1f]{1,80}(?<! )")


@dataclass(frozen=True)
class Concept:
    """d known numbers of every example, taken together: d = 1 for a single property, the columns of a one-hot code or
    the cosines and sines of one family of waves for several.

    name: up to 80 characters without '/', the first of them no '.'; values (n, d) float64, finite; labels: the names
    of the d columns, all different. Raises ExamplesError otherwise. `of` makes one from what converts to that.
    """

    name: str
    values: npt.NDArray[np.float64] = field(repr=False)
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ExamplesError(
                f"The name of a concept is of 1 to 80 characters without '/', and does not begin with '.', but "
                f"'{self.name[:100]}' came; choose another name."
            )
        if self.values.dtype != np.float64 or self.values.ndim != 2 or 0 in self.values.shape:
            raise ExamplesError(
                f"The concept '{self.name}' needs real values (n, d), but {self.values.dtype} of shape "
                f"{self.values.shape} came; give one row per example."
            )
        for text in (self.name, *self.labels):
            require_storable(text, "of a concept")
        known = np.count_nonzero(np.isfinite(self.values).all(axis=1))
        if known < len(self.values):
            raise ExamplesError(
                f"The concept '{self.name}' must be known of every example, but {len(self.values) - known} hold "
                "NaN or infinity; fill them or leave the concept out."
            )
        if len(self.labels) != self.values.shape[1] or len(set(self.labels)) < len(self.labels):
            raise ExamplesError(
                f"The concept '{self.name}' needs one label for each of its {self.values.shape[1]} columns, all different, "
                f"but {len(self.labels)} came, {len(set(self.labels))} of them different; name each column."
            )

    @staticmethod
    def of(name: str, values: Any, labels: Sequence[str] = ()) -> Concept:
        """A concept of values (n,) or (n, d) of any real type; columns are called by number where labels are not given.

        Raises ExamplesError, in one sentence, for whatever does not fit.
        """
        if isinstance(labels, str):
            raise ExamplesError(f"Labels are a list of words, but the text '{labels}' came; put it into a list.")
        array = array_of(values, f"values of the concept '{name}'")
        array = array.astype(np.float64) if array.dtype.kind in "iufb" else array
        array = array[:, None] if array.ndim == 1 else array
        d = array.shape[1] if array.ndim == 2 else 0
        numbered = (name,) if d == 1 else tuple(f"{name} {column}" for column in range(d))
        return Concept(name, array, tuple(str(label) for label in labels) if len(labels) else numbered)

    def on(self, positions: npt.NDArray[np.int64]) -> Concept:
        """The same of some of the examples, in the order of the positions given."""
        return Concept(self.name, self.values[positions], self.labels)


def as_concepts(given: Mapping[str, Any], n: int) -> tuple[Concept, ...]:
    """Concepts of n examples, in their order, out of arrays or concepts by name; raises ExamplesError."""
    concepts = []
    for name, value in given.items():
        concept = value if isinstance(value, Concept) else Concept.of(name, value)
        if concept.name != name:
            raise ExamplesError(
                f"The concept '{concept.name}' was given under the name '{name}'; give it under its own name."
            )
        if len(concept.values) != n:
            raise ExamplesError(
                f"The concept '{name}' needs a row for each of {n} examples, but {len(concept.values)} came; "
                "give one row per example."
            )
        concepts.append(concept)
    return tuple(concepts)
