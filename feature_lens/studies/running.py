"""Studies run: seeds side by side, what is there already left as it is, then the table, its figure and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from feature_lens.analysis.measures.measured_kinds import MeasuredKind
from feature_lens.analysis.study.figure import study_figure
from feature_lens.analysis.study.table import STUDY
from feature_lens.errors import OutputError, RunError, SettingsError
from feature_lens.features.design import one_thread
from feature_lens.processes import WorkerProcesses
from feature_lens.run_contents import RunContents
from feature_lens.store import RunFile, check_folder, write_bytes, write_run
from feature_lens.studies.study import STUDIES, kept

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
    unknown name or no worker, and OutputError for a seed of another version of a study, and for files of a study's name that
    it did not make, unless `overwrite`.
    """
    for name in names:
        STUDIES[name]
    if workers < 1:
        raise SettingsError(f"Seeds are computed by at least one process, but {workers} came; give 1 or more workers.")
    check_folder(folder, overwrite=True).mkdir(parents=True, exist_ok=True)
    for name in names:
        if not overwrite:
            _check_own(name, folder)
    wanted = [(name, seed) for name in names for seed in STUDIES[name].seeds]
    if workers == 1:
        found = {(name, seed): _seed(name, seed, folder, overwrite) for name, seed in progress(wanted, len(wanted))}
    else:
        found = _side_by_side(wanted, folder, workers, overwrite, progress)
    return {name: _conclude(name, folder, [found[name, seed] for seed in STUDIES[name].seeds]) for name in names}


def _check_own(name: str, folder: Path) -> None:
    """Raise OutputError where a file would be replaced that this study did not make."""
    ours = folder / f"{name}.h5"
    there = [path for path in folder.glob(f"{name}.*") if path != ours]
    if not ours.exists() and not there:
        return
    try:
        with RunFile(ours) as run:
            if STUDY in run.tables and run.provenance.settings.get("study") == STUDIES[name].plain():
                return
    except RunError:  # no run, or a damaged one: not made by a study that ended
        pass
    found = ours if ours.exists() else there[0]
    raise OutputError(
        f"'{found}' was not made by this version of the study '{name}' and would be replaced; choose another folder, or "
        "allow it with --overwrite."
    )


def _side_by_side(
    wanted: Sequence[tuple[str, int]], folder: Path, workers: int, overwrite: bool, progress: Progress
) -> dict[tuple[str, int], list[MeasuredKind]]:
    """Seeds in processes, not threads: each has its own memory, which goes when it ends, and its own state of torch."""
    found: dict[tuple[str, int], list[MeasuredKind]] = {}
    with WorkerProcesses(min(workers, len(wanted))) as pool:
        futures = {pool.submit(_seed, name, seed, folder, overwrite): (name, seed) for name, seed in wanted}
        for future in progress(as_completed(futures), len(futures)):
            found[futures[future]] = future.result()
    return found


def seed_file(name: str, seed: int, folder: Path) -> Path:
    """Where the run of a seed of a study is kept."""
    return folder / f"{name}_seed_{seed}.h5"


def seed_run(name: str, seed: int, folder: Path, overwrite: bool = False) -> Path:
    """Make the run of one seed, unless it is there; returns its path.

    Raises OutputError where a file is there that belongs to another version of the study, unless `overwrite`, and what
    training and extraction raise.
    """
    study, path = STUDIES[name], seed_file(name, seed, folder)
    if path.exists() and not overwrite:
        with RunFile(path) as run:
            if run.provenance.settings.get("study") != study.plain():
                raise OutputError(
                    f"'{path}' was made by another version of the study '{name}'; remove it, or allow it to be replaced "
                    "with --overwrite."
                )
        return path
    return write_run(replace(study.contents(seed), name=f"{name} seed {seed}"), path, overwrite)


def _seed(name: str, seed: int, folder: Path, overwrite: bool) -> list[MeasuredKind]:
    """One seed made, where it is not there, and measured."""
    # Linear algebra in one thread: seeds run side by side, and no figure depends on the number of processors.
    with one_thread(), RunFile(seed_run(name, seed, folder, overwrite)) as run:
        return STUDIES[name].measured(run)


def _conclude(name: str, folder: Path, measured: Sequence[list[MeasuredKind]]) -> list[Path]:
    """Write the table, figure, answer and run of a study whose seeds were measured."""
    study = STUDIES[name]
    with ExitStack() as stack:
        runs = [stack.enter_context(RunFile(seed_file(name, seed, folder))) for seed in study.seeds]
        for run, of_seed in zip(runs, measured, strict=True):
            study.remember(run, of_seed)
        found = study.concluded(runs)
        tables = {
            **runs[0].tables,
            STUDY: kept(found.table, study.question, "\n".join(found.sentences)),
            **{
                f"{STUDY}_{table}": kept(frame, f"{study.question} ({table})") for table, frame in found.further.items()
            },
        }
        held = {part.name: getattr(runs[0], part.name) for part in fields(RunContents)}
        whole = RunContents(**held | {"name": name, "tables": tables})
        made = [write_run(whole, folder / f"{name}.h5", overwrite=True)]
    files = {
        "csv": _csv(found.table),
        "png": study_figure(found.table, study.question),
        "md": ("\n\n".join([f"# {study.question}", *found.sentences]) + "\n").encode(),
        **{f"{table}.csv": _csv(frame) for table, frame in found.further.items()},
    }
    return made + [write_bytes(content, folder / f"{name}.{kind}", overwrite=True) for kind, content in files.items()]


def _csv(table: pd.DataFrame) -> bytes:
    made: bytes = table.to_csv(index=False, lineterminator="\n").encode()
    return made
