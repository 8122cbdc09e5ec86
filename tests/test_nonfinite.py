"""Numbers that are NaN, infinite or too large: counted, named with ids, left out of figures, whatever is asked for."""

from __future__ import annotations

import json
import warnings
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from feature_lens.analysis import open_run, run_card
from feature_lens.arrays import as_float32, narrowed
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extract_run
from feature_lens.extract_kernel import KernelSettings, extract_kernel
from feature_lens.features.decompositions import decompose
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.run_contents import RunContents

N = 30
X = np.random.default_rng(0).standard_normal((N, 3))
Y = (X[:, 0] > 0).astype(int)
FAR = np.flatnonzero(X[:, 1] > 1)
IDS = ", ".join(map(str, FAR[:3])) + ", ..."


class _Broken(nn.Module):
    """Two outputs, which far examples, or all, have of some other kind."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.readout, self.how = nn.Linear(3, 4), nn.Linear(4, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.readout(torch.tanh(self.hidden(x)))
        far = x[:, 1:2] > 1
        if self.how == "nan":
            return torch.where(far, torch.nan, outputs)
        if self.how == "infinite":
            return torch.where(far, -torch.inf, outputs)
        return outputs * {"all nan": torch.nan, "large": 1e45, "huge": 1e200}[self.how]


def _run(how: str, *sets: SetSettings, **more: Any) -> tuple[RunContents, str]:
    """A run, in which no warning of numpy is seen, and all its remarks."""
    module = _Broken(how)
    initial = {name: value + 0.1 for name, value in module.state_dict().items()}
    network = Network.from_module(module.eval(), initial=initial)
    examples = Examples.from_arrays(X, Y, split=np.arange(N) < 20)
    settings = ExtractSettings(sets=sets, neurons=more.pop("neurons", ()), **more)
    run = compute_run(network, examples, settings, progress=False)
    return run, "\n".join(run.provenance.remarks)


ASKED: dict[str, tuple[tuple[SetSettings, ...], dict[str, Any]]] = {
    "unit": ((SetSettings("unit"),), {"ablation": 2}),
    "canonical": ((SetSettings("canonical"),), {}),
    "eigen": ((SetSettings("eigen", "trace"),), {}),
    "logits": ((SetSettings("canonical", "logits"),), {}),
    "neurons": ((), {"neurons": None, "ablation": 2}),
    "dual": ((SetSettings("unit"),), {"dual": True}),
}


@pytest.mark.parametrize("how", ["nan", "infinite"])
@pytest.mark.parametrize("asked", ASKED)
def test_outputs_that_are_not_finite_are_named_whatever_is_asked_for(asked: str, how: str) -> None:
    sets, more = ASKED[asked]
    run, said = _run(how, *sets, **more)
    assert (
        f"The outputs of {len(FAR)} of 30 examples (ids {IDS}) are NaN or infinite; they are left out of accuracy"
        in said
    )
    assert run.dual is None
    assert ("The dual model is left out, since it needs outputs that are finite" in said) == (asked == "dual")
    assert (f"The outputs before training of {len(FAR)} of 30" in said) == (asked == "dual")
    outputs, held = np.asarray(run.outputs), np.setdiff1d(np.arange(20, N), FAR)
    right = outputs[held].argmax(axis=1) == Y[held]
    assert run.network.metrics["accuracy (held-out)"] == pytest.approx(right.mean())
    for built in run.sets.values():
        if "ablation/loss" in built:
            assert np.isfinite(built.read("ablation/loss")[built.read("order")[:2]]).all()
    told = f"2 of 2 features of the set 'logits' have values that are NaN or infinite, on {len(FAR)} of 30 examples (ids {IDS})"
    assert (told in said) == (asked == "logits")


def test_outputs_none_of_which_is_finite() -> None:
    run, said = _run("all nan", SetSettings("canonical"), neurons=None, ablation=2)
    assert "The outputs of 30 of 30 examples (ids 0, 1, 2, ...) are NaN or infinite" in said
    assert (
        "26 of 26 features of the set 'weights' have values that are NaN or infinite, on up to 30 of 30 examples each "
        "(such as ids 0); these are not ranked." in said
    )
    assert run.network.metrics == {}
    assert not any("ablation/loss" in built for built in run.sets.values())


@pytest.mark.parametrize("asked", ASKED)
def test_values_beyond_float32_are_named_and_never_silently_infinite(asked: str, tmp_path: Any) -> None:
    sets, more = ASKED[asked]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        run, said = _run("large", *sets, **more)
    assert "The outputs of 30 of 30 examples (ids 0, 1, 2, ...) are beyond what float32 holds, 3.4e+38" in said
    assert np.isfinite(run.outputs).all()
    assert np.asarray(run.outputs).dtype == np.float64
    for name, built in run.sets.items():
        told = f"features of the set '{name}' have values that are beyond what float32 holds, 3.4e+38, and kept as infinite, on"
        assert (told in said) == bool(built.read("n_nonfinite").any()), name
        for column in ("ablation/output", "ablation/highest"):
            if column in built:
                assert not np.isinf(built.read(column)).any(), column
    assert asked == "neurons" or any(built.read("n_nonfinite").any() for built in run.sets.values())
    if asked == "dual":
        assert run.dual is not None
        columns = {name: np.asarray(values) for name, values in run.dual.columns.items()}
        assert not [name for name, values in columns.items() if values.dtype.kind == "f" and np.isinf(values).any()]
        assert columns["unit/contribution"].dtype == np.float64


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the products
def test_what_is_too_large_to_multiply_is_not_called_zero_examples() -> None:
    network = Network.from_module(_Broken("huge").eval())
    for outputs, side in (("trace", "rows"), ("flattened", "columns"), ("flattened", "products")):
        design = EffectiveFeatures(network, Examples.from_arrays(X), outputs=outputs)
        with pytest.raises(SettingsError, match="are beyond what float64 holds") as error:
            decompose(design, side, 2, 0)
        assert "(ids" not in str(error.value)


def test_the_remarks_stand_in_the_file_and_in_its_card(tmp_path: Any) -> None:
    network = Network.from_module(_Broken("nan").eval())
    settings = ExtractSettings(sets=(SetSettings("canonical", "logits"),), neurons=())
    path = extract_run(network, Examples.from_arrays(X, Y), tmp_path / "run.h5", settings, progress=False)
    with open_run(path) as run:
        assert f"The outputs of {len(FAR)} of 30 examples" in " ".join(run_card(run).split())


def test_a_kernel_alone_tells_of_outputs_that_are_not_finite(tmp_path: Any) -> None:
    network = Network.from_module(_Broken("infinite").eval())
    told: list[str] = []
    extract_kernel(
        network, Examples.from_arrays(X), tmp_path / "kernel.h5", KernelSettings(outputs="trace"), tell=told.append
    )
    assert told == [f"The outputs of {len(FAR)} of 30 examples (ids {IDS}) are NaN or infinite."]
    with h5py.File(tmp_path / "kernel.h5") as file:
        assert json.loads(file.attrs["settings"])["remarks"] == told


def test_numbers_are_narrowed_where_none_becomes_infinite() -> None:
    assert narrowed(np.array([1.5, np.nan, np.inf])).dtype == np.float32
    wide = np.array([1.5, np.nan, -1e39])
    assert narrowed(wide) is wide
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_float32(wide)[2] == -np.inf
