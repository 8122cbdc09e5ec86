"""What a study is: a question, put to networks of several seeds, with all sizes fixed before it is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_lens.analysis.measures.measured_kinds import MeasuredKind
from feature_lens.errors import SettingsError
from feature_lens.kept_table import KeptTable
from feature_lens.registry import Registry
from feature_lens.run_contents import RunContents


@dataclass(frozen=True)
class Conclusion:
    """What a study found: its table, in the form of `set_measures`, sentences that answer the question, the first of them
    by itself, and further tables by name."""

    table: pd.DataFrame
    sentences: list[str]
    further: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """A question. seeds: all are reported, none is exchanged. Raises SettingsError for seeds that are none."""

    question: str
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingsError(f"A study has one or more seeds, all different, but {self.seeds} came; name them so.")

    @abstractmethod
    def plain(self) -> dict[str, Any]:
        """What shapes the runs of its seeds, as the plain data that JSON gives back."""

    @abstractmethod
    def contents(self, seed: int, progress: bool = False) -> RunContents:
        """The run of one seed; `plain()` is among its settings as "study"."""

    def measured(self, run: RunContents) -> list[MeasuredKind]:
        """What takes long to measure of the run of a seed, and is remembered with it; nothing, unless a study says so."""
        del run
        return []

    def remember(self, run: RunContents, measured: list[MeasuredKind]) -> None:
        """Give a run back what was measured of it in another process."""
        del run, measured

    @abstractmethod
    def concluded(self, runs: Sequence[RunContents]) -> Conclusion:
        """What the runs of all seeds say together."""


STUDIES: Final[Registry[Study]] = Registry("study")


def kept(table: pd.DataFrame, title: str, text: str = "") -> KeptTable:
    """A table as a run keeps it."""
    columns = {
        str(name): column.to_numpy(np.str_) if column.dtype.kind in "OU" else column.to_numpy()
        for name, column in table.items()
    }
    return KeptTable(title, columns, text)
