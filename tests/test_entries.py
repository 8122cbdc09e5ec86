"""A feature against each entry of vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import contents

from feature_lens.analysis.entries import MOST, entry_correlations
from feature_lens.examples import Examples, Modality


def test_correlations_are_those_of_numpy_and_constant_entries_have_none() -> None:
    run = contents()
    n = len(run.examples)
    inputs = np.random.default_rng(0).normal(size=(n, 7))
    inputs[:, 3] = 0.1
    own = Examples.from_arrays(inputs, run.examples.targets)
    found = entry_correlations(replace(run, examples=own), "eigen", 1, "score")
    assert found is not None
    values = np.asarray(run.sets["eigen"].values(1, "score"), dtype=np.float64)
    wanted = [0.0 if j == 3 else np.corrcoef(values, inputs[:, j])[0, 1] for j in range(7)]
    assert found["correlation"].tolist() == pytest.approx(wanted)
    assert found["entry"].tolist() == list(range(7))
    assert entry_correlations(run, "eigen", 1, "score") is None  # images
    wide = Examples.from_arrays(np.zeros((n, MOST + 1)), modality=Modality("vector", (MOST + 1,)))
    assert entry_correlations(replace(run, examples=wide), "eigen", 1, "score") is None
