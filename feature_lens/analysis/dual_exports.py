"""The tables of the dual model that can be exported: all figures that the Example, Dual and Feature pages show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.dual_tables import dual_of, fidelity_table, interaction_table, ticket_table
from feature_lens.analysis.expansion_tables import ORDER_NAMES, expansion_of, order_table
from feature_lens.analysis.tables import TABLES, Cells, Table
from feature_lens.run_contents import RunContents

_BOTH: Final = ("example", "output")


def _has(column: str) -> Callable[[RunContents], bool]:
    return lambda run: run.dual is not None and column in run.dual.columns


def _part(run: RunContents, column: str, cells: Cells) -> npt.NDArray[np.generic]:
    """The cells of a column (n, c, ...)."""
    return np.asarray(dual_of(run).columns[column][cells.examples, cells.outputs])


def _outputs(run: RunContents, cells: Cells) -> pd.DataFrame:
    frame = cells.frame(run, 1)
    at = cells.examples, cells.outputs
    frame["value"] = np.asarray(run.outputs[at], dtype=np.float64).ravel()
    held = {} if run.dual is None else run.dual.columns
    if "residual" in held:
        frame["initial"] = np.asarray(held["initial_output"][at], dtype=np.float64).ravel()
        frame["residual"] = np.asarray(held["residual"][at], dtype=np.float64).ravel()
        frame["contributions"] = frame["value"] - frame["initial"] - frame["residual"]
    if "prediction" in held:
        frame["dual_prediction"] = np.asarray(held["prediction"][at], dtype=np.float64).ravel()
    return frame


def _grouped(by: str) -> Callable[[RunContents, Cells], pd.DataFrame]:
    """Contributions summed over groups, in the order of the groups."""

    def make(run: RunContents, cells: Cells) -> pd.DataFrame:
        shares = _part(run, f"{by}/contribution", cells)
        frame = cells.frame(run, shares.shape[2])
        columns = dual_of(run).columns
        names = run.network.parameters.names if by == "tensor" else [str(name) for name in columns[f"{by}/name"][:]]
        frame[by] = np.tile(np.array(names, dtype=object), shares.shape[0] * shares.shape[1])
        frame["contribution"] = shares.ravel()
        return frame

    return make


def _eigen(run: RunContents, cells: Cells) -> pd.DataFrame:
    shares = _part(run, "eigen/contribution", cells)
    frame = cells.frame(run, shares.shape[2])
    frame["feature"] = np.tile(np.arange(shares.shape[2]), shares.shape[0] * shares.shape[1])
    frame["contribution"] = shares.ravel()
    return frame


def _interactions_by_example(run: RunContents, cells: Cells) -> pd.DataFrame:
    """Interactions in each example's largest output, each pair once and every feature with itself."""
    values = np.asarray(dual_of(run).columns["interaction/predicted"][cells.examples])
    feature, other = np.triu_indices(values.shape[1])
    frame = cells.frame(run, len(feature), by_output=False)
    frame["feature"], frame["other"] = np.tile(feature, len(values)), np.tile(other, len(values))
    frame["interaction"] = values[:, feature, other].ravel()
    return frame


def _ablations_by_example(run: RunContents, cells: Cells) -> pd.DataFrame:
    """One row per example and feature of the sets that are told example by example."""
    parts = []
    for name in _ablated(run):
        feature_set = run.sets[name]
        if "ablation/example" in feature_set:
            change = np.asarray(feature_set.columns["ablation/example"][:, cells.examples])
            part = cells.frame(run, len(change), by_output=False)
            part["set"], part["feature"] = name, np.tile(np.arange(len(change)), change.shape[1])
            labels = np.array([feature_set.label(feature) for feature in range(len(change))], dtype=object)
            part["label"], part["change"] = np.tile(labels, change.shape[1]), change.T.ravel()
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _strongest(run: RunContents, cells: Cells) -> pd.DataFrame:
    weights = _part(run, "strongest/weight", cells)
    frame = cells.frame(run, weights.shape[2])
    frame["rank"] = np.tile(np.arange(weights.shape[2]), weights.shape[0] * weights.shape[1])
    frame["weight"] = weights.ravel()
    distinct, back = np.unique(weights, return_inverse=True)
    labels = np.array([run.network.parameters.label(int(weight)) for weight in distinct], dtype=object)
    frame["name"] = labels[back.ravel()]
    frame["contribution"] = _part(run, "strongest/contribution", cells).ravel()
    return frame


def _supports(run: RunContents, cells: Cells) -> pd.DataFrame:
    positions = _part(run, "support/position", cells)
    frame = cells.frame(run, positions.shape[2])
    frame["rank"] = np.tile(np.arange(positions.shape[2]), positions.shape[0] * positions.shape[1])
    frame["support_position"] = positions.ravel()
    frame["support_id"] = run.examples.ids[positions.ravel().astype(np.int64)]
    frame["contribution"] = _part(run, "support/contribution", cells).ravel()
    return frame


def _fidelities(run: RunContents, _: Cells) -> pd.DataFrame:
    table, fitted = fidelity_table(run), dual_of(run).fitted
    table["fitted"] = [one == fitted for one in dual_of(run).fidelities]
    return table


def _expansion(run: RunContents, cells: Cells) -> pd.DataFrame:
    frame = cells.frame(run, 1)
    frame["value"] = np.asarray(run.outputs[cells.examples, cells.outputs], dtype=np.float64).ravel()
    for name in ORDER_NAMES:
        frame[name] = _part(run, f"expansion/{name}", cells).ravel()
    return frame


