"""Ordinary neurons: activations of a hidden layer, taken by Captum.

That row k of what a layer returns is example k is not taken for granted: a network may sort its batch, send examples to
experts, or let some of them leave early. Every tile is run once more, in another order and by halves, and examples of
it are run alone. Where the rows then differ, the layer is run for one example at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerActivation

from feature_lens.errors import NetworkError, SettingsError, in_brief
from feature_lens.examples import Examples
from feature_lens.features.design import DesignMatrix, Matrix, Tile, as_matrix, tile_size
from feature_lens.features.hidden_layers import LayerInfo, is_empty, trace_layers
from feature_lens.networks import Network
from feature_lens.networks.passes import one_pass
from feature_lens.networks.scrutiny import apart
from feature_lens.registry import unknown_name

Reduce = Literal["max", "mean", "absmax"]

# Examples that are run alone, at least, spread over all of them: few in every tile, all where there are not many.
_ALONE = 64

# How cards name the network whose activations they show.
UNTRAINED = {"effective": "", "initial": " of the untrained network"}


def hidden_layers(network: Network, examples: Examples) -> list[LayerInfo]:
    """The hidden layers that some example reaches; those with `usable` can be shown, the others say why not in
    their `remark`. The layer that gives the network's own outputs is left out. See `trace_layers`."""
    return trace_layers(network, examples)


class _NotRows(NetworkError):
    """What a layer returns for a batch is not one row for each example."""


