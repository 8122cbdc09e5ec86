"""The packed chunks of a data set: each is unpacked to no more than the size that the data set gives for it.

HDF5 itself unpacks a chunk to whatever its bytes hold before it looks at the size, so that some thousand bytes could take
as much memory as they like.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from feature_lens.errors import RunError


class Chunks:
    """Checks the chunks that an index touches, each once, before HDF5 unpacks them."""

    def __init__(self, dataset: h5py.h5d.DatasetID, where: str) -> None:
        self._id, self._where = dataset, where
        made = dataset.get_create_plist()
        packed = made.get_layout() == h5py.h5d.CHUNKED and made.get_nfilters() > 0
        self._deflated = 1 << (made.get_nfilters() - 1) if packed else 0  # gzip comes last
        self._shape: tuple[int, ...] = dataset.shape
        self._chunk: tuple[int, ...] = made.get_chunk() if packed else ()
        self._bytes = math.prod(self._chunk) * dataset.dtype.itemsize
        self._checked: set[tuple[int, ...]] = set()

    def check(self, index: Any) -> None:
        """Raise RunError where a chunk that is touched holds more or less than the data set says."""
        if not self._chunk:
            return
        for offset in self._touched(index):
            if offset not in self._checked:
                self._check(offset)
                self._checked.add(offset)

    def _touched(self, index: Any) -> Iterator[tuple[int, ...]]:
        """Offsets of the chunks, more than are needed where an index is neither a number nor a slice."""
        given = index if isinstance(index, tuple) else (index,)
        plain = all(isinstance(one, int | np.integer | slice) for one in given)
        axes = []
        for axis, (size, step) in enumerate(zip(self._shape, self._chunk, strict=True)):
            one = given[axis] if plain and axis < len(given) else slice(None)
            if isinstance(one, slice):
                first, stop, _ = slice(one.start, one.stop).indices(size)
            else:
                first = int(one) + (size if one < 0 else 0)
                stop = first + 1
            axes.append(range(max(first, 0) // step * step, min(stop, size), step))
        return itertools.product(*axes)

    def _check(self, offset: tuple[int, ...]) -> None:
        if self._id.get_chunk_info_by_coord(offset).byte_offset is None:  # never written: HDF5 fills it
            return
        skipped, packed = self._id.read_direct_chunk(offset)
        if skipped & self._deflated:
            held, whole = len(packed), True
        else:
            unpacking = zlib.decompressobj()
            held, whole = len(unpacking.decompress(packed, self._bytes + 1)), unpacking.eof
        if held != self._bytes or not whole:
            raise RunError(f"'{self._where}' does not hold what its size says; make the run again.")
