"""Which features and neurons are strongest on one example, as tables that know each feature's place in the run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from feature_lens.analysis.dual_tables import contribution_table, shared_of
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents

_COLUMNS = ["set", "feature", "name", "contribution"]


def leading_set(run: RunContents) -> str:
    """Name of the set whose features are the leading eigen features that contributions and interactions are told of:
    effective, flattened, not centred, over all parameters. Empty where the run has none."""
    for name, feature_set in run.sets.items():
        card = feature_set.card
        own = (card.basis, card.design) == ("eigen", "effective features") and card.outputs.startswith("flattened")
        if own and "parameter_share" in feature_set and (feature_set.read("parameter_share") > 0).any(axis=0).all():
            return name
    return ""


def strongest_features(run: RunContents, example: int, output: int, kind: str, most: int = 10) -> pd.DataFrame:
    """The features of a kind, "eigen", "unit" or "weight", that contribute most to one output of one example, of
    largest magnitude first: set, feature, name, contribution. Set is empty and feature -1 where the run does not show
    the feature. Raises SettingsError where there are no contributions."""
    if kind == "eigen":
        dual, name = shared_of(run, example, output), leading_set(run)
        shares = np.asarray(dual.columns["eigen/contribution"][example, output], dtype=np.float64)
        order = np.argsort(-np.abs(shares), kind="stable")[:most]
        known = len(run.sets[name]) if name else 0
        rows = [
            (name, int(one), run.sets[name].label(int(one)), shares[one])
            if one < known
            else ("", -1, f"eigen {one}", shares[one])
            for one in order
        ]
        return pd.DataFrame(rows, columns=_COLUMNS)
    if kind == "unit":
        table = contribution_table(run, example, output, "unit").head(most)
        places = {
            str(label): (name, feature)
            for name, feature_set in run.sets.items()
            if feature_set.card.basis == "unit" and feature_set.card.design == "effective features"
            for feature, label in enumerate(feature_set.read("labels"))
        }
        found = [(*places.get(name, ("", -1)), name) for name in table["name"]]
        return pd.DataFrame(found, columns=_COLUMNS[:3]).assign(contribution=table["contribution"].to_numpy())
    dual = shared_of(run, example, output)
    canonical = next((name for name, one in run.sets.items() if one.is_canonical), "")
    weights = np.asarray(dual.columns["strongest/weight"][example, output])[:most]
    shares = np.asarray(dual.columns["strongest/contribution"][example, output], dtype=np.float64)[:most]
    rows = [
        (canonical, int(weight) if canonical else -1, run.network.parameters.label(int(weight)), float(share))
        for weight, share in zip(weights, shares, strict=True)
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def strongest_neurons(run: RunContents, example: int, by: str, most: int = 10) -> pd.DataFrame:
    """The neurons of one example, of largest magnitude first: set, feature, name, activation, effect.

    by: "activation", or "effect", the change of the example's predicted output when the neuron is set to zero in a run
    of the network; NaN where the run does not hold it, and no row then by effect. All layers are compared together.
    """
    rows = []
    if not 0 <= example < len(run.examples):
        raise SettingsError(
            f"Examples are numbered 0 to {len(run.examples) - 1}, but {example} was asked for; choose one of them."
        )
    for name, feature_set in run.sets.items():
        if not feature_set.is_neurons or not feature_set.stores_values:
            continue
        activation = np.asarray(feature_set.columns["values"][:, 0, example], dtype=np.float64)
        effect = np.full(len(activation), np.nan)
        if "ablation/example" in feature_set:
            effect = np.asarray(feature_set.columns["ablation/example"][:, example], dtype=np.float64)
        rows += [
            (name, unit, feature_set.label(unit), float(activation[unit]), float(effect[unit]))
            for unit in range(len(activation))
        ]
    table = pd.DataFrame(rows, columns=["set", "feature", "name", "activation", "effect"])
    table = table[np.isfinite(table[by].to_numpy(dtype=np.float64))]
    order = np.argsort(-np.abs(table[by].to_numpy(dtype=np.float64)), kind="stable")[:most]
    chosen: pd.DataFrame = table.iloc[order].reset_index(drop=True)
    return chosen
