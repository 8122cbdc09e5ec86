"""Regressions on features: how well a linear model in them predicts labels, and what the network itself says.

Two targets, never mixed: *labels*, the dual model proper, and *distillation*, the network's own outputs. Every kernel
is fitted on the training examples and judged on the held-out ones, beside two controls: the kernel of the last linear
layer alone, and the kernel without that layer. Derived independently; intended to correspond to the dual regression of
Roberts, Yaida and Hanin, arXiv:2106.10165, ch. infinity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import r2_score

from feature_lens.dual.beside import Beside
from feature_lens.dual.ridge import RIDGES, Ridge, Spectral, fit_ridge
from feature_lens.dual_record import KERNELS, Fidelity
from feature_lens.errors import ExamplesError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.design import MEMORY, DesignMatrix, one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.known_methods import LastLinear, last_linear
from feature_lens.networks import Network
from feature_lens.predictions import class_labels_of, targets_as

Matrix = npt.NDArray[np.float64]
Target = Literal["labels", "distillation"]

# Sides of an eigenproblem that is solved without being asked for.
MOST_SIDE: Final = 4096

EXPECTED: Final = (
    "A distillation R2 near 1 is expected: the network's outputs W a + b lie in the span of the last layer's own "
    "effective features, so by itself it says nothing about the other layers."
)


@dataclass(frozen=True)
class Regressions:
    """All regressions of a network, with remarks on what was left out; `notes` stand beside any display of them.
    `kernel` (n, n) is that of the effective features, summed over outputs; None where it was not asked for."""

    fidelities: tuple[Fidelity, ...]
    remarks: tuple[str, ...]
    notes: tuple[str, ...] = (EXPECTED,)
    kernel: Matrix | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Task:
    """Outputs of the network (n, c) at both ends, and targets by name (n, c), for training and held-out examples."""

    trained: Matrix
    initial: Matrix | None
    targets: dict[Target, Matrix]
    labels: npt.NDArray[np.int64] | None
    train: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]


def can_judge(examples: Examples) -> bool:
    """Whether there are two or more training and held-out examples: R2 of one alone is not defined."""
    training = examples.training
    if training is None:
        return False
    count = int(np.count_nonzero(training))
    return min(count, len(examples) - count) > 1


def regressions(
    network: Network,
    examples: Examples,
    *,
    reductions: Sequence[Literal["trace", "flattened"]] = ("trace",),
    ridges: Sequence[float] = RIDGES,
    most_side: int = MOST_SIDE,
    memory: int = MEMORY,
) -> Regressions:
    """Fit every kernel that there is to labels and to the network's outputs.

    `trace` takes kernels summed over outputs (n, n), `flattened` whole ones, on the smaller of their sides n c and p,
    and only where that is at most `most_side`. A kernel that is zero is left out with a remark. Raises ExamplesError
    without a split into two or more examples of both kinds, SettingsError for ridges that are not positive. Cost: kernels of all examples and eigenproblems of the training ones: n^3, or p^3 + n c p^2.
    """
    if not can_judge(examples):
        raise ExamplesError(
            "Regressions are judged on held-out examples, but there is no split with two or more of both kinds; give "
            "split=... with them."
        )
    task = _task(network, examples)
    last = last_linear(network, examples)
    remarks = [] if last is not None else ["The network does not end in a linear layer, so there is no such control."]
    if network.initial is None:
        remarks.append("Initial parameters were not given, so their kernel and the sharp ones are absent.")
    found: list[Fidelity] = []
    effective: Matrix | None = None
    with one_thread():
        for reduction in reductions:
            if reduction == "trace":
                for name, kernel in _traced(network, examples, last, memory):
                    effective = kernel if name == "effective" else effective
                    try:
                        problem: _Traced | _Flattened = _Traced(kernel, task)
                    except SettingsError as why:
                        remarks.append(f"The {KERNELS[name]} is left out. {why}")
                        continue
                    found += _judged(name, reduction, task, problem, ridges)
                continue
            for name, design in _designs(network, examples, last, memory):
                side = min(design.shape[1], len(task.train) * design.rows_per_example)
                if side > most_side:
                    remarks.append(
                        f"The whole {KERNELS[name]} is left out: its smaller side is {side:,}, above {most_side:,}."
                    )
                    continue
                try:
                    problem = _Flattened(design, task)
                except SettingsError as why:
                    remarks.append(f"The whole {KERNELS[name]} is left out. {why}")
                    continue
                found += _judged(name, reduction, task, problem, ridges)
    remarks += _open_ends(found, ridges)
    return Regressions(tuple(found), tuple(dict.fromkeys(remarks)), kernel=effective)


def fidelities_of(kernel: Matrix, spectral: Spectral, outputs: Matrix, examples: Examples) -> dict[Target, Fidelity]:
    """Bare regressions on one kernel (n, n) summed over outputs, effective at the parameters that give the outputs (n, c),
    to these outputs and to labels where there are any; `spectral` is its part of the training examples.

    Needs examples that `can_judge`. Cost: that of `fit_ridge`, for each target.
    """
    task = _task_of(outputs, None, examples)
    problem = _Traced(kernel, task, spectral)
    found: dict[Target, Fidelity] = {}
    for target in task.targets:
        (found[target],) = _fitted(
            "effective", "trace", target, task, problem, RIDGES, {"bare": np.zeros_like(outputs)}
        )
    return found


def _open_ends(found: Sequence[Fidelity], ridges: Sequence[float]) -> Iterator[str]:
    """Whether some regressions took the smallest or the largest of several ridges, where the best may lie beyond."""
    if len(set(ridges)) < 2:
        return
    for ridge, size, beyond in ((min(ridges), "smallest", "smaller"), (max(ridges), "largest", "larger")):
        count = sum(one.ridge == ridge for one in found)
        if count:
            yield (
                f"In {count} of {len(found)} regressions the best ridge was the {size} one tried, {ridge:g} of the mean "
                f"diagonal, and a {beyond} one might do better; the table of regressions shows which."
            )


def _task(network: Network, examples: Examples) -> _Task:
    initial = None if network.initial is None else network.outputs(examples, at="initial")
    return _task_of(network.outputs(examples), initial, examples)


def _task_of(outputs: Matrix, initial: Matrix | None, examples: Examples) -> _Task:
    targets: dict[Target, Matrix] = {"distillation": outputs}
    if (wanted := targets_as(examples, outputs.shape[1])) is not None:
        targets["labels"] = wanted
    return _Task(
        outputs,
        initial,
        targets,
        class_labels_of(examples, outputs.shape[1]),
        examples.fitting,
        np.flatnonzero(~np.asarray(examples.training)),
    )


def _traced(network: Network, examples: Examples, last: LastLinear | None, memory: int) -> Iterator[tuple[str, Matrix]]:
    """Kernels summed over outputs (n, n)."""

    def kernels(at: str) -> dict[str, Matrix]:
        design = EffectiveFeatures(network, examples, at, "trace", memory=memory)
        return {name: np.asarray(one, dtype=np.float64) for name, one in design.kernels(by="tensor").items()}

    of_tensors = kernels("effective")
    effective = _added(of_tensors, list(of_tensors))
    if network.initial is not None:
        start = kernels("initial")
        initial = _added(start, list(start))
        yield "initial", initial
        sharp = kernels("sharp")
        yield "sharp", _added(sharp, list(sharp))
        yield "mean", (initial + effective) / 2
    yield "effective", effective
    if last is not None:
        own = [name for name in of_tensors if name in (last.weight, last.bias)]
        others = [name for name in of_tensors if name not in own]
        yield "last_layer", _added(of_tensors, own)
        if others:
            yield "without_last_layer", _added(of_tensors, others)


def _added(kernels: dict[str, Matrix], names: Sequence[str]) -> Matrix:
    total: Matrix = np.sum([kernels[name] for name in names], axis=0)
    return total


def _designs(
    network: Network, examples: Examples, last: LastLinear | None, memory: int
) -> Iterator[tuple[str, DesignMatrix]]:
    """Designs whose rows are (example, output)."""
    every = network.parameters.names
    own = [name for name in every if last is not None and name in (last.weight, last.bias)]
    others = [name for name in every if name not in own]
    if network.initial is not None:
        yield "initial", EffectiveFeatures(network, examples, "initial", memory=memory)
        yield "sharp", EffectiveFeatures(network, examples, "sharp", memory=memory)
        ends = [EffectiveFeatures(network, examples, at, memory=memory) for at in ("initial", "effective")]
        yield "mean", Beside(ends, np.sqrt(0.5))
    yield "effective", EffectiveFeatures(network, examples, memory=memory)
    if own:
        yield "last_layer", EffectiveFeatures(network, examples, layers=own, memory=memory)
    if own and others:
        yield "without_last_layer", EffectiveFeatures(network, examples, layers=others, memory=memory)


class _Traced:
    """A kernel (n, n) of examples: every output is regressed alone, with common coefficients."""

    block = 1

    def __init__(self, kernel: Matrix, task: _Task, spectral: Spectral | None = None) -> None:
        self._rows = kernel[np.ix_(task.held, task.train)]
        self.spectral = spectral or Spectral.of_kernel(kernel[np.ix_(task.train, task.train)])

    def targets(self, values: Matrix) -> Matrix:
        """(n, c), as they are."""
        return values

    def predicted(self, fit: Ridge) -> Matrix:
        """(held-out, c)."""
        made: Matrix = self._rows @ fit.coefficients
        return made


class _Flattened:
    """A design of rows (example, output), whose single regression has one weight for every column."""

    def __init__(self, design: DesignMatrix, task: _Task) -> None:
        self.block = design.rows_per_example
        self._train, self._held = design.on(task.train), design.on(task.held)
        if self._train.shape[0] <= self._train.shape[1]:
            self.spectral = Spectral.of_kernel(self._train.gram())
        else:
            self.spectral, _ = Spectral.of_columns(self._train)

    def targets(self, values: Matrix) -> Matrix:
        """(n c, 1)."""
        return values.reshape(-1, 1)

    def predicted(self, fit: Ridge) -> Matrix:
        """(held-out, c), through the weights Phi^T alpha."""
        return self._held.matmul(self._train.rmatmul(fit.coefficients)).reshape(-1, self.block)


def _judged(
    name: str, reduction: str, task: _Task, problem: _Traced | _Flattened, ridges: Sequence[float]
) -> Iterator[Fidelity]:
    """Both targets, bare and, for labels, expanded about the parameters that the kernel belongs to."""
    start = task.initial if name in ("initial", "sharp", "mean") else task.trained
    for target, values in task.targets.items():
        forms = {"bare": np.zeros_like(values)}
        # With the network's own outputs as target the correction about theta* is zero; about theta0 it is not.
        controls = ("last_layer", "without_last_layer")
        if start is not None and name not in controls and not (start is task.trained and target == "distillation"):
            forms["expanded"] = start
        yield from _fitted(name, reduction, target, task, problem, ridges, forms)


def _fitted(
    name: str,
    reduction: str,
    target: Target,
    task: _Task,
    problem: _Traced | _Flattened,
    ridges: Sequence[float],
    forms: dict[str, Matrix],
) -> Iterator[Fidelity]:
    """One target, in forms that are about given outputs (n, c)."""
    values = task.targets[target]
    for form, about in forms.items():
        wanted = problem.targets((values - about)[task.train])
        fit = fit_ridge(problem.spectral, wanted, problem.block, ridges)
        predicted = about[task.held] + problem.predicted(fit)
        left_out = about[task.train] + fit.left_out.reshape(len(task.train), -1)
        yield _fidelity(name, reduction, target, form, fit.ridge, task, predicted, left_out)


def _fidelity(
    name: str,
    reduction: str,
    target: Target,
    form: str,
    ridge: float,
    task: _Task,
    predicted: Matrix,
    left_out: Matrix,
) -> Fidelity:
    outputs = task.trained[task.held]
    several = outputs.shape[1] > 1
    labels = task.labels
    return Fidelity(
        kernel=name,
        reduction=reduction,
        target=target,
        form=form,
        ridge=ridge,
        left_out_r2=_r2(task.targets[target][task.train], left_out),
        r2=_r2(outputs, predicted),
        agreement=float((predicted.argmax(axis=1) == outputs.argmax(axis=1)).mean()) if several else None,
        accuracy=None if labels is None else float((predicted.argmax(axis=1) == labels[task.held]).mean()),
    )


def _r2(wanted: Matrix, found: Matrix) -> float:
    """Of all outputs together: 1 - sum of squared residuals / sum of squared deviations from each output's mean."""
    return float(r2_score(wanted, found, multioutput="variance_weighted"))
