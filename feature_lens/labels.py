"""Targets as they are handed in, read as class labels or as real values, as pandas and scikit-learn would read them.

Class labels are whole numbers, truth values, words, categories, and rows with a single 1; real values are all other
numbers. What was inferred is said in sentences that the run keeps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from feature_lens.arrays import Array, array_of, finite_rows, some_of
from feature_lens.errors import ExamplesError

_SIGNS = (-1, 1)  # two classes as a support vector machine has them


@dataclass(frozen=True)
class Targets:
    """`values` (n,) whole numbers: class labels from 0; (n,) or (n, c) others: real values. `class_names`: those given, or
    those that the labels themselves are; `inferred`: sentences on how what was given is read."""

    values: Array
    class_names: tuple[str, ...]
    inferred: tuple[str, ...] = ()


def read_targets(targets: Any, ids: Array, class_names: Sequence[str] = ()) -> Targets:
    """Read the targets of n examples with these ids; raises ExamplesError, in one sentence, for what cannot be targets."""
    return _Reader(ids, tuple(class_names)).read(targets)


class _Reader:
    def __init__(self, ids: Array, class_names: tuple[str, ...]) -> None:
        self._ids, self._n, self._names = ids, len(ids), class_names

    def read(self, targets: Any) -> Targets:
        if isinstance(targets, np.ma.MaskedArray) and targets.ndim:
            self._refuse_missing(np.asarray(np.ma.getmaskarray(targets).reshape(len(targets), -1).any(axis=1)))
        pandas = sys.modules.get("pandas")  # whoever hands in what is of pandas has imported it
        columns: tuple[str, ...] = ()
        if pandas is not None and isinstance(targets, pandas.DataFrame):
            columns = tuple(str(name) for name in targets.columns)
            if targets.shape[1] == 1:
                targets = targets.iloc[:, 0]
            else:
                self._refuse_missing(np.asarray(targets.isna().any(axis=1)))
                targets = np.column_stack([self._of_series(targets[name]) for name in targets.columns])
        if pandas is not None and isinstance(
            targets, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray
        ):
            if isinstance(targets.dtype, pandas.CategoricalDtype):
                return self._categories(pandas.Series(targets).cat)
            targets = self._of_series(pandas.Series(targets))
        array = self._plain(targets)
        if array.shape[:1] == (self._n,) and array.ndim > 1 and array[0].size == 1:
            array = array.reshape(self._n)
        if array.ndim == 1 and array.dtype.kind in "US" and len(array) == self._n:
            return self._words(array)
        if array.shape[:1] != (self._n,) or array.size == 0 or array.dtype.kind not in "iufb":
            raise ExamplesError(
                f"Targets are numbers of shape ({self._n},) or ({self._n}, c), or a word for each example, but "
                f"{array.dtype} of shape {array.shape} came; give one label, or one row of values, per example."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = ~finite_rows(array)
            raise ExamplesError(
                f"Targets must be finite, but {np.count_nonzero(bad)} of {self._n} are not "
                f"(ids {some_of(self._ids, bad)}); fill or drop them."
            )
        return self._labels_or_values(array) if array.ndim == 1 else self._rows(array, columns)

    def _of_series(self, series: Any) -> Array:
        """A column of a table in numpy's types; nothing may be missing in it."""
        import pandas  # loaded already, by whoever made the column

        types = pandas.api.types
        if not types.is_float_dtype(series.dtype) or not isinstance(series.dtype, np.dtype):
            self._refuse_missing(np.asarray(series.isna()))
        if isinstance(series.dtype, np.dtype):
            return np.asarray(series)
        for known, numpy_type in (
            (types.is_bool_dtype, np.bool_),
            (types.is_unsigned_integer_dtype, np.uint64),
            (types.is_integer_dtype, np.int64),
            (types.is_float_dtype, np.float64),
        ):
            if known(series.dtype):
                return np.asarray(series.to_numpy(dtype=numpy_type))
        return np.asarray(series.to_numpy(dtype=object))

    def _refuse_missing(self, missing: Array) -> None:
        if missing.any():
            which = f" (ids {some_of(self._ids, missing)})" if missing.shape == (self._n,) else ""
            raise ExamplesError(
                f"Every example needs a target, but {np.count_nonzero(missing)} of {len(missing)} are missing{which}; "
                "fill or drop them."
            )

    def _plain(self, targets: Any) -> Array:
        """Numbers or words; a list or an array of objects has one type throughout, and nothing missing."""
        if isinstance(targets, list | tuple) and any(isinstance(one, str | bytes) for one in targets):
            made = np.empty(len(targets), dtype=object)  # numpy would turn what is no word into words, NaN too
            made[:] = targets
            targets = made
        if not (isinstance(targets, np.ndarray) and targets.dtype == object):
            made = array_of(targets, "targets", objects=True)
            if made.dtype != object or made.ndim == 0:
                return array_of(targets, "targets")
            targets = made
        flat = targets.ravel().tolist()
        if len(flat) == len(targets):
            self._refuse_missing(np.array([_is_missing(one) for one in flat], dtype=bool))
        if flat and all(isinstance(one, Integral) for one in flat) and not -(2**63) <= min(flat) <= max(flat) < 2**63:
            raise ExamplesError(f"Class labels must be below 2^63, but {max(flat, key=abs)} came; relabel the data.")
        for kind, numpy_type in (
            ((bool, np.bool_), np.bool_),
            (Integral, np.int64),
            (Real | Decimal, np.float64),
            (str, np.str_),
            (bytes, np.bytes_),
        ):
            if flat and all(isinstance(one, kind) for one in flat):
                return np.array(flat, dtype=numpy_type).reshape(targets.shape)
        if kinds := sorted({type(one).__name__ for one in flat} - {"list", "tuple", "ndarray"}):
            raise ExamplesError(
                f"Targets must be of one type, numbers or words, but objects of {' and '.join(kinds[:3])} came; "
                "convert them first."
            )
        return array_of(targets, "targets")

    def _categories(self, categorical: Any) -> Targets:
        codes = np.asarray(categorical.codes, dtype=np.int64)
        if codes.shape != (self._n,):
            raise ExamplesError(f"There must be one target for each of {self._n} examples, but {len(codes)} came.")
        self._refuse_missing(codes < 0)
        return self._named(codes, tuple(str(one) for one in categorical.categories), "categories")

    def _words(self, array: Array) -> Targets:
        words = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        names, codes = np.unique(words, return_inverse=True)
        return self._named(codes.astype(np.int64), tuple(str(name) for name in names), "words")

    def _named(self, codes: Array, found: tuple[str, ...], what: str) -> Targets:
        """Labels by name: by the place among the class names given, else by that among those found."""
        if not self._names:
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            order = "their own order" if what == "categories" else "alphabetical order"
            return Targets(codes, found, (f"Targets are {what}, taken as {len(found)} classes in {order}: {shown}.",))
        places = {name: place for place, name in enumerate(self._names)}
        unknown = np.array([name not in places for name in found])[codes]
        if unknown.any():
            first = int(unknown.argmax())
            raise ExamplesError(
                f"Targets in {what} must be among the class names, but {np.count_nonzero(unknown)} are not "
                f"(such as '{found[codes[first]]}' at id {self._ids[first]}); name every class."
            )
        return Targets(np.array([places.get(name, -1) for name in found], dtype=np.int64)[codes], self._names)

    def _labels_or_values(self, array: Array) -> Targets:
        if array.dtype.kind == "b":
            return Targets(array.astype(np.int64), self._names or ("False", "True"))
        distinct = np.unique(array)
        whole = array.dtype.kind in "iu"
        if not whole and not self._is_labels(distinct):
            return Targets(array, self._names)
        said = () if whole else (f"Targets are the real numbers {_few(distinct)}, taken as class labels.",)
        if array.dtype.kind == "u" and int(distinct[-1]) > np.iinfo(np.int64).max:
            raise ExamplesError(f"Class labels must be below 2^63, but {distinct[-1]} came; relabel the data.")
        array = array.astype(np.int64)
        if tuple(distinct) == _SIGNS and len(self._names) in (0, 2):
            told = ("Targets are -1 and 1, taken as two classes.",)
            return Targets((array > 0).astype(np.int64), self._names or ("-1", "1"), told)
        outside = (array < 0) | ((array >= len(self._names)) if self._names else False)
        if outside.any():
            limit = f"0 to {len(self._names) - 1}" if self._names else "0 or more"
            raise ExamplesError(
                f"Class labels must be {limit}, but {np.count_nonzero(outside)} are not "
                f"(such as {array[outside][0]} at id {self._ids[outside][0]}); relabel the data."
            )
        return Targets(array, self._names, said)

    def _is_labels(self, distinct: Array) -> bool:
        """Whether real numbers are labels: both 0 and 1 and nothing else, or numbers of the classes that have names."""
        if tuple(distinct) == (0, 1):
            return True
        named = len(self._names) > 1 and len(distinct) > 1
        return named and bool(((distinct % 1 == 0) & (distinct >= 0) & (distinct < len(self._names))).all())

    def _rows(self, array: Array, columns: tuple[str, ...]) -> Targets:
        said: tuple[str, ...] = ()
        if array.ndim > 2:
            shape = " x ".join(map(str, array.shape[1:]))
            said = (f"Targets of shape {shape} are flattened, the last axis fastest.",)
            array = array.reshape(self._n, -1)
        c = array.shape[1]
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            return Targets(array.astype(np.float64) if array.dtype.kind == "b" else array, self._names, said)
        if self._names and len(self._names) != c:
            raise ExamplesError(
                f"One-hot targets of {c} columns need a name for each class, but {len(self._names)} class names came; "
                "give as many, or none."
            )
        names = self._names or columns or tuple(str(place) for place in range(c))
        told = f"Targets are one-hot rows, taken as labels of {c} classes."
        return Targets(array.argmax(axis=1).astype(np.int64), names, (*said, told))


def _is_missing(one: Any) -> bool:
    return one is None or (not isinstance(one, str | bytes) and str(one) in ("nan", "<NA>", "NaT", "NaN"))


def _few(values: Array) -> str:
    return ", ".join(f"{value:g}" for value in values[:3]) + (", ..." if len(values) > 3 else "")
