"""The address of a view: query parameters are the only memory, widgets only show and change them.

Streamlit's own `bind` drops values on a page switch, and widget state is lost with the session. So every widget that
shapes a view is made by a function of this module: it takes its value from the address on every run, and a change
writes the address before the page is drawn again. A copied address therefore restores the view by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import streamlit as st

from feature_lens_app.words import plain, shorten

_NOTICES: Final = "address notices"
CARRIED: Final = ("run", "set", "feature", "view")


class PageEnd(Exception):
    """Raised where a page has no more to show. After `st.stop` nothing can be drawn, notices neither."""


def begin() -> None:
    """Forget the notices of the last run, and make the browser show the address; called before a page is drawn."""
    st.session_state[_NOTICES] = []
    if asked := st.query_params.to_dict():
        # A link to the page that is open already leaves the browser's address as it was; writing it again mends that.
        st.query_params.update(asked)


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


def _key(name: str) -> str:
    return f"address {name}"


def _hold(name: str, value: object) -> None:
    """Give a widget its value before it is drawn; left alone where it has it, so that typing is not interrupted."""
    if _key(name) not in st.session_state or st.session_state[_key(name)] != value:
        st.session_state[_key(name)] = value


def _written(name: str, drops: Sequence[str]) -> None:
    """Before the page is drawn again: the new value goes to the address, and what no longer fits leaves it."""
    value = st.session_state[_key(name)]
    for dropped in drops:
        st.query_params.pop(dropped, None)
    if isinstance(value, list):
        value = ",".join(value)
    if value is None or value == "":
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(value)


def _turned(name: str, key: str) -> None:
    st.query_params[name] = str(st.session_state[key])


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
    _hold(name, option(name, label.lower(), options, default))
    chosen: str = st.selectbox(
        label,
        options,
        format_func=shown,
        key=_key(name),
        help=help,
        on_change=_written,
        args=(name, drops),
    )
    return chosen


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
    _hold(name, option(name, label.lower(), options, default))
    chosen: str | None = st.segmented_control(
        label,
        options,
        format_func=lambda entry: plain(shown(entry)),
        required=True,
        key=_key(name),
        help=help,
        on_change=_written,
        args=(name, drops),
    )
    return default if chosen is None else chosen


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
    _hold(name, known or list(default))
    chosen: list[str] = st.multiselect(
        label, options, format_func=shown, key=_key(name), on_change=_written, args=(name, ())
    )
    return chosen or list(default)


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
    _hold(name, number(name, label.lower(), low, high, default))
    chosen: int = st.number_input(
        label,
        min_value=low,
        max_value=high,
        step=step,
        key=_key(name),
        help=help,
        on_change=_written,
        args=(name, drops),
    )
    return chosen


def field(label: str, name: str, *, placeholder: str = "", drops: Sequence[str] = (), help: str | None = None) -> str:
    """A field for text, bound to a parameter."""
    _hold(name, text(name))
    chosen: str = st.text_input(
        label,
        key=_key(name),
        placeholder=placeholder,
        max_chars=100,
        help=help,
        on_change=_written,
        args=(name, drops),
    )
    return chosen


def pages(name: str, count: int, place: str = "top") -> int:
    """Page numbers from 1, bound to a parameter; `place` tells several on one page apart."""
    current = number(name, "page", 1, count, 1)
    if count == 1:
        return 1
    # The widget takes no value through the session state without a warning, so each page has a widget of its own.
    key = f"{_key(name)} {place} {current}"
    chosen: int = st.pagination(count, default=current, key=key, on_change=_turned, args=(name, key))
    return chosen
