"""Devices: the same numbers wherever passes run, and one sentence for a device that cannot be used.

No accelerator is at hand. A pretend one (`far_device.py`) refuses what a real one would: tensors of two devices in one
operation, and numpy.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import mlp
from oracles import made

from feature_lens import cli
from feature_lens.errors import SettingsError
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network

# Every comparison is with the same network on the CPU, in one process that knows the pretend device.
_FAR = """
import sys
sys.path.insert(0, sys.argv[1])
import far_device
import numpy as np, torch
from test_rules import CASES
from feature_lens import EffectiveFeatures, Examples, ExtractSettings, Network, compute_run

def pair(name):
    make, data = CASES[name]
    torch.manual_seed(0)
    module = make().eval()
    examples = Examples.from_arrays(data(13), np.arange(13) % 2, split=np.arange(13) % 3 > 0)
    moved = {id(value): value.detach() + 0.1 * torch.randn_like(value) for value in module.parameters()}
    initial = {key: moved[id(value)] for key, value in module.state_dict(keep_vars=True).items() if id(value) in moved}
    return [Network.from_module(module, initial=module.state_dict() | initial, device=device)
            for device in ("cpu", "far")], examples

for name in ("tied", "twice"):
    (near, far), examples = pair(name)
    assert far.device.type == "far" and near.digest == far.digest, name
    for at in ("effective", "path") if name == "twice" else ("effective",):
        one, other = (EffectiveFeatures(network, examples, at) for network in (near, far))
        np.testing.assert_allclose(one.gram(), other.gram(), rtol=1e-12, atol=1e-12, err_msg=name)
        assert one.remarks == other.remarks, other.remarks
(near, far), examples = pair("cnn")
runs = [compute_run(network, examples, ExtractSettings(factors=True), progress=False) for network in (near, far)]
assert runs[0].provenance.fingerprint == runs[1].provenance.fingerprint
assert runs[1].provenance.remarks == (*runs[0].provenance.remarks, "Passes of the network ran on the device 'far:0'.")
for name, found in runs[1].sets.items():
    for key, column in found.columns.items():
        np.testing.assert_array_equal(np.asarray(column), np.asarray(runs[0].sets[name].columns[key]), f"{name} {key}")
np.testing.assert_array_equal(runs[0].network.trained, runs[1].network.trained)
"""


def test_a_device_that_is_not_the_processor_gives_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAR, str(Path(__file__).parent)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_cpu_may_be_named() -> None:
    network, examples = made(mlp(), (5,), 20, 3)
    named = Network.from_module(mlp().eval(), trained=network.trained, device=torch.device("cpu"))
    assert named.device == network.device == torch.device("cpu")
    np.testing.assert_array_equal(
        EffectiveFeatures(named, examples).gram(), EffectiveFeatures(network, examples).gram()
    )


@pytest.mark.parametrize("device", ["meta", "cuda:7", "gpu", ""])
def test_a_device_that_cannot_be_used_is_one_sentence(device: str) -> None:
    with pytest.raises(SettingsError, match=f"The device '{device}' cannot be used .*; choose another, such as cpu"):
        Network.from_module(mlp(), device=device)


def test_the_command_line_names_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(4, 2)\ndef data():\n    return torch.randn(6, 4)\n"
    )
    given = ["--network", f"{tmp_path}/net.py:net", "--data", f"{tmp_path}/net.py:data", "--plan"]
    for command in (["kernel"], ["extract", "--out", str(tmp_path / "run.h5")]):
        for device, status in (("cpu", 0), ("meta", 2)):
            monkeypatch.setattr(sys, "argv", ["feature-lens", *command, *given, "--device", device])
            with pytest.raises(SystemExit) as left:
                cli.main()
            told = capsys.readouterr().err
            assert (left.value.code, told.count("The device 'meta' cannot be used")) == (status, status // 2)
