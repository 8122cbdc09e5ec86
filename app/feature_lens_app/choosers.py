"""The choosers that several pages have: feature set and view, each bound to the address."""

from __future__ import annotations

from collections.abc import Sequence

from feature_lens.analysis.orders import default_view
from feature_lens.analysis.run import Run
from feature_lens.feature_set import FeatureSet
from feature_lens_app import address
from feature_lens_app.views import set_title, view_title
from feature_lens_app.words import shorten


def choose_set(
    run: Run, label: str = "Feature set", name: str = "set", default: str | None = None, drops: Sequence[str] = ()
) -> FeatureSet:
    """A chooser of feature sets; `drops` are parameters that mean nothing in another set."""
    sets = list(run.sets)
    chosen = address.select(
        label, name, sets, default or sets[0], shown=lambda each: set_title(run.feature_set(each)), drops=drops
    )
    return run.feature_set(chosen)


def choose_view(
    run: Run, feature_set: FeatureSet, label: str = "View", name: str = "view", drops: Sequence[str] = ()
) -> str:
    """A chooser of a set's views: its score, or its activation for one output."""
    return address.select(
        label,
        name,
        list(feature_set.views),
        default_view(feature_set),
        shown=lambda view: view_title(run, view),
        drops=drops,
    )


def default_of(feature_set: FeatureSet) -> str:
    """The view that is chosen when the address names none: the one that the address has, where the set knows it."""
    asked = address.get("view")
    return asked if asked in feature_set.views else default_view(feature_set)


def parse_features(text: str, count: int) -> tuple[int, ...]:
    """Feature numbers out of text such as '0, 3, 10-14', each once, in the order given; what is none is noticed."""
    found: dict[int, None] = {}
    for part in text.replace(";", ",").replace(" ", ",").split(","):
        low, dash, high = part.partition("-")
        ends = [low, high if dash else low]
        if not part:
            continue
        if not all(end.isascii() and end.isdigit() and len(end) < 10 and int(end) < count for end in ends):
            address.notice(f"'{shorten(part)}' is no feature of this set; features are numbered 0 to {count - 1:,}.")
            continue
        found.update(dict.fromkeys(range(int(low), int(ends[1]) + 1)))
    return tuple(found)
