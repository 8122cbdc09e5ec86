"""The pieces that pages are drawn from: sheets of examples, rows of figures, cards, links."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from feature_lens.analysis.render import alt_text, labelled_sheet, sheet_geometry
from feature_lens.analysis.run import Run
from feature_lens.feature_set import FeatureSet
from feature_lens_app.run_access import BY_KEY, Opened
from feature_lens_app.words import plain, safe, shorten

COLUMNS = 10
"""Tiles per row where a sheet has the page's whole width."""


def url(page: str, params: Mapping[str, str]) -> str:
    """Address of another page, relative so that it holds behind any path prefix."""
    return f"{page}?{urlencode(params)}"


def link(page: str, label: str, params: Mapping[str, str], key: str) -> None:
    """A link that changes the page without loading the app again, and opens in a new tab like any other."""
    with st.container(key=f"fl-link-{key}"):
        st.page_link(f"screens/{page}.py", label=plain(label), query_params=dict(params))


def anchor(page: str, label: str, params: Mapping[str, str]) -> str:
    """A link inside HTML."""
    return f'<a href="{safe(url(page, params))}" target="_self">{safe(label)}</a>'


def image(png: bytes, alt: str, width: int | None = None, height: int | None = None) -> str:
    """A picture inside HTML; its size is told beforehand, so that the page does not jump."""
    size = (f' width="{width}"' if width else "") + (f' height="{height}"' if height else "")
    return f'<img alt="{safe(alt)}"{size} src="data:image/png;base64,{base64.b64encode(png).decode()}">'


@st.cache_data(show_spinner=False, max_entries=1024, hash_funcs=BY_KEY)
def _sheet_png(
    opened: Opened,
    positions: tuple[int, ...],
    values: tuple[float, ...],
    columns: int,
    highlight: frozenset[int],
) -> bytes:
    return labelled_sheet(opened.run, positions, values, columns, highlight)


def sheet(
    opened: Opened,
    positions: Iterable[Any],
    values: Iterable[Any],
    columns: int,
    what: str,
    caption: str = "",
    href: str = "",
    highlight: frozenset[int] = frozenset(),
) -> str:
    """Examples as tiles with value and class below, as one picture inside HTML.

    what: the words that its alternative text begins with. caption: a line above, as HTML. href: where a click goes. highlight: positions that get a frame.
    """
    at, numbers = tuple(int(p) for p in positions), tuple(float(v) for v in values)
    kind = opened.run.examples.modality.kind
    width, height = sheet_geometry(len(at), columns=columns, labelled=True, kind=kind).sheet_size(len(at))
    picture = image(
        _sheet_png(opened, at, numbers, columns, highlight),
        alt_text(opened.run, at, numbers, what),
        width,
        height,
    )
    if href:
        picture = f'<a href="{safe(href)}" target="_self">{picture}</a>'
    above = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="fl-sheet">{above}{picture}</figure>'


def sheets(*figures: str) -> None:
    """Sheets beside each other, wrapped where the page is narrow."""
    st.html(f'<div class="fl-sheets">{"".join(figures)}</div>')


def figures(pairs: Sequence[tuple[str, str]], small: bool = False) -> str:
    """Named figures in a row, as HTML; names and values are plain text."""
    kind = "fl-figures fl-small" if small else "fl-figures"
    cells = "".join(f"<div><dt>{safe(name)}</dt><dd>{safe(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="{kind}">{cells}</dl>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table as HTML; cells are HTML already, columns listed in `numbers` stand to the right."""

    def mark(place: int) -> str:
        return ' class="fl-number"' if place in numbers else ""

    head = "".join(f"<th{mark(i)}>{safe(name)}</th>" for i, name in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(f"<td{mark(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<table class="fl-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def title(text: str, lead: str = "") -> None:
    """Title of a page, with a quiet line below; both plain text."""
    below = f'<p class="fl-quiet">{safe(lead)}</p>' if lead else ""
    st.html(f'<h1 class="fl-title" style="padding:0">{safe(shorten(text, 160))}</h1>{below}')


def head(text: str, quiet: str = "") -> None:
    """Heading of a section, with a quiet line below; both plain text."""
    below = f'<p class="fl-quiet">{safe(quiet)}</p>' if quiet else ""
    st.html(f'<h2 class="fl-head" style="padding:0">{safe(text)}</h2>{below}')


def quiet(text: str) -> None:
    """A quiet line of plain text."""
    st.html(f'<p class="fl-quiet">{safe(text)}</p>')


def notes(lines: Sequence[str]) -> None:
    """What one must know before trusting what is shown, as plain text; nothing where there is nothing."""
    if lines:
        st.html('<ul class="fl-notes">' + "".join(f"<li>{safe(line)}</li>" for line in lines) + "</ul>")


def set_title(feature_set: FeatureSet) -> str:
    """Name of a feature set in a chooser: the name it has in the file, on the command line and in addresses."""
    return shorten(f"{feature_set.name} ({len(feature_set):,})", 40)


def view_title(run: Run, view: str) -> str:
    """Name of a view in a chooser, with the class that an output stands for."""
    kind, _, number = view.partition(":")
    if kind == "output" and number.isdigit():
        name = run.examples.output_name(int(number), run.network.n_outputs)
        return f"output {number}" if name == number else shorten(f"output {number}: {name}", 40)
    return {
        "score": "score",
        "activation": "activation",
        "largest": "largest over outputs",
        "own": "own class",
        "predicted": "predicted class",
    }.get(view, shorten(view, 40))


def meaning(run: Run, feature_set: FeatureSet, view: str) -> str:
    """What the number under a tile is, with its sign and unit."""
    card = feature_set.card
    kind = view.partition(":")[0]
    if kind == "activation":
        return (
            "Under each tile: the neuron's activation on that example, in the units of the network. The highest "
            "examples drive it most; the lowest drive it least, or below zero."
        )
    what = {
        "output": view_title(run, view),
        "largest": "whichever output has the largest magnitude",
        "own": "the output of the example's own class",
        "predicted": "the output that the network chooses",
    }.get(kind, view_title(run, view))
    described = card.score or "one number per example"
    if kind == "score":
        reading = f"Under each tile: {described}."
    elif "score" in feature_set.views:
        reading = f"Under each tile: the feature's activation for {what} alone."
    else:
        reading = f"Under each tile, for {what}: {described}."
    if card.basis == "unit":
        return f"{reading} Its unit is that of the output; positive pushes the output up, negative pushes it down."
    if feature_set.of_activations:
        return reading
    return (
        f"{reading} Its unit is output per unit step of the parameters; positive: a step along the feature raises the "
        "output on that example, negative: it lowers it."
    )
