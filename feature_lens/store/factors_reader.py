"""Reads the factors of weight features, from which their values follow."""

from __future__ import annotations

import math
from collections.abc import Iterator

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.errors import RunError
from feature_lens.examples import Column
from feature_lens.store import schema
from feature_lens.store.columns import Letters
from feature_lens.store.stored import columns_of, group_of, part_of, read_count
from feature_lens.weight_factors import Inputs, Share, WeightFactors


def read_factors(group: h5py.Group, sizes: Letters) -> WeightFactors:
    """The factors of one feature set; raises RunError where they leave out a feature or do not fit each other."""
    common = sizes.own("n")
    shares: list[Share] = []
    entries: list[npt.NDArray[np.int64]] = []
    for place in _numbered(group):
        shares.append(_read_share(place, common, sizes["k"]))
        entries += [inputs.entry for inputs in shares[-1].inputs]
        entries += [entry for entry in (shares[-1].entry,) if entry is not None]
    if sum(map(len, entries)) < sizes["k"] or len(np.unique(np.concatenate([np.arange(0), *entries]))) < sizes["k"]:
        raise RunError(f"'{group.name}' leaves out some of {sizes['k']} features; make the run again.")
    return WeightFactors(tuple(shares), sizes["k"], sizes["n"], common["r"])


def _numbered(group: h5py.Group) -> Iterator[h5py.Group]:
    """The groups called 0, 1, 2 ... of a group."""
    number = 0
    while part_of(group, str(number)) is not None:
        yield group_of(group, str(number))
        number += 1


def _read_share(group: h5py.Group, common: Letters, k: int) -> Share:
    """One share; `common` are the sizes n and r that all have, r from the first of them."""
    own = common.own()
    columns = columns_of(group, schema.FACTOR, own)
    by_map = "inputs" in group
    if columns.keys() != ({"g"} if by_map else {"gradient", "entry"}):
        raise RunError(f"'{group.name}' needs g and inputs, or gradient and entry; make the run again.")
    common["r"] = own["r"]
    if not by_map:
        return Share(gradient=columns["gradient"], entry=_entry(group, columns["entry"], k))
    found = [_read_inputs(place, own.own(), k) for place in _numbered(group_of(group, "inputs"))]
    return Share(columns["g"], tuple(found))


def _read_inputs(group: h5py.Group, sizes: Letters, k: int) -> Inputs:
    columns = columns_of(group, schema.INPUT, sizes)
    scale, kinds = group.attrs.get("scale"), read_count(group, "kinds")
    if (
        not isinstance(scale, np.number)
        or not 0 < scale < math.inf
        or kinds < 0
        or ("token" in columns) != (kinds > 0)
        or {"a", "token"} <= set(columns)
    ):
        raise RunError(f"'{group.name}' needs a finite scale, and inputs or tokens of some kinds; make the run again.")
    entry = _entry(group, columns["entry"], k)
    inputs = Inputs(entry, float(scale), columns.get("a"), columns.get("token"), max(kinds, 1))
    if sizes["o"] * inputs.n_in != len(entry):
        raise RunError(f"'{group.name}/entry' needs {sizes['o']} x {inputs.n_in} features; make the run again.")
    return inputs


def _entry(group: h5py.Group, column: Column, k: int) -> npt.NDArray[np.int64]:
    """Numbers of features, all below k."""
    entry = np.asarray(column) if column.shape[0] <= k else np.full(1, k)
    if len(entry) and not 0 <= int(entry.min()) <= int(entry.max()) < k:
        raise RunError(f"'{group.name}/entry' does not hold features from 0 to {k - 1}; make the run again.")
    return entry.astype(np.int64)
