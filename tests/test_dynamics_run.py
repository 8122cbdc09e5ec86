"""Training dynamics in a run: told in words, exported, shown by the app, asked for on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
import test_app
from feature_lens_app.words import safe
from test_app import Opener, fine, texts
from test_dynamics import STEPS, _examples, _trained

from feature_lens.analysis import open_run, run_card
from feature_lens.analysis.dynamics import (
    crossing,
    dynamics_headline,
    dynamics_notes,
    dynamics_table,
    feature_history,
    history_sentences,
)
from feature_lens.analysis.tables import TableRequest, held_tables, table_rows
from feature_lens.errors import SettingsError
from feature_lens.extract import ExtractSettings, SetSettings, extract_run
from feature_lens.kept_table import KeptTable
from feature_lens.run_contents import RunContents
from feature_lens.store import write_run

app = test_app.app  # a fixture


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, snapshots = _trained()
    sets = (SetSettings("eigen", "trace", n_components=4), SetSettings("unit"))
    settings = ExtractSettings(sets=sets, neurons=(), keep=4)
    folder = tmp_path_factory.mktemp("dynamics")
    return extract_run(network, _examples(), folder / "course.h5", settings, progress=False, snapshots=snapshots)


def _with(**columns: list[float]) -> RunContents:
    """A run whose dynamics are given courses."""
    made = synthetic.contents()
    table = KeptTable("Courses", {name: np.array(values) for name, values in columns.items()})
    return replace(made, tables={"dynamics": table})


STEP = [0, 1, 10, 100, 1000]
LATE, EARLY = [0.1, 0.1, 0.2, 0.9, 1.0], [0.1, 0.8, 0.9, 1.0, 1.0]
AWAY = [1 - value for value in EARLY]


def test_half_of_a_change_lies_between_two_snapshots() -> None:
    table = dynamics_table(_with(step=STEP, late=LATE, fall=AWAY, still=[0.5] * 5, unknown=[np.nan] * 5))
    late, fall = crossing(table, "late"), crossing(table, "fall")
    assert late is not None
    assert fall is not None
    assert (late.before, late.after, late.first, late.last) == (10, 100, 0.1, 1.0)
    assert (fall.before, fall.after) == (0, 1)
    assert (fall.than(late), late.than(fall), late.than(late)) == ("before", "after", "in the same interval as")
    for column in ("still", "unknown", "absent"):
        assert crossing(table, column) is None


def test_the_first_sentence_says_what_came_first() -> None:
    grokking = _with(step=STEP, accuracy_held_out=LATE, accuracy_training=EARLY, centred_distance_from_final=AWAY)
    assert dynamics_headline(grokking) == (
        "Held-out accuracy passes half of its rise (0.1 to 1) between steps 10 and 100, long after training accuracy "
        "(between steps 0 and 1). The kernel comes half way to its final shape before that, between steps 0 and 1: "
        "features change first, and held-out accuracy follows."
    )
    lazy = _with(step=STEP, accuracy_held_out=EARLY, centred_distance_from_final=[1 - value for value in LATE])
    assert "after that, between steps 10 and 100: held-out accuracy does not wait" in dynamics_headline(lazy)
    at_once = _with(step=STEP, accuracy_held_out=EARLY, centred_distance_from_final=AWAY)
    assert "in the same interval: snapshots are too far apart" in dynamics_headline(at_once)
    fixed = _with(step=STEP, loss_all=AWAY, centred_distance_from_final=[0.0] * 5)
    assert dynamics_headline(fixed) == (
        "The loss passes half of its fall (0.9 to 0) between steps 0 and 1. The kernel hardly changes its shape."
    )
    assert "there is no onset to name" in dynamics_headline(_with(step=STEP, loss_all=[1.0] * 5))


def test_the_notes_say_where_concepts_and_regressions_stand() -> None:
    run = _with(
        step=STEP,
        accuracy_held_out=LATE,
        overlap_with_learnt=EARLY,
        accuracy_from_labels=[0.5, 0.6, 0.7, 0.8, 0.5],
    )
    concepts = KeptTable(
        "Concepts",
        {
            "step": np.repeat(STEP, 2),
            "concept": np.array(["known", "still"] * 5),
            "overlap": np.ravel([[value, 0.2] for value in LATE]),
            "chance": np.full(10, 0.03),
        },
    )
    run = replace(run, tables={**run.tables, "dynamics_concepts": concepts})
    assert dynamics_notes(run) == [
        "The leading eigenspace holds 10% of what training added to the kernel at the first step and 100% at the last, and "
        "passes half of the way between steps 0 and 1, before held-out accuracy.",
        "The leading eigenspace holds 10% of the concept 'known' at the first step and 100% at the last, and passes half of "
        "the way between steps 10 and 100, in the same interval as held-out accuracy; chance gives 3%.",
        "The overlap of the leading eigenspace with the concept 'still' hardly changes.",
        "As a regression, the kernel of step 1,000 learns labels no better than that of step 0: held-out accuracy 0.5 "
        "against 0.5, where the network itself ends at 1.",
    ]


def test_the_history_of_a_feature_in_words() -> None:
    def told(correlation: list[float], within: list[float], group: list[int]) -> str:
        made = synthetic.contents()
        columns = {
            "set": np.array(["trace"] * 10),
            "feature": np.repeat([0, 1], 5),
            "step": np.tile(STEP, 2),
            "correlation_to_final": np.tile(correlation, 2),
            "within_leading": np.tile(within, 2),
            "group": np.repeat(group, 5),
        }
        run = replace(made, tables={"feature_history": KeptTable("History", columns)})
        return " ".join(history_sentences(run, "trace", 0))

    late = told([0.1, 0.95, 0.2, 0.93, 1.0], [0.1, 0.2, 0.95, 0.99, 1.0], [0, 1])
    assert "recognised as one feature from step 100 on" in late
    assert "10% lies in the span" in late
    assert "more than 90% from step 10 on" in late
    assert "near-degenerate" not in late
    early = told([0.95] * 4 + [1.0], [0.96] * 4 + [1.0], [3, 3])
    assert "at every step, from step 0 on" in early
    assert "it was there before" in early
    assert "a group of 2 near-degenerate features" in early
    last = told([0.1, np.nan, 0.2, 0.3, 1.0], [0.1, 0.2, 0.3, 0.4, 1.0], [0, 1])
    assert "at the last step, 1,000, alone" in last
    assert "more than" not in last
    never = told([0.1, 0.95, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4, 0.5], [0, 1])
    assert "not recognised as one feature up to the last step, 1,000" in never
    assert history_sentences(synthetic.contents(), "trace", 0) == []


def test_tables_are_stored_and_exported(path: Path) -> None:
    with open_run(path) as run:
        names = {"dynamics", "dynamics_spectrum", "dynamics_concepts", "feature_history"}
        assert names <= set(held_tables(run))
        for name in names:
            rows = table_rows(run, TableRequest(name))
            assert list(rows.columns) == list(run.tables[name].columns)
            assert len(rows) == len(run.tables[name])
        assert sorted(set(feature_history(run, "eigen_trace", 2)["step"])) == [0, *STEPS]
        assert feature_history(run, "unit", 0).empty
        card = " ".join(run_card(run).split())
        assert f"training {dynamics_headline(run)}" in card
        assert dynamics_notes(run)[-1] in card
    with pytest.raises(SettingsError, match=r"does not hold the table 'dynamics'; .*--snapshot STEP=PATH"):
        dynamics_table(synthetic.contents())
    with pytest.raises(SettingsError, match="needs --dual, --snapshot"):
        table_rows(synthetic.contents(), TableRequest("dynamics"))


def test_the_pages_show_it_and_its_absence_says_what_to_do(app: Opener, path: Path, tmp_path: Path) -> None:
    with open_run(path) as run:
        headline, notes = dynamics_headline(run), dynamics_notes(run)
        sentences = history_sentences(run, "eigen_trace", 1)
    shown = texts(fine(app("dynamics", path)))
    assert headline in shown
    assert all(safe(note) in shown for note in notes)
    for title in ("Fit", "Kernel", "Leading eigenspace", "Dual model"):
        assert f">{title}</h2>" in shown
    linear = app("dynamics", path, axis="linear")
    assert not fine(linear).warning
    assert len(linear.get("arrow_vega_lite_chart") or linear.get("vega_lite_chart")) == 10
    assert f"This run: {headline}" in texts(fine(app("learn", path)))
    feature = texts(fine(app("feature", path, set="eigen_trace", feature="1")))
    assert "History of this feature" in feature
    assert all(sentence in feature for sentence in sentences)
    assert "History of this feature" not in texts(fine(app("feature", path, set="unit")))
    plain = write_run(synthetic.contents(), tmp_path / "plain.h5")
    empty = texts(fine(app("dynamics", plain)))
    assert "This run holds no training dynamics" in empty
    assert "--snapshot STEP=PATH" in empty
