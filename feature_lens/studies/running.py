"""Studies run: seeds side by side, what is there already left as it is, then the table, its figure and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feature_lens.analysis.measures.measured_kinds import MeasuredKind, remember
from feature_lens.analysis.study.answer import answer
from feature_lens.analysis.study.figure import study_figure
from feature_lens.analysis.study.table import SEEDS, STUDY
from feature_lens.kept_table import KeptTable
from feature_lens.run_contents import RunContents
from feature_lens.store import RunFile, write_bytes, write_run
from feature_lens.studies.outcome import (
    further_tables,
    left_out,
    measure_settings,
    measured_seed,
    outcome,
    single_seeds,
)
from feature_lens.studies.seed_run import seed_file, seed_run
from feature_lens.studies.study import STUDIES

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def run_studies(
    names: Sequence[str],
    folder: Path,
    *,
    workers: int = 2,
    overwrite: bool = False,
    progress: Progress = lambda seeds, _: seeds,
) -> dict[str, list[Path]]:
    """Run studies by name into a folder: NAME.h5, the run of the first seed with the study's table in it, NAME.csv,
    NAME.png, NAME.md and further tables of the study's own; returns these by study.

    Seeds that are in the folder already are kept, so a study that was stopped goes on. Raises SettingsError for an
    unknown name and OutputError for a seed of another version of a study, unless `overwrite`.
    """
    for name in names:
        STUDIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(name, seed) for name in names for seed in STUDIES[name].seeds]
    if workers == 1:
        found = {(name, seed): _seed(name, seed, folder, overwrite) for name, seed in progress(wanted, len(wanted))}
    else:
        found = _side_by_side(wanted, folder, workers, overwrite, progress)
    return {name: _conclude(name, folder, [found[name, seed] for seed in STUDIES[name].seeds]) for name in names}


def _side_by_side(
    wanted: Sequence[tuple[str, int]], folder: Path, workers: int, overwrite: bool, progress: Progress
) -> dict[tuple[str, int], list[MeasuredKind]]:
    """Seeds in processes, not threads: each has its own memory, which goes when it ends, and its own state of torch."""
    found: dict[tuple[str, int], list[MeasuredKind]] = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {pool.submit(_seed, name, seed, folder, overwrite): (name, seed) for name, seed in wanted}
        try:
            for future in progress(as_completed(futures), len(futures)):
                found[futures[future]] = future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return found


def _seed(name: str, seed: int, folder: Path, overwrite: bool) -> list[MeasuredKind]:
    """One seed made, where it is not there, and measured."""
    with RunFile(seed_run(name, seed, folder, overwrite)) as run:
        return measured_seed(STUDIES[name], run)


def _conclude(name: str, folder: Path, measured: Sequence[list[MeasuredKind]]) -> list[Path]:
    """Write the table, figure, answer and run of a study whose seeds were measured."""
    study = STUDIES[name]
    with ExitStack() as stack:
        runs = [stack.enter_context(RunFile(seed_file(name, seed, folder))) for seed in study.seeds]
        for run, of_seed in zip(runs, measured, strict=True):
            remember(run, measure_settings(study), of_seed)
        table = outcome(study, runs)
        seeds = f"{len(study.seeds)} seed{'' if len(study.seeds) == 1 else 's'}"
        sentences = answer(table, f"{runs[0].network.name} ({seeds})") + left_out(study, runs, table)
        kept = {
            STUDY: _kept(table, study.question, "\n".join(sentences)),
            SEEDS: _kept(single_seeds(study, runs), "Figures of single seeds"),
        }
        further = further_tables(study, runs)
        kept |= {f"study_{table}": _kept(frame, f"{study.question} ({table})") for table, frame in further.items()}
        held = {part.name: getattr(runs[0], part.name) for part in fields(RunContents)}
        whole = RunContents(**held | {"name": name, "tables": {**runs[0].tables, **kept}})
        made = [write_run(whole, folder / f"{name}.h5", overwrite=True)]
    files = {
        "csv": table.to_csv(index=False, lineterminator="\n").encode(),
        "png": study_figure(table, study.question),
        "md": ("\n\n".join([f"# {study.question}", *sentences]) + "\n").encode(),
    }
    files |= {
        f"{table}.csv": frame.to_csv(index=False, lineterminator="\n").encode() for table, frame in further.items()
    }
    return made + [write_bytes(content, folder / f"{name}.{kind}", overwrite=True) for kind, content in files.items()]


def _kept(table: pd.DataFrame, title: str, text: str = "") -> KeptTable:
    columns = {
        str(name): table[name].to_numpy(np.str_) if table[name].dtype.kind in "OU" else table[name].to_numpy()
        for name in table.columns
    }
    return KeptTable(title, columns, text)
