"""A run opened for reading, with what a notebook wants of it: tables, single features, cards that draw themselves."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from feature_lens.analysis.describe import feature_notes, set_table
from feature_lens.analysis.example_table import example_table
from feature_lens.analysis.feature_table import feature_labels, feature_table
from feature_lens.analysis.orders import default_view, end_of, value_matrix
from feature_lens.analysis.render import alt_text, format_value, labelled_sheet
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents
from feature_lens.store import RunFile

__all__ = ["FeatureView", "Run", "default_view", "find_runs", "open_run"]


def open_run(path: Path | str) -> Run:
    """Open a run file; raises RunError in one sentence where it cannot be read."""
    return Run(path)


def find_runs(paths: Sequence[Path | str]) -> dict[str, Path]:
    """Run files among files and folders, in the order given: a name for each, its path.

    A folder gives its *.h5 and those one level below, sorted. Names are file stems; one that is taken is preceded by
    its folder's name. Nothing is opened here: a broken file is listed, and opening it says what is wrong. What is no text
    in a name is shown as such, and a link that leads nowhere or to itself is a broken file.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for path in (Path(p) for p in paths):
        for file in [*_held(path), *_held(path, below=True)] if os.path.isdir(path) else [path]:
            real = os.path.realpath(file)
            if real not in seen and not os.path.isdir(file):
                seen.add(real)
                found[_free_name(file, found)] = file
    return found


