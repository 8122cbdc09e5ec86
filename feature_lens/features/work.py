"""A queue of small pieces of work over a few threads, one thread of linear algebra each.

Threads of BLAS split every product evenly and wait for the slowest: another process on one core slows all of them.
Workers that take the next piece when they are done lose only that core's share.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(tasks: Iterable[Callable[[], None]], workers: int | None = None) -> None:
    """Run every task, each once, by `workers` threads (one per core without); raises what the first failed one raised.

    Tasks must release the interpreter while they compute, and their result must not depend on their order.
    """
    tasks = list(tasks)
    count = min(workers or cores(), len(tasks))
    if count <= 1:
        for task in tasks:
            task()
        return
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def together(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What the tasks make, in their order, each in a thread of its own; raises what the first of them raised."""
    if len(tasks) == 1:
        return [tasks[0]()]
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


class Scratch:
    """Memory that each thread uses again and again: to touch fresh memory costs as much as to compute with it."""

    def __init__(self) -> None:
        self._own = threading.local()

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An uninitialised contiguous array, valid until the same thread asks for the same name again."""
        size = int(np.prod(shape, dtype=np.int64))
        held: npt.NDArray[Any] | None = getattr(self._own, name, None)
        if held is None or held.size < size or held.dtype != dtype:
            held = np.empty(size, dtype=dtype)
            setattr(self._own, name, held)
        made: npt.NDArray[Any] = held[:size].reshape(shape)
        return made
