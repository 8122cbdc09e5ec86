"""Run files behind a valid seal that hold what no run holds: each is refused in one sentence when it is opened, or all that
is made of it is made; whatever the data set, the attribute, or what stands in it."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from whole_run import read_everything, whole_run

from feature_lens.analysis.run import open_run
from feature_lens.errors import RunError
from feature_lens.store import RunFile, schema, write_run
from feature_lens.store.columns import Letters
from feature_lens.store.seal import sealed

SEAL = 85
Change = Callable[[h5py.File], None]
HOSTILE = '\x1b]0;x\x07\x1b[2J<script>alert(1)</script>\u202e\x9b31m"\n=1+1|cmd'


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_run(whole_run(), tmp_path_factory.mktemp("whole") / "run.h5").read_bytes()[:-SEAL]


def _walk(image: bytes, folder: Path) -> list[tuple[str, Any]]:
    """Every group and data set of a file with a copy of what is in it, a group's as its attributes."""
    path = folder / "plain.h5"
    path.write_bytes(image)
    found: list[tuple[str, Any]] = [("/", {})]
    with h5py.File(path, "r") as file:

        def see(name: str, one: Any) -> None:
            found.append((name, one[()] if isinstance(one, h5py.Dataset) else dict(one.attrs)))

        found[0] = ("/", dict(file.attrs))
        file.visititems(see)
    return found


def _put(where: str, value: Any, **made: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[where]
        file.create_dataset(where, data=value, **made)

    return change


def _claim(where: str, old: Any) -> Change:
    """More rows than there is memory for, none of which is there."""

    def change(file: h5py.File) -> None:
        del file[where]
        shape = (1 << 40, *old.shape[1:])
        file.create_dataset(where, shape=shape, dtype=old.dtype, chunks=(16, *shape[1:]))

    return change


def _bomb(where: str, old: Any) -> Change:
    """A chunk that unpacks to a hundred times what it says."""

    def change(file: h5py.File) -> None:
        del file[where]
        made = file.create_dataset(
            where, shape=old.shape, dtype=old.dtype, chunks=old.shape, compression="gzip", shuffle=True
        )
        made.id.write_direct_chunk((0,) * old.ndim, zlib.compress(bytes(100 * max(old.nbytes, 100))))

    return change


def _short(where: str, old: Any) -> Change:
    """A chunk that was not packed, and is shorter than it says."""

    def change(file: h5py.File) -> None:
        del file[where]
        made = file.create_dataset(where, shape=old.shape, dtype=old.dtype, chunks=old.shape, compression="gzip")
        made.id.write_direct_chunk((0,) * old.ndim, bytes(max(1, old.nbytes - 1)), filter_mask=1)

    return change


def _twice_packed(where: str, old: Any) -> Change:
    """A data set that is unpacked more than once, each time to a thousand times as much."""

    def change(file: h5py.File) -> None:
        del file[where]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk(old.shape)
        made.set_deflate(9)
        made.set_deflate(9)
        kind, space = h5py.h5t.py_create(old.dtype, logical=True), h5py.h5s.create_simple(old.shape)
        name = where.encode()
        h5py.h5d.create(file.id, name, kind, space, made).write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(old))

    return change


def _first(old: Any, value: Any) -> Any:
    changed = np.array(old)
    changed.flat[0] = value
    return changed


