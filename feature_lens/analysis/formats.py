"""A table as a file that other programs read: CSV, Parquet or JSON Lines, with the same rows and numbers in each.

Texts are written as they are: a spreadsheet that takes a label beginning with '=', '+', '-' or '@' for a formula must be
told to import the column as text. A float32 is written as the shortest decimal that gives it back.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_lens.registry import Registry


@dataclass(frozen=True)
class Format:
    """One format: its file name extension, its media type, and what makes the bytes of a table."""

    extension: str
    media_type: str
    write: Callable[[pd.DataFrame], bytes]


FORMATS: Final[Registry[Format]] = Registry("table format")


def records(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows as plain values; what is missing or not finite, for which JSON has no number, as None."""
    columns: dict[str, list[Any]] = {}
    for name in table.columns:
        column = table[name]
        known = column.notna()
        if column.dtype.kind == "f":
            known &= np.isfinite(column.to_numpy(dtype=np.float64))
        if column.dtype == np.float32:
            column = pd.Series([float(text) for text in column.to_numpy().astype(str)], index=column.index)
        columns[str(name)] = column.astype(object).where(known, None).tolist()
    for record in zip(*columns.values(), strict=True):
        yield dict(zip(columns, record, strict=True))


def json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """One JSON object per line, as UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode("utf-8")


def _csv(table: pd.DataFrame) -> bytes:
    written = table.copy()
    for name in table.columns:
        if table[name].dtype == np.float32:
            texts = pd.Series(table[name].to_numpy().astype(str), index=table.index)
            written[name] = texts.where(table[name].notna(), None)
    return written.to_csv(index=False, lineterminator="\n").encode("utf-8")


def _jsonl(table: pd.DataFrame) -> bytes:
    return json_lines(records(table))


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


FORMATS.register("csv")(Format("csv", "text/csv", _csv))
FORMATS.register("parquet")(Format("parquet", "application/vnd.apache.parquet", _parquet))
FORMATS.register("jsonl")(Format("jsonl", "application/jsonl", _jsonl))
