"""Browse: the features of a set, searched, filtered and sorted, each with its figures and both ends."""

from __future__ import annotations

import streamlit as st

from feature_lens_app import address, choosers, facts, listing, run_access, views
from feature_lens_app.words import count_of, safe, shorten

PER_PAGE = 20
HIGHEST, LOWEST = 5, 3

opened = run_access.current()
run = opened.run

views.title("Browse features", "Each row is one feature: the examples where it is highest, and where it is lowest.")
cells = iter(st.columns([2.6, 1.9, 1.9, 1.9, 1.75, 2.1]))
with next(cells):
    feature_set = choosers.choose_set(run, drops=("view", "feature", "page", *listing.PARAMETERS))
with next(cells):
    view = choosers.choose_view(run, feature_set)
with next(cells):
    keep = address.select(
        "Filter",
        "keep",
        list(listing.KEEP_NAMES),
        "all",
        shown=lambda name: listing.KEEP_NAMES.get(name, name),
        drops=("page",),
    )
with next(cells):
    sort = address.select(
        "Sort by",
        "sort",
        listing.sorts(run, feature_set),
        "order",
        shown=lambda name: listing.SORT_NAMES.get(name, name),
        drops=("page", "dir"),
    )
with next(cells):
    direction = address.segments("Direction", "dir", ["falling", "rising"], listing.falls(sort), drops=("page",))
with next(cells):
    search = address.field("Search names", "q", placeholder="part of a name", drops=("page",))
layers = listing.layers(opened, feature_set, view)
layer = listing.EVERY
if len(layers) > 1:
    with st.columns([2.6, 9.55])[0]:
        layer = address.select(
            "Layer",
            "layer",
            [listing.EVERY, *layers],
            listing.EVERY,
            shown=lambda name: "all layers" if name == listing.EVERY else shorten(name),
            drops=("page",),
        )

order = listing.Order(search, sort, direction == "falling", keep, layer)
listed = listing.table(opened, feature_set, view, order)
if len(listed) == 0:
    st.info("No feature fits. Clear the search or choose another filter to see more.")
    raise address.PageEnd

pages = (len(listed) + PER_PAGE - 1) // PER_PAGE
views.quiet(views.meaning(run, feature_set, view))
left, right = st.columns([2.6, 9.55], vertical_alignment="center")
with right:
    page = address.pages("page", pages)
start = (page - 1) * PER_PAGE
part = listed.iloc[start : start + PER_PAGE]
with left:
    without = f", {len(feature_set) - len(listed):,} filtered out" if len(listed) < len(feature_set) else ""
    views.quiet(f"{start + 1:,}–{start + len(part):,} of {count_of(len(listed), 'feature')}{without}")

carried = {name: address.get(name) for name in listing.PARAMETERS}
for row in part.to_dict("records"):
    feature = int(row["feature"])
    params = address.here(run=run_access.run_key(), set=feature_set.name, feature=feature, view=view, **carried)
    with st.container(key=f"fl-entry-{feature}"):
        words, pictures = st.columns([2, 8.2], gap="small")
        with words:
            views.link("feature", shorten(str(row["label"])), params, f"feature-{feature}")
            pairs = facts.brief(row)
            if sort == "selectivity":
                pairs.append(("selectivity", f"{row['selectivity']:.3f} ({row['best_class']})"))
            state = "dead" if row["dead"] else "constant" if row["constant"] else ""
            if row["n_nonfinite"]:
                state = f"{int(row['n_nonfinite']):,} values not finite"
            mark = f'<p class="fl-quiet"><b>{safe(state)}</b></p>' if state else ""
            st.html(views.figures(pairs, small=True) + mark)
        with pictures:
            href = views.url("feature", params)
            high, low = (feature_set.extremes(feature, view, end) for end in ("highest", "lowest"))
            name = shorten(str(row["label"]))
            views.sheets(
                views.sheet(opened, high[0][:HIGHEST], high[1][:HIGHEST], HIGHEST, f"{name}, highest", "highest", href),
                views.sheet(opened, low[0][:LOWEST], low[1][:LOWEST], LOWEST, f"{name}, lowest", "lowest", href),
            )
address.pages("page", pages, "bottom")
