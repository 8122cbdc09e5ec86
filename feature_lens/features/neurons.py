"""Ordinary neurons: activations of a hidden layer, taken by Captum."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerActivation

from feature_lens.errors import NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.design import DesignMatrix, Matrix, as_matrix, tile_size
from feature_lens.features.layer_trace import LayerInfo, out_of_place, trace_layers
from feature_lens.networks import Network
from feature_lens.registry import unknown_name

Reduce = Literal["max", "mean", "absmax"]


def hidden_layers(network: Network, examples: Examples) -> list[LayerInfo]:
    """The hidden layers that a forward pass reaches; those with `usable` can be shown. See `trace_layers`."""
    return trace_layers(network, examples)


class NeuronActivations(DesignMatrix):
    """Activations of the units of one layer: rows examples, columns units (channels, for convolutions).

    Taken by Captum's LayerActivation. Where a unit has a value at many positions (pixels, time steps, tokens),
    `reduce` says which one number stands for it: 'max', 'mean', or 'absmax' (the value of largest magnitude, signed);
    `activations` gives the position of that value too, except for the mean. An activation map (b, channels, ...) of a
    convolution has its units on axis 1, a sequence (b, t, units) on its last.

    Raises NetworkError for a layer that is not reached, is called more than once, or returns several tensors.
    Cost: one forward pass of all examples.
    """

    def __init__(
        self, network: Network, examples: Examples, layer: str, *, reduce: Reduce = "max", tile: int | None = None
    ) -> None:
        if reduce not in ("max", "mean", "absmax"):
            raise SettingsError(f"Positions are reduced by max, mean or absmax, not '{reduce}'; choose one of them.")
        self.network = network
        self.examples = examples
        self.layer = layer
        self.reduce = reduce
        network.check(examples)
        self.info = _usable_layer(network, examples, layer)
        self.tile = tile_size(tile, self.info.width * int(np.prod(self.info.positions, dtype=np.int64)))
        self._module = out_of_place(network.module)

    @property
    def views(self) -> tuple[str, ...]:
        return ("activation",)

    @property
    def n_columns(self) -> int:
        return self.info.width

    @property
    def card(self) -> tuple[str, str]:
        return f"neurons, {self.info.label}", "no outputs are involved"

    @property
    def location_shape(self) -> tuple[int, ...]:
        """Shape of the positions that were reduced; () where there are none."""
        return self.info.positions

    @property
    def description(self) -> str:
        """What the values are, in words."""
        words = f"The {self.info.width} units of the {self.info.kind} '{self.layer}', {self.info.label}"
        words += f" ({self.info.remark})" if self.info.remark else ""
        if self.info.positions:
            how = {"max": "largest value", "mean": "mean", "absmax": "value of largest magnitude"}[self.reduce]
            words += f"; of {'x'.join(map(str, self.info.positions))} positions the {how} is taken"
        return words + "."

    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        del positions
        return as_matrix(self._reduced(self._layer_values(inputs))[0])

    def activations(self) -> tuple[Matrix, npt.NDArray[np.int32] | None]:
        """Values (n, width) and flat positions (n, width) of the extreme that was taken; None without positions."""
        n = len(self.examples)
        values: Matrix = np.empty((n, self.info.width))
        located = self.info.positions and self.reduce != "mean"
        locations = np.empty((n, self.info.width), dtype=np.int32) if located else None
        for start in range(0, n, self.tile):
            inputs, count = self._padded(start)
            reduced, where = self._reduced(self._layer_values(inputs))
            values[start : start + count] = as_matrix(reduced)[:count]
            if locations is not None and where is not None:
                locations[start : start + count] = where[:count].numpy()
            if self.watch is not None:
                self.watch(count)
        return values, locations

    def _layer_values(self, inputs: torch.Tensor) -> torch.Tensor:
        layer = dict(self._module.named_modules())[self.layer]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
                found = LayerActivation(self._module, layer).attribute(inputs)
        finally:
            torch.set_num_threads(threads)
        if not isinstance(found, torch.Tensor):
            raise NetworkError(f"Layer '{self.layer}' must give one tensor, but a {type(found).__name__} came.")
        return found.detach()

    def _reduced(self, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        by_unit = found.movedim(self.info.unit_axis, 1).flatten(2) if found.ndim > 2 else found
        if by_unit.ndim == 2:
            return by_unit, None
        if self.reduce == "mean":
            return by_unit.mean(dim=2), None
        where = (by_unit if self.reduce == "max" else by_unit.abs()).argmax(dim=2)
        return by_unit.gather(2, where[..., None])[..., 0], where


def _usable_layer(network: Network, examples: Examples, layer: str) -> LayerInfo:
    if layer not in dict(network.module.named_modules()) or not layer:
        raise unknown_name("layer", layer, [name for name, _ in network.module.named_modules() if name])
    known = {info.name: info for info in trace_layers(network, examples, every=True)}
    if layer not in known:
        raise NetworkError(
            f"Layer '{layer}' has activations only if the forward pass calls it, but it does not; "
            f"choose one of {', '.join(known) or 'none'}."
        )
    if not known[layer].usable:
        raise NetworkError(
            f"Layer '{layer}' cannot be shown as neurons, because {known[layer].remark}; choose another."
        )
    return known[layer]
