"""Training dynamics of a run in tables and plain words: when accuracy rises, when the kernel changes, whence features come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from feature_lens.analysis.tables import TABLES, Cells, Table
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents

TITLES: Final = {
    "dynamics": "training step by step: fit, kernel, alignment, overlaps, dual model",
    "dynamics_spectrum": "leading eigenvalues of the kernel at every step",
    "dynamics_concepts": "alignment of the kernel, and overlap of its eigenspace, with every concept at every step",
    "feature_history": "features of the trained network, matched backwards through the steps",
}
# What says how well the network does, in the order of preference, and how it is called.
_FITS: Final = {
    "accuracy_held_out": "held-out accuracy",
    "accuracy_training": "training accuracy",
    "accuracy_all": "accuracy",
    "r2_held_out": "held-out R2",
    "r2_training": "training R2",
    "r2_all": "R2",
    "loss_all": "the loss",
    "loss_training": "the training loss",
}
# From here on a feature is said to be the same as the final one; what lies in a span is said to be there.
_SAME: Final = 0.9
# A smaller change is not told the half of.
_CHANGE: Final = 0.02


def held_dynamics(run: RunContents) -> bool:
    """Whether a run holds the dynamics of its training."""
    return "dynamics" in run.tables


def dynamics_table(run: RunContents, name: str = "dynamics") -> pd.DataFrame:
    """A table of the dynamics, as it is kept: "dynamics" has a row for each step, the others several. Raises
    SettingsError where the run has none of that name."""
    if name not in run.tables:
        raise SettingsError(
            f"This run does not hold the table '{name}'; extract it again with --snapshot STEP=PATH for parameters on the "
            "way."
        )
    return pd.DataFrame(run.tables[name].arrays())


@dataclass(frozen=True)
class Crossing:
    """Where a course of values first passes half of the way from its first to its last value: between two successive
    steps, the latter of which has passed it."""

    before: int
    after: int
    first: float
    last: float

    @property
    def words(self) -> str:
        """The two steps."""
        return f"between steps {self.before:,} and {self.after:,}"

    def than(self, other: Crossing) -> str:
        """'before', 'after' or 'in the same interval as' another one, as far as snapshots can tell."""
        if self.after <= other.before:
            return "before"
        return "after" if other.after <= self.before else "in the same interval as"


def crossing(table: pd.DataFrame, column: str) -> Crossing | None:
    """The crossing of a column against `step`; None where it is not there, not finite or hardly changes."""
    if column not in table:
        return None
    values, steps = table[column].to_numpy(dtype=np.float64), table["step"].to_numpy()
    first, last = float(values[0]), float(values[-1])
    if not np.isfinite(values).all() or abs(last - first) < _CHANGE * max(1e-12, abs(first), abs(last)):
        return None
    passed = (values - (first + last) / 2) * np.sign(last - first) >= 0
    at = int(passed.argmax())
    return Crossing(int(steps[at - 1]), int(steps[at]), first, last)


def fit_crossing(run: RunContents) -> tuple[str, Crossing] | None:
    """What tells how well the network does, in words, and when it passes half of its change."""
    table = dynamics_table(run)
    for column, words in _FITS.items():
        if (found := crossing(table, column)) is not None:
            return words, found
    return None


def dynamics_headline(run: RunContents) -> str:
    """In one or two sentences when the network comes to do well, and when its kernel changes: before, after, or at once."""
    table = dynamics_table(run)
    fit, kernel = fit_crossing(run), crossing(table, "centred_distance_from_final")
    if fit is None:
        return (
            "How well the network does hardly changes between the steps that were kept, so there is no onset to name."
        )
    words, found = fit
    rise = "rise" if found.last > found.first else "fall"
    said = f"{words[0].upper()}{words[1:]} passes half of its {rise} ({_short(found.first)} to {_short(found.last)}) {found.words}"
    training = crossing(table, "accuracy_training") if words == "held-out accuracy" else None
    if training is not None and found.than(training) == "after":
        long = "long " if found.before >= 2 * training.after else ""
        said += f", {long}after training accuracy ({training.words})"
    if kernel is None:
        return f"{said}. The kernel hardly changes its shape."
    order = kernel.than(found)
    when, meaning = {
        "before": (f"before that, {kernel.words}", f"features change first, and {words} follows"),
        "after": (f"after that, {kernel.words}", f"{words} does not wait for the features that the network ends with"),
    }.get(order, (order.removesuffix(" as"), "snapshots are too far apart to say which comes first"))
    return f"{said}. The kernel comes half way to its final shape {when}: {meaning}."


def dynamics_notes(run: RunContents) -> list[str]:
    """What else the figures say, a sentence each: what training added to the kernel, concepts, and the dual model."""
    table = dynamics_table(run)
    notes = []
    fit = fit_crossing(run)
    learnt = crossing(table, "overlap_with_learnt")
    if learnt is not None:
        notes.append(f"{_overlap('what training added to the kernel', learnt)}{_against(learnt, fit)}.")
    if "dynamics_concepts" in run.tables:
        concepts = dynamics_table(run, "dynamics_concepts")
        for name, own in concepts.groupby("concept", sort=False):
            found = crossing(own, "overlap")
            if found is None:
                notes.append(f"The overlap of the leading eigenspace with the concept '{name}' hardly changes.")
            else:
                what = f"the concept '{name}'"
                chance = f"{float(own['chance'].iloc[0]):.0%}"
                notes.append(f"{_overlap(what, found)}{_against(found, fit)}; chance gives {chance}.")
    if "accuracy_from_labels" in table and "accuracy_held_out" in table:
        first, last = table.iloc[0], table.iloc[-1]
        better = float(last["accuracy_from_labels"]) - float(first["accuracy_from_labels"])
        said = "learns labels better" if better > 0.005 else "learns labels no better"
        notes.append(
            f"As a regression, the kernel of step {int(last['step']):,} {said} than that of step {int(first['step']):,}: held-out "
            f"accuracy {_short(float(last['accuracy_from_labels']))} against {_short(float(first['accuracy_from_labels']))}, "
            f"where the network itself ends at {_short(float(last['accuracy_held_out']))}."
        )
    return notes


def _overlap(what: str, found: Crossing) -> str:
    return (
        f"The leading eigenspace holds {found.first:.0%} of {what} at the first step and {found.last:.0%} at the last, "
        f"and passes half of the way {found.words}"
    )


def _against(found: Crossing, fit: tuple[str, Crossing] | None) -> str:
    return "" if fit is None else f", {found.than(fit[1])} {fit[0]}"


def feature_history(run: RunContents, set_name: str, feature: int) -> pd.DataFrame:
    """The rows of one feature's history, in the order of steps; empty where the run has none of it."""
    if "feature_history" not in run.tables:
        return pd.DataFrame()
    table = dynamics_table(run, "feature_history")
    return table[(table["set"] == set_name) & (table["feature"] == feature)].reset_index(drop=True)


