"""The command line: feature-lens demo | train | extract | kernel | theory | study | info | export | table | report | app.

Imports stay inside the commands, so that --help answers at once and reading a run never loads torch.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from feature_lens import reading_commands, study_command, theory_commands
from feature_lens.errors import AppError, FeatureLensError, OutputError, SettingsError, in_brief, is_out_of_memory
from feature_lens.processes import STOPPED, stopped_by_signals
from feature_lens.reading_commands import Overwrite, print_card
from feature_lens.terminal import USAGE, Commands, failed, misused, sources, tell, tell_of_the_stop

app = typer.Typer(
    name="feature-lens",
    cls=Commands,
    help="Browse the effective features of a trained network beside its neurons.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Example: feature-lens demo",
)

Port = Annotated[str, typer.Option(help="Port of the app, or 'auto' for the next free one.")]
LearningRate = Annotated[
    list[str] | None,
    typer.Option(help="PATTERN=VALUE, lambda of matching parameters, such as '*.bias=0.1'; or pdlt."),
]
Device = Annotated[str, typer.Option(help="Where passes run, by torch's name: cpu, cuda and so on.")]
_ZOO: Final = (
    "Network of the zoo: digits, language_model, linear, mnist, modular_addition, modular_transformer, superposition"
)
Recipe = Annotated[
    list[str] | None, typer.Option(help="SETTING=VALUE that differs from the shipped recipe; repeatable.")
]
BasePath = Annotated[str, typer.Option(help="Path prefix, for an app behind a proxy.")]
HostName = Annotated[
    list[str] | None,
    typer.Option(help="NAME or NAME:PORT that browsers reach the app by, behind a proxy or a tunnel; repeatable."),
]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
) -> None:
    del debug  # taken from the arguments in main(), so that it may stand anywhere


@app.command(epilog="Example: feature-lens demo modular_addition --no-app --out sums.h5")
def demo(
    name: Annotated[str, typer.Argument(help=f"{_ZOO}.")] = "digits",
    out: Annotated[Path | None, typer.Option(help="Run file to write; NAME.h5 without it.")] = None,
    shipped: Annotated[bool, typer.Option("--shipped", help="Take the parameters that are shipped.")] = False,
    recipe: Recipe = None,
    no_app: Annotated[bool, typer.Option("--no-app", help="Stop before the app.")] = False,
    overwrite: Overwrite = False,
    port: Port = "8501",
) -> None:
    """Train a network that comes with the project, extract and rank its features, and open the app."""
    from feature_lens.store import check_writable

    if no_app and port != "8501":
        raise SettingsError("A port is that of the app, which --no-app leaves out; drop --port or --no-app.")
    target = check_writable(out or Path(f"{name}.h5"), overwrite)
    chosen = None if no_app else _port(port)
    from feature_lens.demos import demo_run

    demo_run(name, target, shipped=shipped, recipe=recipe or (), overwrite=overwrite)
    _tell(target)
    if chosen is not None:
        _serve([target], chosen)


@app.command(epilog="Example: feature-lens train modular_addition --recipe modulus=23 --out sums23")
def train(
    name: Annotated[str, typer.Argument(help=f"{_ZOO}.")],
    out: Annotated[Path, typer.Option(help="Folder for parameters, recipe and factories.")],
    recipe: Recipe = None,
    snapshots: Annotated[
        int | None, typer.Option(help="How many parameters to keep on the way; as many as are shipped without it.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a network that comes with the project, and write its parameters where extract can take them."""
    from feature_lens.demos import train_into
    from feature_lens.networks.zoo import ZOO

    files = train_into(name, out, recipe=recipe or (), snapshots=snapshots, overwrite=overwrite)
    epochs, taken = ZOO[name].from_text(recipe or ()).epochs, any(file.stem.startswith("epoch_") for file in files)
    tell(f"Wrote {', '.join(file.name for file in files)} to {out}. Extract its features with:")
    tell(
        f"feature-lens extract --network {out}/net.py:module --data {out}/net.py:examples "
        f"--trained {out}/trained.safetensors --initial {out}/initial.safetensors --out run.h5"
        + (f" --snapshot {out} --snapshot {epochs}={out}/trained.safetensors" if taken else "")
    )


