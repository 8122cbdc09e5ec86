"""What commands print and take: text without control characters, every option once, the files that options name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperGroup

from feature_lens.errors import SettingsError
from feature_lens.shown import shown

# Typer brings its own copy of click, or click itself, by its version: its exceptions are reached through Typer.
USAGE: Final[type[Exception]] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def tell(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text, on standard error if `err`, with an end of line if `nl`. Escape codes are shown, not sent, and letters that
    the terminal has not are written out."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    typer.echo(shown(text).encode(encoding, "backslashreplace").decode(encoding), err=err, nl=nl)


class Commands(TyperGroup):
    """The commands, of which every option that takes one value is given once: of two, one would be ignored in silence."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command and its arguments; raises SettingsError for an option given twice."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            with typer.Context(command, info_name=name, parent=ctx, resilient_parsing=True) as alone:
                _, _, order = command.make_parser(alone).parse_args(list(rest))
            once = [option for option in order if option.param_type_name == "option" and not option.multiple]
            for option in once:
                if not getattr(option, "is_flag", False) and (times := once.count(option)) > 1:
                    raise SettingsError(
                        f"The option {option.opts[-1]} takes one value, but was given {times} times; give it once."
                    )
        return name, command, rest


def given_on_the_line(ctx: typer.Context, parameters: Iterable[str]) -> list[str]:
    """Which of a command's options the user gave, by their names on the line."""
    given = [name for name in sorted(parameters) if f"{ctx.get_parameter_source(name)}".endswith("COMMANDLINE")]
    return [f"--{name.replace('_', '-')}" for name in given]


def sources(network: str, data: str, snapshots: Sequence[str] | None = None) -> Iterator[Path]:
    """The files that factories and snapshots are read from, as far as their options name them."""
    for where in (spec.rpartition(":")[0] for spec in (network, data)):
        yield Path(where if where.endswith(".py") else f"{where.replace('.', '/')}.py")
    for entry in snapshots or ():
        folder = Path(entry)
        if folder.is_dir():
            yield from (file for file in folder.iterdir() if file.suffix not in (".h5", ".hdf5"))  # runs may lie beside
        else:
            yield Path(entry.partition("=")[2])


def tell_of_the_stop() -> None:
    """Say that a signal ended the command."""
    tell("Stopped; what was not finished was not written.", err=True)


def misused(error: Any, debug: bool) -> int:
    """An unknown option, a missing argument, a word where a number belongs; or no argument at all, which shows the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    of = error.ctx.command_path if getattr(error, "ctx", None) is not None else "feature-lens"
    return failed(f"{error.format_message().rstrip('.')}; see '{of} --help'.", debug)


def failed(sentence: str, debug: bool) -> int:
    """Print the sentence of an error, after its trace under --debug; the exit status."""
    if debug:
        import traceback

        tell(traceback.format_exc(), err=True)
    tell(f"Error: {' '.join(sentence.splitlines())}", err=True)
    return 2