class NeuronActivations(DesignMatrix):
    """Activations of the units of one layer: rows examples, columns units (channels, for convolutions).

    Taken by Captum's LayerActivation. Where a unit has a value at many positions (pixels, time steps, tokens),
    `reduce` says which one number stands for it: 'max', 'mean', or 'absmax' (the value of largest magnitude, signed);
    `activations` gives the position of that value too, except for the mean. An activation map (b, channels, ...) of a
    convolution has its units on axis 1, a sequence (b, t, units) on its last; `info.unit_axis` says which.
    Values are those at the moment the layer returns: a non-linearity that then writes over them changes nothing.
    `layer` is a module path; one of a module that has several is as good as another. at: "effective", with the trained
    parameters, or "initial", with those before training.

    An example that never reaches the layer has NaN for all its units, and a remark says which these are; another says
    so where the layer was run for one example at a time, because rows of a batch are not those of its examples.

    Raises NetworkError for a layer that is not reached, is called more than once for an example, or does not return one
    row of units for it, for what `Network.check` refuses, and where initial parameters are wanted but not known;
    SettingsError for a name or a reduction that is not known.
    Cost: two forward passes of all examples and some of one example, or one for each example.
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
        # None as long as rows of these examples were not compared.
        self._alone = True if self.info.alone else None
        self._unreached: frozenset[int] = frozenset()
        self._location_shape, self._varying = self.info.positions, False

    def on(self, positions: npt.NDArray[np.int64]) -> NeuronActivations:
        """The same layer on some of the examples; in other company rows are compared again."""
        chosen = super().on(positions)
        chosen._alone = self._alone or None
        chosen._unreached = frozenset()
        return chosen

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
        """Shape of the positions that were reduced; () where there are none, the largest where examples differ in it."""
        return self._location_shape

    @property
    def unreached(self) -> frozenset[int]:
        """Places of the examples that were seen not to reach the layer."""
        return self._unreached

    @property
    def remarks(self) -> tuple[str, ...]:
        """Whether examples were run one at a time, and which of them do not reach the layer."""
        made: list[str] = []
        if self._alone:
            made.append(
                f"Layer '{self.layer}' was run for one example at a time, because rows of a batch are not those of its "
                "examples there."
            )
        if self._unreached:
            ids = [str(self.examples.ids[place]) for place in sorted(self._unreached)[:3]]
            named = ", ".join(ids) + (", ..." if len(self._unreached) > 3 else "")
            made.append(
                f"{len(self._unreached)} of {len(self.examples)} examples never reach layer '{self.layer}' and have no values "
                f"of it (ids {named})."
            )
        return tuple(made)

    @property
    def description(self) -> str:
        """What the values are, in words."""
        words = (
            f"The {self.info.width} units of the {self.info.kind} '{self.layer}'{UNTRAINED[self.at]}, {self.info.label}"
        )
        words += f" ({self.info.remark})" if self.info.remark else ""
        if self.info.positions:
            how = {"max": "largest value", "mean": "mean", "absmax": "value of largest magnitude"}[self.reduce]
            up_to = "up to " if self._varying else ""
            words += f"; of {up_to}{'x'.join(map(str, self.location_shape))} positions the {how} is taken"
        return words + ". Activations are no part of the kernel, so no share of it is given."

    def tiles(self, first: int = 0) -> Iterator[Tile]:
        """Stream the rows of the examples from `first` on, after all of them were compared once."""
        if self._alone is None:
            try:
                for start in range(0, len(self.examples), self.tile):
                    self._compared(start)
                self._alone = False
            except _NotRows:
                self._alone = True
        return super().tiles(first)

    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        if not self._alone:
            return as_matrix(self._reduced(self._rows(inputs))[0])
        found: dict[int, Matrix] = {}
        for at, place in enumerate(positions.tolist()):
            if place not in found:
                found[place] = self._one(inputs[at : at + 1], place)[0]
        return np.stack([found[place] for place in positions.tolist()])

    def activations(self) -> tuple[Matrix, npt.NDArray[np.int32] | None]:
        """Values (n, width) and flat positions (n, width) of the extreme that was taken; None without positions, -1 where
        an example does not reach the layer."""
        try:
            if not self._alone:
                found = self._gathered(self._compared if self._alone is None else self._tile_rows)
                self._alone = False
                return found
        except _NotRows:
            self._alone = True
        return self._one_by_one()

    def _gathered(self, rows: Callable[[int], torch.Tensor]) -> tuple[Matrix, npt.NDArray[np.int32] | None]:
        """The same of batches, tile by tile."""
        n = len(self.examples)
        values: Matrix = np.empty((n, self.info.width))
        locations = self._no_locations()
        for start in range(0, n, self.tile):
            reduced, where = self._reduced(rows(start))
            count = min(self.tile, n - start)
            values[start : start + count] = as_matrix(reduced)[:count]
            if locations is not None and where is not None:
                locations[start : start + count] = where[:count].cpu().numpy()
            if self.watch is not None:
                self.watch(count)
        return values, locations

    def _one_by_one(self) -> tuple[Matrix, npt.NDArray[np.int32] | None]:
        """The same of one example at a time."""
        n = len(self.examples)
        values: Matrix = np.empty((n, self.info.width))
        locations, shapes = self._no_locations(), [self.info.positions] * n
        for place in range(n):
            one = self.network.tensor(self.examples.inputs[place : place + 1])
            values[place], where, shapes[place] = self._one(one, place)
            if locations is not None and where is not None:
                locations[place] = where
            if self.watch is not None:
                self.watch(1)
        reached = [place for place in range(n) if place not in self._unreached]
        if self.info.positions and reached:
            # Examples may have different numbers of positions: places are counted in a shape that holds all.
            self._location_shape = tuple(int(size) for size in np.max([shapes[place] for place in reached], axis=0))
            self._varying = len({shapes[place] for place in reached}) > 1
        if locations is not None:
            for place in reached:
                coordinates = np.unravel_index(locations[place], shapes[place])
                locations[place] = np.ravel_multi_index(coordinates, self._location_shape)
        return values, locations

    def _no_locations(self) -> npt.NDArray[np.int32] | None:
        located = self.info.positions and self.reduce != "mean"
        return np.full((len(self.examples), self.info.width), -1, dtype=np.int32) if located else None

    def _one(self, inputs: torch.Tensor, place: int) -> tuple[Matrix, npt.NDArray[np.int32] | None, tuple[int, ...]]:
        """Values (width,) of the example at a place, run alone, their flat positions, and the shape of these."""

        def refused(reason: str) -> NetworkError:
            return NetworkError(
                f"Layer '{self.layer}' cannot be shown as neurons, because for example {self.examples.ids[place]} {reason}; "
                "choose another."
            )

        try:
            calls, found = self._called(inputs)
        except Exception as error:  # the user's forward may raise anything; told in one sentence
            raise refused(f"it could not be run alone ({type(error).__name__}: {in_brief(error)})") from error
        if calls == 0:
            self._unreached |= {place}
            return np.full(self.info.width, np.nan), None, self.info.positions
        if calls > 1:
            raise refused(f"it is called {calls} times")
        if not isinstance(found, torch.Tensor):
            raise refused(f"it returns a {type(found).__name__}")
        axis, shape = self.info.unit_axis, tuple(found.shape)
        if len(shape) != len(self.info.row) + 1 or shape[0] != 1 or shape[axis] != self.info.width:
            raise refused(f"its output has the shape {shape}, which is not one row of {self.info.width} units")
        values, where = self._reduced(found)
        positions = tuple(size for at, size in enumerate(shape) if at not in (0, axis))
        return as_matrix(values)[0], None if where is None else where[0].cpu().numpy().astype(np.int32), positions

    def _tile_rows(self, start: int) -> torch.Tensor:
        return self._rows(self._padded(start)[0])

    def _compared(self, start: int) -> torch.Tensor:
        """What the layer returns for the tile at `start`; raises _NotRows where that is not a row for each example."""
        inputs, count = self._padded(start)
        found = self._rows(inputs)
        if len(inputs) > 1:
            half = len(inputs) // 2
            turned = torch.cat([self._rows(inputs[half:].flip(0)), self._rows(inputs[:half].flip(0))])
            self._refuse_other(found, turned.flip(0))
            wanted = -(-_ALONE * count // max(len(self.examples), _ALONE))
            for place in np.random.default_rng(start).permutation(count)[:wanted].tolist():
                one = slice(place, place + 1)
                self._refuse_other(found[one], self._rows(inputs[one]))
        return found

    def _refuse_other(self, rows: torch.Tensor, others: torch.Tensor) -> None:
        first, second = (as_matrix(one.flatten(1)) for one in (rows, others))
        if (apart(first, second, self.network.dtype, rows.dtype)[1] > 0).any():
            raise _NotRows(f"Rows of layer '{self.layer}' must be those of examples, but are not; choose another.")

    def _rows(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the layer returns for a batch; raises _NotRows where that is not one row for each input."""
        try:
            calls, found = self._called(inputs)
        except Exception as error:  # the user's forward may raise anything; told in one sentence
            raise _NotRows(f"Layer '{self.layer}' could not be run ({in_brief(error)}); choose another.") from error
        if calls != 1 or not isinstance(found, torch.Tensor) or tuple(found.shape) != (len(inputs), *self.info.row):
            raise _NotRows(
                f"Layer '{self.layer}' must give one row for each of {len(inputs)} examples; choose another."
            )
        return found

    def _called(self, inputs: torch.Tensor) -> tuple[int, Any]:
        """How often a pass calls the layer with some rows, and what it returned at the last of these calls, by Captum."""
        layer = self.network.module.get_submodule(self.layer)
        full: list[Any] = []

        def note(_module: torch.nn.Module, _args: Any, output: Any) -> None:
            if not is_empty(output):
                full.append(output.detach().clone() if isinstance(output, torch.Tensor) else output)

        with one_pass(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            hook = layer.register_forward_hook(note)
            try:
                found = LayerActivation(self._forward, layer).attribute(inputs)
            except AssertionError:
                if full:
                    raise
                found = None  # Captum's word for a layer that no input reaches
            finally:
                hook.remove()
        if full and is_empty(found):  # Captum keeps the last call, be it one without rows
            found = full[-1]
        return len(full), found.detach() if isinstance(found, torch.Tensor) else found

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # Not the module itself: a forward that writes into a buffer would then give the next tile other values.
        return self.network(self._params, inputs)

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
    known = {info.name: info for info in trace_layers(network, examples, every=True, wanted=first)}
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