@app.command(
    epilog="Example: feature-lens extract --network net.py:make --data net.py:data --trained trained.pt --out run.h5"
)
def extract(
    network: Annotated[str, typer.Option(help="Factory of the module: 'pkg.mod:make' or 'file.py:make'.")],
    data: Annotated[str, typer.Option(help="Factory of the data: Examples, (inputs, targets) or a torch Dataset.")],
    out: Annotated[Path, typer.Option(help="Run file to write.")],
    trained: Annotated[
        Path | None, typer.Option(help="Checkpoint after training (.pt, .pth, .ckpt, .bin, .safetensors).")
    ] = None,
    initial: Annotated[Path | None, typer.Option(help="Checkpoint before training.")] = None,
    snapshot: Annotated[
        list[str] | None,
        typer.Option(
            help="STEP=PATH, a checkpoint on the way, such as 10=epoch_000010.safetensors, or a folder of such, for "
            "training dynamics; repeatable, one of them the trained one."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="BASIS/OUTPUTS[+OPTION][@AT], such as eigen/trace+cosine or eigen/output:3@initial; AT is effective, "
            "initial, sharp, first_order or path; an OPTION is centred, uncentred, cosine or a number of features. For "
            "OUTPUTS also neurons:LAYER, neurons (every layer) or logits: canonical/neurons@initial; repeatable.",
        ),
    ] = None,
    components: Annotated[
        int | None,
        typer.Option(help="Features per set; by the basis without: 64 for eigen, where there is a gap for some."),
    ] = None,
    centred: Annotated[bool, typer.Option("--centred", help="Take the mean off before an eigen basis.")] = False,
    layers: Annotated[list[str] | None, typer.Option(help="Only these parameter tensors or modules.")] = None,
    neurons: Annotated[list[str] | None, typer.Option(help="Only these hidden layers as neurons.")] = None,
    reduce: Annotated[
        str, typer.Option(help="max, mean or absmax: what stands for a unit with many positions.")
    ] = "max",
    no_neurons: Annotated[bool, typer.Option("--no-neurons", help="Leave ordinary neurons out.")] = False,
    learning_rate: LearningRate = None,
    keep: Annotated[int, typer.Option(help="Examples kept at each end of a ranking.")] = 16,
    rank_outputs: Annotated[str, typer.Option(help="auto or all: outputs ranked for weight features.")] = "auto",
    factors: Annotated[
        bool,
        typer.Option("--factors", help="Keep what every weight feature's value on every example follows from."),
    ] = False,
    dual: Annotated[
        bool,
        typer.Option("--dual", help="Also fit the dual model, and share out what training added among features."),
    ] = False,
    flattened: Annotated[
        bool, typer.Option("--flattened", help="With --dual: regressions on whole kernels too, side p or n c.")
    ] = False,
    trained_step: Annotated[
        float, typer.Option(help="With --dual: step of the full-batch descent that trained the network; 0: a flow.")
    ] = 0.0,
    trained_time: Annotated[
        float | None, typer.Option(help="Its number of steps, or the flow's time; matched to the loss without.")
    ] = None,
    trained_otherwise: Annotated[
        str, typer.Option(help="How else it was trained, such as 'AdamW, cross-entropy'; then it has no expansion.")
    ] = "",
    kernel: Annotated[
        str | None, typer.Option(help="trace or flattened: also keep the kernel, summed over outputs or whole.")
    ] = None,
    precision: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    device: Device = "cpu",
    tile: Annotated[int | None, typer.Option(help="Examples per tile; shapes rounding.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples taken together; changes no value.")] = 256,
    workers: Annotated[int, typer.Option(help="Sets computed at a time; changes no value.")] = 2,
    memory: Annotated[int, typer.Option(help="MiB of working memory beside results, for each set.")] = 512,
    name: Annotated[str, typer.Option(help="Name of the run; the file's name without it.")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be computed, and stop.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Extract and rank the features of your own network on your own data."""
    from feature_lens.store import check_apart, check_writable

    if not plan:
        check_apart(check_writable(out, overwrite), [*sources(network, data, snapshot), trained, initial])
    from feature_lens.dynamics import parsed_snapshots
    from feature_lens.extract import DEFAULT_SETS, ExtractSettings, SetSettings, extract_run, extraction_plan
    from feature_lens.networks import Network
    from feature_lens.networks.factories import make_examples, make_module
    from feature_lens.networks.learning_rates import parsed_rates

    if no_neurons and neurons:
        raise SettingsError("Neurons were asked for and left out at the same time; drop --neurons or --no-neurons.")
    specs = sets or [f"{s.basis}/{s.outputs}" for s in DEFAULT_SETS]
    only = tuple(layers) if layers else None
    settings = ExtractSettings(
        sets=tuple(SetSettings.parsed(s, layers=only, n_components=components, centred=centred) for s in specs),
        neurons=() if no_neurons else tuple(neurons) if neurons else None,
        reduce=reduce,  # type: ignore[arg-type]  # checked where it is used, with a sentence
        keep=keep,
        rank_outputs=rank_outputs,  # type: ignore[arg-type]  # as above
        factors=factors,
        dual=dual,
        flattened=flattened,
        trained_step=trained_step,
        trained_time=trained_time,
        trained_otherwise=trained_otherwise,
        kernel=kernel,
        tile=tile,
        batch_size=batch_size,
        workers=workers,
        memory=memory,
    )
    module = make_module(network)
    frozen = Network.from_module(
        module,
        trained=trained,
        initial=initial,
        learning_rates=parsed_rates(learning_rate or []),
        precision=precision,  # type: ignore[arg-type]  # as above
        device=device,
    )
    untold = "No trained checkpoint was given: the parameters are those that the factory returned."
    remarks = (untold,) if trained is None else ()
    examples = make_examples(data)
    taken = parsed_snapshots(snapshot) if snapshot else None
    if plan:
        tell(extraction_plan(frozen, examples, settings, taken))
        return
    extract_run(frozen, examples, out, settings, name=name, overwrite=overwrite, remarks=remarks, snapshots=taken)
    _tell(out)


@app.command(
    epilog="Example: feature-lens kernel --network net.py:make --data net.py:data --outputs trace --out kernel.h5"
)
def kernel(
    network: Annotated[str, typer.Option(help="Factory of the module: 'pkg.mod:make' or 'file.py:make'.")],
    data: Annotated[str, typer.Option(help="Factory of the data: Examples, (inputs, targets) or a torch Dataset.")],
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")] = Path("kernel.h5"),
    trained: Annotated[
        Path | None, typer.Option(help="Checkpoint after training (.pt, .pth, .ckpt, .bin, .safetensors).")
    ] = None,
    initial: Annotated[Path | None, typer.Option(help="Checkpoint before training.")] = None,
    at: Annotated[
        str, typer.Option(help="Feature kind: effective, initial, sharp, first_order or path.")
    ] = "effective",
    outputs: Annotated[str, typer.Option(help="Output reduction: flattened, trace, output:3 and so on.")] = "flattened",
    between: Annotated[
        tuple[str, str], typer.Option(help="Examples of the rows and of the columns: all, training or held-out.")
    ] = ("all", "all"),
    by: Annotated[str, typer.Option(help="whole, layer or tensor: one kernel, or its parts, which add up.")] = "whole",
    each_output: Annotated[bool, typer.Option("--each-output", help="A kernel for each output alone.")] = False,
    layers: Annotated[list[str] | None, typer.Option(help="Only these parameter tensors or modules.")] = None,
    learning_rate: LearningRate = None,
    precision: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    device: Device = "cpu",
    memory: Annotated[int, typer.Option(help="MiB of working memory.")] = 512,
    plan: Annotated[bool, typer.Option("--plan", help="Print how each layer would be computed, and stop.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write the neural tangent kernel of your network to a file, block by block, or print how it is computed."""
    from feature_lens.extract_kernel import KernelSettings, extract_kernel, kernel_plan
    from feature_lens.networks import Network
    from feature_lens.networks.factories import make_examples, make_module
    from feature_lens.networks.learning_rates import parsed_rates
    from feature_lens.store import check_apart, check_writable

    if not plan:
        check_apart(check_writable(out, overwrite), [*sources(network, data), trained, initial])
    frozen = Network.from_module(
        make_module(network),
        trained=trained,
        initial=initial,
        learning_rates=parsed_rates(learning_rate or []),
        precision=precision,  # type: ignore[arg-type]  # checked where it is used, with a sentence
        device=device,
    )
    chosen = tuple(layers) if layers else None
    settings = KernelSettings(at, outputs, between, by, each_output, chosen, memory)  # type: ignore[arg-type]  # as above
    if plan:
        tell(kernel_plan(frozen, make_examples(data), settings))
        return
    extract_kernel(frozen, make_examples(data), out, settings, overwrite=overwrite, tell=tell)
    tell(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB).")


app.command(epilog="Example: feature-lens theory digits --out theory")(theory_commands.theory)
app.command(epilog="Example: feature-lens study digits --out studies")(study_command.study)
app.command(epilog="Example: feature-lens info digits.h5")(reading_commands.info)
app.command(epilog="Example: feature-lens export digits.h5 --set eigen --feature 0 --format zip --out top.zip")(
    reading_commands.export
)
app.command(epilog="Example: feature-lens table digits.h5 contributions_by_unit --example 3 --output 8")(
    reading_commands.table
)
app.command(epilog="Example: feature-lens report digits.h5 --out digits.html")(reading_commands.report)


@app.command("app", epilog="Example: feature-lens app digits.h5 --port auto")
def open_app(
    paths: Annotated[list[Path], typer.Argument(help="Run files, or folders of them.")],
    port: Port = "8501",
    base_path: BasePath = "",
    host_name: HostName = None,
) -> None:
    """Open runs in the browser app, on this machine only."""
    for path in paths:
        if not path.exists():
            raise AppError(f"There is no '{path}'; give run files or folders that hold them.")
    _serve(paths, _port(port), base_path, host_name or ())


def _tell(path: Path) -> None:
    print_card(path)
    tell(f"\nWrote {path} ({path.stat().st_size / 1e6:.1f} MB). Open it with: feature-lens app {path}")


def _port(wanted: str) -> int:
    from feature_lens_app.launch import free_port, port_in_use

    if wanted == "auto":
        return free_port()
    if not (wanted.isascii() and wanted.isdigit()) or not 0 < int(wanted) < 65536:
        raise AppError(f"A port is a number from 1 to 65535 or 'auto', but '{wanted}' came; give one of these.")
    if port_in_use(int(wanted)):
        raise AppError(f"Port {wanted} is busy; stop what uses it, or choose another with --port auto.")
    return int(wanted)


def _serve(paths: list[Path], port: int, base_path: str = "", host_names: Sequence[str] = ()) -> NoReturn:
    """Replace this process by the server, so that a signal ends it and the port is free again."""
    from feature_lens_app.launch import command, environment, url

    line = command(paths, port, base_path, host_names)
    tell(f"The app is at {url(port, base_path)} (stop it with Ctrl+C).")
    sys.stdout.flush()
    os.execve(line[0], line, environment())


def main() -> NoReturn:
    """Entry point: one sentence and status 2 for every error; --debug shows the trace. SIGTERM and a terminal that is
    closed stop it as Ctrl+C does."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not debug:
        warnings.showwarning = lambda message, *_, **__: tell(f"Warning: {' '.join(f'{message}'.split())}", err=True)
    try:
        with stopped_by_signals(tell_of_the_stop):
            status = app(arguments, standalone_mode=False, prog_name="feature-lens")
        if status == STOPPED:
            tell_of_the_stop()
    except FeatureLensError as error:
        status = failed(str(error), debug)
    except USAGE as error:
        status = misused(error, debug)
    except (typer.Abort, KeyboardInterrupt):
        tell_of_the_stop()
        status = STOPPED
    except BrokenPipeError:
        status = 0
    except OSError as error:
        status = failed(str(OutputError(f"The system refused: {error}; what was not finished was not written.")), debug)
    except Exception as error:  # noqa: BLE001  # a defect of ours or of the user's net: told in one line, traced by --debug
        why = "memory ran out" if is_out_of_memory(error) else "not foreseen; --debug shows the trace"
        status = failed(f"{type(error).__name__}: {in_brief(error)} ({why}).", debug)
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
