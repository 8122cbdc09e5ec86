"""Pieces of a report as HTML. Text that comes from a run is escaped here and nowhere else: pages put pieces together."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from feature_lens.analysis.render import format_value


@dataclass(frozen=True)
class Html:
    """HTML that is safe as it is; made by the functions of this module and of `charts` alone."""

    text: str


def joined(*parts: Html, by: str = "") -> Html:
    """One after the other; spans are joined `by` a space."""
    return Html(by.join(part.text for part in parts))


def shorten(text: str, longest: int = 160) -> str:
    """Text on one line of at most `longest` printable characters."""
    flat = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def words(text: object, kind: str = "", tag: str = "p", longest: int = 2000) -> Html:
    """Text in an element of a class."""
    marked = f' class="{kind}"' if kind else ""
    return Html(f"<{tag}{marked}>{escape(shorten(str(text), longest))}</{tag}>")


def box(kind: str, *parts: Html, tag: str = "div") -> Html:
    """Parts within an element of a class."""
    return Html(f'<{tag} class="{kind}">{joined(*parts).text}</{tag}>')


def section(title: str, lead: str, *parts: Html) -> Html:
    """A part of the report under its heading, with a quiet line below."""
    below = words(lead, "quiet") if lead else Html("")
    return box("section", words(title, tag="h2"), below, *parts, tag="section")


def figures(pairs: Iterable[tuple[str, str]]) -> Html:
    """Named figures in a row."""
    cells = [box("figure", words(name, tag="dt"), words(value, tag="dd", longest=80)) for name, value in pairs]
    return box("figures", *cells, tag="dl")


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str | Html]],
    numbers: Sequence[int] = (),
    over: Sequence[tuple[str, int]] = (),
) -> Html:
    """A table; columns in `numbers` stand to the right. over: a line above the heads, each word over so many of them."""

    def cell(tag: str, place: int, content: str | Html) -> str:
        kind = ' class="number"' if place in numbers else ""
        inner = content.text if isinstance(content, Html) else escape(shorten(content))
        return f"<{tag}{kind}>{inner}</{tag}>"

    head = "".join(cell("th", place, name) for place, name in enumerate(heads))
    body = "".join("<tr>" + "".join(cell("td", place, one) for place, one in enumerate(row)) + "</tr>" for row in rows)
    above = "".join(f'<th colspan="{span}"{_over(text)}>{escape(text)}</th>' for text, span in over)
    head = (f"<tr>{above}</tr>" if over else "") + f"<tr>{head}</tr>"
    return Html(f"<table><thead>{head}</thead><tbody>{body}</tbody></table>")


def _over(text: str) -> str:
    return ' class="over"' if text else ' class="none"'


def picture(png: bytes, alternative: str, kind: str = "sheet") -> Html:
    """A PNG within the file."""
    source = base64.b64encode(png).decode("ascii")
    words = escape(shorten(alternative, 1000), quote=True)
    return Html(f'<img class="{kind}" alt="{words}" src="data:image/png;base64,{source}">')


def number(value: float | None) -> str:
    """Three significant digits; a dash for what is not there."""
    return "–" if value is None or value != value else format_value(float(value), signed=False)


def fidelity(value: float | None) -> str:
    """R2 and shares: three decimals, and only 1 itself reads as 1."""
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if round(value, 3) < 1 or value == 1 else "> 0.999"
