"""Finished files are put under their names: all of a file or nothing, and never over one that is there unless asked to.

What is not finished is called `.<16 hexadecimal digits>.part`, beside where it goes, and locked by the process that writes
it. A process that is killed leaves it behind without its lock: who writes into that folder next is told.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from feature_lens.errors import OutputError, in_brief
from feature_lens.processes import UNFINISHED

if sys.platform != "win32":
    import fcntl

_TOLD: Final[set[Path]] = set()  # folders whose leftovers this process has told of
_PART: Final = re.compile(r"\.[0-9a-f]{16}\.part")


@contextmanager
def put_in_place(target: Path, overwrite: bool) -> Iterator[Path]:
    """An empty file beside the target: what is written there is at the target afterwards, or nothing is left of it.

    Raises OutputError where the disk refuses, or where another file came to the target meanwhile.
    """
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    UNFINISHED.add(temporary)
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        try:
            _lock(descriptor)
            yield temporary
            os.fsync(descriptor)
            _place(temporary, target, overwrite)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)
    except OSError as error:
        raise OutputError(f"'{target}' could not be written ({reason(error)}); nothing was changed.") from error
    finally:
        UNFINISHED.discard(temporary)


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":
        with suppress(OSError):  # some network file systems have no locks: then nobody can be told
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def reason(error: Exception) -> str:
    """What the system says of an error, without its number and its file."""
    return getattr(error, "strerror", None) or in_brief(error)


def tell_of_leftovers(folder: Path) -> None:
    """Warn, once, of unfinished files in a folder whose process was killed, which nobody uses any more."""
    left = _leftovers(folder)
    if left and folder not in _TOLD:
        _TOLD.add(folder)
        size = sum(size for _, size in left)
        warnings.warn(
            f"Processes that were killed left {len(left)} unfinished file(s) of {size / 1e6:.1f} MB in '{folder}', such as "
            f"'{left[0][0].name}'; nothing uses them, so remove them.",
            stacklevel=3,
        )


def _leftovers(folder: Path) -> list[tuple[Path, int]]:
    """Unfinished files in a folder that no process writes, with their sizes."""
    found: list[tuple[Path, int]] = []
    if sys.platform != "win32":
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if not _PART.fullmatch(entry.name):
                continue
            with suppress(OSError):  # finished meanwhile, of somebody else, or locked by who writes it
                descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    status = os.fstat(descriptor)
                finally:
                    os.close(descriptor)
                # One that was just made is empty until it is locked.
                if stat.S_ISREG(status.st_mode) and status.st_nlink and status.st_size:
                    found.append((Path(entry.path), status.st_size))
    return found


def _place(temporary: Path, target: Path, overwrite: bool) -> None:
    """Give a finished file its name; raises OutputError where another has it, unless that may be replaced."""
    if overwrite:
        os.replace(temporary, target)
    else:
        _place_new(temporary, target)
    _sync_folder(target.parent)


def _place_new(temporary: Path, target: Path) -> None:
    """Link rather than rename, so that a file made meanwhile by someone else is not lost."""
    try:
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: take the name first, then rename over what is ours
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(temporary, target)
    except FileExistsError:
        raise OutputError(f"'{target}' appeared while it was being made; choose another name.") from None


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # the file is in place; some file systems cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
