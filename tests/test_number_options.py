"""Every number option of every command, as far as it goes in each direction: right, or one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from synthetic import contents
from typer.main import get_command

from feature_lens import cli
from feature_lens.store.writer import write_run

_NET = """
import numpy as np, torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))
def data(): return np.random.default_rng(0).normal(size=(6, 2)), np.arange(6) % 2
"""
_MADE = ["--network", "net.py:net", "--data", "net.py:data", "--initial", "start.pt"]
_EXTRACT = ["extract", *_MADE, "--out", "out.h5", "--set", "eigen", "--no-neurons"]
_WIDTHS = ["theory", "--widths", "2", "--depths", "1", "--seeds", "1", "--out", "theory"]
_STUDY = ["study", "digits", "--out", "studies"]
# Lines that a command is tried with, short ones; the later ones take options of `_BY_LINE`.
_LINES = {
    "train": [["train", "linear", "--out", "trained"]],
    "extract": [_EXTRACT, [*_EXTRACT, "--dual"]],
    "kernel": [["kernel", *_MADE, "--out", "out.h5"]],
    "theory": [["theory", *_MADE, "--out", "theory"], ["theory", *_MADE, "--algorithms", "--out", "theory"], _WIDTHS],
    "study": [_STUDY],
    "export": [["export", "run.h5", "--set", "eigen", "--out", "out.csv", "--format", "csv"]],
    "table": [["table", "run.h5", "interactions"]],
}
_BY_LINE = {"--trained-step", "--trained-time", "--most-steps", "--seeds", "--workers", "--time"}
_VALUES = {
    "int": ["0", "-1", str(10**21), "nan"],
    "float": ["0", "-1", "1e-300", "1e300", "nan", "inf"],
}
# What asks for so many processes or so long a study that to try it takes minutes.
_LONG = {("study", "--workers"), ("theory", "--workers")}
_WHOLE = [*_VALUES["int"], str(2**63), "", "９"]
_REAL = [*_VALUES["float"], "1e-320", "1e400", "1,5"]
_SIZES = ["0", "-1", str(10**9), str(2**63), str(10**21), "nan", "1.5", ""]
# Numbers inside of text: the line, the option, how the number stands in it, the values.
_WRITTEN: list[tuple[list[str], str, str, list[str]]] = [
    (_EXTRACT, "--learning-rate", "*={}", _REAL),
    (_EXTRACT, "--set", "eigen/output:{}", _WHOLE),
    (_EXTRACT, "--set", "eigen+{}", _WHOLE),
    ([*_EXTRACT, "--trained", "start.pt"], "--snapshot", "{}=start.pt", _WHOLE),
    ([*_EXTRACT, "--dual", "--trained-time", "9"], "--trained-step", "{}", _REAL),
    (
        [*_EXTRACT, "--dual", "--trained-step", ".01"],
        "--trained-time",
        "{}",
        ["-1", "1.5", "1e7", "nan", "inf", "1e400"],
    ),
    (_LINES["kernel"][0], "--learning-rate", "*={}", _REAL),
    (_LINES["kernel"][0], "--outputs", "output:{}", _WHOLE),
    (_WIDTHS, "--widths", "{}", _SIZES),
    (_WIDTHS, "--depths", "{}", _SIZES),
    (_LINES["export"][0], "--view", "output:{}", _WHOLE),
    (["app", "run.h5"], "--port", "{}", ["0", "-1", "65536", "nan", "1.5", str(10**21), "９", ""]),
    *(
        (["train", "modular_addition", "--out", "trained", "--recipe", "epochs=1"], "--recipe", f"{name}={{}}", _SIZES)
        for name in ("epochs", "modulus", "width", "seed")
    ),
    (
        ["train", "modular_addition", "--out", "trained", "--recipe", "epochs=1"],
        "--recipe",
        "training={}",
        ["0", "-1", "nan", "inf", "1e300"],
    ),
]


def _options() -> list[tuple[str, str, str]]:
    """(command, option, type) of every option that takes a number, so that none is forgotten when there are more."""
    found = []
    for name, command in cast(Any, get_command(cli.app)).commands.items():
        for parameter in command.params:
            kind = str(parameter.bare_type()).removeprefix("list[").removesuffix("]")
            found += [(name, parameter.opts[0], kind)] if kind in _VALUES else []
    return found


def _without(line: list[str], option: str) -> list[str]:
    """A line without an option that it gives once."""
    if option not in line:
        return line
    at = line.index(option)
    return line[:at] + line[at + 2 :]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "net.py").write_text(_NET)
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))
    torch.save(module.state_dict(), tmp_path / "start.pt")
    write_run(contents(12), tmp_path / "run.h5")
    return tmp_path


Try = Callable[[list[str]], bool]


@pytest.fixture
def refused(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Try:
    """Whether a line is refused, in one sentence, before what it asks for is computed."""

    def run(line: list[str]) -> bool:
        there = "--out" in line and (here / line[line.index("--out") + 1]).exists()
        monkeypatch.setattr(sys, "argv", ["feature-lens", *line, *(["--overwrite"] if there else [])])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        told = f"{' '.join(sys.argv)}: {said.err}"
        if stop.value.code == 0:
            assert said.err == "" or "Warning" not in said.err, told
            return False
        assert stop.value.code == 2, told
        assert len(said.err.strip().splitlines()) == 1, told
        assert "not foreseen" not in said.err, told
        assert "cannot be put into a file" not in said.err, told  # which is said when all is computed
        return True

    return run


@pytest.mark.parametrize(("command", "option", "kind"), _options())
def test_every_number_at_its_extremes_is_right_or_one_sentence(
    command: str, option: str, kind: str, refused: Try
) -> None:
    found = []
    for line in _LINES[command] if option in _BY_LINE else _LINES[command][:1]:
        values = [one for one in _VALUES[kind] if (command, option) not in _LONG or one != _VALUES["int"][2]]
        found += [refused([*_without(line, option), option, value]) for value in values]
    assert any(found)


@pytest.mark.parametrize("number", range(len(_WRITTEN)))
def test_every_number_in_a_text_is_right_or_one_sentence(number: int, refused: Try) -> None:
    line, option, text, values = _WRITTEN[number]
    kept = line if option in ("--recipe", "--set") else _without(line, option)
    kept = [*_without(kept, "--set"), "--no-neurons"] if option == "--set" else kept
    found = [refused([*kept, option, text.format(value)]) for value in values]
    assert any(found)


@pytest.mark.parametrize("command", sorted(cast(Any, get_command(cli.app)).commands))
def test_an_option_of_one_value_is_taken_once(command: str, refused: Try) -> None:
    for parameter in cast(Any, get_command(cli.app)).commands[command].params:
        if parameter.param_type_name == "option" and not parameter.multiple and not parameter.is_flag:
            given = [parameter.opts[-1], *["1"] * parameter.nargs]
            assert refused([command, *given, *given])
