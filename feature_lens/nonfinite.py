"""What is said of numbers that are NaN or infinite, or too large for the precision in which they are kept."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.arrays import LARGEST_FLOAT32, finite_rows, some_of
from feature_lens.examples import Examples
from feature_lens.feature_set import FeatureSet

BEYOND = f"beyond what float32 holds, {LARGEST_FLOAT32:.2g}"


def nonfinite_outputs(examples: Examples, outputs: npt.NDArray[Any], of: str = "outputs", then: str = "") -> list[str]:
    """Which examples have outputs (n, c) that are not finite, and what follows; [] where there are none."""
    bad = ~finite_rows(outputs)
    return [f"The {of} of {_which(examples, bad)} are NaN or infinite{then}."] if bad.any() else []


def output_remarks(examples: Examples, outputs: npt.NDArray[Any], of: str = "outputs") -> list[str]:
    """The same for a run, and which examples have outputs that features cannot be ranked by."""
    said = nonfinite_outputs(examples, outputs, of, "; they are left out of accuracy, R2 and loss")
    large = ((np.abs(outputs) > LARGEST_FLOAT32) & np.isfinite(outputs)).any(axis=1)
    if large.any():
        said.append(
            f"The {of} of {_which(examples, large)} are {BEYOND}; measures and comparisons of features leave them out."
        )
    return said


def value_remarks(
    examples: Examples, feature_set: FeatureSet, rows_are_finite: Any, told: Collection[int] = ()
) -> list[str]:
    """What a set's values that were not ranked are, and of which examples; [] where all were ranked.

    told: places of examples that have no values at all, of which it is said elsewhere why. rows_are_finite: whether the rows of a design at some positions are all finite: then the values are too large only.
    """
    counts = np.asarray(feature_set.columns["n_nonfinite"]) - len(told)
    if not counts.any():
        return []
    features = int((counts > 0).any(axis=1).sum())
    n, values = len(examples), feature_set.columns.get("values")
    if isinstance(values, np.ndarray):
        bad = ~finite_rows(values.transpose(2, 0, 1))
        bad[list(told)] = False
        where = _which(examples, bad)
    else:  # every value is not at hand, the first example of each feature is
        firsts = np.asarray(feature_set.columns["first_nonfinite"])
        bad = np.zeros(n, dtype=bool)
        bad[firsts[firsts >= 0]] = True
        where = f"up to {counts.max():,} of {n:,} examples each (such as ids {some_of(examples.ids, bad)})"
    what = f"{BEYOND}, and kept as infinite" if rows_are_finite(np.flatnonzero(bad)[:8]) else "NaN or infinite"
    return [
        f"{features:,} of {len(feature_set):,} features of the set '{feature_set.name}' have values that are {what}, on "
        f"{where}; these are not ranked."
    ]


def _which(examples: Examples, chosen: npt.NDArray[np.bool_]) -> str:
    return f"{np.count_nonzero(chosen):,} of {len(examples):,} examples (ids {some_of(examples.ids, chosen)})"
