"""What is handed in from outside, as arrays of numpy; whatever cannot be one is refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.errors import ExamplesError, in_brief

Array = npt.NDArray[Any]
LARGEST_FLOAT32: Final = float(np.finfo(np.float32).max)


def array_of(values: Any, what: str) -> Array:
    """Numbers or text as one array; raises ExamplesError for what is neither, `what` being its name."""
    try:
        # numpy has no bfloat16; every one of its numbers is a float32 too.
        values = values.float() if str(getattr(values, "dtype", "")) == "torch.bfloat16" else values
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ExamplesError(
            f"The {what} must form one array, but they do not ({in_brief(error)}); give equal shapes."
        ) from None
    if array.dtype.kind in "OT" and array.ndim == 1 and all(isinstance(value, str) for value in array.tolist()):
        return array.astype(np.str_)  # text as a table's column holds it
    if array.dtype == object:
        raise ExamplesError(f"The {what} must form one array of numbers or text, but objects came; give equal shapes.")
    return array


def stacked(parts: Sequence[Any], what: str) -> Array:
    """One array with a row for each of the parts; raises ExamplesError where their shapes differ."""
    arrays = [array_of(part, what) for part in parts]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ExamplesError(
            f"All {what} need one shape, but {len(shapes)} came ({', '.join(str(s) for s in sorted(shapes)[:3])}); "
            "resize or pad them first."
        )
    return np.stack(arrays)


def finite_rows(array: Array) -> npt.NDArray[np.bool_]:
    """(n,) whether all numbers of a row are finite."""
    finite: npt.NDArray[np.bool_] = np.isfinite(array).reshape(len(array), -1)
    return np.asarray(finite.all(axis=1))


def some_of(ids: Array, chosen: Array) -> str:
    """The first three of the chosen ids, in words."""
    shown = ", ".join(str(i) for i in ids[chosen][:3])
    return shown + (", ..." if np.count_nonzero(chosen) > 3 else "")


def as_float32(values: Any) -> npt.NDArray[np.float32]:
    """Values in the precision in which they are ranked. What is beyond it is infinite: counted there, and told of."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values).astype(np.float32)


def narrowed(values: Any) -> Array:
    """Values as float32, or as they are where that would turn a finite one into infinity."""
    array = np.asarray(values)
    narrow = as_float32(array)
    return narrow if np.array_equal(np.isfinite(narrow), np.isfinite(array)) else array
