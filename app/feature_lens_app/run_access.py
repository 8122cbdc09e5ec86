"""The opened runs: which files the app was started on, and one cached handle for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from feature_lens.analysis.run import Run, find_runs, open_run
from feature_lens.analysis.study.table import study_question, study_sentences
from feature_lens.errors import RunError
from feature_lens_app import address

Stamp = tuple[int, int, int]


def _stamp(path: Path) -> Stamp | None:
    """What tells one file from another put in its place; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


@dataclass(frozen=True)
class Opened:
    """An open run and the stamp of its file when it was opened."""

    run: Run
    stamp: Stamp | None

    @property
    def key(self) -> tuple[bytes, Stamp | None]:
        """What a cached result of this run is kept under: bytes, since a path need not be text."""
        return os.fsencode(self.run.path), self.stamp


def _cache_key(opened: Opened) -> tuple[bytes, Stamp | None]:
    return opened.key


BY_KEY: dict[str | type[Any], Callable[[Any], Any]] = {Opened: _cache_key}
"""How cached functions tell runs apart: by path and stamp, so a replaced file is never answered from the old one."""


def _is_current(opened: Opened) -> bool:
    return _stamp(opened.run.path) == opened.stamp


def _release(opened: Opened) -> None:
    opened.run.close()


@st.cache_resource(show_spinner=False, max_entries=32, validate=_is_current, on_release=_release)
def _open(path: bytes) -> Opened:
    located = Path(os.fsdecode(path))
    # The stamp is taken first: a file replaced while it is opened is then opened again, not kept.
    stamp = _stamp(located)
    return Opened(open_run(located), stamp)


@st.cache_data(show_spinner=False, ttl=5, max_entries=8)
def _found(paths: tuple[bytes, ...]) -> dict[str, str]:
    return {key: str(path) for key, path in find_runs([os.fsdecode(path) for path in paths]).items()}


def started_on() -> tuple[str, ...]:
    """The paths that the app was started on."""
    return tuple(sys.argv[1:])


def known_runs() -> dict[str, str]:
    """Path of each run under the key that addresses use for it."""
    return _found(tuple(os.fsencode(path) for path in started_on()))


def current() -> Opened:
    """The run that the address names, or the first; raises RunError when it cannot be read."""
    runs = known_runs()
    return _open(os.fsencode(runs[address.option("run", "run", list(runs), next(iter(runs)))]))


@st.cache_data(show_spinner=False, max_entries=1024)
def _answer(path: bytes, stamp: Stamp | None) -> tuple[str, str] | None:
    """Question and first sentence of the study that a file belongs to. Opened for itself: among the handles that are
    kept, those of a large folder would take the place of the run that is shown."""
    del stamp  # part of what the answer is kept under
    with open_run(os.fsdecode(path)) as run:
        sentences = study_sentences(run)
        return (study_question(run), sentences[0]) if sentences else None


def answers_of_studies() -> dict[str, tuple[str, str]]:
    """Question and first sentence of the known runs that belong to a study, by their keys. A file that cannot be read is
    left to its own pages, which say why."""
    found = {}
    for key, path in known_runs().items():
        with suppress(RunError):
            if answer := _answer(os.fsencode(path), _stamp(Path(path))):
                found[key] = answer
    return found


def run_key() -> str:
    """The key of the current run."""
    runs = list(known_runs())
    return address.option("run", "run", runs, runs[0])
