"""Training dynamics from snapshots: every figure against dense Jacobians and numpy, histories with known answers, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import dense_jacobian
from safetensors.torch import save_file
from scipy.spatial.distance import cdist
from sklearn.kernel_ridge import KernelRidge
from torch import nn

from feature_lens.dual.ridge import RIDGES
from feature_lens.dynamics import DynamicsSettings, FinalFeatures, dynamics_tables, parsed_snapshots, steps_of
from feature_lens.dynamics.history import History
from feature_lens.errors import CheckpointError, NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extraction_plan
from feature_lens.features.kernel_comparison import alignment, cosine_distance, effective_rank
from feature_lens.kept_table import KeptTable
from feature_lens.networks import Network
from feature_lens.networks.states import Params

N, CLASSES = 24, 3
STEPS = (2, 5, 9)


def _module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def _examples(split: bool = True) -> Examples:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((N, 4))
    labels = (inputs[:, 0] > 0).astype(np.int64) + (inputs[:, 1] > 0)
    return Examples.from_arrays(
        inputs,
        labels,
        split=np.arange(N) % 3 != 0 if split else None,
        concepts={"first": inputs[:, :2], "constant": np.ones(N)},
    )


def _trained() -> tuple[Network, dict[int, Params]]:
    """A network after nine steps of descent, and its parameters after each of `STEPS`."""
    module, examples = _module(), _examples()
    start = {name: value.detach().clone() for name, value in module.state_dict().items()}
    inputs, targets = torch.as_tensor(examples.inputs), torch.eye(CLASSES, dtype=torch.float64)[examples.labels]
    optimiser = torch.optim.SGD(module.parameters(), lr=0.3)
    taken: dict[int, Params] = {}
    for step in range(1, STEPS[-1] + 1):
        optimiser.zero_grad()
        (module(inputs) - targets).square().sum(dim=1).mean().backward()
        optimiser.step()
        if step in STEPS:
            taken[step] = {name: value.detach().clone() for name, value in module.state_dict().items()}
    return Network.from_module(module, initial=start), taken


@pytest.fixture(scope="module")
def trained() -> tuple[Network, dict[int, Params]]:
    return _trained()


@pytest.fixture(scope="module")
def tables(trained: tuple[Network, dict[int, Params]]) -> dict[str, KeptTable]:
    network, snapshots = trained
    return dynamics_tables(steps_of(network, snapshots), _examples(), settings=DynamicsSettings(dimension=4))


def _dense(network: Network, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (n, c), and the kernel (n, n) summed over outputs, by a loop of autograd."""
    module = _module()
    module.load_state_dict(params)
    inputs = np.asarray(_examples().inputs)
    jacobian = dense_jacobian(module, inputs).reshape(N, -1)
    return module(torch.as_tensor(inputs)).detach().numpy(), jacobian @ jacobian.T


def _of_step(table: KeptTable, step: int) -> dict[str, float]:
    columns = table.arrays()
    (row,) = np.flatnonzero(columns["step"] == step)
    return {name: column[row] for name, column in columns.items()}


