"""Texts from files and addresses, made safe for Markdown and HTML; figures as the app writes them."""

from __future__ import annotations

import html
import math
import re
from typing import Final

LONGEST: Final = 60


def shorten(text: str, longest: int = LONGEST) -> str:
    """Text on one line of at most `longest` characters."""
    flat = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def plain(text: str) -> str:
    """Text that Markdown shows as it is: every punctuation character that could mean something is escaped."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$<>:^=&])", r"\\\1", _sendable(text))


def safe(text: object) -> str:
    """Text that HTML shows as it is, also inside an attribute."""
    return html.escape(_sendable(str(text)), quote=True)


def _sendable(text: str) -> str:
    """Text with what is none, such as a byte of a file's name, written out: a browser can be sent no half characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def figure(value: float, signed: bool = False) -> str:
    """A number to three significant digits, with a true minus sign; `signed` also writes plus."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    written = f"{value:+.3g}" if signed else f"{value:.3g}"
    return written.replace("-", "−")


def percent(share: float) -> str:
    """A share as a percentage of three significant digits at most; only a whole reads as 100 %."""
    if 0.9995 <= share < 1 - 1e-9:
        return "above 99.9 %"
    return f"{figure(100 * share)} %"


def count_of(number: int, one: str, many: str | None = None) -> str:
    """A number of things, such as '1 example' or '1,797 examples'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
