"""The kinds of features that are compared with one another in a run: its sets, and beside them its own outputs and
random directions, which a set of features has to beat to be worth looking at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.orders import value_matrix
from feature_lens.arrays import as_float32
from feature_lens.feature_set import FeatureSet
from feature_lens.run_contents import RunContents

LOGITS: Final = "the network's own logits"
RANDOM: Final = "random directions"


@dataclass(frozen=True)
class Kind:
    """One kind. set_name: the set it is, or is made of, '' for outputs that are no set; family: what it competes as; views: how
    many views of each feature count, each as a feature; values (features * views, n), None where they are not stored."""

    name: str
    set_name: str
    family: str
    views: int
    values: npt.NDArray[np.float32] | None = field(repr=False)

    def of_set(self, run: RunContents) -> FeatureSet | None:
        """The set that it is; None for the outputs and random directions."""
        return None if self.name in (LOGITS, RANDOM) else run.sets[self.set_name]


def kinds(run: RunContents, seed: int = 0) -> list[Kind]:
    """All kinds of a run: its sets, in their score where they have one, else in all their views; the network's outputs;
    and a seeded random orthogonal mixture of the values of the first eigen set. Sets that are made with the labels of the
    examples are left out: they know the answer."""
    found = []
    logits = next((name for name, one in run.sets.items() if _is_logits(one)), "")
    for feature_set in run.sets.values():
        if feature_set.name == logits or feature_set.card.reads_labels:
            continue
        family = feature_set.card.design.partition(",")[0]
        values = _all_values(feature_set) if feature_set.stores_values else None
        found.append(Kind(_name(run, feature_set), feature_set.name, family, len(views_of(feature_set)), values))
    found.append(Kind(LOGITS, logits, LOGITS, 1, as_float32(run.outputs).T))
    eigen = next(
        (s for s in run.sets.values() if s.stores_values and "spectrum" in s and not s.card.reads_labels), None
    )
    if eigen is not None:
        values = _all_values(eigen)
        usable = values[np.isfinite(values).all(axis=1)]
        if len(usable):
            found.append(Kind(RANDOM, eigen.name, RANDOM, 1, _random_directions(usable, seed)))
    return found


def _is_logits(feature_set: FeatureSet) -> bool:
    """Whether a set is the network's own outputs, which are a kind whether there is such a set or not."""
    return (feature_set.card.basis, feature_set.card.design) == ("canonical", "logits")


def views_of(feature_set: FeatureSet) -> tuple[str, ...]:
    """The views in which a set is compared: its score where it has one, else all, each of which counts as a feature."""
    return ("score",) if "score" in feature_set.views else feature_set.views


def _name(run: RunContents, feature_set: FeatureSet) -> str:
    """The title of a set up to a colon, with the set's name where the title is not the only one."""
    titles = [other.card.title.partition(":")[0] for other in run.sets.values()]
    title = feature_set.card.title.partition(":")[0]
    if not title:
        return f"set '{feature_set.name}'"
    return title if titles.count(title) == 1 else f"{title} '{feature_set.name}'"


def _all_values(feature_set: FeatureSet) -> npt.NDArray[np.float32]:
    if "score" in feature_set.views:
        return value_matrix(feature_set, "score")
    values = feature_set.read("values").astype(np.float32, copy=False)
    return values.reshape(-1, values.shape[-1])


def _random_directions(values: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    normal = np.random.default_rng(seed).standard_normal((len(values), len(values)))
    orthogonal, _ = np.linalg.qr(normal)
    return (orthogonal @ values.astype(np.float64)).astype(np.float32)
