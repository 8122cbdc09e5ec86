"""All that one run holds, whether it was just computed or is read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from feature_lens.cards import NetworkCard, Provenance
from feature_lens.dual_record import DualRecord
from feature_lens.examples import Column, Examples
from feature_lens.feature_set import FeatureSet
from feature_lens.registry import unknown_name


@dataclass(frozen=True)
class RunContents:
    """A network, its examples, the network's outputs (n, c) on them, and feature sets by name; `dual` where it was asked for."""

    name: str
    network: NetworkCard
    examples: Examples
    outputs: Column = field(repr=False)
    sets: Mapping[str, FeatureSet]
    provenance: Provenance
    dual: DualRecord | None = None

    def feature_set(self, name: str) -> FeatureSet:
        """A feature set by name; raises SettingsError with the known names otherwise."""
        if name not in self.sets:
            raise unknown_name("feature set of this run", name, list(self.sets))
        return self.sets[name]
