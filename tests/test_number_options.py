"""Every number option of every command, as far as it goes in each direction: right, or one sentence."""

from __future__ import annotations

import sys
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
# What asks for so much that to try it takes minutes: networks of more seeds, descent of more steps, whole studies.
_LONG = {("theory", "--seeds"), ("theory", "--most-steps"), ("study", "--workers"), ("theory", "--workers")}


def _options() -> list[tuple[str, str, str]]:
    """(command, option, type) of every option that takes a number, so that none is forgotten when there are more."""
    found = []
    for name, command in cast(Any, get_command(cli.app)).commands.items():
        for parameter in command.params:
            kind = str(parameter.bare_type()).removeprefix("list[").removesuffix("]")
            found += [(name, parameter.opts[0], kind)] if kind in _VALUES else []
    return found


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


@pytest.mark.parametrize(("command", "option", "kind"), _options())
def test_every_number_at_its_extremes_is_right_or_one_sentence(
    command: str,
    option: str,
    kind: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused = 0
    for line in _LINES[command] if option in _BY_LINE else _LINES[command][:1]:
        for value in _VALUES[kind]:
            if (command, option) in _LONG and value == _VALUES["int"][2]:
                continue
            extra = (
                [] if "--out" not in line or not (here / line[line.index("--out") + 1]).exists() else ["--overwrite"]
            )
            monkeypatch.setattr(sys, "argv", ["feature-lens", *line, *extra, option, value])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            said = capsys.readouterr()
            told = f"{' '.join(sys.argv)}: {said.err}"
            if stop.value.code == 0:
                assert said.err == "" or "Warning" not in said.err, told
            else:
                assert stop.value.code == 2, told
                assert len(said.err.strip().splitlines()) == 1, told
                assert "not foreseen" not in said.err, told
                refused += 1
    assert refused > 0