def _held(folder: Path, below: bool = False) -> list[Path]:
    """What is called *.h5 in a folder, or in those in it, sorted; nothing where it is gone meanwhile or cannot be read."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    if below:
        return [file for name in names if os.path.isdir(folder / name) for file in _held(folder / name)]
    return [folder / name for name in names if name.endswith(".h5")]


def _free_name(file: Path, taken: dict[str, Path]) -> str:
    names = [_as_text(file.stem), _as_text(f"{Path(os.path.realpath(file)).parent.name}/{file.stem}")]
    for name in names:
        if name not in taken:
            return name
    number = 2
    while f"{names[1]} {number}" in taken:
        number += 1
    return f"{names[1]} {number}"


def _as_text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class Run(RunFile):
    """A run file with tables and notebook cards; use as a context manager or `close` it.

    `sets`, `network`, `examples`, `outputs` and `provenance` are those of RunContents.
    """

    def to_pandas(self, set_name: str | None = None, view: str | None = None) -> pd.DataFrame:
        """One row per example: id, split, target, predicted, then one column per feature named by its label.

        Without a set: the table of examples with names and outputs ('output:<i>'). view: None for the default one.
        Raises SettingsError for a set whose values are not stored. Size n x k.
        """
        facts = example_table(self)
        table = facts.rename(columns={"example_id": "id"})
        if set_name is None:
            outputs = pd.DataFrame(self.outputs[:], columns=[f"output:{i}" for i in range(self.outputs.shape[1])])
            return pd.concat([table, outputs], axis=1)
        feature_set = self.feature_set(set_name)
        if not feature_set.stores_values:
            raise SettingsError(
                f"Feature set '{set_name}' keeps extremes and moments only, not the value of every example; "
                f"use features('{set_name}') for one row per feature."
            )
        matrix = value_matrix(feature_set, view or default_view(feature_set))
        values = pd.DataFrame(matrix.T, columns=feature_labels(feature_set))
        return pd.concat([table[["id", "split", "target", "predicted"]], values], axis=1)

    def features(self, set_name: str, view: str | None = None) -> pd.DataFrame:
        """One row per feature in the default order of the set: the columns of `feature_table`."""
        return feature_table(self, set_name, view or default_view(self.feature_set(set_name)))

    def feature(self, set_name: str, feature: int, view: str | None = None) -> FeatureView:
        """One feature in one view (None for the default one); raises SettingsError for unknown ones."""
        feature_set = self.feature_set(set_name)
        shown = view or default_view(feature_set)
        feature_set.view_index(shown)
        return FeatureView(self, set_name, feature_set.check(feature), shown)

    def __repr__(self) -> str:
        sets = ", ".join(f"{s.name} ({len(s)})" for s in self.sets.values())
        return f"Run '{self.name}': {self.network.name}, {len(self.examples)} examples, feature sets {sets}"

    def _repr_html_(self) -> str:
        """A card: the network, the examples, one row per feature set."""
        examples = self.examples
        split = "no split"
        if examples.training is not None:
            training = int(examples.training.sum())
            split = f"{training:,} training, {len(examples) - training:,} held-out"
        metrics = ", ".join(
            f"{name} {format_value(value, signed=False)}" for name, value in self.network.metrics.items()
        )
        facts = [
            (
                "Network",
                f"{self.network.name}: {self.network.n_outputs} outputs, {self.network.parameters.total:,} parameters",
            ),
            ("Metrics", metrics or "none"),
            (
                "Examples",
                f"{len(examples):,} of {examples.modality.kind} {'×'.join(map(str, examples.modality.shape))}, {split}",
            ),
        ]
        table = set_table(self)[["name", "title", "k", "views", "fitted_on"]]
        return _card(f"Run {self.name}", _fact_rows(facts) + table.to_html(index=False, border=0, escape=True))


@dataclass(frozen=True)
class FeatureView:
    """One feature of a run in one view."""

    run: RunContents
    set_name: str
    feature: int
    view: str

    @property
    def label(self) -> str:
        """Readable name of the feature."""
        return self.run.feature_set(self.set_name).label(self.feature)

    def highest(self, m: int = 16) -> pd.DataFrame:
        """The m examples with the highest values, highest first: rank, id, value, split, target, predicted ..."""
        return self._end("highest", m)

    def lowest(self, m: int = 16) -> pd.DataFrame:
        """The m examples with the lowest values, lowest first; columns as in `highest`."""
        return self._end("lowest", m)

    def _end(self, end: str, m: int) -> pd.DataFrame:
        positions, values = end_of(self.run, self.set_name, self.feature, self.view, end, m)
        table = example_table(self.run, positions).rename(columns={"example_id": "id"})
        table.insert(0, "rank", range(len(table)))
        table.insert(2, "value", values)
        table["position"] = positions
        return table

    def __repr__(self) -> str:
        return f"Feature {self.feature} ('{self.label}') of '{self.set_name}', view '{self.view}'"

    def _repr_html_(self) -> str:
        """Its highest and lowest examples as pictures with values, and its figures; needs nothing from outside."""
        feature_set = self.run.feature_set(self.set_name)
        at = self.feature, feature_set.view_index(self.view)
        figures = [
            (name, format_value(float(feature_set.columns[name][at]))) for name in ("mean", "minimum", "maximum")
        ]
        figures.append(("standard deviation", format_value(float(feature_set.columns["std"][at]), signed=False)))
        parts = ["<p>" + " · ".join(f"{escape(name)} {escape(value)}" for name, value in figures) + "</p>"]
        notes = feature_notes(self.run, self.set_name, self.feature, self.view)
        parts.extend(f"<p>{escape(note)}</p>" for note in notes)
        for end in ("highest", "lowest"):
            positions, values = feature_set.extremes(self.feature, self.view, end)
            positions, values = positions[:8], values[:8]
            source = base64.b64encode(labelled_sheet(self.run, positions, values)).decode("ascii")
            words = alt_text(self.run, positions, values, f"{end.capitalize()} examples")
            parts.append(
                f"<div>{end.capitalize()}</div>"
                f'<img src="data:image/png;base64,{source}" alt="{escape(words, quote=True)}" style="max-width:100%">'
            )
        title = f"{self.label} · {feature_set.card.title or self.set_name} · view {self.view}"
        return _card(title, "".join(parts))


def _fact_rows(facts: list[tuple[str, Any]]) -> str:
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in facts
    )
    return f"<table>{rows}</table>"


def _card(title: str, body: str) -> str:
    return f'<div style="font-family:sans-serif"><h4 style="margin:0 0 .4em">{escape(title)}</h4>{body}</div>'
