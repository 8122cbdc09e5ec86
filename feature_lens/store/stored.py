"""Groups and data sets of an open run file, each checked before it is used; what is indexed is read under one lock."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.arrays import MOST_TEXT
from feature_lens.errors import RunError, in_brief
from feature_lens.examples import Column
from feature_lens.store import schema
from feature_lens.store.bounds import check_bounds
from feature_lens.store.chunks import Chunks
from feature_lens.store.columns import CHUNK_BYTES, PLAIN_BYTES, Letters, check_shape
from feature_lens.store.lock import HDF5_LOCK

T = TypeVar("T")
# Deflate makes nothing smaller than this, with some room.
_MOST_PACKED: Final = 1100
# Bytes that one number of each kind takes.
_WIDTHS: Final = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,), "S": range(1, MOST_TEXT + 1)}
_FILTERS: Final[tuple[list[int], ...]] = (
    [],
    [h5py.h5z.FILTER_DEFLATE],
    [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE],
)


class StoredColumn:
    """A data set of an open run file that reads what is indexed; text comes back as str, numbers as this machine has them."""

    def __init__(self, dataset: h5py.h5d.DatasetID, where: str) -> None:
        kept: np.dtype[Any] = dataset.dtype
        self._id, self._where = dataset, where
        self._dataset: h5py.Dataset | None = None
        self._chunks: Chunks | None = None
        self.shape: tuple[int, ...] = tuple(dataset.shape)
        self._text, self._foreign = kept.kind == "S", not kept.isnative
        self.dtype: np.dtype[Any] = np.dtype("U") if self._text else kept.newbyteorder("=")

    def __getitem__(self, index: Any, /) -> Any:
        with HDF5_LOCK:
            if not self._id.valid:
                raise RunError("The run file is closed, so nothing can be read from it; open it again.")
            try:
                self._chunks = self._chunks or Chunks(self._id, self._where)
                self._chunks.check(index)
                self._dataset = self._dataset or h5py.Dataset(self._id)
                found = self._dataset[index]
                if self._text:
                    return found.decode("utf-8") if isinstance(found, bytes) else np.char.decode(found, "utf-8")
                return found.astype(self.dtype) if self._foreign else found
            except (OSError, RuntimeError, UnicodeDecodeError, MemoryError) as error:
                raise RunError(
                    f"'{self._where}' cannot be read ({in_brief(error)}); the file is damaged: make the run again."
                ) from None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)

    def __len__(self) -> int:
        return self.shape[0]


def _attribute(holder: h5py.Group, key: str) -> Any:
    if key not in holder.attrs:
        raise RunError(f"the attribute '{key}' of '{holder.name}' is missing; make the run again.")
    return holder.attrs[key]


def read_text(holder: h5py.Group, key: str) -> str:
    value = _attribute(holder, key)
    if not isinstance(value, str):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is not text; make the run again.")
    return value


def read_count(holder: h5py.Group, key: str) -> int:
    """An attribute that is one whole number."""
    value = _attribute(holder, key)
    if not isinstance(value, np.integer):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is no whole number; make the run again.")
    return int(value)


def read_json(holder: h5py.Group, key: str, kind: type[T]) -> T:
    """A JSON attribute of the given kind: dict or list."""
    value = parsed(read_text(holder, key), f"the attribute '{key}' of '{holder.name}'")
    if not isinstance(value, kind):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is no JSON {kind.__name__}; make the run again.")
    return value


def parsed(text: str, where: str) -> Any:
    """The value of a JSON text; raises RunError where it is none, or holds numbers that JSON has not."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RunError(f"{where} is no JSON; make the run again.") from None


def _no_number(name: str) -> Any:
    raise ValueError(name)


def read_words(holder: h5py.Group, key: str) -> tuple[str, ...]:
    words = read_json(holder, key, list)
    if not all(isinstance(word, str) for word in words):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is no list of words; make the run again.")
    return tuple(words)


def as_shape(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(size) is int and size >= 0 for size in value):
        raise RunError(f"'{where}' holds no shape; make the run again.")
    return tuple(value)


