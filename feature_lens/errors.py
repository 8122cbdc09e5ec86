"""Every error that feature_lens raises on purpose, as one tree.

    FeatureLensError
    ├── SettingsError        a name that is not known, a value that cannot be used
    ├── NetworkError         a network that is not a frozen function of one example
    │   └── CheckpointError  a file that is no checkpoint, or one of another network
    ├── ExamplesError        inputs, ids, targets or a split that do not fit together
    ├── RunError             a run file that is foreign, damaged, incomplete or newer than this program
    ├── OutputError          a path that exists already or cannot be written
    ├── WorkerError          a process that computed beside this one was ended from outside
    └── AppError             the browser app cannot be started

Each message is one sentence: what was wanted, what came, what to do. The command line prints it and
exits with status 2; nothing that was on disk before is lost.
"""

from __future__ import annotations

import re
from typing import Final

from feature_lens.shown import shown


class FeatureLensError(Exception):
    """Base of all errors raised on purpose. Its text is one line; escape codes in names from files are written out."""

    def __str__(self) -> str:
        return " ".join(shown(super().__str__()).splitlines())


class SettingsError(FeatureLensError, ValueError):
    """A setting names something unknown or holds an impossible value."""


class NetworkError(FeatureLensError):
    """The network is not a frozen, deterministic function of one example."""


class CheckpointError(NetworkError):
    """A file is not a checkpoint of this network."""


class ExamplesError(FeatureLensError, ValueError):
    """The parts of an example set do not fit together."""


class RunError(FeatureLensError):
    """A run file cannot be read."""


class OutputError(FeatureLensError):
    """An output path exists already or cannot be written."""


class WorkerError(FeatureLensError):
    """A process that computed beside this one was ended from outside."""


class AppError(FeatureLensError):
    """The browser app cannot be started."""


_LONGEST: Final = 300
# Where torch says little in its first line, the line with the reason begins so.
_REASON: Final = re.compile(r"(?:[\w.]*(?:Error|Exception|Interrupt|UnpicklingError)|WeightsUnpickler error): \S")
_NO_MEMORY: Final = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


def in_brief(error: BaseException) -> str:
    """What an error of another library says in one line, or its type where it says nothing.

    The first line; with the next where that only announces it, and instead the line of the error inside where the text
    holds a trace of another program or is the loader's long explanation.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    first = lines[0]
    inside = [line for line in lines[1:] if _REASON.match(line)]
    if inside and (first.startswith("Weights only load failed") or any("Traceback" in line for line in lines)):
        first = inside[-1]
    elif first.endswith(":") and len(lines) > 1:
        first = f"{first} {lines[1]}"
    return first if len(first) <= _LONGEST else f"{first[:_LONGEST]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, each library and device in its own way."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(words in said for words in _NO_MEMORY))
    )


def refuse_out_of_memory(error: BaseException) -> None:
    """Raise NetworkError where memory ran out in a pass: no fault of the network, whatever else is said of its passes."""
    if not isinstance(error, FeatureLensError) and is_out_of_memory(error):
        raise NetworkError(
            f"Memory ran out in a pass of the network ({type(error).__name__}: {in_brief(error)}); give a smaller tile or "
            "less memory, or precision float32."
        ) from error
