"""An opened run as tables, and the finding of runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from feature_lens.analysis import Run, find_runs, open_run
from feature_lens.errors import RunError, SettingsError
from feature_lens.examples import Examples
from feature_lens.store import write_run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(synthetic.contents(50), tmp_path_factory.mktemp("runs") / "toy.h5")


@pytest.fixture
def run(path: Path) -> Iterator[Run]:
    with open_run(path) as opened:
        yield opened


def test_examples_as_a_table(run: Run) -> None:
    table = run.to_pandas()
    assert table.columns.tolist()[:4] == ["id", "split", "target", "target_name"]
    assert table["id"].tolist() == list(range(50))
    assert set(table["split"]) == {"training", "held-out"}
    np.testing.assert_array_equal(table["predicted"], np.asarray(run.outputs).argmax(axis=1))
    np.testing.assert_array_equal(table[["output:0", "output:1", "output:2"]], np.asarray(run.outputs))
    assert table["duplicate_of"].isna().all()


def test_values_as_a_table(run: Run) -> None:
    table = run.to_pandas("neurons")
    assert table.columns.tolist() == ["id", "split", "target", "predicted", "1[0]", "1[1]", "1[2]", "1[3]", "1[4]"]
    np.testing.assert_array_equal(table["1[3]"], run.sets["neurons"].values(3, "activation"))
    chosen = run.to_pandas("unit", "output:2")
    np.testing.assert_array_equal(chosen["0 unit 4"], run.sets["unit"].values(4, "output:2"))
    with pytest.raises(SettingsError, match=r"use features\('weights'\)"):
        run.to_pandas("weights")
    with pytest.raises(SettingsError, match="feature set of this run"):
        run.to_pandas("nothing")


def test_features_as_a_table(run: Run) -> None:
    table = run.features("eigen")
    assert {"feature", "label", "mean", "std", "minimum", "maximum", "spectrum", "group", "stability"} <= set(table)
    assert len(run.features("weights", "output:1")) == 80


def test_one_feature(run: Run) -> None:
    view = run.feature("eigen", 3)
    assert view.view == "score"
    values = run.sets["eigen"].values(3, "score")
    highest, lowest = view.highest(5), view.lowest(40)
    assert highest["value"].tolist() == np.sort(values)[::-1][:5].tolist()
    assert lowest["value"].tolist() == np.sort(values)[:40].tolist()
    assert highest["rank"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(values[highest["position"]], highest["value"])
    assert {"id", "split", "target", "predicted"} <= set(highest)
    assert "eigen" in repr(view)
    with pytest.raises(SettingsError, match="features 0 to 5"):
        run.feature("eigen", 6)
    with pytest.raises(SettingsError, match="view of feature set"):
        run.feature("eigen", 0, "activation")


def test_tables_without_split_or_classes_hold_nulls(tmp_path: Path) -> None:
    made = synthetic.contents(20)
    examples = Examples.from_arrays(
        np.repeat(np.asarray(made.examples.inputs)[:10], 2, axis=0),
        np.linspace(0, 1, 20),
        ids=[f"e{i}" for i in range(20)],
    )
    changed = replace(made, examples=examples, outputs=np.asarray(made.outputs)[:, :1])
    changed = replace(changed, network=replace(made.network, n_outputs=1), sets={"neurons": made.sets["neurons"]})
    with open_run(write_run(changed, tmp_path / "r.h5")) as run:
        table = run.to_pandas()
        assert table["split"].isna().all()
        assert table["predicted"].isna().all()
        np.testing.assert_allclose(table["target"].astype(float), np.linspace(0, 1, 20))
        assert table["duplicate_of"].iloc[:4].tolist() == [pd.NA, "e0", pd.NA, "e2"]
    rows = replace(examples, targets=np.ones((20, 2)))
    with open_run(write_run(replace(changed, examples=rows), tmp_path / "s.h5")) as run:
        assert run.to_pandas()["target"].iloc[0] == "[1.0, 1.0]"
    with open_run(write_run(replace(changed, examples=replace(rows, targets=None)), tmp_path / "t.h5")) as run:
        assert run.to_pandas()["target"].isna().all()


def test_runs_are_found_in_files_and_folders(tmp_path: Path, path: Path) -> None:
    for name in ("b/one.h5", "a/one.h5", "two.h5", "b/c/deep.h5", "note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_runs([path, tmp_path, tmp_path / "two.h5"])
    assert list(found) == ["toy", "two", "one", "b/one"]
    assert found["one"] == tmp_path / "a" / "one.h5"
    with pytest.raises(RunError, match="not a readable HDF5"):
        open_run(found["two"])
    assert find_runs([tmp_path / "b" / "c"]) == {"deep": tmp_path / "b" / "c" / "deep.h5"}
    assert find_runs([]) == {}


def test_names_of_runs_stay_distinct(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}" / "same" / "one.h5" for i in range(4)]
    for place in paths:
        place.parent.mkdir(parents=True)
        place.write_bytes(b"")
    assert list(find_runs(paths)) == ["one", "same/one", "same/one 2", "same/one 3"]


def test_a_missing_run_is_listed_and_said_to_be_missing(tmp_path: Path) -> None:
    found = find_runs([tmp_path / "gone.h5"])
    with pytest.raises(RunError, match="There is no run file"):
        open_run(found["gone"])
