"""Effective features to first order in the displacement, from the initial parameters."""

from __future__ import annotations

import logging
import warnings
from functools import partial

import torch
from torch.func import jacrev, jvp, vmap

from feature_lens.features.jacobian import AGREEMENT, believed
from feature_lens.features.kinds.kind import KINDS, Ask, Kind
from feature_lens.features.module_copy import ModuleCopy
from feature_lens.features.pieces import Piece, as_pieces
from feature_lens.networks.network import Params

_LOG = logging.getLogger("feature_lens")


class FirstOrder:
    """phi + psi d at theta0, psi the second derivative of the outputs: one derivative of the Jacobian along d.

    d runs over all parameters, also where only some tensors are looked at. Where examples do not go together under
    vmap, or the result differs from autograd on the first of them, by two backward passes per row.
    Cost: about three times that of a dense Jacobian; b q p numbers per tile.
    Derived independently; intended to correspond to PDLT (arXiv:2106.10165), ch. infinity.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._start, self._added = ask.network.at("initial"), ask.network.displacement()
        self._together, self._verified = True, False
        self.remarks: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """Whole gradients have one form."""
        return 0

    def fall(self, names: tuple[str, ...], reason: str) -> None:
        """Whole gradients have no layer rules that could fall."""

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        return self(inputs, labels)

    def twin(self) -> None:
        """Its passes stay in one thread."""
        return None

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, verify: bool = True) -> list[Piece]:
        rows = self._tried(inputs, labels) if self._together else None
        if rows is not None and verify and not self._adds_up(rows, inputs, labels):
            self._refused("it differs from autograd on a tile")
            rows = None
        if rows is None:
            rows = self._exact(inputs, labels)
        return as_pieces(rows.cpu(), {name: self._start[name].numel() for name in self._ask.chosen})

    def _tried(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
        exact = None if self._verified else lambda: self._exact(inputs[:1], labels[:1])
        self._verified = True
        return believed(lambda: vmap(self._of_example)(inputs, labels), exact, self._refused)

    def _adds_up(self, rows: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> bool:
        """Whether the sum of all rows (b, q, p) of a tile, each brought to about the same length, is what two backward
        passes give."""
        ask, lengths = self._ask, rows.norm(dim=2)
        signs = torch.randn(lengths.shape, generator=torch.Generator().manual_seed(0), dtype=lengths.dtype)
        weights = torch.where(lengths > 0, signs.to(rows) / lengths, signs.to(rows)).nan_to_num(0.0, 0.0, 0.0)
        own = ModuleCopy(ask.network, self._start, tuple(self._start))

        def row() -> torch.Tensor:
            outputs = own.outputs(inputs)
            quantities = torch.stack(
                [ask.reduction.reduce(row, label) for row, label in zip(outputs, labels, strict=True)]
            )
            return self._row((quantities * weights).sum(), own.leaves)

        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            wanted = own.taken(row)
        found = torch.einsum("bqp,bq->p", rows, weights)
        size = max(float(wanted.abs().nan_to_num().max()), float(found.abs().nan_to_num().max()), 1e-30)
        return bool((found - wanted).abs().nan_to_num().max() <= AGREEMENT[wanted.dtype] * size)

    def _refused(self, reason: str) -> None:
        self._together = False
        self.remarks = (f"First-order features row by row instead of by vmap ({reason}).",)
        _LOG.info(self.remarks[0])

    def _of_example(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        ask = self._ask

        def rows(params: Params) -> torch.Tensor:
            def quantities(chosen: Params) -> torch.Tensor:
                return ask.reduction.reduce(ask.network(params | chosen, x[None])[0], label)

            parts = jacrev(quantities)({name: params[name] for name in ask.chosen})
            return torch.cat([part.flatten(1) for part in parts.values()], dim=1)

        found = jvp(rows, (self._start,), (self._added,))
        made: torch.Tensor = found[0] + found[1]
        return made

    def _exact(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(b, q, p) by a loop of autograd: the gradient, and the gradient of its product with d."""
        own = ModuleCopy(self._ask.network, self._start, tuple(self._start))

        def of(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            quantities = self._ask.reduction.reduce(own.outputs(x[None])[0], label)
            return torch.stack([self._row(quantity, own.leaves) for quantity in quantities])

        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            rows = [own.taken(partial(of, x, label)) for x, label in zip(inputs, labels, strict=True)]
        return torch.stack(rows)

    def _row(self, quantity: torch.Tensor, leaves: dict[str, torch.nn.Parameter]) -> torch.Tensor:
        every, chosen = list(leaves.values()), [leaves[name] for name in self._ask.chosen]
        if not quantity.requires_grad:
            return torch.cat([torch.zeros_like(leaf).flatten() for leaf in chosen])
        first = torch.autograd.grad(quantity, every, create_graph=True, retain_graph=True, materialize_grads=True)
        phi = dict(zip(leaves, first, strict=True))
        along = torch.stack([(phi[name] * self._added[name]).sum() for name in leaves]).sum()
        seconds = (
            torch.autograd.grad(along, chosen, retain_graph=True, materialize_grads=True)
            if along.requires_grad
            else [torch.zeros_like(leaf) for leaf in chosen]
        )
        parts = [
            (phi[name] + second).detach().flatten() for name, second in zip(self._ask.chosen, seconds, strict=True)
        ]
        return torch.cat(parts)


KINDS.register("first_order")(
    Kind(
        "effective features to first order",
        "d f / d theta at the initial parameters, plus its derivative along what training added",
        FirstOrder,
        "trained",
    )
)
