"""One forward or backward pass at a time, in one thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

# A pass swaps parameters into a module, and what surrounds it sets hooks, warning filters and thread counts, all of
# which are shared between threads: whoever runs a network's module holds this.
ONE_PASS: Final = threading.RLock()


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
