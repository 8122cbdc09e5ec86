"""The graph of leading eigen features whose interactions stand above the null: where its nodes and edges are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import pandas as pd

from feature_lens.analysis.dual_tables import interaction_table
from feature_lens.run_contents import RunContents


@dataclass(frozen=True)
class Drawing:
    """nodes: feature, x, y, degree, within the unit circle. edges, the largest first: feature, other, mean, size, and
    the ends x, y, x2, y2."""

    nodes: pd.DataFrame
    edges: pd.DataFrame


def interaction_graph(run: RunContents) -> Drawing:
    """All leading eigen features on a circle, those that hang together beside each other; the same for every call.
    Raises SettingsError where the run holds no dual model. Without interactions there is no node, with none above the
    null no edge."""
    table = interaction_table(run)
    found = table[table["edge"] & (table["feature"] < table["other"])]
    edges = found.sort_values("size", ascending=False, kind="stable", ignore_index=True)
    graph: nx.Graph = nx.Graph()
    graph.add_nodes_from(sorted({int(feature) for feature in table["feature"]}))
    graph.add_edges_from(zip(edges["feature"].astype(int), edges["other"].astype(int), strict=True))
    parts = sorted(nx.connected_components(graph), key=lambda part: (-len(part), min(part)))
    order = [node for part in parts for node in nx.dfs_preorder_nodes(graph, min(part), sort_neighbors=sorted)]
    places = nx.circular_layout(order) if order else {}
    nodes = pd.DataFrame(
        [(node, *(float(x) for x in places[node]), graph.degree(node)) for node in order],
        columns=["feature", "x", "y", "degree"],
    )
    for name, end, axis in (("x", "feature", 0), ("y", "feature", 1), ("x2", "other", 0), ("y2", "other", 1)):
        edges[name] = [float(places[int(node)][axis]) for node in edges[end]]
    return Drawing(nodes, edges[["feature", "other", "mean", "size", "x", "y", "x2", "y2"]])
