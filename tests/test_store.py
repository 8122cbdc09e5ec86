"""The run file: what is written is read back, by us and by plain h5py; damage is told and nothing is ever lost.

`tests/frozen/run_v1.h5`, `run_v1_1.h5`, `run_v1_2.h5` and `run_v1_3.h5` are files of schema versions 1.0 to 1.3 as they were written when those were
frozen; `tests/frozen_run.py` says how they were made and what is in them.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import frozen_run
import h5py
import numpy as np
import pytest
from synthetic import contents, with_factors

from feature_lens.errors import FeatureLensError, OutputError, RunError, SettingsError
from feature_lens.examples import Examples
from feature_lens.kept_table import KeptTable
from feature_lens.run_contents import RunContents
from feature_lens.store import RunFile, check_writable, schema, specification, write_bytes, write_run, writer
from feature_lens.store.columns import PLAIN_BYTES
from feature_lens.store.seal import sealed
from feature_lens.store.table_group import table_elements

FROZEN = Path(__file__).with_name("frozen") / "run_v1.h5"
FROZEN_1_1 = FROZEN.with_name("run_v1_1.h5")
FROZEN_1_2 = FROZEN.with_name("run_v1_2.h5")
FROZEN_1_3 = FROZEN.with_name("run_v1_3.h5")
# Of features 0 and 1 on the first three examples, by hand.
FROZEN_VALUES = ([-1.5625, 0.9375, -2.15625], [-2.3125, 0.84375, 0.0625])
SEAL = 85


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a whole and healthy run file."""
    return write_run(contents(12), tmp_path_factory.mktemp("good") / "run.h5").read_bytes()


