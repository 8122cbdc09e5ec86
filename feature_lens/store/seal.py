"""The seal at the end of a run file: a checksum of all before it, looked at before HDF5 is.

HDF5 has no checksum of its own metadata, and brings the process down on some damaged files. It ignores what follows
its own end, so a sealed file is read by any HDF5 program.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from feature_lens.errors import RunError
from feature_lens.store import schema
from feature_lens.store.hdf5_files import ReadFile

_MARK: Final = b"feature_lens sha256 "
_LENGTH: Final = len(_MARK) + 64 + 1
_BLOCK: Final = 1 << 20
_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"


def sealed(image: bytes) -> bytes:
    """The bytes of an HDF5 file with their seal."""
    return image + _MARK + hashlib.sha256(image).hexdigest().encode() + b"\n"


def seal(path: Path) -> None:
    """Seal an HDF5 file on the disk. Reads it once, whatever its size in little memory."""
    with path.open("r+b") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, 2)
        file.write(_MARK + found.encode() + b"\n")


def check_seal(file: ReadFile, path: Path) -> None:
    """Raise RunError for a file that is no HDF5, no run, cut off or changed. Reads the whole file once, not through a map
    of it: the system ends a process that looks at what was cut off a mapped file."""
    try:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise RunError(f"'{path}' is not a readable HDF5 file (it is empty); give a run file made by feature-lens.")
        file.seek(0)
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            raise RunError(
                f"'{path}' is not a readable HDF5 file (its signature is missing); give a run file made by feature-lens."
            )
        _check(file, size, path)
    except OSError as error:
        raise RunError(f"'{path}' cannot be read ({error.strerror or error}).") from None


def _check(file: ReadFile, size: int, path: Path) -> None:
    end = max(size - _LENGTH, 0)
    file.seek(end)
    seal = b"".join(_blocks(file, size - end))
    file.seek(0)
    found, known, before = hashlib.sha256(), seal.startswith(_MARK), b""
    for block in _blocks(file, end):
        found.update(block)
        known = known or schema.FORMAT.encode() in before + block
        before = block[-len(schema.FORMAT) :]
    if not known and schema.FORMAT.encode() not in before + seal:
        raise RunError(f"'{path}' is an HDF5 file, but not a feature_lens run; give one made by feature-lens.")
    if seal != _MARK + found.hexdigest().encode() + b"\n":
        raise RunError(f"'{path}' is damaged: it was cut off or changed after it was written; make the run again.")


def _blocks(file: ReadFile, size: int) -> Iterator[bytes]:
    """So many bytes from where the file stands, block by block; fewer where it ends before."""
    while size > 0 and (block := file.read(min(_BLOCK, size))):
        size -= len(block)
        yield block
