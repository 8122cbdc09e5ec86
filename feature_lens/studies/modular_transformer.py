"""Modular addition by a transformer: which layer's kernel holds the waves of which family, and what is only PCA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.key_frequencies import (
    difference_modes,
    key_frequencies,
    leading_overlaps,
    separate_modes,
    sum_modes,
)
from feature_lens.analysis.kinds import Kind, kinds
from feature_lens.analysis.measures.measured_kinds import leading_rows, leading_values
from feature_lens.analysis.study.families import EFFECTIVE, PCA
from feature_lens.networks.zoo import ModularTransformer, ZooNet
from feature_lens.run_contents import RunContents
from feature_lens.studies.contender_study import ContenderStudy, baselines, effective
from feature_lens.studies.contenders import Contender, families_of
from feature_lens.studies.study import STUDIES

Waves = npt.NDArray[np.float64]
# What is published of the kernel of the unembedding, mean of the outputs: share of each family and the group that holds it.
_PUBLISHED: Final = {"a + b in first": "99.1 % and, at another seed, 80 %", "f(a) + f(b) in next": "98.5 %"}
# Shares that differ by less are called the same: a hundredth of the waves.
_SAME: Final = 0.01
_GENERALISES: Final = 0.99


def key_waves(run: RunContents) -> Mapping[str, Waves]:
    """Waves of the frequencies that the trained network adds by: of a + b, of a - b, and f(a) + f(b)."""
    pairs, modulus = run.examples.pairs, run.examples.modality.shape[0]
    keys = key_frequencies(np.asarray(run.outputs, dtype=np.float64), pairs, modulus).keys
    return {
        "key a + b": sum_modes(pairs, modulus, keys),
        "key a - b": difference_modes(pairs, modulus, keys),
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


def published_table(run: RunContents, net: ZooNet) -> pd.DataFrame:
    """One row for every set, or module of a layerwise set, that has enough features: shares of waves of K key frequencies
    within its first 1 + 2 K features, the next 2 K, and both, as Lin, arXiv:2510.00468, counts them; `tested`: accuracy of
    the network on pairs that neither trained it nor chose its epoch."""
    assert isinstance(net, ModularTransformer)
    pairs, modulus, outputs = run.examples.pairs, run.examples.modality.shape[0], np.asarray(run.outputs)
    keys = key_frequencies(outputs.astype(np.float64), pairs, modulus).keys
    families, rows = families_of(run), []
    for kind in kinds(run):
        for module, values in _by_module(run, kind).items():
            if len(values) >= 1 + 4 * len(keys):
                row = {
                    "kind": kind.name,
                    "set": kind.set_name,
                    "family": families.of(kind.name, kind.set_name),
                    "module": module,
                    "keys": ", ".join(map(str, keys)),
                    "first": 1 + 2 * len(keys),
                    "next": 2 * len(keys),
                }
                rows.append(row | leading_overlaps(values.T.astype(np.float64), pairs, modulus, keys))
    right = outputs.argmax(axis=1) == run.examples.labels
    return pd.DataFrame(rows).assign(tested=float(right[net.tested].mean()))


def published_words(_: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Which seeds generalise, which layer's kernel holds the waves of each family, and whether components of activations
    hold as much."""
    table = tables["published"]
    tested = table.groupby("seed")["tested"].first()
    low = [f"seed {seed}" for seed in tested.index[tested < _GENERALISES]]
    words = [f"Accuracy on tested pairs: {', '.join(f'{share:.3f} at seed {seed}' for seed, share in tested.items())}."]
    if low:
        words.append(
            f"The network does not reach 99 % of tested pairs at {' and '.join(low)}; it is reported all the same."
        )
    return words + [_of_waves(table, column) for column in table.columns if column in _PUBLISHED]


def _of_waves(table: pd.DataFrame, column: str) -> str:
    """Of the waves of one family: the layer that holds most at every seed, the mean of the best layers, and components of
    activations beside them."""
    layers = table[(table["module"] != "") & (table["family"] == EFFECTIVE)]
    own, components = (_best(rows, column) for rows in (layers, table[table["family"] == PCA]))
    means = layers.groupby("module")[column].mean().sort_values(ascending=False).head(3)
    more = [seed for seed in own.index if own.loc[seed, column] > components.loc[seed, column] + _SAME]
    told = f"at seed {' and '.join(map(str, more))} alone" if more else "at no seed"
    family, group = column.split(" in ")
    return (
        f"Waves of {family} in the {group} features of one layer's kernel (published of the unembedding: "
        f"{_PUBLISHED[column]}): most are in {_listed(own, column, 'module')}; means over seeds "
        f"{', '.join(f'{module} {share:.3f}' for module, share in means.items())}. Of as many principal components of one "
        f"layer's activations the best hold {_listed(components, column, 'set')}, so the kernel shows more than those "
        f"{'at every seed' if len(more) == len(own) else told}."
    )


def _best(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The row of the largest share at every seed, by seed."""
    return rows.loc[rows.groupby("seed")[column].idxmax()].set_index("seed")


def _listed(best: pd.DataFrame, column: str, place: str) -> str:
    parts = zip(best.index, best[place], best[column], strict=True)
    return ", ".join(f"{where} {share:.3f} (seed {seed})" for seed, where, share in parts)


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
        words=published_words,
        contenders=(
            *effective("eigen/sum", "eigen/trace", "layerwise/sum", "deflated/trace", "unit_blocks/trace"),
            *baselines(),
            # What the unembedding reads, about zero: the kernel of the unembedding for the sum of outputs is made of it.
            Contender("pca/neurons:stream+uncentred", PCA),
        ),
    )
)
