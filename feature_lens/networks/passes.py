"""One forward or backward pass at a time, in one thread, through the same code whether or not gradients are wanted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

import torch

from feature_lens.errors import refuse_out_of_memory


class _Passes:
    """A lock that its own thread may take again. While it is held torch's fast paths for attention are off.

    A transformer layer takes them only where no gradients are wanted, and gives other numbers there (zeros at padded
    positions): outputs and neurons would be those of one function, features those of another. The switch is one for
    all threads, so passes that the holder starts in other threads run without them too. Memory that ran out is told as
    such, before anyone takes it for a fault of the network.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._before = True

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._before = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            torch.backends.mha.set_fastpath_enabled(self._before)
        self._lock.release()
        if error is not None:
            refuse_out_of_memory(error)


# A pass swaps parameters into a module, and what surrounds it sets hooks, warning filters, thread counts and fast paths,
# all of which are shared between threads: whoever runs a network's module, or a copy of it, holds this.
ONE_PASS: Final = _Passes()


@contextmanager
def one_pass() -> Iterator[None]:
    """A pass that no other disturbs, and whose rounding does not depend on how many cores there are."""
    with ONE_PASS:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
