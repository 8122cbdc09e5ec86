"""The features of a set as a table that can be searched, filtered and sorted; made for 100,000 rows."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.measures.classes import selectivity
from feature_lens.analysis.orders import value_matrix
from feature_lens.cards import ParameterTable
from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.registry import unknown_name
from feature_lens.run_contents import RunContents

Sort = Literal["order", "label", "mean", "std", "maximum", "minimum", "spectrum", "stability", "selectivity"]
Keep = Literal["all", "live", "dead", "constant", "nonfinite"]

SORTS: Final[tuple[str, ...]] = get_args(Sort)
KEEPS: Final[tuple[str, ...]] = get_args(Keep)
_MOMENTS: Final = ("mean", "std", "minimum", "maximum", "n_nonfinite")
_PER_FEATURE: Final = ("spectrum", "group", "stability", "mean_share", "energy")
_FRAMES_KEPT: Final = 8


def feature_labels(feature_set: FeatureSet) -> list[str]:
    """Names of all features (k), those of `FeatureSet.label`, without one call per feature."""
    if "labels" in feature_set:
        raw = feature_set.read("labels")
        return [str(label) for label in (np.char.decode(raw, "utf-8") if raw.dtype.kind == "S" else raw).tolist()]
    count = len(feature_set)
    if feature_set.parameters is None or not feature_set.is_canonical:
        return [f"{feature_set.name} {feature}" for feature in range(count)]
    return list(_parameter_labels(feature_set.parameters))


def _parameter_labels(table: ParameterTable) -> Any:
    for name, shape in zip(table.names, table.shapes, strict=True):
        labels = [f"{name}["]
        for axis, size in enumerate(shape):
            ends = [f"{i}]" if axis == len(shape) - 1 else f"{i}," for i in range(size)]
            labels = [start + end for start in labels for end in ends]
        yield from labels if shape else [f"{name}[]"]


def feature_layers(feature_set: FeatureSet) -> npt.NDArray[Any] | None:
    """Layer of each unit or neuron, tensor of each weight feature (k), or None where a feature has no such place."""
    if "layer" in feature_set:
        return feature_set.read("layer").astype(str)
    if feature_set.is_canonical and feature_set.parameters is not None:
        return np.repeat(np.array(feature_set.parameters.names), feature_set.parameters.sizes)
    return None


def whole_table(run: RunContents, set_name: str, view: str) -> pd.DataFrame:
    """All features in the order of their numbers, with everything but selectivity; not to be changed.

    Kept with the run (the last few sets and views), since a run never changes and reading 100,000 features takes
    longer than a page may.
    """
    feature_set = run.feature_set(set_name)
    place = feature_set.view_index(view)
    kept: dict[tuple[str, str], pd.DataFrame] = run.__dict__.setdefault("_feature_tables", {})
    if (set_name, view) not in kept:
        frame = _read_table(feature_set, place)
        while len(kept) >= _FRAMES_KEPT:
            kept.pop(next(iter(kept)), None)
        kept[set_name, view] = frame
        return frame
    return kept[set_name, view]


def _read_table(feature_set: FeatureSet, place: int) -> pd.DataFrame:
    data: dict[str, Any] = {
        "feature": np.arange(len(feature_set), dtype=np.int64),
        "label": feature_labels(feature_set),
    }
    if (layers := feature_layers(feature_set)) is not None:
        data["layer"] = pd.Categorical(layers)
    for name in _MOMENTS:
        # Whole rows are read: picking one view out of each makes HDF5 walk feature by feature.
        data[name] = np.ascontiguousarray(feature_set.read(name)[:, place])
    for name in _PER_FEATURE:
        if name in feature_set:
            data[name] = feature_set.read(name)
    with np.errstate(invalid="ignore"):
        data["constant"] = data["minimum"] == data["maximum"]
    data["dead"] = data["constant"] & (data["maximum"] == 0)
    return pd.DataFrame(data)


def measured_positions(run: RunContents) -> npt.NDArray[np.int64]:
    """Examples on which measures are taken: the held-out ones where there are any, else all."""
    training = run.examples.training
    if training is None or training.all():
        return np.arange(len(run.examples))
    return np.flatnonzero(~training)


def feature_table(
    run: RunContents,
    set_name: str,
    view: str,
    *,
    search: str = "",
    sort: Sort = "order",
    descending: bool = False,
    keep: Keep = "all",
    group: int | str | None = None,
) -> pd.DataFrame:
    """Features that fit, one row each, in the order wanted.

    Columns: feature (its number), label, layer (of units and neurons; the tensor of a weight feature), mean, std,
    minimum, maximum, n_nonfinite, spectrum, group, stability, mean_share, energy (those that the set has), constant,
    dead, and with sort="selectivity" also selectivity and best_class (held-out examples where there are any).

    search: part of the label, upper or lower case alike. sort: "order" is the default order of the set; features
    without a figure come last, equal ones by number. keep: "live" varies over the examples, "constant" does not
    (dead ones included), "dead" is always 0, "nonfinite" has values that are NaN or infinite. group: number of a
    group of near-degenerate eigenvalues, or name of a layer or tensor.

    Raises SettingsError for unknown names and for a sort that the set has no figures for. Cost k log k once the set
    has been read; selectivity k n log n.
    """
    if sort not in SORTS:
        raise unknown_name("way to sort features", sort, list(SORTS))
    if keep not in KEEPS:
        raise unknown_name("selection of features", keep, list(KEEPS))
    table = whole_table(run, set_name, view)
    fits = _kept(table, keep) & _in_group(table, set_name, group)
    if search:
        # Not as a pattern: the brackets of '0.weight[3,17]' stand for themselves.
        fits &= table["label"].str.contains(search, case=False, regex=False).to_numpy(dtype=bool)
    if sort == "selectivity":
        table = table.assign(**_selectivity(run, set_name, view))
    if sort in ("spectrum", "stability") and sort not in table:
        raise SettingsError(f"Feature set '{set_name}' has no {sort} to sort by; sort by order or std instead.")
    order = _sorted(run, set_name, table, sort, descending)
    return table.take(order[fits[order]]).reset_index(drop=True)


def _kept(table: pd.DataFrame, keep: str) -> npt.NDArray[np.bool_]:
    constant: npt.NDArray[np.bool_] = table["constant"].to_numpy(dtype=bool)
    if keep == "live":
        return np.asarray(~constant & np.isfinite(table["maximum"].to_numpy(dtype=np.float64)))
    if keep == "dead":
        return np.asarray(table["dead"].to_numpy(dtype=bool))
    if keep == "constant":
        return constant
    if keep == "nonfinite":
        return np.asarray(table["n_nonfinite"].to_numpy() > 0)
    return np.ones(len(table), dtype=bool)


def _in_group(table: pd.DataFrame, set_name: str, group: int | str | None) -> npt.NDArray[np.bool_]:
    if group is None:
        return np.ones(len(table), dtype=bool)
    column = "layer" if isinstance(group, str) else "group"
    if column not in table:
        what = "layers" if column == "layer" else "groups of near-degenerate eigenvalues"
        raise SettingsError(
            f"Feature set '{set_name}' has no {what}, but '{group}' was asked for; leave the group out."
        )
    return (table[column] == group).to_numpy(dtype=bool)


def _selectivity(run: RunContents, set_name: str, view: str) -> dict[str, Any]:
    labels = run.examples.labels
    if labels is None:
        raise SettingsError("Selectivity needs class labels, but the examples have none; sort by another column.")
    measured = measured_positions(run)
    score, best = selectivity(value_matrix(run.feature_set(set_name), view)[:, measured], labels[measured])
    names = {int(label): run.examples.class_name(int(label)) for label in np.unique(best) if label >= 0}
    return {"selectivity": score, "best_class": [names.get(int(label), "") for label in best]}


def _sorted(run: RunContents, set_name: str, table: pd.DataFrame, sort: str, descending: bool) -> npt.NDArray[np.int64]:
    if sort == "order":
        order = run.feature_set(set_name).read("order").astype(np.int64)
        return order[::-1] if descending else order
    if sort == "label":
        order = np.argsort(table["label"].to_numpy(dtype=object), kind="stable").astype(np.int64)
        return order[::-1] if descending else order
    figures = table[sort].to_numpy(dtype=np.float64)
    return np.argsort(-figures if descending else figures, kind="stable").astype(np.int64)
