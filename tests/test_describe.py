"""Tables, figures and words on runs, sets and features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from feature_lens.analysis import (
    at_rank,
    class_profile,
    default_view,
    direction_pictures,
    feature_histogram,
    feature_notes,
    feature_table,
    histogram,
    parameter_shares,
    quantile_rows,
    range_row,
    rank_window,
    selectivity,
    set_table,
)
from feature_lens.analysis.feature_table import feature_labels
from feature_lens.analysis.orders import end_of
from feature_lens.cards import ParameterTable
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples, Modality
from feature_lens.feature_set import FeatureSet
from feature_lens.run_contents import RunContents


@pytest.fixture(scope="module")
def run() -> RunContents:
    return synthetic.contents(90)


def odd_run() -> RunContents:
    """Neurons that are dead, constant, partly not finite, and sound."""
    run = synthetic.contents(60)
    values = np.random.default_rng(0).standard_normal((4, 1, 60))
    values[0], values[1], values[2, 0, 7], values[2, 0, 20] = 0, 2.5, np.nan, np.inf
    odd = synthetic._set("odd", values, ("activation",), run.examples, labels=np.array(["Dead", "Same", "Bad", "Good"]))
    return replace(run, sets={"odd": odd})


def test_set_table_has_a_row_per_set(run: RunContents) -> None:
    table = set_table(run)
    assert table["name"].tolist() == ["eigen", "trace", "unit", "weights", "neurons"]
    assert table["k"].tolist() == [6, 4, 5, 80, 5]
    assert table["stored"].tolist() == [True, True, True, False, True]
    assert table["kernel_share"].isna().all()


def test_default_view_is_the_score_where_there_is_one(run: RunContents) -> None:
    assert default_view(run.sets["eigen"]) == "score"
    assert default_view(run.sets["unit"]) == "output:0"


@pytest.mark.parametrize("set_name", ["eigen", "trace", "unit", "weights", "neurons"])
def test_labels_are_those_of_the_set(run: RunContents, set_name: str) -> None:
    feature_set = run.sets[set_name]
    assert feature_labels(feature_set) == [feature_set.label(k) for k in range(len(feature_set))]


def test_labels_of_weights_of_any_shape_are_those_of_the_table(run: RunContents) -> None:
    table = ParameterTable(("a", "scalar", "conv"), ((3,), (), (2, 2, 3, 1)), (1.0, 1.0, 1.0))
    weights = run.sets["weights"]
    short = {name: column[: table.total] for name, column in weights.columns.items()}
    feature_set = FeatureSet("weights", weights.views, weights.card, short, table)
    assert feature_labels(feature_set) == [table.label(mu) for mu in range(table.total)]
    nameless = FeatureSet("some", weights.views, weights.card, short)
    assert feature_labels(nameless)[2] == nameless.label(2) == "some 2"
    raw = FeatureSet("raw", weights.views, weights.card, {**short, "labels": np.array([b"\xc3\xa9"] * table.total)})
    assert feature_labels(raw)[0] == raw.label(0) == "é"


def test_table_is_in_default_order_and_holds_the_stored_figures(run: RunContents) -> None:
    table = feature_table(run, "weights", "output:1")
    weights = run.sets["weights"]
    order = weights.read("order")
    assert table["feature"].tolist() == order.tolist()
    for name in ("mean", "std", "minimum", "maximum", "n_nonfinite"):
        np.testing.assert_array_equal(table[name], weights.read(name)[order, 1])
    assert table["layer"].tolist() == [weights.label(k).split("[")[0] for k in order]
    reverse = feature_table(run, "weights", "output:1", descending=True)
    assert reverse["feature"].tolist() == order[::-1].tolist()


def test_search_takes_text_as_it_stands_in_any_case(run: RunContents) -> None:
    found = feature_table(run, "weights", "output:0", search="WEIGHT[1,")
    assert found["label"].str.contains("weight[1,", regex=False).all()
    assert len(found) == 12 + 5
    assert feature_table(run, "weights", "output:0", search=".*").empty


@pytest.mark.parametrize("sort", ["mean", "std", "maximum", "minimum", "spectrum", "stability", "selectivity", "label"])
@pytest.mark.parametrize("descending", [False, True])
def test_sorts(run: RunContents, sort: Any, descending: bool) -> None:
    table = feature_table(run, "eigen", "score", sort=sort, descending=descending)
    figures = table[sort].tolist()
    assert figures == sorted(figures, reverse=descending)
    assert sorted(table["feature"]) == list(range(6))
    rows = table.set_index("feature")
    assert rows.loc[3, "mean"] == run.sets["eigen"].read("mean")[3, 0]


def test_equal_figures_stay_in_order_of_number_and_unknown_ones_come_last() -> None:
    run = odd_run()
    table = feature_table(run, "odd", "activation", sort="std")
    assert table["feature"].tolist()[:2] == [0, 1]
    run = replace(run, sets={"odd": synthetic._set("odd", np.full((2, 1, 60), np.nan), ("activation",), run.examples)})
    assert feature_table(run, "odd", "activation", sort="maximum", descending=True)["feature"].tolist() == [0, 1]
    assert feature_table(run, "odd", "activation", keep="live").empty


def test_selectivity_is_measured_on_held_out_examples(run: RunContents) -> None:
    table = feature_table(run, "eigen", "output:1", sort="selectivity").set_index("feature")
    held_out = ~np.asarray(run.examples.training)
    assert run.examples.labels is not None
    values = run.sets["eigen"].read("values")[:, 2][:, held_out]
    score, best = selectivity(values, run.examples.labels[held_out])
    for feature in range(6):
        assert table.loc[feature, "selectivity"] == score[feature]
        assert table.loc[feature, "best_class"] == ("ant", "bee", "cat")[best[feature]]


def test_filters_and_flags_of_odd_features() -> None:
    run = odd_run()

    def kept(keep: Any) -> list[str]:
        return sorted(feature_table(run, "odd", "activation", keep=keep)["label"])

    assert kept("all") == ["Bad", "Dead", "Good", "Same"]
    assert kept("live") == ["Bad", "Good"]
    assert kept("dead") == ["Dead"]
    assert kept("constant") == ["Dead", "Same"]
    assert kept("nonfinite") == ["Bad"]


def test_groups_are_eigenspaces_or_layers(run: RunContents) -> None:
    assert feature_table(run, "eigen", "score", group=1)["feature"].tolist() == [1, 2]
    assert set(feature_table(run, "weights", "output:0", group="0.bias")["feature"]) == set(range(60, 65))
    assert len(feature_table(run, "neurons", "activation", group="1")) == 5
    with pytest.raises(SettingsError, match="no groups"):
        feature_table(run, "neurons", "activation", group=1)
    with pytest.raises(SettingsError, match="no layers"):
        feature_table(run, "eigen", "score", group="1")


def test_table_refuses_what_it_does_not_know(run: RunContents) -> None:
    with pytest.raises(SettingsError, match="feature set of this run"):
        feature_table(run, "eigne", "score")
    with pytest.raises(SettingsError, match="view of feature set"):
        feature_table(run, "eigen", "scores")
    with pytest.raises(SettingsError, match="way to sort"):
        feature_table(run, "eigen", "score", sort="size")  # type: ignore[arg-type]  # what a link may hold
    with pytest.raises(SettingsError, match="selection of features"):
        feature_table(run, "eigen", "score", keep="some")  # type: ignore[arg-type]  # what a link may hold
    with pytest.raises(SettingsError, match="no spectrum to sort by"):
        feature_table(run, "neurons", "activation", sort="spectrum")
    with pytest.raises(SettingsError, match="choose a stored set"):
        feature_table(run, "weights", "output:0", sort="selectivity")


def test_histogram_counts_finite_values() -> None:
    values = np.array([0, 1, 1, 2, np.nan, np.inf, 4.0])
    table = histogram(values, 4)
    assert table["low"].tolist() == [0, 1, 2, 3]
    assert table["high"].tolist() == [1, 2, 3, 4]
    assert table["count"].tolist() == [1, 2, 1, 1]
    assert histogram(np.full(5, 3.0)).to_numpy().tolist() == [[3, 3, 5]]
    assert histogram(np.array([1.0, np.nextafter(1.0, 2)]))["count"].sum() == 2
    assert histogram(np.array([np.nan])).empty
    with pytest.raises(SettingsError, match="at least one bin"):
        histogram(values, 0)


def test_class_profile_is_the_mean_by_class(run: RunContents) -> None:
    table = class_profile(run, "eigen", 5, "output:0")
    assert table is not None
    labels = run.examples.labels
    assert labels is not None
    values = run.sets["eigen"].read("values")[5, 1]
    assert table["class"].tolist() == ["ant", "bee", "cat"]
    np.testing.assert_allclose(table["mean"], [values[labels == q].mean() for q in range(3)], rtol=1e-5)
    assert table["count"].tolist() == np.bincount(labels).tolist()


def without_labels(run: RunContents) -> RunContents:
    examples = run.examples
    bare = Examples.from_arrays(examples.inputs, modality=examples.modality)
    return replace(run, examples=bare)


def test_without_labels_there_is_no_profile(run: RunContents) -> None:
    assert class_profile(without_labels(run), "eigen", 0, "score") is None
    with pytest.raises(SettingsError, match="needs class labels"):
        feature_table(without_labels(run), "eigen", "score", sort="selectivity")


def test_shares_of_parameters(run: RunContents) -> None:
    table = parameter_shares(run.sets["eigen"], 2)
    assert table is not None
    assert table["parameter"].tolist() == ["0.weight", "0.bias", "2.weight"]
    assert table["share"].sum() == pytest.approx(1)
    weights = parameter_shares(run.sets["weights"], 62)
    assert weights is not None
    assert weights["share"].tolist() == [0, 1, 0]
    assert parameter_shares(run.sets["neurons"], 0) is None


def test_direction_is_cut_into_tensors(run: RunContents) -> None:
    pictures = dict(direction_pictures(run, "eigen", 3))
    direction = run.sets["eigen"].read("direction")[3]
    assert list(pictures) == ["0.weight", "0.weight as images", "0.bias", "2.weight"]
    np.testing.assert_array_equal(pictures["0.weight"], direction[:60].reshape(5, 12))
    np.testing.assert_array_equal(pictures["0.bias"], direction[None, 60:65])
    tiles = pictures["0.weight as images"]
    assert tiles.shape == (2 * 4 - 1, 3 * 5 - 1)
    np.testing.assert_array_equal(tiles[4:7, 5:9], direction[48:60].reshape(3, 4))
    assert (tiles[3] == 0).all()
    last = replace(run.examples, modality=Modality("image", (1, 4, 3), channels_last=True))
    turned = dict(direction_pictures(replace(run, examples=last), "eigen", 3))["0.weight as images"]
    np.testing.assert_array_equal(turned[5:9, 4:7], direction[48:60].reshape(4, 3))
    colours = replace(run.examples, modality=Modality("image", (3, 2, 2), channels_last=True))
    turned = dict(direction_pictures(replace(run, examples=colours), "eigen", 3))["0.weight as images"]
    np.testing.assert_array_equal(turned[:2, 3:5], direction[:12].reshape(2, 2, 3)[:, :, 1])
    assert direction_pictures(run, "neurons", 0) == []


def test_direction_of_a_trace_feature_has_one_part_per_output(run: RunContents) -> None:
    trace = run.sets["trace"]
    parts = np.random.default_rng(0).standard_normal((4, 3, 80)).astype(np.float32)
    with_parts = replace(run, sets={"trace": replace(trace, columns={**trace.columns, "direction": parts})})
    for output in (None, 0, 2):
        pictures = dict(direction_pictures(with_parts, "trace", 1, output=output))
        np.testing.assert_array_equal(pictures["2.weight"], parts[1, output or 0, 65:].reshape(3, 5))
    with pytest.raises(SettingsError, match="Outputs are numbered 0 to 2"):
        direction_pictures(with_parts, "trace", 1, output=3)


def test_convolution_kernels_are_tiled(run: RunContents) -> None:
    table = ParameterTable(("conv", "first", "line", "gain"), ((2, 3, 2, 2), (5, 1, 2, 2), (2, 2, 3), ()), (1.0,) * 4)
    direction = np.arange(1, table.total + 1, dtype=np.float32)[None]
    eigen = run.sets["eigen"]
    columns = {**{name: column[:1] for name, column in eigen.columns.items()}, "direction": direction}
    conv = replace(
        run,
        network=replace(run.network, parameters=table),
        sets={"eigen": FeatureSet("eigen", eigen.views, eigen.card, columns, table)},
    )
    pictures = dict(direction_pictures(conv, "eigen", 0))
    kernels = direction[0, :24].reshape(2, 3, 2, 2)
    assert pictures["conv"].shape == (5, 8)
    np.testing.assert_array_equal(pictures["conv"][3:5, 6:8], kernels[1, 2])
    assert pictures["first"].shape == (5, 8)
    assert pictures["line"].shape == (3, 7)
    assert pictures["gain"].shape == (1, 1)


def test_quantile_rows_cover_the_whole_order(run: RunContents) -> None:
    rows = quantile_rows(run, "eigen", 4, "score", groups=4, per_group=5)
    values = run.sets["eigen"].values(4, "score")
    falling = np.sort(values)[::-1]
    assert [row.name for row in rows] == ["highest 25 %", "25–50 %", "50–75 %", "lowest 25 %"]
    start = 0
    for row, size in zip(rows, (23, 23, 22, 22), strict=True):
        assert (row.high, row.low) == (falling[start], falling[start + size - 1])
        assert row.ranks[0] == start
        assert row.ranks[-1] == start + size - 1
        np.testing.assert_array_equal(row.values, falling[row.ranks])
        np.testing.assert_array_equal(values[row.positions], row.values)
        start += size
    assert [row.name for row in quantile_rows(run, "eigen", 4, "score", groups=1)] == ["all"]
    assert len(quantile_rows(run, "eigen", 4, "score", groups=200)) == 90
    with pytest.raises(SettingsError, match="at least one example"):
        quantile_rows(run, "eigen", 4, "score", per_group=0)
    with pytest.raises(SettingsError, match="choose a stored set"):
        quantile_rows(run, "weights", 4, "output:0")


def test_range_row_holds_both_ends(run: RunContents) -> None:
    row = range_row(run, "eigen", 4, "score", 7)
    values = run.sets["eigen"].values(4, "score")
    assert len(row.ranks) == 7
    assert (row.values[0], row.values[-1]) == (values.max(), values.min())
    assert (row.high, row.low) == (values.max(), values.min())
    assert len(range_row(run, "eigen", 4, "score", 1000).ranks) == 90


def test_jump_to_a_rank(run: RunContents) -> None:
    values = np.sort(run.sets["eigen"].values(0, "score"))[::-1]
    for rank in (0, 3, 44, 88, 89):
        positions, found = at_rank(run, "eigen", 0, "score", rank, 6)
        window = rank_window(90, rank, 6)
        assert rank in window
        assert len(window) == len(positions) == 6
        np.testing.assert_array_equal(found, values[window.start : window.stop])
    assert len(at_rank(run, "eigen", 0, "score", 5, 500)[0]) == 90
    with pytest.raises(SettingsError, match="Ranks run from 0 to 89"):
        at_rank(run, "eigen", 0, "score", 90)


def test_ranges_of_odd_features_leave_out_what_is_not_finite() -> None:
    run = odd_run()
    assert sum(len(row.ranks) for row in quantile_rows(run, "odd", 2, "activation", 2, 100)) == 58
    nothing = replace(
        run, sets={"odd": synthetic._set("odd", np.full((1, 1, 60), np.nan), ("activation",), run.examples)}
    )
    assert len(range_row(nothing, "odd", 0, "activation").ranks) == 0
    assert quantile_rows(nothing, "odd", 0, "activation") == []
    with pytest.raises(SettingsError, match="No example is ranked"):
        at_rank(nothing, "odd", 0, "activation", 0)


def test_more_than_was_kept_comes_from_the_values(run: RunContents) -> None:
    values = run.sets["eigen"].values(2, "score")
    for end, sign in (("highest", -1), ("lowest", 1)):
        positions, found = end_of(run, "eigen", 2, "score", end, 40)
        np.testing.assert_array_equal(found, values[np.argsort(sign * values)[:40]])
        np.testing.assert_array_equal(values[positions], found)
        np.testing.assert_array_equal(positions[:16], run.sets["eigen"].extremes(2, "score", end)[0])
    with pytest.raises(SettingsError, match="ask for at most 16"):
        end_of(run, "weights", 2, "output:0", "highest", 17)
    with pytest.raises(SettingsError, match="At least one example"):
        end_of(run, "eigen", 2, "score", "highest", 0)


def test_ties_beyond_what_was_kept_go_to_the_smaller_id() -> None:
    run = odd_run()
    for end in ("highest", "lowest"):
        assert end_of(run, "odd", 1, "activation", end, 30)[0].tolist() == list(range(30))


def test_notes_say_what_to_beware_of(run: RunContents) -> None:
    # A rectified unit is zero on more examples than are kept: which zeros are shown says nothing.
    (tied,) = feature_notes(run, "neurons", 0, "activation")
    assert tied.startswith("All 16 lowest examples kept have the same value, 0")
    assert feature_notes(run, "unit", 0, "output:0") == []
    assert any("1 to 2" in note and "subspace" in note for note in feature_notes(run, "eigen", 1, "score"))
    last = " ".join(feature_notes(run, "eigen", 5, "score"))
    assert "cosine of 0.20" in last
    assert "only 40%" in last
    assert "energy" not in " ".join(feature_notes(run, "eigen", 5, "output:0"))
    eigen = run.sets["eigen"]
    mostly_mean = replace(
        eigen, columns={**eigen.columns, "mean_share": np.full(6, 0.97), "group": np.array([0, 1, 0, 2, 0, 3])}
    )
    changed = replace(run, sets={"eigen": mostly_mean})
    words = " ".join(feature_notes(changed, "eigen", 0, "score"))
    assert "mostly the mean" in words
    assert "(0, 2, 4)" in words


def test_notes_on_odd_values() -> None:
    run = odd_run()
    assert feature_notes(run, "odd", 0, "activation")[0].startswith("Dead")
    assert feature_notes(run, "odd", 1, "activation")[0].startswith("Constant: its value is 2.5")
    assert "2 values are not finite" in feature_notes(run, "odd", 2, "activation")[0]
    assert "id 7" in feature_notes(run, "odd", 2, "activation")[0]
    assert feature_notes(run, "odd", 3, "activation") == []


def test_notes_on_few_and_repeated_examples() -> None:
    run = synthetic.contents(9)
    assert any("Only 9 of the 16" in note for note in feature_notes(run, "eigen", 0, "score"))
    inputs = np.repeat(np.asarray(run.examples.inputs)[:3], 3, axis=0)
    repeated = replace(run, examples=replace(run.examples, inputs=inputs))
    notes = feature_notes(repeated, "eigen", 0, "score")
    assert "Among the 9 highest examples, 6 inputs repeat another one exactly." in notes


def test_table_of_a_run_is_read_once_per_set_and_view(run: RunContents) -> None:
    first = feature_table(run, "eigen", "score")
    first.loc[:, "mean"] = 99.0
    assert (feature_table(run, "eigen", "score")["mean"] != 99.0).all()


def test_histogram_of_a_feature_from_its_values_or_from_its_counts() -> None:
    made = synthetic.contents()
    eigen, weights = made.sets["eigen"], made.sets["weights"]
    pd.testing.assert_frame_equal(feature_histogram(eigen, 1, "score"), histogram(eigen.values(1, "score")))
    assert feature_histogram(weights, 1, "output:0") is None
    counts = np.zeros((len(weights), 3, 4), dtype=np.int32)
    counts[1, 0] = [1, 2, 3, 54]
    counted = replace(weights, columns={**weights.columns, "histogram": counts})
    found = feature_histogram(counted, 1, "output:0")
    assert found is not None
    assert list(found["count"]) == [1, 2, 3, 54]
    assert found["low"].iloc[0] == pytest.approx(weights.read("minimum")[1, 0])
    assert found["high"].iloc[-1] == pytest.approx(weights.read("maximum")[1, 0])
    constant = {"minimum": np.ones_like(weights.read("minimum")), "maximum": np.ones_like(weights.read("maximum"))}
    still = replace(counted, columns={**counted.columns, **constant})
    alone = feature_histogram(still, 1, "output:0")
    assert alone is not None
    assert alone.to_dict("list") == {"low": [1.0], "high": [1.0], "count": [60]}


def test_quantile_groups_are_fewer_than_asked_for_with_few_examples() -> None:
    made = synthetic.contents(60)
    few = made.examples.on(np.arange(3))
    eigen = made.sets["eigen"]
    values = eigen.read("values")[:, :, :3]
    three = replace(made, examples=few, sets={"eigen": replace(eigen, columns={**eigen.columns, "values": values})})
    rows = quantile_rows(three, "eigen", 0, "score", groups=5)
    assert rows[0].name.startswith("highest 33")
    assert rows[-1].name.startswith("lowest 33")
    assert len(rows) == 3
