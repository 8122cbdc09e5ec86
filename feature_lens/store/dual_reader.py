"""Reads the dual model of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import h5py
import numpy as np

from feature_lens.dual_record import DualRecord, Fidelity
from feature_lens.errors import RunError
from feature_lens.examples import Examples
from feature_lens.store import schema
from feature_lens.store.stored import columns_of, read_json, read_words

# Columns that are all there or none of them: contributions, and the fitted model.
_TOGETHER = tuple(
    text.split()
    for text in (
        "residual initial_output tensor/contribution layer/name layer/contribution unit/name unit/contribution weight "
        "strongest/weight strongest/contribution",
        "prediction coefficient support/position support/contribution",
    )
)


def read_dual(group: h5py.Group, examples: Examples, sizes: dict[str, int]) -> DualRecord:
    """The dual model; raises RunError where parts of it are missing or point outside of the run."""
    sizes["a"] = len(examples.fitting)
    columns = columns_of(group, schema.DUAL, sizes)
    for names in _TOGETHER:
        there = [name for name in names if name in columns]
        if there and len(there) < len(names):
            missing = next(name for name in names if name not in columns)
            raise RunError(f"the data set '{group.name}/{missing}' is missing; make the run again.")
    for name, most in (("strongest/weight", sizes["p"]), ("support/position", sizes["n"])):
        if name in columns:
            places = np.asarray(columns[name])
            if places.size and not 0 <= int(places.min()) <= int(places.max()) < most:
                raise RunError(f"'{group.name}/{name}' does not hold numbers from 0 to {most - 1}; make the run again.")
    fitted = read_json(group, "fitted", object)
    return DualRecord(
        tuple(_fidelity(group, one) for one in read_json(group, "fidelities", list)),
        None if fitted is None else _fidelity(group, fitted),
        read_words(group, "notes"),
        read_words(group, "remarks"),
        columns,
    )


def _fidelity(group: h5py.Group, data: Any) -> Fidelity:
    names = [part.name for part in fields(Fidelity)]
    if not isinstance(data, Mapping) or not set(names) <= set(data):
        raise RunError(f"a regression of '{group.name}' lacks some of {', '.join(names)}; make the run again.")
    words = {name: data[name] for name in names[:4]}
    figures = {name: data[name] for name in names[4:]}
    plain = all(isinstance(word, str) for word in words.values()) and all(
        type(figure) in (int, float) or (figure is None and name in ("agreement", "accuracy"))
        for name, figure in figures.items()
    )
    if not plain:
        raise RunError(f"a regression of '{group.name}' holds what is no figure; make the run again.")
    return Fidelity(**words, **figures)
