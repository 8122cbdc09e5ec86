"""How processes end: this one by signals, in order where it can; those that compute beside it with it, however it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Literal, TypeVar

from feature_lens.errors import WorkerError

T = TypeVar("T")

UNFINISHED: Final[set[Path]] = set()
"""Files that this process is about to write, which are removed where it is ended before it could do so itself."""

STOPPED: Final = 130  # what shells call a command that Ctrl+C ended
# Of a worker: the end of the pipe that tells of its parent, and whether it is about a task.
_parents: Final[list[Connection]] = []
_at_work: Final = threading.Event()
# Seconds that a process has to clear away what it was about, before it is ended where it stands; a worker has fewer.
_PATIENCE: Final = 10.0
_WORKERS_PATIENCE: Final = 5.0


@contextmanager
def stopped_by_signals(say: Callable[[], None], patience: float = _PATIENCE) -> Iterator[None]:
    """Meanwhile SIGTERM and a terminal that is closed do what Ctrl+C does: raise KeyboardInterrupt in the main thread, to be
    told of by who catches it. Where that thread is in the midst of a long computation or waits for one, and has not ended
    the process `patience` seconds later, it is ended all the same, and `say` tells of it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are none of its business
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before, left = {}, threading.Event()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            before[number] = signal.signal(number, _interrupt)
    numbers = {signal.SIGINT, *before}
    threading.Thread(target=_end_late, args=(reader, numbers, patience, left, say), daemon=True).start()
    try:
        yield
    finally:
        left.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_wakeup)
        os.close(writer)


def _end_late(reader: int, numbers: set[int], patience: float, left: threading.Event, say: Callable[[], None]) -> None:
    """In a thread of its own, which is told of a signal at once."""
    came = os.read(reader, 1)
    while came and came[0] not in numbers:
        came = os.read(reader, 1)
    if not came:
        os.close(reader)
    else:  # it stays open, for signals that follow
        time.sleep(patience)
        for path in list(UNFINISHED):
            with suppress(OSError):  # it is told of later, as what a killed process left
                path.unlink()
        if not left.is_set():  # else it was told, and threads are waited for at the end
            say()
        os._exit(STOPPED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class WorkerProcesses(ProcessPoolExecutor):
    """A pool of processes, each with its own memory and its own state of torch, to be used as a context manager.

    When its block is left by an error or a signal, or this process is killed, the workers stop within seconds and remove
    what they had not finished. Raises WorkerError where a worker was ended from outside. lasting: whether a worker takes
    one task after another, or a new one begins with each.
    """

    def __init__(self, count: int, lasting: bool = False) -> None:
        context = get_context("spawn")
        # The other end is open in this process alone: it closes when this is left, or when the process is no more.
        self._parent, self._alive = context.Pipe(duplex=False)
        super().__init__(
            count,
            mp_context=context,
            initializer=_end_with,
            initargs=(self._parent,),
            max_tasks_per_child=None if lasting else 1,
        )

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As for every executor."""
        with _no_interrupts():
            return super().submit(_run, fn, *args, **kwargs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if error is not None:
            self._alive.close()
        self.shutdown(wait=True, cancel_futures=error is not None)
        self._alive.close()
        self._parent.close()
        if isinstance(error, BrokenProcessPool):
            raise WorkerError(
                "A process that computed beside this one was ended from outside, often for want of memory; what was "
                "finished is kept: run it again, with fewer workers."
            ) from error
        return False


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl+C, which a terminal sends to all processes, is kept from those that are started meanwhile and by threads that
    are: this process tells them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: Connection) -> None:
    """In a worker, before its tasks."""
    _parents.append(parent)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _run(task: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """In a worker, whose parent may have ended already: some tasks are handed out ahead."""
    if any(parent.poll() for parent in _parents):
        raise SystemExit(STOPPED)
    _at_work.set()
    try:
        return task(*args, **kwargs)
    finally:
        _at_work.clear()


def _leave(_number: int, _frame: FrameType | None) -> None:
    if _at_work.is_set():  # between tasks the pool's own code runs, which is ended in its own way
        raise SystemExit(STOPPED)


def _end_after(parent: Connection) -> None:
    try:
        parent.recv_bytes()
    except (EOFError, OSError):  # nothing is ever sent
        main = threading.main_thread().ident
        if hasattr(signal, "pthread_kill") and main is not None:
            signal.pthread_kill(main, signal.SIGTERM)
            time.sleep(_WORKERS_PATIENCE)
        os._exit(STOPPED)
