"""What a run says of itself and of its network: provenance, parameter table, network card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.registry import unknown_name


@dataclass(frozen=True)
class Provenance:
    """Where something came from: settings as plain data, software versions, fingerprint, remarks of the computation."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParameterTable:
    """The trainable parameter tensors in the order of theta: names, shapes, learning rates; p numbers in all."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    learning_rates: tuple[float, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes)

    @property
    def total(self) -> int:
        return sum(self.sizes)

    @property
    def slices(self) -> Iterator[tuple[str, slice]]:
        """Name and place in theta of each tensor."""
        start = 0
        for name, size in zip(self.names, self.sizes, strict=True):
            yield name, slice(start, start + size)
            start += size

    def of(self, layers: Sequence[str]) -> ParameterTable:
        """The tensors that are named, or that belong to a module that is; raises SettingsError for unknown names."""
        if not layers:
            raise SettingsError(
                "At least one layer must be chosen, but none was; name some, or leave the choice out for all."
            )
        if len(set(layers)) < len(layers):
            twice = next(layer for layer in layers if list(layers).count(layer) > 1)
            raise SettingsError(f"Each layer is named once, but '{twice}' came more than once; name it once.")
        of_layer = {
            layer: [i for i, name in enumerate(self.names) if name == layer or name.startswith(f"{layer}.")]
            for layer in layers
        }
        for layer, members in of_layer.items():
            if not members:
                raise unknown_name("layer or parameter", layer, list(self.names))
        kept = sorted({i for members in of_layer.values() for i in members})
        return ParameterTable(
            tuple(self.names[i] for i in kept),
            tuple(self.shapes[i] for i in kept),
            tuple(self.learning_rates[i] for i in kept),
        )

    def locate(self, index: int) -> tuple[str, tuple[int, ...]]:
        """Tensor and multi-index of one entry of theta; raises SettingsError outside 0..p-1."""
        start = 0
        for name, shape, size in zip(self.names, self.shapes, self.sizes, strict=True):
            if start <= index < start + size:
                return name, tuple(int(i) for i in np.unravel_index(index - start, shape)) if shape else ()
            start += size
        raise SettingsError(f"Parameters are numbered 0 to {self.total - 1}, but {index} came; choose one of them.")

    def label(self, index: int) -> str:
        """Readable name of one entry of theta, such as '0.weight[3,17]'."""
        name, at = self.locate(index)
        return f"{name}[{','.join(map(str, at))}]"


@dataclass(frozen=True)
class NetworkCard:
    """The trained network as a run describes it; `trained` and `initial` (p,) are theta* and theta0 where known."""

    name: str
    architecture: str
    n_outputs: int
    parameters: ParameterTable
    digest: str
    metrics: Mapping[str, float]
    trained: Column = field(repr=False)
    initial: Column | None = field(default=None, repr=False)
