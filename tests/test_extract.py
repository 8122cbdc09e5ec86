"""Whole runs: what extract writes is right, complete, and the same bytes whatever the batch size or thread count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Cnn, Recurrent, mlp
from oracles import made
from torch import nn

from feature_lens.analysis import open_run
from feature_lens.errors import ExamplesError, OutputError, SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extract_run, fingerprint
from feature_lens.networks import Network

SMALL = ExtractSettings(
    sets=(
        SetSettings("eigen", n_components=4),
        SetSettings("eigen", "trace", n_components=3),
        SetSettings("eigen", "output:1", n_components=3, centred=True),
        SetSettings("unit"),
        SetSettings("canonical"),
        SetSettings("eigen", at="initial", n_components=3),
        SetSettings("eigen", layers=("4",), n_components=3, name="last_layer"),
    ),
    keep=4,
    tile=8,
)


def _problem() -> tuple[Network, Examples]:
    torch.manual_seed(0)
    start, module = mlp(), mlp()
    _, examples = made(module, (5,), 30, 3)
    return Network.from_module(module.eval(), initial=start.state_dict(), name="toy"), examples


def test_a_run_holds_every_set_that_was_asked_for(tmp_path: Path) -> None:
    network, examples = _problem()
    path = extract_run(network, examples, tmp_path / "run.h5", SMALL, progress=False)
    with open_run(path) as run:
        assert list(run.sets) == [
            *("eigen", "eigen_trace", "eigen_output_1_centred", "unit", "weights", "eigen_initial", "last_layer"),
            *("neurons_0", "neurons_1", "neurons_2", "neurons_3"),
        ]
        assert run.name == "run"
        np.testing.assert_array_equal(np.asarray(run.outputs), network.outputs(examples))
        assert run.network.initial is not None
        assert set(run.network.metrics) == {"accuracy (training)", "accuracy (held-out)"}
        assert run.provenance.fingerprint == fingerprint(network, examples, SMALL)
        assert run.provenance.settings["keep"] == 4
        assert {"torch", "numpy", "python", "feature_lens"} <= set(run.provenance.software)
        assert "+" not in run.provenance.software["torch"]


@pytest.mark.parametrize("module", ["mlp", "cnn"])
def test_the_same_bytes_for_any_batch_size_and_thread_count(module: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network, examples = made(*((mlp(), (5,), 50, 3) if module == "mlp" else (Cnn(), (2, 9, 9), 20, 4)))
    before = torch.get_num_threads()
    found = []
    try:
        for threads, batch_size, workers in ((1, 1, 1), (2, 7, 2), (2, 1000, 4)):
            torch.set_num_threads(threads)
            settings = ExtractSettings(
                sets=(SetSettings("eigen", n_components=4), SetSettings("unit"), SetSettings("canonical")),
                tile=8,
                batch_size=batch_size,
                workers=workers,
            )
            path = extract_run(
                network, examples, tmp_path / f"{threads}_{batch_size}.h5", settings, name="x", progress=False
            )
            found.append(path.read_bytes())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_the_order_of_examples_changes_no_ranking() -> None:
    network, examples = _problem()
    order = np.random.default_rng(0).permutation(30)
    turned = Examples.from_arrays(
        np.asarray(examples.inputs)[order], np.asarray(examples.targets)[order], ids=examples.ids[order]
    )
    straight = Examples.from_arrays(np.asarray(examples.inputs), examples.targets)
    settings = ExtractSettings(sets=(SetSettings("canonical"),), neurons=(), keep=5, tile=1)
    one, other = (compute_run(network, e, settings, progress=False) for e in (straight, turned))
    a = one.examples.ids[one.sets["weights"].read("highest/position")]
    b = other.examples.ids[other.sets["weights"].read("highest/position")]
    np.testing.assert_array_equal(a, b)


def test_fingerprints_change_with_whatever_shapes_values() -> None:
    network, examples = _problem()
    base = fingerprint(network, examples, SMALL)
    others = [
        fingerprint(Network.from_module(network.module.requires_grad_(True)), examples, SMALL),
        fingerprint(network, examples.from_arrays(np.asarray(examples.inputs) + 1), SMALL),
        fingerprint(network, examples, ExtractSettings(keep=5)),
        fingerprint(network, examples, ExtractSettings(tile=4)),
    ]
    assert len({base, *others}) == 5
    assert fingerprint(network, examples, ExtractSettings(batch_size=3)) == fingerprint(
        network, examples, ExtractSettings(batch_size=9)
    )


class _Hidden(nn.Module):
    """The same tensors under the same names, and another function of them."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.function(self.first(x)))


