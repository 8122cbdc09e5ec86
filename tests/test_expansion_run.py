"""The expansion about the initial parameters in a run, its tables, the app, and the command that studies it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import test_app
import test_cli
import torch
from test_app import Opener, fine, texts
from test_cli import Invoke
from torch import nn

from feature_lens.analysis import Run, TableRequest, report_html, run_card
from feature_lens.analysis.dual_tables import output_table
from feature_lens.analysis.expansion_tables import (
    LIMITS,
    course_sentence,
    expansion_beside,
    expansion_points,
    verdict_on,
)
from feature_lens.analysis.tables import table_rows
from feature_lens.dual.perturbation.course import expansion_course
from feature_lens.dual.perturbation.expansion import ExpansionSettings, expansion
from feature_lens.errors import RunError, SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.networks import Network
from feature_lens.run_contents import RunContents
from feature_lens.store import write_run
from feature_lens.store.seal import sealed

app = test_app.app  # fixtures
here, invoke = test_cli.here, test_cli.invoke


def _network() -> Network:
    torch.manual_seed(0)
    start, end = (nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double() for _ in range(2))
    return Network.from_module(end, initial=start.state_dict())


def _examples() -> Examples:
    rng = np.random.default_rng(0)
    return Examples.from_arrays(rng.standard_normal((24, 5)), np.arange(24) % 3, split=np.arange(24) % 4 != 0)


SETTINGS = ExtractSettings(
    sets=(SetSettings("eigen", n_components=2),), neurons=(), dual=True, trained_step=0.01, trained_time=20
)


@pytest.fixture(scope="module")
def contents() -> RunContents:
    return compute_run(_network(), _examples(), SETTINGS, name="expanded", progress=False)


@pytest.fixture(scope="module")
def path(contents: RunContents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(contents, tmp_path_factory.mktemp("expanded") / "expanded.h5")


def test_a_run_holds_the_expansion_of_the_training_that_was_named(path: Path) -> None:
    wanted, orders = expansion(_network(), _examples(), ExpansionSettings(0.01, 20))
    with Run(path) as run:
        assert run.dual is not None
        assert run.dual.expansion == wanted
        for order, values in zip(wanted.orders, orders, strict=True):
            np.testing.assert_array_equal(np.asarray(run.dual.columns[f"expansion/{order.name}"]), values)
        table = output_table(run, 7)
        np.testing.assert_allclose(table["leading"], orders[0, 7])
        np.testing.assert_allclose(table["next"], orders[0, 7] + orders[1, 7])
        points = expansion_points(run, 1, most=4)
        np.testing.assert_allclose(points["squared"], orders.sum(axis=0)[points["position"], 1])
        assert list(points["position"]) == [0, 4, 12, 20]
        assert verdict_on(wanted) in " ".join(run_card(run).split())
        rows = table_rows(run, TableRequest("expansion", example=7, output=2))
        np.testing.assert_allclose(rows[["value", "leading"]].to_numpy()[0], [run.outputs[7, 2], orders[0, 7, 2]])
        assert list(table_rows(run, TableRequest("expansion_orders"))["size"]) == [one.size for one in wanted.orders]
        beside = expansion_beside(run)
        assert list(beside["r2"][:3]) == [one.r2 for one in wanted.orders]
        assert beside["words"].str.startswith("regression").sum() == 4
        assert b"The trained function in closed form" in report_html(run)


def test_training_to_the_end_is_read_back(contents: RunContents, tmp_path: Path) -> None:
    assert contents.dual is not None
    assert contents.dual.expansion is not None
    endless = replace(contents.dual, expansion=replace(contents.dual.expansion, time=math.inf))
    with Run(write_run(replace(contents, dual=endless), tmp_path / "endless.h5")) as run:
        assert run.dual is not None
        assert run.dual.expansion == endless.expansion


def test_without_initial_parameters_there_is_none_and_a_singular_one_is_a_remark() -> None:
    blind = compute_run(replace(_network(), initial=None), _examples(), replace(SETTINGS), progress=False)
    assert blind.dual is not None
    assert blind.dual.expansion is None
    with pytest.raises(SettingsError, match="holds no expansion"):
        expansion_points(blind, 0)
    fast = compute_run(_network(), _examples(), replace(SETTINGS, trained_step=10.0), progress=False)
    assert fast.dual is not None
    assert fast.dual.expansion is None
    assert any("diverges" in remark for remark in fast.dual.remarks)
    other = replace(SETTINGS, trained_otherwise="AdamW, cross-entropy", trained_step=0.0, trained_time=None)
    refused = compute_run(_network(), _examples(), other, progress=False)
    assert refused.dual is not None
    assert refused.dual.expansion is None
    assert any("trained otherwise (AdamW, cross-entropy)" in remark for remark in refused.dual.remarks)


def test_an_expansion_that_is_not_finite_is_a_remark() -> None:
    examples = replace(_examples(), targets=1e130 * np.random.default_rng(0).standard_normal((24, 3)))
    found = compute_run(_network(), examples, replace(SETTINGS, sets=(), neurons=None), progress=False)
    assert found.dual is not None
    assert found.dual.expansion is None
    assert any("The expansion is not finite" in remark for remark in found.dual.remarks)


def test_the_training_belongs_to_the_dual_model() -> None:
    with pytest.raises(SettingsError, match="part of the dual model"):
        compute_run(_network(), _examples(), replace(SETTINGS, dual=False), progress=False)
    with pytest.raises(SettingsError, match="needs its number of steps"):
        compute_run(_network(), _examples(), replace(SETTINGS, trained_time=None), progress=False)


def _attribute(change: Callable[[str], str]) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        file["dual"].attrs["expansion"] = change(file["dual"].attrs["expansion"])

    return damage


DAMAGE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "no orders": (_attribute(lambda text: text.replace('"orders"', '"others"')), "lacks the orders"),
    "another order": (_attribute(lambda text: text.replace('"squared"', '"cubed"')), "lacks the orders"),
    "no figure": (_attribute(lambda text: text.replace('"matched": false', '"matched": "no"')), "is no figure"),
    "words for a size": (_attribute(lambda text: text.replace('"r2": ', '"r2": "large", "x": ')), "is no figure"),
    "null": (_attribute(lambda _: "null"), "only a part of its expansion"),
    "a number among the orders": (
        _attribute(lambda text: text.replace('"orders": [', '"orders": [1, ')),
        "lacks the orders",
    ),
    "no float": (_attribute(lambda text: text.replace('"step": 0.01', '"step": 1' + "0" * 400)), "is no figure"),
    "a truth": (_attribute(lambda text: text.replace('"step": 0.01', '"step": true')), "is no figure"),
    "not finite": (_attribute(lambda text: text.replace('"step": 0.01', '"step": NaN')), "is no JSON"),
    "a part of an example": (
        _attribute(lambda text: text.replace('"examples": 18', '"examples": 1.5')),
        "is no figure",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_expansion_is_refused(name: str, path: Path, tmp_path: Path) -> None:
    damage, said = DAMAGE[name]
    copy = tmp_path / "damaged.h5"
    copy.write_bytes(path.read_bytes()[:-85])
    with h5py.File(copy, "r+") as file:
        damage(file)
    copy.write_bytes(sealed(copy.read_bytes()))
    with pytest.raises(RunError, match=said):
        Run(copy)


def test_the_app_tells_of_it(app: Opener, path: Path, contents: RunContents, tmp_path: Path) -> None:
    assert contents.dual is not None
    assert contents.dual.expansion is not None
    shown = texts(fine(app("dual", path)))
    assert "The trained function in closed form" in shown
    assert verdict_on(contents.dual.expansion) in shown
    assert LIMITS in shown
    assert "next-to-leading order: with dNTK and ddNTK" in shown
    changed = fine(app("dual", path, order="next", output="2"))
    assert "expansion" in texts(changed)
    learn = texts(fine(app("learn", path)))
    assert verdict_on(contents.dual.expansion) in learn
    assert "kernel regression with features that stay as they were" in learn
    assert "next-to-leading order" in texts(fine(app("example", path, example="3")))
    columns = {name: values for name, values in contents.dual.columns.items() if not name.startswith("expansion/")}
    bare = replace(contents, dual=replace(contents.dual, expansion=None, columns=columns))
    without = write_run(bare, tmp_path / "without.h5")
    assert "holds no expansion" in texts(fine(app("dual", without)))
    assert "How to read the table" in texts(fine(app("learn", without)))


def test_a_course_ends_where_the_expansion_is_and_is_held_against_real_training() -> None:
    settings = ExpansionSettings(time=2.0)
    course = expansion_course(_network(), _examples(), settings, points=3)
    found, _ = expansion(_network(), _examples(), settings)
    np.testing.assert_allclose(course["time"], [2 / 16, 2 / 4, 2])
    for order in found.orders:
        assert course[order.name].iloc[-1] == pytest.approx(order.size, rel=1e-6)
    assert (course["loss"].diff().dropna() < 0).all()
    assert course["error_next"][0] < course["error_leading"][0] < 0.2
    assert (course["error_leading"].diff().dropna() > 0).all()
    assert np.isnan(expansion_course(_network(), _examples(), ExpansionSettings(time=1e4), points=1)["error_next"][0])


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((0.1, 0.2, 0.2), "all of the flow"),
        ((0.5, 2, 9), "not small even at a time of about 1"),
        ((0.1, 0.2, 9), "up to a time of about 2"),
    ],
)
def test_courses_in_words(sizes: tuple[float, ...], said: str) -> None:
    course = pd.DataFrame({"time": [1.0, 2.0, 3.0], "loss": [0.9, 0.5, 0.1], "leading": [1.0] * 3, "next": sizes})
    assert said in course_sentence(course, True)
    assert ("the network's own is" in course_sentence(course, True)) == ("all of" not in said)
    assert "the network's own" not in course_sentence(course, False)


NET = ("--network", "net.py:net", "--data", "net.py:data", "--initial", "trained.pt")


def test_theory_of_ones_own_network(invoke: Invoke, here: Path) -> None:
    status, out, _ = invoke("theory", *NET, "--time", "1", "--side", "12", "--out", "found")
    assert status == 0
    assert "but the network is not what that training gives" in out
    assert "Gradient flow for a time of 1 on 4 training examples" in out
    assert LIMITS in out
    assert sorted(path.name for path in (here / "found").iterdir()) == ["course.csv", "course.png", "orders.csv"]
    assert list(pd.read_csv(here / "found" / "orders.csv")["order"]) == ["leading", "next", "squared"]
    assert (here / "found" / "course.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = invoke("theory", *NET, "--out", "found")
    assert status == 2
    assert "is not empty" in err


def test_theory_over_widths_and_algorithms(invoke: Invoke, here: Path) -> None:
    arguments = ("--widths", "8,16", "--depths", "1", "--seeds", "1", "--workers", "1", "--time", "0.5")
    status, out, _ = invoke("theory", *arguments, "--out", "widths")
    assert status == 0
    assert "With 1 hidden layer the error of leading order falls as" in out
    assert set(pd.read_csv(here / "widths" / "widths.csv")["width"]) == {8, 16}
    assert (here / "widths" / "widths.png").read_bytes().startswith(b"\x89PNG")
    status, out, _ = invoke("theory", "--algorithms", *NET, "--most-steps", "40", "--out", "algorithms")
    assert status == 0
    assert "adamw" in out
    assert "before training" in out
    assert len(pd.read_csv(here / "algorithms" / "pairs.csv")) == 21


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digit",), "digits"),
        (("digits", "--network", "net.py:net", "--data", "net.py:data"), "one of these, or neither"),
        (("--network", "net.py:net"), "one of these, or neither"),
        (("--network", "net.py:net", "--data", "net.py:data"), "before training"),
        (("--widths", "8,x"), "whole numbers"),
        (("--widths", "8,8"), "named once"),
        (("--time", "0"), "for a time above 0"),
        (("--trained", "trained.pt"), "network of your own"),
        ((*NET, "--time", "0"), "for a time above 0"),
        ((*NET, "--side", "0"), "At least one row"),
        (("--widths", "0"), "at least 1"),
        (("--out", "net.py"), "is a file"),
        (("--side", "3"), "--side belongs to one network, but networks of many widths came"),
        (("digits", "--seeds", "3"), "--seeds belongs to networks of many widths, but one network came"),
        (("digits", "--most-steps", "3"), "--most-steps belongs to --algorithms, but one network came"),
        (("--algorithms", "--time", "3"), "--time belongs to networks of many widths, but --algorithms came"),
        (
            ("--algorithms", "--network", "net.py:net", "--data", "net.py:one_class", "--initial", "trained.pt"),
            "held-out",
        ),
    ],
)
def test_theory_refuses_in_a_sentence(invoke: Invoke, arguments: tuple[str, ...], said: str) -> None:
    status, _, err = invoke("theory", *arguments)
    assert status == 2
    assert err.startswith("Error: ")
    assert said in err
    assert err.count("\n") == 1
