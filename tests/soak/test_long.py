"""Long runs at full size: what the short suite shows on small problems holds on the demo. Run with `make soak`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feature_lens.extract import ExtractSettings, extract_run
from feature_lens.features.bases import Eigen
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks.zoo import Digits
from feature_lens.ranking import id_ranks, rank_values


def test_matrix_free_eigen_features_of_the_demo_are_the_dense_ones() -> None:
    design = EffectiveFeatures(Digits().shipped(), Digits().examples())
    dense, free = (Eigen(32, side=side).fit(design) for side in ("columns", "matrix_free"))  # type: ignore[arg-type]  # a loop over its values
    np.testing.assert_allclose(free.spectrum_, dense.spectrum_, rtol=1e-8)
    np.testing.assert_allclose(np.abs(np.sum(free.directions_ * dense.directions_, axis=1)), 1, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_recipe_is_accurate_for_other_seeds(seed: int) -> None:
    net = Digits(seed=seed)
    examples = net.examples()
    outputs = net.network(net.train()).outputs(examples)
    training = examples.training
    assert training is not None
    assert (outputs.argmax(axis=1) == examples.labels)[~training].mean() >= 0.96


def test_the_demo_run_is_the_same_bytes_for_any_batch_size_and_thread_count(tmp_path: Path) -> None:
    found = []
    for threads, batch_size in ((1, 32), (2, 256), (2, 2000)):
        torch.set_num_threads(threads)
        path = tmp_path / f"{threads}-{batch_size}.h5"
        wanted = ExtractSettings(batch_size=batch_size)
        extract_run(Digits().shipped(), Digits().examples(), path, wanted, name="digits", progress=False)
        found.append(path.read_bytes())
    assert found[0] == found[1] == found[2]


@settings(max_examples=3000, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.just(1), st.just(1), st.integers(1, 80))), st.integers(1, 20))
def test_rankings_of_anything_are_a_sort(values: np.ndarray, keep: int) -> None:
    n = values.shape[2]
    ids = np.random.default_rng(n).permutation(n)
    ranks = id_ranks(ids)
    column = values[0, 0].astype(float)
    finite = [i for i in range(n) if np.isfinite(column[i])]
    found = rank_values(values, ids, keep)
    falling = sorted(finite, key=lambda i: (-column[i], ranks[i]))[:keep]
    rising = sorted(finite, key=lambda i: (column[i], ranks[i]))[:keep]
    assert [p for p in found.highest.position[0, 0] if p >= 0] == falling
    assert [p for p in found.lowest.position[0, 0] if p >= 0] == rising
