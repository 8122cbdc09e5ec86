"""What is handed in from outside, as arrays of numpy; whatever cannot be one is refused in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.errors import ExamplesError, in_brief

Array = npt.NDArray[Any]
MOST_TEXT: Final = 1 << 16  # bytes of one text in a file; all texts of a data set take as much room as the longest
MOST_TEXTS: Final = 64 << 20  # bytes of all texts of a data set, so counted, where some are long
LARGEST_FLOAT32: Final = float(np.finfo(np.float32).max)


def array_of(values: Any, what: str, *, objects: bool = False) -> Array:
    """Numbers or text as one array in this machine's byte order; raises ExamplesError for what is neither, or has gaps,
    `what` being its name. Tensors are taken from wherever they are; nothing is filled in, and nothing made dense.
    objects: whether arrays of objects are handed on as they are."""
    array = _unpacked(values, what)
    if objects and array.dtype == object:
        return array
    if array.dtype.kind in "OT" and array.ndim == 1 and all(isinstance(value, str) for value in array.tolist()):
        return array.astype(np.str_)  # text as a table's column holds it
    if array.dtype == object:
        return _of_objects(array, values, what)
    return _native(array)


def _native(array: Array) -> Array:
    """The same numbers in this machine's byte order: files of other machines (FITS, IDX) keep another."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def is_sparse(values: Any) -> bool:
    """Whether a matrix keeps its entries other than zero alone, as scipy's and torch's do."""
    return hasattr(values, "tocoo") or (_is_tensor(values) and "sparse" in str(values.layout))


def refuse_masked(values: Any, what: str) -> None:
    """Raise ExamplesError where entries are masked: numpy would hand on what lies under the mask."""
    if isinstance(values, np.ma.MaskedArray) and (bad := np.count_nonzero(np.ma.getmaskarray(values))):
        raise ExamplesError(
            f"The {what} must be known in full, but {bad} of {values.size} entries are masked; fill them or drop their "
            "examples."
        )


def _unpacked(values: Any, what: str) -> Array:
    """What is handed in as numpy sees it."""
    refuse_masked(values, what)
    if is_sparse(values):
        raise ExamplesError(
            f"The {what} must form one array, but a sparse {_kind(values)} came; give .toarray() or .to_dense() of it."
        )
    pandas = sys.modules.get("pandas")  # whoever hands in what is of pandas has imported it
    if pandas is not None and isinstance(values, pandas.DataFrame):
        columns = [array_of(values.iloc[:, place], what) for place in range(values.shape[1])]
        return np.column_stack(columns) if columns else np.empty(values.shape)
    if pandas is not None and isinstance(values, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
        return _of_column(values, what)
    if isinstance(values, list | tuple) and any(_has_own_ways(value) for value in values):
        return stacked(values, what)
    try:
        return np.asarray(_of_tensor(values, what))
    except ExamplesError:
        raise
    except Exception as error:  # an object may say in any way that it is no array; told in one sentence
        raise ExamplesError(
            f"The {what} must form one array, but {_kind(values)} came, which forms none ({in_brief(error)}); give numbers "
            "or text of equal shapes."
        ) from error


def _has_own_ways(value: Any) -> bool:
    return isinstance(value, np.ma.MaskedArray) or _is_tensor(value) or is_sparse(value)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # reading a run never loads it; whoever hands in a tensor has
    return torch is not None and isinstance(value, torch.Tensor)


def _of_tensor(values: Any, what: str) -> Any:
    """The numbers of a tensor where numpy can take them: those of types that it lacks as float32, which holds them."""
    if not _is_tensor(values):
        return values
    if values.is_meta or values.is_nested or hasattr(values, "get_mask"):
        why = "holds no data" if values.is_meta else "is nested" if values.is_nested else "has a mask"
        raise ExamplesError(
            f"The {what} must form one array, but a tensor that {why} came; give an ordinary tensor of all numbers."
        )
    values = values.detach()
    values = values.dequantize() if values.is_quantized else values
    if values.is_floating_point() and str(values.dtype).removeprefix("torch.") not in ("float16", "float32", "float64"):
        values = values.float()
    return values.cpu().resolve_conj().resolve_neg()


def _of_column(values: Any, what: str) -> Array:
    """A column of a table in numpy's types; a type that marks what is missing must have nothing to mark."""
    if isinstance(values.dtype, np.dtype):
        return np.asarray(values)
    if missing := int(np.count_nonzero(values.isna())):
        raise ExamplesError(
            f"The {what} must be known in full, but {missing} of {len(values)} entries of a column are missing; fill them "
            "or drop their examples."
        )
    return np.asarray(values.to_numpy(dtype=getattr(values.dtype, "numpy_dtype", None)))


def _of_objects(array: Array, values: Any, what: str) -> Array:
    """Numbers that are kept as objects, in the type that holds all of them."""
    flat = array.ravel().tolist()
    if array.ndim == 1 and flat and all(isinstance(one, np.ndarray) or _is_tensor(one) for one in flat):
        return stacked(flat, what)  # a column of rows
    for kind, numpy_type in ((bool | np.bool_, np.bool_), (Integral, np.int64), (Real | Decimal, np.float64)):
        if flat and all(isinstance(one, kind) for one in flat):
            try:
                return array.astype(numpy_type)
            except OverflowError:
                raise ExamplesError(
                    f"The {what} are numbers of at most 64 bits, but {max(flat, key=abs):.4g} came; convert them first."
                ) from None
    kinds = sorted({_kind(one) for one in flat}) if array.ndim else [_kind(values)]
    raise ExamplesError(
        f"The {what} must form one array of numbers or text, but objects of {' and '.join(kinds[:3]) or 'no type'} came; "
        "convert them first."
    )


def _kind(value: Any) -> str:
    return type(value).__name__


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


def require_storable(text: str, what: str) -> None:
    """Refuse a text that no file can hold as it is: half a character, or one that ends texts."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ExamplesError(
            f"A file cannot hold the text {text!a} {what} (NUL characters, or halves of characters); write it otherwise."
        )


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
