"""Kernels in an HDF5 file of their own, filled block by block, so that they may be larger than memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.arrays import Array
from feature_lens.store.blocks import Target, add_matrix, check_room, stored_size
from feature_lens.store.hdf5_files import writing, written_hdf5
from feature_lens.store.placing import put_in_place
from feature_lens.store.writer import check_writable


@contextmanager
def kernel_file(
    path: Path | str,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: npt.DTypeLike,
    ids: Array,
    settings: Mapping[str, object],
    overwrite: bool = False,
    *,
    column_ids: Array | None = None,
) -> Iterator[dict[str, Target]]:
    """Data sets to fill block by block, by name; when all is written they are at `path`, and after any failure nothing is.

    The kernel of the whole ("") is called "kernel", those of parts "of/<name>"; "id" holds the ids of the examples
    of its rows, "column_id" those of its columns where they are others, and the attribute `settings` (JSON) says what the kernel is of. Rows are numbered example * outputs + output.
    Raises OutputError where the file cannot be made, or the disk has no room for it.
    """
    target = check_writable(path, overwrite)
    size = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values()) * np.dtype(dtype).itemsize
    check_room(target.parent, size)
    with put_in_place(target, overwrite) as temporary, written_hdf5(temporary, "w") as (file, disk):
        disk.reserve(sum(stored_size(shape, dtype) for shape in shapes.values()))
        with writing():
            file.attrs["format"] = "feature_lens kernel"
            file.attrs["settings"] = json.dumps(dict(settings))
            for name, own in (("id", ids), ("column_id", column_ids)):
                if own is not None:
                    file[name] = own if own.dtype.kind != "U" else own.astype(h5py.string_dtype())
        yield {
            name: add_matrix(file, f"of/{name}" if name else "kernel", shape, dtype, disk)
            for name, shape in shapes.items()
        }
