"""What the network does without a feature: without its part of what training added, or without a neuron.

A feature's part of d = theta* - theta0 is d itself on a weight or on the weights into a unit, and (v . d) v along an
eigen feature's direction v (of thetahat, theta = sqrt(lambda) thetahat); the network then runs at theta* less that
part. A neuron is set to zero. These are runs of the real network, not sums of contributions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.arrays import finite_rows, narrowed
from feature_lens.examples import Column, Examples
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.unit import units_of
from feature_lens.features.design import DesignMatrix, as_matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import NeuronActivations
from feature_lens.networks import Network
from feature_lens.networks.network import Params
from feature_lens.networks.passes import one_pass
from feature_lens.predictions import Predictions, targets_as

Matrix = npt.NDArray[np.float64]
# Weights of a set that are ablated one by one, those of largest contribution, and examples of a pass.
MOST_WEIGHTS = 256
_TILE = 256


def ablations(
    design: DesignMatrix, feature_set: FeatureSet, weight: Matrix | None = None, most: int | None = None
) -> dict[str, Column]:
    """Columns "ablation/..." of a feature set, empty where its features have no part of d.

    loss (k): change of the mean of 1/2 sum (f - y)^2, and accuracy (k), on held-out examples (all without a split);
    output (k, c): mean change of each output there; highest and lowest (k, v, m): change of the predicted output on
    the kept examples, and example (k, n) on all of them, but for weights. NaN where there is nothing to compare with, for
    features beyond the `most` that lead in the set's own order (all without), and for weights beyond the 256 of largest
    contribution `weight` (p,). Cost: one forward pass of all examples for every feature.
    """
    leading = np.asarray(feature_set.columns["order"])[:most].tolist()
    runs = _runs(design, feature_set, weight, leading)
    if runs is None:
        return {}
    network, examples = design.network, design.examples
    judge = _Judge(network, examples)
    if len(judge.held) == 0:  # no output is finite
        return {}
    k, c = len(feature_set), judge.outputs.shape[1]
    made: dict[str, Any] = {
        "ablation/loss": np.full(k, np.nan),
        "ablation/accuracy": np.full(k, np.nan),
        "ablation/output": np.full((k, c), np.nan),
    }
    ends = {end: np.asarray(feature_set.columns[f"{end}/position"]) for end in ("highest", "lowest")}
    for end, positions in ends.items():
        made[f"ablation/{end}"] = np.full(positions.shape, np.nan)
    if not feature_set.is_canonical:
        made["ablation/example"] = np.full((k, len(examples)), np.nan)
    for feature, outputs in runs:
        with np.errstate(invalid="ignore"):  # where both are infinite there is no difference to tell
            change = outputs - judge.outputs
        made["ablation/loss"][feature] = judge.loss(outputs) - judge.loss(judge.outputs)
        made["ablation/accuracy"][feature] = judge.accuracy(outputs) - judge.accuracy(judge.outputs)
        made["ablation/output"][feature] = change[judge.held].mean(axis=0)
        predicted = change[np.arange(len(change)), judge.predicted]
        if "ablation/example" in made:
            made["ablation/example"][feature] = predicted
        for end, positions in ends.items():
            own = positions[feature]
            made[f"ablation/{end}"][feature] = np.where(own >= 0, predicted[own], np.nan)
    wide = ("ablation/loss", "ablation/accuracy")
    return {name: values if name in wide else narrowed(values) for name, values in made.items()}


@dataclass
class _Judge:
    network: Network
    examples: Examples

    def __post_init__(self) -> None:
        training, n = self.examples.training, len(self.examples)
        split = training is not None and not training.all()
        self.held = np.flatnonzero(~np.asarray(training)) if split else np.arange(n)
        self.outputs = self.network.outputs_at(self.network.trained, self.examples, _TILE)
        self.held = self.held[finite_rows(self.outputs)[self.held]]
        self.predicted = self.outputs.argmax(axis=1)
        c = self.outputs.shape[1]
        self._predictions = Predictions.of(self.examples, self.outputs)
        self._targets = targets_as(self.examples, c)

    def loss(self, outputs: Matrix) -> float:
        if self._targets is None:
            return float("nan")
        return float(np.square(outputs - self._targets)[self.held].sum(axis=1).mean() / 2)

    def accuracy(self, outputs: Matrix) -> float:
        right = self._predictions.right(self.examples, outputs)
        if right is None or np.isnan(right[self.held]).all():
            return float("nan")
        return float(np.nanmean(right[self.held]))


def _runs(
    design: DesignMatrix, feature_set: FeatureSet, weight: Matrix | None, leading: Sequence[int]
) -> Iterator[tuple[int, Matrix]] | None:
    """Number and outputs (n, c) of the leading features that can be taken away; None where none can."""
    if isinstance(design, NeuronActivations) and feature_set.is_neurons:
        return _without_neurons(design, leading)
    if not isinstance(design, EffectiveFeatures) or design.network.initial is None:
        return None
    added = np.concatenate([as_matrix(value).ravel() for value in design.network.displacement().values()])
    inside = np.isin(_names(design.network), design.parameters.names)
    if feature_set.is_canonical and weight is not None and inside.all():
        chosen = np.argsort(-weight, kind="stable")[: min(MOST_WEIGHTS, len(leading))]
        return _without(design, ((int(one), _single(added, int(one))) for one in chosen))
    if feature_set.card.basis == "unit":
        owner = units_of(design)[0]
        parts = ((unit, np.where(owner == unit, added[inside], 0.0)) for unit in leading)
        return _without(design, ((unit, _spread(part, inside)) for unit, part in parts))
    direction = feature_set.columns.get("direction")
    if direction is not None and len(direction.shape) == 2:
        table = design.network.parameters
        scale = np.sqrt(np.repeat(table.learning_rates, table.sizes))
        vectors = np.asarray(direction, dtype=np.float64)  # over all of theta, whatever tensors were chosen
        sizes = vectors @ (added / scale)
        return _without(design, ((k, sizes[k] * vectors[k] * scale) for k in leading))
    return None


def _names(network: Network) -> list[str]:
    return [name for name, at in network.parameters.slices for _ in range(at.stop - at.start)]


def _single(added: Matrix, place: int) -> Matrix:
    part = np.zeros_like(added)
    part[place] = added[place]
    return part


def _spread(part: Matrix, inside: npt.NDArray[np.bool_]) -> Matrix:
    whole = np.zeros(len(inside))
    whole[inside] = part
    return whole


def _without(design: EffectiveFeatures, parts: Iterator[tuple[int, Matrix]]) -> Iterator[tuple[int, Matrix]]:
    """Outputs at theta* less a part (p,) of d."""
    network = design.network
    for feature, part in parts:
        params: Params = {}
        for (name, at), shape in zip(network.parameters.slices, network.parameters.shapes, strict=True):
            params[name] = network.trained[name] - network.real(part[at].reshape(shape))
        yield feature, network.outputs_at(params, design.examples, _TILE)


def _without_neurons(design: NeuronActivations, units: Sequence[int]) -> Iterator[tuple[int, Matrix]]:
    """Outputs with one unit of a layer set to zero, wherever it has a value."""
    network, axis = design.network, design.info.unit_axis
    layer = network.module.get_submodule(design.layer)

    def silence(unit: int) -> Callable[..., torch.Tensor]:
        def hook(_module: torch.nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
            silent = output.clone()
            silent.select(axis, unit).zero_()
            return silent

        return hook

    for unit in units:
        with one_pass():
            handle = layer.register_forward_hook(silence(unit))
            try:
                outputs = network.outputs_at(network.trained, design.examples, _TILE)
            finally:
                handle.remove()
        yield unit, outputs
