"""What the outputs of a network say of the targets: scores of classes, yes or no, or values; and how often they are right.

Decided once for a network and its examples, by shapes, names and the values of the outputs, and said in sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from feature_lens.examples import Examples

Matrix = npt.NDArray[Any]
_ROUNDING = 1e-3  # of sums of probabilities in half precision


def class_labels_of(examples: Examples, c: int) -> npt.NDArray[np.int64] | None:
    """Labels (n,) where they number the c outputs: there are several, and as many as classes or words of the vocabulary.

    Labels beside other outputs, such as those of an embedding or an autoencoder, say nothing of them: None.
    """
    labels = examples.labels
    if labels is None or c < 2 or examples.n_classes > c:
        return None
    return labels if examples.n_classes == c or (len(examples.vocabulary) == c and not examples.class_names) else None


def targets_as(examples: Examples, c: int) -> npt.NDArray[np.float64] | None:
    """(n, c): class labels as one-hot rows where they number the outputs, else one real number for each output, which for
    a single output may be a label; None where targets do not fit the outputs."""
    if (labels := class_labels_of(examples, c)) is not None:
        made: npt.NDArray[np.float64] = np.eye(c)[labels]
        return made
    if examples.targets is None or examples.targets.size != len(examples) * c:
        return None
    if examples.labels is not None and len(examples.class_names) > 2:  # numbers of classes, which have no order
        return None
    return np.asarray(examples.targets, dtype=np.float64).reshape(len(examples), c)


@dataclass(frozen=True)
class Predictions:
    """How outputs (n, c) are read beside the targets of the same examples.

    kind: "classes", the largest output is the class; "yes or no", each output is above `threshold` or not, as its target
    is 1 or 0; "values", the targets themselves; "none", outputs and targets have nothing in common. `probabilities`:
    "together", they are between 0 and 1 and sum to 1; "each", each is one by itself; else "".
    """

    kind: Literal["classes", "yes or no", "values", "none"]
    threshold: float | None
    probabilities: Literal["together", "each", ""]
    sentences: tuple[str, ...]

    @classmethod
    def of(cls, examples: Examples, outputs: Matrix) -> Predictions:
        """Read all outputs of the trained network; rows that are not finite have no say."""
        read = cls._of(examples, outputs)
        k, c = len(examples.class_names), outputs.shape[1]
        if examples.labels is None and k not in (0, c):
            told = f"The {k} class names are of neither the targets nor the {c} outputs, so they are not used."
            return replace(read, sentences=(*read.sentences, told))
        return read

    @classmethod
    def _of(cls, examples: Examples, outputs: Matrix) -> Predictions:
        c = outputs.shape[1]
        finite = outputs[np.isfinite(outputs).all(axis=1)]
        between = len(finite) > 0 and bool(((finite >= 0) & (finite <= 1)).all())
        shares = between and c > 1 and bool((np.abs(finite.sum(axis=1) - 1) <= _ROUNDING).all())
        kind: Literal["together", "each", ""] = "together" if shares else "each" if between else ""
        scores = {"together": "probabilities, which sum to 1", "each": "probabilities, each by itself", "": "scores"}[
            kind
        ]
        alone: Literal["together", ""] = (
            "together" if shares else ""
        )  # without classes, values from 0 to 1 are no more than that
        if examples.targets is None:
            return cls("none", None, alone, (f"The outputs are {scores}.",) if shares else ())
        if class_labels_of(examples, c) is not None:
            said = f"The {c} outputs are {scores}, one for each class; the largest is the class predicted."
            return cls("classes", None, kind, (said,))
        wanted = targets_as(examples, c)
        if wanted is None:
            return cls("none", None, alone, (_apart(examples, c), *([f"The outputs are {scores}."] if shares else [])))
        if c == 1 and _signs(wanted):
            return cls("yes or no", 0.0, "", (_yes_or_no(examples, 1, 0.0, False),))
        if np.isin(wanted, (0, 1)).all() and (c == 1 or between or _r2(wanted, outputs) < 0):
            threshold = 0.5 if between else 0.0
            return cls(
                "yes or no", threshold, "each" if between else "", (_yes_or_no(examples, c, threshold, between),)
            )
        if examples.labels is not None:
            return cls("values", None, "", ("Targets are whole numbers, which the one output is to equal.",))
        each = "for the one output" if c == 1 else f"one for each of the {c} outputs"
        return cls("values", None, alone, (f"Targets are real values, {each}.",))

    def chosen(self, outputs: Matrix) -> npt.NDArray[np.int64] | None:
        """(n,) the class that is predicted; None where outputs predict none."""
        if self.kind == "classes":
            return np.asarray(outputs.argmax(axis=1), dtype=np.int64)
        if self.kind == "yes or no" and outputs.shape[1] == 1:
            return np.asarray(outputs[:, 0] > self.threshold, dtype=np.int64)
        return None

    def right(self, examples: Examples, outputs: Matrix) -> npt.NDArray[np.float64] | None:
        """(n,) share of an example's predictions that are right, NaN where outputs are not finite; None where outputs
        predict neither classes nor yes or no."""
        c = outputs.shape[1]
        labels, wanted = class_labels_of(examples, c), targets_as(examples, c)
        if self.kind == "classes" and labels is not None:
            same = (outputs.argmax(axis=1) == labels)[:, None]
        elif self.kind == "yes or no" and wanted is not None:
            same = (outputs > self.threshold) == (wanted > 0)
        else:
            return None
        return np.where(np.isfinite(outputs).all(axis=1), same.mean(axis=1), np.nan)

    def figures(self, examples: Examples, outputs: Matrix) -> dict[str, float]:
        """Accuracy, or R2 for values, of each part of the examples, without those whose outputs are not finite."""
        parts = {"all": np.ones(len(examples), dtype=bool)}
        if examples.training is not None:
            parts = {"training": np.asarray(examples.training), "held-out": ~np.asarray(examples.training)}
        finite = np.isfinite(outputs).all(axis=1)
        right, wanted = self.right(examples, outputs), targets_as(examples, outputs.shape[1])
        found: dict[str, float] = {}
        for part, rows in parts.items():
            rows = rows & finite
            if not rows.any():
                continue
            if right is not None:
                found[f"accuracy ({part})"] = float(right[rows].mean())
            elif self.kind == "values" and wanted is not None:
                score = _r2(wanted[rows], outputs[rows])
                if np.isfinite(score):  # constant targets have no R2
                    found[f"R2 ({part})"] = score
        return found


def _signs(wanted: Matrix) -> bool:
    return np.array_equal(np.unique(wanted), (-1, 1))


def _r2(wanted: Matrix, outputs: Matrix) -> float:
    """1 - squared residuals / squared deviations from each target's mean, of all outputs together; finite rows only."""
    finite = np.isfinite(outputs).all(axis=1)
    wanted, outputs = wanted[finite], outputs[finite]
    if len(wanted) == 0:
        return float("nan")
    total = float(np.square(wanted - wanted.mean(axis=0)).sum())
    with np.errstate(over="ignore"):  # far beyond the targets: minus infinity
        return 1 - float(np.square(outputs - wanted).sum()) / total if total > 0 else float("nan")


def _yes_or_no(examples: Examples, c: int, threshold: float, probabilities: bool) -> str:
    what = "probability" if probabilities else "logit"
    above = f"above {threshold:g}"
    if c > 1:
        what = "probabilities" if probabilities else "logits"
        return f"The {c} outputs are {what} of yes or no, each by itself; {above} is yes."
    name = examples.class_name(1) if examples.labels is not None else "1"
    return f"The one output is a {what} of two classes; {above} it predicts '{name}'."


def _apart(examples: Examples, c: int) -> str:
    """Why targets say nothing of the outputs."""
    outputs = "one output" if c == 1 else f"{c} outputs"
    labels = examples.labels
    if labels is None:
        values = 1 if examples.targets is None or examples.targets.ndim == 1 else examples.targets.shape[1]
        return (
            f"Targets are {values} real value{'s' * (values > 1)} for each example, which the network's {outputs} cannot be "
            "held against, so there is no R2."
        )
    return (
        f"Labels are of {examples.n_classes} classes, and the network's {outputs} are not their scores, so there is no "
        "accuracy; if they are, give as many class names as there are outputs."
    )
