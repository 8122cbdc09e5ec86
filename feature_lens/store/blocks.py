"""Large matrices in a file, written block by block as they are computed, so that they may be larger than memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy.typing as npt

from feature_lens.errors import OutputError
from feature_lens.store.lock import HDF5_LOCK

_CHUNK = 256  # rows and columns: half a MiB of float64


class Target:
    """A data set that takes blocks, one at a time: whoever fills it need not know of HDF5 and its lock."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape)

    def __setitem__(self, at: Any, block: npt.NDArray[Any], /) -> None:
        with HDF5_LOCK:
            self._dataset[at] = block


def add_matrix(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Target:
    """A new data set of matrices, to be filled; not compressed: numbers of a kernel hardly are smaller then."""
    chunks = (*[1] * (len(shape) - 2), *(max(1, min(length, _CHUNK)) for length in shape[-2:]))
    with HDF5_LOCK:
        return Target(group.create_dataset(name, shape, dtype, chunks=chunks))


def check_room(folder: Path, size: int) -> None:
    """Raise OutputError where the disk has no room for a kernel of so many bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"The kernel takes {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; choose another disk or fewer examples."
        )


def reserve(path: Path, size: int) -> None:
    """Take so many bytes more of the disk for a file, where the system can: HDF5 brings the process down where there
    is no room left. What is not used goes back when HDF5 closes the file. Raises OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), path.stat().st_size, size)
