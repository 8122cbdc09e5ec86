"""What training added to each output, shared out among features: contributions that add up exactly.

f(x; theta*) - f(x; theta0) = sum over mu of d_mu phiP_mu(x), d = theta* - theta0 and phiP the path features: each term
is what feature mu contributes. Derived independently, after the fundamental theorem of calculus; the dual model is
that of Roberts, Yaida and Hanin, arXiv:2106.10165, ch. infinity. The same for every learning-rate tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from feature_lens.cards import ParameterTable
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.bases.unit import units_of
from feature_lens.features.design import as_matrix, one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grouped:
    """Contributions (n, c, g) summed over groups of parameters, `names` (g,), each parameter in exactly one."""

    names: tuple[str, ...]
    values: Matrix


@dataclass(frozen=True)
class EigenContributions:
    """Contributions (n, c, k) of eigen features, (v . d) (v . phiP(x)), and what they leave of the sum of all
    contributions (n, c): the displacement need not lie in the span of their directions."""

    values: Matrix
    remainder: Matrix


@dataclass(frozen=True)
class Contributions:
    """What training added to every output of every example, (n, c), and who contributed it.

    `groups`: by "tensor", "layer" and "unit" (with its bias). `eigen`: along the directions that were given. `weights` (p,): mean |contribution| of each weight over
    training examples and outputs. `strongest` (n, c, m): for every output the weights of largest contribution, and
    `strength` (n, c, m) what they contribute. `residual` (n, c) is what the sum of all contributions leaves of
    `change`; it belongs to no feature.
    """

    change: Matrix
    residual: Matrix
    groups: Mapping[str, Grouped]
    eigen: EigenContributions
    weights: Matrix
    strongest: npt.NDArray[np.int32]
    strength: Matrix
    parameters: ParameterTable
    remarks: tuple[str, ...]

    @property
    def completeness(self) -> float:
        """Largest residual over the largest change."""
        return float(np.abs(self.residual).max() / max(np.abs(self.change).max(), np.finfo(np.float64).tiny))

    def ranked(self, example: int, output: int) -> list[tuple[str, float]]:
        """The weights that explain one output of one example, and their contributions, the strongest first."""
        at = (example, output)
        return [
            (self.parameters.label(int(weight)), float(share))
            for weight, share in zip(self.strongest[at], self.strength[at], strict=True)
        ]


def contributions(
    network: Network,
    examples: Examples,
    *,
    directions: Matrix | None = None,
    keep: int = 16,
    tile: int | None = None,
    tolerance: float = 1e-8,
) -> Contributions:
    """Contributions of all weights to all outputs of all examples, in one stream of path features.

    directions (k, p): unit vectors v of eigen features, orthogonal to each other, which are given their contributions
    too. Raises NetworkError where the initial parameters are not known, SettingsError for a `keep` below 1 and for
    directions of the trace reduction, which live in c x p and have no contributions. Cost: that of the path features,
    and a few passes over n c p numbers, a tile at a time; n c p k for directions.
    """
    if keep < 1:
        raise SettingsError(f"At least one weight per output must be kept, not {keep}.")
    design = EffectiveFeatures(network, examples, "path", tile=tile, tolerance=tolerance)
    n, c, p = len(examples), design.n_outputs, design.n_columns
    if directions is not None and (directions.ndim != 2 or directions.shape[1] != p):
        raise SettingsError(
            f"Contributions need directions over the {p:,} parameters, (k, {p:,}), but {directions.shape} came; "
            "those of the trace reduction live in outputs x parameters, so choose flattened or a single output."
        )
    added = _displacement(network) / design.scale
    turned = np.empty((0, p)) if directions is None else directions
    along, lengths = np.empty((n, c, len(turned))), turned @ added
    groupings = _groupings(design)
    keep = min(keep, p)
    sums = {name: np.empty((n, c, sums.shape[1])) for name, (_, sums) in groupings.items()}
    total, weights = np.empty((n, c)), np.zeros(p)
    strongest, strength = np.empty((n, c, keep), dtype=np.int32), np.empty((n, c, keep))
    training = np.zeros(n, dtype=bool)
    training[examples.fitting] = True
    with one_thread():
        for rows, block in design.blocks():
            at = slice(rows.start // c, rows.stop // c)
            shares = (block * added).reshape(-1, c, p)
            total[at] = shares.sum(axis=2)
            along[at] = (block @ turned.T).reshape(along[at].shape) * lengths
            sizes = np.abs(shares)
            weights += sizes[training[at]].sum(axis=(0, 1))
            places = np.argpartition(-sizes, keep - 1, axis=2)[:, :, :keep]
            order = np.argsort(-np.take_along_axis(sizes, places, axis=2), axis=2, kind="stable")
            strongest[at] = np.take_along_axis(places, order, axis=2)
            strength[at] = np.take_along_axis(shares, strongest[at], axis=2)
            for name, (_, summing) in groupings.items():
                sums[name][at] = (shares.reshape(-1, p) @ summing).reshape(-1, c, summing.shape[1])
    change = _change(network, examples)
    return Contributions(
        change=change,
        residual=change - total,
        groups={name: Grouped(names, sums[name]) for name, (names, _) in groupings.items()},
        eigen=EigenContributions(along, total - along.sum(axis=2)),
        weights=weights / (np.count_nonzero(training) * c),
        strongest=strongest,
        strength=strength,
        parameters=network.parameters,
        remarks=design.remarks,
    )


def _displacement(network: Network) -> Matrix:
    added = network.displacement()
    return np.concatenate([as_matrix(value).ravel() for value in added.values()])


def _change(network: Network, examples: Examples) -> Matrix:
    """f(x; theta*) - f(x; theta0), (n, c)."""
    return network.outputs(examples) - network.outputs(examples, at="initial")


def _groupings(design: EffectiveFeatures) -> dict[str, tuple[tuple[str, ...], scipy.sparse.csr_array]]:
    """Names of groups, and the matrix (p, g) that sums over them, by tensor, layer and unit."""
    table = design.parameters
    tensors = [name for name, at in table.slices for _ in range(at.stop - at.start)]
    layers = [name.rpartition(".")[0] or name for name in tensors]
    return {
        "tensor": _summing(tensors),
        "layer": _summing(layers),
        "unit": _summing(_unit_names(design, tensors)),
    }


def _unit_names(design: EffectiveFeatures, tensors: list[str]) -> list[str]:
    """The unit that each parameter belongs to: as a weight into it, as its bias, or else its whole tensor."""
    owner, names, layers = units_of(design)
    first = {layer: layers.index(layer) for layer in dict.fromkeys(layers)}
    made = [names[unit] if unit >= 0 else tensor for unit, tensor in zip(owner, tensors, strict=True)]
    for (tensor, at), shape in zip(design.parameters.slices, design.parameters.shapes, strict=True):
        layer = tensor.removesuffix(".bias")
        if layer != tensor and layer in first and shape == (layers.count(layer),):
            made[at] = names[first[layer] : first[layer] + shape[0]]
    return made


def _summing(groups: list[str]) -> tuple[tuple[str, ...], scipy.sparse.csr_array]:
    place = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    columns = np.array([place[name] for name in groups])
    shape = (len(groups), len(place))
    return tuple(place), scipy.sparse.csr_array((np.ones(len(groups)), (np.arange(len(groups)), columns)), shape=shape)
