"""Tables for other programs: every registered one, in every format, against the columns that it is made of."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
import test_app
import torch
from test_app import Opener, fine, texts
from torch import nn
from whole_run import kept_table

from feature_lens.analysis import TABLES, TableRequest, held_tables, open_run, table_bytes, table_name, table_rows
from feature_lens.analysis.formats import FORMATS, json_lines, records
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.kept_table import KeptTable
from feature_lens.networks import Network
from feature_lens.run_contents import RunContents
from feature_lens.store import schema, write_run

app = test_app.app  # a fixture
# Tables that a run keeps as they are, whatever is in them.
KEPT = [name for name in TABLES if name.startswith(("dynamics", "feature_history", "study"))]
FIGURES = KeptTable(
    "Figures", {"step": np.arange(3), "loss": np.array([1.5, np.nan, 0.25]), "name": np.array(["=a", "", "ß"])}
)
NAMES = ("=ant", "bee", "<b>cat")


@pytest.fixture(scope="module")
def contents() -> RunContents:
    """A run with everything that tables are made of."""
    torch.manual_seed(0)
    start, end = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double() for _ in range(2))
    rng = np.random.default_rng(0)
    examples = Examples.from_arrays(
        rng.standard_normal((30, 5)),
        np.arange(30) % 3,
        split=np.arange(30) % 4 != 0,
        ids=[f"e{i}" for i in range(30)],
        class_names=NAMES,
        concepts={"wings": np.arange(30) % 2},
    )
    sets = (SetSettings("eigen", n_components=3), SetSettings("unit"), SetSettings("canonical"))
    settings = ExtractSettings(sets=sets, neurons=("1",), dual=True, keep=4)
    made = compute_run(Network.from_module(end, initial=start.state_dict()), examples, settings, progress=False)
    return replace(made, tables={name: kept_table(name) if name in schema.TABLES else FIGURES for name in KEPT})


@pytest.fixture(scope="module")
def path(contents: RunContents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(contents, tmp_path_factory.mktemp("tables") / "tables.h5")


def _read_back(data: bytes, format: str) -> pd.DataFrame:
    if format == "parquet":
        return pd.read_parquet(io.BytesIO(data))
    if format == "csv":
        return pd.DataFrame(list(csv.DictReader(io.StringIO(data.decode(), newline=""))))
    return pd.DataFrame([json.loads(line) for line in data.decode().splitlines()])


def _same(found: Any, wanted: Any) -> bool:
    """A cell as it was read back, against the cell of the table."""
    if pd.isna(wanted):
        return found == "" or pd.isna(found)
    if isinstance(wanted, float | np.floating):
        return type(wanted)(found) == wanted
    return str(found) == str(wanted)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_read_back_and_a_file_gives_the_bytes_of_memory(
    name: str, format: str, contents: RunContents, path: Path
) -> None:
    request = TableRequest(name)
    data = table_bytes(contents, request, format)
    with open_run(path) as run:
        assert table_bytes(run, request, format) == data
    wanted = table_rows(contents, request)
    assert len(wanted) > 0
    found = _read_back(data, format)
    assert list(found.columns) == list(wanted.columns)
    assert len(found) == len(wanted)
    few = np.unique(np.linspace(0, len(wanted) - 1, 40).astype(int))
    for column in wanted.columns:
        for row in few:
            assert _same(found[column].iloc[row], wanted[column].iloc[row]), (column, row)


@pytest.mark.parametrize("name", TABLES)
def test_one_example_and_one_output_are_a_part_of_the_whole(name: str, contents: RunContents) -> None:
    table, whole = TABLES[name], table_rows(contents, TableRequest(name))
    for what, number in (("example", 7), ("output", 2)):
        request = TableRequest(name, **{what: number})  # type: ignore[arg-type]  # one of its fields
        if what not in table.narrows:
            with pytest.raises(SettingsError, match=f"is not made {what} by {what}; leave the {what} out"):
                table_rows(contents, request)
            continue
        own = whole["position" if what == "example" else "output"] == number
        pd.testing.assert_frame_equal(table_rows(contents, request), whole[own].reset_index(drop=True))
        with pytest.raises(SettingsError, match=rf"{what}s are numbered 0 to \d+, but -1 was asked for"):
            table_rows(contents, TableRequest(name, **{what: -1}))  # type: ignore[arg-type]  # as above


def test_tables_hold_the_numbers_of_the_run(contents: RunContents) -> None:
    dual = contents.dual
    assert dual is not None
    outputs = table_rows(contents, TableRequest("outputs"))
    assert outputs["example_id"].iloc[-1] == "e29"
    assert outputs["output_name"].iloc[-1] == "<b>cat"
    np.testing.assert_array_equal(outputs["value"], np.asarray(contents.outputs).ravel())
    np.testing.assert_array_equal(outputs["dual_prediction"], dual.predict().ravel())
    for by in ("layer", "tensor", "unit"):
        table = table_rows(contents, TableRequest(f"contributions_by_{by}"))
        sums = table.groupby(["position", "output"], sort=False)["contribution"].sum()
        np.testing.assert_allclose(sums, outputs["contributions"], atol=1e-6)
    names = contents.network.parameters
    strongest = table_rows(contents, TableRequest("contributions_by_weight", 4, 1))
    assert [names.label(int(weight)) for weight in strongest["weight"]] == strongest["name"].tolist()
    np.testing.assert_array_equal(strongest["contribution"], dual.columns["strongest/contribution"][4, 1])
    weights = table_rows(contents, TableRequest("weights"))
    np.testing.assert_array_equal(weights["mean_size"], np.asarray(dual.columns["weight"])[weights["weight"]])
    coefficients = table_rows(contents, TableRequest("coefficients"))
    assert set(coefficients["position"]) == set(contents.examples.fitting.tolist())
    np.testing.assert_array_equal(coefficients["coefficient"], np.asarray(dual.columns["coefficient"]).ravel())
    supports = table_rows(contents, TableRequest("supports", 9, 2))
    np.testing.assert_array_equal(supports["support_position"], dual.columns["support/position"][9, 2])
    assert supports["support_id"].tolist() == [f"e{at}" for at in supports["support_position"]]
    fidelities = table_rows(contents, TableRequest("fidelities"))
    assert len(fidelities) == len(dual.fidelities)
    assert fidelities.loc[fidelities["fitted"], "r2"].tolist() == [dual.fitted.r2 if dual.fitted else None]
    ablations = table_rows(contents, TableRequest("ablations"))
    assert set(ablations["set"]) == {"eigen", "unit", "weights", "neurons_1"}
    assert (ablations["set"] == "neurons_1").sum() == 6
    row = ablations[(ablations["set"] == "unit") & (ablations["feature"] == 2)].iloc[0]
    unit = contents.sets["unit"]
    assert (row["label"], row["loss"]) == (unit.label(2), unit.columns["ablation/loss"][2])
    assert row["output:1"] == unit.columns["ablation/output"][2, 1]
    ends = table_rows(contents, TableRequest("ablations_at_ends"))
    one = ends.query("set == 'unit' and feature == 2 and view == 'output:1' and end == 'lowest' and rank == 3").iloc[0]
    assert one["position"] == unit.columns["lowest/position"][2, 1, 3]
    assert one["change"] == unit.columns["ablation/lowest"][2, 1, 3]


def test_numbers_that_json_has_none_for_are_null() -> None:
    table = pd.DataFrame({"a": np.array([0.1, np.nan, np.inf], dtype=np.float32), "b": pd.array([1, None, 3], "Int64")})
    assert json_lines(records(table)) == b'{"a": 0.1, "b": 1}\n{"a": null, "b": null}\n{"a": null, "b": 3}\n'
    assert FORMATS["csv"].write(table) == b"a,b\n0.1,1\n,\ninf,3\n"


def test_what_a_run_does_not_hold_is_said() -> None:
    run = synthetic.contents(40)
    assert held_tables(run) == ["outputs", "measures", "measure_curves", "concept_matches"]
    bare = replace(run, sets={}, examples=replace(run.examples, concepts=()))
    assert held_tables(bare) == ["outputs"]
    with pytest.raises(
        SettingsError,
        match=r"does not hold the table 'tickets' .* it holds outputs, measures, .*; what is missing needs",
    ):
        table_rows(run, TableRequest("tickets"))
    with pytest.raises(SettingsError, match=r"No table is called 'ticket'; .* Did you mean 'tickets'"):
        table_rows(run, TableRequest("ticket"))
    with pytest.raises(SettingsError, match="No table format is called 'zip'"):
        table_bytes(run, TableRequest("outputs"), "zip")


def test_files_are_named_after_the_request(contents: RunContents) -> None:
    assert table_name(contents, TableRequest("tickets"), "parquet") == "run-tickets.parquet"
    assert table_name(contents, TableRequest("supports", 3, 1), "csv") == "run-supports-example-3-output-1.csv"


# The app


@pytest.mark.parametrize("name", [name for name in TABLES if name not in KEPT[1:]])
def test_the_export_page_previews_every_table(app: Opener, path: Path, name: str) -> None:
    page = fine(app("export", path, what="table", table=name))
    shown = page.dataframe[0].value
    with open_run(path) as run:
        first = TableRequest(name, 0 if "example" in TABLES[name].narrows else None)
        wanted = table_rows(run, first).head(12)
    assert shown["position" if "position" in wanted else wanted.columns[0]].tolist() == (
        wanted["position" if "position" in wanted else wanted.columns[0]].tolist()
    )
    assert TABLES[name].words[1:] in texts(page).replace("&#x27;", "'")


@pytest.mark.parametrize("parameter", ["table", "of", "output", "format"])
def test_an_unknown_part_of_a_table_is_answered_with_one_sentence(app: Opener, path: Path, parameter: str) -> None:
    page = fine(app("export", path, **{"what": "table", "table": "supports", parameter: test_app.HOSTILE}))
    (said,) = page.warning
    assert "This address asks for" in said.value
    assert len(page.dataframe) == 1


def test_the_export_page_narrows_a_table(app: Opener, path: Path) -> None:
    given = {"what": "table", "table": "supports", "of": "one", "example": "9", "output": "2", "format": "jsonl"}
    page = fine(app("export", path, **given))
    assert not page.warning
    assert set(page.dataframe[0].value["output"]) == {2}
    assert set(page.dataframe[0].value["position"]) == {9}
    (button,) = page.get("download_button")
    with open_run(path) as run:
        named = table_name(run, TableRequest("supports", 9, 2), "jsonl")
    assert named in button.proto.label.replace("\\", "")
