"""Reads what a run says of itself and of its sets in words and figures, each of the type that it should be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from feature_lens.cards import Provenance
from feature_lens.errors import RunError
from feature_lens.feature_set import Card


def read_card(name: str, data: Mapping[str, Any]) -> Card:
    """The card of a set; raises RunError where a part of it is of another type. What a later version added is left."""
    for part in fields(Card):
        if part.default is MISSING and part.name not in data:
            raise RunError(f"the card of the set '{name}' does not say its {part.name}; make the run again.")
    kept = {part.name: data[part.name] for part in fields(Card) if part.name in data and part.name != "provenance"}
    for key, value in kept.items():
        if not _is_said(key, value):
            raise RunError(f"'{key}' on the card of the set '{name}' is not what it should be; make the run again.")
    return Card(**kept, provenance=read_provenance(f"the set '{name}'", data.get("provenance")))


def _is_said(key: str, value: Any) -> bool:
    """Whether a value can be that part of a card."""
    if key == "kernel_share":
        return value is None or (type(value) in (int, float) and math.isfinite(value))
    if key == "n_fitted":
        return type(value) is int and value >= 0
    return type(value) is (bool if key == "reads_labels" else str)


def read_provenance(of: str, data: Any) -> Provenance:
    """Where something comes from; raises RunError where that is not said in words."""
    keys = ("settings", "software", "fingerprint", "remarks")
    found: list[Any] = [data.get(key) for key in keys] if isinstance(data, Mapping) else [None] * 4
    settings, software, fingerprint, remarks = found
    if (
        [type(one) for one in found] != [dict, dict, str, list]
        or not all(isinstance(word, str) for word in remarks)
        or not all(isinstance(word, str) for word in software.values())
    ):
        raise RunError(f"where {of} comes from is not said in words; make the run again.")
    return Provenance(settings, software, fingerprint, tuple(remarks))