def _changes(where: str, old: Any) -> Iterator[tuple[str, Change]]:
    """What can be wrong with a data set."""
    kind, rows = old.dtype.kind, old.shape[0]
    if kind in "iu":
        yield "negative", _put(where, _first(old, -2))
        yield "too large", _put(where, _first(old, np.iinfo(old.dtype).max))
        yield "reversed", _put(where, old[::-1])
        yield "all the same", _put(where, np.full_like(old, old.flat[0]))
        yield "real numbers", _put(where, old.astype(np.float64))
        yield "bytes swapped", _put(where, old.astype(old.dtype.newbyteorder(">")))
    elif kind == "f":
        yield "not a number", _put(where, _first(old, np.nan))
        yield "infinite", _put(where, _first(old, -np.inf))
        yield "huge", _put(where, np.full_like(old, 0.99 * np.finfo(old.dtype).max))
        yield "all zero", _put(where, np.zeros_like(old))
        yield "whole numbers", _put(where, np.zeros(old.shape, dtype=np.int64))
        yield "long", _put(where, old.astype(np.longdouble))
        yield "bytes swapped", _put(where, old.astype(old.dtype.newbyteorder(">")))
    elif kind == "S":
        yield "hostile", _put(where, _first(old.astype("S99"), HOSTILE.encode()))
        yield "no text", _put(where, _first(old.astype("S99"), b"\xff\xfe"))
        yield "nothing", _put(where, np.full(old.shape, b"", dtype="S1"))
        yield "wide", _put(where, old.astype("S100000"), compression="gzip")
        yield "numbers", _put(where, np.zeros(old.shape))
    yield "complex", _put(where, np.zeros(old.shape, dtype=complex))
    yield "no rows", _put(where, old[:0])
    yield "a row more", _put(where, np.concatenate([old, old[-1:]]))
    yield "a row less", _put(where, old[: rows - 1])
    yield "an axis more", _put(where, old[..., None])
    yield "claimed", _claim(where, old)
    yield "bomb", _bomb(where, old)
    yield "short", _short(where, old)
    yield "packed twice", _twice_packed(where, old)
    yield "chunks too large", _put(where, old, chunks=True, compression="lzf")


def _set(where: str, key: str, value: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[where].attrs[key]
        if value is not None:
            file[where].attrs[key] = value

    return change


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """A JSON value with one of its leaves changed, or taken away, each in turn."""
    wrong = {"number": -1, "text": HOSTILE, "nothing": None, "list": [[]], "infinite": float("inf"), "yes": True}
    if isinstance(value, dict):
        for key, one in value.items():
            yield "without", {other: kept for other, kept in value.items() if other != key}
            for what, changed in _inside(one):
                yield what, value | {key: changed}
        yield "a key", value | {HOSTILE: 1}
    elif isinstance(value, list) and value:
        yield "shorter", value[1:]
        yield "longer", [*value, value[0]]
        for what, changed in _inside(value[0]):
            yield what, [changed, *value[1:]]
    else:
        yield from wrong.items()


def _wrong_attributes(where: str, key: str, old: Any) -> Iterator[tuple[str, Change]]:
    yield "without", _set(where, key, None)
    yield "numbers", _set(where, key, np.arange(3))
    yield "negative", _set(where, key, -1)
    yield "hostile", _set(where, key, HOSTILE.replace("\0", ""))
    yield "nan", _set(where, key, float("nan"))
    try:
        data = json.loads(old)
    except (TypeError, ValueError):
        return
    for what, changed in _inside(data):
        yield f"JSON {what}", _set(where, key, json.dumps(changed))


PARTS = ("network", "examples", "sets/all", "sets/factored/factors", "dual", "kernel", "tables")
# Whole numbers and numbers of rows are tried everywhere; the rest in turn, since it is the same for all.
ALWAYS = (
    "negative",
    "too large",
    "reversed",
    "all the same",
    "no rows",
    "a row more",
    "a row less",
    "nothing",
    "without",
)
EVERY = 7


def _cases(image: bytes, folder: Path, part: str) -> Iterator[tuple[str, str, Change]]:
    """Where, what and how: all wrongs of a part of the file, the attributes of the root among those of the network's."""
    turn = 0
    for where, old in _walk(image, folder):
        if (where == "/" and part != "network") or (where != "/" and not f"{where}/".startswith(f"{part}/")):
            continue
        if isinstance(old, dict):
            found = [
                (f"{where} {key}", what, change)
                for key, value in old.items()
                for what, change in _wrong_attributes(where, key, value)
            ]
        else:
            found = [(where, what, change) for what, change in _changes(where, old)]
        for case in found:
            turn += 1
            if case[1] in ALWAYS or turn % EVERY == 0:
                yield case


def _written(path: Path, image: bytes, *changes: Change) -> Path:
    path.write_bytes(image)
    with h5py.File(path, "r+") as file:
        for change in changes:
            change(file)
    path.write_bytes(sealed(path.read_bytes()))
    return path


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered", "ignore:divide by zero")
@pytest.mark.parametrize("part", PARTS)
def test_what_no_run_holds_is_refused_when_it_is_opened_or_all_is_made_of_it(
    part: str, whole: bytes, tmp_path: Path
) -> None:
    path, refused = tmp_path / "run.h5", 0
    opened: list[dict[str, Change]] = []  # in each what can be wrong at once
    later: dict[str, Change] = {}
    for where, what, change in _cases(whole, tmp_path, part):
        try:
            RunFile(_written(path, whole, change)).close()
        except RunError as error:
            said = str(error)
            assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u202e]+\.", said), (where, what, said)
            assert not re.search(r"Error|not foreseen|__|damaged or foreign", said), (where, what, said)
            refused += 1
        else:
            if what in READ_LATER:
                later[where] = change
                continue
            if all(where in changes for changes in opened):
                opened.append({})
            next(changes for changes in opened if where not in changes)[where] = change
    assert refused > 5
    for changes in opened:
        with open_run(_written(path, whole, *changes.values())) as run:
            read_everything(run)
    if later:
        with open_run(_written(path, whole, *later.values())) as run, pytest.raises(RunError, match="the run again"):
            read_everything(run)


