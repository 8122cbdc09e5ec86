"""Exports are read back and compared with the extremes, in every format on every modality."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from feature_lens.analysis import EXPORTERS, ExportRequest, export_bytes, export_name, open_run, rows, thumbnail_png
from feature_lens.analysis.export import COLUMNS, image_names, safe_name
from feature_lens.analysis.tiles import natural_size
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents
from feature_lens.store import write_run

MODALITIES = ("image", "rgb", "signal", "tokens", "passage", "vector", "pair", "text")
REQUEST = ExportRequest("eigen", (3, 1), ("output:2", "score"), ("lowest", "highest"), 5)


def _typed(name: str, text: str) -> Any:
    if text == "":
        return None
    if name in ("feature", "rank", "target", "predicted") or (name == "example_id" and text.isdigit()):
        return int(text)
    return float(text) if name == "value" else text


def read_back(data: bytes, format: str) -> list[dict[str, Any]]:
    if format == "csv":
        lines = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""))
        return [{name: _typed(name, text) for name, text in line.items()} for line in lines]
    if format == "parquet":
        table = pd.read_parquet(io.BytesIO(data))
        return table.astype(object).where(table.notna(), None).to_dict("records")
    if format == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read("manifest.jsonl")
    return [json.loads(line) for line in data.decode().splitlines()]


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl", "zip"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_read_back_are_the_extremes(modality: str, format: str) -> None:
    run = synthetic.contents(40, modality)
    data = export_bytes(run, REQUEST, format)
    assert data == export_bytes(run, REQUEST, format)
    found = iter(read_back(data, format))
    eigen = run.sets["eigen"]
    for feature in (3, 1):
        for view in ("output:2", "score"):
            for end in ("lowest", "highest"):
                positions, values = eigen.extremes(feature, view, end)
                for rank in range(5):
                    row, at = next(found), int(positions[rank])
                    facts = [row[name] for name in COLUMNS[:7]]
                    assert facts == ["eigen", feature, eigen.label(feature), view, end, rank, at]
                    assert np.float32(row["value"]) == values[rank]
                    assert row["split"] == run.examples.split_name(at)
                    assert run.examples.labels is not None
                    assert row["target"] == run.examples.labels[at]
                    assert row["target_name"] == run.examples.class_name(int(row["target"]))
                    assert row["predicted"] == np.asarray(run.outputs)[at].argmax()
                    assert row["predicted_name"] == run.examples.class_name(int(row["predicted"]))
                    assert row["duplicate_of"] is None or modality in ("tokens", "passage")
    assert next(found, None) is None


@pytest.mark.parametrize("modality", MODALITIES)
def test_zip_holds_each_picture_once(modality: str) -> None:
    run = synthetic.contents(40, modality)
    with zipfile.ZipFile(io.BytesIO(export_bytes(run, REQUEST, "zip"))) as archive:
        assert archive.testzip() is None
        manifest = [json.loads(line) for line in archive.read("manifest.jsonl").decode().splitlines()]
        images = [name for name in archive.namelist() if name.startswith("images/")]
        assert sorted(images) == sorted({row["image"] for row in manifest})
        for row in manifest:
            assert row["image"] == f"images/{row['example_id']}.png"
            shown = Image.open(io.BytesIO(archive.read(row["image"])))
            size = natural_size(run.examples)
            expected = Image.open(io.BytesIO(thumbnail_png(run.examples, row["example_id"], size)))
            np.testing.assert_array_equal(np.asarray(shown), np.asarray(expected))
        about = json.loads(archive.read("manifest.json"))
        assert about["rows"] == len(manifest)
        assert about["images"] == len(images)
        assert about["fingerprint"] == run.provenance.fingerprint
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_file_gives_the_bytes_that_memory_gives(tmp_path: Path) -> None:
    made = synthetic.contents(40, "rgb")
    with open_run(write_run(made, tmp_path / "r.h5")) as run:
        for format in EXPORTERS:
            assert export_bytes(run, REQUEST, format) == export_bytes(made, REQUEST, format)
            weights = ExportRequest("weights", count=2)
            assert export_bytes(run, weights, format) == export_bytes(made, weights, format)


def test_all_features_come_in_default_order_in_the_default_view() -> None:
    run = synthetic.contents(40)
    table = rows(run, ExportRequest("weights", count=1, ends=("highest",)))
    assert table["feature"].tolist() == run.sets["weights"].read("order").tolist()
    assert set(table["view"]) == {"output:0"}
    assert tuple(table.columns) == COLUMNS
    assert table["value"].dtype == np.float32
    assert set(rows(run, ExportRequest("eigen"))["view"]) == {"score"}
    assert len(rows(run, ExportRequest("eigen"))) == 6 * 2 * 16


def test_many_features_are_read_at_once_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    run = synthetic.contents(12)  # fewer examples than are kept, so there is padding
    request = ExportRequest("weights", views=("output:2", "output:0"))
    slow = rows(run, request)
    monkeypatch.setattr("feature_lens.analysis.export._FEW", 3)
    assert rows(run, request).equals(slow)
    assert len(slow) == 80 * 2 * 2 * 12


def test_more_than_was_kept_where_values_are_stored() -> None:
    run = synthetic.contents(40)
    table = rows(run, ExportRequest("neurons", (2,), count=30, ends=("lowest",)))
    np.testing.assert_array_equal(table["value"], np.sort(run.sets["neurons"].values(2, "activation"))[:30])
    assert len(rows(run, ExportRequest("neurons", (2,), count=1000, ends=("lowest",)))) == 40
    with pytest.raises(SettingsError, match="ask for at most 16"):
        rows(run, ExportRequest("weights", (2,), count=30))


def test_values_that_are_not_finite_are_not_exported() -> None:
    run = synthetic.contents(20)
    values = np.random.default_rng(0).standard_normal((2, 1, 20))
    values[0, 0, :15], values[1] = np.nan, np.inf
    odd = replace(run, sets={"odd": synthetic._set("odd", values, ("activation",), run.examples)})
    table = rows(odd, ExportRequest("odd"))
    assert set(table["feature"]) == {0}
    assert len(table) == 10
    with pytest.raises(SettingsError, match="no row"):
        rows(odd, ExportRequest("odd", (1,)))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (ExportRequest("eigne"), "feature set of this run"),
        (ExportRequest("eigen", (9,)), "features 0 to 5"),
        (ExportRequest("eigen", ()), "at least one of its features"),
        (ExportRequest("eigen", (1, 1)), "came twice"),
        (ExportRequest("eigen", views=("activation",)), "view of feature set"),
        (ExportRequest("eigen", views=()), "at least one of its views"),
        (ExportRequest("eigen", ends=("top",)), "end of a ranking"),
        (ExportRequest("eigen", ends=()), "at least one of its ends"),
        (ExportRequest("eigen", count=0), "at least one example per end"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(request_: ExportRequest, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        rows(synthetic.contents(20), request_)


def test_unknown_format_is_answered_with_the_known_ones() -> None:
    run = synthetic.contents(20)
    with pytest.raises(SettingsError, match=r"csv, parquet, jsonl, zip.*Did you mean 'csv'"):
        export_bytes(run, REQUEST, "cvs")
    with pytest.raises(SettingsError, match="export format"):
        export_name(run, REQUEST, "xls")


def with_ids(ids: list[str]) -> RunContents:
    run = synthetic.contents(len(ids))
    return replace(run, examples=replace(run.examples, ids=np.array(ids)))


def test_ids_become_safe_and_distinct_file_names() -> None:
    ids = ["../../etc/passwd", "a b", "a_b", "A_B", "con", ".hidden", "x" * 200, "ü", "", "plain-1.2", "a_b-at-1"]
    names = image_names(with_ids(ids), np.arange(len(ids)))
    assert names[9] == "plain-1.2.png"
    assert names[2] == "a_b.png"
    assert len({name.lower() for name in names.values()}) == len(ids)
    for name in names.values():
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) < 100


@given(st.text(max_size=300))
@settings(deadline=None)
def test_safe_names_are_safe(text: str) -> None:
    name = safe_name(text)
    assert name
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name[0] not in ".-"
    assert len(name) <= 81


def test_text_of_any_kind_survives() -> None:
    ids = ['say "hi"', "a,b", "line\nbreak", "=1+1", "Ωmega", *[f"e{i}" for i in range(15)]]
    run = with_ids(ids)
    run = replace(run, examples=replace(run.examples, class_names=("=ant", 'b"e,e', "c\r\nat")))
    for format in EXPORTERS:
        found = read_back(export_bytes(run, ExportRequest("eigen", (0,), count=20, ends=("highest",)), format), format)
        assert {row["example_id"] for row in found} == set(ids)
        assert {row["target_name"] for row in found} == set(run.examples.class_names)


def test_names_of_exports_hold_no_folder() -> None:
    run = replace(synthetic.contents(20), name="../run of /mine")
    assert export_name(run, ExportRequest("eigen", (3,)), "zip") == "_run_of_mine-eigen-feature-3.zip"
    assert export_name(run, ExportRequest("eigen"), "csv") == "_run_of_mine-eigen.csv"
    assert "/" not in export_name(run, REQUEST, "jsonl")


def test_duplicates_are_named() -> None:
    run = synthetic.contents(20)
    inputs = np.repeat(np.asarray(run.examples.inputs)[:10], 2, axis=0)
    repeated = replace(run, examples=replace(run.examples, inputs=inputs))
    table = rows(repeated, ExportRequest("eigen", (0,), count=20, ends=("highest",)))
    for example, other in zip(table["example_id"], table["duplicate_of"], strict=True):
        assert (other == example - 1) if example % 2 else pd.isna(other)
