"""Whether the whole numbers of a data set lie between the bounds that the schema gives for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.errors import RunError
from feature_lens.examples import Column

_BLOCK: Final = 1 << 22  # numbers looked at together


def check_bounds(where: str, column: Column, bounds: str, sizes: Mapping[str, int]) -> None:
    """Raise RunError unless all numbers are as `bounds` says: "-1..n" from -1 to below n, "0..=n" to n itself, "0.." from 0
    on, "order" each number below k once, "any" whatever they are. Real numbers and text have no bounds."""
    if bounds == "any" or column.dtype.kind not in "iu":
        return
    if bounds == "order":
        _check_order(where, np.asarray(column))
        return
    least, _, letter = bounds.partition("..")
    included = letter.startswith("=")
    size = sizes[letter.removeprefix("=")] if letter else None
    first, last = int(least), None if size is None else size if included else size - 1
    for block in _blocks(column):
        lowest, highest = int(block.min()), int(block.max())
        if lowest < first or (last is not None and highest > last):
            to = f"from {first} to {last}" if last is not None else f"of at least {first}"
            wrong = lowest if lowest < first else highest
            raise RunError(f"'{where}' holds whole numbers {to}, but {wrong} came; make the run again.")


def _check_order(where: str, order: npt.NDArray[Any]) -> None:
    k = len(order)
    if not np.array_equal(np.sort(order), np.arange(k)):
        raise RunError(f"'{where}' does not hold each of the numbers 0 to {k - 1} once; make the run again.")


def _blocks(column: Column) -> Iterator[npt.NDArray[Any]]:
    rows = column.shape[0] if column.shape else 0
    step = max(1, _BLOCK // max(1, int(np.prod(column.shape[1:], dtype=np.int64))))
    for start in range(0, rows, step):
        block = np.asarray(column[start : start + step])
        if block.size:
            yield block
