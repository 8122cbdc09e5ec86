"""Lottery tickets among features: how few of what training added reproduce the network.

With f0 the outputs before training and c_mu(x) the contributions, keeping some features gives f0 + the sum of their
contributions, and, as a real sparse network, the outputs at theta0 + mask * d. The term is that of Frankle and Carbin,
arXiv:1803.03635, whose masks are found by training; these are found without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from sklearn.metrics import r2_score

from feature_lens.dual.regression import can_judge
from feature_lens.dual.sharing import Contributions
from feature_lens.dual_record import Ticket
from feature_lens.errors import ExamplesError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.design import as_matrix, one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.networks.network import Params
from feature_lens.predictions import class_labels_of

Matrix = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]

ORDERS: Final = ("contribution", "per_layer", "random", "smallest")
_POINTS = 24


def tickets(
    network: Network,
    examples: Examples,
    shared: Contributions,
    *,
    counts: Sequence[int] | None = None,
    seed: int = 0,
    tolerance: float = 1e-8,
) -> tuple[Ticket, ...]:
    """R2 to the network's outputs, agreement with its predictions and accuracy, against the number of features kept.

    Orders of the weights: by mean |contribution| over training examples, the same with equal shares of every layer, at
    random, and smallest first, which is what dropping the largest leaves. For each the sum of contributions
    ("sum") and the real network at theta0 + mask * d ("network"). Eigen features, where their contributions are among
    the shared ones, are kept in their order ("eigen", sum alone). Raises ExamplesError without held-out examples, SettingsError for impossible counts.
    Cost: one stream of path features, and a forward pass of all examples for every count and order.
    """
    if not can_judge(examples):
        raise ExamplesError(
            "Tickets are judged on held-out examples, but there is no split with two or more of both kinds; give "
            "split=... with them."
        )
    p = network.parameters.total
    wanted = _counts(p) if counts is None else sorted(set(counts))
    if not wanted or wanted[0] < 0 or wanted[-1] > p:
        raise SettingsError(f"Between 0 and {p:,} features can be kept, but {counts} was asked for.")
    orders = _orders(network, shared.weights, seed)
    judge = _judge(network, examples)
    start = network.outputs(examples, at="initial")
    kept = {name: _kept(order, wanted) for name, order in orders.items()}
    design = EffectiveFeatures(network, examples, "path", tolerance=tolerance)
    added = np.concatenate([as_matrix(value).ravel() for value in network.displacement().values()])
    found: list[Ticket] = []
    sums = _sums(design, added, list(kept.values()))
    for (name, masks), of_order in zip(kept.items(), sums, strict=True):
        for place, count in enumerate(wanted):
            found.append(judge(name, "sum", count, start + of_order[:, :, place]))
            mask = np.asarray(masks[:, : place + 1].sum(axis=1)).ravel() > 0
            found.append(judge(name, "network", count, _sparse(network, examples, mask)))
    if shared.eigen.values.shape[2]:
        steps = np.cumsum(shared.eigen.values, axis=2)
        found += [
            judge("eigen", "sum", count, start + (steps[:, :, count - 1] if count else 0.0))
            for count in _counts(steps.shape[2])
        ]
    return tuple(found)


def _counts(p: int) -> list[int]:
    """None, some on a logarithmic scale, all."""
    return sorted({0, *(round(float(count)) for count in np.geomspace(1, p, min(_POINTS, p)))})


def _orders(network: Network, weights: Matrix, seed: int) -> dict[str, Order]:
    largest = np.argsort(-weights, kind="stable")
    rank = np.empty(len(weights))
    for layer in _layers(network):
        inside = np.argsort(-weights[layer], kind="stable")
        rank[layer[inside]] = (np.arange(len(layer)) + 0.5) / len(layer)
    made = {
        "contribution": largest,
        "per_layer": np.argsort(rank, kind="stable"),
        "random": np.random.default_rng(seed).permutation(len(weights)),
        "smallest": largest[::-1],
    }
    return {name: made[name] for name in ORDERS}


def _layers(network: Network) -> list[Order]:
    """Entries of theta by layer."""
    members: dict[str, list[Order]] = {}
    for name, at in network.parameters.slices:
        members.setdefault(name.rpartition(".")[0] or name, []).append(np.arange(at.start, at.stop))
    return [np.concatenate(parts) for parts in members.values()]


def _kept(order: Order, counts: Sequence[int]) -> scipy.sparse.csr_array:
    """(p, counts): one where a feature comes in with that count."""
    column = np.searchsorted(np.asarray(counts), np.arange(len(order)), side="right")
    inside = column < len(counts)
    entries = (np.ones(int(inside.sum())), (order[inside], column[inside]))
    return scipy.sparse.csr_array(entries, shape=(len(order), len(counts)))


def _sums(design: EffectiveFeatures, added: Matrix, kept: Sequence[scipy.sparse.csr_array]) -> list[Matrix]:
    """Sums of contributions (n, c, counts) for every order, in one stream."""
    n, c = len(design.examples), design.n_outputs
    made = [np.empty((n, c, masks.shape[1])) for masks in kept]
    scaled = added / design.scale
    with one_thread():
        for rows, block in design.blocks():
            shares, at = block * scaled, slice(rows.start // c, rows.stop // c)
            for sums, masks in zip(made, kept, strict=True):
                sums[at] = np.cumsum(shares @ masks, axis=1).reshape(-1, c, masks.shape[1])
    return made


def _sparse(network: Network, examples: Examples, mask: npt.NDArray[np.bool_]) -> Matrix:
    """Outputs (n, c) at theta0 + mask * d."""
    params: Params = {}
    start = network.at("initial")
    for (name, at), shape in zip(network.parameters.slices, network.parameters.shapes, strict=True):
        chosen = torch.as_tensor(mask[at].reshape(shape), device=network.device)
        params[name] = torch.where(chosen, network.trained[name], start[name])
    return network.outputs_at(params, examples)


def _judge(network: Network, examples: Examples) -> Callable[[str, str, int, Matrix], Ticket]:
    outputs = network.outputs(examples)
    training = np.asarray(examples.training)
    labels = class_labels_of(examples, outputs.shape[1])
    chosen = outputs.argmax(axis=1)

    def judge(order: str, kind: str, count: int, found: Matrix) -> Ticket:
        several = outputs.shape[1] > 1
        same = found.argmax(axis=1) == chosen
        right = None if labels is None else found.argmax(axis=1) == labels
        return Ticket(
            order=order,
            kind=kind,
            kept=count,
            r2=float(r2_score(outputs[~training], found[~training], multioutput="variance_weighted")),
            agreement=float(same[~training].mean()) if several else None,
            accuracy=None if right is None else float(right[~training].mean()),
            training_agreement=float(same[training].mean()) if several else None,
        )

    return judge