def test_every_figure_against_dense_kernels_and_numpy(
    trained: tuple[Network, dict[int, Params]], tables: dict[str, KeptTable]
) -> None:
    network, snapshots = trained
    examples = _examples()
    labels, training = np.asarray(examples.labels), np.asarray(examples.training)
    initial = network.at("initial")
    states = {0: initial, **snapshots}
    assert tables["dynamics"].arrays()["step"].tolist() == [0, *STEPS]
    dense = {step: _dense(network, params) for step, params in states.items()}
    fitted = {step: kernel[np.ix_(training, training)] for step, (_, kernel) in dense.items()}
    leading = {step: np.linalg.eigh(kernel)[1][:, :-5:-1] for step, kernel in fitted.items()}
    onehot = np.eye(CLASSES)[labels]
    centring = np.eye(int(training.sum())) - 1 / training.sum()
    for step, (outputs, kernel) in dense.items():
        row = _of_step(tables["dynamics"], step)
        expected: dict[str, float] = {}
        for part, rows in (("training", training), ("held_out", ~training)):
            expected[f"loss_{part}"] = np.square(outputs - onehot)[rows].sum() / 2 / rows.sum()
            entropy = nn.functional.cross_entropy(torch.as_tensor(outputs[rows]), torch.as_tensor(labels[rows]))
            expected[f"cross_entropy_{part}"] = float(entropy)
            expected[f"accuracy_{part}"] = (outputs.argmax(axis=1) == labels)[rows].mean()
        own = fitted[step]
        for name, other in (("initial", fitted[0]), ("final", fitted[STEPS[-1]])):
            expected[f"change_from_{name}"] = np.sqrt(np.square(own - other).sum() / np.square(other).sum())
            expected[f"distance_from_{name}"] = cdist([own.ravel()], [other.ravel()], "cosine")[0, 0]
            one, two = centring @ own @ centring, centring @ other @ centring
            expected[f"centred_distance_from_{name}"] = cdist([one.ravel()], [two.ravel()], "cosine")[0, 0]
        values = np.linalg.eigvalsh(own)[::-1]
        shares = values[values > 1e-12] / values[values > 1e-12].sum()
        expected["trace"], expected["effective_rank"] = values.sum(), np.exp(-(shares * np.log(shares)).sum())
        labelled = centring @ onehot[training] @ onehot[training].T @ centring
        expected["alignment_training"] = (
            1 - cdist([(centring @ own @ centring).ravel()], [labelled.ravel()], "cosine")[0, 0]
        )
        cosines = np.linalg.svd(leading[step].T @ leading[STEPS[-1]], compute_uv=False)
        expected["overlap_with_final"] = np.square(cosines).mean()
        for name, value in expected.items():
            np.testing.assert_allclose(row[name], value, atol=1e-9, err_msg=f"{name} at step {step}")
        concepts = tables["dynamics_concepts"].arrays()
        at = (concepts["step"] == step) & (concepts["concept"] == "first")
        features = kernel[:, training] @ leading[step]
        inside = np.linalg.qr(features - features.mean(axis=0))[0]
        known = np.asarray(examples.inputs)[:, :2]
        known = np.linalg.qr(known - known.mean(axis=0))[0]
        np.testing.assert_allclose(concepts["overlap"][at], np.square(inside.T @ known).sum() / 2, atol=1e-8)
        np.testing.assert_allclose(concepts["chance"][at], 4 / (N - 1))
    spectrum = tables["dynamics_spectrum"].arrays()
    own_values = spectrum["eigenvalue"][spectrum["step"] == 5]
    np.testing.assert_allclose(own_values, np.linalg.eigvalsh(fitted[5])[::-1][: len(own_values)], atol=1e-10)
    assert np.isnan(tables["dynamics_concepts"].arrays()["alignment"][1::2]).all()


def test_the_dual_model_of_a_step_is_ridge_regression_on_its_kernel(
    trained: tuple[Network, dict[int, Params]], tables: dict[str, KeptTable]
) -> None:
    """By scikit-learn, at the ridge whose error with each training example left out, refitted, is smallest."""
    network, snapshots = trained
    examples = _examples()
    outputs, kernel = _dense(network, snapshots[5])
    train, held = examples.fitting, np.flatnonzero(~np.asarray(examples.training))
    row = _of_step(tables["dynamics"], 5)
    for fitted, targets in (("outputs", outputs), ("labels", np.eye(CLASSES)[examples.labels])):
        errors = []
        for ridge in RIDGES:
            alpha = ridge * np.diag(kernel)[train].mean()
            missed = []
            for one in train:
                rest = train[train != one]
                model = KernelRidge(alpha=alpha, kernel="precomputed").fit(kernel[np.ix_(rest, rest)], targets[rest])
                missed.append(model.predict(kernel[np.ix_([one], rest)])[0] - targets[one])
            errors.append(np.square(missed).mean())
        alpha = RIDGES[int(np.argmin(errors))] * np.diag(kernel)[train].mean()
        model = KernelRidge(alpha=alpha, kernel="precomputed").fit(kernel[np.ix_(train, train)], targets[train])
        said = model.predict(kernel[np.ix_(held, train)])
        spread = np.square(outputs[held] - outputs[held].mean(axis=0)).sum()
        expected = 1 - np.square(said - outputs[held]).sum() / spread
        np.testing.assert_allclose(row[f"r2_from_{fitted}"], expected, atol=1e-6)
        agreed = (said.argmax(axis=1) == outputs[held].argmax(axis=1)).mean()
        assert row[f"agreement_from_{fitted}"] == agreed


def test_what_training_added_to_the_kernel_is_followed_where_gaps_show_it(
    trained: tuple[Network, dict[int, Params]],
) -> None:
    network, snapshots = trained
    found = dynamics_tables(steps_of(network, snapshots), _examples())["dynamics"]
    learnt = found.arrays()["overlap_with_learnt"]
    assert learnt[-1] > learnt[0]
    assert "before the largest gap of the first kernel" in found.text
    few = _examples().on(np.array([1, 2, 4, 3]))
    assert "too few eigenvalues" in dynamics_tables(steps_of(network, snapshots), few)["dynamics"].text


