"""Which features build on which: how a step along one changes another, from second derivatives along two directions.

M_kl(x) = (sqrt(lambda) v_k)^T psi(x) (sqrt(lambda) v_l), psi the second derivative of an output at the trained
parameters: the change of feature k's activation for a step along feature l, and the other way round. Derived
independently; psi are the meta features of Roberts, Yaida and Hanin, arXiv:2106.10165, ch. infinity.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.func import jvp, vmap

from feature_lens.errors import NetworkError, SettingsError, in_brief
from feature_lens.examples import Examples
from feature_lens.features.design import as_matrix, one_thread
from feature_lens.networks import Network
from feature_lens.networks.network import Params
from feature_lens.networks.passes import one_pass

Matrix = npt.NDArray[np.float64]
_TILE = 256
# Rotations that the null is taken from, and the share of its entries that an edge stands above.
_ROTATIONS = 100
_ABOVE = 0.99


@dataclass(frozen=True)
class Interactions:
    """M (n, c, k, k), symmetric in its last two axes."""

    values: Matrix

    @property
    def mean(self) -> Matrix:
        """(k, k) mean over examples and outputs."""
        made: Matrix = self.values.mean(axis=(0, 1))
        return made

    @property
    def size(self) -> Matrix:
        """(k, k) root of the mean square over examples and outputs."""
        return np.asarray(np.sqrt(np.square(self.values).mean(axis=(0, 1))))

    def of_outputs(self, outputs: npt.NDArray[np.int64]) -> Matrix:
        """(n, k, k): of one output of every example, their numbers (n,)."""
        return self.values[np.arange(len(self.values)), outputs]

    def threshold(self, seed: int = 0) -> float:
        """What the size of a pair must stand above to be an edge: 99 % of the pairs of as many directions turned at
        random within the same span do not. Cost: n c k^4."""
        k = self.values.shape[2]
        if k < 2:
            return float("inf")
        rng = np.random.default_rng(seed)
        flat = self.values.reshape(-1, k * k)
        moments = flat.T @ flat / len(flat)
        left, right = np.triu_indices(k, 1)
        sizes = []
        for _ in range(_ROTATIONS):
            turn = np.linalg.qr(rng.standard_normal((k, k)))[0]
            both = np.einsum("ap,bp->pab", turn[:, left], turn[:, right]).reshape(len(left), -1)
            sizes.append(np.sqrt(np.maximum(((both @ moments) * both).sum(axis=1), 0)))
        return float(np.quantile(np.concatenate(sizes), _ABOVE))

    def edges(self, seed: int = 0) -> list[tuple[int, int, float]]:
        """Pairs of different features whose size stands above the threshold, the largest first: k, l, size."""
        limit, size = self.threshold(seed), self.size
        found = [(k, m, float(size[k, m])) for k, m in zip(*np.triu_indices(len(size), 1), strict=True)]
        return sorted(((int(k), int(m), s) for k, m, s in found if s > limit), key=lambda edge: -edge[2])


def interactions(network: Network, examples: Examples, directions: Matrix) -> Interactions:
    """Interactions of unit directions v_k (k, p) of thetahat, theta = sqrt(lambda) thetahat, at the trained parameters.

    Exact, by a jvp of a jvp. Directions of the trace reduction live in p x c and have none: SettingsError. Raises
    NetworkError where forward derivatives of the network cannot be taken. Cost: k^2 / 2 forward passes of all
    examples with two tangents; n c k^2 numbers.
    """
    p = network.parameters.total
    if directions.ndim != 2 or directions.shape[1] != p:
        raise SettingsError(
            f"Interactions need directions over the {p:,} parameters, (k, {p:,}), but {directions.shape} came; those of "
            "the trace reduction live in outputs x parameters, so choose flattened or a single output."
        )
    rates = np.sqrt(np.repeat(network.parameters.learning_rates, network.parameters.sizes))
    tangents = _as_params(network, directions * rates)
    k, n = len(directions), len(examples)
    made: Matrix | None = None
    for first in range(0, n, _TILE):
        inputs = network.tensor(np.asarray(examples.inputs[first : first + _TILE]))
        for one in range(k):
            found = _row(network, inputs, tangents, one)
            if made is None:
                made = np.empty((n, found.shape[2], k, k))
            part = as_matrix(found.permute(1, 2, 0))
            made[first : first + len(inputs), :, one, one:] = part
            made[first : first + len(inputs), :, one:, one] = part
    return Interactions(np.empty((0, 1, k, k)) if made is None else made)


def _row(network: Network, inputs: torch.Tensor, tangents: Params, one: int) -> torch.Tensor:
    """(k - one, b, c): second derivatives along direction `one` and those from it on."""
    own = {name: value[one] for name, value in tangents.items()}

    def along(params: Params) -> torch.Tensor:
        made: torch.Tensor = jvp(lambda at: network(at, inputs), (params,), (own,))[1]
        return made

    def second(tangent: Params) -> torch.Tensor:
        made: torch.Tensor = jvp(along, (network.trained,), (tangent,))[1]
        return made

    try:
        with one_thread(), one_pass(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch and the user's forward warn of is not about this call
            found: torch.Tensor = vmap(second)({name: value[one:] for name, value in tangents.items()})
    except NetworkError:
        raise
    except Exception as error:  # the user's forward may raise anything under forward derivatives; one sentence
        raise NetworkError(
            f"Interactions need second derivatives forward through the network, but they could not be taken "
            f"({type(error).__name__}: {in_brief(error)}); features and contributions do not need them."
        ) from error
    return found.detach()


def _as_params(network: Network, rows: Matrix) -> Params:
    """Rows (k, p) as tensors (k, *shape) by name."""
    table = network.parameters
    return {
        name: network.real(rows[:, at]).reshape(len(rows), *shape)
        for (name, at), shape in zip(table.slices, table.shapes, strict=True)
    }
