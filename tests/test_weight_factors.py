"""Values of weight features from factors: those of the dense Jacobian, in a fraction of its size, also out of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import networks
import numpy as np
import oracles
import pytest
import synthetic
import torch
from torch import nn

from feature_lens.analysis.orders import at_rank, end_of, quantile_rows, range_row
from feature_lens.analysis.run import open_run
from feature_lens.cards import Provenance
from feature_lens.errors import RunError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.bases import Canonical
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.plan import smallest_plan
from feature_lens.features.stored_factors import factored_values, weight_factors
from feature_lens.networks import Network
from feature_lens.run_contents import RunContents
from feature_lens.store import RunFile, write_run
from feature_lens.store.seal import sealed
from feature_lens.weight_factors import FactoredValues

SEAL = 85


class Words(nn.Module):
    """Token embeddings, a layer on every position, 20 outputs, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.mix = nn.Linear(6, 5)
        self.head = nn.Linear(5, 20)
        self.idle = nn.Parameter(torch.zeros(3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.head(torch.tanh(self.mix(self.embed(tokens))).sum(dim=1))
        return made


def _made(kind: str) -> tuple[nn.Module, Network, Examples]:
    torch.manual_seed(0)
    if kind == "words":
        rng = np.random.default_rng(0)
        examples = Examples.from_arrays(rng.integers(0, 9, (40, 4)), rng.integers(0, 20, 40))
        module = Words().double()
        return module, Network.from_module(module.eval()), examples
    module = (networks.mlp() if kind == "mlp" else networks.Cnn()).double()
    network, examples = oracles.made(module, (5,) if kind == "mlp" else (2, 9, 9), 24, 3)
    return module, network, examples


def _run(kind: str) -> tuple[RunContents, np.ndarray]:
    """A run of weight features, and the dense Jacobian (n, q, p) of its net."""
    module, network, examples = _made(kind)
    design = EffectiveFeatures(network, examples)
    found = Canonical().fit(design).feature_set(design, "weights", keep=5)
    found = replace(found, columns={**found.columns, "values": factored_values(design, found.views)})
    outputs = network.outputs(examples)
    card = network.card(outputs.shape[1], {})
    contents = RunContents("run", card, examples, outputs, {"weights": found}, Provenance())
    return contents, oracles.dense_jacobian(module, np.asarray(examples.inputs))


def _wanted(jacobian: np.ndarray, run: RunContents) -> np.ndarray:
    """Values (p, v, n) in the views of the run's set."""
    if "largest" not in run.sets["weights"].views:
        return jacobian.transpose(2, 1, 0)
    at = np.arange(len(jacobian))
    largest = np.take_along_axis(jacobian, np.abs(jacobian).argmax(axis=1)[:, None], axis=1)[:, 0]
    own = jacobian[at, run.examples.labels]
    return np.stack([largest, own, jacobian[at, np.asarray(run.outputs).argmax(axis=1)]]).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "words"])
def test_every_value_is_that_of_the_jacobian_before_and_after_the_file(kind: str, tmp_path: Path) -> None:
    made, jacobian = _run(kind)
    wanted = _wanted(jacobian, made)
    with RunFile(write_run(made, tmp_path / "run.h5")) as run:
        again = write_run(run, tmp_path / "again.h5")
        for contents in (made, run):
            found = contents.sets["weights"]
            assert (found.gives_values, found.stores_values, found.keeps_factors) == (True, False, True)
            values = np.asarray(found.column("values"))
            assert (values.shape, values.dtype) == (wanted.shape, np.float32)
            np.testing.assert_allclose(values, wanted, rtol=1e-6, atol=1e-12)
            for end in ("highest", "lowest"):
                kept = np.take_along_axis(values, found.read(f"{end}/position"), axis=2)
                np.testing.assert_allclose(kept, found.read(f"{end}/value"), rtol=1e-6, atol=1e-12)
            np.testing.assert_array_equal(found.values(3, found.views[-1]), values[3, -1])
    assert again.read_bytes() == (tmp_path / "run.h5").read_bytes()


