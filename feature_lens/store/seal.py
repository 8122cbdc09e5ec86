"""The seal at the end of a run file: a checksum of all before it, looked at before HDF5 is.

HDF5 has no checksum of its own metadata, and brings the process down on some damaged files. It ignores what follows
its own end, so a sealed file is read by any HDF5 program.
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import Final

from feature_lens.errors import RunError
from feature_lens.store import schema

_MARK: Final = b"feature_lens sha256 "
_LENGTH: Final = len(_MARK) + 64 + 1
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


def check_seal(path: Path) -> None:
    """Raise RunError for a file that is no HDF5, no run, cut off or changed. Reads the whole file once."""
    try:
        if path.stat().st_size == 0:
            raise RunError(f"'{path}' is not a readable HDF5 file (it is empty); give a run file made by feature-lens.")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check(path, content)
    except (OSError, ValueError) as error:
        raise RunError(f"'{path}' cannot be read ({getattr(error, 'strerror', None) or error}).") from None


def _check(path: Path, content: mmap.mmap) -> None:
    if content[: len(_SIGNATURE)] != _SIGNATURE:
        raise RunError(
            f"'{path}' is not a readable HDF5 file (its signature is missing); give a run file made by feature-lens."
        )
    end = max(len(content) - _LENGTH, 0)
    seal = content[end:]
    if not seal.startswith(_MARK) and content.find(schema.FORMAT.encode()) < 0:
        raise RunError(f"'{path}' is an HDF5 file, but not a feature_lens run; give one made by feature-lens.")
    with memoryview(content) as view:
        found = hashlib.sha256(view[:end]).hexdigest()
    if seal != _MARK + found.encode() + b"\n":
        raise RunError(f"'{path}' is damaged: it was cut off or changed after it was written; make the run again.")
