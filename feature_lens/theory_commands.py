"""The command `theory`: how the expansion about the initial parameters fares, over widths, for one network, and over
training algorithms; `feature_lens.cli` enters it.

Imports stay inside, so that --help answers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from feature_lens.errors import SettingsError
from feature_lens.reading_commands import Overwrite
from feature_lens.terminal import given_on_the_line, tell

if TYPE_CHECKING:
    import pandas as pd

    from feature_lens.examples import Examples
    from feature_lens.networks import Network

T = TypeVar("T")


# What is asked, and the options that belong to it; without the others, which would be ignored in silence.
_BELONGING = {
    "networks of many widths": ("widths", "depths", "seeds", "time", "workers"),
    "--algorithms": ("most_steps",),
    "one network": ("time", "side"),
}


def theory(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Network of the zoo as shipped; without one, networks of many widths.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Factory of your own module, as for extract.")] = None,
    data: Annotated[str | None, typer.Option(help="Factory of its data, with targets.")] = None,
    trained: Annotated[Path | None, typer.Option(help="Checkpoint after training.")] = None,
    initial: Annotated[Path | None, typer.Option(help="Checkpoint before training.")] = None,
    learning_rate: Annotated[list[str] | None, typer.Option(help="PATTERN=VALUE, or pdlt, as for extract.")] = None,
    algorithms: Annotated[
        bool, typer.Option("--algorithms", help="One network by descent, SGD and AdamW, with two steps each.")
    ] = False,
    widths: Annotated[str, typer.Option(help="Widths, such as 32,128,512,2048.")] = "32,128,512,2048",
    depths: Annotated[str, typer.Option(help="Numbers of hidden layers.")] = "1,2,3",
    seeds: Annotated[int, typer.Option(help="Networks of each shape.")] = 3,
    time: Annotated[
        float | None,
        typer.Option(help="Time of gradient flow: 3 for widths, matched to the training loss for a network."),
    ] = None,
    side: Annotated[
        int, typer.Option(help="Most rows or parameters, whichever are fewer; training examples are thinned to it.")
    ] = 1024,
    most_steps: Annotated[int, typer.Option(help="Steps that an algorithm takes at most.")] = 2000,
    workers: Annotated[int, typer.Option(help="Networks trained at a time, over widths.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables (CSV) and figures (PNG).")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Hold networks against their expansion in 1 / width: kernel prediction, next-to-leading order, the real network."""
    asked = "--algorithms" if algorithms else "one network" if name or network or data else "networks of many widths"
    for what, options in _BELONGING.items():
        for option in given_on_the_line(ctx, set(options) - set(_BELONGING[asked])):
            raise SettingsError(f"The option {option} belongs to {what}, but {asked} came; leave it out.")
    if out is not None:
        from feature_lens.store import check_folder

        check_folder(out, overwrite)
    own = _own(name, network, data, trained, initial, learning_rate or [])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    if algorithms:
        files = _algorithms(own, most_steps)
    elif own is None:
        files = _widths(
            _numbers(widths, "widths"), _numbers(depths, "depths"), seeds, 3.0 if time is None else time, workers
        )
    else:
        files = _network(*own, time, side)
    if out is not None:
        _write(files, out, overwrite)


def _own(
    name: str | None,
    factory: str | None,
    data: str | None,
    trained: Path | None,
    initial: Path | None,
    learning_rate: list[str],
) -> tuple[Network, Examples] | None:
    """The network that is named, by its name or its factories; None where none is."""
    if (factory is None) != (data is None) or (name is not None and factory is not None):
        raise SettingsError(
            "A network is the name of one of the zoo, or --network and --data together; give one of these, or neither."
        )
    if factory is None and (trained is not None or initial is not None or learning_rate):
        raise SettingsError(
            "Checkpoints and learning rates belong to a network of your own, but none was given; give --network and --data."
        )
    if name is not None:
        from feature_lens.networks.zoo import ZOO

        net = ZOO[name]()
        return net.shipped(), net.examples()
    if factory is None or data is None:
        return None
    from feature_lens.networks import Network
    from feature_lens.networks.factories import make_examples, make_module
    from feature_lens.networks.learning_rates import parsed_rates

    rates = parsed_rates(learning_rate)
    module = Network.from_module(make_module(factory), trained=trained, initial=initial, learning_rates=rates)
    return module, make_examples(data)


