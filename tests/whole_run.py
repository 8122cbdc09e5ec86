"""A small run with every data set that a run can hold, by formulas, and what reads all of it as the app and commands do."""

from __future__ import annotations

from dataclasses import replace

import frozen_run
import numpy as np

from feature_lens.analysis import (
    ExportRequest,
    TableRequest,
    export_bytes,
    held_tables,
    report_html,
    run_card,
    table_bytes,
)
from feature_lens.analysis.dynamics import dynamics_notes, history_sentences
from feature_lens.analysis.feature_table import feature_table
from feature_lens.analysis.orders import default_view
from feature_lens.analysis.run import Run
from feature_lens.kept_table import KeptTable
from feature_lens.run_contents import RunContents
from feature_lens.store import schema


def kept_table(name: str) -> KeptTable:
    """A table that the program reads by its columns: three steps of one set, feature, concept or number."""
    said = {"step": np.array([0, 5, 9]), "feature": np.zeros(3, dtype=int), "group": np.zeros(3, dtype=int)}
    said |= {"set": np.array(["all"] * 3), "concept": np.array(["size"] * 3), "number": np.zeros(3, dtype=int)}
    figures = {one: np.array([0.25, 0.5, 0.75]) for one in schema.TABLES[name].columns}
    more = {"accuracy_held_out": np.array([0.1, 0.2, 0.9])} if name == "dynamics" else {}
    return KeptTable(name, {one: said.get(one, figure) for one, figure in figures.items()} | more, "By formulas.")


def whole_run() -> RunContents:
    """The frozen run of the newest version, and the tables of training dynamics."""
    made = frozen_run.contents(schema.MINOR)
    return replace(made, name="whole", tables={**made.tables, **{name: kept_table(name) for name in schema.TABLES}})


def read_everything(run: Run) -> None:
    """Makes what the pages, the reports, the tables and the exports of a run are made of."""
    assert run_card(run)
    assert report_html(run)
    assert run._repr_html_()
    for name in held_tables(run):
        assert table_bytes(run, TableRequest(name), "csv")
        table_bytes(run, TableRequest(name), "jsonl")
    if "dynamics" in run.tables:
        dynamics_notes(run)
    for table in run.tables.values():
        assert table.arrays()
    for column in (run.network.trained, run.network.initial, run.kernel and run.kernel.value):
        assert np.asarray(column).size
    for column in run.dual.columns.values() if run.dual is not None else ():
        assert np.asarray(column).size
    for name, one in run.sets.items():
        assert export_bytes(run, ExportRequest(name, count=3), "csv")
        assert export_bytes(run, ExportRequest(name, (0,), one.views[:1], count=2), "zip")
        assert len(feature_table(run, name, default_view(one))) == len(one)
        for feature in (0, len(one) - 1):
            assert run.feature(name, feature)._repr_html_()
            history_sentences(run, name, feature)
        for column in one.columns:
            assert one.read(column).shape == one.columns[column].shape