def test_learning_rates_are_in_the_values() -> None:
    module, _, examples = _made("mlp")
    network = Network.from_module(module.eval(), learning_rates={"*.weight": 0.25, "*.bias": 4.0})
    design = EffectiveFeatures(network, examples)
    jacobian = oracles.dense_jacobian(module, np.asarray(examples.inputs)) * design.scale
    values = np.asarray(factored_values(design, design.views))
    np.testing.assert_allclose(values, jacobian.transpose(2, 1, 0), rtol=1e-6, atol=1e-12)
    few = EffectiveFeatures(network, examples, outputs="output:1", layers=["2"])
    at = dict(design.parameters.slices)
    chosen = np.r_[at["2.weight"], at["2.bias"]]
    own = np.asarray(factored_values(few, few.views))
    np.testing.assert_allclose(own[:, 0], jacobian[:, 1, chosen].T, rtol=1e-6, atol=1e-12)


def test_factors_are_far_smaller_than_the_jacobian() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 3))
    network, examples = oracles.made(module, (100,), 50, 3)
    design = EffectiveFeatures(network, examples)
    factors = weight_factors(design)
    entries = 8 * design.n_parameters
    assert factors.nbytes - entries < 50 * 3 * design.n_parameters * design.itemsize / 100
    plan = smallest_plan(design.pieces(), 50, 3)
    assert plan.held <= design.plan().held


def test_all_that_needs_values_works_from_factors(tmp_path: Path) -> None:
    made = synthetic.with_factors(synthetic.contents())
    with open_run(write_run(made, tmp_path / "run.h5")) as run:
        found = run.sets["factored"]
        values = np.asarray(found.column("values"))
        for feature in (0, 62, 66, 73, 79):
            view = found.views[1]
            own = values[feature, 1]
            whole = range_row(run, "factored", feature, view, 60)
            np.testing.assert_array_equal(whole.values, np.sort(own)[::-1])
            assert len(quantile_rows(run, "factored", feature, view)) == 5
            positions, around = at_rank(run, "factored", feature, view, 30)
            np.testing.assert_array_equal(own[positions], around)
            _, most = end_of(run, "factored", feature, view, "highest", 50)
            np.testing.assert_array_equal(most, np.sort(own)[::-1][:50])
            _, kept = end_of(run, "factored", feature, view, "highest", 16)
            np.testing.assert_allclose(kept, most[:16], rtol=1e-6)
        column = found.column("values")
        np.testing.assert_array_equal(column[[3, 1], 2], values[[3, 1], 2])
        np.testing.assert_array_equal(column[70:72], values[70:72])
        assert len(column[80:]) == 0
        for feature in (-1, 80):
            with pytest.raises(SettingsError, match="features 0 to 79"):
                column[feature]
        with pytest.raises(SettingsError, match="extremes and moments only"):
            run.to_pandas("factored")


