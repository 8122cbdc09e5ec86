"""Compare: two features side by side on the same examples, and the best match of every feature of a set; or all kinds of
features by all measures."""

from __future__ import annotations

import streamlit as st

from feature_lens_app import address, choosers, listing, matching, run_access, views

opened = run_access.current()
run = opened.run
sets = list(run.sets)
neurons = [name for name in sets if "activation" in run.sets[name].views]

LEADS = {
    "features": "Two features on the same examples. Frames mark examples that both have at that end.",
    "sets": "All kinds of features of the run, by the same measures.",
}
views.title("Compare", LEADS[address.option("what", "compare", list(LEADS), "features")])
what = address.segments(
    "Compare", "what", list(LEADS), "features", shown={"features": "two features", "sets": "all sets"}.__getitem__
)
if what == "sets":
    from feature_lens_app.measures import show_measures  # its libraries take longer to load than a page may

    show_measures(opened)
    raise address.PageEnd
sides = []
for column, letter, suffix, default in zip(
    st.columns(2, gap="large"), ("A", "B"), ("", "_b"), (sets[0], (neurons or sets[1:] or sets)[0]), strict=True
):
    with column:
        upper = st.columns([3, 2, 1.7])
        with upper[0]:
            feature_set = choosers.choose_set(
                run,
                f"Feature set {letter}",
                f"set{suffix}",
                default,
                drops=(f"feature{suffix}", f"view{suffix}", "page", *(listing.PARAMETERS if not suffix else ())),
            )
        with upper[1]:
            view = choosers.choose_view(run, feature_set, f"View {letter}", f"view{suffix}", drops=("page",))
        first = int(feature_set.column("order")[0])
        with upper[2]:
            number = address.whole_number(
                f"Feature {letter}", f"feature{suffix}", 0, len(feature_set) - 1, first, help="Its number in the set"
            )
        sides.append(matching.Side(letter, feature_set, number, view))
        matching.show_name(sides[-1])

matching.show_ends(opened, *sides)
matching.show_scatter(opened, *sides)
matching.show_matches(opened, *sides)
