"""Two feature sets on the same examples: which feature of one matches which of the other, beside a shuffled null.

Two statistics: Spearman correlation over all examples, and Jaccard overlap of the examples at the top. Features whose
rank order says nothing (constant, or fewer than two finite values in common) have correlation NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.feature_table import feature_labels, whole_table
from feature_lens.analysis.measures.ranks import average_ranks, finite_patterns
from feature_lens.analysis.orders import untied, value_matrix
from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.run_contents import RunContents

_BLOCK = 2048

Figures = npt.NDArray[np.float64]
Positions = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Matching:
    """For each of k features the best match of another set.

    match (k,) feature numbers, -1 where no correlation is defined; spearman (k,) signed; jaccard (k,) of the tops,
    with the lowest examples of the match in place of its highest where the correlation is negative.
    """

    match: npt.NDArray[np.int64]
    spearman: Figures
    jaccard: Figures


def spearman_matrix(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> Figures:
    """Spearman correlations (k1, n), (k2, n) -> (k1, k2), equal values sharing their mean rank.

    Over the examples on which both features are finite. Cost (k1 + k2) n log n + k1 k2 n where all values are finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise SettingsError(
            f"Correlations need two arrays (features, examples) over the same examples, but {a.shape} and {b.shape} came."
        )
    result = np.full((len(a), len(b)), np.nan)
    patterns = finite_patterns(b)
    for rows, mask_a in finite_patterns(a):
        for columns, mask_b in patterns:
            both = mask_a & mask_b
            if np.count_nonzero(both) > 1:
                left = _unit_ranks(a[np.ix_(rows, both)])
                right = _unit_ranks(b[np.ix_(columns, both)])
                result[np.ix_(rows, columns)] = left @ right.T
    correlation: Figures = np.clip(result, -1, 1)
    return correlation


def in_common(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> tuple[Positions, float]:
    """Where two features (n,) both have a finite value, and their Spearman correlation there, NaN where there is none."""
    return np.flatnonzero(np.isfinite(a) & np.isfinite(b)), float(spearman_matrix(a[None], b[None])[0, 0])


def _unit_ranks(values: npt.NDArray[np.floating]) -> Figures:
    """Centred ranks of unit length (k, n); NaN for a constant feature."""
    ranks = average_ranks(values)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    # Mean ranks are multiples of one half, so anything but an exact zero is at least that long.
    return np.where(length > 0.25, ranks / np.maximum(length, 0.25), np.nan)


def jaccard_matrix(top_a: Positions, top_b: Positions) -> Figures:
    """Overlap |A and B| / |A or B| of sets of positions: (k1, t1), (k2, t2) -> (k1, k2).

    Position -1 is padding; two empty sets overlap by 0. Cost about k1 k2 t.
    """
    shown = np.unique(np.concatenate([top_a[top_a >= 0], top_b[top_b >= 0]]))
    left = _members(top_a, shown)
    # In blocks, since membership of 100,000 features in all the examples they show would not fit into memory.
    shared = np.hstack([left @ _members(top_b[at : at + _BLOCK], shown).T for at in range(0, len(top_b), _BLOCK)])
    union = (top_a >= 0).sum(axis=1)[:, None] + (top_b >= 0).sum(axis=1)[None] - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1), 0.0))


def _members(top: Positions, shown: Positions) -> Figures:
    """Which of the positions in `shown` (u,) are in each top (k, t): (k, u) of 0 and 1."""
    member = np.zeros((len(top), len(shown)))
    feature, place = np.nonzero(top >= 0)
    member[feature, np.searchsorted(shown, top[feature, place])] = 1
    return member


def _tops(feature_set: FeatureSet, view: str, end: str, top: int) -> Positions:
    """The kept positions at one end; -1 for those that only their ids put among the first `top`."""
    at = feature_set.view_index(view)
    positions = np.asarray(feature_set.columns[f"{end}/position"][:, at])[:, :top]
    values = np.asarray(feature_set.columns[f"{end}/value"][:, at])[:, :top]
    return untied(positions, values)


def _match(correlation: Figures, top_a: Positions, high_b: Positions, low_b: Positions) -> Matching:
    defined = ~np.isnan(correlation)
    best = np.where(defined, np.abs(correlation), -1).argmax(axis=1)
    rows = np.arange(len(correlation))
    found = defined.any(axis=1)
    spearman = np.where(found, correlation[rows, best], np.nan)
    jaccard = np.full(len(rows), np.nan)
    for sign, tops in ((1, high_b), (-1, low_b)):
        chosen = found & (np.where(np.isnan(spearman), 0, spearman) * sign >= (0 if sign == 1 else 1e-300))
        if chosen.any():
            jaccard[chosen] = _paired_jaccard(top_a[chosen], tops[best[chosen]])
    return Matching(np.where(found, best, -1), spearman, jaccard)


def _paired_jaccard(a: Positions, b: Positions) -> Figures:
    """Jaccard overlap row by row: (k, t), (k, t) -> (k,)."""
    shared = ((a[:, :, None] == b[:, None, :]) & (a >= 0)[:, :, None]).any(axis=2).sum(axis=1)
    union = (a >= 0).sum(axis=1) + (b >= 0).sum(axis=1) - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1), 0.0))


