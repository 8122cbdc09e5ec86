"""The table of a study as a run keeps it."""

from __future__ import annotations

from typing import Final

import pandas as pd

from feature_lens.analysis.measures.set_measures import is_measured
from feature_lens.analysis.tables import TABLES, Cells, Table
from feature_lens.errors import RunError
from feature_lens.run_contents import RunContents

STUDY: Final = "study"


def kept_frame(run: RunContents, name: str) -> pd.DataFrame | None:
    """A kept table of a run; None where it has none of that name."""
    return None if name not in run.tables else pd.DataFrame(run.tables[name].arrays())


def study_frame(run: RunContents) -> pd.DataFrame | None:
    """The table of the study of a run, in the form of `set_measures`; None where it belongs to none. Raises RunError
    where a file holds something else by that name."""
    found = kept_frame(run, STUDY)
    if found is not None and not is_measured(found):
        raise RunError(
            f"A study's table has feature sets by measures with intervals, but that of '{run.name}' has the columns "
            f"{', '.join(map(str, found.columns[:6]))} ...; make the study again with feature-lens study."
        )
    return found


def study_question(run: RunContents) -> str:
    """What the study of a run asks; '' where it belongs to none."""
    return run.tables[STUDY].title if STUDY in run.tables else ""


def study_sentences(run: RunContents) -> list[str]:
    """What the study of a run found, the first sentence first; none where it belongs to none."""
    return run.tables[STUDY].text.split("\n") if STUDY in run.tables else []


def _enter(name: str, words: str) -> None:
    def made(run: RunContents, _cells: Cells) -> pd.DataFrame:
        return pd.DataFrame(run.tables[name].arrays())

    TABLES.register(name)(Table(words, lambda run: name in run.tables, made))


_enter(STUDY, "feature sets by measures, with intervals, over the seeds of a study")
_enter(f"{STUDY}_seeds", "figures of the single seeds of a study")
_enter(f"{STUDY}_waves", "waves of residues within feature sets, and how many of them single features follow")
_enter(f"{STUDY}_published", "waves of key frequencies within leading features, counted as published")
_enter(f"{STUDY}_trained", "what each optimiser reached, and what the expansion predicts of its outputs")
_enter(f"{STUDY}_pairs", "leading effective features of every pair of optimisers")
