"""Kept tables in the run file: a group each, a data set per column."""

from __future__ import annotations

from collections.abc import Mapping

import h5py
import numpy as np

from feature_lens.errors import RunError
from feature_lens.feature_set import SET_NAME
from feature_lens.kept_table import KeptTable
from feature_lens.store import schema
from feature_lens.store.columns import json_text, write_columns
from feature_lens.store.stored import columns_of, group_of, part_of, read_text, read_words


def table_elements(count: int) -> tuple[schema.Element, ...]:
    """The data sets of a table of so many columns."""
    return tuple(schema.Element(str(number), "m", "fibS", "one column", False, 3) for number in range(count))


def write_tables(group: h5py.Group, tables: Mapping[str, KeptTable]) -> None:
    """Every table into a group of its own; raises RunError for a name that no group can have."""
    for name, table in tables.items():
        if not SET_NAME.fullmatch(name):
            raise RunError(
                f"A table is called by letters, digits, '_', '-' and '.', but '{name}' came; choose another name."
            )
        place = group.create_group(name)
        place.attrs["title"] = table.title
        place.attrs["text"] = table.text
        place.attrs["columns"] = json_text(list(table.columns))
        arrays = {str(number): np.asarray(column) for number, column in enumerate(table.columns.values())}
        write_columns(place, arrays, table_elements(len(arrays)), {})


def read_tables(group: h5py.Group) -> dict[str, KeptTable]:
    """The tables of a group by name; raises RunError for what a table cannot be."""
    tables: dict[str, KeptTable] = {}
    for name in sorted(group):
        if not SET_NAME.fullmatch(name):
            raise RunError(f"'{name}' cannot be the name of a table; make the run again.")
        place = group_of(group, name)
        words = read_words(place, "columns")
        if not words or len(set(words)) < len(words):
            raise RunError(f"the columns of '{place.name}' have no names of their own; make the run again.")
        columns = columns_of(place, table_elements(len(words)), {})
        if part_of(place, str(len(words))) is not None:
            raise RunError(f"the columns of '{place.name}' have not all a name; make the run again.")
        held = dict(zip(words, columns.values(), strict=True))
        tables[name] = KeptTable(read_text(place, "title"), held, read_text(place, "text"))
    return tables
