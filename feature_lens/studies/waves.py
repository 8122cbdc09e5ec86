"""Waves of residues within feature sets, for studies of networks that add: how much of each family the span of a set
holds, and how many waves a single feature follows."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.kinds import kinds
from feature_lens.analysis.measures.measured_kinds import leading_values
from feature_lens.analysis.torus import mode_correlations, modes, subspace_overlap
from feature_lens.run_contents import RunContents

FAMILIES: Final = ("a + b", "a - b")
# A single feature follows a wave where their correlation, whatever its phase, is at least this.
FOLLOWS: Final = 0.9


def wave_table(run: RunContents) -> pd.DataFrame:
    """One row for every feature set, and one for the eigenvectors that were counted by hand where they were published:
    kind, group (which features), features, of each family the share of its waves within their centred span, and how many
    of all waves (two families of (P-1)/2 frequencies) a single feature follows; by_chance: the share that as many random
    features hold, k / (n - 1)."""
    pairs, modulus = run.examples.pairs, run.examples.modality.shape[0]
    learnt = 2 * (modulus - 1)
    rows = []
    for kind in kinds(run):
        values = leading_values(run, kind, 2 * learnt + 1)
        if values is None or len(values) == 0:
            continue
        groups = {"all": values}
        if kind.set_name.startswith("eigen_trace") and len(values) > 2 * learnt:
            # After the mean and the waves of a and of b alone, 2 (P - 1) of them (Lin, arXiv:2510.00468).
            groups[f"{learnt + 1} to {2 * learnt}"] = values[learnt + 1 : 2 * learnt + 1]
        rows += [
            {"kind": kind.name, "family": kind.family, "group": group, "features": len(own)}
            | _figures(own, pairs, modulus)
            for group, own in groups.items()
        ]
    return pd.DataFrame(rows)


def _figures(values: npt.NDArray[np.float32], pairs: npt.NDArray[np.int64], modulus: int) -> dict[str, float]:
    features = values.T.astype(np.float64)
    centred = features - features.mean(axis=0)
    centred = centred[:, np.linalg.norm(centred, axis=0) > 1e-6 * np.linalg.norm(features, axis=0)]
    if centred.shape[1] == 0:
        return dict.fromkeys([*FAMILIES, "followed", "by_chance"], float("nan"))
    shares = {family: subspace_overlap(_spanning(centred), modes(pairs, modulus, family)) for family in FAMILIES}
    best = [mode_correlations(centred, pairs, modulus, family).max(axis=0) for family in FAMILIES]
    followed = float((np.concatenate(best) >= FOLLOWS).sum())
    return shares | {"followed": followed, "by_chance": centred.shape[1] / (len(centred) - 1)}


def _spanning(columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """An orthonormal basis of the span of columns, some of which may add nothing."""
    u, sizes, _ = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), full_matrices=False)
    return np.asarray(u[:, sizes > 1e-6 * sizes[0]])
