"""Networks of the zoo: recipes, shipped parameters, files of a training, and the commands that make them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from feature_lens import cli
from feature_lens.analysis import open_run
from feature_lens.demos import demo_run, demo_settings, train_into
from feature_lens.errors import CheckpointError, OutputError, SettingsError
from feature_lens.examples import Modality
from feature_lens.features.bases import Eigen
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network, load_checkpoint
from feature_lens.networks.factories import make_examples, make_module
from feature_lens.networks.zoo import ZOO, Digits, Linear, ModularAddition, ZooNet, parameter_files

# Nets whose training takes longer are trained again by `make soak`.
SECONDS = ("digits", "linear", "modular_addition")


@pytest.mark.parametrize("name", ZOO)
def test_every_net_is_a_recipe_with_shipped_parameters(name: str) -> None:
    net = ZOO[name]()
    assert net.key() == name
    assert net == ZOO[name].from_text([])
    network, examples = net.shipped(), net.examples()
    assert network.initial is not None
    assert network.name == net.title
    assert network.check(examples) == network.outputs(examples.on(np.arange(2))).shape[1]
    assert any(not torch.equal(network.initial[key], value) for key, value in network.trained.items())
    # What the module draws is what was shipped, and drawing it disturbs no other draws.
    state = torch.get_rng_state()
    drawn = Network.from_module(net.module(), initial=None)
    assert torch.equal(state, torch.get_rng_state())
    for key, value in network.initial.items():
        assert torch.equal(drawn.trained[key], value), key
    folder = parameter_files.shipped_folder(name)
    card = json.loads((folder / "recipe.json").read_text())
    assert card["licence"] == "MIT"
    assert card["data"] == net.data
    assert {file.name for file in folder.iterdir()} == {*card["sha256"], "recipe.json", "net.py"}
    assert demo_settings(net).dual == net.dual


def test_snapshots_are_shipped_and_lie_between_the_beginning_and_the_end() -> None:
    folders = [parameter_files.shipped_folder(name) for name in ZOO]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) < 12_000_000
    for name in ZOO:
        net = ZOO[name]()
        made = net.shipped_training()
        epochs = list(made.snapshots)
        assert len(epochs) == net.snapshots, name
        assert epochs == sorted(epochs)
        assert net.first_snapshot <= epochs[0] < epochs[-1] < net.epochs
        assert all(torch.equal(net.shipped().trained[key], value) for key, value in made.trained.items())
        # By the last snapshot the parameters are nearer to where they end than they were at first.
        far, near = (
            sum(float((value - state[key]).square().sum()) for key, value in made.trained.items())
            for state in (made.initial, made.snapshots[epochs[-1]])
        )
        assert near < far, name


def test_the_snapshots_of_modular_addition_show_when_it_learns() -> None:
    net = ModularAddition()
    examples, made = net.examples(), net.shipped_training()
    held_out = ~np.asarray(examples.training)
    right = {
        epoch: (net.network(replace(made, trained=state)).outputs(examples).argmax(axis=1) == examples.labels)[held_out]
        for epoch, state in made.snapshots.items()
    }
    # Published: learning sets in near epoch 70 to 100.
    assert all(found.mean() < 0.1 for epoch, found in right.items() if epoch < 70)
    assert all(found.mean() > 0.98 for epoch, found in right.items() if epoch > 105)
    assert sum(50 < epoch < 115 for epoch in right) >= 4


@pytest.mark.parametrize("name", SECONDS)
def test_the_recipe_makes_the_shipped_parameters_again(name: str) -> None:
    net = ZOO[name]()
    made, shipped = net.train(), net.shipped()
    assert set(made.trained) == set(shipped.trained)
    for key, value in shipped.trained.items():
        # Training amplifies rounding, which differs between processors.
        np.testing.assert_allclose(made.trained[key].numpy(), value.numpy(), atol=2e-2)
    again = net.network(made).outputs(net.examples()).argmax(axis=1)
    assert (again == shipped.outputs(net.examples()).argmax(axis=1)).mean() > 0.995


@pytest.mark.parametrize("outputs", ["flattened", "trace", "output:1"])
def test_eigen_features_of_the_linear_net_are_the_uncentred_principal_components_of_its_inputs(outputs: str) -> None:
    net = Linear()
    network, examples = net.shipped(), net.examples()
    inputs = np.asarray(examples.inputs, dtype=np.float64)
    _, singular, right = np.linalg.svd(inputs[examples.fitting], full_matrices=False)
    design = EffectiveFeatures(network, examples, outputs=outputs)
    basis = Eigen(9 if outputs == "flattened" else 5).fit(design)
    # Each component comes once for every output, or, summed over outputs, once with three times the energy.
    times, factor = (3, 1) if outputs == "flattened" else (1, 3 if outputs == "trace" else 1)
    np.testing.assert_allclose(
        basis.spectrum_, factor * np.repeat(singular**2, times)[: len(basis.spectrum_)], rtol=1e-10
    )
    found = basis.transform(design).reshape(178, -1, len(basis.spectrum_) // times, times)
    scores = (inputs @ right.T)[:, : found.shape[2]]
    # Within the copies of a component any turn will do, so their energy is compared.
    energy = np.square(found).sum(axis=3)
    np.testing.assert_allclose(energy, np.broadcast_to(factor * scores[:, None] ** 2, energy.shape), atol=1e-10)
    assert "principal component analysis of the inputs" in basis.feature_set(design, "eigen").card.equals
    # Nothing of the kernel was learnt.
    same = np.asarray(EffectiveFeatures(network, examples, "initial", outputs).gram())
    np.testing.assert_allclose(design.gram(), same, atol=1e-12)


def test_the_linear_net_is_trained_to_least_squares() -> None:
    net = Linear()
    network, examples = net.shipped(), net.examples()
    inputs = np.asarray(examples.inputs, dtype=np.float64)[examples.fitting]
    targets = np.eye(3)[np.asarray(examples.labels)[examples.fitting]]
    best = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    losses = [np.square(inputs @ w - targets).mean() for w in (best, network.trained["weight"].numpy().T)]
    assert losses[1] < 1.15 * losses[0]
    right = network.outputs(examples).argmax(axis=1) == examples.labels
    assert right[~np.asarray(examples.training)].mean() > 0.9


def test_shipped_parameters_are_refused_where_they_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="have seed=0, but seed=3 was asked for"):
        Digits(seed=3).shipped()
    for file in parameter_files.shipped_folder("digits").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(parameter_files, "shipped_folder", lambda name: tmp_path)
    for file in ("trained.safetensors", "epoch_000005.safetensors"):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=f"'{file}' of 'digits' is not the file that was shipped"):
            Digits().shipped()
        (tmp_path / file).unlink()
        with pytest.raises(CheckpointError, match="not the file that was shipped"):
            Digits().shipped_training()
        (tmp_path / file).write_bytes(content)
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(CheckpointError, match="train it with: feature-lens train digits"):
        Digits().shipped()


def test_recipes_are_read_from_text() -> None:
    net = Digits.from_text(["widths=64,8,10", "learning_rate=.2", "epochs=2"])
    assert net == Digits(widths=(64, 8, 10), learning_rate=0.2, epochs=2)
    for entry, sentence in (
        ("epoch=2", "Did you mean 'epochs'?"),
        ("epochs=two", "'epochs' is a whole number, but 'two' came; write epochs=60"),
        ("momentum=", "'momentum' is a number"),
        ("widths=64;10", "write widths=64,32,32,10"),
        ("epochs=0", "'epochs' must be at least 1, but 0 came"),
        ("widths=10,64", "from 64 pixels to 10 digits"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            Digits.from_text([entry])


@pytest.mark.parametrize("name", SECONDS)
def test_labels_are_shuffled_among_training_examples_alone_and_only_for_training(name: str) -> None:
    plain, net = ZOO[name](), ZOO[name].from_text(["shuffled=3"])
    assert plain.key() == net.key()
    examples = net.examples()
    assert examples.digest() == plain.examples().digest()  # the true labels, and the same split
    true, taught = np.asarray(examples.labels), net.taught(examples).numpy()
    fitting, held_out = examples.fitting, ~np.asarray(examples.training)
    np.testing.assert_array_equal(plain.taught(examples).numpy(), true)
    np.testing.assert_array_equal(taught[held_out], true[held_out])
    np.testing.assert_array_equal(np.bincount(taught[fitting]), np.bincount(true[fitting]))
    share = np.bincount(true[fitting]) / len(fitting)
    assert abs((taught == true)[fitting].mean() - np.square(share).sum()) < 0.1  # what chance leaves where it was
    other = replace(net, shuffled=4).taught(examples).numpy()
    assert not np.array_equal(other, taught)
    with pytest.raises(CheckpointError, match="have shuffled=0, but shuffled=3 was asked for"):
        net.shipped()


def test_a_network_trained_on_shuffled_labels_knows_nothing_of_held_out_ones() -> None:
    net = Digits(epochs=30, shuffled=1)
    examples, made = net.examples(), net.train()
    assert net.network(made).name == "digits 64-32-32-10 ReLU, trained on shuffled labels"
    said = net.network(made).outputs(examples).argmax(axis=1)
    held_out = ~np.asarray(examples.training)
    assert (said == examples.labels)[held_out].mean() < 0.3
    learnt = (said == net.taught(examples).numpy())[examples.fitting].mean()
    assert learnt > 0.15  # it begins to learn them by heart; .10 is chance, give or take .01


def test_labels_that_are_not_there_cannot_be_shuffled() -> None:
    @dataclass(frozen=True)
    class Unlabelled(Linear):
        classes: ClassVar[bool] = False

        @classmethod
        def key(cls) -> str:
            return "unlabelled"

    assert Unlabelled().shuffled == 0
    with pytest.raises(SettingsError, match="those of 'unlabelled' have none; leave shuffled=0"):
        Unlabelled(shuffled=1)
    with pytest.raises(SettingsError, match="those of 'superposition' have none"):
        ZOO["superposition"].from_text(["shuffled=1"])
    with pytest.raises(SettingsError, match="'shuffled' must be at least 0, but -1 came"):
        Linear(shuffled=-1)


def test_snapshots_lie_on_the_way() -> None:
    net = Digits(widths=(64, 4, 10), epochs=9)
    made = net.train(snapshots=3)
    assert list(made.snapshots) == [1, 2, 4]
    assert list(replace(net, epochs=1).train(snapshots=3).snapshots) == []
    for epoch, state in made.snapshots.items():
        same = replace(net, epochs=epoch).train().trained
        for key, value in state.items():
            assert torch.equal(value, same[key])
    threads = torch.get_num_threads()
    with pytest.raises(SettingsError, match="0 or more, but -1 came"):
        net.train(snapshots=-1)
    assert torch.get_num_threads() == threads


def test_a_training_is_written_where_extract_can_take_it(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    entries = ["widths=64,4,10", "epochs=3", "seed=2"]
    files = train_into("digits", folder, recipe=entries, snapshots=2)
    assert {file.name for file in files} == {file.name for file in folder.iterdir()}
    assert {file.name for file in files} >= {"epoch_000001.safetensors", "epoch_000002.safetensors"}
    card = json.loads((folder / "recipe.json").read_text())
    assert card["made by"].endswith(" --recipe epochs=3 --recipe seed=2 --recipe widths=64,4,10 --out FOLDER")
    assert card["recipe"]["widths"] == [64, 4, 10]
    module, examples = (make_module(f"{folder}/net.py:module"), make_examples(f"{folder}/net.py:examples"))
    network = Network.from_module(
        module, trained=folder / "trained.safetensors", initial=folder / "initial.safetensors"
    )
    net = Digits(widths=(64, 4, 10), epochs=3, seed=2)
    assert examples.digest() == net.examples().digest()
    np.testing.assert_array_equal(network.outputs(examples), net.network(net.train()).outputs(examples))
    for key, value in load_checkpoint(folder / "initial.safetensors").items():
        assert torch.equal(value, module.state_dict()[key])
    with pytest.raises(OutputError, match="is not empty"):
        train_into("digits", folder, recipe=entries)
    (folder / "mine.txt").write_text("kept")
    train_into("digits", folder, recipe=entries, overwrite=True)
    assert (folder / "mine.txt").read_text() == "kept"
    with pytest.raises(OutputError, match="is a file"):
        train_into("digits", folder / "mine.txt")
    with pytest.raises(SettingsError, match="Did you mean 'digits'"):
        train_into("digit", folder)


def test_a_demo_is_a_run_with_the_sets_that_suit_the_net(tmp_path: Path) -> None:
    path = tmp_path / "sums.h5"
    entries = ["modulus=5", "width=16", "epochs=40"]
    demo_run("modular_addition", path, recipe=entries)
    with open_run(path) as run:
        assert {"eigen_trace", "eigen_trace_initial", "deflated_trace"} <= set(run.sets)
        assert run.name == "modular_addition"
        assert {"dynamics", "dynamics_concepts", "feature_history"} <= set(run.tables)
        assert set(run.tables["dynamics_concepts"].arrays()["concept"]) == {"waves of a + b", "waves of a - b"}
        assert run.dual is not None
        assert run.examples.modality == Modality("pair", (5, 5))
        np.testing.assert_array_equal(run.examples.pairs, ModularAddition.from_text(entries).pairs())
    with pytest.raises(CheckpointError, match="have epochs=500, but epochs=40 was asked for"):
        demo_run("modular_addition", path, shipped=True, recipe=entries, overwrite=True)
    with pytest.raises(OutputError, match="exists"):
        demo_run("modular_addition", path)


def test_the_command_line_names_what_there_is() -> None:
    assert cli._ZOO.split(": ")[1].split(", ") == list(ZOO)
    for kind in ZOO.values():
        assert issubclass(kind, ZooNet)
        assert {"epochs", "seed", "shuffled"} < {one.name for one in fields(kind)}
