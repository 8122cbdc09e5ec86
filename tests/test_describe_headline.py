"""The first sentence on a run: who wins, on what figures, on which examples."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import synthetic

from feature_lens.analysis import class_figures, headline
from feature_lens.analysis.headline import format_auroc
from feature_lens.examples import Examples
from feature_lens.run_contents import RunContents


@pytest.fixture(scope="module")
def run() -> RunContents:
    return synthetic.contents(90)


def test_headline_names_the_winner_first(run: RunContents) -> None:
    words = headline(run)
    assert words.startswith("The network's own logits (3) single out the classes best")
    assert "on held-out examples" in words
    assert "random directions (6)" in words
    assert re.findall(r"[.](?![0-9])", words) == ["."]
    assert "\n" not in words
    table = class_figures(run)
    assert table["chosen_auroc"].is_monotonic_decreasing
    assert dict(zip(table["set"], table["views"], strict=True))["unit"] == 3
    assert set(table["set"]) == {"", "eigen", "trace", "unit", "neurons"}


def test_headline_gives_neurons_their_due(run: RunContents) -> None:
    labels = run.examples.labels
    assert labels is not None
    neurons = synthetic._set("neurons", np.eye(3)[labels].T[:, None], ("activation",), run.examples)
    noise = np.random.default_rng(0).standard_normal((90, 3))
    won = replace(run, sets={**run.sets, "neurons": neurons}, outputs=noise)
    assert headline(won).startswith("Neurons (3) single out the classes best")
    assert "1.000" in headline(won)


def test_headline_names_no_winner_among_equals(run: RunContents) -> None:
    labels = run.examples.labels
    assert labels is not None
    perfect = np.eye(3)[labels]
    neurons = synthetic._set("neurons", perfect.T[:, None], ("activation",), run.examples)
    words = headline(replace(run, sets={"neurons": neurons}, outputs=perfect))
    assert words.startswith("No kind of feature singles out the classes better than another: ")
    assert "neurons" in words.lower()
    assert "logits (3) all reach a mean AUROC of 1.000" in words
    some = headline(replace(run, sets={"neurons": neurons, "eigen": run.sets["eigen"]}, outputs=perfect))
    assert "single out the classes equally well, and best" in some
    assert "; after them come random directions (6) at" in some


def test_features_are_chosen_on_training_examples_only(run: RunContents) -> None:
    """Features that fit one split perfectly and are noise on the other must not win by their number."""
    labels, training = run.examples.labels, run.examples.training
    assert labels is not None
    assert training is not None
    rng = np.random.default_rng(0)
    values = rng.standard_normal((300, 1, 90))
    held_out_only = synthetic._set("neurons", values, ("activation",), run.examples)
    table = class_figures(replace(run, sets={"neurons": held_out_only})).set_index("kind")
    assert table.loc["Neurons", "chosen_auroc"] < 0.75
    assert table.loc["Neurons", "median_selectivity"] > 0.5


def test_headline_without_labels_or_with_one_class(run: RunContents) -> None:
    words = headline(replace(run, examples=Examples.from_arrays(run.examples.inputs)))
    assert "no class labels" in words
    assert "6 of 'eigen'" in words
    one = replace(run, examples=replace(run.examples, targets=np.zeros(90, dtype=np.int64)))
    assert "one class only" in headline(one)
    assert class_figures(one).empty


def test_headline_without_a_split_says_in_sample(run: RunContents) -> None:
    assert "in sample" in headline(replace(run, examples=replace(run.examples, training=None)))


def test_a_perfect_figure_alone_reads_as_one() -> None:
    assert [format_auroc(x) for x in (1.0, 0.98765, 0.9996, 0.99996, 0.9999999)] == [
        "1.000",
        "0.988",
        "0.9996",
        "0.99996",
        "above 0.99999",
    ]
