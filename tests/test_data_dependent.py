"""Architectures whose graph depends on the data, the whole way into a run; and with rare examples anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import BY_DATA, PLAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_way import goes_the_whole_way, holds

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, compute_run
from feature_lens.networks import Network

SMALL = sorted(name for name, case in BY_DATA.items() if not case.refused)


@pytest.mark.parametrize("name", BY_DATA)
def test_a_run_holds_what_autograd_says(name: str, tmp_path: Path) -> None:
    goes_the_whole_way(BY_DATA[name], tmp_path)


def test_a_third_of_the_table_depends_on_the_data() -> None:
    assert len(PLAIN | BY_DATA) >= 40
    assert len(BY_DATA) * 3 >= len(PLAIN | BY_DATA)


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(SMALL),
    n=st.integers(2, 26),
    rare=st.lists(st.integers(0, 25), max_size=4),
    tile=st.integers(1, 30),
    workers=st.integers(1, 2),
    seed=st.integers(0, 9),
)
def test_rare_examples_may_be_anywhere(name: str, n: int, rare: list[int], tile: int, workers: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = BY_DATA[name].make().double().eval()
    there = [place for place in rare if place < n]
    examples = Examples.from_arrays(BY_DATA[name].inputs(n, there, seed))
    wanted = ExtractSettings(kernel="flattened", keep=n, tile=tile, workers=workers)
    network = Network.from_module(module)
    if name == "numbers of no parameter" and not there:
        with pytest.raises(SettingsError, match="need a design matrix that is not zero, but it is"):
            compute_run(network, examples, wanted, progress=False)
    else:
        holds(compute_run(network, examples, wanted, progress=False), module, examples)
