"""Groups and data sets of an open run file, each checked before it is used; what is indexed is read under one lock."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.errors import RunError, in_brief
from feature_lens.examples import Column
from feature_lens.store import schema
from feature_lens.store.columns import PLAIN_BYTES, check_shape
from feature_lens.store.lock import HDF5_LOCK

T = TypeVar("T")
# Deflate makes nothing smaller than this, with some room.
_MOST_PACKED: Final = 1100


class StoredColumn:
    """A data set of an open run file that reads what is indexed; text comes back as str."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape)
        self._text = dataset.dtype.kind == "S"
        self.dtype: np.dtype[Any] = np.dtype("U") if self._text else dataset.dtype

    def __getitem__(self, index: Any, /) -> Any:
        with HDF5_LOCK:
            if not self._dataset:
                raise RunError("The run file is closed, so nothing can be read from it; open it again.")
            try:
                found = self._dataset[index]
                if not self._text:
                    return found
                return found.decode("utf-8") if isinstance(found, bytes) else np.char.decode(found, "utf-8")
            except (OSError, RuntimeError, UnicodeDecodeError, MemoryError) as error:
                raise RunError(
                    f"'{self._dataset.name}' cannot be read ({in_brief(error)}); the file is damaged: make the run again."
                ) from None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)

    def __len__(self) -> int:
        return self.shape[0]


def read_text(holder: h5py.Group, key: str) -> str:
    value = holder.attrs[key]
    if not isinstance(value, str):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is not text; make the run again.")
    return value


def read_json(holder: h5py.Group, key: str, kind: type[T]) -> T:
    """A JSON attribute of the given kind: dict or list."""
    value = json.loads(read_text(holder, key))
    if not isinstance(value, kind):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is no JSON {kind.__name__}; make the run again.")
    return value


def read_words(holder: h5py.Group, key: str) -> tuple[str, ...]:
    words = read_json(holder, key, list)
    if not all(isinstance(word, str) for word in words):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is no list of words; make the run again.")
    return tuple(words)


def as_shape(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(size) is int and size >= 0 for size in value):
        raise RunError(f"'{where}' holds no shape; make the run again.")
    return tuple(value)


def part_of(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """What lies at a path in a group, None where nothing does; a link at any step is refused: it may leave the file."""
    part: h5py.Group | h5py.Dataset = group
    for step in path.split("/"):
        link = part.get(step, getlink=True) if isinstance(part, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise RunError(f"'{group.name}/{path}' is a link; a run holds its own data: make the run again.")
        part = part[step]
    return part


def group_of(group: h5py.Group, name: str) -> h5py.Group:
    part = part_of(group, name)
    if not isinstance(part, h5py.Group):
        raise RunError(f"the group '{group.name.rstrip('/')}/{name}' is missing; make the run again.")
    return part


def columns_of(group: h5py.Group, elements: tuple[schema.Element, ...], sizes: dict[str, int]) -> dict[str, Column]:
    """The known data sets of a group, each checked against its letters and its type. Links are refused, and so are data
    sets that hold more than gzip can have packed into the room they take: what a file only claims would be asked of
    memory."""
    columns: dict[str, Column] = {}
    for element in elements:
        where = f"{group.name}/{element.name}"
        dataset = part_of(group, element.name)
        if dataset is None:
            if element.optional:
                continue
            raise RunError(f"the data set '{where}' is missing; make the run again.")
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external or dataset.shape is None:
            raise RunError(f"'{where}' does not hold data of its own; make the run again.")
        if dataset.dtype.kind not in element.kinds:
            raise RunError(f"'{where}' holds {dataset.dtype}, but the schema says {element.kinds}; make the run again.")
        if dataset.nbytes > PLAIN_BYTES + _MOST_PACKED * dataset.id.get_storage_size():
            raise RunError(f"'{where}' claims more numbers than it holds; make the run again.")
        check_shape(where, tuple(dataset.shape), element.dims, sizes)
        columns[element.name] = StoredColumn(dataset)
    return columns