def check_different(group: h5py.Group, name: str, column: Column) -> None:
    """Raise RunError where a name or id stands twice. A part is looked at first, so that a file that claims many ids and
    holds few is refused at once."""
    for rows in (slice(0, 1 << 16), slice(None)):
        if len(np.unique(found := np.asarray(column[rows]))) < len(found):
            raise RunError(f"'{group.name}/{name}' does not hold different names; make the run again.")


def _id_of(group: h5py.Group, path: str) -> Any:
    """What HDF5 calls that which lies at a path in a group, None where nothing does; links are refused at any step. HDF5
    is asked itself: h5py's own way to a part takes ten times as long, which a run of many sets feels."""
    part = group.id
    for step in path.encode().split(b"/"):
        if not isinstance(part, h5py.h5g.GroupID) or not part.links.exists(step):
            return None
        if part.links.get_info(step).type != h5py.h5l.TYPE_HARD:
            raise RunError(f"'{group.name}/{path}' is a link; a run holds its own data: make the run again.")
        part = h5py.h5o.open(part, step)
    return part


def part_of(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """What lies at a path in a group, None where nothing does; a link at any step is refused: it may leave the file."""
    found = _id_of(group, path)
    if isinstance(found, h5py.h5g.GroupID):
        return h5py.Group(found)
    return h5py.Dataset(found) if isinstance(found, h5py.h5d.DatasetID) else None


def group_of(group: h5py.Group, name: str) -> h5py.Group:
    part = part_of(group, name)
    if not isinstance(part, h5py.Group):
        raise RunError(f"the group '{group.name.rstrip('/')}/{name}' is missing; make the run again.")
    return part


def columns_of(group: h5py.Group, elements: tuple[schema.Element, ...], sizes: Letters) -> dict[str, Column]:
    """The known data sets of a group, each checked against its letters, its type and the bounds of its numbers. Links are
    refused, and so are data sets that hold more than gzip can have packed into the room they take, or that together take
    more room than the file has: what a file only claims would be asked of memory."""
    columns: dict[str, Column] = {}
    folder = str(group.name)
    for element in elements:
        where = f"{folder}/{element.name}"
        dataset = _id_of(group, element.name)
        if dataset is None:
            if element.optional:
                continue
            raise RunError(f"the data set '{where}' is missing; make the run again.")
        _check_data(dataset, where, element, sizes)
        columns[element.name] = StoredColumn(dataset, where)
    for element in elements:
        if element.bounds and element.name in columns:
            check_bounds(f"{folder}/{element.name}", columns[element.name], element.bounds, sizes)
    return columns


def _check_data(dataset: Any, where: str, element: schema.Element, sizes: Letters) -> None:
    own = isinstance(dataset, h5py.h5d.DatasetID) and dataset.shape is not None
    made = dataset.get_create_plist() if own else None
    if made is None or made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
        raise RunError(f"'{where}' does not hold data of its own; make the run again.")
    shape, kind = tuple(dataset.shape), dataset.dtype
    if kind.kind not in element.kinds or kind.itemsize not in _WIDTHS[kind.kind]:
        raise RunError(f"'{where}' holds {kind}, but the schema says {element.kinds}; make the run again.")
    held, claimed = dataset.get_storage_size(), kind.itemsize
    for size in shape:
        claimed *= size
    sizes.take(where, held)
    if claimed > PLAIN_BYTES + _MOST_PACKED * held:
        raise RunError(f"'{where}' claims more numbers than it holds; make the run again.")
    if kind.kind == "S":
        sizes.take_text(where, claimed)
    check_shape(where, shape, element.dims, sizes)
    if made.get_layout() == h5py.h5d.CHUNKED:
        filters = [made.get_filter(place)[0] for place in range(made.get_nfilters())]
        chunk = kind.itemsize
        for size in made.get_chunk():
            chunk *= size
        if filters not in _FILTERS or chunk > max(CHUNK_BYTES, kind.itemsize):
            raise RunError(
                f"'{where}' is not packed as a run packs its data, by gzip in chunks of at most 1 MiB; make the run again."
            )