def _waves(n: int = 40) -> np.ndarray:
    """Orthonormal columns (n, 4) without mean."""
    columns = np.random.default_rng(3).standard_normal((n, 4))
    return np.linalg.qr(columns - columns.mean(axis=0))[0]


def test_features_are_followed_backwards_through_swaps_and_signs() -> None:
    final = _waves()
    history = History(final, np.arange(4))
    here = history.back(final)
    assert here.matched.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(here.to_final, 1)
    np.testing.assert_allclose(here.within, 1)
    order, sign = [2, 0, 3, 1], np.array([1, -1, -1, 1])
    swapped = history.back((final * 7 * sign + 5)[:, order])
    assert swapped.matched.tolist() == [1, 3, 0, 2]
    np.testing.assert_allclose(swapped.to_later, 1)
    again = history.back(final)
    assert again.matched.tolist() == [0, 1, 2, 3]
    # A feature that turns by 30 degrees at every step is followed although it ends far from where it began.
    start, far = final[:, :1], _waves(40)[:, 1:2]
    turning = History(start, np.zeros(1, dtype=int))
    turning.back(start)
    correlations = []
    for step in range(1, 4):
        angle = np.deg2rad(30 * step)
        found = turning.back(np.cos(angle) * start + np.sin(angle) * far)
        np.testing.assert_allclose(found.to_later, np.cos(np.deg2rad(30)))
        correlations.append(float(found.to_final[0]))
    np.testing.assert_allclose(correlations, np.cos(np.deg2rad([30, 60, 90])), atol=1e-12)


