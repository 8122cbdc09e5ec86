"""A feature's order over the examples as pictures: both ends, the whole range, quantile groups, any rank."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from feature_lens.analysis.orders import at_rank, end_of, quantile_rows, range_row, rank_window
from feature_lens.feature_set import FeatureSet
from feature_lens_app import address
from feature_lens_app.run_access import Opened
from feature_lens_app.views import COLUMNS, head, meaning, quiet, sheet, sheets
from feature_lens_app.words import count_of, safe


def show_ends(opened: Opened, feature_set: FeatureSet, feature: int, view: str) -> None:
    """The highest and the lowest examples, always together."""
    run = opened.run
    kept = int(feature_set.column("highest/position").shape[2])
    most = len(run.examples) if feature_set.gives_values else min(kept, len(run.examples))
    choices = [str(n) for n in (10, 20, 50) if n <= most] or [str(most)]
    if not feature_set.gives_values and str(most) not in choices and most < 50:
        choices.append(str(most))
    heading, chooser = st.columns([5, 1.5], vertical_alignment="bottom")
    with heading:
        head("Both ends", meaning(run, feature_set, view))
    with chooser:
        show = int(address.segments("Examples at each end", "show", choices, choices[0]))
    for end in ("highest", "lowest"):
        positions, values = end_of(run, feature_set.name, feature, view, end, show)
        sheets(
            sheet(
                opened,
                positions,
                values,
                COLUMNS,
                f"{end.capitalize()} examples",
                safe(f"{end.capitalize()}, {'falling' if end == 'highest' else 'rising'} from the left"),
            )
        )


def show_between(opened: Opened, feature_set: FeatureSet, feature: int, view: str) -> None:
    """The whole range, quantile groups and the surroundings of any rank; for sets whose values can be had."""
    run, name = opened.run, feature_set.name
    whole = range_row(run, name, feature, view, COLUMNS)
    ranked = len(run.examples) - int(feature_set.column("n_nonfinite")[feature, feature_set.view_index(view)])
    if ranked == 0:
        quiet("No example has a finite value, so there is no order to show.")
        return
    head(
        "Between the ends",
        f"Top examples alone mislead, so this is the whole order of {count_of(ranked, 'example')}, evenly sampled.",
    )
    sheets(sheet(opened, whole.positions, whole.values, COLUMNS, "Whole range", "Whole range, highest to lowest"))

    left, right = st.columns([1, 3], vertical_alignment="bottom")
    with left:
        groups = int(address.segments("Quantile groups", "groups", ["3", "5", "10"], "5"))
    with right:
        quiet("Groups of equally many examples, each sampled evenly over its own range.")
    for row in quantile_rows(run, name, feature, view, groups, COLUMNS):
        caption = f"<b>{safe(row.name)}</b> · {_ranks(row.ranks.tolist())}"
        sheets(sheet(opened, row.positions, row.values, COLUMNS, f"Quantile group {row.name}", caption))

    left, right = st.columns([1, 3], vertical_alignment="bottom")
    with left:
        rank = address.whole_number("Jump to rank", "rank", 1, ranked, (ranked + 1) // 2, help="1 is the highest")
    positions, values = at_rank(run, name, feature, view, rank - 1, COLUMNS)
    window = rank_window(ranked, rank - 1, COLUMNS)
    with right:
        quiet(f"Ranks {window.start + 1:,} to {window.stop:,} of {ranked:,}; 1 is the highest.")
    sheets(sheet(opened, positions, values, COLUMNS, f"Examples around rank {rank}"))


def _ranks(found: Sequence[int]) -> str:
    """Ranks counted from 1, the first and the last of a group."""
    first, last = found[0] + 1, found[-1] + 1
    return f"rank {first:,}" if first == last else f"ranks {first:,} to {last:,}"
