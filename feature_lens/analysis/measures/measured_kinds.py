"""Every kind of feature of a run by every measure: what the tables of measures are made of.

All kinds are given the same number of features at most, the leading ones in their own order; sets that have fewer are
measured by what they have, which means over features may favour. A feature that is seen in several
views counts once for each, since each is a number per example. Letters: k features, n examples, t shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.kinds import LOGITS, Kind, kinds, views_of
from feature_lens.analysis.measures.alignment import mean_max_cosine, overlap_curve
from feature_lens.analysis.measures.bootstrap import Figures, Measured, Positions, resampled, shuffled
from feature_lens.analysis.measures.concept_selectivity import concept_auroc, is_binary
from feature_lens.analysis.measures.purity import purity_figures
from feature_lens.analysis.measures.removal import removal_figures
from feature_lens.analysis.measures.reproduction import Reproduction, pursuit_order
from feature_lens.analysis.measures.selectivity import Halves, selectivity_curve
from feature_lens.analysis.measures.sparsity import sparsity_figures
from feature_lens.analysis.orders import untied
from feature_lens.errors import SettingsError
from feature_lens.ranking import range_sample
from feature_lens.run_contents import RunContents

Values = npt.NDArray[np.float64]
Curve = dict[int, Measured]
_FEWEST: Final = 3  # examples, out of which one can be left out of a regression with a mean of its own


@dataclass(frozen=True)
class MeasureSettings:
    """features: how many leading ones every kind is given; most: up to how many curves go; shown: examples at the top
    and over the range of a feature; draws and shuffles: for intervals and nulls; level: of the intervals.

    Raises SettingsError for numbers that cannot be used.
    """

    features: int = 64
    most: int = 128
    shown: int = 16
    draws: int = 200
    shuffles: int = 100
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("features", 1), ("most", self.features), ("shown", 1), ("draws", 0), ("shuffles", 0)):
            if getattr(self, name) < least:
                raise SettingsError(
                    f"The setting '{name}' of measures must be at least {least}, but {getattr(self, name)} came; "
                    "give a larger number."
                )
        if not 0 < self.level < 1:
            raise SettingsError(
                f"The level of an interval lies between 0 and 1, but {self.level} came; give one such as 0.95."
            )


@dataclass(frozen=True)
class MeasuredKind:
    """One kind, without its values: figures by name of the measure at the number of features given, curves by number."""

    kind: Kind
    features: int
    figures: Mapping[str, Measured] = field(repr=False)
    curves: Mapping[str, Curve] = field(repr=False)


def measured_kinds(run: RunContents, settings: MeasureSettings = MeasureSettings()) -> list[MeasuredKind]:
    """All kinds of a run, measured; kept with the run, which never changes. Measures that need what a run or a kind has
    not (values, classes, concepts, a changed output) are left out. Cost: seconds; see the single measures."""
    kept = _kept(run)
    if settings not in kept:
        bench = _Bench.of(run, settings)
        kept[settings] = [bench.measured(kind) for kind in kinds(run, settings.seed)]
    return kept[settings]


def remember(run: RunContents, settings: MeasureSettings, measured: list[MeasuredKind]) -> None:
    """Keep with a run what was measured of it elsewhere, such as in another process."""
    _kept(run)[settings] = measured


def _kept(run: RunContents) -> dict[MeasureSettings, list[MeasuredKind]]:
    kept: dict[MeasureSettings, list[MeasuredKind]] = run.__dict__.setdefault("_measured_kinds", {})
    return kept


def halves_of(run: RunContents, seed: int = 0) -> Halves:
    """Choosing on the training examples and reporting on the held-out ones; without a split on two seeded halves."""
    n, training = len(run.examples), run.examples.training
    if training is not None and not training.all():
        return Halves(np.flatnonzero(training), np.flatnonzero(~training), "held-out examples")
    order = np.random.default_rng(seed).permutation(n)
    first, second = np.sort(order[: (n + 1) // 2]), np.sort(order[(n + 1) // 2 :])
    return Halves(first, second, "the half of the examples on which nothing was chosen")


def leading_rows(run: RunContents, kind: Kind, most: int) -> Positions:
    """Rows of a kind's values (features * views, n) of up to `most` leading features, each view of a feature after the
    other, without those that are not finite on every example; none where values are not stored."""
    if kind.values is None:
        return np.empty(0, dtype=np.int64)
    order, finite = _own_order(run, kind), np.asarray(np.isfinite(kind.values).all(axis=1))
    return order[finite[order]][:most]


def leading_values(run: RunContents, kind: Kind, most: int) -> npt.NDArray[np.float32] | None:
    """The values (k, n) of `leading_rows`; None where values are not stored."""
    return None if kind.values is None else kind.values[leading_rows(run, kind, most)]


def _own_order(run: RunContents, kind: Kind) -> Positions:
    """Rows of the kind's values in the set's own order."""
    feature_set = kind.of_set(run)
    if feature_set is None:
        return np.arange(0 if kind.values is None else len(kind.values))
    order = feature_set.read("order").astype(np.int64)
    return (order[:, None] * kind.views + np.arange(kind.views)).ravel()


@dataclass(frozen=True)
class _Bench:
    """What all kinds of a run are measured with: the same halves, draws and shuffles for all."""

    run: RunContents
    settings: MeasureSettings
    halves: Halves
    weights: Figures
    shuffles: Positions
    outputs: Values
    labels: npt.NDArray[np.int64] | None

    @staticmethod
    def of(run: RunContents, settings: MeasureSettings) -> _Bench:
        n, halves = len(run.examples), halves_of(run, settings.seed)
        labels = run.examples.labels
        if labels is not None:
            first, second = (np.unique(labels[part]) for part in (halves.choosing, halves.reporting))
            if min(len(first), len(second)) < 2 or len(np.intersect1d(first, second)) == 0:
                labels = None
        weights = resampled(n, settings.draws, settings.seed)
        shuffles = shuffled(n, settings.shuffles, settings.seed + 1)
        outputs = np.asarray(run.outputs, dtype=np.float64)
        return _Bench(run, settings, halves, weights, shuffles, outputs, labels)

    def measured(self, kind: Kind) -> MeasuredKind:
        values = leading_values(self.run, kind, self.settings.most)
        figures: dict[str, Measured] = {}
        curves: dict[str, Curve] = {}
        if self.labels is not None:
            tops = self._tops(kind, values)
            purity, entropy = purity_figures(tops, self.labels, self.weights, self.shuffles)
            figures |= {"top_purity": purity, "top_entropy": entropy}
        count = min(self.settings.features, len(_own_order(self.run, kind)))
        if values is not None and len(values):
            count = min(self.settings.features, len(values))
            curves = self._curves(values, count)
            figures |= {name: curve[count] for name, curve in curves.items()}
            figures |= self._of_values(values[:count])
            figures |= self._needed(kind, values, curves, count)
        figures |= self._removal(kind)
        return MeasuredKind(replace(kind, values=None), count, figures, curves)

    def _counts(self, k: int, count: int) -> list[int]:
        doubling = [2**power for power in range(k.bit_length())]
        return sorted({*doubling, count, k})

    def _curves(self, values: npt.NDArray[np.float32], count: int) -> dict[str, Curve]:
        counts = self._counts(len(values), count)
        curves: dict[str, Curve] = {}
        if self.labels is not None:
            reported = self.weights[:, self.halves.reporting]
            curves |= selectivity_curve(values, self.labels, self.halves, counts, reported, self.shuffles)
        features = values.T.astype(np.float64)
        for concept in self.run.examples.concepts:
            curves[f"overlap {concept.name}"] = overlap_curve(
                features, concept.values, counts, self.weights, self.shuffles
            )
        return curves

    def _of_values(self, values: npt.NDArray[np.float32]) -> dict[str, Measured]:
        """What is measured of the given number of features alone."""
        figures = dict(sparsity_figures(values, self.weights, self.settings.shuffles, self.settings.seed))
        if self.labels is not None:
            places = range_sample(np.arange(values.shape[1]), self.settings.shown)
            spread = np.argsort(-values, axis=1, kind="stable")[:, places]
            purity, entropy = purity_figures(spread, self.labels, self.weights, self.shuffles)
            figures |= {"range_purity": purity, "range_entropy": entropy}
        features = values.T.astype(np.float64)
        for concept in self.run.examples.concepts:
            figures[f"cosine {concept.name}"] = mean_max_cosine(features, concept.values, self.weights, self.shuffles)
            if is_binary(concept.values):
                figures[f"auroc {concept.name}"] = concept_auroc(
                    values, concept.values, self.halves, self.weights[:, self.halves.reporting], self.shuffles
                )
        return figures

    def _needed(
        self, kind: Kind, values: npt.NDArray[np.float32], curves: dict[str, Curve], count: int
    ) -> dict[str, Measured]:
        """How many features reproduce the outputs; adds the curves. The outputs reproduce themselves: left out."""
        if kind.name == LOGITS or not np.isfinite(self.outputs).all() or len(self.halves.choosing) < _FEWEST:
            return {}
        features, reported = values.T.astype(np.float64), self.weights[:, self.halves.reporting]
        own = Reproduction(features, self.outputs, self.halves, reported)
        curves["r2"] = {number: own.r2(number) for number in self._counts(len(values), count)}
        whole = own.r2(count)
        figures = {"r2": Measured(whole.value, whole.draws, own.null(count, self.shuffles))}
        order = pursuit_order(features, self.outputs, self.halves.choosing, len(values))
        for name, least in (("needed_90", 0.9), ("needed_95", 0.95)):
            figures[name] = own.smallest(least, len(values))
        if len(order):
            pursued = Reproduction(features[:, order], self.outputs, self.halves, reported)
            curves["r2_pursued"] = {number: pursued.r2(number) for number in self._counts(len(order), len(order))}
            figures["pursued_90"] = pursued.smallest(0.9, len(order))
        return figures

    def _removal(self, kind: Kind) -> dict[str, Measured]:
        feature_set = kind.of_set(self.run)
        if feature_set is None or "ablation/example" not in feature_set:
            return {}
        order = feature_set.read("order")[: self.settings.features]
        change = feature_set.read("ablation/example")[order][:, self.halves.reporting].astype(np.float64)
        spread = float(self.outputs[self.halves.reporting].std())
        return removal_figures(change, spread, self.weights[:, self.halves.reporting])

    def _tops(self, kind: Kind, values: npt.NDArray[np.float32] | None) -> npt.NDArray[np.integer]:
        """Positions (k, t) of the highest examples, as far as they are kept, of leading features that have some: where
        all values are equal, no example is on top."""
        feature_set, shown = kind.of_set(self.run), self.settings.shown
        if feature_set is None:
            leading = np.empty((0, len(self.run.examples))) if values is None else values
            position = np.argsort(-leading, axis=1, kind="stable")[:, :shown]
            tops = untied(position, np.take_along_axis(leading, position, axis=1))
        else:
            views = [feature_set.view_index(view) for view in views_of(feature_set)]
            kept = [np.asarray(feature_set.columns[f"highest/{name}"][:, :, :shown]) for name in ("position", "value")]
            rows = _own_order(self.run, kind)
            tops = untied(*(column[:, views].reshape(len(rows), -1)[rows] for column in kept))
        return tops[(tops >= 0).any(axis=1)][: self.settings.features]
