"""Export: top-activating examples or a table as a file, with a preview of its first rows."""

from __future__ import annotations

import streamlit as st

from feature_lens_app import address, example_export, run_access, table_export, views

FORMATS = {
    "csv": "CSV",
    "parquet": "Parquet",
    "jsonl": "JSON Lines",
    "zip": "ZIP of pictures",
}
KINDS = {
    "examples": (
        "top examples",
        "The examples at the ends of features, with value, class and prediction, as one file.",
    ),
    "table": ("a table", "Outputs, and what the dual model says of them, as one file."),
}
SHAPING = ("table", "of", "example", "output", "views", "which", "feature", "features", "ends", "count", "format")

run = run_access.current().run
heading = st.container()
what = address.segments("What", "what", list(KINDS), "examples", drops=SHAPING, shown=lambda kind: KINDS[kind][0])
with heading:
    views.title("Export", KINDS[what][1])
(table_export if what == "table" else example_export).show(run, FORMATS)