def test_fingerprints_see_what_the_forward_does() -> None:
    _, examples = made(nn.Linear(5, 2), (5,), 6, 2)
    one, other = (fingerprint(Network.from_module(_Hidden(f)), examples, SMALL) for f in (torch.tanh, torch.relu))
    assert one != other


def test_what_does_not_apply_is_left_out_with_a_remark() -> None:
    network, examples = made(Recurrent(nn.GRU), (5, 3), 8, 2)
    contents = compute_run(network, examples, progress=False)
    assert "Layer 'recurrent' is not shown: it returns a tuple, not one tensor." in contents.provenance.remarks
    _, few = made(_Root(), (3,), 8, 2)
    without = Network.from_module(_Vector().eval())
    contents = compute_run(without, few, progress=False)
    assert "unit" not in contents.sets
    assert any(remark.startswith("The set 'unit' is left out") for remark in contents.provenance.remarks)
    with pytest.raises(SettingsError, match="two or more dimensions"):
        compute_run(without, few, ExtractSettings(sets=(SetSettings("unit"),)), progress=False)


def test_leniency_leaves_out_sets_that_cannot_be_made_before_and_after_they_are_begun() -> None:
    _, few = made(_Root(), (3,), 8, 2)
    network = Network.from_module(_Vector().eval(), initial=_Vector().state_dict())
    wanted = (SetSettings("unit"), SetSettings("eigen", n_components=1), SetSettings("deflated", "trace"))
    settings = ExtractSettings(sets=wanted, lenient=True, ablation=64)
    contents = compute_run(network, few, settings, progress=False)
    assert list(contents.sets) == ["eigen"]
    remarks = [remark for remark in contents.provenance.remarks if "is left out" in remark]
    assert [remark.split("'")[1] for remark in remarks] == ["unit", "deflated_trace"]
    assert "ablation/loss" in contents.sets["eigen"]
    assert contents.dual is None
    with pytest.raises(SettingsError):
        compute_run(network, few, ExtractSettings(sets=wanted[1:]), progress=False)


def test_the_network_is_run_without_so_many_leading_features_alone() -> None:
    network, examples = _problem()
    wanted = (SetSettings("eigen", n_components=4), SetSettings("unit"), SetSettings("canonical", "neurons"))
    few, every = (
        compute_run(network, examples, ExtractSettings(sets=wanted, neurons=(), ablation=most), progress=False)
        for most in (2, 1000)
    )
    for name, feature_set in few.sets.items():
        order, known = feature_set.read("order"), every.sets[name].read("ablation/example")
        found = feature_set.read("ablation/example")
        np.testing.assert_array_equal(found[order[:2]], known[order[:2]])
        assert np.isfinite(known).all()
        assert np.isnan(found[order[2:]]).all()
    with pytest.raises(SettingsError, match="0 or more features of each set, but ablation=-1 came"):
        compute_run(network, examples, ExtractSettings(ablation=-1), progress=False)


