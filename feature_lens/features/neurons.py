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
from feature_lens.features.layer_trace import LayerInfo, trace_layers
from feature_lens.networks import Network
from feature_lens.networks.passes import one_pass
from feature_lens.registry import unknown_name

Reduce = Literal["max", "mean", "absmax"]

# How cards name the network whose activations they show.
UNTRAINED = {"effective": "", "initial": " of the untrained network"}


def hidden_layers(network: Network, examples: Examples) -> list[LayerInfo]:
    """The hidden layers that a forward pass reaches; those with `usable` can be shown, the others say why not in
    their `remark`. The layer that gives the network's own outputs is left out. See `trace_layers`."""
    return trace_layers(network, examples)


class NeuronActivations(DesignMatrix):
    """Activations of the units of one layer: rows examples, columns units (channels, for convolutions).

    Taken by Captum's LayerActivation. Where a unit has a value at many positions (pixels, time steps, tokens),
    `reduce` says which one number stands for it: 'max', 'mean', or 'absmax' (the value of largest magnitude, signed);
    `activations` gives the position of that value too, except for the mean. An activation map (b, channels, ...) of a
    convolution has its units on axis 1, a sequence (b, t, units) on its last; `info.unit_axis` says which.
    Values are those at the moment the layer returns: a non-linearity that then writes over them changes nothing.
    `layer` is a module path; one of a module that has several is as good as another. at: "effective", with the trained
    parameters, or "initial", with those before training.

    Raises NetworkError for a layer that is not reached, is called more than once, or returns several tensors, for
    what `Network.check` refuses, and where initial parameters are wanted but not known; SettingsError for a name or a
    reduction that is not known.
    Cost: one forward pass of all examples.
    """

    def __init__(
        self,
        network: Network,
        examples: Examples,
        layer: str,
        *,
        reduce: Reduce = "max",
        at: str = "effective",
        tile: int | None = None,
    ) -> None:
        if reduce not in ("max", "mean", "absmax"):
            raise SettingsError(f"Positions are reduced by max, mean or absmax, not '{reduce}'; choose one of them.")
        self.network = network
        self.examples = examples
        self.layer = layer
        self.reduce = reduce
        self.at, self._params = at, network.at(at)
        self.info = _usable_layer(network, examples, layer)
        self.tile = tile_size(tile, self.info.width * int(np.prod(self.info.positions, dtype=np.int64)))

    @property
    def views(self) -> tuple[str, ...]:
        return ("activation",)

    @property
    def n_columns(self) -> int:
        return self.info.width

    @property
    def card(self) -> tuple[str, str]:
        return f"neurons{UNTRAINED[self.at]}, {self.info.label}", "no outputs are involved"

    @property
    def location_shape(self) -> tuple[int, ...]:
        """Shape of the positions that were reduced; () where there are none."""
        return self.info.positions

    @property
    def description(self) -> str:
        """What the values are, in words."""
        words = (
            f"The {self.info.width} units of the {self.info.kind} '{self.layer}'{UNTRAINED[self.at]}, {self.info.label}"
        )
        words += f" ({self.info.remark})" if self.info.remark else ""
        if self.info.positions:
            how = {"max": "largest value", "mean": "mean", "absmax": "value of largest magnitude"}[self.reduce]
            words += f"; of {'x'.join(map(str, self.info.positions))} positions the {how} is taken"
        return words + ". Activations are no part of the kernel, so no share of it is given."

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
                locations[start : start + count] = where[:count].cpu().numpy()
            if self.watch is not None:
                self.watch(count)
        return values, locations

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # Not the module itself: a forward that writes into a buffer would then give the next tile other values.
        return self.network(self._params, inputs)

    def _layer_values(self, inputs: torch.Tensor) -> torch.Tensor:
        layer = self.network.module.get_submodule(self.layer)
        with one_pass(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            found = LayerActivation(self._forward, layer).attribute(inputs)
        if not isinstance(found, torch.Tensor):
            raise NetworkError(f"Layer '{self.layer}' must give one tensor, but a {type(found).__name__} came.")
        return found.detach()

    def _reduced(self, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = found if found.is_floating_point() else found.to(torch.float64)
        by_unit = found.movedim(self.info.unit_axis, 1).flatten(2) if found.ndim > 2 else found
        if by_unit.ndim == 2:
            return by_unit, None
        if self.reduce == "mean":
            return by_unit.mean(dim=2), None
        where = (by_unit if self.reduce == "max" else by_unit.abs()).argmax(dim=2)
        return by_unit.gather(2, where[..., None])[..., 0], where


class Logits(DesignMatrix):
    """The network's outputs (n, c), as features: what every other set is to be held against.

    at: "effective", with the trained parameters, or "initial", with those before training. Raises what
    `Network.check` refuses, SettingsError for another `at`, NetworkError where initial parameters are not known.
    Cost: one forward pass of all examples.
    """

    def __init__(self, network: Network, examples: Examples, *, at: str = "effective", tile: int | None = None) -> None:
        self.network, self.examples = network, examples
        self.at, self._params = at, network.at(at)
        self.n_outputs = network.check(examples)
        self.tile = tile_size(tile, self.n_outputs)

    @property
    def views(self) -> tuple[str, ...]:
        return ("score",)

    @property
    def n_columns(self) -> int:
        return self.n_outputs

    @property
    def card(self) -> tuple[str, str]:
        return f"logits{UNTRAINED[self.at]}", "the outputs themselves"

    @property
    def description(self) -> str:
        """What the values are, in words."""
        return f"The {self.n_outputs} outputs{UNTRAINED[self.at]}. They are no part of the kernel, so no share of it is given."

    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        del positions
        with torch.no_grad():
            return as_matrix(self.network(self._params, inputs))


def _usable_layer(network: Network, examples: Examples, layer: str) -> LayerInfo:
    modules = {name: part for name, part in network.module.named_modules(remove_duplicate=False) if name}
    if layer not in modules:
        raise unknown_name("layer", layer, list(modules))
    # A module that has several names is traced under its first.
    first = next(name for name, part in modules.items() if part is modules[layer])
    known = {info.name: info for info in trace_layers(network, examples, every=True)}
    if first not in known:
        shown = [name for name, info in known.items() if info.usable]
        listed = ", ".join(shown[:24]) + (f" and {len(shown) - 24} more" if len(shown) > 24 else "")
        raise NetworkError(
            f"Layer '{layer}' has activations only if the forward pass calls it, but it does not; "
            f"choose one of {listed or 'none'}."
        )
    if not known[first].usable:
        raise NetworkError(
            f"Layer '{layer}' cannot be shown as neurons, because {known[first].remark}; choose another."
        )
    return known[first]
