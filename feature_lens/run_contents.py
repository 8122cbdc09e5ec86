"""All that one run holds, whether it was just computed or is read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_lens.cards import NetworkCard, Provenance
from feature_lens.examples import Column, Examples
from feature_lens.feature_set import FeatureSet
from feature_lens.registry import unknown_name


@dataclass(frozen=True)
class RunContents:
    """A network, its examples, the network's outputs (n, c) on them, and feature sets by name."""

    name: str
    network: NetworkCard
    examples: Examples
    outputs: Column
    sets: Mapping[str, FeatureSet]
    provenance: Provenance

    def feature_set(self, name: str) -> FeatureSet:
        """A feature set by name; raises SettingsError with the known names otherwise."""
        if name not in self.sets:
            raise unknown_name("feature set of this run", name, list(self.sets))
        return self.sets[name]

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Largest output of each example (n,)."""
        outputs: npt.NDArray[np.floating] = np.asarray(self.outputs)
        largest: npt.NDArray[np.int64] = outputs.argmax(axis=1)
        return largest