def _widths(
    widths: tuple[int, ...], depths: tuple[int, ...], seeds: int, time: float, workers: int
) -> dict[str, bytes]:
    from feature_lens.analysis.theory_figures import width_figure
    from feature_lens.dual.perturbation.widths import PREDICTIONS, WidthSettings, slopes, width_study

    settings = WidthSettings(widths, depths, seeds, time, workers)
    found = width_study(settings, lambda rows, total: _bar(rows, "network", total))
    table = slopes(found)
    tell(
        f"Medians over {seeds} seeds of the error on test points, relative to what training added; gradient flow to "
        f"T = {time:g} on 6 points, solved to 1e-9.\n"
    )
    _show(table)
    tell("\n" + "\n".join(f"{name:8} {words}" for name, words in PREDICTIONS.items()))
    for depth, of_depth in table.groupby("depth") if len(set(widths)) > 1 else ():
        own = of_depth.set_index("prediction")["slope"]
        tell(
            f"With {depth} hidden layer{'s' if depth != 1 else ''} the error of leading order falls as width to the power "
            f"{own['leading']:.2f}, that of next-to-leading order as {own['next']:.2f}."
        )
    return {"widths.csv": _csv(found), "slopes.csv": _csv(table), "widths.png": width_figure(found)}


def _network(network: Network, examples: Examples, time: float | None, side: int) -> dict[str, bytes]:
    from feature_lens.analysis.expansion_tables import (
        LIMITS,
        best_order,
        course_sentence,
        order_table,
        training_of,
        verdict_on,
    )
    from feature_lens.analysis.theory_figures import course_figure
    from feature_lens.dual.perturbation.course import expansion_course
    from feature_lens.dual.perturbation.expansion import ExpansionSettings, expansion

    settings = ExpansionSettings(time=time, most_side=side)
    found, _ = expansion(network, examples, settings)
    course = expansion_course(network, examples, settings, progress=lambda times: _bar(times, "time"))
    for sentence in (
        LIMITS,
        training_of(found),
        verdict_on(found),
        best_order(found),
        course_sentence(course, found.matched),
    ):
        tell(sentence)
    tell("")
    orders = order_table(found)
    _show(orders)
    tell("")
    _show(course)
    return {"orders.csv": _csv(orders), "course.csv": _csv(course), "course.png": course_figure(course)}


def _algorithms(own: tuple[Network, Examples] | None, most_steps: int) -> dict[str, bytes]:
    import numpy as np

    from feature_lens.dual.perturbation.algorithms import AlgorithmSettings, algorithm_study
    from feature_lens.dual.perturbation.expansion import targets_of
    from feature_lens.dual.perturbation.widths import network_of, task

    if own is None:
        network, (examples, targets, test) = network_of(2, 64, 0), task(16, 64)
    else:
        network, every = own
        if every.training is None or every.training.all():
            raise SettingsError(
                "Algorithms are compared on held-out examples, but there are none; give data with a split."
            )
        held = np.flatnonzero(~every.training)
        examples, test = every.on(every.fitting), every.on(held)
        targets = targets_of(examples, network.check(examples))
    settings = AlgorithmSettings(most_steps=most_steps)
    found = algorithm_study(
        network, examples, targets, test, settings=settings, progress=lambda some: _bar(some, "algorithm")
    )
    tell(
        "Each algorithm until its training loss is 5 % of the initial one, or its steps are spent; errors of the expansion of full-batch descent of "
        "as many steps, and distances from the first algorithm's outputs, relative to what training added:\n"
    )
    _show(found.trained)
    tell(
        "\nLeading effective features of every pair (overlap 1: the same span; correlation of features matched one to one):\n"
    )
    _show(found.pairs)
    tell(f"\nEach feature of {found.trained['algorithm'][0]}, and its correlation with its match:\n")
    _show(found.features.reset_index())
    return {
        "trained.csv": _csv(found.trained),
        "pairs.csv": _csv(found.pairs),
        "features.csv": _csv(found.features.reset_index()),
    }


def _numbers(text: str, what: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"The {what} are whole numbers such as 32,128, but '{text}' came; write them so.") from None


def _bar(items: Iterable[T], unit: str, total: int | None = None) -> Iterable[T]:
    from tqdm import tqdm

    return tqdm(items, unit=unit, total=total, disable=None)


def _show(table: pd.DataFrame) -> None:
    tell(table.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.3g}"))


def _csv(table: Any) -> bytes:
    made: bytes = table.to_csv(index=False, lineterminator="\n").encode()
    return made


def _write(files: Mapping[str, bytes], folder: Path, overwrite: bool) -> None:
    from feature_lens.store import write_bytes

    for name, content in files.items():
        write_bytes(content, folder / name, overwrite)
    tell(f"\nWrote {', '.join(files)} to {folder}.")
