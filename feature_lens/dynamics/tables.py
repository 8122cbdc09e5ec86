"""Training dynamics as the tables that a run keeps: a row for each step, and in long form what has several numbers a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_lens.dual.ridge import Spectral
from feature_lens.dynamics.finals import FinalFeatures
from feature_lens.dynamics.history import History
from feature_lens.dynamics.step_figures import (
    Step,
    concept_figures,
    dual_figures,
    fit_figures,
    kernel_figures,
)
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.bases.deflated import Deflation, deflate
from feature_lens.features.design import MEMORY, Matrix, one_thread
from feature_lens.features.kernel_comparison import centred, subspace_overlap, unit_rows
from feature_lens.kept_table import KeptTable
from feature_lens.networks import Network
from feature_lens.predictions import Predictions

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class DynamicsSettings:
    """most_examples: of more than these as many are taken, evenly spread, since every step takes an eigenproblem of the
    fitted ones. eigenvalues: kept of every step. dimension: of the leading eigenspace that is compared with the final
    one and with concepts; by gaps without."""

    most_examples: int = 2048
    eigenvalues: int = 128
    dimension: int | None = None


def dynamics_tables(
    steps: Mapping[int, Network],
    examples: Examples,
    finals: Sequence[FinalFeatures] = (),
    settings: DynamicsSettings = DynamicsSettings(),
    *,
    memory: int = MEMORY,
    watch: Callable[[int], object] = lambda _: None,
) -> dict[str, KeptTable]:
    """Tables by name from networks by step, as `steps_of` gives them.

    "dynamics": a row per step: fit, kernel, overlap of leading eigenspaces, dual model. "dynamics_spectrum": leading
    eigenvalues. "dynamics_concepts", where examples carry any: alignment and overlap with each. "feature_history", where
    features are given: each of them at each step. `watch` is told of every step that is done. Kernels are
    summed over outputs, not divided by their number; what is fitted is fitted on the training examples, as the features
    of a run are. Cost per step: a kernel of n x n, an eigenproblem of m fitted examples, two ridge regressions; memory: four kernels.
    Raises SettingsError for fewer than one eigenvalue, example or dimension and for a step whose kernel is zero or not finite.
    """
    few = min(settings.most_examples, settings.eigenvalues, 1 if settings.dimension is None else settings.dimension)
    if few < 1:
        raise SettingsError(f"Numbers of examples, eigenvalues and dimensions are at least 1, but {few} came.")
    chosen, n_all = np.arange(len(examples)), len(examples)
    if len(examples) > settings.most_examples:
        chosen = np.linspace(0, len(examples) - 1, settings.most_examples).astype(np.int64)
        examples = examples.on(chosen)
    with one_thread():
        first = Step.of(min(steps), steps[min(steps)], examples, memory)
        last = Step.of(max(steps), steps[max(steps)], examples, memory)
        space = _Space.between(first, last, settings.dimension)
        chance = min(1.0, space.dimension / max(1, len(examples) - 1))
        histories = [_Followed(final, chosen) for final in finals]
        figures: Rows = []
        spectrum: Rows = []
        concepts: Rows = []
        for number in sorted(steps, reverse=True):
            ends = {first.number: first, last.number: last}
            step = ends.get(number) or Step.of(number, steps[number], examples, memory)
            figures.append({"step": number, **_figures(step, first, last, space)})
            spectrum += _spectrum(step, settings.eigenvalues)
            concepts += [
                {"step": number, "concept": name, "alignment": aligned, "overlap": share, "chance": chance}
                for name, aligned, share in concept_figures(step, space.dimension)
            ]
            for history in histories:
                history.back(step, step is last)
            watch(number)
    return _tables(figures, spectrum, concepts, histories, space, examples, n_all)


@dataclass(frozen=True)
class _Space:
    """The leading eigenspace that is followed: its dimension, how that was found, the final one (m, dimension), and what
    of the final kernel lies outside the leading eigenspace of the first (m, k), where gaps show it."""

    dimension: int
    words: str
    final: Matrix
    learnt: Matrix | None

    @classmethod
    def between(cls, first: Step, last: Step, wanted: int | None) -> _Space:
        found: Deflation | None
        try:
            found = deflate(last.fitted, first.fitted, None, None)
        except SettingsError:  # too few eigenvalues to see gaps among
            found = None
        if wanted is not None:
            dimension, words = wanted, f"the {wanted} leading eigenvectors"
        elif found is not None:
            removed, added = len(found.initial_spectrum), len(found.spectrum)
            dimension = removed + added
            words = (
                f"the {dimension} leading eigenvectors, {removed} before the largest gap of the first kernel and {added} "
                "before that of what the last one has outside these"
            )
        else:
            dimension = min(8, len(last.spectrum))
            words = f"the {dimension} leading eigenvectors, since there are too few eigenvalues to look for gaps"
        return cls(dimension, words, last.leading(dimension), None if found is None else found.vectors)


def _figures(step: Step, first: Step, last: Step, space: _Space) -> dict[str, float]:
    figures = fit_figures(step.examples, step.outputs, Predictions.of(last.examples, last.outputs)) | kernel_figures(
        step, first, last
    )
    leading = step.leading(space.dimension)
    figures["overlap_with_final"] = subspace_overlap(leading, space.final)
    if space.learnt is not None:
        figures["overlap_with_learnt"] = subspace_overlap(leading, space.learnt)
    return figures | dual_figures(step)


def _spectrum(step: Step, most: int) -> Rows:
    total = float(np.trace(step.fitted))
    return [
        {"step": step.number, "number": place, "eigenvalue": float(value), "share": float(value) / total}
        for place, value in enumerate(step.spectrum[:most])
    ]


class _Followed:
    """The history of one set, as rows."""

    def __init__(self, final: FinalFeatures, chosen: npt.NDArray[np.int64]) -> None:
        self.final, self.rows = final, Rows()
        self._values = np.asarray(final.values[chosen], dtype=np.float64)
        self._history = History(self._values, final.groups)

    def back(self, step: Step, is_last: bool) -> None:
        """One step back; the last is that of the features themselves."""
        k = self._values.shape[1]
        values, features = self._features(step, k)
        found = self._history.back(self._values if is_last else features)
        for feature in range(k):
            at = int(found.matched[feature])
            self.rows.append(
                {
                    "set": self.final.name,
                    "feature": feature,
                    "step": step.number,
                    "matched": at,
                    "eigenvalue": float(values[at]) if 0 <= at < len(values) else float("nan"),
                    "correlation_to_later": float(found.to_later[feature]),
                    "correlation_to_final": float(found.to_final[feature]),
                    "within_leading": float(found.within[feature]),
                    "group": int(self.final.groups[feature]),
                    "group_overlap": float(found.of_group[feature]),
                }
            )

    def _features(self, step: Step, k: int) -> tuple[Matrix, Matrix]:
        """Eigenvalues, and k features (n, k), of the step's kernel, made as the set was."""
        if not (self.final.centred or self.final.cosine):
            return step.spectrum, step.activations(k)
        kernel = unit_rows(step.kernel) if self.final.cosine else step.kernel
        across = kernel[:, step.examples.fitting]
        fitted = across[step.examples.fitting]
        if self.final.centred:  # the mean over the fitted examples is taken off
            across = across - across.mean(axis=1)[:, None] - fitted.mean(axis=0) + fitted.mean()
            fitted = centred(fitted)
        spectral = Spectral.of_kernel(fitted)
        values, vectors = spectral.values[::-1], spectral.vectors[:, ::-1][:, :k]
        return values, across @ (vectors / np.sqrt(values[:k]))


