"""The dual model in a run: written, read back, refused where it is damaged, told in tables, shown by the app."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import test_app
import torch
from test_app import Opener, fine, texts
from torch import nn

from feature_lens.analysis import Run, report_html, run_card
from feature_lens.analysis.ablation_table import without
from feature_lens.analysis.dual_tables import (
    closing,
    contribution_table,
    dual_headline,
    example_interactions,
    fidelity_table,
    interaction_table,
    support_table,
    ticket_sentences,
    ticket_table,
)
from feature_lens.analysis.example_features import leading_set, strongest_features, strongest_neurons
from feature_lens.dual import interactions
from feature_lens.dual_record import DualRecord, Ticket
from feature_lens.errors import RunError, SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extraction_plan
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.run_contents import RunContents
from feature_lens.store import write_run
from feature_lens.store.seal import sealed

app = test_app.app  # a fixture
SETTINGS = ExtractSettings(
    sets=(SetSettings("eigen", n_components=3), SetSettings("canonical")), neurons=(), dual=True, keep=4
)


def _network(initial: bool = True) -> Network:
    torch.manual_seed(0)
    start, end = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double() for _ in range(2))
    return Network.from_module(end, initial=start.state_dict() if initial else None)


def _examples(split: bool = True) -> Examples:
    rng = np.random.default_rng(0)
    return Examples.from_arrays(
        rng.standard_normal((30, 5)), np.arange(30) % 3, split=np.arange(30) % 4 != 0 if split else None
    )


@pytest.fixture(scope="module")
def contents() -> RunContents:
    return compute_run(_network(), _examples(), SETTINGS, name="dual", progress=False)


@pytest.fixture(scope="module")
def path(contents: RunContents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(contents, tmp_path_factory.mktemp("dual") / "dual.h5")


def test_what_is_written_is_read_back(contents: RunContents, path: Path) -> None:
    with Run(path) as run:
        assert run.dual is not None
        assert contents.dual is not None
        assert run.dual.fidelities == contents.dual.fidelities
        assert run.dual.fitted == contents.dual.fitted
        assert run.dual.notes == contents.dual.notes
        assert run.dual.tickets == contents.dual.tickets
        assert len(run.dual.tickets) > 100
        assert run.dual.columns.keys() == contents.dual.columns.keys()
        for name, column in contents.dual.columns.items():
            np.testing.assert_array_equal(np.asarray(run.dual.columns[name]), np.asarray(column), err_msg=name)


def test_contributions_close_on_the_output(path: Path) -> None:
    with Run(path) as run:
        for example, output in ((0, 0), (17, 2)):
            sums = closing(run, example, output)
            assert sums.output == float(run.outputs[example, output])
            assert abs(sums.residual) < 1e-13
            for by in ("layer", "tensor", "unit"):
                table = contribution_table(run, example, output, by)  # type: ignore[arg-type]  # one of the three
                assert table["contribution"].sum() == pytest.approx(sums.contributions, abs=1e-6)
                assert table["end"].iloc[-1] == pytest.approx(sums.output, abs=1e-6)
                assert (table["contribution"].abs().diff().dropna() <= 1e-12).all()
            few = contribution_table(run, example, output, "unit", most=3)
            assert few["contribution"].sum() == pytest.approx(sums.contributions, abs=1e-6)
            assert list(few["name"])[-1] == "sum of the other 7"
            weights = strongest_features(run, example, output, "weight")
            assert list(weights["name"]) == [run.network.parameters.label(w) for w in weights["feature"]]


def test_supports_add_up_to_the_prediction(path: Path) -> None:
    """With as many supports kept as there are training examples, nothing is left out."""
    examples = _examples().on(np.arange(18))
    run = compute_run(_network(), examples, SETTINGS, progress=False)
    assert run.dual is not None
    assert len(examples.fitting) <= 16
    total = np.asarray(run.dual.columns["support/contribution"]).sum(axis=2)
    np.testing.assert_allclose(total, run.dual.predict(), atol=1e-5)
    with Run(path) as stored:
        supports = support_table(stored, 3, 1)
        assert set(supports["position"]) <= set(_examples().fitting.tolist())


def test_the_dual_model_predicts_new_inputs_from_their_features_alone(contents: RunContents) -> None:
    dual = contents.dual
    assert dual is not None
    design = EffectiveFeatures(_network(), _examples())
    rows = np.concatenate([block for _, block in design.blocks()]).reshape(30, 3, -1)
    np.testing.assert_allclose(dual.predict(rows), dual.predict(), atol=1e-5)
    with pytest.raises(SettingsError, match=r"have the shape \(m, 3, 57\), but \(30, 57\) came"):
        dual.predict(rows[:, 0])
    without = replace(dual, columns={name: dual.columns[name] for name in dual.columns if name != "map"})
    with pytest.raises(SettingsError, match="predicts its own examples only"):
        without.predict(rows)
    with pytest.raises(SettingsError, match="holds no dual model; extract it again with --dual"):
        replace(dual, columns={}).predict()


def test_weight_features_come_in_the_order_of_their_contributions(contents: RunContents) -> None:
    assert contents.dual is not None
    weight = np.asarray(contents.dual.columns["weight"])
    order = np.asarray(contents.sets["weights"].columns["order"])
    assert (np.diff(weight[order]) <= 0).all()


def test_tables_and_the_sentence_that_names_the_winner(path: Path) -> None:
    with Run(path) as run:
        table = fidelity_table(run)
        assert set(table["kernel"]) == {
            "initial", "sharp", "mean", "effective", "last_layer", "without_last_layer"
        }  # fmt: skip
        by = table[(table["target"] == "labels") & (table["form"] == "bare")].set_index("kernel")["r2"]
        says = dual_headline(run)
        assert ("the last layer alone says more" in says) == (by["last_layer"] > by["effective"])
        assert f"{by['effective']:.3f}" in says
        with pytest.raises(SettingsError, match="numbered 0 to 29 and outputs 0 to 2, but example 30"):
            closing(run, 30, 0)
        with pytest.raises(SettingsError, match="No grouping of contributions is called 'head'"):
            contribution_table(run, 0, 0, "head")  # type: ignore[arg-type]  # what a user may type


def test_what_is_missing_is_absent_and_said() -> None:
    bare = compute_run(_network(initial=False), _examples(), SETTINGS, progress=False)
    assert bare.dual is not None
    assert not bare.dual.has_contributions
    assert any("what training added cannot be shared out" in remark for remark in bare.dual.remarks)
    with pytest.raises(SettingsError, match="initial parameters were not given"):
        closing(bare, 0, 0)
    whole = compute_run(_network(), _examples(split=False), SETTINGS, progress=False)
    assert whole.dual is not None
    assert whole.dual.fidelities == ()
    assert any("no two training and two held-out examples" in remark for remark in whole.dual.remarks)
    with pytest.raises(SettingsError, match="no fitted dual model"):
        support_table(whole, 0, 0)
    none = compute_run(_network(), _examples(), replace(SETTINGS, dual=False), progress=False)
    with pytest.raises(SettingsError, match="holds no dual model; extract it again with --dual"):
        fidelity_table(none)


def test_extreme_networks_and_splits_still_make_a_run(app: Opener, tmp_path: Path) -> None:
    """One example on a side of the split, nothing learnt, everything forgotten."""
    same = replace(_network(), initial=dict(_network().trained))
    zero = Network.from_module(
        nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double(),
        trained={name: torch.zeros_like(value) for name, value in _network().trained.items()},
        initial=dict(_network().trained),
    )
    inputs, labels = np.asarray(_examples().inputs), np.arange(30) % 3
    splits = {
        name: Examples.from_arrays(inputs, labels, split=np.arange(30) < one) for name, one in (("a", 1), ("b", 29))
    }
    wanted = {
        "one training": (_network(), splits["a"], "no two training and two held-out examples"),
        "one held out": (_network(), splits["b"], "no two training and two held-out examples"),
        "nothing learnt": (same, _examples(), "Training changed no output of any example"),
        "all forgotten": (zero, _examples(), "without the last linear layer is left out"),
    }
    for name, (network, examples, sentence) in wanted.items():
        path = write_run(compute_run(network, examples, SETTINGS, progress=False), tmp_path / f"{name}.h5")
        with Run(path) as run:
            assert sentence in " ".join(run_card(run).split()), name
            assert sentence in " ".join(report_html(run).decode().split()), name
        for page in ("dual", "example"):
            fine(app(page, path))


DAMAGED = {
    "a missing part": ({"weight": None}, "the data set '/dual/weight' is missing"),
    "weights that are not there": ({"strongest/weight": 57}, "numbers from 0 to 56"),
    "examples that are not there": ({"support/position": 30}, "numbers from 0 to 29"),
    "another number of examples": ({"prediction": "short"}, "needs n = 30"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_dual_models_are_refused(name: str, contents: RunContents, tmp_path: Path) -> None:
    changes, sentence = DAMAGED[name]
    dual = contents.dual
    assert dual is not None
    columns = dict(dual.columns)
    for column, value in changes.items():
        if value is None:
            del columns[column]
        elif value == "short":
            columns[column] = np.asarray(columns[column])[:-1]
        else:
            columns[column] = np.full_like(np.asarray(columns[column]), value)
    changed = replace(contents, dual=replace(dual, columns=columns))
    if "is missing" not in sentence:  # what does not fit is not even written
        with pytest.raises(RunError, match=sentence):
            write_run(changed, tmp_path / "damaged.h5")
        return
    path = write_run(changed, tmp_path / "damaged.h5")
    with pytest.raises(RunError, match=sentence):
        Run(path)


def test_sizes_that_a_dual_model_only_claims_are_refused(path: Path, tmp_path: Path) -> None:
    for name in ("interaction/predicted", "map", "weight"):
        claimed = tmp_path / "claimed.h5"
        shutil.copy(path, claimed)
        with h5py.File(claimed, "r+") as file:
            dual = file["dual"]
            shape = (*dual[name].shape[:-1], 1 << 40)
            del dual[name]
            dual.create_dataset(name, shape, "f4", chunks=True)
        claimed.write_bytes(sealed(claimed.read_bytes()))
        with pytest.raises(RunError, match=f"'/dual/{name}' claims more numbers than it holds"):
            Run(claimed)


def test_whole_kernels_stand_beside_the_summed_ones(app: Opener, tmp_path: Path) -> None:
    settings = replace(SETTINGS, flattened=True)
    path = write_run(compute_run(_network(), _examples(), settings, progress=False), tmp_path / "whole.h5")
    with Run(path) as run:
        table = fidelity_table(run)
        kernels = {one: set(table[table["reduction"] == one]["kernel"]) for one in ("trace", "flattened")}
        assert kernels["trace"] == kernels["flattened"]
        assert len(kernels["trace"]) == 6
        assert run.provenance.settings["flattened"] is True
    page = texts(fine(app("dual", path)))
    assert "<td>summed</td>" in page
    assert "<td>each</td>" in page
    with pytest.raises(SettingsError, match="part of the dual model, which was not asked for; add --dual"):
        compute_run(_network(), _examples(), replace(settings, dual=False), progress=False)
    plan = extraction_plan(_network(), _examples(), settings)
    assert "whole kernels: six eigenproblems of side 57, or none above 4,096" in plan


def test_the_smallest_faithful_ticket_is_chosen_on_training_examples() -> None:
    def ticket(kept: int, training: float) -> Ticket:
        return Ticket("contribution", "sum", kept, 0.5, 0.9, 0.8, training)

    dual = DualRecord(tickets=tuple(ticket(*one) for one in ((1, 0.995), (2, 0.5), (4, 0.99), (8, 1.0), (9, 1.0))))
    found = dual.smallest_faithful("contribution", "sum")
    assert found is not None
    assert found.kept == 4  # that one feature does by chance is not enough
    assert dual.smallest_faithful("contribution", "network") is None
    assert replace(dual, tickets=(ticket(9, 0.9),)).smallest_faithful("contribution", "sum") is None


def test_tickets_are_told_with_their_null(path: Path) -> None:
    with Run(path) as run:
        assert len(ticket_table(run)) == len(run.dual.tickets if run.dual else ())
        said = ticket_sentences(run)
        assert len(said) == 2
        for sentence in said:
            assert "features agree with the network" in sentence
            assert "as many at random agree on" in sentence


def test_interactions_are_kept_pair_by_pair(path: Path) -> None:
    with Run(path) as run:
        table = interaction_table(run)
        found = interactions(_network(), _examples(), np.asarray(run.sets["eigen"].columns["direction"], dtype=float))
        kept = table.pivot(index="feature", columns="other", values="size").to_numpy()
        np.testing.assert_allclose(kept[:3, :3], found.size, rtol=1e-4, atol=1e-6)
        own = example_interactions(run, 8).pivot(index="feature", columns="other", values="interaction").to_numpy()
        wanted = found.values[8, int(np.asarray(run.outputs[8]).argmax())]
        np.testing.assert_allclose(own[:3, :3], wanted, rtol=1e-4, atol=1e-6)
        assert not table[table["feature"] == table["other"]]["edge"].any()


def test_the_card_of_a_run_tells_the_dual_model(path: Path) -> None:
    with Run(path) as run:
        card = " ".join(run_card(run).split())
        assert dual_headline(run) in card
        assert "add up to what training added, but for" in card
        for sentence in ticket_sentences(run):
            assert sentence in card


def test_a_single_output_predicts_no_class(app: Opener, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start, end = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1)).double() for _ in range(2))
    network = Network.from_module(end, initial=start.state_dict())
    rng = np.random.default_rng(0)
    examples = Examples.from_arrays(rng.standard_normal((30, 5)), rng.standard_normal(30), split=np.arange(30) % 4 != 0)
    path = write_run(compute_run(network, examples, SETTINGS, progress=False), tmp_path / "one.h5")
    with Run(path) as run:
        assert run.dual is not None
        assert {one.agreement for one in run.dual.fidelities} == {None}
        assert {one.target for one in run.dual.fidelities} == {"labels", "distillation"}
        assert ticket_sentences(run) == []
    assert "R2" in texts(fine(app("dual", path)))
    assert "Contributions" in texts(fine(app("example", path, example="2")))


# The app


def test_the_example_page_shows_what_the_run_holds(app: Opener, path: Path) -> None:
    page = texts(fine(app("example", path, example="4", output="1", by="unit")))
    with Run(path) as run:
        sums = closing(run, 4, 1)
        assert f"{sums.output:+.3g}".replace("-", "−") in page
        for kind in ("eigen", "weight"):
            first = strongest_features(run, 4, 1, kind).iloc[0]
            assert str(first["name"]) in page
            assert f"set={first['set']}&amp;feature={first['feature']}" in page
        assert f"example={support_table(run, 4, 1)['position'].iloc[0]}" in page
    assert "which belongs to no feature" in page
    assert "Interactions on this example" in page
    assert "Strongest neurons" not in page  # the run has none


def test_strongest_features_and_neurons_are_told_with_their_place() -> None:
    run = _all_sets(_network(), _examples())
    dual = run.dual
    assert dual is not None
    assert leading_set(run) == "eigen"
    shares = np.asarray(dual.columns["eigen/contribution"])[7, 2]
    found = strongest_features(run, 7, 2, "eigen", most=len(shares))
    # The dual model knows more eigen features than the set shows; those have no page.
    assert set(found[found["set"] == "eigen"]["feature"]) == {0, 1, 2}
    assert (found["contribution"].abs().diff().dropna() <= 0).all()
    np.testing.assert_array_equal(np.sort(found["contribution"]), np.sort(shares))
    units = strongest_features(run, 7, 2, "unit")
    for name, feature in zip(units["name"], units["feature"], strict=True):
        assert run.sets["unit"].label(feature) == name
    neurons = run.sets["neurons_1"].columns
    for by, values in (("activation", neurons["values"][:, 0, 7]), ("effect", neurons["ablation/example"][:, 7])):
        table = strongest_neurons(run, 7, by, most=4)
        assert table[by].tolist() == pytest.approx([values[f] for f in table["feature"]])
        assert table["feature"].tolist() == np.argsort(-np.abs(values), kind="stable")[:4].tolist()
    with pytest.raises(SettingsError, match="numbered 0 to 29, but -1 was asked for"):
        strongest_neurons(run, -1, "effect")


def test_features_that_no_set_shows_have_no_link(app: Opener, tmp_path: Path) -> None:
    settings = replace(SETTINGS, sets=(SetSettings("eigen", layers=("0",), n_components=3),), neurons=("1",))
    path = write_run(compute_run(_network(), _examples(), settings, progress=False), tmp_path / "few.h5")
    with Run(path) as run:
        assert leading_set(run) == ""
        for kind in ("eigen", "unit", "weight"):
            table = strongest_features(run, 3, 0, kind)
            assert set(table["set"]) == {""}
            assert set(table["feature"]) == {-1}
        part = np.asarray(run.sets["eigen_0"].columns["direction"], dtype=np.float64)[1]
        assert not part[36:].any()
        network = _network()
        added = np.concatenate([value.numpy().ravel() for value in network.displacement().values()])
        less = torch.nn.utils.parameters_to_vector(network.trained.values()) - torch.as_tensor((part @ added) * part)
        module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
        torch.nn.utils.vector_to_parameters(less, module.parameters())
        found = module(torch.as_tensor(np.asarray(_examples().inputs))).detach().numpy() - network.outputs(_examples())
        held = ~np.asarray(_examples().training)
        np.testing.assert_allclose(
            run.sets["eigen_0"].columns["ablation/output"][1], found[held].mean(axis=0), atol=1e-6
        )
    page = texts(fine(app("example", path, example="3")))
    assert "eigen 0</td>" in page
    assert "set=neurons_1" in page


def test_the_dual_page_puts_controls_beside_the_kernel(app: Opener, path: Path) -> None:
    labels, distilled = (texts(fine(app("dual", path, target=name))) for name in ("labels", "distillation"))
    with Run(path) as run:
        assert dual_headline(run)[:40] in labels
    for page in (labels, distilled):
        assert "effective kernel of the last linear layer alone" in page
        assert "effective kernel without the last linear layer" in page
    assert "says nothing about the other layers" in distilled
    assert "says nothing about the other layers" not in labels
    assert "Lottery tickets among features" in labels
    assert "Interactions of the leading eigen features" in labels


# Ablation


def _all_sets(network: Network, examples: Examples) -> RunContents:
    settings = ExtractSettings(
        sets=(SetSettings("eigen", n_components=3), SetSettings("unit"), SetSettings("canonical")),
        neurons=("1",),
        dual=True,
        keep=4,
    )
    return compute_run(network, examples, settings, progress=False)


def test_ablations_are_runs_of_the_network_without_the_feature() -> None:
    network, examples = _network(), _examples()
    run = _all_sets(network, examples)
    inputs = torch.as_tensor(np.asarray(examples.inputs))
    held, labels = ~np.asarray(examples.training), np.asarray(examples.targets)
    plain = network.outputs(examples)
    added = {name: value.numpy() for name, value in network.displacement().items()}

    def outputs(changed: dict[str, np.ndarray], silent: int | None = None) -> np.ndarray:
        module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
        module.load_state_dict({n: v - torch.as_tensor(changed.get(n, 0.0)) for n, v in network.trained.items()})
        with torch.no_grad():
            hidden = module[1](module[0](inputs))
            if silent is not None:
                hidden[:, silent] = 0
            return module[2](hidden).numpy()

    def check(name: str, feature: int, found: np.ndarray) -> None:
        columns = run.sets[name].columns
        loss = np.square(found - np.eye(3)[labels])[held].sum(axis=1).mean() / 2
        before = np.square(plain - np.eye(3)[labels])[held].sum(axis=1).mean() / 2
        assert columns["ablation/loss"][feature] == pytest.approx(loss - before, abs=1e-12)
        right = [(one.argmax(axis=1) == labels)[held].mean() for one in (found, plain)]
        assert columns["ablation/accuracy"][feature] == pytest.approx(right[0] - right[1])
        np.testing.assert_allclose(columns["ablation/output"][feature], (found - plain)[held].mean(axis=0), atol=1e-6)
        positions = columns["highest/position"][feature, 0]
        wanted = (found - plain)[positions, plain[positions].argmax(axis=1)]
        np.testing.assert_allclose(columns["ablation/highest"][feature, 0], wanted, atol=1e-6)
        if name != "weights":
            every = (found - plain)[np.arange(30), plain.argmax(axis=1)]
            np.testing.assert_allclose(columns["ablation/example"][feature], every, atol=1e-6)

    check("neurons_1", 4, outputs({}, silent=4))
    row = np.zeros((6, 5))
    row[2] = added["0.weight"][2]
    check("unit", 2, outputs({"0.weight": row}))
    entry = np.zeros((3, 6))
    entry[1, 3] = added["2.weight"][1, 3]
    check("weights", 45, outputs({"2.weight": entry}))
    v = np.asarray(run.sets["eigen"].columns["direction"], dtype=np.float64)[1]
    d = np.concatenate([added[name].ravel() for name in network.trained])
    part, changed = (v @ d) * v, {}
    for name, at in network.parameters.slices:
        changed[name] = part[at].reshape(added[name].shape)
    check("eigen", 1, outputs(changed))


def test_without_initial_parameters_only_neurons_are_taken_away() -> None:
    run = _all_sets(_network(initial=False), _examples())
    assert {name for name, one in run.sets.items() if "ablation/loss" in one} == {"neurons_1"}
    assert without(run, "unit", 0, "output:0") is None
    found = without(run, "neurons_1", 0, "activation")
    assert found is not None
    assert list(found.outputs["class"]) == ["0", "1", "2"]
    assert found.measured_on == "held-out examples"


def test_the_feature_page_shows_what_is_lost_without_it(app: Opener, path: Path) -> None:
    page = texts(fine(app("feature", path, set="eigen", feature="1")))
    assert "without this feature of what training added" in page
    assert "change of loss" in page
