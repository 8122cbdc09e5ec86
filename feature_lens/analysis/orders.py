"""Where examples stand in a feature's order: its ends, its quantile groups, its whole range, the place of a rank.

Ranks count from 0, the highest value first. All but the kept ends need a set whose values are stored, or follow from factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.ranking import id_ranks, order, quantile_groups, range_sample
from feature_lens.run_contents import RunContents

Positions = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class QuantileRow:
    """Some examples out of one stretch of an order, evenly spread over it.

    low and high are the least and largest value of the whole stretch; ranks, positions and values (s,) are those
    of the examples shown, highest first.
    """

    name: str
    low: float
    high: float
    ranks: Positions
    positions: Positions
    values: Values


def default_view(feature_set: FeatureSet) -> str:
    """The view that is meant when none is named: the score where there is one, else the first view."""
    return "score" if "score" in feature_set.views else feature_set.views[0]


def value_matrix(feature_set: FeatureSet, view: str) -> npt.NDArray[np.float32]:
    """Values (k, n) of all features in one view; raises SettingsError where values are not stored."""
    place = feature_set.view_index(view)
    if not feature_set.stores_values:
        raise SettingsError(
            f"Feature set '{feature_set.name}' keeps extremes and moments only, not the value of every example; "
            "choose a stored set."
        )
    return np.asarray(feature_set.columns["values"][:, place], dtype=np.float32)


def untied(positions: npt.NDArray[np.integer], values: npt.NDArray[np.floating]) -> npt.NDArray[np.integer]:
    """The first positions (k, t) of an order; -1 for those that only their ids put there, by their values (k, t).

    A value that several of them share with the last one may be shared by many more that come after, as the zeros of a
    rectified unit are: which of them stand there says nothing of the feature.
    """
    tied = values == values[:, -1:]
    return np.where(tied & (tied.sum(axis=1, keepdims=True) > 1), -1, positions)


def full_order(run: RunContents, set_name: str, feature: int, view: str) -> tuple[Positions, Values]:
    """Positions and values of all examples with finite values, highest first. Cost n log n.

    Raises SettingsError for sets that keep neither values nor factors.
    """
    values = run.feature_set(set_name).values(feature, view)
    positions = order(values, id_ranks(run.examples.ids))
    return positions, values[positions]


def end_of(
    run: RunContents, set_name: str, feature: int, view: str, end: str, count: int
) -> tuple[npt.NDArray[np.int32], Values]:
    """Positions and values of the `count` examples at the 'highest' or 'lowest' end, fewer where there are fewer.

    Reads the kept ends; goes to all values for more than were kept, and raises SettingsError without them.
    """
    feature_set = run.feature_set(set_name)
    if count < 1:
        raise SettingsError(f"At least one example per end is wanted, but {count} came; ask for 1 or more.")
    positions, values = feature_set.extremes(feature, view, end)
    kept = int(feature_set.columns[f"{end}/position"].shape[2])
    if count <= kept or len(positions) < kept or kept >= len(run.examples):
        return positions[:count], values[:count]
    if not feature_set.gives_values:
        raise SettingsError(
            f"Feature set '{set_name}' keeps {kept} examples at each end, but {count} were asked for; "
            f"ask for at most {kept}."
        )
    all_values = feature_set.values(feature, view)
    ranks = id_ranks(run.examples.ids)
    # The lowest are the highest of the negated feature: ties go to the smaller id at both ends.
    chosen = order(all_values if end == "highest" else -all_values, ranks)[:count]
    return chosen.astype(np.int32), all_values[chosen]


def _row(name: str, positions: Positions, values: Values, first_rank: int, count: int) -> QuantileRow:
    places = range_sample(np.arange(len(positions)), count).astype(np.int64)
    return QuantileRow(
        name, float(values[-1]), float(values[0]), places + first_rank, positions[places], values[places]
    )


def _group_name(place: int, groups: int) -> str:
    if groups == 1:
        return "all"
    low, high = 100 * place / groups, 100 * (place + 1) / groups
    if place == 0:
        return f"highest {high:.3g} %"
    if place == groups - 1:
        return f"lowest {100 - low:.3g} %"
    return f"{low:.3g}–{high:.3g} %"


def quantile_rows(
    run: RunContents, set_name: str, feature: int, view: str, groups: int = 5, per_group: int = 8
) -> list[QuantileRow]:
    """Groups of equal count, highest first, each sampled evenly over its range, both ends included.

    Groups are fewer where there are fewer examples than groups. Raises SettingsError for sets without stored values
    and for counts below 1.
    """
    if per_group < 1:
        raise SettingsError(f"Each quantile group shows at least one example, but {per_group} came; ask for 1 or more.")
    positions, values = full_order(run, set_name, feature, view)
    if groups >= 1:
        groups = max(1, min(groups, len(positions)))
    rows = []
    for place, ranks in enumerate(quantile_groups(np.arange(len(positions)), groups)):
        if len(ranks):
            rows.append(_row(_group_name(place, groups), positions[ranks], values[ranks], int(ranks[0]), per_group))
    return rows


def range_row(run: RunContents, set_name: str, feature: int, view: str, count: int = 16) -> QuantileRow:
    """`count` examples evenly over the whole order, highest and lowest included; empty where no value is finite."""
    positions, values = full_order(run, set_name, feature, view)
    if len(positions) == 0:
        return QuantileRow("whole range", float("nan"), float("nan"), positions, positions, values)
    return _row("whole range", positions, values, 0, max(count, 1))


def rank_window(n_ranked: int, rank: int, count: int) -> range:
    """The ranks that `at_rank` shows: `count` of them around `rank`, moved inwards at the ends."""
    if n_ranked == 0:
        raise SettingsError("No example is ranked by this feature, since none of its values is finite; choose another.")
    if not 0 <= rank < n_ranked:
        raise SettingsError(f"Ranks run from 0 to {n_ranked - 1}, but {rank} was asked for; choose one of them.")
    start = max(0, min(rank - count // 2, n_ranked - count))
    return range(start, min(start + max(count, 1), n_ranked))


def at_rank(
    run: RunContents, set_name: str, feature: int, view: str, rank: int, count: int = 8
) -> tuple[Positions, Values]:
    """Positions and values of `count` examples around a rank (0 = highest); their ranks are `rank_window`'s."""
    positions, values = full_order(run, set_name, feature, view)
    window = rank_window(len(positions), rank, count)
    return positions[window.start : window.stop], values[window.start : window.stop]
