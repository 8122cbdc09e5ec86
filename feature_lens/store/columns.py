"""Columns of a group of the run file: each checked against the schema, then written in chunks."""

from __future__ import annotations

import json
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.arrays import MOST_TEXT, MOST_TEXTS
from feature_lens.errors import RunError
from feature_lens.store import schema
from feature_lens.store.bounds import check_bounds

CHUNK_BYTES: Final = 1 << 20
PLAIN_BYTES: Final = 2048  # up to here the index of a compressed data set is larger than what compression saves

# Of a file's size, what texts may take that are longer than `MOST_TEXTS`: a packed file may say a letter a million times.
_TEXT_SHARE: Final = 64


class Letters(dict[str, int]):
    """Sizes by the schema's letters, as they are seen for the first time, and the bytes of a file that data sets may take."""

    def __init__(self, room: int | None = None) -> None:
        super().__init__()
        self._room = [room]
        self._texts = None if room is None else max(MOST_TEXTS, _TEXT_SHARE * room)

    def own(self, *letters: str) -> Letters:
        """The same for one part of the file, whose letters are its own: all known ones, or only those that are named."""
        made = Letters()
        made.update({letter: self[letter] for letter in letters or self})
        made._room, made._texts = self._room, self._texts
        return made

    def take(self, where: str, size: int) -> None:
        """Count the room that a data set takes; raises RunError where there is none left."""
        (room,) = self._room
        if room is None:
            return
        if size > room:
            raise RunError(f"'{where}' takes more room than there is in the file; make the run again.")
        self._room[0] = room - size

    def take_text(self, where: str, size: int) -> None:
        """Raise RunError where texts take more than such a file can be meant to hold: they are unpacked, read one by one
        and kept in four bytes a letter."""
        if self._texts is not None and size > self._texts:
            raise RunError(
                f"'{where}' claims {size / 1e6:,.0f} MB of text, more than a file of its size holds; make the run again."
            )


def json_text(value: Any) -> str:
    """JSON that any program reads: without NaN and infinity, which JSON has not."""
    return json.dumps(value, allow_nan=False)


def write_columns(group: h5py.Group, columns: Any, elements: tuple[schema.Element, ...], sizes: Letters) -> None:
    """Write columns under their names; raises RunError for one that the schema does not know, misses, or that does not fit."""
    known = {element.name for element in elements}
    if unknown := sorted(set(columns) - known):
        raise RunError(f"The schema has no data set '{group.name}/{unknown[0]}'; add it to the schema first.")
    for element in elements:
        if element.name not in columns:
            if not element.optional:
                raise RunError(f"A run needs the data set '{group.name}/{element.name}', but it is missing.")
            continue
        array = np.asarray(columns[element.name])
        schema_kind = "S" if array.dtype.kind == "U" else array.dtype.kind
        if schema_kind not in element.kinds:
            raise RunError(f"'{group.name}/{element.name}' holds {array.dtype}, but the schema says {element.kinds}.")
        check_shape(f"{group.name}/{element.name}", array.shape, element.dims, sizes)
        if element.bounds:
            check_bounds(f"{group.name}/{element.name}", array, element.bounds, sizes)
        _write_array(group, element.name, array)


def check_shape(name: str, shape: tuple[int, ...], dims: str, sizes: Letters) -> None:
    """Raise RunError where a shape does not fit its letters; letters seen for the first time are remembered."""
    letters = dims.split()
    fixed = [letter for letter in letters if letter != "..."]
    if len(shape) < len(fixed) or (len(shape) > len(fixed) and "..." not in letters):
        raise RunError(f"'{name}' needs the dimensions ({dims}), but its shape is {shape}.")
    for letter, size in zip(fixed, shape, strict=False):
        if sizes.setdefault(letter, size) != size:
            raise RunError(
                f"'{name}' needs {letter} = {sizes[letter]} by the rest of the run, but its shape is {shape}."
            )


def _write_array(group: h5py.Group, name: str, array: npt.NDArray[Any]) -> None:
    if array.dtype.kind == "U":
        encoded = np.char.encode(array, "utf-8")
        width = max(encoded.dtype.itemsize, 1)
        if width > MOST_TEXT:
            raise RunError(
                f"'{group.name}/{name}' holds texts of at most {MOST_TEXT:,} bytes, but one of {width:,} came."
            )
        array = encoded.astype(h5py.string_dtype("utf-8", width))
    if array.ndim == 0 or array.nbytes <= PLAIN_BYTES:
        group.create_dataset(name, data=array)
        return
    group.create_dataset(
        name,
        data=array,
        chunks=_chunks(array.shape, array.dtype.itemsize),
        compression="gzip",
        compression_opts=4,
        shuffle=True,
    )


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of whole trailing dimensions, at most 1 MiB: one feature, or a few, per chunk."""
    chunk = list(shape)
    for axis in range(len(shape)):
        rest = itemsize * int(np.prod(chunk[axis + 1 :], dtype=np.int64))
        chunk[axis] = max(1, min(shape[axis], CHUNK_BYTES // max(rest, 1)))
        if rest <= CHUNK_BYTES:
            break
    return tuple(chunk)
