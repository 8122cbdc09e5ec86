"""Kernels on disk: the same numbers as in memory, all of the file or nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from networks import mlp
from oracles import dense_jacobian, made

from feature_lens import cli
from feature_lens.errors import OutputError
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.store import kernel_file

FACTORY = """
import torch, numpy
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
def data():
    return numpy.random.default_rng(0).standard_normal((30, 4)), numpy.arange(30) % 3
"""

SPLIT = (
    FACTORY
    + """
from feature_lens import Examples
def data():
    inputs = numpy.random.default_rng(0).standard_normal((30, 4))
    return Examples.from_arrays(inputs, numpy.arange(30) % 3, split=numpy.arange(30) % 3 > 0)
"""
)


def test_blocks_on_disk_equal_the_kernel_in_memory(tmp_path: Path) -> None:
    network, examples = made(mlp(), (5,), 300, 3)
    design = EffectiveFeatures(network, examples)
    phi = np.concatenate([block for _, block in design.blocks()])
    for by in ("whole", "layer", "tensor"):
        path = tmp_path / f"{by}.h5"
        with kernel_file(path, design.kernel_shapes(by), design.dtype, examples.ids, {"by": by}) as filled:
            design.kernels(by=by, out=filled)
        with h5py.File(path) as file:
            parts = [file["kernel"]] if by == "whole" else list(file["of"].values())
            np.testing.assert_allclose(sum(part[()] for part in parts), phi @ phi.T, rtol=1e-11, atol=1e-11)
            np.testing.assert_array_equal(file["id"][()], examples.ids)


def test_a_failure_leaves_nothing_behind_and_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kernel.h5"
    path.write_bytes(b"mine")
    with (
        pytest.raises(RuntimeError),
        kernel_file(path, {"": (9, 9)}, np.float64, np.arange(3), {}, overwrite=True),
    ):
        raise RuntimeError
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]
    with (
        pytest.raises(OutputError, match="free"),
        kernel_file(tmp_path / "n.h5", {"": (1 << 30, 1 << 30)}, "f8", np.arange(3), {}),
    ):
        pass


def test_the_command_writes_a_kernel_or_prints_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    given = ["kernel", "--network", f"{tmp_path}/net.py:net", "--data", f"{tmp_path}/net.py:data"]
    status, said, _ = _told([*given, "--plan"], monkeypatch, capsys)
    assert (status, "kernel 90 x 90" in said, "pairs" in said) == (0, True, True)
    out = tmp_path / "kernel.h5"
    assert _told([*given, "--outputs", "trace", "--out", str(out)], monkeypatch, capsys)[0] == 0
    with h5py.File(out) as file:
        assert file["kernel"].shape == (30, 30)
    status, _, refused = _told([*given, "--out", str(out)], monkeypatch, capsys)
    assert (status, "exists already" in refused) == (2, True)
    status, _, refused = _told([*given, "--by", "row", "--out", str(tmp_path / "b.h5")], monkeypatch, capsys)
    assert (status, "whole, layer or tensor" in refused) == (2, True)


def test_the_command_takes_kinds_rates_and_parts_of_the_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(SPLIT)
    torch.manual_seed(1)
    start, end = (_module(bias) for bias in (0.5, 0.0))
    torch.save(start.state_dict(), tmp_path / "initial.pt")
    torch.save(end.state_dict(), tmp_path / "trained.pt")
    given = ["kernel", "--network", f"{tmp_path}/net.py:net", "--data", f"{tmp_path}/net.py:data"]
    given += ["--trained", f"{tmp_path}/trained.pt", "--initial", f"{tmp_path}/initial.pt"]
    given += ["--learning-rate", "*.bias=0.25", "--between", "training", "held-out"]
    x = np.random.default_rng(0).standard_normal((30, 4))
    rate = np.concatenate([[1.0 if value.ndim > 1 else 0.25] * value.numel() for value in end.parameters()])
    phi, phi_end = (dense_jacobian(module, x).reshape(90, -1) * np.sqrt(rate) for module in (start, end))
    rows = np.repeat(np.arange(30) % 3 > 0, 3)
    for at, wanted in (("initial", phi), ("effective", phi_end), ("sharp", (phi + phi_end) / 2)):
        out = tmp_path / f"{at}.h5"
        assert _told([*given, "--at", at, "--out", str(out)], monkeypatch, capsys)[0] == 0
        with h5py.File(out) as file:
            np.testing.assert_allclose(file["kernel"][()], wanted[rows] @ wanted[~rows].T, rtol=1e-11, atol=1e-11)
            assert (len(file["id"]), len(file["column_id"])) == (20, 10)
            assert json.loads(file.attrs["settings"])["between"] == ["training", "held-out"]
    status, said, _ = _told([*given, "--plan"], monkeypatch, capsys)
    assert (status, "between 20 and 10 examples" in said) == (0, True)
    for more, wanted_words in (
        (["--at", "last"], "feature kind"),
        (["--between", "all", "test"], "all, training or held-out"),
    ):
        line = [*(given if more[0] == "--at" else given[:-3]), *more, "--out", str(tmp_path / "n.h5")]
        status, _, refused = _told(line, monkeypatch, capsys)
        assert (status, wanted_words in refused) == (2, True), refused
    (tmp_path / "net.py").write_text(FACTORY)
    status, _, refused = _told([*given, "--out", str(tmp_path / "n.h5")], monkeypatch, capsys)
    assert (status, "There are no training examples" in refused) == (2, True), refused


def _module(shift: float) -> torch.nn.Sequential:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    with torch.no_grad():
        module[0].bias += shift
    return module


def _told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str, str]:
    monkeypatch.setattr(sys, "argv", ["feature-lens", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code, *capsys.readouterr()


def test_bfloat16_inputs_are_taken() -> None:
    inputs = torch.randn(5, 4).bfloat16()
    found = Examples.from_arrays(inputs)
    assert found.inputs.dtype == np.float32
    np.testing.assert_array_equal(found.inputs, inputs.float().numpy())
