"""How well single features tell whether an example has a known property: chosen on some examples, reported on others.

Letters: k features, n examples, d properties, b draws, s shuffles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.measures.bootstrap import Figures, Measured, Positions, mean_known
from feature_lens.analysis.measures.ranks import average_ranks
from feature_lens.analysis.measures.selectivity import Halves, weighted_figures

Values = npt.NDArray[np.floating]


def is_binary(known: Values) -> bool:
    """Whether the columns of a concept (n, d) are properties that an example has, 1, or has not, 0."""
    return bool(np.isin(known, (0, 1)).all())


def concept_auroc(values: Values, known: Values, halves: Halves, weights: Figures, shuffles: Positions) -> Measured:
    """Mean over properties (n, d) of 0 and 1 of the AUROC of the feature (k, n), and the sign, that tell each best.

    Feature and sign are chosen on the choosing examples and reported on the others; properties that all or none of
    either half have are left out, NaN where none is left. Draws by weights (b, number reported); the null chooses again
    with the examples of the properties shuffled. Cost s k n d + (s + b) d n log n.
    """
    choosing, reporting = halves.choosing, halves.reporting
    mixed = [known[half].sum(axis=0) > 0 for half in (choosing, reporting)]
    mixed += [known[half].sum(axis=0) < len(half) for half in (choosing, reporting)]
    kept = known[:, np.logical_and.reduce(mixed)]
    if kept.shape[1] == 0 or len(values) == 0:
        return Measured(np.nan)
    ranks = average_ranks(values[:, choosing])
    rows = np.arange(kept.shape[1])
    feature, sign = _chosen(ranks, kept[choosing])
    figures, draws = np.empty(len(rows)), np.empty((len(rows), len(weights)))
    for row in rows:
        scores, member = sign[row] * values[feature[row], reporting], kept[reporting, row]
        figures[row] = weighted_figures(scores, member[None], 1 - member[None])[0][0]
        draws[row] = weighted_figures(scores, weights * member, weights * (1 - member))[0]
    null = [_null(values[:, reporting], ranks, kept[order], halves) for order in shuffles]
    return Measured(float(figures.mean()), mean_known(draws.T), np.array(null))


def _chosen(ranks: Figures, member: Values) -> tuple[Positions, npt.NDArray[np.int64]]:
    """For each property (m, d) the feature, by its ranks (k, m), of largest |AUROC - 1/2|, and its sign."""
    centred = _centred(ranks, member)
    feature = np.abs(centred).round(12).argmax(axis=0)
    return feature, np.where(centred[feature, np.arange(member.shape[1])] >= 0, 1, -1)


def _centred(ranks: Figures, member: Values) -> Figures:
    """AUROC - 1/2 of features by their ranks (k, m) for properties (m, d): (k, d)."""
    inside = member.sum(axis=0)
    wins = ranks @ member - inside * (inside + 1) / 2
    return np.asarray(wins / np.maximum(inside * (len(member) - inside), 1) - 0.5)


def _null(reported: Values, ranks: Figures, known: Values, halves: Halves) -> float:
    """The same figure of properties whose examples were shuffled."""
    feature, sign = _chosen(ranks, known[halves.choosing])
    member = known[halves.reporting]
    own = average_ranks(reported[feature])
    inside = member.sum(axis=0)
    wins = np.einsum("dm,md->d", own, member) - inside * (inside + 1) / 2
    pairs = inside * (len(member) - inside)
    return float(np.mean(np.where(pairs > 0, 0.5 + sign * (wins / np.maximum(pairs, 1) - 0.5), 0.5)))