def _tables(
    figures: Rows,
    spectrum: Rows,
    concepts: Rows,
    histories: list[_Followed],
    space: _Space,
    examples: Examples,
    n_all: int,
) -> dict[str, KeptTable]:
    n, m = len(examples), len(examples.fitting)
    fitted = f"{m:,} {'training ' if examples.training is not None else ''}examples"
    thinned = f", of {n_all:,} examples {n:,}, evenly spread" if n < n_all else ""
    of_kernel = f"Kernels are summed over outputs{thinned}; eigenvectors are of {fitted}."
    made = {
        "dynamics": KeptTable(
            "Training dynamics, step by step",
            _columns(figures),
            f"{of_kernel} Overlaps are of {space.words}; chance gives {space.dimension / m:.2g}.",
        ),
        "dynamics_spectrum": KeptTable("Leading eigenvalues, step by step", _columns(spectrum), of_kernel),
    }
    if concepts:
        made["dynamics_concepts"] = KeptTable(
            "Concepts in the kernel, step by step",
            _columns(concepts),
            f"Alignment of the centred kernel of {n:,} examples, summed over outputs, and share of the concept within "
            f"{space.words}, beside what chance gives.",
        )
    rows = [row for history in histories for row in history.rows]
    if rows:
        made["feature_history"] = KeptTable(
            "Features of the trained network, followed backwards",
            _columns(rows),
            "Features of successive steps are matched by |correlation| over examples, from the last step backwards; "
            "'within_leading' is the share of the final feature's variation in the span of all leading features of a step.",
        )
    return made


def _columns(rows: Rows) -> dict[str, npt.NDArray[Any]]:
    """Columns from rows, which were made from the last step to the first, in the order of steps."""
    order = sorted(range(len(rows)), key=lambda place: int(rows[place]["step"]))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: np.array([rows[place].get(name, float("nan")) for place in order]) for name in names}
