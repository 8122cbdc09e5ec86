"""Text from files, networks and arguments, such that a terminal shows it and does nothing else."""

from __future__ import annotations

import unicodedata
from typing import Final

# Control characters, halves of characters, and what ends a line or a paragraph.
_ACTING: Final = ("Cc", "Cs", "Zl", "Zp")
# Marks that turn the direction in which the text after them is written.
_TURNING: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(text: str) -> str:
    """Text with whatever a terminal would obey written out, an escape code as \\x1b; line feeds and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written(letter) for letter in text)


def _written(letter: str) -> str:
    if letter in "\n\t" or not (unicodedata.category(letter) in _ACTING or letter in _TURNING):
        return letter
    return letter.encode("unicode_escape").decode("ascii")
