"""What the network does without a feature, as figures: change of loss, accuracy and outputs, and on its own examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from feature_lens.run_contents import RunContents


@dataclass(frozen=True)
class Without:
    """Changes without a feature: of loss and accuracy (NaN where there are no targets), mean change of every output
    (class, change), and mean change of the predicted output on the kept examples of both ends."""

    loss: float
    accuracy: float
    outputs: pd.DataFrame
    highest: float
    lowest: float
    measured_on: str


def without(run: RunContents, set_name: str, feature: int, view: str) -> Without | None:
    """What was measured of a feature; None where it was not taken away. Raises SettingsError for unknown names."""
    feature_set = run.feature_set(set_name)
    at = feature_set.check(feature), feature_set.view_index(view)
    if "ablation/output" not in feature_set:
        return None
    change = np.asarray(feature_set.columns["ablation/output"][feature], dtype=np.float64)
    if np.isnan(change).all():
        return None
    ends = {end: np.asarray(feature_set.columns[f"ablation/{end}"][at]) for end in ("highest", "lowest")}
    means = {end: float(np.nanmean(own)) if np.isfinite(own).any() else float("nan") for end, own in ends.items()}
    training = run.examples.training
    split = training is not None and not np.asarray(training).all()
    names = [run.examples.output_name(output, len(change)) for output in range(len(change))]
    return Without(
        loss=float(feature_set.columns["ablation/loss"][feature]),
        accuracy=float(feature_set.columns["ablation/accuracy"][feature]),
        outputs=pd.DataFrame({"class": names, "change": change}),
        highest=means["highest"],
        lowest=means["lowest"],
        measured_on="held-out examples" if split else "all examples",
    )
