"""What a feature has to do with each entry of inputs that are plain vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd

from feature_lens.run_contents import RunContents

MOST = 1000


def entry_correlations(run: RunContents, set_name: str, feature: int, view: str) -> pd.DataFrame | None:
    """Columns entry, correlation: that of a feature's values with each entry of the input over the examples of which
    it has a finite value, 0 where either is constant over them.

    None for inputs that are no vectors or have more than 1,000 entries, where the value of every example is not kept,
    and where no value is finite. Raises SettingsError for an unknown set, feature or view. Cost n d.
    """
    feature_set = run.feature_set(set_name)
    modality = run.examples.modality
    if modality.kind != "vector" or modality.shape[0] > MOST or not feature_set.gives_values:
        return None
    values = np.asarray(feature_set.values(feature, view), dtype=np.float64)
    inputs = np.asarray(run.examples.inputs[:], dtype=np.float64).reshape(len(values), -1)
    there = np.isfinite(values)
    if not there.any():
        return None
    values, inputs = values[there], inputs[there]
    centred, about = inputs - inputs.mean(axis=0), values - values.mean()
    size = np.linalg.norm(centred, axis=0) * np.linalg.norm(about)
    inner = about @ centred
    # What is left of a constant column is rounding.
    real = size > 1e-9 * np.linalg.norm(inputs, axis=0) * np.linalg.norm(values)
    found = np.divide(inner, size, out=np.zeros_like(inner), where=real)
    return pd.DataFrame({"entry": np.arange(len(found)), "correlation": found})