class _Vector(nn.Module):
    """No weight of two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * self.scale)


def test_one_class_is_remarked_and_one_example_refused(tmp_path: Path) -> None:
    network, examples = _problem()
    inputs = np.asarray(examples.inputs)
    one_class = Examples.from_arrays(inputs, np.ones(30, dtype=int), class_names=("ant", "bee", "cat"))
    contents = compute_run(network, one_class, ExtractSettings(sets=(SetSettings("unit"),), neurons=()), progress=False)
    assert "All examples are of one class (bee), so class profiles say nothing." in contents.provenance.remarks
    assert any("in sample" in remark for remark in contents.provenance.remarks)
    with pytest.raises(ExamplesError, match="at least two examples, but one came"):
        extract_run(network, Examples.from_arrays(inputs[:1]), tmp_path / "run.h5", progress=False)
    assert not list(tmp_path.iterdir())


def test_settings_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    network, examples = _problem()
    bad = [
        (ExtractSettings(keep=0), "'keep' must be at least 1"),
        (ExtractSettings(keep=10**9), "At most 10,000"),
        (ExtractSettings(sets=(SetSettings("unit", name="a/b"),)), "a/b"),
        (ExtractSettings(workers=0), "'workers' must be at least 1"),
        (ExtractSettings(tile=0), "'tile' must be at least 1"),
        (ExtractSettings(batch_size=0), "'batch_size' must be at least 1"),
        (ExtractSettings(tile=-1), "'tile' must be at least 1"),
        (ExtractSettings(sets=(), neurons=()), "at least one feature set"),
        (ExtractSettings(sets=(SetSettings("eigne"),)), "Did you mean 'eigen'"),
        (ExtractSettings(sets=(SetSettings("unit"), SetSettings("unit"))), "Two feature sets are called 'unit'"),
        (ExtractSettings(neurons=("9",)), "No layer is called '9'"),
    ]
    for settings, sentence in bad:
        with pytest.raises(SettingsError, match=sentence):
            extract_run(network, examples, tmp_path / "run.h5", settings, progress=False)
    assert not list(tmp_path.iterdir())


def test_the_output_is_tried_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, examples = _problem()
    (tmp_path / "run.h5").write_text("precious")
    monkeypatch.setattr("feature_lens.extract.compute_run", lambda *a, **k: pytest.fail("computed"))
    with pytest.raises(OutputError, match="exists already"):
        extract_run(network, examples, tmp_path / "run.h5")
    assert (tmp_path / "run.h5").read_text() == "precious"


class _Root(nn.Module):
    """Infinite gradients where the first input is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.weight.T).abs() * x[:, :1].abs()).sqrt()


def test_non_finite_features_are_counted_and_named() -> None:
    inputs = np.random.default_rng(0).random((12, 3))
    inputs[5, 0] = 0
    settings = ExtractSettings(sets=(SetSettings("canonical"),), neurons=(), tile=4)
    contents = compute_run(Network.from_module(_Root().eval()), Examples.from_arrays(inputs), settings, progress=False)
    weights = contents.sets["weights"]
    counted = weights.read("n_nonfinite")
    assert counted.max() == 1
    assert (weights.read("first_nonfinite")[counted == 1] == 5).all()
    assert not (weights.read("highest/position")[counted == 1] == 5).any()
    with pytest.raises(SettingsError, match=r"1 of 12 examples give NaN or infinity \(ids 5\)"):
        compute_run(
            Network.from_module(_Root().eval()),
            Examples.from_arrays(inputs),
            ExtractSettings(sets=(SetSettings("eigen"),), neurons=()),
            progress=False,
        )


def test_regression_targets_are_scored_by_r2() -> None:
    torch.manual_seed(0)
    module = nn.Linear(4, 2)
    inputs = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    with torch.no_grad():
        targets = module(torch.as_tensor(inputs)).numpy()
    examples = Examples.from_arrays(inputs, targets)
    contents = compute_run(Network.from_module(module), examples, ExtractSettings(neurons=()), progress=False)
    assert contents.network.metrics["R2 (all)"] == pytest.approx(1)
