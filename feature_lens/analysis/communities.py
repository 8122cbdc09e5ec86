"""Groups of features that interact, and whether they are groups that are known: communities of a graph, and the
adjusted Rand index beside what permuted labels give."""

from __future__ import annotations

from dataclasses import dataclass

import networkx
import numpy as np
import numpy.typing as npt
from sklearn.metrics import adjusted_rand_score

from feature_lens.errors import SettingsError

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """Adjusted Rand index of two groupings (1: the same; 0: as chance has it), with the mean and the 99 % quantile of
    the index when one is permuted, the share of permutations that do as well, and how many groups each has."""

    index: float
    null_mean: float
    null_99: float
    p: float
    found: int
    known: int


def communities(size: npt.NDArray[np.floating], threshold: float = 0.0, seed: int = 0) -> Labels:
    """Community (k,) of each feature in the graph whose edges are the sizes (k, k) above a threshold, such as those of
    `Interactions`, the largest community first.

    By modularity (Louvain, Blondel et al., arXiv:0803.0476): it says how many communities there are, where spectral
    clustering would have to be told. What a feature does to itself is left out. A feature without an edge is alone.
    Raises SettingsError for what is no symmetric matrix of non-negative numbers.
    """
    if size.ndim != 2 or size.shape[0] != size.shape[1] or not np.allclose(size, size.T) or (size < 0).any():
        raise SettingsError(
            f"Communities are those of a symmetric matrix of sizes, 0 or more, but shape {size.shape} came; "
            "give Interactions.size."
        )
    weight = np.where(size > threshold, size, 0.0)
    np.fill_diagonal(weight, 0)
    graph = networkx.from_numpy_array(weight)
    labels = np.empty(len(size), dtype=np.int64)
    found = networkx.community.louvain_communities(graph, weight="weight", seed=seed)
    for label, members in enumerate(sorted(found, key=lambda members: (-len(members), min(members)))):
        labels[list(members)] = label
    return labels


def agreement(found: npt.ArrayLike, known: npt.ArrayLike, permutations: int = 1000, seed: int = 0) -> Agreement:
    """How far two groupings (k,) of the same features agree, beside a null of permuted labels.

    Raises SettingsError where they are not of one length. Cost: `permutations` contingency tables.
    """
    one, other = np.asarray(found), np.asarray(known)
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise SettingsError(
            f"Two groupings of the same features were wanted, but {one.shape} and {other.shape} came; give a label each."
        )
    rng = np.random.default_rng(seed)
    index = float(adjusted_rand_score(other, one))
    null = np.array([adjusted_rand_score(other, rng.permutation(one)) for _ in range(permutations)])
    reached = 1 + int(np.count_nonzero(null >= index))
    return Agreement(
        index,
        float(null.mean()),
        float(np.quantile(null, 0.99)),
        reached / (permutations + 1),
        len(np.unique(one)),
        len(np.unique(other)),
    )
