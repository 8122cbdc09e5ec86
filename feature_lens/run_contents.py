"""All that one run holds, whether it was just computed or is read from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.cards import NetworkCard, Provenance
from feature_lens.dual_record import DualRecord
from feature_lens.examples import Column, Examples
from feature_lens.feature_set import FeatureSet
from feature_lens.kept_table import KeptTable
from feature_lens.registry import unknown_name

# Output reductions whose kernel a run may keep.
KEPT_KERNELS: Final = ("trace", "flattened")


class Deferred:
    """A matrix that is computed when it is first indexed; a writer may `fill` a data set instead, block by block."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], fill: Callable[[Any], None]) -> None:
        self.shape, self.dtype, self.fill = shape, dtype, fill

    @cached_property
    def _whole(self) -> npt.NDArray[Any]:
        whole = np.empty(self.shape, self.dtype)
        self.fill(whole)
        return whole

    def __getitem__(self, index: Any, /) -> Any:
        return self._whole[index]


@dataclass(frozen=True)
class KeptKernel:
    """The neural tangent kernel of the effective features, all parameters, between all examples.

    outputs: "trace", summed over outputs, `value` (n, n); or "flattened", (n c, n c), row = example * c + output.
    """

    outputs: str
    value: Column = field(repr=False)


@dataclass(frozen=True)
class RunContents:
    """A network, its examples, the network's outputs (n, c) on them, and feature sets by name; `dual` and `kernel` where they
    were asked for, and tables of figures by name."""

    name: str
    network: NetworkCard
    examples: Examples
    outputs: Column = field(repr=False)
    sets: Mapping[str, FeatureSet]
    provenance: Provenance
    dual: DualRecord | None = None
    kernel: KeptKernel | None = None
    tables: Mapping[str, KeptTable] = field(default_factory=dict)

    def feature_set(self, name: str) -> FeatureSet:
        """A feature set by name; raises SettingsError with the known names otherwise."""
        if name not in self.sets:
            raise unknown_name("feature set of this run", name, list(self.sets))
        return self.sets[name]
