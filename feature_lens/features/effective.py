"""Effective features: the Jacobian of a network's outputs at its trained (or initial) parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.cards import ParameterTable
from feature_lens.errors import ExamplesError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.design import DesignMatrix, Matrix, as_matrix, tile_size
from feature_lens.features.jacobian import Jacobian
from feature_lens.features.reductions import reduction
from feature_lens.networks import Network
from feature_lens.networks.network import At
from feature_lens.registry import unknown_name


class EffectiveFeatures(DesignMatrix):
    """phi_i,mu(x) = sqrt(lambda_mu) d f_i(x) / d theta_mu, streamed in tiles.

    Derived independently; intended to correspond to the random features (at="initial") and effective features
    (at="effective") of Roberts, Yaida and Hanin, The Principles of Deep Learning Theory, arXiv:2106.10165, ch. 11 and
    infinity. The kernel `gram()` is the neural tangent kernel at those parameters; that of a few tensors (`layers`)
    is their share of it, and the shares add up.

    outputs: flattened (rows example * c + output), trace (columns output * p + parameter), output:i, sum, target,
    predicted, margin, or a callable of the outputs (c,). layers: names of parameter tensors, or of modules holding
    them; all without. tile: examples per tile; it shapes rounding, so it belongs to the settings of a run.

    Raises NetworkError or ExamplesError for what `Network.check` refuses, SettingsError for unknown names.
    Cost of one stream: n*c backward passes.
    """

    def __init__(
        self,
        network: Network,
        examples: Examples,
        at: At = "effective",
        outputs: str | Callable[[torch.Tensor], torch.Tensor] = "flattened",
        *,
        layers: Sequence[str] | None = None,
        tile: int | None = None,
    ) -> None:
        self.network = network
        self.examples = examples
        self.at = at
        self.n_outputs = network.check(examples)
        self.reduction = reduction(outputs, self.n_outputs)
        if self.reduction.needs_label and examples.labels is None:
            raise ExamplesError(
                f"The reduction '{self.reduction.name}' needs a class label for each example, but there are none; "
                "give targets or choose another reduction."
            )
        self.parameters = _chosen(network.parameters, layers)
        self.n_parameters = self.parameters.total
        self.tile = tile_size(tile, self.reduction.quantities(self.n_outputs) * self.n_parameters)
        self._scale: npt.NDArray[np.float64] = np.sqrt(np.repeat(self.parameters.learning_rates, self.parameters.sizes))
        self._plain = bool((self._scale == 1).all())
        self._jacobian = Jacobian(network, network.at(at), self.reduction, self.parameters.names)

    @property
    def views(self) -> tuple[str, ...]:
        return self.reduction.views(self.n_outputs)

    @property
    def n_columns(self) -> int:
        joined = self.reduction.quantities(self.n_outputs) if self.reduction.joined else 1
        return joined * self.n_parameters

    @property
    def card(self) -> tuple[str, str]:
        kind = "effective features" if self.at == "effective" else "initial features"
        return kind, f"{self.reduction.name}: {self.reduction.description}"

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._jacobian.remarks

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """sqrt(lambda) of each parameter (p,)."""
        return self._scale.copy()

    def theta(self) -> npt.NDArray[np.float64]:
        """The parameters at which the features are taken (p,), those of the chosen tensors."""
        params = self.network.at(self.at)
        theta: Matrix = np.concatenate([as_matrix(params[name]).reshape(-1) for name in self.parameters.names])
        return theta

    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        labels = self.examples.labels
        own = np.zeros(len(positions), dtype=np.int64) if labels is None else labels[positions]
        jacobian = as_matrix(self._jacobian(inputs, torch.as_tensor(own)))
        if not self._plain:
            jacobian = jacobian * self._scale
        values: Matrix = jacobian.reshape(self.tile * self.rows_per_example, self.n_columns)
        return values


def _chosen(table: ParameterTable, layers: Sequence[str] | None) -> ParameterTable:
    if layers is None:
        return table
    if not layers:
        raise SettingsError(
            "At least one layer must be chosen, but none was; name some, or leave the choice out for all."
        )
    for layer in layers:
        if not any(name == layer or name.startswith(f"{layer}.") for name in table.names):
            raise unknown_name("layer or parameter", layer, list(table.names))
    kept = [
        i
        for i, name in enumerate(table.names)
        if any(name == layer or name.startswith(f"{layer}.") for layer in layers)
    ]
    return ParameterTable(
        tuple(table.names[i] for i in kept),
        tuple(table.shapes[i] for i in kept),
        tuple(table.learning_rates[i] for i in kept),
    )
