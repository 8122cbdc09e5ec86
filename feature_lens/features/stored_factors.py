"""Factors of all weight features, gathered in the form in which a run keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.features import plan as plans
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.forms import until_kept
from feature_lens.features.pieces import Piece
from feature_lens.features.rules import Outer
from feature_lens.weight_factors import FactoredValues, Inputs, Share, WeightFactors

Array = npt.NDArray[Any]


def factored_values(design: EffectiveFeatures, views: Sequence[str]) -> FactoredValues:
    """The column `values` of a design's weight features in the views given, from `weight_factors`."""
    outputs = design.network.outputs(design.examples, design.tile) if "predicted" in views else None
    return FactoredValues(weight_factors(design), views, design.examples.labels, outputs)


def weight_factors(design: EffectiveFeatures) -> WeightFactors:
    """Factors of all examples, each layer in the smaller of its two forms.

    Cost: one stream of factors. Memory: the factors, and those of one pass; twice the largest share where some of its
    positions never have a gradient. The trace reduction has no weight features.
    """
    return until_kept(lambda: design.form_version, lambda: _gathered(design))


def _gathered(design: EffectiveFeatures) -> WeightFactors:
    n, q = len(design.examples), design.rows_per_example
    few = design.pieces()
    plan = plans.smallest_plan(few, n, q)
    work = [_Room(design, share, [few[place] for place in share.members], n, q) for share in plan.shares]
    for start, count, pieces in design.stream(plan.form):
        for room, share in zip(work, plan.shares, strict=True):
            room.put([pieces[place] for place in share.members], slice(start, start + count))
    shares = [share for room in work for share in room.shares()]
    seen = np.zeros(design.n_parameters, dtype=bool)
    for own in [inputs.entry for share in shares for inputs in share.inputs] + [share.entry for share in shares]:
        if own is not None:
            seen[own] = True
    if unused := np.count_nonzero(~seen):
        # Over no positions the sum is 0, and takes no room.
        empty = np.zeros((unused, n, q, 0), dtype=design.dtype)
        shares.append(Share(empty, (Inputs(np.flatnonzero(~seen).astype(np.int64)),)))
    return WeightFactors(tuple(shares), design.n_parameters, n, q)


class _Room:
    """Room for one share of a plan over all n examples of q quantities."""

    def __init__(self, design: EffectiveFeatures, share: plans.Share, few: list[Piece], n: int, q: int) -> None:
        slices = dict(design.parameters.slices)
        rates = dict(zip(design.parameters.names, design.parameters.learning_rates, strict=True))
        self._scales = [float(np.sqrt(rates[piece.name])) for piece in few]
        self._entries = [_entries(piece, slices[piece.name]) for piece in few]
        self._gradients: list[Array] = []
        self._came: list[Array | None] = []
        self._kinds: list[int] = []
        self._g: Array | None = None
        if share.how == "rows":
            self._gradients = [np.zeros((piece.n_entries, n, q), dtype=design.dtype) for piece in few]
            return
        for piece in few:
            factor = piece.factor
            if not isinstance(factor, Outer):
                raise TypeError(type(factor).__name__)
            t = factor.g.shape[2]
            if self._g is None:
                self._g = np.zeros((factor.g.shape[3], n, q, t), dtype=design.dtype)
                self._live = np.zeros(t, dtype=bool)
            self._kinds.append(factor.n_in if factor.is_tokens else 0)
            if factor.is_tokens:
                self._came.append(np.zeros((n, t), dtype=np.int32))
            else:
                self._came.append(None if factor.a is None else np.zeros((factor.n_in, n, t), dtype=design.dtype))

    def put(self, pieces: list[Piece], at: slice) -> None:
        """Take the share's pieces of some examples."""
        for gradient, piece, scale in zip(self._gradients, pieces, self._scales, strict=False):
            values = piece.factor.dense().numpy()
            gradient[:, at] = (values if scale == 1 else values * scale).transpose(2, 0, 1)
        if self._g is None:
            return
        for place, (piece, came) in enumerate(zip(pieces, self._came, strict=True)):
            factor = piece.factor
            if not isinstance(factor, Outer):
                raise TypeError(type(factor).__name__)
            if place == 0:
                self._g[:, at] = factor.g.permute(3, 0, 1, 2).numpy()
                self._live[plans.live_positions(factor.g)] = True
            if came is not None and factor.a is not None and factor.is_tokens:
                came[at] = factor.a.numpy()
            elif came is not None and factor.a is not None:
                came[:, at] = factor.a.permute(2, 0, 1).numpy()

    def shares(self) -> list[Share]:
        """What was taken, without the positions at which no example has a gradient."""
        if self._g is None:
            return [Share(gradient=g, entry=own) for g, own in zip(self._gradients, self._entries, strict=True)]
        inputs = []
        for own, scale, kinds, came in zip(self._entries, self._scales, self._kinds, self._came, strict=True):
            kept = None if came is None else self._living(came)
            inputs.append(Inputs(own, scale, None, kept, kinds) if kinds else Inputs(own, scale, kept))
        return [Share(self._living(self._g), tuple(inputs))]

    def _living(self, array: Array) -> Array:
        return array if self._live.all() else np.ascontiguousarray(array[..., self._live])


def _entries(piece: Piece, at: slice) -> npt.NDArray[np.int64]:
    """Numbers of the features that a piece is about."""
    if piece.entries is None:
        return np.arange(at.start, at.stop)
    found: npt.NDArray[np.int64] = at.start + piece.entries.numpy().astype(np.int64)
    return found
