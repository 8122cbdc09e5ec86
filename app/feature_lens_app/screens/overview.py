"""Overview: what the run found, the network, the data, and what each feature set is."""

from __future__ import annotations

import streamlit as st

from feature_lens.analysis.render import contact_sheet, sheet_geometry
from feature_lens_app import cards, run_access, views
from feature_lens_app.words import count_of

opened = run_access.current()
run = opened.run

views.title(run.name, f"{run.network.name}, {count_of(len(run.examples), 'example')}")
cards.show_headline(opened)

left, right = st.columns(2, gap="large")
with left:
    views.head("Network")
    cards.show_network(run)
with right:
    views.head("Data")
    cards.show_data(run)

step = max(1, len(run.examples) // views.COLUMNS)
sample = list(range(0, len(run.examples), step))[: views.COLUMNS]
picture = contact_sheet(run.examples, sample, columns=views.COLUMNS)
width, height = sheet_geometry(len(sample), columns=views.COLUMNS, kind=run.examples.modality.kind).sheet_size(
    len(sample)
)
alternative = "A sample of the examples: " + ", ".join(str(run.examples.ids[position]) for position in sample)
views.sheets(f'<figure class="fl-sheet">{views.image(picture, alternative, width, height)}</figure>')

views.head(
    "Feature sets",
    "Each holds features of one kind, ranked over the same examples, so any two can be compared.",
)
for feature_set in run.sets.values():
    cards.show_set(feature_set, run_access.run_key())

cards.show_spectra(run)
cards.show_figures(opened)
cards.show_origin(run)
cards.show_report(run)