def test_views_that_do_not_follow_are_refused() -> None:
    factors, labels, outputs = synthetic.factors(12), np.zeros(12, np.int64), np.zeros((12, 3))
    FactoredValues(factors, ("largest", "own", "predicted"), labels, outputs)
    for views, given, sentence in (
        (("a", "b"), (labels, outputs), "3 quantities came with 2 views"),
        (("largest", "other"), (labels, outputs), "'other' does not follow"),
        (("largest", "own"), (None, outputs), "needs labels"),
        (("largest", "own"), (labels + 3, outputs), "needs labels"),
        (("largest", "predicted"), (labels, outputs[:, :2]), "needs 3 outputs"),
        (("largest", "predicted"), (labels, None), "needs 3 outputs"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            FactoredValues(factors, views, *given)


def _put(where: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        place = f"sets/factored/factors/{where}"
        if place in file:
            del file[place]
        if value is not None:
            file[place] = value

    return change


def _attribute(where: str, key: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[f"sets/factored/factors/{where}"].attrs[key] = value

    return change


def _claimed(where: str, shape: tuple[int, ...]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        place = f"sets/factored/factors/{where}"
        del file[place]
        kind = "i4" if "token" in where or "entry" in where else "f4"
        file.create_dataset(place, shape, kind, chunks=tuple(min(size, 8) for size in shape))

    return change


TAMPERED: list[tuple[Callable[[h5py.File], None], str]] = [
    (_put("0/g", np.zeros((5, 11, 3, 1))), "needs n = 12"),
    (_put("0/g", np.zeros((5, 12, 3))), r"needs the dimensions \(o n r t\)"),
    (_put("0/g", np.zeros((5, 12, 3, 1), int)), "holds int64"),
    (_put("0/g", np.zeros((4, 12, 3, 1))), "needs 4 x 12 features"),
    (_put("0/g", np.zeros((5, 12, 3, 2))), "needs t = 2"),
    (_put("2/g", np.zeros((2, 12, 4, 2))), "needs r = 3"),
    (_put("0/g", None), "needs g and inputs, or gradient and entry"),
    (_put("0/inputs", None), "needs g and inputs, or gradient and entry"),
    (_put("0/gradient", np.zeros((5, 12, 3))), "needs g and inputs, or gradient and entry"),
    (_put("1/entry", None), "needs g and inputs, or gradient and entry"),
    (_put("1/entry", np.arange(66, 71)), "leaves out some of 80"),
    (_put("1/entry", np.arange(76, 81)), "does not hold features from 0 to 79"),
    (_put("1/entry", np.arange(-1, 4)), "holds whole numbers of at least 0, but -1 came"),
    (_put("1/entry", np.arange(4)), "needs m = 5"),
    (_put("0/inputs/0/entry", None), "is missing"),
    (_put("0/inputs/0/entry", np.arange(60.0)), "holds float64"),
    (_put("0/inputs/0/token", np.zeros((12, 1), int)), "tokens of some kinds"),
    (_put("2/inputs/0/token", None), "tokens of some kinds"),
    (_put("2/inputs/0", h5py.SoftLink("/network")), "is a link"),
    (_put("2", None), "leaves out some of 80"),
    (_put("0", None), "leaves out some of 80"),
    (_attribute("2/inputs/0", "kinds", 3), "needs 2 x 3 features"),
    (_attribute("2/inputs/0", "kinds", -1), "tokens of some kinds"),
    (_attribute("0/inputs/0", "kinds", "many"), "'kinds' of .* is no whole number"),
    (_attribute("0/inputs/0", "scale", float("nan")), "needs a finite scale"),
    (_attribute("0/inputs/0", "scale", 0.0), "needs a finite scale"),
    (_attribute("0/inputs/0", "scale", [1.0, 2.0]), "needs a finite scale"),
    (_claimed("2/g", (2, 12, 3, 1 << 40)), "claims more numbers than it holds"),
    (_claimed("0/inputs/0/entry", (1 << 50,)), "claims more numbers than it holds"),
    (
        lambda file: file["sets/factored"].create_dataset("values", data=np.ones((80, 3, 12), "f4")),
        "values and factors",
    ),
    (lambda file: file["sets/factored"].attrs.__setitem__("views", '["largest", "own", "score"]'), "does not follow"),
]


@pytest.mark.parametrize("number", range(len(TAMPERED)))
def test_factors_that_are_not_what_they_should_be_are_refused(number: int, tmp_path: Path) -> None:
    change, sentence = TAMPERED[number]
    path = write_run(synthetic.with_factors(synthetic.contents(12)), tmp_path / "run.h5")
    path.write_bytes(path.read_bytes()[:-SEAL])
    with h5py.File(path, "r+") as file:
        change(file)
    path.write_bytes(sealed(path.read_bytes()))
    with pytest.raises(RunError, match=sentence) as error:
        RunFile(path)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
