"""A table that a run keeps: figures that belong to no single feature set, such as those of a study or of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.examples import Column

# Types of columns: numbers, whole numbers, truth values, text.
_KINDS: Final = "fibU"


@dataclass(frozen=True)
class KeptTable:
    """Columns (m,) of equal length by name, in their order; `title` and `text` say what they are.

    Raises SettingsError, in one sentence, for columns that do not fit.
    """

    title: str
    columns: Mapping[str, Column] = field(repr=False)
    text: str = ""

    def __post_init__(self) -> None:
        shapes = {tuple(column.shape) for column in self.columns.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise SettingsError(
                f"Columns of the table '{self.title}' are vectors of one length, but the shapes "
                f"{sorted(shapes)} came; give one value per row."
            )
        for name, column in self.columns.items():
            if column.dtype.kind not in _KINDS:
                raise SettingsError(
                    f"A column of a table holds numbers, truth values or text, but '{name}' holds {column.dtype}; "
                    "convert it first."
                )

    def __len__(self) -> int:
        return int(next(iter(self.columns.values())).shape[0])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All columns in memory."""
        return {name: np.asarray(column) for name, column in self.columns.items()}