def _said(error: pytest.ExceptionInfo[FeatureLensError]) -> str:
    """The message, which is one line that ends like a sentence."""
    said = str(error.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


def _refused(path: Path) -> str:
    with pytest.raises(RunError) as error:
        RunFile(path)
    return _said(error)


def _read_all(run: RunContents) -> dict[str, np.ndarray]:
    """Every column of a run by its path."""
    columns = {"outputs": run.outputs, "inputs": run.examples.inputs, "trained": run.network.trained}
    if run.network.initial is not None:
        columns["initial"] = run.network.initial
    for name, feature_set in run.sets.items():
        columns |= {f"{name}/{column}": feature_set.columns[column] for column in feature_set.columns}
    for name, table in run.tables.items():
        columns |= {f"table {name}/{column}": values for column, values in table.columns.items()}
    columns |= {"ids": run.examples.ids, "duplicates": run.examples.duplicate_group}
    for part in ("targets", "training"):
        if (array := getattr(run.examples, part)) is not None:
            columns[part] = array
    columns |= {f"concept {concept.name}": concept.values for concept in run.examples.concepts}
    return {name: np.asarray(column) for name, column in columns.items()}


def _same(found: RunContents, wanted: RunContents) -> None:
    one, other = _read_all(found), _read_all(wanted)
    assert one.keys() == other.keys()
    for name, array in other.items():
        np.testing.assert_array_equal(one[name], array, err_msg=name)
        assert one[name].dtype.kind == array.dtype.kind, name
        if array.dtype.kind in "iuf":
            assert one[name].dtype == array.dtype, name
    assert found.name == wanted.name
    assert found.provenance == wanted.provenance
    for part in ("name", "architecture", "n_outputs", "parameters", "digest", "metrics"):
        assert getattr(found.network, part) == getattr(wanted.network, part), part
    for part in ("modality", "class_names", "vocabulary", "inferred"):
        assert getattr(found.examples, part) == getattr(wanted.examples, part), part
    assert {name: (one.title, one.text) for name, one in found.tables.items()} == {
        name: (one.title, one.text) for name, one in wanted.tables.items()
    }
    assert [(one.name, one.labels) for one in found.examples.concepts] == [
        (one.name, one.labels) for one in wanted.examples.concepts
    ]
    assert list(found.sets) == list(wanted.sets)
    for name, feature_set in wanted.sets.items():
        assert found.sets[name].views == feature_set.views
        assert found.sets[name].card == feature_set.card
        assert [found.sets[name].label(k) for k in range(len(feature_set))] == [
            feature_set.label(k) for k in range(len(feature_set))
        ]


# What is written is read back


@pytest.mark.parametrize("modality", ["image", "rgb", "signal", "tokens", "vector", "text"])
def test_every_column_comes_back_for_every_modality(modality: str, tmp_path: Path) -> None:
    made = with_factors(contents(12, modality))
    with RunFile(write_run(made, tmp_path / "run.h5")) as run:
        assert run.path == tmp_path / "run.h5"
        _same(run, made)
        again = write_run(run, tmp_path / "copy.h5")
    assert again.read_bytes() == (tmp_path / "run.h5").read_bytes()


def test_examples_without_targets_or_split_and_with_other_types_come_back(tmp_path: Path) -> None:
    made = contents(12)
    inputs = np.asarray(made.examples.inputs)
    for place, examples in enumerate(
        [
            Examples.from_arrays(inputs.astype(np.float32)),
            Examples.from_arrays((inputs * 255).astype(np.uint8), np.arange(12.0), ids=np.arange(12) - 6),
            Examples.from_arrays(inputs > 0.5, np.eye(12), ids=[f"ß{'x' * i}/../{i}" for i in range(12)]),
            Examples.from_arrays(inputs, vocabulary=[f"token {i}\0\n" for i in range(20_000)]),
        ]
    ):
        wanted = replace(made, examples=examples)
        with RunFile(write_run(wanted, tmp_path / f"{place}.h5")) as run:
            _same(run, wanted)
    assert made.network.initial is not None
    without = replace(made, network=replace(made.network, initial=None))
    with RunFile(write_run(without, tmp_path / "without.h5")) as run:
        assert run.network.initial is None


def test_columns_read_only_what_is_indexed(tmp_path: Path) -> None:
    made = contents(12)
    with RunFile(write_run(made, tmp_path / "run.h5")) as run:
        values = run.sets["eigen"].columns["values"]
        assert (values.shape, values.dtype) == ((6, 4, 12), np.dtype(np.float32))
        wanted = np.asarray(made.sets["eigen"].columns["values"])
        np.testing.assert_array_equal(values[2, 1], wanted[2, 1])
        np.testing.assert_array_equal(run.examples.inputs[3:7], np.asarray(made.examples.inputs)[3:7])
        labels = run.sets["unit"].columns["labels"]
        assert isinstance(labels[1], str)
        assert labels[1:3].tolist() == ["0 unit 1", "0 unit 2"]
    with pytest.raises(RunError, match="closed") as error:
        values[0]
    _said(error)


def _walk(path: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    with h5py.File(path, "r") as file:
        found: list[str] = []
        file.visit(found.append)
        for name in found:
            assert isinstance(file.get(name, getlink=True), h5py.HardLink)
            if isinstance(file[name], h5py.Dataset):
                yield name, file[name]


@pytest.mark.parametrize("which", ["synthetic", "frozen", "frozen 1.1"])
def test_plain_h5py_reads_it_as_the_schema_says(which: str, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    frozen = {"frozen": FROZEN, "frozen 1.1": FROZEN_1_1}
    path.write_bytes(frozen[which].read_bytes() if which in frozen else good)
    with h5py.File(path, "r") as file:
        folders = [("network", schema.NETWORK), ("examples", schema.EXAMPLES)]
        folders += [(f"examples/concepts/{name}", schema.CONCEPT) for name in file["examples"].get("concepts", ())]
        folders += [(f"sets/{name}", schema.SET) for name in file["sets"]]
        for name in file["sets"]:
            for number in file.get(f"sets/{name}/factors", ()):
                share = f"sets/{name}/factors/{number}"
                folders.append((share, schema.FACTOR))
                folders += [(f"{share}/inputs/{index}", schema.INPUT) for index in file.get(f"{share}/inputs", ())]
        for name in file.get("tables", ()):
            count = len(json.loads(file[f"tables/{name}"].attrs["columns"]))
            folders.append((f"tables/{name}", table_elements(count)))
        seen: set[str] = set()
        letters: dict[str, int] = {}
        for folder, elements in folders:
            own = dict(letters) if folder.startswith(("sets", "tables", "examples/concepts")) else letters
            for element in elements:
                if element.name not in file[folder]:
                    assert element.optional, (folder, element.name)
                    continue
                dataset = file[folder][element.name]
                seen.add(f"{folder}/{element.name}")
                assert dataset.dtype.kind in element.kinds
                named = [letter for letter in element.dims.split() if letter != "..."]
                assert dataset.ndim == len(named) or ("..." in element.dims and dataset.ndim >= len(named))
                for letter, size in zip(named, dataset.shape, strict=False):
                    assert own.setdefault(letter, size) == size, (folder, element.name, letter)
        assert seen == {name for name, _ in _walk(path)}
        assert file.attrs["format"] == "feature_lens run"
        assert file.attrs["format_version"] == {"frozen": "1.0", "frozen 1.1": "1.1", "frozen 1.2": "1.2"}.get(
            which, "1.3"
        )
        assert file.attrs["complete"]
        for key, kind in (("settings", dict), ("software", dict), ("remarks", list)):
            assert isinstance(json.loads(file.attrs[key]), kind)
        for group in file["sets"].values():
            assert len(json.loads(group.attrs["views"])) == group["highest/position"].shape[1]
    text = specification()
    for element in (*schema.NETWORK, *schema.EXAMPLES, *schema.CONCEPT, *schema.SET, *schema.FACTOR, *schema.INPUT):
        assert element.name in text
        assert element.meaning in text


def test_chunks_are_small_and_only_gzip_and_shuffle_are_used(tmp_path: Path) -> None:
    made = contents(12)
    large = Examples.from_arrays(np.zeros((12, 3, 300, 310)))  # one example is larger than a chunk may be
    path = write_run(replace(made, examples=large), tmp_path / "run.h5")
    compressed = 0
    for name, dataset in _walk(path):
        filters = dataset.id.get_create_plist().get_nfilters()
        if dataset.nbytes <= PLAIN_BYTES:
            assert (filters, dataset.chunks) == (0, None), name
            continue
        compressed += 1
        assert (filters, dataset.compression, dataset.shuffle) == (2, "gzip", True), name
        assert np.prod(dataset.chunks) * dataset.dtype.itemsize <= 1 << 20, name
    assert compressed > 5
    assert path.stat().st_size < 1_000_000


def test_the_frozen_file_of_version_1_stays_readable() -> None:
    with RunFile(FROZEN) as run:
        _same(run, frozen_run.contents())
        assert run.examples.ids[1] == "ex-01 ü"
        everything = run.sets["all"]
        # Columns added by a later version are not in this file.
        assert set(everything.columns) == {element.name for element in frozen_run.known(0)}
        assert everything.label(1) == "labels é 1401"
        assert everything.read("highest/value")[1, 0].tolist() == [13.25, 13.375, 13.5]
        assert everything.read("lowest/position")[0, 1].tolist() == [11, 0, 1]
        assert everything.card.kernel_share == 0.5
        assert run.network.parameters.learning_rates == (1.0, 0.25)
        assert np.asarray(run.outputs)[-1].tolist() == [2.75, 2.875]


def test_the_frozen_file_of_version_1_1_stays_readable() -> None:
    with RunFile(FROZEN_1_1) as run:
        _same(run, frozen_run.contents(1))
        assert set(run.sets["all"].columns) == {element.name for element in frozen_run.known(1)}
        factored = run.sets["factored"]
        assert factored.keeps_factors
        assert factored.values(0, "score")[:3].tolist() == FROZEN_VALUES[0]
        assert factored.values(1, "output:0")[:3].tolist() == FROZEN_VALUES[1]


def test_the_frozen_file_of_version_1_2_stays_readable() -> None:
    wanted = frozen_run.dual()
    with RunFile(FROZEN_1_2) as run:
        _same(run, frozen_run.contents(2))
        assert set(run.sets["all"].columns) == {element.name for element in frozen_run.known(2)}
        assert run.dual is not None
        assert (run.dual.fidelities, run.dual.fitted) == (wanted.fidelities, wanted.fitted)
        assert (run.dual.notes, run.dual.remarks, run.dual.tickets) == (wanted.notes, wanted.remarks, wanted.tickets)
        assert run.dual.expansion == wanted.expansion
        assert run.dual.columns.keys() == wanted.columns.keys()
        for name, values in wanted.columns.items():
            np.testing.assert_array_equal(np.asarray(run.dual.columns[name]), np.asarray(values), err_msg=name)
        assert run.kernel is not None
        assert run.kernel.outputs == "trace"
        assert np.asarray(run.kernel.value[:])[11].tolist() == list(range(132, 144))


def test_the_frozen_file_of_version_1_3_stays_readable() -> None:
    with RunFile(FROZEN_1_3) as run:
        _same(run, frozen_run.contents(3))
        assert run.sets["all"].card.reads_labels
        for concept, wanted in zip(run.examples.concepts, frozen_run.concepts().values(), strict=True):
            np.testing.assert_array_equal(concept.values, wanted.values)
        assert run.tables["figures"].text == "Made by formulas."
        assert run.tables["figures"].arrays()["words"].tolist() == ["é", "", "x"]


def test_eight_threads_read_right_values(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_bytes(good)
    made = contents(12)
    wanted = {name: np.asarray(s.columns["values"]) for name, s in made.sets.items() if s.stores_values}
    with RunFile(tmp_path / "run.h5") as run:

        def read(number: int) -> bool:
            rng = np.random.default_rng(number)
            name = sorted(wanted)[rng.integers(len(wanted))]
            k, v = rng.integers(wanted[name].shape[0]), rng.integers(wanted[name].shape[1])
            label = run.sets["unit"].label(int(k) % 5)
            return label == f"0 unit {int(k) % 5}" and np.array_equal(
                run.sets[name].columns["values"][k, v], wanted[name][k, v]
            )

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(400)))


# Nothing is lost


def _only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fail(error: BaseException) -> Callable[..., Any]:
    def raising(*_: object, **__: object) -> Any:
        raise error

    return raising


FAILURES: dict[str, tuple[str, BaseException, type[BaseException]]] = {
    "in the contents": ("writer._write_set", OSError(28, "No space left on device"), RunError),
    "an unforeseen one": ("writer._write_set", KeyError("x"), KeyError),
    "by the user": ("writer.write_tables", KeyboardInterrupt(), KeyboardInterrupt),
    "a full disk": ("placing.os.fsync", OSError(28, "No space left on device"), OutputError),
    "the user, late": ("placing.os.fsync", KeyboardInterrupt(), KeyboardInterrupt),
    "the last step": ("placing.os.replace", PermissionError(1, "Operation not permitted"), OutputError),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_the_old_file_and_nothing_else(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(b"precious")
    where, raised, told = FAILURES[failure]
    monkeypatch.setattr(f"feature_lens.store.{where}", _fail(raised))
    with pytest.raises(told) as error:
        write_run(contents(12), path, overwrite=True)
    monkeypatch.undo()
    if issubclass(told, FeatureLensError):
        assert "nothing was changed" in _said(error)
    assert path.read_bytes() == b"precious"
    assert _only(tmp_path) == ["run.h5"]


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """A system that lets files grow to `size` and no further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 1000, 100_000])
def test_a_system_that_really_refuses_more_bytes(size: int, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(b"precious")
    with _room_for(size), pytest.raises(OutputError, match="File too large") as error:
        write_run(contents(12), path, overwrite=True)
    _said(error)
    assert path.read_bytes() == b"precious"
    assert _only(tmp_path) == ["run.h5"]
    write_run(contents(12), path, overwrite=True)
    RunFile(path).close()


def test_an_existing_file_is_replaced_only_when_asked(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(b"precious")
    for write in (lambda: write_run(contents(12), path), lambda: write_bytes(b"new", path)):
        with pytest.raises(OutputError, match=r"exists already; .* --overwrite") as error:
            write()
        _said(error)
    assert path.read_bytes() == b"precious"
    write_run(contents(12), path, overwrite=True)
    assert path.read_bytes() == good
    write_bytes(b"new", path, overwrite=True)
    assert path.read_bytes() == b"new"
    assert _only(tmp_path) == ["run.h5"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_that_appears_meanwhile_is_not_lost(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    sync = os.fsync

    def appear(descriptor: int) -> None:
        path.write_bytes(b"someone else's")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", appear)
    if not links:
        monkeypatch.setattr(os, "link", _fail(PermissionError(1, "Operation not permitted")))
    with pytest.raises(OutputError, match="appeared while") as error:
        write_bytes(b"new", path)
    _said(error)
    assert path.read_bytes() == b"someone else's"
    assert _only(tmp_path) == ["run.h5"]


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _fail(PermissionError(1, "Operation not permitted")))
    assert write_bytes(b"new", tmp_path / "x.csv").read_bytes() == b"new"
    assert _only(tmp_path) == ["x.csv"]


def test_paths_that_cannot_be_written_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    before = _only(tmp_path)
    monkeypatch.setattr(writer, "_image", _fail(AssertionError("work was done")))
    refused = {
        "is a folder": tmp_path,
        "does not exist; make it first": tmp_path / "missing" / "run.h5",
        "'.*file' does not exist": tmp_path / "file" / "run.h5",
        "Nothing can be written in '/proc'": Path("/proc/run.h5"),
        "File name too long": tmp_path / ("x" * 300),
        "exists already": tmp_path / "dangling",
        "null byte": tmp_path / "a\0b",
        "surrogates not allowed": tmp_path / "a\udcff.h5",
    }
    for sentence, path in refused.items():
        for attempt in (check_writable, lambda path: write_run(contents(12), path)):
            with pytest.raises(OutputError, match=sentence) as error:
                attempt(path)
            _said(error)
    with pytest.raises(OutputError, match="not an ordinary file"):
        check_writable(tmp_path / "pipe", overwrite=True)
    assert check_writable(tmp_path / "file", overwrite=True) == tmp_path / "file"
    assert check_writable(tmp_path / ("x" * 255)).name == "x" * 255
    assert _only(tmp_path) == before


def test_the_longest_name_that_the_system_takes_is_written(tmp_path: Path) -> None:
    path = write_bytes(b"content", tmp_path / ("x" * 255))
    assert path.read_bytes() == b"content"


# What does not fit the schema is not written


def _with_set(made: RunContents, **changes: Any) -> RunContents:
    trace = replace(made.sets["trace"], **changes)
    return replace(made, sets={trace.name: trace})


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ".", "..", "", ".hidden", "-x", "a b", "ä", "a\n"])
def test_names_of_sets_that_would_leave_their_place_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="letters, digits") as error:
        write_run(_with_set(contents(12), name=name), tmp_path / "run.h5")
    assert str(error.value).endswith(".")
    assert not _only(tmp_path)


def test_names_of_sets_that_are_allowed(tmp_path: Path) -> None:
    path = write_run(_with_set(contents(12), name="Eigen_2.a-b"), tmp_path / "run.h5")
    with RunFile(path) as run:
        assert list(run.sets) == ["Eigen_2.a-b"]


def test_contents_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    made = contents(12)
    columns = dict(made.sets["trace"].columns)
    short = {**columns, "mean": np.zeros((3, 1))}
    bad: list[tuple[str, RunContents]] = [
        ("no data set '/sets/trace/foo'", _with_set(made, columns={**columns, "foo": np.zeros(4)})),
        (
            "needs the data set '/sets/trace/std'",
            _with_set(made, columns={k: c for k, c in columns.items() if k != "std"}),
        ),
        ("'/sets/trace/mean' needs k = 4", _with_set(made, columns=short)),
        (r"needs the dimensions \(k v\)", _with_set(made, columns={**columns, "mean": np.zeros(4)})),
        ("holds float64, but the schema says i", _with_set(made, columns={**columns, "order": np.zeros(4)})),
        ("needs v = 2", _with_set(made, views=("score", "other"))),
        ("needs n = 12", replace(made, outputs=np.zeros((11, 3)))),
        ("JSON", replace(made, network=replace(made.network, metrics={"R2": float("nan")}))),
        ("JSON", replace(made, provenance=replace(made.provenance, settings={"a": object()}))),
        ("NULL", replace(made, name="a\0b")),
        ("letters, digits", replace(made, sets={"other": made.sets["trace"]})),
    ]
    for sentence, wrong in bad:
        with pytest.raises(RunError, match=sentence) as error:
            write_run(wrong, tmp_path / "run.h5")
        _said(error)
        assert not _only(tmp_path)


# Files that are not what they should be


def test_what_is_no_run_file_is_told_apart(tmp_path: Path, good: bytes) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = np.arange(3)
    files = {
        "foreign.h5": "is an HDF5 file, but not a feature_lens run",
        "empty.h5": r"not a readable HDF5 file \(it is empty\)",
        "text.h5": "not a readable HDF5 file",
        "sealed.h5": "not a readable HDF5 file",
        "garbage.h5": "cut off or changed|not a feature_lens run",
        "unsealed.h5": "cut off or changed",
    }
    (tmp_path / "empty.h5").touch()
    (tmp_path / "text.h5").write_text("id,value\n1,2\n")
    (tmp_path / "sealed.h5").write_bytes(sealed(b"not HDF5 at all"))
    (tmp_path / "garbage.h5").write_bytes(good[:8] + bytes(5000))
    (tmp_path / "unsealed.h5").write_bytes(good[:-SEAL])
    for name, sentence in files.items():
        with pytest.raises(RunError, match=sentence):
            RunFile(tmp_path / name)
        _refused(tmp_path / name)
    assert "There is no run file" in _refused(tmp_path / "missing.h5")
    assert "There is no run file" in _refused(tmp_path)
    assert "File name too long" in _refused(tmp_path / ("x" * 300))
    (tmp_path / "half.h5").write_bytes(sealed(good[:8] + bytes(5000)))
    assert "not a readable HDF5 file" in _refused(tmp_path / "half.h5")


def test_truncated_files_are_refused_at_any_length(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "run.h5"
    lengths = [1, 7, 8, 9, 84, 85, 86, 512, 2048, len(good) // 2, len(good) - SEAL, len(good) - SEAL + 5, len(good) - 1]
    for length in lengths:
        path.write_bytes(good[:length])
        said = _refused(path)
        assert "HDF5" in said or "cut off" in said, (length, said)
    path.write_bytes(good + b"\n")
    assert "cut off or changed" in _refused(path)


def test_a_single_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    frozen = FROZEN.read_bytes()
    path = tmp_path / "run.h5"
    rng = np.random.default_rng(0)
    for at in [0, 8, len(frozen) - 1, len(frozen) - SEAL, *rng.integers(0, len(frozen), 100)]:
        flipped = bytearray(frozen)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        _refused(path)


@pytest.fixture
def tampered(tmp_path: Path, good: bytes) -> Callable[[Callable[[h5py.File], object]], Path]:
    """Changes a run file by plain h5py and seals it again, as a program that means harm would."""

    def change(how: Callable[[h5py.File], object]) -> Path:
        path = tmp_path / "tampered.h5"
        path.write_bytes(good[:-SEAL])
        with h5py.File(path, "r+") as file:
            how(file)
        path.write_bytes(sealed(path.read_bytes()))
        return path

    return change


Tampered = Callable[[Callable[[h5py.File], object]], Path]


def _set_attribute(where: str, key: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[where].attrs[key] = value

    return change


def _put(where: str, value: Any) -> Callable[[h5py.File], None]:
    """Replaces what is at a path; None takes it away."""

    def change(file: h5py.File) -> None:
        parent = where.rpartition("/")[0]
        for place in (where, parent):
            if isinstance(file.get(place), h5py.Dataset) or (place == where and place in file):
                del file[place]
        if value is not None:
            file[where] = value

    return change


def test_newer_major_versions_are_refused_and_newer_minor_ones_read(tampered: Tampered) -> None:
    assert "version 2.0, but this program reads up to 1; install a newer" in _refused(
        tampered(_set_attribute("/", "format_version", "2.0"))
    )
    for wrong in ("", "one", "1", "1.0.0", "²", "9" * 5000 + ".0", 1.0, ["1.0", "1.0"]):
        assert "does not say its format version" in _refused(tampered(_set_attribute("/", "format_version", wrong)))

    def newer(file: h5py.File) -> None:
        file.attrs["format_version"] = "1.7"
        file.attrs["shape_of_things"] = "to come"
        file["network/later"] = np.arange(3)
        file["examples/later"] = np.array(["a", "b"], dtype=object)
        file["sets/eigen/later/deeper"] = np.zeros((2, 2), dtype=complex)
        file["later"] = h5py.SoftLink("/network")
        card = json.loads(file["sets/eigen"].attrs["card"])
        file["sets/eigen"].attrs["card"] = json.dumps({**card, "later": [1]})
        shown = json.loads(file["examples"].attrs["modality"])
        file["examples"].attrs["modality"] = json.dumps({**shown, "later": 1})

    with RunFile(tampered(newer)) as run:
        _same(run, contents(12))


def test_unfinished_and_incomplete_files_are_refused(tampered: Tampered) -> None:
    assert "was not finished" in _refused(tampered(lambda file: file.attrs.pop("complete")))
    for wrong in (False, "yes", 3, [True, True]):
        assert "was not finished" in _refused(tampered(_set_attribute("/", "complete", wrong)))
    assert "not a feature_lens run" in _refused(tampered(lambda file: file.attrs.pop("format")))
    for wrong in ("netCDF", 7, ["feature_lens run"] * 2, np.zeros((2, 2))):
        assert "not a feature_lens run" in _refused(tampered(_set_attribute("/", "format", wrong)))
    for missing in ("network", "examples", "sets", "network/trained", "examples/id", "sets/eigen/mean"):
        assert f"'/{missing}' is missing" in _refused(tampered(_put(missing, None)))
    for missing in ("sets/eigen/highest", "network/parameters"):
        assert f"'/{missing}/" in _refused(tampered(_put(missing, None)))


CONCEPT = "examples/concepts/legs & wings"
WRONG_DATA: dict[str, tuple[str, Any, str]] = {
    "another n": ("examples/output", np.zeros((11, 3)), "needs n = 12"),
    "another c": ("examples/output", np.zeros((12, 2)), "3 outputs, but 2"),
    "too few dimensions": ("sets/eigen/mean", np.zeros(6), r"needs the dimensions \(k v\)"),
    "too many dimensions": ("sets/eigen/mean", np.zeros((6, 4, 1)), r"needs the dimensions \(k v\)"),
    "a scalar": ("sets/eigen/spectrum", 1.0, r"needs the dimensions \(k\)"),
    "nothing at all": ("sets/eigen/spectrum", h5py.Empty("f"), "does not hold data of its own"),
    "numbers for text": ("sets/unit/labels", np.arange(5), "holds int64"),
    "text for numbers": ("sets/unit/mean", np.full((5, 3), b"x"), "holds [|]S1"),
    "reals for positions": ("sets/unit/highest/position", np.zeros((5, 3, 12)), "holds float64"),
    "objects for text": ("sets/unit/labels", ["a"] * 5, "holds object"),
    "a group for data": ("sets/unit/labels/x", np.arange(3), "does not hold data of its own"),
    "data for a group": ("sets/unit", np.arange(3), "'/sets/unit' is missing"),
    "parameters that do not add up": ("network/parameters/shape", np.array([b"[5, 12]", b"[5]", b"[3]"]), "names 68"),
    "negative shapes": ("network/parameters/shape", np.array([b"[-5, -12]", b"[5]", b"[3, 5]"]), "holds no shape"),
    "shapes of words": ("network/parameters/shape", np.array([b'["a"]', b"[5]", b"[3, 5]"]), "holds no shape"),
    "shapes that are no JSON": ("network/parameters/shape", np.array([b"[", b"[5]", b"[3, 5]"]), "is no JSON"),
    "columns of unequal length": ("tables/figures/1", np.zeros(2), "needs m = 3"),
    "a table without a column": ("tables/figures/2", None, "'/tables/figures/2' is missing"),
    "columns of complex numbers": ("tables/figures/1", np.zeros(3, dtype=complex), "holds complex128"),
    "a concept of another n": (f"{CONCEPT}/value", np.zeros((11, 2)), "needs n = 12"),
    "a concept without rows": (f"{CONCEPT}/value", np.zeros(12), r"needs the dimensions \(n d\)"),
    "a concept of words": (f"{CONCEPT}/value", np.full((12, 2), b"x"), "holds [|]S1"),
    "a concept of another d": (f"{CONCEPT}/value", np.zeros((12, 3)), "one label for each of its 3 columns"),
    "a concept that is not finite": (f"{CONCEPT}/value", np.full((12, 2), np.nan), "must be known of every example"),
    "a concept that is not there": (f"{CONCEPT}/value", None, "'/examples/concepts/legs & wings/value' is missing"),
    "data for a concept": (CONCEPT, np.arange(3), "'/examples/concepts/legs & wings' is missing"),
    "data for concepts": ("examples/concepts", np.arange(3), "'/examples/concepts' is missing"),
    "text that is no UTF-8": ("network/parameters/name", np.array([b"\xff", b"b", b"c"]), "cannot be read"),
}


@pytest.mark.parametrize("wrong", WRONG_DATA)
def test_data_sets_of_a_wrong_shape_or_type_are_refused(wrong: str, tampered: Tampered) -> None:
    where, value, sentence = WRONG_DATA[wrong]
    path = tampered(_put(where, value))
    with pytest.raises(RunError, match=sentence):
        RunFile(path)
    _refused(path)


@pytest.mark.parametrize("name", ["a b", "..", "-x", "<b>"])
def test_sets_of_a_name_that_is_not_allowed_are_refused(name: str, tampered: Tampered) -> None:
    assert "cannot be the name of a feature set" in _refused(
        tampered(lambda file: file.move("sets/trace", f"sets/{name}"))
    )


@pytest.mark.parametrize("name", ["a b", "..", "-x", "<b>"])
def test_tables_of_a_name_that_is_not_allowed_are_refused(name: str, tampered: Tampered, tmp_path: Path) -> None:
    assert "cannot be the name of a table" in _refused(
        tampered(lambda file: file.move("tables/none", f"tables/{name}"))
    )
    made = contents(12)
    with pytest.raises(RunError, match="A table is called by letters"):
        write_run(replace(made, tables={name: made.tables["none"]}), tmp_path / "out.h5")


def test_tables_that_are_none_are_refused() -> None:
    with pytest.raises(SettingsError, match="are vectors of one length"):
        KeptTable("uneven", {"a": np.arange(2), "b": np.arange(3)})
    with pytest.raises(SettingsError, match="are vectors of one length"):
        KeptTable("square", {"a": np.zeros((2, 2))})
    with pytest.raises(SettingsError, match="are vectors of one length"):
        KeptTable("empty", {})
    with pytest.raises(SettingsError, match="'a' holds complex128"):
        KeptTable("complex", {"a": np.zeros(2, dtype=complex)})


def test_text_that_is_no_utf8_is_noticed_when_it_is_read(tampered: Tampered) -> None:
    with (
        RunFile(tampered(_put("sets/unit/labels", np.array([b"\xff"] * 5)))) as run,
        pytest.raises(RunError, match="'/sets/unit/labels' cannot be read") as error,
    ):
        run.sets["unit"].label(0)
    _said(error)


def test_data_that_claims_more_than_there_is_memory_for_is_refused(tampered: Tampered) -> None:
    def claim(file: h5py.File) -> None:
        for name in ("input", "output", "id", "duplicate_group", "target", "training"):
            old = file["examples"][name]
            shape, kind = (1 << 55, *old.shape[1:]), old.dtype
            del file["examples"][name]
            file["examples"].create_dataset(name, shape=shape, dtype=kind, chunks=(64, *shape[1:]))

    _refused(tampered(claim))

    def claim_columns(file: h5py.File) -> None:
        del file[CONCEPT]["value"]
        file[CONCEPT].create_dataset("value", shape=(12, 1 << 40), dtype=np.float64, chunks=(12, 64))

    assert "claims more numbers than it holds" in _refused(tampered(claim_columns))


DEEP = "[" * 100_000
WRONG_ATTRIBUTES: list[tuple[str, str, Any]] = [
    *(("/", key, wrong) for key in ("settings", "software") for wrong in ("[]", "1", "{", "", DEEP, 3, [1, 2])),
    *(("/", "remarks", wrong) for wrong in ("{}", "[1]", '"a"', "[[]]", DEEP, 3.5)),
    *(("/", key, wrong) for key in ("name", "fingerprint") for wrong in (3, [1, 2], np.zeros(3))),
    *(("network", key, 3) for key in ("name", "architecture", "digest")),
    *(("network", "n_outputs", wrong) for wrong in ("many", [1, 2], float("inf"), float("nan"), 2, -1)),
    *(("network", "metrics", wrong) for wrong in ("[]", '{"a": "b"}', '{"a": []}', '{"a": null}', "nonsense")),
    *(
        ("examples", key, wrong)
        for key in ("class_names", "vocabulary", "inferred")
        for wrong in ("{}", "[1]", '"abc"', DEEP, 1)
    ),
    *(
        ("examples", "modality", json.dumps({"kind": "image", "shape": [1, 3, 4], "low": 0, "high": 1} | wrong))
        for wrong in (
            {"kind": "smell"},
            {"kind": 3},
            {"kind": []},
            {"shape": [1, 3, 5]},
            {"shape": [3, 4]},
            {"shape": [-1, -3, 4]},
            {"shape": ["1", "3", "4"]},
            {"shape": [1.0, 3.0, 4.0]},
            {"shape": [True, 3, 4]},
            {"shape": {}},
            {"shape": [10**400, 3, 4]},
            {"channels_last": "yes"},
            {"channels_last": True, "kind": "text"},
        )
    ),
    *(("examples", "modality", wrong) for wrong in ("[]", "{}", "3")),
    *((CONCEPT, "labels", wrong) for wrong in ("{}", "[1, 2]", '["a"]', '["a", "a"]', DEEP, 1)),
    *((CONCEPT, "place", wrong) for wrong in ("first", [0, 1], float("nan"))),
    *(("sets/eigen", "views", wrong) for wrong in ("[]", "{}", '["a"]', "[1, 2, 3, 4]", 4)),
    *(("tables/figures", "columns", wrong) for wrong in ("[]", "{}", '["a", "a", "b"]', '["a"]', "[1, 2, 3]", DEEP)),
    *(("tables/figures", key, 3) for key in ("title", "text")),
    *(("sets/eigen", "place", wrong) for wrong in ("first", [0, 1], float("nan"))),
    *(
        ("sets/eigen", "card", wrong)
        for wrong in ("[]", "{}", '{"provenance": []}', '{"provenance": {}}', "1e999", DEEP)
    ),
]


@pytest.mark.parametrize("number", range(len(WRONG_ATTRIBUTES)))
def test_attributes_of_a_wrong_type_are_refused(number: int, tampered: Tampered) -> None:
    _refused(tampered(_set_attribute(*WRONG_ATTRIBUTES[number])))


@pytest.mark.parametrize(
    ("where", "key"),
    [
        *(("/", key) for key in ("name", "settings", "software", "fingerprint", "remarks")),
        *(("network", key) for key in ("name", "architecture", "n_outputs", "digest", "metrics")),
        *(("examples", key) for key in ("modality", "class_names", "vocabulary")),
        *(("sets/trace", key) for key in ("place", "views", "card")),
        *(("tables/figures", key) for key in ("title", "text", "columns")),
        *((CONCEPT, key) for key in ("place", "labels")),
    ],
)
def test_every_attribute_is_needed(where: str, key: str, tampered: Tampered) -> None:
    _refused(tampered(lambda file: file[where].attrs.pop(key)))


def test_a_huge_attribute_is_read_as_it_is(tampered: Tampered) -> None:
    words = [f"word {i}" for i in range(100_000)]
    with RunFile(tampered(_set_attribute("examples", "vocabulary", json.dumps(words)))) as run:
        assert list(run.examples.vocabulary) == words


@pytest.mark.parametrize(
    "where",
    [
        CONCEPT,
        "examples/concepts",
        "network",
        "examples",
        "sets",
        "sets/eigen",
        "sets/eigen/highest",
        "sets/eigen/values",
        "network/trained",
        "tables",
        "tables/none",
    ],
)
@pytest.mark.parametrize("kind", ["soft", "dangling", "external"])
def test_links_are_refused_wherever_they_stand(where: str, kind: str, tampered: Tampered, tmp_path: Path) -> None:
    (tmp_path / "other.h5").write_bytes(FROZEN.read_bytes())
    kept = f"kept {where.replace('/', ' ')}"

    def link(file: h5py.File) -> None:
        file.move(where, kept)
        if kind == "external":
            file[where] = h5py.ExternalLink("other.h5", "/network")
        else:
            file[where] = h5py.SoftLink(f"/{kept}" if kind == "soft" else "/nowhere")

    assert "is a link" in _refused(tampered(link))


def test_data_kept_elsewhere_is_refused(tampered: Tampered, tmp_path: Path) -> None:
    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(shape=(6, 4, 12), dtype=np.float32)
        layout[:] = h5py.VirtualSource(str(tmp_path / "missing.h5"), "x", shape=(6, 4, 12))
        del file["sets/eigen/values"]
        file["sets/eigen"].create_virtual_dataset("values", layout)

    assert "does not hold data of its own" in _refused(tampered(virtual))
    (tmp_path / "secret").write_bytes(bytes(6 * 4 * 12 * 4))

    def external(file: h5py.File) -> None:
        del file["sets/eigen/values"]
        file["sets/eigen"].create_dataset(
            "values", (6, 4, 12), np.float32, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        )

    assert "does not hold data of its own" in _refused(tampered(external))
