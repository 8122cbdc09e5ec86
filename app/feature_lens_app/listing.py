"""The order in which features are browsed: search, filter and sort, read from the address, the table cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pandas as pd
import streamlit as st

from feature_lens.analysis.feature_table import KEEPS, SORTS, Keep, Sort, feature_table
from feature_lens.analysis.run import Run
from feature_lens.feature_set import FeatureSet
from feature_lens_app import address
from feature_lens_app.run_access import BY_KEY, Opened

PARAMETERS = ("q", "sort", "dir", "keep", "layer")
EVERY = "all"
KEEP_NAMES = {
    "all": "all features",
    "live": "live ones",
    "dead": "dead: always 0",
    "constant": "constant ones",
    "nonfinite": "non-finite values",
}
SORT_NAMES = {
    "order": "default order",
    "label": "name",
    "std": "standard deviation",
    "maximum": "highest value",
    "minimum": "lowest value",
    "spectrum": "eigenvalue",
    "selectivity": "class selectivity",
}


@dataclass(frozen=True)
class Order:
    """Which features of a set are listed, and in which order."""

    search: str = ""
    sort: str = "order"
    descending: bool = False
    keep: str = "all"
    layer: str = EVERY


@st.cache_resource(show_spinner=False, max_entries=8, hash_funcs=BY_KEY)
def _cached(opened: Opened, set_name: str, view: str, order: Order) -> pd.DataFrame:
    # A resource, not data: a table of 100,000 rows would be copied on every hit. Nobody changes it.
    return feature_table(
        opened.run,
        set_name,
        view,
        search=order.search,
        sort=cast(Sort, order.sort),
        descending=order.descending,
        keep=cast(Keep, order.keep),
        group=None if order.layer == EVERY else order.layer,
    )


def table(opened: Opened, feature_set: FeatureSet, view: str, order: Order) -> pd.DataFrame:
    """The features that fit, in their order; not to be changed."""
    return _cached(opened, feature_set.name, view, order)


def sorts(run: Run, feature_set: FeatureSet) -> list[str]:
    """The ways to sort that a set has figures for."""
    absent = {name for name in ("spectrum", "stability") if name not in feature_set}
    if not feature_set.stores_values or run.examples.labels is None:
        absent.add("selectivity")
    return [name for name in SORTS if name not in absent]


def layers(opened: Opened, feature_set: FeatureSet, view: str) -> list[str]:
    """Layers or tensors that the features of a set lie in; empty where they lie in no single one."""
    if "spectrum" in feature_set:
        return []
    every = table(opened, feature_set, view, Order())
    return [str(name) for name in every["layer"].cat.categories] if "layer" in every else []


def falls(sort: str) -> str:
    """The direction that one expects of a way to sort: figures fall, names and the default order do not."""
    return "rising" if sort in ("order", "label") else "falling"


def read_order(opened: Opened, feature_set: FeatureSet, view: str) -> Order:
    """The order that the address asks for, without widgets; for pages that walk through it."""
    sort = address.option("sort", "sort order", sorts(opened.run, feature_set), "order")
    # The layers are looked up only where one is asked for.
    layer = EVERY
    if address.get("layer") is not None:
        layer = address.option("layer", "layer", [EVERY, *layers(opened, feature_set, view)], EVERY)
    return Order(
        address.text("q"),
        sort,
        address.option("dir", "direction", ["falling", "rising"], falls(sort)) == "falling",
        address.option("keep", "filter", list(KEEPS), "all"),
        layer,
    )


def first(opened: Opened, feature_set: FeatureSet, view: str) -> int:
    """The feature that a page shows when the address names none: the first of the order asked for."""
    listed = table(opened, feature_set, view, read_order(opened, feature_set, view))
    return int(listed["feature"].iloc[0]) if len(listed) else 0


def neighbours(
    opened: Opened, feature_set: FeatureSet, view: str, feature: int
) -> tuple[int | None, int | None, int, int]:
    """The features before and after one in the order asked for, its place there from 1 (0: not listed), and how many."""
    listed = table(opened, feature_set, view, read_order(opened, feature_set, view))["feature"]
    found = listed.index[listed == feature]
    if len(found) == 0:
        return None, None, 0, len(listed)
    at = int(found[0])
    before = int(listed.iloc[at - 1]) if at > 0 else None
    after = int(listed.iloc[at + 1]) if at + 1 < len(listed) else None
    return before, after, at + 1, len(listed)
