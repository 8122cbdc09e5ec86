"""The tables of measures that can be exported. What measures is loaded when it is asked for: its libraries take longer
to load than a run takes to open."""

from __future__ import annotations

import pandas as pd

from feature_lens.analysis.tables import TABLES, Cells, Table
from feature_lens.run_contents import RunContents


def _measures(run: RunContents, _: Cells) -> pd.DataFrame:
    from feature_lens.analysis.measures.set_measures import set_measures

    return set_measures(run)


def _curves(run: RunContents, _: Cells) -> pd.DataFrame:
    from feature_lens.analysis.measures.set_measures import measure_curves

    return measure_curves(run)


def _matches(run: RunContents, _: Cells) -> pd.DataFrame:
    from feature_lens.analysis.measures.set_measures import concept_matches

    return concept_matches(run)


for _name, _table in {
    "measures": Table(
        "every measure of every kind of feature, with intervals and nulls", lambda run: bool(run.sets), _measures
    ),
    "measure_curves": Table(
        "measures against the number of features that a kind is given", lambda run: bool(run.sets), _curves
    ),
    "concept_matches": Table(
        "the feature nearest to each known concept, of every kind", lambda run: bool(run.examples.concepts), _matches
    ),
}.items():
    TABLES.register(_name)(_table)
