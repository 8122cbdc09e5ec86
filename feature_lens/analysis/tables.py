"""Tables of a run that can be exported, one registered entry each; by the app and the command line, the same bytes.

To add a table, enter a `Table` in `TABLES` under its name, in a module that the package imports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from feature_lens.analysis.example_table import example_table
from feature_lens.analysis.export import safe_name
from feature_lens.analysis.formats import FORMATS
from feature_lens.errors import SettingsError
from feature_lens.registry import Registry
from feature_lens.run_contents import RunContents


@dataclass(frozen=True)
class TableRequest:
    """What is exported: a table by name, of one example (its position) or all, and of one output or all."""

    table: str
    example: int | None = None
    output: int | None = None


@dataclass(frozen=True)
class Cells:
    """The examples and outputs that rows are wanted for, as slices of what has a row per example and output."""

    examples: slice
    outputs: slice

    def frame(self, run: RunContents, each: int, by_output: bool = True) -> pd.DataFrame:
        """`each` rows for every example (and output), in their order: position, example_id (and output, output_name)."""
        positions = np.arange(len(run.examples))[self.examples]
        outputs = np.arange(int(run.outputs.shape[1]))[self.outputs]
        inner = each * (len(outputs) if by_output else 1)
        ids = example_table(run, positions)["example_id"]
        rows = np.repeat(np.arange(len(positions)), inner)
        frame = pd.DataFrame({"position": positions[rows], "example_id": ids.take(rows).reset_index(drop=True)})
        if by_output:
            frame["output"] = np.tile(np.repeat(outputs, each), len(positions))
            names = np.array(
                [run.examples.output_name(int(output), run.network.n_outputs) for output in outputs], dtype=object
            )
            frame["output_name"] = np.tile(np.repeat(names, each), len(positions))
        return frame


@dataclass(frozen=True)
class Table:
    """One table: what it holds in words, whether a run has it, and what makes it. narrows: which of "example" and
    "output" it can be narrowed to one of; `make` is given all of what it cannot."""

    words: str
    held: Callable[[RunContents], bool]
    make: Callable[[RunContents, Cells], pd.DataFrame]
    narrows: tuple[str, ...] = ()


TABLES: Final[Registry[Table]] = Registry("table")


def held_tables(run: RunContents) -> list[str]:
    """Names of the tables that a run has something for, in the order of their registration."""
    return [name for name, table in TABLES.items() if table.held(run)]


def table_rows(run: RunContents, request: TableRequest) -> pd.DataFrame:
    """The table that was asked for; texts as strings. Raises SettingsError for a table that is not known or not held,
    and for an example or output that is not there or that the table has no rows of."""
    table = TABLES[request.table]
    if not table.held(run):
        held = ", ".join(held_tables(run)) or "none"
        raise SettingsError(
            f"This run does not hold the table '{request.table}' ({table.words}), it holds {held}; what is missing needs "
            "--dual, --snapshot, initial parameters or a held-out split when the run is extracted."
        )
    n, c = len(run.examples), int(run.outputs.shape[1])
    cells = Cells(
        _one(table, request, "example", request.example, n), _one(table, request, "output", request.output, c)
    )
    made = table.make(run, cells)
    for column in made.columns:
        if made[column].dtype.kind == "O":
            made[column] = made[column].astype("string")
    return made


def _one(table: Table, request: TableRequest, what: str, number: int | None, count: int) -> slice:
    if number is None:
        return slice(0, count)
    if what not in table.narrows:
        raise SettingsError(f"The table '{request.table}' is not made {what} by {what}; leave the {what} out.")
    if not 0 <= number < count:
        raise SettingsError(
            f"The run's {what}s are numbered 0 to {count - 1}, but {number} was asked for; choose one of them."
        )
    return slice(number, number + 1)


def table_bytes(run: RunContents, request: TableRequest, format: str) -> bytes:
    """The file of a table; raises SettingsError for an unknown format and whatever `table_rows` refuses."""
    return FORMATS[format].write(table_rows(run, request))


def table_name(run: RunContents, request: TableRequest, format: str) -> str:
    """File name of a table: run, table, and example and output where it is of one."""
    parts = [run.name, request.table]
    parts += [] if request.example is None else [f"example-{request.example}"]
    parts += [] if request.output is None else [f"output-{request.output}"]
    return "-".join(safe_name(part) for part in parts) + f".{FORMATS[format].extension}"
