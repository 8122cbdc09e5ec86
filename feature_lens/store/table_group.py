"""Kept tables in the run file: a group each, a data set per column."""

from __future__ import annotations

from collections.abc import Mapping

import h5py
import numpy as np

from feature_lens.errors import RunError
from feature_lens.feature_set import SET_NAME
from feature_lens.kept_table import KeptTable
from feature_lens.store import schema
from feature_lens.store.columns import Letters, json_text, write_columns
from feature_lens.store.stored import columns_of, group_of, part_of, read_text, read_words


def table_elements(count: int) -> tuple[schema.Element, ...]:
    """The data sets of a table of so many columns."""
    return tuple(schema.Element(str(number), "m", "fibS", "one column", False, 3, "any") for number in range(count))


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
        write_columns(place, arrays, table_elements(len(arrays)), Letters())


def read_tables(group: h5py.Group, sizes: Letters) -> dict[str, KeptTable]:
    """The tables of a group by name; raises RunError for what a table cannot be."""
    tables: dict[str, KeptTable] = {}
    for name in sorted(group):
        if not SET_NAME.fullmatch(name):
            raise RunError(f"'{name}' cannot be the name of a table; make the run again.")
        place = group_of(group, name)
        words = read_words(place, "columns")
        if not words or len(set(words)) < len(words):
            raise RunError(f"the columns of '{place.name}' have no names of their own; make the run again.")
        columns = columns_of(place, table_elements(len(words)), sizes.own("n"))
        if part_of(place, str(len(words))) is not None:
            raise RunError(f"the columns of '{place.name}' have not all a name; make the run again.")
        held = dict(zip(words, columns.values(), strict=True))
        tables[name] = KeptTable(read_text(place, "title"), held, read_text(place, "text"))
        check_known(name, tables[name])
    if "dynamics" in tables and "dynamics_spectrum" not in tables:
        raise RunError(f"'{group.name}/dynamics_spectrum' is missing beside 'dynamics'; make the run again.")
    return tables


def check_known(name: str, table: KeptTable) -> None:
    """Raise RunError where a table that the program reads by its columns lacks one, holds one of another type, has no rows,
    or says two things of the same."""
    wanted = schema.TABLES.get(name)
    if wanted is None:
        return
    for column, kinds in wanted.columns.items():
        if column not in table.columns or table.columns[column].dtype.kind not in kinds:
            raise RunError(f"the table '{name}' needs a column '{column}' of its type; make the run again.")
    if wanted.numbers and (words := [one for one, column in table.columns.items() if column.dtype.kind == "U"]):
        raise RunError(f"the table '{name}' holds numbers, but '{words[0]}' holds text; make the run again.")
    keys = list(zip(*(np.asarray(table.columns[key]).tolist() for key in wanted.keys), strict=True))
    if not keys or len(set(keys)) < len(keys):
        raise RunError(
            f"the table '{name}' needs a row for each {' and '.join(wanted.keys)}, and one only; make the run again."
        )
    if name == "dynamics" and keys != sorted(keys):
        raise RunError("the rows of the table 'dynamics' are not in the order of steps; make the run again.")
