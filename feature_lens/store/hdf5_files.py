"""Files on the disk as HDF5 sees them: what a disk refuses, and what others do to an open file, never reaches HDF5.

HDF5 brings the process down where a write fails, takes what was cut off for zeros, and on some changed bytes ends in a
segmentation fault. So it reads and writes through objects of these classes: one keeps what the disk refused and raises it
to Python, the other gives bytes away only while the file is what it was when it was opened.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import h5py

from feature_lens.errors import RunError
from feature_lens.store.lock import HDF5_LOCK

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# What a system says that cannot reserve room on a disk, though there may be some.
_NO_RESERVING: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class _DiskFile(io.RawIOBase):
    """An open file with a place in it, as h5py wants it: `seek`, `tell`, `readinto`, `write`, `truncate`."""

    def __init__(self, path: Path, flags: int, mode: str) -> None:
        super().__init__()
        # A pipe would be waited for.
        flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        self._raw = io.FileIO(os.open(path, flags), mode)
        self._at = 0

    def fileno(self) -> int:
        return self._raw.fileno()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = self._size() + offset if whence == os.SEEK_END else offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        super().close()
        self._raw.close()

    def _size(self) -> int:
        return os.fstat(self.fileno()).st_size


class ReadFile(_DiskFile):
    """A run file that is read as long as it is what it was when it was opened; raises RunError from then on, and OSError at
    once where it is no ordinary file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDONLY, "rb")
        self._path = path
        self._opened = self._state()
        if not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            self.close()
            raise OSError("it is not an ordinary file")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._raw.seek(self._at)
        found = self._raw.readinto(buffer) or 0
        self.check()  # afterwards: what was read is then of the file that was opened
        self._at += found
        return found

    def check(self) -> None:
        """Raise RunError where the file was changed since it was opened; HDF5 hands it on."""
        if self._state() != self._opened:
            raise RunError(f"'{self._path}' was changed by another program while it was open; open it again.")

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self.fileno())
        return status.st_mtime_ns, status.st_size


class WrittenFile(_DiskFile):
    """A file that HDF5 writes without ever seeing an error: the first is kept, what follows goes nowhere.

    Whoever writes calls `check` after every step, and does not keep the file where it raises.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDWR, "r+b")
        self._refused: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def check(self) -> None:
        """Raise the OSError that the disk gave, if it gave one."""
        if self._refused is not None:
            raise self._refused

    def reserve(self, size: int) -> None:
        """Take so many bytes more of the disk, where the system can: whether there is room is known before the work is
        done. What is not used goes back when HDF5 closes the file. Raises OSError where there is none."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self.fileno(), self._size(), size)
            except OSError as error:
                if error.errno not in _NO_RESERVING:
                    raise

    def write(self, data: ReadableBuffer, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            self._raw.seek(self._at)
            while left and self._refused is None:
                left = left[self._raw.write(left) :]
        except OSError as error:
            self._refused = error
        self._at += size
        return size

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer).cast("B")
        found = 0
        try:
            self._raw.seek(self._at)
            found = self._raw.readinto(into) or 0
        except OSError as error:
            self._refused = self._refused or error
        into[found:] = bytes(len(into) - found)  # what went nowhere
        self._at += len(into)
        return len(into)

    def truncate(self, size: int | None = None, /) -> int:
        wanted = self._at if size is None else size
        try:
            if self._refused is None:
                self._raw.truncate(wanted)
        except OSError as error:
            self._refused = error
        return wanted


@contextmanager
def writing() -> Iterator[None]:
    """While HDF5 writes: the lock, and signals wait. Their handlers raise, which HDF5 would take for a disk that failed."""
    with HDF5_LOCK:
        if threading.current_thread() is not threading.main_thread():
            yield  # handlers run in the main thread alone
            return
        came: list[int] = []

        def remember(number: int, _frame: FrameType | None) -> None:
            came.append(number)

        before: dict[signal.Signals, Any] = {}
        try:
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and callable(signal.getsignal(number)):
                    before[number] = signal.signal(number, remember)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for late in came:
                signal.raise_signal(late)


@contextmanager
def written_hdf5(path: Path, mode: str) -> Iterator[tuple[h5py.File, WrittenFile]]:
    """An HDF5 file on the disk to be written, in an existing file: made anew ("w") or added to ("r+"); flushed to the disk
    afterwards. Raises OSError where the disk refused something."""
    with WrittenFile(path) as disk:
        with writing():
            file = h5py.File(disk, mode)
        try:
            yield file, disk
        finally:
            with writing():
                file.close()
        disk.check()
        os.fsync(disk.fileno())
