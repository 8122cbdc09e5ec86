"""The columns themselves: one feature per weight of the network, or per neuron of a layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from feature_lens.arrays import as_float32
from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.feature_set import FeatureSet, ranking_columns
from feature_lens.features.bases.basis import (
    BASES,
    Basis,
    RankOutputs,
    by_spread,
    class_labels,
    of_tensors,
    ranked,
    refuse_joined,
    stored_columns,
)
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import UNTRAINED, Logits, NeuronActivations
from feature_lens.features.stored_factors import factored_values
from feature_lens.features.weight_ranking import Wanted, rank_weights
from feature_lens.predictions import Predictions, class_labels_of

Values = npt.NDArray[np.float64]

# Up to this many outputs every one of them is ranked.
MANY_OUTPUTS = 16


@BASES.register("canonical")
class Canonical(Basis):
    """Every column is a feature: weight features of effective features, ordinary neurons of activations.

    Values of weight features are never stored: all p are ranked by streaming, with mean, standard deviation and
    extremes. With c <= 16 outputs, or rank_outputs='all', each output is a view; otherwise the views are 'largest'
    (the value of largest magnitude over outputs, signed, with the output it came from), 'own' (the example's own
    class, where there are labels) and 'predicted'. factors: keep activations and output gradients, from which every
    value follows; costs one more stream. Cost of weight features: see `weight_ranking.rank_weights`.
    """

    def __init__(self, rank_outputs: RankOutputs = "auto", factors: bool = False) -> None:
        self.rank_outputs, self.factors = rank_outputs, factors

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError for settings that are not known, or the trace reduction."""
        if self.rank_outputs not in ("auto", "all"):
            raise SettingsError(f"Outputs are ranked 'auto' or 'all', not '{self.rank_outputs}'; choose one of them.")
        refuse_joined(design, "canonical")

    def fit(self, design: DesignMatrix, y: None = None) -> Canonical:
        """Nothing is learnt; the settings are checked."""
        self.check(design)
        self.fitted_on_, self.n_fitted_ = "nothing (no fit is needed)", 0
        return self

    def transform(self, design: DesignMatrix) -> Matrix:
        """The whole design matrix (r, p): r * p numbers, for small ones."""
        return np.concatenate([block for _, block in design.blocks()])

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """Weight features (values not stored) of effective features; neurons or logits (values stored)."""
        if isinstance(design, NeuronActivations):
            return self._neurons(design, name, keep, batch_size)
        if isinstance(design, Logits):
            return self._logits(design, name, keep, batch_size)
        if isinstance(design, EffectiveFeatures):
            return self._weights(design, name, keep, batch_size)
        raise SettingsError(f"The basis 'canonical' takes weights, neurons or logits, not {type(design).__name__}.")

    def _neurons(self, design: NeuronActivations, name: str, keep: int, batch_size: int) -> FeatureSet:
        activations, locations = design.activations()
        values = np.ascontiguousarray(as_float32(activations.T))[:, None]
        ranking = ranked(design, values, keep, batch_size)
        columns = stored_columns(ranking, values, by_spread(ranking))
        columns["labels"] = np.array([f"{design.layer}[{unit}]" for unit in range(len(values))])
        columns["layer"] = np.array([design.layer] * len(values))
        if locations is not None:
            columns["location"] = np.ascontiguousarray(locations.T)
            columns["location_shape"] = np.tile(np.array(design.location_shape, dtype=np.int32), (len(values), 1))
        card = self._card(
            design,
            f"Neurons of layer '{design.layer}'{UNTRAINED[design.at]}",
            design.description,
            "Captum's LayerActivation",
            "activation of the unit",
        )
        return FeatureSet(name, ("activation",), card, columns, design.network.parameters)

    def _logits(self, design: Logits, name: str, keep: int, batch_size: int) -> FeatureSet:
        outputs = self.transform(design)
        values = np.ascontiguousarray(as_float32(outputs.T))[:, None]
        ranking = ranked(design, values, keep, batch_size)
        columns = stored_columns(ranking, values, np.arange(len(values), dtype=np.int32))
        found, c = Predictions.of(design.examples, outputs), len(values)
        what = "probability" if found.probabilities else "logit"
        if found.kind == "classes":
            labels = [f"{what} of {design.examples.class_name(output)}" for output in range(c)]
        elif found.kind == "yes or no" and c == 1:
            labels = [f"{what} of {design.examples.class_name(1)}"]
        else:
            labels = [f"output {output}" for output in range(c)]
        columns["labels"] = np.array(labels)
        title = f"{'Probabilities' if found.probabilities else 'Logits'}{UNTRAINED[design.at]}"
        card = self._card(design, title, design.description, "the network's own outputs", "the output itself")
        return FeatureSet(name, design.views, card, columns, design.network.parameters)

    def _weights(self, design: EffectiveFeatures, name: str, keep: int, batch_size: int) -> FeatureSet:
        views, select = self._views(design)
        found = rank_weights(design, Wanted(len(views), select, keep, *class_labels(design)))
        columns: dict[str, Column] = {**ranking_columns(found.ranking), "order": by_spread(found.ranking)}
        if found.histogram is not None:
            columns["histogram"] = found.histogram
        if "largest" in views and found.sources is not None:
            for end, rows in zip(("highest", "lowest"), found.sources, strict=True):
                output = np.full((design.n_parameters, len(views), keep), -1, dtype=np.int32)
                output[:, 0] = rows
                columns[f"{end}/output"] = output
        if self.factors:
            columns["values"] = factored_values(design, views)
        chosen = design.parameters
        if chosen.names != design.network.parameters.names:
            columns["labels"] = np.array([chosen.label(index) for index in range(chosen.total)])
        kind, _ = design.card
        kept = "those of all examples follow from factors." if self.factors else "not of every example."
        card = self._card(
            design,
            f"Weight features: every one of the {kind}",
            f"One feature per weight: the derivative of an output with respect to that weight. All {chosen.total} are "
            f"ranked; the values of the extremes are kept, {kept}" + of_tensors(design),
            "the per-example gradient, entry by entry",
            "derivative of the output with respect to the weight (times the square root of its learning rate)",
            kernel_share=1.0,
        )
        return FeatureSet(name, views, card, columns, design.network.parameters)

    def _views(self, design: EffectiveFeatures) -> tuple[tuple[str, ...], Callable[[Values, int], Values]]:
        """Names of the views, and the function that makes (b, v, p) of them from a block (b, q, p) and its start."""
        if design.rows_per_example <= MANY_OUTPUTS or self.rank_outputs == "all":
            return design.views, lambda block, _start: block
        labels = class_labels_of(design.examples, design.n_outputs)
        outputs = design.network.outputs(design.examples, design.tile).argmax(axis=1)

        def select(block: Values, start: int) -> Values:
            at = np.arange(len(block))
            largest = np.take_along_axis(block, np.abs(block).argmax(axis=1)[:, None], axis=1)
            chosen = [largest, block[at, outputs[start : start + len(block)]][:, None]]
            if labels is not None:
                chosen.insert(1, block[at, labels[start : start + len(block)]][:, None])
            return np.concatenate(chosen, axis=1)

        return ("largest", "predicted") if labels is None else ("largest", "own", "predicted"), select
