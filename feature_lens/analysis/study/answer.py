"""What a study found, in sentences that its figures support and no more.

Of every measure the best set of each family is compared with the best of effective features, each chosen on the examples
that it is reported on, so a family of more sets has an advantage. One beats another where their intervals lie apart; else
they are not told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd

from feature_lens.analysis.measures.descriptions import Measure, measure_of
from feature_lens.analysis.measures.set_measures import measured_names
from feature_lens.analysis.study.families import EFFECTIVE, FIRST_NAMED

_NAMED: Final = 2  # of those that beat effective features by a measure, how many are named with their figures


@dataclass(frozen=True)
class Best:
    """The best set of a family by one measure, with its interval; NaN where there is none."""

    family: str
    title: str
    value: float
    low: float
    high: float

    def beats(self, other: Best, better: int) -> bool:
        """Whether the intervals lie apart, this one on the better side, +1 above or -1 below; values stand in for
        intervals that are not known."""
        if better > 0:
            return (self.value if self.low != self.low else self.low) > (
                other.value if other.high != other.high else other.high
            )
        return Best("", "", -self.value, -self.high, -self.low).beats(
            Best("", "", -other.value, -other.high, -other.low), 1
        )

    def __str__(self) -> str:
        return f"{self.family} ({self.title}, {_figure(self)})"


@dataclass(frozen=True)
class Verdict:
    """One measure: the best of effective features, the other families from the best down, those that beat it, and
    whether it beats all others."""

    measure: Measure
    own: Best
    others: tuple[Best, ...]
    beaten_by: tuple[Best, ...]
    wins: bool


def best_of_families(table: pd.DataFrame, name: str) -> list[Best]:
    """The best set of every family by a measure, best first; families without a figure are left out."""
    known = table[table[name].notna()]
    known = known.iloc[(-measure_of(name).better * known[name]).argsort(kind="stable")]
    return [
        Best(str(row["family"]), str(row["kind"]), *(float(row[f"{name}{end}"]) for end in ("", "_low", "_high")))
        for row in known.drop_duplicates("family").to_dict("records")
    ]


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """A verdict on every compared measure that effective features and another family have a figure of."""
    found = []
    for name in measured_names(table):
        measure = measure_of(name)
        best = best_of_families(table, name) if measure.compared else []
        own = next((one for one in best if one.family == EFFECTIVE), None)
        others = tuple(one for one in best if one.family != EFFECTIVE)
        if own is None or not others:
            continue
        beaten = tuple(one for one in others if one.beats(own, measure.better))
        wins = all(own.beats(one, measure.better) for one in others)
        found.append(Verdict(measure, own, others, beaten, wins))
    return found


def answer(table: pd.DataFrame, subject: str) -> list[str]:
    """Sentences on a study's table, the one that answers the question first: neurons, logits and random directions are
    named there where one of them wins."""
    found = verdicts(table)
    if not found:
        return [f"On {subject} nothing was measured of effective features and of another set alike."]
    lost = [one for one in found if one.beaten_by]
    won = [one for one in found if one.wins]
    named = [one for one in lost if any(best.family in FIRST_NAMED for best in one.beaten_by)]
    sentences = [_first(found, lost, won, named, subject)]
    sentences += [_of_measure(one) for one in found]
    return sentences


def _first(found: list[Verdict], lost: list[Verdict], won: list[Verdict], named: list[Verdict], subject: str) -> str:
    total = f"{len(found)} measure{'' if len(found) == 1 else 's'}"
    level = len(found) - len(lost) - len(won)
    tail = _listed(
        [
            *([f"they are ahead of every other set on {len(won)}"] if won else []),
            *([f"not told apart from the best other set on {level}"] if level else []),
        ]
    )
    rest = f"; {tail}" if tail else ""
    if named:
        by = [_wins(family, named) for family in FIRST_NAMED]
        return (
            f"On {subject}, of {total} the best effective features are beaten {_listed([part for part in by if part])}"
            f"{_others(lost, named)}{rest}."
        )
    if lost:
        who = list(dict.fromkeys(best.family for one in lost for best in one.beaten_by))
        where = _listed([one.measure.title for one in lost])
        return (
            f"On {subject}, {_listed(who)} beat the best effective features on {len(lost)} of {total} ({where}){rest}."
        )
    if won:
        return f"On {subject}, effective features are beaten on none of {total}; {tail}."
    return f"On {subject}, effective features are not told apart from the best other set on any of {total}."


def _wins(family: str, named: list[Verdict]) -> str:
    """On how many measures a family beats the best effective features, and which; '' where it does on none."""
    own = [one.measure.title for one in named if any(best.family == family for best in one.beaten_by)]
    return f"by {family} on {len(own)} ({_listed(own)})" if own else ""


def _others(lost: list[Verdict], named: list[Verdict]) -> str:
    more = len(lost) - len(named)
    return f", by other baselines alone on {more} more" if more else ""


def _of_measure(verdict: Verdict) -> str:
    words = _large(verdict.measure.title)
    own = f"the best effective features ({verdict.own.title}, {_figure(verdict.own)})"
    if verdict.beaten_by:
        named = [str(one) for one in verdict.beaten_by[:_NAMED]]
        more = len(verdict.beaten_by) - len(named)
        named += [f"{more} other kind{'s' if more > 1 else ''}"] if more else []
        return f"{words}: {own} are beaten by {_listed(named)}."
    nearest = verdict.others[0]
    if verdict.wins:
        return f"{words}: {own} are ahead of all; next come {nearest}."
    return f"{words}: {own} are not told apart from {nearest}."


def _figure(best: Best) -> str:
    if best.low != best.low:
        return f"{best.value:.3g}"
    return f"{best.value:.3g}, {best.low:.3g} to {best.high:.3g}"


def _large(title: str) -> str:
    return title[:1].upper() + title[1:]


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else ""
