"""What a study found: every contender of every seed measured, pooled over seeds, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from feature_lens.analysis.kinds import LOGITS as OUTPUTS
from feature_lens.analysis.kinds import RANDOM as MIXTURE
from feature_lens.analysis.measures.measured_kinds import MeasuredKind, MeasureSettings, measured_kinds
from feature_lens.analysis.measures.set_measures import set_measures
from feature_lens.analysis.study.families import FAMILIES, LOGITS, RANDOM, SHUFFLED
from feature_lens.run_contents import RunContents
from feature_lens.studies.seed_run import families_of
from feature_lens.studies.study import Study


def measure_settings(study: Study) -> MeasureSettings:
    """How the sets of a study are measured."""
    return MeasureSettings(features=study.components, most=max(64, study.components), draws=study.draws)


def measured_seed(study: Study, run: RunContents) -> list[MeasuredKind]:
    """The sets of one seed, measured. Cost: see `measured_kinds`."""
    return measured_kinds(run, measure_settings(study))


def outcome(study: Study, runs: Sequence[RunContents]) -> pd.DataFrame:
    """The table of a study: the columns of `set_measures` over the runs of all seeds, sets that compete together beside
    each other, with what a set competes as for its family."""
    table = set_measures(list(runs), measure_settings(study))
    families = families_of(runs[0])
    table["family"] = [_family(kind, name, families) for kind, name in zip(table["kind"], table["set"], strict=True)]
    place = table["family"].map(FAMILIES.index)
    return table.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def single_seeds(study: Study, runs: Sequence[RunContents]) -> pd.DataFrame:
    """Every figure of every seed: kind, seed, measure, value."""
    rows = [
        (one.kind.name, seed, measure, found.value)
        for seed, run in zip(study.seeds, runs, strict=True)
        for one in measured_seed(study, run)
        for measure, found in one.figures.items()
    ]
    return pd.DataFrame(rows, columns=["kind", "seed", "measure", "value"])


def further_tables(study: Study, runs: Sequence[RunContents]) -> dict[str, pd.DataFrame]:
    """The study's own tables by name, with a column for the seed."""
    return {
        name: pd.concat(
            [make(run).assign(seed=seed) for seed, run in zip(study.seeds, runs, strict=True)], ignore_index=True
        )
        for name, make in study.tables.items()
    }


def left_out(study: Study, runs: Sequence[RunContents], table: pd.DataFrame) -> list[str]:
    """Sentences on the sets that some seeds have not, which the table therefore lacks."""
    sentences = []
    kept = set(table["kind"])
    for seed, run in zip(study.seeds, runs, strict=True):
        missing = [one.kind.name for one in measured_seed(study, run) if one.kind.name not in kept]
        sentences += [f"{name} could be made at seed {seed}, not at every other." for name in missing]
        sentences += [f"Seed {seed}: {remark}" for remark in run.provenance.remarks if "is left out" in remark]
    if SHUFFLED not in set(table["family"]):
        sentences.append("Labels cannot be shuffled: this network learns none.")
    return list(dict.fromkeys(sentences))


def _family(kind: str, name: str, families: Mapping[str, str]) -> str:
    return {OUTPUTS: LOGITS, MIXTURE: RANDOM}.get(kind) or families[name]
