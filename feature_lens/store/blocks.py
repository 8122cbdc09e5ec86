"""Large matrices in a file, written block by block as they are computed, so that they may be larger than memory."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.errors import OutputError
from feature_lens.store.columns import CHUNK_BYTES
from feature_lens.store.hdf5_files import WrittenFile, writing

_CHUNK = 256  # rows and columns: half a MiB of float64


class Target:
    """A data set that takes blocks, one at a time: whoever fills it need not know of HDF5 and its lock. Raises OSError
    where the disk has no room for one."""

    def __init__(self, dataset: h5py.Dataset, disk: WrittenFile) -> None:
        self._dataset = dataset
        self._disk = disk
        self.shape: tuple[int, ...] = tuple(dataset.shape)

    def __setitem__(self, at: Any, block: npt.NDArray[Any], /) -> None:
        with writing():
            self._dataset[at] = block
        self._disk.check()


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*[1] * (len(shape) - 2), *(max(1, min(length, _CHUNK)) for length in shape[-2:]))


def add_matrix(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, disk: WrittenFile) -> Target:
    """A new data set of matrices, to be filled; not compressed: numbers of a kernel hardly are smaller then."""
    with writing():
        return Target(group.create_dataset(name, shape, dtype, chunks=_chunks(shape)), disk)


def stored_size(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """At most so many bytes a data set of matrices takes: chunks at the edges are whole, and some room is for their index."""
    whole = [-(-length // chunk) * chunk for length, chunk in zip(shape, _chunks(shape), strict=True)]
    return int(1.01 * math.prod(whole) * np.dtype(dtype).itemsize) + CHUNK_BYTES


def check_room(folder: Path, size: int) -> None:
    """Raise OutputError where the disk has no room for a kernel of so many bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"The kernel takes {size / 1e6:,.1f} MB, but {free / 1e6:,.1f} MB are free; choose another disk or fewer examples."
        )