def _weights(run: RunContents, _: Cells) -> pd.DataFrame:
    shares = np.asarray(dual_of(run).columns["weight"], dtype=np.float64)
    order = np.argsort(-shares, kind="stable")
    labels = [run.network.parameters.label(int(weight)) for weight in order]
    return pd.DataFrame({"weight": order, "name": labels, "mean_size": shares[order]})


def _coefficients(run: RunContents, _: Cells) -> pd.DataFrame:
    values = np.asarray(dual_of(run).columns["coefficient"], dtype=np.float64)
    every = Cells(slice(0, len(run.examples)), slice(0, values.shape[1])).frame(run, 1)
    kept = every[np.isin(every["position"], run.examples.fitting)].reset_index(drop=True)
    kept["coefficient"] = values.ravel()
    return kept


def _ablated(run: RunContents) -> list[str]:
    return [name for name, one in run.sets.items() if "ablation/output" in one]


def _ablations(run: RunContents, _: Cells) -> pd.DataFrame:
    """One row per feature that was taken away."""
    parts = []
    for name in _ablated(run):
        feature_set = run.sets[name]
        outputs = np.asarray(feature_set.columns["ablation/output"], dtype=np.float64)
        features = np.flatnonzero(np.isfinite(outputs).any(axis=1))
        part = pd.DataFrame({"set": name, "feature": features})
        part["label"] = [feature_set.label(int(feature)) for feature in features]
        for figure in ("loss", "accuracy"):
            part[figure] = np.asarray(feature_set.columns[f"ablation/{figure}"], dtype=np.float64)[features]
        for output in range(outputs.shape[1]):
            part[f"output:{output}"] = outputs[features, output]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _ablations_at_ends(run: RunContents, _: Cells) -> pd.DataFrame:
    """One row per example that is kept at an end of a feature that was taken away."""
    parts = []
    for name in _ablated(run):
        feature_set = run.sets[name]
        for end in ("highest", "lowest"):
            change = np.asarray(feature_set.columns[f"ablation/{end}"])
            feature, view, rank = np.nonzero(np.isfinite(change))
            position = np.asarray(feature_set.columns[f"{end}/position"])[feature, view, rank]
            part = pd.DataFrame({"set": name, "feature": feature})
            part["view"] = np.array(feature_set.views, dtype=object)[view]
            part["end"], part["rank"], part["position"] = end, rank, position
            part["example_id"] = run.examples.ids[position.astype(np.int64)]
            part["change"] = change[feature, view, rank]
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


for _name, _table in {
    "outputs": Table(
        "every output, before and after training, its contributions, residual and dual prediction",
        lambda _: True,
        _outputs,
        _BOTH,
    ),
    "fidelities": Table(
        "how well each regression on features does",
        lambda run: run.dual is not None and len(run.dual.fidelities) > 0,
        _fidelities,
    ),
    "expansion": Table(
        "outputs by the expansion about the initial parameters, order by order, beside the network's",
        _has("expansion/leading"),
        _expansion,
        _BOTH,
    ),
    "expansion_orders": Table(
        "how well each order of that expansion does",
        lambda run: run.dual is not None and run.dual.expansion is not None,
        lambda run, _: order_table(expansion_of(run)),
    ),
    "tickets": Table(
        "lottery tickets: what is left of the network when some features are kept",
        lambda run: run.dual is not None and len(run.dual.tickets) > 0,
        lambda run, _: ticket_table(run),
    ),
    "interactions": Table(
        "interactions of the leading eigen features, mean and size",
        _has("interaction/size"),
        lambda run, _: interaction_table(run),
    ),
    "interactions_by_example": Table(
        "interactions of the leading eigen features in the largest output of every example",
        _has("interaction/predicted"),
        _interactions_by_example,
        ("example",),
    ),
    **{
        f"contributions_by_{by}": Table(
            f"what each {by} contributes to every output", _has(f"{by}/contribution"), _grouped(by), _BOTH
        )
        for by in ("layer", "tensor", "unit")
    },
    "contributions_by_eigen": Table(
        "what each leading eigen feature contributes to every output", _has("eigen/contribution"), _eigen, _BOTH
    ),
    "contributions_by_weight": Table(
        "the weights of largest contribution to every output", _has("strongest/weight"), _strongest, _BOTH
    ),
    "weights": Table("mean size of the contributions of every weight, the largest first", _has("weight"), _weights),
    "supports": Table(
        "the training examples that every output of the dual model rests on most",
        _has("support/position"),
        _supports,
        _BOTH,
    ),
    "coefficients": Table("dual coefficients of the training examples", _has("coefficient"), _coefficients),
    "ablations": Table(
        "what the network does without each feature, on average", lambda run: bool(_ablated(run)), _ablations
    ),
    "ablations_by_example": Table(
        "change of the predicted output of every example, without each feature or neuron",
        lambda run: any("ablation/example" in one for one in run.sets.values()),
        _ablations_by_example,
        ("example",),
    ),
    "ablations_at_ends": Table(
        "change of the predicted output, without a feature, on its highest and lowest examples",
        lambda run: bool(_ablated(run)),
        _ablations_at_ends,
    ),
}.items():
    TABLES.register(_name)(_table)
