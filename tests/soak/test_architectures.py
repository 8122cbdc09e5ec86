"""The dual model of every architecture of the tests: what its parts contribute adds up, and all else stays right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from architectures import BY_DATA, PLAIN
from whole_way import TILE, N, holds, made

from feature_lens.analysis import open_run
from feature_lens.extract import ExtractSettings, extract_run

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("name", [name for name, case in (PLAIN | BY_DATA).items() if not case.refused])
def test_what_is_shared_out_adds_up(name: str, tmp_path: Path) -> None:
    module, network, examples = made(replace((PLAIN | BY_DATA)[name], dual=True))
    settings = ExtractSettings(kernel="flattened", dual=True, keep=N, tile=TILE)
    with open_run(extract_run(network, examples, tmp_path / "run.h5", settings, progress=False)) as run:
        holds(run, module, examples)
        assert run.dual is not None, run.provenance.remarks
        columns = run.dual.columns
        outputs, before = np.asarray(run.outputs), network.outputs(examples, TILE, at="initial")
        scale = max(np.abs(outputs).max(), np.abs(before).max())
        np.testing.assert_allclose(columns["initial_output"], before, atol=1e-6 * scale)
        shared = np.asarray(columns["tensor/contribution"], dtype=float).sum(axis=2)
        found = shared + np.asarray(columns["residual"])
        np.testing.assert_allclose(found, outputs - before, atol=1e-5 * scale)
        gap = np.abs(np.asarray(columns["residual"])).max() / scale
        if gap > 1e-3:  # of kinks that are not looked for, and jumps, a run tells
            assert any("stopped at" in remark or "not add up" in remark for remark in run.dual.remarks), gap
