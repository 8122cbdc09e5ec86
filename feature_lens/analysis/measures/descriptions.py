"""What each measure is, in words, and whether more of it is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Measure:
    """One measure: its title, what it is in words, its theme, +1 where more is better, -1 where less is, 0 where neither,
    whether it takes part in the comparison of kinds, and whether it is of the span of features alone, which random
    directions have from the set that they are made of."""

    title: str
    words: str
    theme: str
    better: int = 0
    compared: bool = False
    of_span: bool = False


_CLASSES, _TOPS, _SPARSITY = "Classes", "Examples shown", "Sparsity"
_OUTPUTS, _REMOVAL, _SEEDS = "The network's outputs", "Removal", "Other seeds"

MEASURES: Final[dict[str, Measure]] = {
    "class_auroc": Measure(
        "AUROC by class",
        "mean over classes of the AUROC of the feature (and sign) chosen for each",
        _CLASSES,
        1,
        True,
    ),
    "class_precision": Measure(
        "average precision by class", "average precision of the same features", _CLASSES, 1, True
    ),
    "feature_auroc": Measure(
        "AUROC by feature",
        "mean over features of the AUROC for the class (and sign) chosen for each",
        _CLASSES,
        1,
        True,
    ),
    "feature_precision": Measure(
        "average precision by feature", "average precision of the same features", _CLASSES, 1, True
    ),
    "top_purity": Measure(
        "purity of the top",
        "share of the commonest class among a feature's highest examples, mean over features",
        _TOPS,
        1,
        True,
    ),
    "top_entropy": Measure("entropy of the top", "entropy of the classes of the same examples, in bits", _TOPS, -1),
    "range_purity": Measure(
        "purity over the range",
        "purity of as many examples at equally spaced ranks of a feature, highest to lowest",
        _TOPS,
    ),
    "range_entropy": Measure("entropy over the range", "entropy of the classes of those, in bits", _TOPS),
    "hoyer": Measure(
        "Hoyer sparsity", "0 where a feature has one magnitude on all examples, 1 where it is zero on all but one",
        _SPARSITY, 1, True,
    ),
    "energy": Measure("share with 90 % of the energy", "least share of examples with 90 % of a feature's squares", _SPARSITY, -1),
    "kurtosis": Measure("kurtosis", "excess kurtosis of a feature's values; that of a normal distribution is 0", _SPARSITY),
    "r2": Measure("R2 of the outputs", "R2 of a ridge regression of all outputs on the features", _OUTPUTS, 1, True, True),
    "needed_90": Measure("features to R2 .9", "smallest number of leading features that reach R2 .9", _OUTPUTS, -1),
    "needed_95": Measure("features to R2 .95", "smallest number of leading features that reach R2 .95", _OUTPUTS, -1),
    "pursued_90": Measure(
        "features to R2 .9 by pursuit", "smallest number to R2 .9 when features are taken by matching pursuit", _OUTPUTS, -1, True
    ),
    "removal_median": Measure(
        "median effect", "median over features of the mean change of the predicted output without one, in standard deviations of the outputs", _REMOVAL
    ),
    "removal_top": Measure("largest effect", "the same of the feature of largest effect", _REMOVAL),
    "matched": Measure(
        "matched correlation", "mean |correlation| of features matched one to one with those of another seed", _SEEDS, 1, True
    ),
    "span": Measure("overlap of spans", "share of the span that another seed's features span too", _SEEDS, 1, True, True),
}  # fmt: skip
_OF_CONCEPTS: Final[dict[str, Measure]] = {
    "overlap": Measure(
        "overlap with {}",
        "share of the span of {} that lies in the span of the features",
        "Known concepts, in the span",
        1,
        True,
        True,
    ),
    "cosine": Measure(
        "largest cosine with {}",
        "mean over the columns of {} of the largest |cosine| with a feature",
        "Known concepts, single features",
        1,
        True,
    ),
    "auroc": Measure(
        "AUROC of {}",
        "mean over the properties of {} of the AUROC of the feature (and sign) chosen for each",
        "Known concepts, single features",
        1,
        True,
    ),
}


def measure_of(name: str) -> Measure:
    """The measure of a column of `set_measures`, 'overlap ', 'cosine ' and 'auroc ' with the name of a concept among them."""
    if name in MEASURES:
        return MEASURES[name]
    kind, _, concept = name.partition(" ")
    one = _OF_CONCEPTS[kind]
    return replace(one, title=one.title.format(concept), words=one.words.format(concept))


def is_measure(name: str) -> bool:
    """Whether there is a measure of that name."""
    return name in MEASURES or name.partition(" ")[0] in _OF_CONCEPTS


def theme_words(names: Sequence[str]) -> str:
    """What the measures of a theme are, in one text; those of concepts once for all concepts."""
    fixed = [f"{MEASURES[name].title}: {MEASURES[name].words}" for name in names if name in MEASURES]
    known = dict.fromkeys(name.partition(" ")[0] for name in names if name not in MEASURES)
    return "; ".join([*fixed, *(_OF_CONCEPTS[kind].words.format("a concept") for kind in known)]) + "."
