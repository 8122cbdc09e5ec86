"""Export of a table: which one, of which example and output, in which format, with a preview of its first rows."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from feature_lens.analysis.formats import FORMATS
from feature_lens.analysis.run import Run
from feature_lens.analysis.tables import TABLES, TableRequest, held_tables, table_bytes, table_name, table_rows
from feature_lens_app import address, views

PREVIEW_ROWS = 12
ALL = "all"


def show(run: Run, format_words: dict[str, str]) -> None:
    """The choosers of a table, its button and the first rows; `format_words` are the names of the formats."""
    held = held_tables(run)
    first, second, _ = st.columns([4, 3, 3])
    with first:
        name = address.select("Table", "table", held, held[0], drops=("example", "output"), shown=_title)
    with second:
        format = address.segments("Format", "format", list(FORMATS), "csv", shown=lambda f: format_words.get(f, f))
    narrows = TABLES[name].narrows
    example, output = None, None
    if narrows:
        first, second, third, _ = st.columns([1.5, 2.5, 3, 3])
    if "example" in narrows:
        with first:
            one = address.segments("Examples", "of", [ALL, "one"], ALL, drops=("example",)) == "one"
        if one:
            with second:
                n = len(run.examples)
                example = address.whole_number("Example", "example", 0, n - 1, 0, help="Its position in the run")
    if "output" in narrows:
        with third:
            chosen = address.select(
                "Output",
                "output",
                [ALL, *(str(place) for place in range(int(run.outputs.shape[1])))],
                ALL,
                shown=lambda place: "all outputs" if place == ALL else views.view_title(run, f"output:{place}"),
            )
            output = None if chosen == ALL else int(chosen)
    views.quiet(f"{TABLES[name].words[:1].upper()}{TABLES[name].words[1:]}.")
    request = TableRequest(name, example, output)
    named = table_name(run, request, format)
    st.download_button(
        f"Download {named}".replace("_", r"\_"),
        data=lambda: table_bytes(run, request, format),
        file_name=named,
        mime=FORMATS[format].media_type,
        type="primary",
        on_click="ignore",
        key="fl-download-table",
    )
    # One example is enough for the first rows; the whole is made when it is downloaded.
    shown = replace(request, example=0) if "example" in narrows and example is None else request
    views.quiet("The first rows:")
    st.dataframe(
        table_rows(run, shown).head(PREVIEW_ROWS), hide_index=True, height="content", alt="First rows of the table"
    )


def _title(name: str) -> str:
    return name.replace("_", " ")
