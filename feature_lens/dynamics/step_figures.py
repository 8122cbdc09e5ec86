"""The figures of one step of a training: how well it fits, its kernel beside the first and the last, its dual model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from feature_lens.arrays import finite_rows
from feature_lens.dual.regression import can_judge, fidelities_of
from feature_lens.dual.ridge import Spectral
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.design import Matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.kernel_comparison import (
    alignment,
    centred,
    cosine_distance,
    effective_rank,
    relative_change,
    subspace_overlap,
)
from feature_lens.networks import Network
from feature_lens.predictions import Predictions, class_labels_of, targets_as

# Length that is left of a column which lies in the span of others, relative to what it was.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Step:
    """A network after some steps of its training: outputs (n, c), the kernel (n, n) of its effective features summed over
    outputs, in float64, and the eigenvectors of its part of the fitted examples."""

    number: int
    examples: Examples
    outputs: Matrix
    kernel: Matrix

    @classmethod
    def of(cls, number: int, network: Network, examples: Examples, memory: int) -> Step:
        """Raises SettingsError where the kernel is zero or not finite. Cost: that of the kernel, see
        `EffectiveFeatures.plan`."""
        design = EffectiveFeatures(network, examples, outputs="trace", memory=memory)
        kernel = np.asarray(design.gram(), dtype=np.float64)
        size = float(np.trace(kernel))
        if not (np.isfinite(size) and size > 0):
            found = "zero" if size == 0 else "not finite"
            raise SettingsError(
                f"The kernel at step {number} is {found}, so its features are none; leave that step out."
            )
        return cls(number, examples, network.outputs(examples), kernel)

    @cached_property
    def fitted(self) -> Matrix:
        """The kernel of the fitted examples."""
        rows = self.examples.fitting
        return self.kernel[np.ix_(rows, rows)]

    @cached_property
    def centred(self) -> Matrix:
        """The same without the mean over them."""
        return centred(self.fitted)

    @cached_property
    def spectral(self) -> Spectral:
        """Of `fitted`. Cost m^3 for m fitted examples."""
        return Spectral.of_kernel(self.fitted)

    @property
    def spectrum(self) -> Matrix:
        """Eigenvalues of `fitted` that are not rounding, falling: the energies of the eigen features."""
        return self.spectral.values[::-1]

    def leading(self, k: int) -> Matrix:
        """The k leading eigenvectors of `fitted` (m, k), or as many as there are."""
        return self.spectral.vectors[:, ::-1][:, :k]

    def activations(self, k: int) -> Matrix:
        """The k leading eigen features on all examples (n, k): H(x, A) u / S."""
        return self.kernel[:, self.examples.fitting] @ (self.leading(k) / np.sqrt(self.spectrum[:k]))


def fit_figures(examples: Examples, outputs: Matrix, predictions: Predictions) -> dict[str, float]:
    """Loss, and for class labels cross-entropy and accuracy (R2 for real targets), of each part of the examples.

    The loss is the mean over examples of half the squared distance of the outputs (n, c) from the targets, one-hot for
    class labels, whatever the network was trained on. `predictions` says how the trained network's outputs are read.
    """
    figures: dict[str, float] = {}
    targets = targets_as(examples, outputs.shape[1])
    if targets is not None:
        squared = np.square(outputs - targets).sum(axis=1) / 2
        finite = finite_rows(outputs)
        parts = [(part, rows[finite[rows]]) for part, rows in _parts(examples) if finite[rows].any()]
        figures |= {f"loss_{part}": float(squared[rows].mean()) for part, rows in parts}
        labels = class_labels_of(examples, outputs.shape[1])
        if labels is not None and predictions.probabilities != "each":
            own = outputs[np.arange(len(outputs)), labels]
            with np.errstate(divide="ignore"):  # a class that was held to be impossible: infinite
                entropy = -np.log(own) if predictions.probabilities else logsumexp(outputs, axis=1) - own
            figures |= {f"cross_entropy_{part}": float(entropy[rows].mean()) for part, rows in parts}
    for name, value in predictions.figures(examples, outputs).items():
        what, _, part = name.removesuffix(")").partition(" (")
        figures[f"{what.lower()}_{part.replace('-', '_')}"] = value
    return figures


def kernel_figures(step: Step, first: Step, last: Step) -> dict[str, float]:
    """Trace and effective rank of the kernel of the fitted examples, how far it is from the first and the last one, by
    size (Frobenius) and by shape (1 - cosine, also of kernels without the mean feature), and its alignment with the targets, on fitted and held-out examples."""
    figures = {"trace": float(np.trace(step.fitted)), "effective_rank": effective_rank(step.spectrum)}
    for name, other in (("initial", first), ("final", last)):
        figures[f"change_from_{name}"] = relative_change(step.fitted, other.fitted)
        figures[f"distance_from_{name}"] = cosine_distance(step.fitted, other.fitted)
        figures[f"centred_distance_from_{name}"] = cosine_distance(step.centred, other.centred)
    targets = targets_as(step.examples, step.outputs.shape[1])
    if targets is not None:
        for part, rows in _parts(step.examples):
            figures[f"alignment_{part}"] = alignment(step.kernel[np.ix_(rows, rows)], targets[rows])
    return figures


def dual_figures(step: Step) -> dict[str, float]:
    """Ridge regressions on this step's kernel, judged on held-out examples: R2 to the outputs and agreement with the
    predicted class that the network has at this step, fitted to these outputs and to the labels; accuracy of the latter.
    None without two held-out examples."""
    figures: dict[str, float] = {}
    if not can_judge(step.examples):
        return figures
    for target, one in fidelities_of(step.kernel, step.spectral, step.outputs, step.examples).items():
        fitted = "labels" if target == "labels" else "outputs"
        found = {"r2": one.r2, "agreement": one.agreement} | ({"accuracy": one.accuracy} if fitted == "labels" else {})
        figures |= {f"{what}_from_{fitted}": value for what, value in found.items() if value is not None}
    return figures


def concept_figures(step: Step, dimension: int) -> Iterator[tuple[str, float, float]]:
    """Of each concept: its name, the alignment of the kernel of all examples with it, and the share of its span that lies in that of the
    leading eigen features, as many as `dimension`, both without their mean; NaN where it does not vary."""
    basis = orthonormal(step.activations(dimension)) if step.examples.concepts else np.empty((0, 0))
    for concept in step.examples.concepts:
        known = orthonormal(concept.values)
        share = subspace_overlap(basis, known) if known.shape[1] else float("nan")
        yield concept.name, alignment(step.kernel, concept.values), share


def orthonormal(columns: Matrix) -> Matrix:
    """Orthonormal columns (n, rank) of the span of columns (n, k), each with its mean taken off; of length one before
    that, so that small ones count."""
    lengths = np.linalg.norm(columns, axis=0)
    centred = (columns - columns.mean(axis=0)) / np.where(lengths > 0, lengths, 1)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(left[:, sizes > _NOTHING])


def _parts(examples: Examples) -> Iterator[tuple[str, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """The parts of the examples that there are, with their positions."""
    if examples.training is None:
        yield "all", np.arange(len(examples))
        return
    yield "training", np.flatnonzero(examples.training)
    if not examples.training.all():
        yield "held_out", np.flatnonzero(~examples.training)