def test_a_degenerate_group_is_followed_as_a_space_and_a_chain_may_end() -> None:
    final = _waves()
    history = History(final, np.array([0, 0, 1, 1]))
    history.back(final)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 2)))[0]
    turned = final.copy()
    turned[:, :2] = final[:, :2] @ turn
    found = history.back(turned)
    assert (found.to_final[:2] < 0.99).all()
    np.testing.assert_allclose(found.of_group, 1)
    np.testing.assert_allclose(found.within, 1)
    fewer = history.back(final[:, [2, 0, 1]])
    assert sorted(fewer.matched.tolist()) == [-1, 0, 1, 2]
    assert np.isnan(fewer.to_final[3])
    np.testing.assert_allclose(fewer.within, [1, 1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(fewer.of_group, [1, 1, 0.5, 0.5])
    fewer = history.back(final)
    assert fewer.matched[3] == -1


@pytest.mark.parametrize("options", ["", "+centred", "+cosine", "+centred+cosine"])
def test_the_history_of_a_run_is_that_of_its_eigen_features(
    trained: tuple[Network, dict[int, Params]], options: str
) -> None:
    network, snapshots = trained
    sets = (SetSettings.parsed(f"eigen/trace{options}", n_components=3), SetSettings("eigen", n_components=3))
    settings = ExtractSettings(sets=sets, neurons=())
    run = compute_run(network, _examples(), settings, progress=False, snapshots=snapshots)
    name = sets[0].title()
    history = run.tables["feature_history"].arrays()
    assert set(history["set"]) == {name}
    spectrum = run.sets[name].read("spectrum")
    end = history["step"] == STEPS[-1]
    np.testing.assert_allclose(history["eigenvalue"][end], spectrum)
    np.testing.assert_allclose(history["correlation_to_final"][end], 1)
    # At a step before, features are those of a run of the network as it was then.
    then = network.at_state(snapshots[5], "snapshot")
    before = compute_run(then, _examples(), settings, progress=False).sets[name]
    at = history["step"] == 5
    np.testing.assert_allclose(history["eigenvalue"][at], before.read("spectrum")[history["matched"][at]])
    values, old = run.sets[name].read("values")[:, 0], before.read("values")[:, 0]
    expected = np.abs(np.corrcoef(values, old)[:3, 3:])
    np.testing.assert_allclose(
        history["correlation_to_final"][at], expected[range(3), history["matched"][at]], atol=1e-5
    )
    plain = compute_run(network, _examples(), settings, progress=False)
    assert not plain.tables
    assert plain.provenance.fingerprint != run.provenance.fingerprint


def test_many_examples_are_thinned_and_a_run_without_split_or_start_has_dynamics_too(
    trained: tuple[Network, dict[int, Params]],
) -> None:
    network, snapshots = trained
    examples = _examples(split=False)
    bare = Network.from_module(network.module.requires_grad_(True))
    steps = steps_of(bare, snapshots)
    assert list(steps) == list(STEPS)
    few = examples.on(np.linspace(0, N - 1, 10).astype(np.int64))
    final = FinalFeatures("set", np.random.default_rng(0).standard_normal((N, 2)), np.arange(2))
    thin = dynamics_tables(steps, examples, [final], DynamicsSettings(most_examples=10, eigenvalues=4))
    whole = dynamics_tables(steps, few, settings=DynamicsSettings(eigenvalues=4))
    for name, column in whole["dynamics"].arrays().items():
        np.testing.assert_array_equal(thin["dynamics"].arrays()[name], column, err_msg=name)
    assert "loss_all" in whole["dynamics"].columns
    assert "r2_from_outputs" not in whole["dynamics"].columns
    assert "of 24 examples 10, evenly spread" in thin["dynamics"].text
    assert len(thin["dynamics_spectrum"]) == 3 * 4
    assert len(thin["feature_history"]) == 3 * 2


def test_what_is_no_course_of_a_training_is_refused(trained: tuple[Network, dict[int, Params]], tmp_path: Path) -> None:
    network, snapshots = trained
    last = snapshots[9]
    with pytest.raises(SettingsError, match=r"whole number from 0 to below 2\^63, but -1 came"):
        steps_of(network, {-1: last})
    with pytest.raises(SettingsError, match="The last snapshot must be the trained parameters, but that of step 5"):
        steps_of(network, {2: snapshots[2], 5: snapshots[5]})
    with pytest.raises(SettingsError, match="the snapshot of step 0 is not the initial parameters"):
        steps_of(network, {0: snapshots[2], 9: last})
    with pytest.raises(SettingsError, match="two steps at least"):
        steps_of(Network.from_module(network.module.requires_grad_(True)), {9: last})
    with pytest.raises(CheckpointError, match=r"'0.weight' of the snapshot 2 state must have the shape"):
        steps_of(network, {2: {**last, "0.weight": torch.zeros(2, 2)}, 9: last})
    with pytest.raises(NetworkError, match="snapshot 2 parameters must be finite"):
        steps_of(network, {2: {**last, "0.bias": torch.full((5,), torch.nan)}, 9: last})
    dead = {name: torch.zeros_like(value) for name, value in last.items()}
    nothing = Network.from_module(nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 3, bias=False)))
    flat = {name: torch.zeros_like(value) for name, value in nothing.trained.items()}
    ends = {0: flat, 1: nothing.trained}
    with pytest.raises(SettingsError, match="The kernel at step 0 is zero"):
        dynamics_tables(steps_of(nothing, ends), _examples())
    settings = ExtractSettings(sets=(SetSettings("eigen", n_components=2),), neurons=())
    run = compute_run(nothing, _examples(), settings, progress=False, snapshots=ends)
    assert not run.tables
    assert any("dynamics are left out. The kernel at step 0 is zero" in one for one in run.provenance.remarks)
    assert steps_of(network, {3: dead, 9: last})[3].trained["0.bias"].abs().max() == 0
    for settings in (DynamicsSettings(eigenvalues=0), DynamicsSettings(dimension=0), DynamicsSettings(0)):
        with pytest.raises(SettingsError, match="are at least 1, but 0 came"):
            dynamics_tables(steps_of(network, snapshots), _examples(), settings=settings)
    save_file(last, tmp_path / "nine.safetensors")
    entry = f"9={tmp_path / 'nine.safetensors'}"
    assert list(steps_of(network, parsed_snapshots([entry]))) == [0, 9]
    for wrong in ("nine.safetensors", "=x.pt", "9=", "-1=x.pt", "1.5=x.pt"):
        with pytest.raises(SettingsError, match="A snapshot is written STEP=PATH"):
            parsed_snapshots([wrong])
    with pytest.raises(SettingsError, match="Two snapshots are of step 9"):
        parsed_snapshots([entry, entry])
    with pytest.raises(SettingsError, match="holds no checkpoint whose name ends in the number of a step"):
        parsed_snapshots([str(tmp_path)])
    save_file(snapshots[5], tmp_path / "epoch_00005.safetensors")
    assert list(parsed_snapshots([str(tmp_path), entry])) == [5, 9]
    assert "training dynamics: 4 steps" in extraction_plan(network, _examples(), snapshots=snapshots)


def test_comparisons_at_their_ends() -> None:
    kernel = np.array([[2.0, 1.0], [1.0, 3.0]])
    assert cosine_distance(kernel, 5 * kernel) == 0
    assert np.isnan(cosine_distance(kernel, 0 * kernel))
    assert np.isnan(alignment(kernel, np.ones((2, 1))))
    values = np.random.default_rng(0).standard_normal((9, 2))
    np.testing.assert_allclose(alignment(3 * (values + 5) @ (values + 5).T, values), 1)
    np.testing.assert_allclose(effective_rank(np.array([2.0, 2.0, 2.0, 0.0])), 3)
