"""The command `study`: feature sets held against each other on networks of the zoo; `feature_lens.cli` enters it.

Imports stay inside, so that --help answers at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from feature_lens.terminal import tell

_STUDIES = "Study: digits, language-model, mnist, modular-mlp, modular-transformer, optimisers, superposition"


def study(
    name: Annotated[str, typer.Argument(help=f"{_STUDIES}, or all.")],
    out: Annotated[Path, typer.Option(help="Folder for runs, tables, figures and answers.")] = Path("studies"),
    workers: Annotated[int, typer.Option(help="Seeds computed at a time, each in a process of its own.")] = 2,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make everything anew, and replace what is there.")
    ] = False,
) -> None:
    """Train networks from several seeds, and compare their effective features with every baseline, with intervals.

    What is in the folder already is not made again, so a study that was stopped goes on where it was.
    """
    from feature_lens.studies import STUDIES
    from feature_lens.studies.running import run_studies

    names = list(STUDIES) if name == "all" else [name]
    made = run_studies(names, out, workers=workers, overwrite=overwrite, progress=_bar)
    for one, paths in made.items():
        answer = next(path for path in paths if path.suffix == ".md").read_text(encoding="utf-8")
        tell(f"{answer}\nWrote {', '.join(path.name for path in paths)} to {out}.")
        tell(f"Look at it with: feature-lens app {out / f'{one}.h5'}\n")


def _bar(seeds: Iterable[Any], total: int) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(seeds, unit="seed", total=total, disable=None)
