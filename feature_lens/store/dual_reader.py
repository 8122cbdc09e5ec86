"""Reads the dual model of a run."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import h5py
import numpy as np

from feature_lens.dual_record import DualRecord, Expansion, Fidelity, Order, Ticket
from feature_lens.errors import RunError
from feature_lens.examples import Column, Examples
from feature_lens.store import schema
from feature_lens.store.columns import Letters
from feature_lens.store.stored import columns_of, read_json, read_words

# Columns that are all there or none of them: contributions, and the fitted model.
_TOGETHER = tuple(
    text.split()
    for text in (
        "residual initial_output tensor/contribution layer/name layer/contribution unit/name unit/contribution "
        "eigen/contribution weight strongest/weight strongest/contribution",
        "prediction coefficient support/position support/contribution",
        "interaction/mean interaction/size interaction/threshold interaction/predicted",
        "ticket/order ticket/kind ticket/kept ticket/figure",
        "expansion/leading expansion/next expansion/squared",
    )
)
ORDERS: Final = ["leading", "next", "squared"]
_TICKET = ("order", "kind", "kept", "figure")


def read_dual(group: h5py.Group, examples: Examples, sizes: Letters) -> DualRecord:
    """The dual model; raises RunError where parts of it are missing or point outside of the run."""
    sizes["a"] = len(examples.fitting)
    columns = columns_of(group, schema.DUAL, sizes)
    for names in _TOGETHER:
        there = [name for name in names if name in columns]
        if there and len(there) < len(names):
            missing = next(name for name in names if name not in columns)
            raise RunError(f"the data set '{group.name}/{missing}' is missing; make the run again.")
    if "interaction/threshold" in columns and sizes["z"] != 1:
        raise RunError(f"'{group.name}/interaction/threshold' holds one number, not {sizes['z']}; make the run again.")
    fitted = read_json(group, "fitted", object)
    return DualRecord(
        tuple(_fidelity(group, one) for one in read_json(group, "fidelities", list)),
        None if fitted is None else _fidelity(group, fitted),
        read_words(group, "notes"),
        read_words(group, "remarks"),
        _tickets(group, columns),
        columns,
        _expansion(group, columns),
    )


def _expansion(group: h5py.Group, columns: Mapping[str, Column]) -> Expansion | None:
    """What is said of the columns of the expansion, which are there with it or not at all."""
    data: Any = read_json(group, "expansion", object)
    if (data is None) != ("expansion/leading" not in columns):
        raise RunError(f"'{group.name}' holds only a part of its expansion; make the run again.")
    if data is None:
        return None
    found: Any = data.get("orders") if isinstance(data, Mapping) else None
    orders = found if isinstance(found, list) and all(isinstance(one, Mapping) for one in found) else []
    if [one.get("name") for one in orders] != ORDERS:
        raise RunError(f"the expansion of '{group.name}' lacks the orders {', '.join(ORDERS)}; make the run again.")
    made = tuple(Order(name=one["name"], **_figures(group, one, Order, "agreement")) for one in orders)
    figures = _figures(group, dict(data), Expansion, "time")
    time = math.inf if figures["time"] is None else figures["time"]
    return Expansion(**(figures | {"time": time, "orders": made}))


def _figures(group: h5py.Group, data: Mapping[str, Any], kind: Any, absent: str) -> dict[str, Any]:
    """The fields of a record that are figures, of which one may be null."""
    found: dict[str, Any] = {}
    for part in fields(kind):
        if part.name in ("name", "orders"):
            continue
        value = data.get(part.name)
        if not (_is_figure(part.name, value) or (value is None and part.name == absent and absent in data)):
            raise RunError(f"'{part.name}' in the expansion of '{group.name}' is no figure; make the run again.")
        found[part.name] = value
    return found


def _is_figure(name: str, value: Any) -> bool:
    """Whether a value can be that field of an expansion."""
    if name == "matched":
        return type(value) is bool
    if name == "examples":
        return type(value) is int and value >= 1
    signed = name in ("r2", "agreement")
    return type(value) in (int, float) and abs(value) <= sys.float_info.max and (signed or value >= 0)


def _tickets(group: h5py.Group, columns: dict[str, Column]) -> tuple[Ticket, ...]:
    """The tickets, taken out of the columns."""
    if "ticket/order" not in columns:
        return ()
    order, kind, kept, figure = (np.asarray(columns.pop(f"ticket/{name}")) for name in _TICKET)
    if figure.shape[1] != 4:
        raise RunError(
            f"'{group.name}/ticket/figure' needs 4 figures each, but holds {figure.shape[1]}; make the run again."
        )
    figures = [[None if np.isnan(value) else float(value) for value in row] for row in figure]
    return tuple(
        Ticket(str(one), str(what), int(count), float(row[0] if row[0] is not None else "nan"), *row[1:])
        for one, what, count, row in zip(order, kind, kept, figures, strict=True)
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
