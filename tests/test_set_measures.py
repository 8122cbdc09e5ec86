"""The tables of measures: the same figures as the single measures, for every kind that a run has; and what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import contents

from feature_lens.analysis.headline import class_figures
from feature_lens.analysis.kinds import LOGITS, RANDOM
from feature_lens.analysis.measures.alignment import best_matches_of_concept, mean_max_cosine, overlap_curve
from feature_lens.analysis.measures.bootstrap import resampled, shuffled
from feature_lens.analysis.measures.descriptions import MEASURES, measure_of
from feature_lens.analysis.measures.measured_kinds import MeasureSettings, halves_of
from feature_lens.analysis.measures.purity import top_purity
from feature_lens.analysis.measures.set_measures import (
    concept_matches,
    measure_curves,
    measured_names,
    measures_sentence,
    set_measures,
    winners,
)
from feature_lens.analysis.measures.sparsity import hoyer
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents

FEW = MeasureSettings(features=4, most=8, shown=6, draws=20, shuffles=10)
RUN = contents()
TABLE = set_measures(RUN, FEW)


def _row(kind: str, table: pd.DataFrame = TABLE) -> pd.Series:
    return table[table["kind"] == kind].iloc[0]


def _with_set(run: RunContents, name: str, **columns: object) -> RunContents:
    one = run.sets[name]
    return replace(run, sets={**run.sets, name: replace(one, columns={**one.columns, **columns})})


def test_rows_are_the_kinds_and_columns_the_measures_with_intervals_and_nulls() -> None:
    assert TABLE["kind"].tolist() == ["Eigen", "Trace", "Unit", "Weights", "Neurons", LOGITS, RANDOM]
    assert TABLE["set"].tolist() == ["eigen", "trace", "unit", "weights", "neurons", "", "eigen"]
    assert TABLE["features"].tolist() == [4, 4, 4, 4, 4, 3, 4]
    names = measured_names(TABLE)
    concepts = [f"{kind} {name}" for kind in ("cosine", "overlap") for name in ("legs & wings", "a phase")]
    concepts.insert(0, "auroc legs & wings")
    assert names == [*(n for n in MEASURES if not n.startswith(("removal", "matched", "span"))), *concepts]
    for name in names:
        assert list(TABLE.columns[TABLE.columns.get_loc(name) :][:5]) == [
            name,
            *(f"{name}_{part}" for part in ("low", "high", "null", "null_99")),
        ]
        assert measure_of(name).words
    eigen = _row("Eigen")
    for name in ("class_auroc", "hoyer", "top_purity", "r2", "overlap legs & wings"):
        assert eigen[f"{name}_low"] <= eigen[name] <= eigen[f"{name}_high"]
        assert eigen[f"{name}_null"] <= eigen[f"{name}_null_99"]


def test_figures_are_those_of_the_single_measures() -> None:
    n, eigen = len(RUN.examples), RUN.sets["eigen"]
    order = eigen.read("order")[:4]
    values = eigen.read("values")[order, 0]
    weights, shuffles = resampled(n, 20, 0), shuffled(n, 10, 1)
    row = _row("Eigen")
    assert row["hoyer"] == pytest.approx(hoyer(values).mean())
    legs = RUN.examples.concepts[0].values
    overlap = overlap_curve(values.T, legs, [4], weights, shuffles)[4]
    assert row["overlap legs & wings"] == pytest.approx(overlap.value)
    assert row["overlap legs & wings_low"] == pytest.approx(overlap.interval().low)
    assert row["cosine legs & wings_null"] == pytest.approx(
        mean_max_cosine(values.T, legs, weights, shuffles).null_figures()[0]
    )
    labels = RUN.examples.labels
    assert labels is not None
    tops = eigen.read("highest/position")[order, 0, :6]
    assert row["top_purity"] == pytest.approx(top_purity(tops, labels).mean())
    # With all features allowed, classes are told as well as the headline says.
    every = set_measures(RUN, replace(FEW, features=30, most=30))
    wanted = class_figures(RUN).set_index("kind")["chosen_auroc"]
    for kind in ("Eigen", "Unit", "Neurons", LOGITS, RANDOM):
        assert _row(kind, every)["class_auroc"] == pytest.approx(wanted[kind])
    assert _row("Unit", every)["features"] == 15


def test_what_a_kind_has_not_is_not_measured() -> None:
    weights = _row("Weights")
    assert np.isfinite(weights[["top_purity", "top_purity_low", "top_entropy_null"]].astype(float)).all()
    assert weights[["class_auroc", "hoyer", "r2", "overlap a phase"]].isna().all()
    assert np.isnan(_row(LOGITS)["r2"])
    assert np.isfinite(_row(LOGITS)["class_auroc"])
    regression = replace(RUN, examples=replace(RUN.examples, targets=np.asarray(RUN.outputs), concepts=()))
    table = set_measures(regression, FEW)
    assert not {"class_auroc", "top_purity", "range_purity"} & set(measured_names(table))
    assert table["hoyer"].notna().sum() == 6
    assert measure_curves(regression, FEW)["measure"].unique().tolist() == ["r2", "r2_pursued"]
    assert len(concept_matches(regression, FEW)) == 0


def test_features_with_values_that_are_not_finite_are_left_out() -> None:
    values = RUN.sets["trace"].read("values").copy()
    values[1, 0, 7] = np.inf
    table = set_measures(_with_set(RUN, "trace", values=values), FEW)
    assert _row("Trace", table)["features"] == 3
    assert np.isfinite(_row("Trace", table)["hoyer"])
    nothing = set_measures(_with_set(RUN, "trace", values=np.full_like(values, np.nan)), FEW)
    assert np.isnan(_row("Trace", nothing)["hoyer"])


def test_tops_that_only_ids_put_there_do_not_count() -> None:
    trace = RUN.sets["trace"]
    constant = trace.read("highest/value").copy()
    constant[0] = 1.0
    table = set_measures(_with_set(RUN, "trace", **{"highest/value": constant}), FEW)
    labels = RUN.examples.labels
    assert labels is not None
    left = trace.read("highest/position")[1:, 0, :6]
    assert _row("Trace", table)["top_purity"] == pytest.approx(top_purity(left, labels).mean())


def test_removal_is_measured_where_features_were_taken_away() -> None:
    change = np.zeros((6, 60))
    change[RUN.sets["eigen"].read("order")[2]] = 3.0
    table = set_measures(_with_set(RUN, "eigen", **{"ablation/example": change}), FEW)
    row = _row("Eigen", table)
    held = halves_of(RUN).reporting
    assert row["removal_top"] == pytest.approx(3 / np.asarray(RUN.outputs)[held].std())
    assert row["removal_median"] == 0
    assert np.isnan(_row("Neurons", table)["removal_top"])


def test_halves_follow_the_split_or_a_seed() -> None:
    assert RUN.examples.training is not None
    halves = halves_of(RUN)
    assert halves.choosing.tolist() == np.flatnonzero(RUN.examples.training).tolist()
    assert halves.words == "held-out examples"
    without = replace(RUN, examples=replace(RUN.examples, training=None))
    halves = halves_of(without)
    assert sorted([*halves.choosing, *halves.reporting]) == list(range(60))
    assert len(halves.choosing) == 30
    assert halves_of(without, 1).choosing.tolist() != halves.choosing.tolist()
    assert np.isfinite(_row("Eigen", set_measures(without, FEW))["class_auroc"])


def test_curves_end_in_the_table() -> None:
    curves = measure_curves(RUN, FEW)
    assert set(curves["measure"]) == {
        *("class_auroc", "class_precision", "feature_auroc", "feature_precision", "r2", "r2_pursued"),
        *("overlap legs & wings", "overlap a phase"),
    }
    one = curves[(curves["kind"] == "Eigen") & (curves["measure"] == "class_auroc")]
    assert one["k"].tolist() == [1, 2, 4, 6]
    assert one[one["k"] == 4]["value"].item() == _row("Eigen")["class_auroc"]
    assert one[one["k"] == 4]["null_99"].item() == _row("Eigen")["class_auroc_null_99"]
    assert "r2" not in set(curves[curves["kind"] == LOGITS]["measure"])


def test_concepts_are_matched_with_features_by_number_view_and_label() -> None:
    found = concept_matches(RUN, FEW)
    assert len(found) == 3 * 6
    unit = RUN.sets["unit"]
    rows = unit.read("values")[unit.read("order")].reshape(15, 60)[:4].T
    wanted = best_matches_of_concept(rows, RUN.examples.concepts[1].values, ["a phase"])
    row = found[(found["kind"] == "Unit") & (found["concept"] == "a phase")].iloc[0]
    place = int(wanted["feature"].item())
    feature = int(unit.read("order")[place // 3])
    assert (row["feature"], row["view"], row["label"]) == (feature, unit.views[place % 3], unit.label(feature))
    assert row["cosine"] == pytest.approx(wanted["cosine"].item())
    assert found[found["kind"] == RANDOM]["label"].str.startswith(f"{RANDOM} ").all()


@pytest.mark.parametrize("n", [2, 4])
def test_few_examples_leave_out_what_needs_more(n: int) -> None:
    run = contents(n, seed=2)
    table = set_measures(replace(run, examples=replace(run.examples, training=None)), FEW)
    assert ("r2" in measured_names(table)) is False
    assert table["hoyer"].notna().sum() == 6


# What the tables say


def _table(**columns: list[float]) -> pd.DataFrame:
    kinds = {"Eigen": "effective features", "Neurons 1": "neurons", "Neurons 2": "neurons", LOGITS: LOGITS}
    made = pd.DataFrame({"kind": list(kinds), "set": "", "family": list(kinds.values()), "features": 4})
    for name, values in columns.items():
        made[name] = values
        for part in ("low", "high", "null", "null_99"):
            made[f"{name}_{part}"] = np.nan
    return made


def test_what_is_no_effective_feature_is_named_first_where_it_wins_anything() -> None:
    table = _table(
        class_auroc=[0.9, 0.8, 0.7, 0.6],
        hoyer=[0.5, 0.4, 0.3, 0.2],
        top_purity=[0.5, 0.4, 0.6, 0.2],
        pursued_90=[9, 7, 8, np.nan],
        kurtosis=[0, 0, 0, 9],
    )
    found = winners(table)
    assert found["measure"].tolist() == ["class_auroc", "hoyer", "top_purity", "pursued_90"]
    assert found["kind"].tolist() == ["Eigen", "Eigen", "Neurons 2", "Neurons 1"]
    assert measures_sentence(table) == (
        "Of 4 measures, neurons are best by 2 (purity of the top, features to R2 .9 by pursuit); "
        "effective features by 2 (AUROC by class, Hoyer sparsity)."
    )
    level = _table(hoyer=[0.5, 0.4, 0.5, 0.2])
    assert (
        measures_sentence(level) == "Of 1 measure, neurons are best by 1 (Hoyer sparsity); effective features by none."
    )
    alone = measures_sentence(_table(hoyer=[0.5, 0.4, 0.2, 0.2]))
    assert alone == "Of 1 measure, effective features are best by 1 (Hoyer sparsity)."
    random = _table(r2=[0.5, 0.4, 0.3, 0.5], hoyer=[0.5, 0.4, 0.3, 0.5]).replace(LOGITS, RANDOM)
    assert winners(random)["family"].tolist() == ["effective features", RANDOM]
    single = _table(hoyer=[0.5, np.nan, np.nan, np.nan])
    assert measures_sentence(single) == "No two kinds of feature share a measure by which they could be compared."


# Several runs


def _seeds() -> list[RunContents]:
    noise = np.random.default_rng(3).standard_normal((3, 60, 3))
    outputs = np.eye(3)[RUN.examples.labels] + 0.1 * noise
    return [replace(contents(seed=seed), examples=RUN.examples, outputs=outputs[seed]) for seed in range(3)]


def test_runs_of_several_seeds_are_measured_together() -> None:
    runs = _seeds()
    table, single = set_measures(runs, FEW), [set_measures(run, FEW) for run in runs]
    assert table["kind"].tolist() == TABLE["kind"].tolist()
    for name in ("class_auroc", "hoyer", "overlap legs & wings"):
        assert _row("Eigen", table)[name] == pytest.approx(np.mean([_row("Eigen", one)[name] for one in single]))
    assert measured_names(table)[-7:-5] == ["matched", "span"]
    neurons = _row("Neurons", table)
    assert 0 < neurons["matched"] < neurons["matched_null_99"] + 0.1
    # The outputs of all seeds are nearly the labels.
    assert _row(LOGITS, table)["matched"] > _row(LOGITS, table)["matched_null_99"]
    assert _row(LOGITS, table)["span"] > 0.6 > _row(LOGITS, table)["span_null_99"]
    assert np.isnan(_row("Weights", table)["matched"])
    fewer = replace(runs[1], sets={name: one for name, one in runs[1].sets.items() if name != "unit"})
    assert "Unit" not in set_measures([RUN, fewer], FEW)["kind"].tolist()
    still = _with_set(runs[1], "neurons", values=np.ones_like(runs[1].sets["neurons"].read("values")))
    found = _row("Neurons", set_measures([*runs[::2], still], FEW))
    assert np.isnan(found["span"])
    assert np.isnan(found["span_low"])
    curves = measure_curves(runs, FEW)
    one = curves[(curves["kind"] == "Eigen") & (curves["measure"] == "r2") & (curves["k"] == 4)]
    assert one["value"].item() == pytest.approx(_row("Eigen", table)["r2"])


def test_what_cannot_be_measured_is_one_sentence() -> None:
    with pytest.raises(SettingsError, match="at least one run, but none came"):
        set_measures([], FEW)
    with pytest.raises(SettingsError, match="hold the same examples, but these do not; measure each alone"):
        set_measures([RUN, contents(n=44)], FEW)
    for wrong in ({"features": 0}, {"most": 3, "features": 4}, {"shown": 0}, {"draws": -1}, {"shuffles": -1}):
        with pytest.raises(SettingsError, match=r"of measures must be at least .* give a larger number"):
            replace(FEW, **wrong)
    with pytest.raises(SettingsError, match="lies between 0 and 1, but 1 came"):
        replace(FEW, level=1)
    without = set_measures(RUN, replace(FEW, draws=0, shuffles=0))
    assert np.isfinite(_row("Eigen", without)["class_auroc"])
    assert np.isnan(_row("Eigen", without)["class_auroc_low"])
    assert np.isnan(_row("Eigen", without)["class_auroc_null"])
