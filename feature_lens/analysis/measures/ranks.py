"""Ranks of values, and features grouped by which of their values are finite."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]


def average_ranks(values: Values) -> npt.NDArray[np.float64]:
    """Ranks 1..n of finite values along each row, equal values sharing their mean rank: (k, n) -> (k, n).

    What scipy.stats.rankdata gives; written out, since loading scipy.stats takes longer than all else of this wing.
    """
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    place = np.arange(values.shape[1])
    edge = np.ones((len(values), 1), dtype=bool)
    differs = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(np.hstack([edge, differs]), place, 0), axis=1)
    ends = np.where(np.hstack([differs, edge]), place, values.shape[1])
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape, dtype=np.float64)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def finite_patterns(values: Values) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]]:
    """Features grouped by which of their examples are finite: rows of the group and its mask (n,).

    Mostly one group. Values that overflow do so at the same few examples in many features, so work that is done
    group by group stays vectorised.
    """
    finite = np.isfinite(values)
    if finite.all():
        return [(np.arange(len(values)), np.ones(values.shape[1], dtype=bool))]
    masks, member = np.unique(finite, axis=0, return_inverse=True)
    return [(np.flatnonzero(member.ravel() == place), mask) for place, mask in enumerate(masks)]
