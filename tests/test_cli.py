"""The command line: what it makes, what it says, and that an error is one sentence, status 2 and no loss."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import synthetic
import torch
from feature_lens_app import launch
from torch import nn

from feature_lens import cli, reading_commands
from feature_lens.analysis import (
    ExportRequest,
    TableRequest,
    export_bytes,
    open_run,
    report_html,
    report_name,
    table_bytes,
    table_name,
)
from feature_lens.shown import shown
from feature_lens.store import specification, write_run
from feature_lens.terminal import tell

SOURCE = """
import numpy as np, torch
from feature_lens.examples import Examples

rng = np.random.default_rng(0)
X = rng.standard_normal((20, 6)).astype("float32")
Y = rng.integers(0, 3, 20)

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))

def data():
    return Examples.from_arrays(X, Y, split=np.arange(20) < 14, class_names=["ant", "bee", "cat"])

def one_class(): return X, np.ones(20, dtype=int)
def wide(): return np.zeros((20, 7)), Y
def unequal(): return X, Y[:4]
def empty(): return np.zeros((0, 6)), []
def one(): return X[:1], Y[:1]
def nan(): return np.where(X > 2, np.nan, X), Y
def out_of_range(): return X, Y + 1
def duplicates(): return Examples.from_arrays(X, Y, ids=[1] * 20)
def raising(): raise RuntimeError("no\\nluck")
def colourful(): raise RuntimeError("\\x1b]0;title\\x07\\u202ered \\x1b[31m")
def dropping(): return torch.nn.Sequential(torch.nn.Dropout(), net())
def norming(): return torch.nn.Sequential(torch.nn.BatchNorm1d(6), net())
def frozen(): return net().requires_grad_(False)
def diverged():
    made = net()
    made[0].weight.data[0, 0] = float("nan")
    return made
class Centring(torch.nn.Sequential):
    def forward(self, x): return super().forward(x - x.mean(dim=0))
class Noisy(torch.nn.Sequential):
    def forward(self, x): return super().forward(x + torch.randn_like(x))
