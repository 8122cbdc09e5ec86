"""The address of a view: query parameters are the only memory, widgets only show and change them.

Streamlit's own `bind` drops values on a page switch, and widget state is lost with the session. So every widget that
shapes a view is made by a function of this module: a change writes the address before the page is drawn again, and
the function gives what the address says, whatever Streamlit holds of the widget. A copied address therefore restores
the view by itself, and what a page draws is what its address says.

To Streamlit widgets of one key on two pages are two: the second begins at its own default, though the session still
holds the first one's value under the key. So a key is of one page, and the default of every widget is what the address
says; that the session is written besides, for a widget that is on the screen already, is why the settings turn off
Streamlit's warning of widgets that have both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import streamlit as st

from feature_lens_app.words import plain, shorten

_NOTICES: Final = "address notices"
_PAGE: Final = "address page"
CARRIED: Final = ("run", "set", "feature", "view")


class PageEnd(Exception):
    """Raised where a page has no more to show. After `st.stop` nothing can be drawn, notices neither."""


def begin(page: str) -> None:
    """Before a page is drawn, named by its path: forget the notices of the last run, and make the browser show the
    address. A link to the page that is open already leaves the browser's address as it was, so that it is written
    again. Of another page the browser knows it, and to write it would leave a step in its history that is neither the
    page before nor this one, to which Back would lead."""
    st.session_state[_NOTICES] = []
    asked = st.query_params.to_dict()
    if asked and st.session_state.get(_PAGE) == page:
        st.query_params.update(asked)
    st.session_state[_PAGE] = page


def notice(text: str) -> None:
    """Keep one sentence about an address that could not be followed, to be shown at the top of the page."""
    found: list[str] = st.session_state.setdefault(_NOTICES, [])
    if text not in found:
        found.append(text)


def show_notices() -> None:
    """Draw what `notice` kept; called into a place reserved at the top, after the page is drawn."""
    for text in st.session_state.get(_NOTICES, []):
        st.warning(plain(text))


def get(name: str) -> str | None:
    """A query parameter, or None when it is absent or empty."""
    return st.query_params.get(name) or None


def here(**changes: object) -> dict[str, str]:
    """What a link to another page takes along: run, set, feature and view, with `changes`; None leaves one out."""
    merged: dict[str, object] = {name: get(name) for name in CARRIED} | changes
    return {name: str(value) for name, value in merged.items() if value is not None and value != ""}


def everything(**changes: object) -> dict[str, str]:
    """The whole present address with `changes`; for links that stay on a page."""
    merged: dict[str, object] = {**st.query_params.to_dict(), **changes}
    return {name: str(value) for name, value in merged.items() if value is not None and value != ""}


def _known(options: Sequence[str]) -> str:
    shown = [shorten(option) for option in options[:12]]
    return ", ".join(shown) + (f" and {len(options) - 12} more" if len(options) > 12 else "")


def option(name: str, what: str, options: Sequence[str], default: str) -> str:
    """The value of a parameter that is one of `options`; another value is noticed and the default taken."""
    value = get(name)
    if value is None:
        return default
    if value not in options:
        notice(
            f"This address asks for the {what} '{shorten(value)}', which is not there; known are {_known(options)}. "
            f"Shown is {shorten(default)}."
        )
        return default
    return value


def number(name: str, what: str, low: int, high: int, default: int) -> int:
    """The value of a parameter that is a whole number from `low` to `high`; another is noticed, the default taken."""
    value = get(name)
    if value is None:
        return default
    if not (value.isascii() and value.removeprefix("-").isdigit() and len(value) < 19 and low <= int(value) <= high):
        notice(
            f"This address asks for the {what} '{shorten(value)}', but it is a number from {low:,} to {high:,}. "
            f"Shown is {default:,}."
        )
        return default
    return int(value)


def text(name: str, longest: int = 100) -> str:
    """The value of a parameter that is free text, cut to `longest` characters."""
    value = "".join(letter for letter in (get(name) or "") if letter.isprintable())
    if len(value) > longest:
        notice(f"The text for '{name}' in this address is longer than {longest} characters; its beginning is used.")
    return value[:longest]


def _held(name: str, value: object) -> str:
    """The key of a widget of this page, which now has this value; left alone where it has it, so that typing is not
    interrupted."""
    key = f"address {st.session_state[_PAGE]} {name}"
    if key in st.session_state and st.session_state[key] != value:
        st.session_state[key] = value
    return key


def _as_text(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else "" if value is None else str(value)


def _written(key: str, name: str, default: object, drops: Sequence[str] = ()) -> None:
    """Before the page is drawn again: the new value goes to the address, and what no longer fits leaves it. Streamlit
    also calls this for widgets that nobody touched, when a page that it had begun to leave is drawn after all."""
    value = _as_text(st.session_state[key])
    present = st.query_params.to_dict()
    if value == present.get(name, _as_text(default)):
        return
    kept = {other: held for other, held in present.items() if other != name and other not in drops}
    # Written at once: each writing is a step of the browser's history, and Back would lead to half a change.
    st.query_params.from_dict(kept | {name: value} if value else kept)


def select(
    label: str,
    name: str,
    options: Sequence[str],
    default: str,
    *,
    shown: Callable[[str], str] = str,
    drops: Sequence[str] = (),
    help: str | None = None,
) -> str:
    """A drop-down list bound to a parameter."""
    value = option(name, label.lower(), options, default)
    key = _held(name, value)
    st.selectbox(
        label,
        options,
        list(options).index(value),
        format_func=shown,
        key=key,
        help=help,
        on_change=_written,
        args=(key, name, default, drops),
    )
    return value


def segments(
    label: str,
    name: str,
    options: Sequence[str],
    default: str,
    *,
    shown: Callable[[str], str] = str,
    drops: Sequence[str] = (),
    help: str | None = None,
) -> str:
    """A row of buttons of which one is chosen, bound to a parameter."""
    value = option(name, label.lower(), options, default)
    key = _held(name, value)
    st.segmented_control(
        label,
        options,
        default=value,
        format_func=lambda entry: plain(shown(entry)),
        required=True,
        key=key,
        help=help,
        on_change=_written,
        args=(key, name, default, drops),
    )
    return value


def several(
    label: str,
    name: str,
    options: Sequence[str],
    default: Sequence[str],
    *,
    shown: Callable[[str], str] = str,
) -> list[str]:
    """A list of which any entries are chosen, at least one; the parameter holds them joined by commas."""
    asked = [part for part in (get(name) or "").split(",") if part]
    known = [part for part in dict.fromkeys(asked) if part in options]
    if unknown := [part for part in asked if part not in options]:
        notice(
            f"This address asks for '{shorten(unknown[0])}' among the {label.lower()}, which is not there; "
            f"known are {_known(options)}."
        )
    value = known or list(default)
    key = _held(name, value)
    st.multiselect(
        label, options, value, format_func=shown, key=key, on_change=_written, args=(key, name, list(default))
    )
    return value


def whole_number(
    label: str,
    name: str,
    low: int,
    high: int,
    default: int,
    *,
    drops: Sequence[str] = (),
    help: str | None = None,
    step: int = 1,
) -> int:
    """A field for a whole number, bound to a parameter."""
    value = number(name, label.lower(), low, high, default)
    key = _held(name, value)
    st.number_input(
        label,
        min_value=low,
        max_value=high,
        value=value,
        step=step,
        key=key,
        help=help,
        on_change=_written,
        args=(key, name, default, drops),
    )
    return value


def field(label: str, name: str, *, placeholder: str = "", drops: Sequence[str] = (), help: str | None = None) -> str:
    """A field for text, bound to a parameter."""
    value = text(name)
    key = _held(name, value)
    st.text_input(
        label,
        value,
        key=key,
        placeholder=placeholder,
        max_chars=100,
        help=help,
        on_change=_written,
        args=(key, name, "", drops),
    )
    return value


def pages(name: str, count: int, place: str = "top") -> int:
    """Page numbers from 1, bound to a parameter; `place` tells several on one page apart."""
    value = number(name, "page", 1, count, 1)
    if count > 1:
        key = _held(f"{name} {place}", value)
        st.pagination(count, default=value, key=key, on_change=_written, args=(key, name, 1))
    return value
