"""The commands that read a run: info, export, table, report; `feature_lens.cli` enters them.

Imports stay inside the commands, so that --help answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feature_lens.errors import SettingsError
from feature_lens.terminal import tell

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def info(
    file: Annotated[Path | None, typer.Argument(help="Run file.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the specification of the file format.")] = False,
) -> None:
    """Print the card of a run, or the specification of its file format."""
    if schema is (file is not None):
        came = "both came" if schema else "none was given"
        raise SettingsError(f"A run file was wanted, or --schema without one, but {came}; give one of the two.")
    if file is None:
        from feature_lens.store import specification

        tell(specification(), nl=False)
    else:
        print_card(file)


def export(
    file: Annotated[Path, typer.Argument(help="Run file.")],
    set_name: Annotated[str, typer.Option("--set", help="Feature set.")],
    out: Annotated[Path | None, typer.Option(help="File to write; made from the request without it.")] = None,
    feature: Annotated[list[int] | None, typer.Option(help="Feature number; repeatable; all without.")] = None,
    view: Annotated[list[str] | None, typer.Option(help="View, such as score or output:3; repeatable.")] = None,
    end: Annotated[list[str] | None, typer.Option(help="highest or lowest; repeatable; both without.")] = None,
    count: Annotated[int, typer.Option(help="Examples per feature, view and end.")] = 16,
    kind: Annotated[str, typer.Option("--format", help="csv, parquet, jsonl or zip.")] = "csv",
    overwrite: Overwrite = False,
) -> None:
    """Write the top-activating examples of features to a file; the same bytes as the app gives."""
    from feature_lens.analysis import ExportRequest, export_bytes, export_name, open_run
    from feature_lens.store import check_apart, check_writable, write_bytes

    with open_run(file) as run:
        request = ExportRequest(
            set_name,
            tuple(feature) if feature else None,
            tuple(view) if view else None,
            tuple(end) if end else ("highest", "lowest"),
            count,
        )
        target = check_writable(out or Path(export_name(run, request, kind)), overwrite)
        check_apart(target, [file])
        write_bytes(export_bytes(run, request, kind), target, overwrite)
    tell(f"Wrote {target}.")


def table(
    file: Annotated[Path, typer.Argument(help="Run file.")],
    name: Annotated[str | None, typer.Argument(help="Table; without it, the tables that the run holds.")] = None,
    example: Annotated[int | None, typer.Option(help="Position of one example; all without.")] = None,
    output: Annotated[int | None, typer.Option(help="Number of one output; all without.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; made from the request without it.")] = None,
    kind: Annotated[str, typer.Option("--format", help="csv, parquet or jsonl.")] = "csv",
    overwrite: Overwrite = False,
) -> None:
    """Write a table to a file: outputs, measures, and all that the dual model says; the same bytes as the app gives."""
    from feature_lens.analysis import TABLES, TableRequest, held_tables, open_run, table_bytes, table_name
    from feature_lens.store import check_apart, check_writable, write_bytes

    with open_run(file) as run:
        if name is None:
            if overwrite or kind != "csv" or any(given is not None for given in (example, output, out)):
                raise SettingsError(
                    "Options of a table came without its name; give it, or leave them out to list the tables."
                )
            for held in held_tables(run):
                tell(f"{held:24} {TABLES[held].words}")
            return
        request = TableRequest(name, example, output)
        target = check_writable(out or Path(table_name(run, request, kind)), overwrite)
        check_apart(target, [file])
        write_bytes(table_bytes(run, request, kind), target, overwrite)
    tell(f"Wrote {target}.")


def report(
    file: Annotated[Path, typer.Argument(help="Run file.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; named after the run without it.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the report card of a run: one HTML file to read or print, with the figures that matter."""
    from feature_lens.analysis import open_run, report_html, report_name
    from feature_lens.store import check_apart, check_writable, write_bytes

    with open_run(file) as run:
        target = check_writable(out or Path(report_name(run)), overwrite)
        check_apart(target, [file])
        write_bytes(report_html(run), target, overwrite)
    tell(f"Wrote {target}.")


def print_card(path: Path) -> None:
    """The card of a run, to the terminal."""
    from feature_lens.analysis import open_run, run_card

    with open_run(path) as run:
        tell(run_card(run), nl=False)