# What is found out when the numbers are read, which may be long after a large file was opened.
READ_LATER = ("bomb", "short", "no text")


def test_data_sets_take_no_more_room_than_their_file_has() -> None:
    whole = Letters(room=100)
    whole.own().take("'a'", 60)
    with pytest.raises(RunError, match="takes more room than there is in the file"):
        whole.own().take("'b'", 60)


def test_texts_take_no_more_than_such_a_file_can_be_meant_to_hold(whole: bytes, tmp_path: Path) -> None:
    def wide(file: h5py.File) -> None:
        file["tables/figures"].attrs["columns"] = '["a"]'
        for number in range(4):
            del file[f"tables/figures/{number}"]
        packed = file["tables/figures"].create_dataset("0", (2000,), "S65000", chunks=(16,), compression="gzip")
        packed[:] = np.full(2000, b"a" * 65_000)

    with pytest.raises(RunError, match="claims 130 MB of text, more than a file of its size holds"):
        RunFile(_written(tmp_path / "run.h5", whole, wide))


def test_numbers_and_filters_of_any_machine_are_read_alike(whole: bytes, tmp_path: Path) -> None:
    def rewritten(file: h5py.File) -> None:
        values = file["sets/all/values"][()]
        _put("sets/all/values", values.astype(values.dtype.newbyteorder(">")))(file)
        positions = file["sets/all/highest/position"][()].astype(">i4")
        _put("sets/all/highest/position", positions, chunks=positions.shape, compression="gzip")(file)

    with (
        RunFile(_written(tmp_path / "a.h5", whole)) as one,
        RunFile(_written(tmp_path / "b.h5", whole, rewritten)) as two,
    ):
        for name in ("values", "highest/position"):
            found, wanted = two.sets["all"].read(name), one.sets["all"].read(name)
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)


def test_every_whole_number_of_the_schema_says_its_bounds() -> None:
    groups = (schema.NETWORK, schema.EXAMPLES, schema.CONCEPT, schema.SET, schema.FACTOR, schema.INPUT, schema.DUAL)
    unsaid = [one.name for group in groups for one in group if set(one.kinds) & set("iu") and not one.bounds]
    assert not unsaid
