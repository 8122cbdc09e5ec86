"""Interactions drawn: which pairs are edges, where nodes lie, and what the Dual page shows with and without any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
import test_app
from test_app import Opener, fine, texts

from feature_lens.analysis.interaction_graph import interaction_graph
from feature_lens.dual_record import DualRecord
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents
from feature_lens.store import write_run

app = test_app.app  # a fixture
EDGES = {(1, 4): 0.9, (0, 1): 0.7, (2, 5): 0.8}


def _run(threshold: float) -> RunContents:
    """A run whose interactions are `EDGES` and nothing else, over seven features, one more than the eigen set shows."""
    made = synthetic.contents(40)
    size, mean = np.zeros((7, 7)), np.zeros((7, 7))
    for (one, other), value in EDGES.items():
        size[one, other] = size[other, one] = value
        mean[one, other] = mean[other, one] = -value / 2
    np.fill_diagonal(size, 2.0)
    columns = {
        "interaction/mean": mean,
        "interaction/size": size,
        "interaction/threshold": np.array([threshold]),
        "interaction/predicted": np.zeros((40, 7, 7), dtype=np.float32),
    }
    return replace(made, dual=DualRecord(columns=columns))


def test_edges_are_the_pairs_above_the_null_and_neighbours_lie_together() -> None:
    drawing = interaction_graph(_run(0.5))
    found = drawing.edges
    assert list(zip(found["feature"], found["other"], strict=True)) == [(1, 4), (2, 5), (0, 1)]
    assert found["size"].tolist() == [0.9, 0.8, 0.7]
    assert found["mean"].tolist() == [-0.45, -0.4, -0.35]
    nodes = drawing.nodes.set_index("feature")
    # The largest part comes first, each in the order of its edges, then what hangs on nothing.
    assert nodes.index.tolist() == [0, 1, 4, 2, 5, 3, 6]
    assert nodes["degree"].tolist() == [1, 2, 1, 1, 1, 0, 0]
    np.testing.assert_allclose(np.hypot(nodes["x"], nodes["y"]), 1, atol=1e-6)
    np.testing.assert_allclose(found[["x", "y"]], nodes.loc[found["feature"], ["x", "y"]])
    np.testing.assert_allclose(found[["x2", "y2"]], nodes.loc[found["other"], ["x", "y"]])
    again = interaction_graph(_run(0.5))
    assert again.nodes.equals(drawing.nodes)
    assert again.edges.equals(drawing.edges)


def test_without_edges_there_are_nodes_and_without_interactions_nothing() -> None:
    drawing = interaction_graph(_run(1.0))
    assert (len(drawing.nodes), len(drawing.edges)) == (7, 0)
    nothing = interaction_graph(replace(_run(1.0), dual=DualRecord()))
    assert (len(nothing.nodes), len(nothing.edges)) == (0, 0)
    with pytest.raises(SettingsError, match="holds no dual model"):
        interaction_graph(synthetic.contents(40))


def test_the_dual_page_draws_matrix_and_graph(app: Opener, tmp_path: Path) -> None:
    page = fine(app("dual", write_run(_run(0.5), tmp_path / "run.h5")))
    assert not page.warning
    assert "3 pairs larger than 99 %" in texts(page)
    assert "set=eigen&amp;feature=4" in texts(page)
    matrix, graph = page.get("vega_lite_chart")
    assert "viridis" in matrix.proto.spec
    assert '"href"' in graph.proto.spec
    assert "1 with 4, 2 with 5, 0 with 1" in graph.proto.alt
    mean = fine(app("dual", tmp_path / "run.h5", colour="mean")).get("vega_lite_chart")[0]
    assert "#F7F7F7" in mean.proto.spec


def test_the_dual_page_says_that_no_pair_stands_out(app: Opener, tmp_path: Path) -> None:
    page = fine(app("dual", write_run(_run(1.0), tmp_path / "run.h5")))
    assert "No graph: no pair is larger than 99 %" in texts(page)
    assert len(page.get("vega_lite_chart")) == 1
