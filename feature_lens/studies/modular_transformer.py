"""Modular addition by a transformer: which layer's kernel holds the waves of which family, and what is only PCA."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.key_frequencies import key_frequencies, leading_overlaps, separate_modes, sum_modes
from feature_lens.analysis.kinds import Kind, kinds
from feature_lens.analysis.measures.measured_kinds import leading_rows, leading_values
from feature_lens.analysis.torus import modes
from feature_lens.run_contents import RunContents
from feature_lens.studies.contender_study import ContenderStudy, baselines, effective
from feature_lens.studies.study import STUDIES

Waves = npt.NDArray[np.float64]


def key_waves(run: RunContents) -> Mapping[str, Waves]:
    """Waves of the frequencies that the trained network adds by: of a + b, of a - b, and f(a) + f(b)."""
    pairs, modulus = run.examples.pairs, run.examples.modality.shape[0]
    keys = key_frequencies(np.asarray(run.outputs, dtype=np.float64), pairs, modulus).keys
    columns = [2 * (key - 1) + part for key in keys for part in (0, 1)]
    return {
        "key a + b": sum_modes(pairs, modulus, keys),
        "key a - b": modes(pairs, modulus, "a - b")[:, columns],
        "key f(a) + f(b)": separate_modes(pairs, modulus, keys),
    }


def _by_module(run: RunContents, kind: Kind) -> dict[str, npt.NDArray[np.float32]]:
    """Values (k, n) of the leading features of a kind; of a layerwise set those of every module by itself."""
    values = leading_values(run, kind, 1 << 20)
    if values is None:
        return {}
    held = kind.of_set(run)
    if held is None or held.card.basis != "layerwise":
        return {"": values}
    modules = held.read("layer")[leading_rows(run, kind, 1 << 20) // kind.views]
    return {str(module): values[modules == module] for module in dict.fromkeys(modules.tolist())}


def published_table(run: RunContents) -> pd.DataFrame:
    """One row for every set that has enough features: shares of the key waves within its first 1 + 2 K features, the next
    2 K, and both, as Lin, arXiv:2510.00468, counts them, for K key frequencies; with the accuracies of the network."""
    pairs, modulus = run.examples.pairs, run.examples.modality.shape[0]
    keys = key_frequencies(np.asarray(run.outputs, dtype=np.float64), pairs, modulus).keys
    rows = []
    for kind in kinds(run):
        for module, values in _by_module(run, kind).items():
            if len(values) >= 1 + 4 * len(keys):
                found = leading_overlaps(values.T.astype(np.float64), pairs, modulus, keys)
                row = {"kind": kind.name, "family": kind.family, "module": module, "keys": ", ".join(map(str, keys))}
                rows.append(row | found)
    return pd.DataFrame(rows).assign(**{name: float(value) for name, value in run.network.metrics.items()})


STUDIES.register("modular-transformer")(
    ContenderStudy(
        question="Which layer's kernel of a transformer that adds residues holds the waves it adds by?",
        net="modular_transformer",
        # Of seeds 0 to 2 it was seen, when the recipe was made, which of them generalise.
        seeds=(3, 4, 5),
        recipe=("epochs=20000",),
        components=64,
        concepts=key_waves,
        tables={"published": published_table},
        contenders=(
            *effective("eigen/sum", "eigen/trace", "layerwise/sum", "deflated/trace", "unit_blocks/trace"),
            *baselines(),
        ),
    )
)
