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


class FeatureLensError(Exception):
    """Base of all errors raised on purpose."""


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


def in_brief(error: BaseException) -> str:
    """The first line of what an error of another library says, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
