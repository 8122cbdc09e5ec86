"""Where a feature of the trained network comes from: matched backwards through the steps of training, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from feature_lens.dynamics.step_figures import orthonormal
from feature_lens.features.design import Matrix


@dataclass(frozen=True)
class Matched:
    """The k features of the trained network at an earlier step; -1 and NaN where a chain has ended because that step has
    fewer features.

    matched (k,): number of the step's feature. to_later: its |correlation| with the feature that it was matched to, at
    the step after; to_final: with the feature of the trained network. within: share of the variation of that feature
    which lies in the span of all leading features of the step: what is there of it, in whatever combination.
    of_group: of the span of its group of near-degenerate features, the share that lies in the span of those matched to
    the group, which does not depend on how they are turned.
    """

    matched: npt.NDArray[np.int64]
    to_later: Matrix
    to_final: Matrix
    within: Matrix
    of_group: Matrix


@dataclass
class History:
    """Features of the trained network (n, k) with their groups (k,), followed backwards: `back` takes the features of one
    step after the other, the latest first. Correlations are over all examples, without the mean, whatever the sign."""

    final: Matrix
    groups: npt.NDArray[np.integer]
    _later: Matrix = field(init=False, repr=False)
    _chain: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._later, self._chain = self.final, np.arange(self.final.shape[1])

    def back(self, features: Matrix) -> Matched:
        """One step back, to features (n, j): pairs of features are chosen so that the sum of |correlations| between this
        step and the one after is largest (Hungarian method). Cost n k j and j^3."""
        own = _unit(features)
        between = np.abs(_unit(self._later).T @ own)
        partner = np.full(between.shape[0], -1)
        partner.put(*linear_sum_assignment(between, maximize=True))
        alive = self._chain >= 0
        matched = np.where(alive, partner[self._chain], -1)
        there = matched >= 0
        k, last = self.final.shape[1], _unit(self.final)
        to_later, to_final, of_group = np.full(k, np.nan), np.full(k, np.nan), np.full(k, np.nan)
        to_later[there] = between[self._chain[there], matched[there]]
        to_final[there] = np.abs((last[:, there] * own[:, matched[there]]).sum(axis=0))
        for members in self._members():
            kept = matched[members][there[members]]
            known = orthonormal(self.final[:, members])
            if len(kept) and known.shape[1]:
                inside = orthonormal(features[:, kept])
                of_group[members] = np.square(inside.T @ known).sum() / known.shape[1]
        within = np.square(orthonormal(features).T @ last).sum(axis=0)
        self._later, self._chain = features, matched
        return Matched(matched, to_later, to_final, within, of_group)

    def _members(self) -> Iterator[npt.NDArray[np.int64]]:
        for group in np.unique(self.groups):
            yield np.flatnonzero(self.groups == group)


def _unit(columns: Matrix) -> Matrix:
    """Columns without their mean and of unit length; zero for one that does not vary."""
    centred = columns - columns.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(np.where(length > 0, centred / np.where(length > 0, length, 1), 0))
