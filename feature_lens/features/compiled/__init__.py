"""Inner loops that numpy has no words for, compiled at first use and kept beside the modules."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core.caching import FunctionCache

Keys = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., object])


# What files of compiled functions that were cut or changed make numba and pickle raise, beside what disks do.
_DAMAGE: Final = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ImportError, MemoryError),
    pickle.UnpicklingError,
)


class _Kept:
    """Compiled functions beside the modules, which are only a help: where they cannot be read or written, the function is
    compiled again."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._cache = FunctionCache(function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *of: object) -> object:
        try:
            return self._cache.load_overload(*of)
        except _DAMAGE:
            with suppress(OSError):  # the next process finds an empty list
                self._cache.flush()
            return None

    def save_overload(self, *made: object) -> None:
        with suppress(OSError):
            self._cache.save_overload(*made)


def compiled(function: Function) -> Function:
    """Compile a function that releases the interpreter while it runs.

    Without fastmath: sums keep their order and NaN stays NaN, on every processor. Where no folder can be written to,
    nothing is kept and the function is compiled again in every process.
    """
    made = numba.njit(nogil=True)(function)
    with suppress(RuntimeError):
        made._cache = _Kept(function)
    return cast(Function, made)