def best_matches(
    run: RunContents, set_a: str, set_b: str, view_a: str, view_b: str, top: int = 16, seed: int = 0
) -> pd.DataFrame:
    """For each feature of set a its best match in set b: one row per feature, in feature order.

    Columns: feature, label, match (-1 for none), match_label, spearman (signed, best by magnitude), jaccard (overlap
    of the `top` highest examples; with the lowest of the match where spearman is negative), null_spearman (the
    magnitude that the best match reaches after the examples of set b were shuffled by a seeded permutation: a null of
    a maximum) and null_jaccard (the overlap with that match). A match no better than its null says nothing.
    A set compared with itself in the same view leaves each feature's match with itself out.
    Raises SettingsError for unknown names and for sets without stored values. Cost (k1 + k2) n log n + k1 k2 n.
    """
    first, second = run.feature_set(set_a), run.feature_set(set_b)
    if top < 1:
        raise SettingsError(f"Tops are compared by at least one example, but {top} came; ask for 1 or more.")
    a, b = value_matrix(first, view_a), value_matrix(second, view_b)
    tops = _tops(first, view_a, "highest", top)
    high, low = (_tops(second, view_b, end, top) for end in ("highest", "lowest"))
    itself = set_a == set_b and view_a == view_b
    found = _match(_without_itself(spearman_matrix(a, b), itself), tops, high, low)
    shuffle = np.random.default_rng(seed).permutation(a.shape[1])
    # Example j of the shuffled set is example shuffle[j] of the real one, so a top position moves the other way.
    moved = np.empty_like(shuffle)
    moved[shuffle] = np.arange(len(shuffle))
    null = _match(
        _without_itself(spearman_matrix(a, b[:, shuffle]), itself),
        tops,
        np.where(high >= 0, moved[high], -1),
        np.where(low >= 0, moved[low], -1),
    )
    names = feature_labels(second)
    return pd.DataFrame(
        {
            "feature": np.arange(len(first)),
            "label": feature_labels(first),
            "match": found.match,
            "match_label": ["" if match < 0 else names[match] for match in found.match],
            "spearman": found.spearman,
            "jaccard": found.jaccard,
            "null_spearman": np.abs(null.spearman),
            "null_jaccard": null.jaccard,
        }
    )


def _without_itself(correlation: Figures, itself: bool) -> Figures:
    if itself:
        np.fill_diagonal(correlation, np.nan)
    return correlation


def _overlap(one: Positions, tops: Positions) -> Figures:
    """Jaccard overlap of one top (t,) with each of many (k, t): (k,)."""
    inside = one[one >= 0]
    shared = np.isin(tops, inside).sum(axis=1)
    union = len(inside) + (tops >= 0).sum(axis=1) - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1), 0.0))


def verdict(found: pd.DataFrame) -> str:
    """Whether the matches of `best_matches` beat those of shuffled examples, in one sentence."""
    defined = found[found["match"] >= 0]
    if len(defined) == 0:
        return "No feature varies enough to be matched."
    strength, bar = defined["spearman"].abs(), defined["null_spearman"].max()
    beating = int((strength > bar).sum())
    middle = (
        f"median |Spearman| {strength.median():.2f} against {defined['null_spearman'].median():.2f} after shuffling"
    )
    share = f"{beating:,} of {len(defined):,} feature{'' if len(defined) == 1 else 's'}"
    if beating == 0:
        return f"The matches do not beat the null: {middle}, and no feature is matched better than by chance."
    return (
        f"{share} {'is' if beating == 1 else 'are'} matched better than any feature is after the examples were "
        f"shuffled (|Spearman| above {bar:.2f}); {middle}."
    )


def similar_features(run: RunContents, set_name: str, feature: int, view: str, count: int = 8) -> pd.DataFrame:
    """Features of the same set most like one: feature, label, spearman, jaccard (top 16), likest first.

    By the magnitude of the correlation; a set without stored values is compared by the overlap of its kept tops
    (spearman is NaN, and features that share no example are left out). Constant features are left out.
    Cost k n log n, or k m without values.
    """
    feature_set = run.feature_set(set_name)
    feature_set.check(feature)
    high = _tops(feature_set, view, "highest", 16)
    overlap = _overlap(high[feature], high)
    if feature_set.stores_values:
        values = value_matrix(feature_set, view)
        spearman = spearman_matrix(values[[feature]], values)[0]
        low = _tops(feature_set, view, "lowest", 16)
        overlap = np.where(spearman < 0, _overlap(high[feature], low), overlap)
        likeness = np.where(np.isnan(spearman), -1, np.abs(spearman))
    else:
        spearman = np.full(len(feature_set), np.nan)
        table = whole_table(run, set_name, view)
        # Constant features are ranked by the ids alone, so their tops agree without saying anything.
        constant = table["constant"].to_numpy(dtype=bool)
        likeness = np.where((overlap > 0) & ~constant & ~constant[feature], overlap, -1)
    likeness[feature] = -1
    order = np.argsort(-likeness, kind="stable")
    order = order[likeness[order] >= 0][: max(count, 0)]
    return pd.DataFrame(
        {
            "feature": order,
            "label": [feature_set.label(int(other)) for other in order],
            "spearman": spearman[order],
            "jaccard": overlap[order],
        }
    )
