"""What is known of examples, as a table: id, split, target and prediction with their names, duplicates."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.predictions import Predictions, class_labels_of
from feature_lens.run_contents import RunContents


def example_table(run: RunContents, positions: npt.NDArray[np.integer] | None = None) -> pd.DataFrame:
    """One row per position (all examples where None), in the order given.

    Columns: example_id, split, target, target_name, predicted, predicted_name, duplicate_of. What is not known is
    null: split without a split, target without targets, names where targets are real values. `predicted` is the
    largest output, or whether the one output says yes; null where outputs predict no class; several real target values
    are one JSON list.
    `duplicate_of` is the id of the first example with the very same input, null for that one itself.
    """
    examples = run.examples
    at = np.arange(len(examples)) if positions is None else np.asarray(positions, dtype=np.int64)
    target, target_name = _targets(run, at)
    predicted, predicted_name = _predictions(run, at)
    first = examples.duplicate_group[at]
    duplicates = pd.Series(_ids(examples.ids[first]))
    return pd.DataFrame(
        {
            "example_id": _ids(examples.ids[at]),
            "split": _splits(run, at),
            "target": target,
            "target_name": target_name,
            "predicted": predicted,
            "predicted_name": predicted_name,
            "duplicate_of": duplicates.where(first != at),
        }
    )


def _ids(ids: npt.NDArray[Any]) -> Any:
    if np.issubdtype(ids.dtype, np.integer):
        return pd.array(ids, dtype="Int64")
    return pd.array([str(name) for name in ids], dtype="string")


def _text(words: list[str | None]) -> Any:
    return pd.array(words, dtype="string")


def _splits(run: RunContents, at: npt.NDArray[np.int64]) -> Any:
    training = run.examples.training
    if training is None:
        return _text([None] * len(at))
    return pd.array(np.where(training[at], "training", "held-out"), dtype="string")


def class_words(run: RunContents, labels: npt.NDArray[np.integer]) -> list[str | None]:
    """Names of class labels, looked up once per class."""
    names = {int(label): run.examples.class_name(int(label)) for label in np.unique(labels)}
    return [names[int(label)] for label in labels]


def _targets(run: RunContents, at: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    examples = run.examples
    none = _text([None] * len(at))
    if examples.targets is None:
        return pd.array([None] * len(at), dtype="Int64"), none
    if (labels := examples.labels) is not None:
        return pd.array(labels[at], dtype="Int64"), _text(class_words(run, labels[at]))
    if examples.targets.ndim == 1:
        return pd.array(examples.targets[at].astype(np.float64), dtype="Float64"), none
    return _text([json.dumps(row.tolist()) for row in examples.targets[at]]), none


def predicted_classes(run: RunContents, at: npt.NDArray[np.integer]) -> npt.NDArray[np.int64] | None:
    """Class that the network predicts of the examples at these positions (s,): the largest output, where there are no
    labels that say otherwise, or yes or no of a single one; None where outputs predict no class.

    Reads the rows of several outputs alone where they are few.
    """
    c = run.outputs.shape[1]
    if c == 1 or (run.examples.targets is not None and class_labels_of(run.examples, c) is None):
        if c > 1 or run.examples.labels is None:
            return None
        outputs = np.asarray(run.outputs[:])
        chosen = Predictions.of(run.examples, outputs).chosen(outputs)
        return None if chosen is None else chosen[np.asarray(at, dtype=np.int64)]
    rows, back = np.unique(at, return_inverse=True)
    outputs = run.outputs[rows] if len(rows) < min(len(run.examples) / 8, 512) else run.outputs[:][rows]
    return np.asarray(np.asarray(outputs).argmax(axis=1)[back.ravel()], dtype=np.int64)


def _predictions(run: RunContents, at: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    predicted = predicted_classes(run, at)
    if predicted is None:
        return pd.array([None] * len(at), dtype="Int64"), _text([None] * len(at))
    return pd.array(predicted, dtype="Int64"), _text(class_words(run, predicted))
