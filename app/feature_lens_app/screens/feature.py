"""Feature: one feature in full, both ends and everything between, and where in the network it lives."""

from __future__ import annotations

import streamlit as st

from feature_lens_app import (
    address,
    choosers,
    direction,
    entries,
    facts,
    history,
    listing,
    ranked,
    run_access,
    torus,
    views,
)
from feature_lens_app.words import count_of

opened = run_access.current()
run = opened.run

with st.container():
    columns = st.columns([3.2, 2.4, 1.8, 1, 0.8], vertical_alignment="bottom")
    with columns[0]:
        feature_set = choosers.choose_set(run, drops=("feature", "view", "rank", "output", *listing.PARAMETERS))
    with columns[1]:
        view = choosers.choose_view(run, feature_set)
    with columns[2]:
        feature = address.whole_number(
            "Feature number",
            "feature",
            0,
            len(feature_set) - 1,
            listing.first(opened, feature_set, view),
            drops=("rank",),
        )
    before, after, place, listed = listing.neighbours(opened, feature_set, view, feature)
    for column, name, arrow, other in (
        (columns[3], "previous", "← Previous", before),
        (columns[4], "next", "Next →", after),
    ):
        with column, st.container(key=f"fl-turn-{name}"):
            st.page_link(
                "screens/feature.py",
                label=arrow,
                disabled=other is None,
                query_params=address.everything(
                    run=run_access.run_key(), set=feature_set.name, view=view, feature=other, rank=None
                ),
            )

facts.show_title(run, feature_set, feature, view, place, listed)
ranked.show_ends(opened, feature_set, feature, view)
torus.show_torus(run, feature_set, feature, view)
entries.show_entries(run, feature_set, feature, view)
facts.show_distribution(opened, feature_set, feature, view)
facts.show_without(opened, feature_set, feature, view)
if feature_set.gives_values:
    ranked.show_between(opened, feature_set, feature, view)
else:
    views.quiet(
        "What lies between the ends is not shown: the value of every example is kept for the smaller sets only, "
        f"and this one has {count_of(len(feature_set), 'feature')}. Its moments and class means are over all examples."
    )
history.show_history(run, feature_set, feature)
direction.show_place(run, feature_set, feature)
facts.show_similar(opened, feature_set, feature, view)