def history_sentences(run: RunContents, set_name: str, feature: int) -> list[str]:
    """What a feature's history says: from when it is the same feature, and how much of it was there before."""
    table = feature_history(run, set_name, feature)
    if table.empty:
        return []
    first, last = int(table["step"].iloc[0]), int(table["step"].iloc[-1])
    same = (table["correlation_to_final"] >= _SAME).to_numpy()
    since = len(same) - int((~same)[::-1].argmax()) if not same.all() else 0
    if since == 0:
        recognised = f"It is recognised as one feature at every step, from step {first:,} on"
    elif since == len(same):
        recognised = f"It is not recognised as one feature up to the last step, {last:,}"
    elif since == len(same) - 1:
        recognised = f"It is recognised as one feature at the last step, {last:,}, alone"
    else:
        recognised = f"It is recognised as one feature from step {int(table['step'].iloc[since]):,} on"
    k = len(run.sets[set_name])
    within, chance = float(table["within_leading"].iloc[0]), min(1.0, k / max(1, len(run.examples) - 1))
    there = (
        f"Of its variation {within:.0%} lies in the span of the {k} leading features of step {first:,} already "
        f"(chance gives {chance:.0%})"
    )
    if within >= _SAME:
        there += ": it was there before, if in other combinations"
    elif (arrival := table.index[table["within_leading"] >= _SAME]).size > 1:  # the last step holds it by itself
        there += f", and more than {_SAME:.0%} from step {int(table['step'].iloc[int(arrival[0])]):,} on"
    sentences = [f"{recognised} (|correlation| with the final one of {_SAME} or more).", f"{there}."]
    group = table["group"].iloc[0]
    whole = dynamics_table(run, "feature_history")
    members = whole[(whole["set"] == set_name) & (whole["group"] == group)]["feature"].nunique()
    if members > 1:
        sentences.append(
            f"It belongs to a group of {members} near-degenerate features, which are determined as a space alone: compare "
            "the overlap of the group."
        )
    return sentences


def _short(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3g}"


def _maker(name: str) -> Callable[[RunContents, Cells], pd.DataFrame]:
    return lambda run, _: dynamics_table(run, name)


def _holder(name: str) -> Callable[[RunContents], bool]:
    return lambda run: name in run.tables


for _name, _words in TITLES.items():
    TABLES.register(_name)(Table(_words, _holder(_name), _maker(_name)))