def centring(): return Centring(net())
def noisy(): return Noisy(net())
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file of factories, checkpoints, and things that must not be lost."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "net.py").write_text(SOURCE)
    (tmp_path / "there.h5").write_bytes(b"precious")
    net = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    torch.save(net.state_dict(), "trained.pt")
    torch.save(nn.Linear(6, 4).state_dict(), "other.pt")
    torch.save(net, "code.pt")
    (tmp_path / "none.pt").write_text("not a checkpoint")
    return tmp_path


Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Runs the command line in this process: exit status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["feature-lens", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return run


# Its run file is made by a process of its own, once.


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run made by the command line, with every kind of set."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "net.py").write_text(SOURCE)
    line = ["extract", "--network", "net.py:net", "--data", "net.py:data", "--out", "run.h5", "--components", "3"]
    for name in ("eigen", "eigen/trace", "unit", "canonical"):
        line += ["--set", name]
    done = _subprocess(line, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Wrote run.h5" in done.stdout
    return folder / "run.h5"


def _subprocess(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from feature_lens.cli import main; main()", *arguments]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _sentence(found: tuple[int, str, str]) -> str:
    """The one sentence of a command that failed."""
    status, out, err = found
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("Error: ")
    assert err.endswith((".\n", "?\n"))
    assert err.count("\n") == 1
    return err


# Help


def test_help_answers_with_examples_and_loads_nothing_heavy(here: Path) -> None:
    code = """
import sys
from feature_lens import cli
for command in ([], ["demo"], ["extract"], ["info"], ["export"], ["table"], ["report"], ["app"]):
    sys.argv = ["feature-lens", *command, "--help"]
    try:
        cli.main()
    except SystemExit as left:
        assert left.code == 0, left.code
    heavy = {"torch", "captum", "streamlit", "h5py", "pandas", "numpy", "sklearn", "scipy"} & set(sys.modules)
    assert not heavy, heavy
    print("=====")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = done.stdout.split("=====\n")
    assert pages.pop() == ""
    assert len(pages) == 8
    for command, page in zip(["", "demo", "extract", "info", "export", "table", "report", "app"], pages, strict=True):
        assert f"Usage: feature-lens {command}" in page
        assert "Example: feature-lens" in page
        assert "--help" in page
    for command in ("demo", "extract", "info", "export", "table", "report", "app"):
        assert command in pages[0]
    for option in ("--network", "--data", "--out", "--trained", "--initial", "--set", "--layers", "--learning-rate"):
        assert option in pages[2]


def test_without_a_command_it_shows_its_help(invoke: Invoke) -> None:
    status, out, err = invoke()
    assert status == 2
    assert "Usage: feature-lens" in out + err
    assert "Traceback" not in err


# What is in a name


ACTING = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e"


def test_escape_codes_in_names_are_shown_not_sent(invoke: Invoke, here: Path) -> None:
    made = synthetic.contents(12)
    card = replace(made.sets["unit"].card, title=f"{ACTING}title")
    network = replace(made.network, name=f"{ACTING}\nrun       forged", metrics={f"{ACTING}key": 0.5})
    sets = {"unit": replace(made.sets["unit"], card=card)}
    write_run(replace(made, name=f"{ACTING}name", network=network, sets=sets), "hostile.h5")
    torch.save({f"{ACTING}key": torch.zeros(1)}, "keys.pt")
    (here / "warning.py").write_text(f"import warnings\nwarnings.warn({ACTING!r})\n" + SOURCE)
    extracted = ["extract", "--data", "net.py:data", "--out", "run.h5", "--network"]
    said = {
        "info": invoke("info", "hostile.h5"),
        "a key": invoke(*extracted, "net.py:net", "--trained", "keys.pt"),
        "an option": invoke("export", "hostile.h5", "--set", f"{ACTING}set"),
        "a path": invoke("info", f"{ACTING}.h5"),
        "a choice": invoke("info", "hostile.h5", f"--{ACTING}"),
        "a warning": invoke(*extracted, "warning.py:nothing"),
        "a trace": invoke(*extracted, "net.py:net", "--trained", "keys.pt", "--debug"),
    }
    for what, (_, out, err) in said.items():
        assert "x1b" in out + err, what
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out + err), (what, out + err)
    assert sum(line.startswith("run ") for line in said["info"][1].splitlines()) == 1


def test_a_terminal_without_a_letter_is_sent_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = io.BytesIO()
    stream = io.TextIOWrapper(sent, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    tell("ß \ud800")
    stream.flush()
    assert sent.getvalue() == b"\\xdf \\ud800\n"


# extract


def test_extract_with_several_sets_and_settings(invoke: Invoke, here: Path) -> None:
    status, out, err = invoke(
        *("extract", "--network", "net.py:net", "--data", "net.py:data", "--out", "run.h5"),
        *("--trained", "trained.pt", "--initial", "trained.pt", "--name", "toy", "--no-neurons"),
        *("--set", "eigen", "--set", "eigen/output:1@initial", "--set", "unit/sum", "--set", "canonical/margin"),
        *(
            "--layers",
            "0.weight",
            "--layers",
            "2",
            "--learning-rate",
            "*.bias=0.25",
            "--components",
            "3",
            "--keep",
            "4",
        ),
        *("--centred", "--precision", "float32", "--tile", "8", "--batch-size", "5", "--workers", "1"),
    )
    assert (status, err) == (0, "")
    assert "Wrote run.h5" in out
    assert "feature-lens app run.h5" in out
    with open_run("run.h5") as run:
        assert run.name == "toy"
        assert list(run.sets) == [
            "eigen_centred_0.weight_2",
            "eigen_output_1_initial_centred_0.weight_2",
            "unit_sum_0.weight_2",
            "weights_margin_0.weight_2",
        ]
        assert run.network.parameters.learning_rates == (1.0, 0.25, 1.0, 0.25)
        settings = run.provenance.settings
        assert (settings["keep"], settings["tile"]) == (4, 8)
        assert "batch_size" not in settings
        eigen = run.sets["eigen_centred_0.weight_2"]
        assert len(eigen) == 3
        assert eigen.read("highest/position").shape[2] == 4
        assert len(run.sets["weights_margin_0.weight_2"]) == 6 * 4 + 4 * 3 + 3
        wanted = torch.load("trained.pt", weights_only=True)["2.bias"].numpy()
        np.testing.assert_array_equal(np.asarray(run.network.trained)[-3:], wanted)
        assert run.network.initial is not None
    assert set(_contents(here)) == {"code.pt", "net.py", "none.pt", "other.pt", "run.h5", "there.h5", "trained.pt"}


def test_extract_by_default_makes_the_four_sets_and_all_neurons(run_file: Path) -> None:
    with open_run(run_file) as run:
        assert list(run.sets)[:4] == ["eigen", "eigen_trace", "unit", "weights"]
        assert [name for name in run.sets if name.startswith("neurons")] == ["neurons_0", "neurons_1"]
        assert run.name == "run"
        untold = "No trained checkpoint was given: the parameters are those that the factory returned."
        assert untold in run.provenance.remarks


def test_one_class_is_not_an_error_but_said(invoke: Invoke) -> None:
    line = ["extract", "--network", "net.py:net", "--data", "net.py:one_class", "--out", "run.h5", "--set", "unit"]
    status, out, err = invoke(*line, "--no-neurons")
    assert (status, err) == (0, "")
    assert "All examples are of one class (1), so class profiles say nothing." in out


def test_a_module_in_the_working_directory_is_found(invoke: Invoke, here: Path) -> None:
    (here / "my_package").mkdir()
    (here / "my_package" / "my_factories.py").write_text(SOURCE)
    spec = "my_package.my_factories"
    line = ["extract", "--network", f"{spec}:net", "--data", f"{spec}:data", "--out", "run.h5", "--set", "unit"]
    assert invoke(*line)[0] == 0


BAD_EXTRACT: dict[str, tuple[list[str], str]] = {
    "no snapshot": (["--snapshot", "ten=trained.pt"], "A snapshot is written STEP=PATH"),
    "no such snapshot": (["--snapshot", "1=missing.pt"], "There is no checkpoint 'missing.pt'"),
    "last snapshot": (["--initial", "trained.pt", "--snapshot", "1=trained.pt"], "The last snapshot must be the trained parameters"),
    "wrong shapes": (["--data", "net.py:wide"], "does not take inputs of shape"),
    "unequal lengths": (["--data", "net.py:unequal"], r"Targets are numbers of shape \(20,\)"),
    "empty data": (["--data", "net.py:empty"], "with at least one example"),
    "one example": (["--data", "net.py:one"], "at least two examples, but one came"),
    "nan in data": (["--data", "net.py:nan"], "Inputs must be finite"),
    "nan in weights": (["--network", "net.py:diverged"], "must be finite, but '0.weight' holds 1 NaN"),
    "labels out of range": (["--data", "net.py:out_of_range"], "labels must be 0 to 2, the outputs of the network, but 1 to 3 came"),
    "duplicate ids": (["--data", "net.py:duplicates"], "Ids must be unique"),
    "a checkpoint of another net": (["--trained", "other.pt"], "'0.weight' is missing and 'weight' is not a part"),
    "another initial checkpoint": (["--initial", "other.pt"], "The initial state must name the parameters"),
    "no checkpoint": (["--trained", "none.pt"], "'none.pt' is not a checkpoint"),
    "a missing checkpoint": (["--trained", "missing.pt"], "There is no checkpoint 'missing.pt'"),
    "a checkpoint that runs code": (["--trained", "code.pt"], "would run code when loaded"),
    "a run as checkpoint": (["--trained", "there.h5"], "A checkpoint ends in .pt, .pth, .ckpt, .bin or .safetensors"),
    "dropout": (["--network", "net.py:dropping"], "Dropout must be off"),
    "batch norm": (["--network", "net.py:norming"], "Batch statistics must not be in use"),
    "nothing to train": (["--network", "net.py:frozen"], "at least one trainable parameter"),
    "depends on the batch": (["--network", "net.py:centring"], "must not depend on the batch"),
    "random": (["--network", "net.py:noisy"], "two passes differed"),
    "no network": (["--network", "net.py:data"], "must return a torch.nn.Module, but Examples came"),
    "a factory that raises": (["--data", "net.py:raising"], "raised RuntimeError: no; mend it"),
    "a factory that raises escape codes": (["--data", "net.py:colourful"], r"RuntimeError: \\x1b\]0;title\\x07\\u202ered \\x1b\[31m; mend it"),
    "a missing factory": (["--network", "net.py:nothing"], "has no function 'nothing'"),
    "a missing file": (["--network", "nothing.py:net"], "There is no file 'nothing.py'"),
    "no factory": (["--network", "net.py"], "is named 'pkg.mod:make' or 'file.py:make', but 'net.py' came"),
    "an existing output": (["--out", "there.h5"], "'there.h5' exists already; choose another name or .* --overwrite"),
    "a folder as output": (["--out", "."], "'.' is a folder; give a file name"),
    "a missing folder": (["--out", "missing/run.h5"], "The folder 'missing' does not exist"),
    "a file as folder": (["--out", "there.h5/run.h5"], "The folder 'there.h5' does not exist"),
    "a folder without room": (["--out", "/proc/run.h5"], "Nothing can be written in '/proc'"),
    "too long a name": (["--out", "x" * 300], "File name too long"),
    "an unknown basis": (["--set", "eigne"], "Did you mean 'eigen'"),
    "unknown outputs": (["--set", "eigen/trance"], "Did you mean 'trace'"),
    "an output too many": (["--set", "eigen/output:3"], "output:?.?3|outputs? .*3"),
    "an unknown place": (["--set", "eigen@start"], "No feature kind is called 'start'"),
    "initial without parameters": (["--set", "eigen@initial"], "none were given; pass initial"),
    "no basis": (["--set", "/trace"], r"A set is written BASIS/OUTPUTS\[\+OPTION\]\[@AT\], but '/trace' came"),
    "a rate twice": (["--learning-rate", "*=1", "--learning-rate", "*=2"], "takes one learning rate, but was given two"),
    "a layer twice": (["--layers", "0", "--layers", "0"], "named once, but '0' came more than once"),
    "two numbers of features": (["--set", "eigen+2+3"], "A set has each option once"),
    "centred and uncentred": (["--set", "pca/neurons:0+centred+uncentred"], "is centred or uncentred"),
    "factors of no weights": (["--set", "unit", "--factors"], "add --set canonical, or leave --factors out"),
    "the same set twice": (["--set", "unit", "--set", "unit"], "Two feature sets are called 'unit'"),
    "an unknown layer": (["--layers", "9"], "9"),
    "an unknown hidden layer": (["--neurons", "9"], "9"),
    "neurons and none": (["--neurons", "1", "--no-neurons"], "at the same time"),
    "nothing to keep": (["--keep", "0"], "'keep' must be at least 1"),
    "no components": (["--components", "0"], "eigen feature"),
    "an empty tile": (["--tile", "0"], "'tile' must be at least 1"),
    "no batch": (["--batch-size", "0"], "'batch_size' must be at least 1"),
    "nobody at work": (["--workers", "0"], "'workers' must be at least 1"),
    "an unknown precision": (["--precision", "float16"], "precision is float64 or float32"),
    "unknown outputs to rank": (["--rank-outputs", "some"], "some"),
    "an unknown reduction": (["--reduce", "mxa"], "Did you mean 'max'"),
    "a rate that is no number": (["--learning-rate", "*.bias=fast"], r"PATTERN=VALUE, but '\*.bias=fast' came"),
    "a rate without pattern": (["--learning-rate", "0.1"], "PATTERN=VALUE, but '0.1' came"),
    "a rate of nothing": (["--learning-rate", "9.bias=0.1"], "The pattern '9.bias' names no parameter"),
    "a negative rate": (["--learning-rate", "*=-1"], "must be positive, but -1.0 came"),
    "a word for a number": (["--keep", "many"], "Invalid value for '--keep'.*; see 'feature-lens extract --help'"),
    "an unknown option": (["--kep", "3"], "No such option"),
    "an argument too many": (["extra"], "extra"),
    "an option twice": (["--keep", "3", "--keep", "4"], "The option --keep takes one value, but was given 2 times; give it once"),
    "its own source as output": (["--out", "net.py", "--overwrite"], "'net.py' is read by this command and is never replaced by it"),
    "its module as output": (["--network", "net:net", "--out", "net.py", "--overwrite"], "'net.py' is read by this command"),
    "its checkpoint as output": (["--trained", "trained.pt", "--out", "./trained.pt", "--overwrite"], "'trained.pt' is read by this command"),
    "its snapshot as output": (["--snapshot", "1=trained.pt", "--out", "trained.pt", "--overwrite"], "'trained.pt' is read by this command"),
    "one of its snapshots as output": (["--snapshot", ".", "--out", "other.pt", "--overwrite"], "'other.pt' is read by this command"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_EXTRACT)
def test_bad_input_to_extract_is_one_sentence_and_loses_nothing(case: str, invoke: Invoke, here: Path) -> None:
    changes, sentence = BAD_EXTRACT[case]
    line = {"--network": "net.py:net", "--data": "net.py:data", "--out": "run.h5"}
    given = [part for option, value in line.items() if option not in changes for part in (option, value)]
    before = _contents(here)
    said = _sentence(invoke("extract", *given, *changes))
    assert re.search(sentence, said), said
    assert _contents(here) == before


def test_missing_options_and_unknown_commands(invoke: Invoke) -> None:
    assert "Missing option '--network'" in _sentence(invoke("extract"))
    assert "No such command 'extrakt'" in _sentence(invoke("extrakt"))


def test_a_file_is_replaced_only_on_request_and_only_by_a_whole_one(invoke: Invoke, here: Path) -> None:
    line = ["extract", "--network", "net.py:net", "--out", "there.h5", "--overwrite", "--set", "unit", "--no-neurons"]
    _sentence(invoke(*line, "--data", "net.py:nan"))
    assert (here / "there.h5").read_bytes() == b"precious"
    assert invoke(*line, "--data", "net.py:data")[0] == 0
    with open_run("there.h5") as run:
        assert list(run.sets) == ["unit"]


# --debug


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_trace_wherever_it_stands(place: int, invoke: Invoke) -> None:
    line = ["info", "missing.h5"]
    line.insert(place, "--debug")
    status, _, err = invoke(*line)
    assert status == 2
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("Error: There is no run file 'missing.h5'")


def test_debug_shows_the_trace_of_the_users_own_code(invoke: Invoke) -> None:
    line = ["extract", "--network", "net.py:net", "--data", "net.py:raising", "--out", "run.h5", "--debug"]
    status, _, err = invoke(*line)
    assert status == 2
    assert "in raising" in err
    assert "RuntimeError: no" in err


def test_usage_errors_keep_their_status_under_debug(invoke: Invoke) -> None:
    status, _, err = invoke("extract", "--debug")
    assert status == 2
    assert err.splitlines()[-1].startswith("Error: Missing option")


def test_what_was_not_foreseen_is_a_sentence_too(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(path: Path) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(reading_commands, "print_card", surprise)
    assert "ZeroDivisionError: first line (not foreseen; --debug" in _sentence(invoke("info", "run.h5"))
    monkeypatch.setattr(reading_commands, "print_card", lambda _: np.empty(10**15))
    assert "Unable to allocate 7.11 PiB" in (said := _sentence(invoke("info", "run.h5")))
    assert said.rstrip().endswith("(memory ran out).")

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reading_commands, "print_card", refused)
    assert "The system refused" in _sentence(invoke("info", "run.h5"))

    def stopped(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reading_commands, "print_card", stopped)
    assert invoke("info", "run.h5") == (130, "", "Stopped; what was not finished was not written.\n")


# info


def test_info_prints_a_card_and_the_schema(invoke: Invoke, run_file: Path) -> None:
    status, out, err = invoke("info", str(run_file))
    assert (status, err) == (0, "")
    for part in ("eigen_trace", "neurons_1", "20", "accuracy (held-out)"):
        assert part in out
    assert invoke("info", "--schema") == (0, specification(), "")


def test_a_run_is_never_replaced_by_what_is_made_of_it(invoke: Invoke, run_file: Path, here: Path) -> None:
    (here / "own.h5").write_bytes(run_file.read_bytes())
    (here / "link.h5").symlink_to("own.h5")
    before = _contents(here)
    for out in ("own.h5", "link.h5"):
        for line in (["export", "own.h5", "--set", "unit"], ["table", "own.h5", "outputs"], ["report", "own.h5"]):
            assert f"'{out}' is read by this command" in _sentence(invoke(*line, "--out", out, "--overwrite"))
    assert _contents(here) == before
    assert "or --schema without one, but both came" in _sentence(invoke("info", "own.h5", "--schema"))
    assert "or --schema without one, but none was given" in _sentence(invoke("info"))
    for options in (["--example", "3"], ["--output", "0"], ["--out", "x.csv"], ["--format", "jsonl"], ["--overwrite"]):
        assert "Options of a table came without its name" in _sentence(invoke("table", "own.h5", *options))
    assert _contents(here) == before


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert shown("a\x1b[31m\x07\r\u202eß\n\t–\udc80\x9b") == "a\\x1b[31m\\x07\\r\\u202eß\n\t–\\udc80\\x9b"


def test_info_never_loads_torch(run_file: Path) -> None:
    code = f"""
import sys
from feature_lens import cli
for rest in (["--schema"], [{str(run_file)!r}]):
    sys.argv = ["feature-lens", "info", *rest]
    try:
        cli.main()
    except SystemExit as left:
        assert left.code == 0
assert not {{"torch", "captum", "streamlit"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_that_are_no_runs(invoke: Invoke, here: Path, run_file: Path) -> None:
    whole = run_file.read_bytes()
    (here / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (here / "flipped.h5").write_bytes(whole[:3000] + bytes([whole[3000] ^ 4]) + whole[3001:])
    with h5py.File("foreign.h5", "w") as file:
        file["x"] = [1, 2, 3]
    (here / "empty.h5").touch()
    before = _contents(here)
    for name, sentence in {
        "cut.h5": "'cut.h5' is damaged: it was cut off or changed",
        "flipped.h5": "'flipped.h5' is damaged",
        "foreign.h5": "is an HDF5 file, but not a feature_lens run",
        "there.h5": "is not a readable HDF5 file",
        "empty.h5": "is not a readable HDF5 file (it is empty)",
        "missing.h5": "There is no run file 'missing.h5'",
        ".": "There is no run file '.'",
    }.items():
        assert sentence in _sentence(invoke("info", name))
        assert sentence in _sentence(invoke("export", name, "--set", "eigen", "--out", "x.csv"))
    assert _contents(here) == before


# export


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "zip"])
def test_export_writes_the_bytes_of_the_analysis(kind: str, invoke: Invoke, run_file: Path, here: Path) -> None:
    status, out, err = invoke(
        *("export", str(run_file), "--set", "eigen", "--feature", "1", "--feature", "0", "--view", "output:2"),
        *("--end", "lowest", "--count", "3", "--format", kind, "--out", f"top.{kind}"),
    )
    assert (status, out, err) == (0, f"Wrote top.{kind}.\n", "")
    with open_run(run_file) as run:
        request = ExportRequest("eigen", (1, 0), ("output:2",), ("lowest",), 3)
        assert (here / f"top.{kind}").read_bytes() == export_bytes(run, request, kind)


def test_export_by_default_takes_all_and_names_the_file_itself(invoke: Invoke, run_file: Path, here: Path) -> None:
    before = set(_contents(here))
    assert invoke("export", str(run_file), "--set", "unit")[0] == 0
    (made,) = set(_contents(here)) - before
    with open_run(run_file) as run:
        assert (here / made).read_bytes() == export_bytes(run, ExportRequest("unit"), "csv")
    assert "exists already" in _sentence(invoke("export", str(run_file), "--set", "unit"))
    assert invoke("export", str(run_file), "--set", "unit", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--set", "eigne"], "Did you mean 'eigen'"),
        (["--feature", "99"], "has features 0 to 2, but 99 was asked for"),
        (["--feature", "0", "--feature", "0"], "some came twice"),
        (["--view", "scor"], "Did you mean 'score'"),
        (["--end", "middle"], "No end of a ranking is called 'middle'"),
        (["--count", "0"], "at least one example per end"),
        (["--format", "xlsx"], "No export format is called 'xlsx'"),
        (["--out", "there.h5"], "exists already"),
        (["--out", "missing/x.csv"], "The folder 'missing' does not exist"),
    ],
)
def test_bad_input_to_export(changes: list[str], sentence: str, invoke: Invoke, run_file: Path, here: Path) -> None:
    given = [] if "--set" in changes else ["--set", "eigen"]
    given += [] if "--out" in changes else ["--out", "x.csv"]
    before = _contents(here)
    assert sentence in _sentence(invoke("export", str(run_file), *given, *changes))
    assert _contents(here) == before


# table


def test_tables_are_listed_and_written_with_the_bytes_of_the_analysis(
    invoke: Invoke, run_file: Path, here: Path
) -> None:
    status, out, err = invoke("table", str(run_file))
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["outputs", "measures", "measure_curves"]
    given = ("table", str(run_file), "outputs", "--example", "3", "--format", "jsonl")
    with open_run(run_file) as run:
        request = TableRequest("outputs", 3)
        name = table_name(run, request, "jsonl")
        assert invoke(*given) == (0, f"Wrote {name}.\n", "")
        assert (here / name).read_bytes() == table_bytes(run, request, "jsonl")
    assert "exists already" in _sentence(invoke(*given))
    assert invoke(*given, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["output"], "Did you mean 'outputs'"),
        (["tickets"], "does not hold the table 'tickets'"),
        (["outputs", "--example", "20"], "examples are numbered 0 to 19, but 20 was asked for"),
        (["outputs", "--output", "-1"], "outputs are numbered 0 to 2, but -1 was asked for"),
        (["outputs", "--format", "zip"], "No table format is called 'zip'"),
        (["outputs", "--out", "there.h5"], "exists already"),
    ],
)
def test_bad_input_to_table(changes: list[str], sentence: str, invoke: Invoke, run_file: Path, here: Path) -> None:
    before = _contents(here)
    assert sentence in _sentence(invoke("table", str(run_file), *changes))
    assert _contents(here) == before


# report


def test_the_report_has_the_bytes_of_the_analysis(invoke: Invoke, run_file: Path, here: Path) -> None:
    with open_run(run_file) as run:
        name, wanted = report_name(run), report_html(run)
    assert invoke("report", str(run_file)) == (0, f"Wrote {name}.\n", "")
    assert (here / name).read_bytes() == wanted
    assert "exists already" in _sentence(invoke("report", str(run_file)))
    assert "There is no run file 'missing.h5'" in _sentence(invoke("report", "missing.h5"))
    assert invoke("report", str(run_file), "--overwrite")[0] == 0


# app and demo


@pytest.fixture
def busy() -> object:
    """A port that something listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield str(server.getsockname()[1])


def test_a_busy_port_is_said_before_anything_is_done(invoke: Invoke, run_file: Path, busy: str, here: Path) -> None:
    before = _contents(here)
    sentence = f"Port {busy} is busy; stop what uses it, or choose another with --port auto."
    assert sentence in _sentence(invoke("app", str(run_file), "--port", busy))
    assert sentence in _sentence(invoke("demo", "--out", "demo.h5", "--port", busy))
    for wrong in ("0", "65536", "-1", "eighty", "²", "٣"):
        assert f"or 'auto', but '{wrong}' came" in _sentence(invoke("app", str(run_file), f"--port={wrong}"))
    assert _contents(here) == before


def test_paths_that_are_not_there(invoke: Invoke, run_file: Path) -> None:
    assert "There is no 'missing.h5'; give run files or folders" in _sentence(invoke("app", "missing.h5"))
    assert "There is no 'missing'" in _sentence(invoke("app", str(run_file), "missing"))
    assert "Missing argument 'paths'; see 'feature-lens app --help'." in _sentence(invoke("app"))


def test_the_app_takes_the_place_of_this_process(
    invoke: Invoke, run_file: Path, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda *line: started.append(line))
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    status, out, err = invoke("app", str(run_file), "--port", free, "--base-path", "/a/b/", "--host-name", "a.org")
    assert (status, err) == (0, "")
    assert f"http://127.0.0.1:{free}/a/b/" in out
    ((program, line, environment),) = started
    assert program == line[0] == sys.executable
    assert line[1:6] == ["-P", "-m", "feature_lens_app.server", "--port", free]
    assert line[6:8] == ["--base-path=a/b", "--host-name=a.org"]
    assert line[line.index("--") + 1 :] == [str(run_file)]
    assert "STREAMLIT_SERVER_PORT" not in environment


def test_a_host_name_that_cannot_be_one_is_refused(invoke: Invoke, run_file: Path) -> None:
    for wrong in ("http://a.org", "a.org/b", "*", "a.org:99999", "a.org:", "-", "ä.org", "a b"):
        found = invoke("app", str(run_file), "--port", "auto", f"--host-name={wrong}")
        assert f"NAME or NAME:PORT as browsers send it, such as lens.example.org, but '{wrong}' came" in _sentence(
            found
        )


def test_a_path_prefix_that_cannot_be_one_is_refused(invoke: Invoke, run_file: Path) -> None:
    for wrong in ("/../x", "a b", "a//b", "\x1b", "a/.", "a?b", "http://a.org"):
        said = _sentence(invoke("app", str(run_file), "--port", "auto", f"--base-path={wrong}"))
        assert f"such as tools/lens, but '{shown(wrong)}' came; correct --base-path." in said
    for right in ("", "/", "a", "/a.b/c-1/"):
        assert "--base-path=" + right.strip("/") in launch.command([run_file], 8501, right)


def test_the_demo_refuses_an_existing_file_before_it_trains(
    invoke: Invoke, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_lens.networks.zoo.ZooNet.train", lambda *_: pytest.fail("trained"))
    for out in ("there.h5", "missing/x.h5"):
        _sentence(invoke("demo", "--no-app", "--out", out))
    assert (here / "there.h5").read_bytes() == b"precious"
    assert "drop --port or --no-app" in _sentence(invoke("demo", "--no-app", "--port", "9000"))
    line = ("train", "linear", "--out", "new", "--recipe", "epochs=1", "--recipe", "epochs=2")
    assert "'epochs' of a recipe takes one value" in _sentence(invoke(*line))


def test_train_writes_a_folder_and_says_how_to_go_on(invoke: Invoke, here: Path) -> None:
    status, said, _ = invoke("train", "digits", "--recipe", "epochs=1", "--recipe", "widths=64,3,10", "--out", "made")
    assert status == 0
    assert "Wrote initial.safetensors, trained.safetensors, recipe.json, net.py to made." in said
    line = said.splitlines()[-1].split()
    assert line[0] == "feature-lens"
    assert invoke(*line[1:], "--set", "unit", "--no-neurons")[0] == 0
    with open_run(here / "run.h5") as run:
        assert run.network.parameters.shapes[0] == (3, 64)
        assert run.network.initial is not None
    assert "is not empty" in _sentence(invoke("train", "digits", "--out", "made"))
    assert "Did you mean 'digits'?" in _sentence(invoke("demo", "digit", "--no-app"))


def test_snapshots_that_training_keeps_go_into_a_run(invoke: Invoke, here: Path) -> None:
    status, said, _ = invoke("train", "linear", "--recipe", "epochs=3", "--snapshots", "2", "--out", "made")
    assert status == 0
    line = said.splitlines()[-1].split()
    assert line[-4:] == ["--snapshot", "made", "--snapshot", "3=made/trained.safetensors"]
    assert invoke(*line[1:], "--set", "eigen/trace", "--components", "2", "--no-neurons")[0] == 0
    with open_run(here / "run.h5") as run:
        assert run.tables["dynamics"].arrays()["step"].tolist() == [0, 1, 2, 3]
        assert run.tables["feature_history"].arrays()["feature"].max() == 1


def test_what_a_killed_command_left_is_told_of_on_one_line(here: Path, run_file: Path) -> None:
    (here / ".0123456789abcdef.part").write_bytes(bytes(300_000))
    done = _subprocess(["report", str(run_file), "--out", "card.html"], here)
    assert (done.returncode, done.stdout) == (0, "Wrote card.html.\n")
    assert done.stderr == (
        "Warning: Processes that were killed left 1 unfinished file(s) of 0.3 MB in '.', such as '.0123456789abcdef.part'; "
        "nothing uses them, so remove them.\n"
    )


def test_as_a_program_of_its_own(here: Path, run_file: Path) -> None:
    program = Path(sys.executable).with_name("feature-lens")
    done = subprocess.run([program, "info", str(run_file)], cwd=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for arguments in (
        ["info", "missing.h5"],
        ["extract", "--network", "net.py:net", "--data", "net.py:nan", "--out", "x"],
    ):
        done = _subprocess(arguments, here)
        _sentence((done.returncode, done.stdout, done.stderr))
    # A reader that goes away, as `head` does, is no error.
    line = f"'{program}' info --schema | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=here, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_a_plan_is_printed_and_nothing_written(invoke: Invoke, here: Path) -> None:
    before = sorted(here.iterdir())
    given = ("--network", "net.py:net", "--data", "net.py:data", "--out", "there.h5", "--dual", "--plan")
    status, said, _ = invoke("extract", *given)
    assert status == 0
    assert "eigen: 60 rows of 43 effective features" in said
    assert "multiply-adds" in said
    assert "ablations: a pass of 20 examples" in said
    assert sorted(here.iterdir()) == before
    assert (here / "there.h5").read_bytes() == b"precious"
