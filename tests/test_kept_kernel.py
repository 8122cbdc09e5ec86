"""A kernel inside a run: the right numbers, only when asked for, block by block, and all of the file or nothing."""

from __future__ import annotations

import json
import resource
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from networks import mlp
from oracles import dense_jacobian, made

from feature_lens import cli
from feature_lens.analysis import open_run
from feature_lens.errors import OutputError, RunError, SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extract_run
from feature_lens.networks import Network
from feature_lens.run_contents import Deferred, KeptKernel
from feature_lens.store import RunFile, write_run
from feature_lens.store.seal import seal, sealed

SETS = (SetSettings("unit"),)


def _settings(kernel: str | None, memory: int = 512) -> ExtractSettings:
    return ExtractSettings(sets=SETS, neurons=(), kernel=kernel, memory=memory)


def _jacobian(network: Network, examples: Examples) -> np.ndarray:
    module = mlp().double()
    module.load_state_dict(dict(network.trained))
    return dense_jacobian(module, np.asarray(examples.inputs))


@pytest.mark.parametrize("outputs", ["trace", "flattened"])
def test_a_run_keeps_the_kernel_that_was_asked_for(outputs: str, tmp_path: Path) -> None:
    network, examples = made(mlp(), (5,), 13, 3)
    phi = _jacobian(network, examples)
    rows = phi.reshape(13, -1) if outputs == "trace" else phi.reshape(39, -1)
    path = extract_run(network, examples, tmp_path / "run.h5", _settings(outputs), progress=False)
    with open_run(path) as run:
        assert run.kernel is not None
        assert run.kernel.outputs == outputs
        np.testing.assert_allclose(np.asarray(run.kernel.value[:]), rows @ rows.T, rtol=1e-12, atol=1e-12)
    inside = compute_run(network, examples, _settings(outputs), progress=False).kernel
    assert inside is not None
    np.testing.assert_array_equal(inside.value[2], _kept(path)[2])


def _kept(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file["kernel/value"])


def test_no_kernel_is_kept_unless_asked_for(tmp_path: Path) -> None:
    network, examples = made(mlp(), (5,), 13, 3)
    path = extract_run(network, examples, tmp_path / "run.h5", _settings(None), progress=False)
    with open_run(path) as run, h5py.File(path) as file:
        assert run.kernel is None
        assert "kernel" not in file
    with pytest.raises(SettingsError, match=r"kernel that a run keeps .*'sum'"):
        compute_run(network, examples, _settings("sum"), progress=False)


def test_a_kernel_goes_to_the_file_in_blocks(tmp_path: Path) -> None:
    """Of a kernel of 33 MB never more than its blocks is in memory, and nothing of the reserved room stays."""
    network, examples = made(mlp(), (5,), 2048, 3)
    contents = compute_run(network, examples, _settings("trace", memory=16), progress=False)
    tracemalloc.start()
    path = write_run(contents, tmp_path / "run.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = 2048**2 * 8
    assert peak < 0.6 * size
    assert size < path.stat().st_size < size + 2_000_000
    assert contents.kernel is not None
    np.testing.assert_array_equal(_kept(path)[1000], contents.kernel.value[1000])


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    network, examples = made(mlp(), (5,), 300, 3)
    contents = compute_run(network, examples, _settings("flattened"), progress=False)
    path = tmp_path / "run.h5"
    path.write_bytes(b"mine")

    def fails(target: object) -> None:
        raise KeyboardInterrupt

    stopped = KeptKernel("flattened", Deferred((900, 900), np.dtype("f8"), fails))
    with pytest.raises(KeyboardInterrupt):
        write_run(replace(contents, kernel=stopped), path, overwrite=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(OutputError, match="could not be written"):
            write_run(contents, path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    huge = KeptKernel("flattened", Deferred((900, 901), np.dtype("f8"), fails))
    with pytest.raises(RunError, match="over its examples"):
        write_run(replace(contents, kernel=huge), path, overwrite=True)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kernel_that_does_not_fit_the_run_is_refused(tmp_path: Path) -> None:
    network, examples = made(mlp(), (5,), 13, 3)
    path = extract_run(network, examples, tmp_path / "run.h5", _settings("trace"), progress=False)
    for outputs, said in (("flattened", "needs s = 39"), ("sum", "trace or flattened")):
        with h5py.File(path, "r+") as file:
            file["kernel"].attrs["outputs"] = outputs
        path.write_bytes(path.read_bytes())
        seal(path)
        with pytest.raises(RunError, match=said):
            RunFile(path)


def test_a_seal_on_the_disk_is_that_of_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    seal(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == sealed(b"content")


def test_the_command_line_keeps_a_kernel_and_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(4, 2)\ndef data():\n    return torch.randn(6, 4)\n"
    )
    given = ["extract", "--network", f"{tmp_path}/net.py:net", "--data", f"{tmp_path}/net.py:data", "--no-neurons"]
    given += ["--set", "unit", "--out", str(tmp_path / "run.h5"), "--kernel", "trace"]
    for more, said in (["--plan"], "kernel, trace, in the run"), ([], "kernel    trace, 6 x 6 float64"):
        monkeypatch.setattr(sys, "argv", ["feature-lens", *given, *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert (left.value.code, said in capsys.readouterr().out) == (0, True)
    with open_run(tmp_path / "run.h5") as run:
        assert json.loads(json.dumps(dict(run.provenance.settings)))["kernel"] == "trace"
