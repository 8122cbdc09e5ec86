"""Targets of every type: labels mean what they mean in pandas and scikit-learn, and what cannot be targets is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import LabelEncoder
from torch.utils.data import TensorDataset

from feature_lens.errors import ExamplesError
from feature_lens.examples import Examples

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])
WORDS = ["cat", "ant", "bee", "cat", "ant", "bee"]


def _made(targets: Any, **more: Any) -> Examples:
    return Examples.from_arrays(X, targets, **more)


# Kinds of label, with the labels and the names of the classes that they are.
SAME = Y.tolist(), ()
WORDED = [2, 0, 1, 2, 0, 1], ("ant", "bee", "cat")
TRUTH = [0, 1, 1, 0, 1, 1], ("False", "True")
HOT = Y.tolist(), ("0", "1", "2")
LABELS: dict[str, tuple[Any, tuple[list[int], tuple[str, ...]]]] = {
    "a list": (Y.tolist(), SAME),
    "small integers": (Y.astype(np.uint8), SAME),
    "a tensor": (torch.as_tensor(Y), SAME),
    "a column vector": (Y[:, None], SAME),
    "a column of a table": (pd.Series(Y, index=list("uvwxyz")), SAME),
    "a table of one column": (pd.DataFrame({"y": Y}), SAME),
    "an index": (pd.Index(Y), SAME),
    "nullable integers": (pd.Series(Y, dtype="Int64"), SAME),
    "small nullable integers": (pd.array(Y, dtype="UInt8"), SAME),
    "integers of Arrow": (pd.Series(Y, dtype="int64[pyarrow]"), SAME),
    "integers as objects": (Y.astype(object), SAME),
    "integers in a column of objects": (pd.Series(Y, dtype=object), SAME),
    "truth values": (Y > 0, TRUTH),
    "a tensor of truth values": (torch.as_tensor(Y > 0), TRUTH),
    "nullable truth values": (pd.Series(Y > 0, dtype="boolean"), TRUTH),
    "truth values as objects": ((Y > 0).astype(object), TRUTH),
    "words": (WORDS, WORDED),
    "an array of words": (np.array(WORDS), WORDED),
    "a column vector of words": (np.array(WORDS)[:, None], WORDED),
    "words as objects": (np.array(WORDS, dtype=object), WORDED),
    "bytes": (np.array(WORDS, dtype="S"), WORDED),
    "text of pandas": (pd.Series(WORDS, dtype="string"), WORDED),
    "text of Arrow": (pd.Series(WORDS, dtype="string[pyarrow]"), WORDED),
    "categories": (pd.Series(WORDS, dtype="category"), WORDED),
    "bare categories": (pd.Categorical(WORDS), WORDED),
    "categories in an order of their own": (
        pd.Categorical(WORDS, categories=["bee", "cat", "ant", "dog"], ordered=True),
        ([1, 2, 0, 1, 2, 0], ("bee", "cat", "ant", "dog")),
    ),
    "categories of numbers": (pd.Series([7, 3, 5] * 2, dtype="category"), ([2, 0, 1] * 2, ("3", "5", "7"))),
    "intervals": (pd.cut([1, 5, 5, 1, 1, 5], [0, 2, 6]), ([0, 1, 1, 0, 0, 1], ("(0, 2]", "(2, 6]"))),
    "one-hot rows": (np.eye(3)[Y], HOT),
    "one-hot rows of integers": (np.eye(3, dtype=int)[Y], HOT),
    "one-hot rows of truth values": (np.eye(3, dtype=bool)[Y], HOT),
    "a one-hot table": (pd.get_dummies(pd.Series(WORDS)), WORDED),
    "a class that no row has": (np.eye(4)[Y], (Y.tolist(), ("0", "1", "2", "3"))),
    "real zeros and ones": ((Y > 0).astype(np.float32), (TRUTH[0], ())),
    "nullable zeros and ones": (pd.Series(Y > 0, dtype="Float64"), (TRUTH[0], ())),
    "minus one and one": (np.where(Y > 0, 1, -1), (TRUTH[0], ("-1", "1"))),
}  # fmt: skip


@pytest.mark.parametrize("case", LABELS)
def test_labels_of_every_type(case: str) -> None:
    given, (labels, names) = LABELS[case]
    made = _made(given)
    assert made.labels is not None
    assert (made.labels.dtype, made.labels.tolist(), made.class_names) == (np.int64, labels, names)
    assert made.n_classes == (len(names) or max(labels) + 1)
    assert all(said.endswith(".") and "\n" not in said for said in made.inferred)


def test_words_are_numbered_as_scikit_learn_numbers_them() -> None:
    encoder = LabelEncoder().fit(WORDS)
    made = _made(WORDS)
    assert made.labels is not None
    assert made.labels.tolist() == encoder.transform(WORDS).tolist()
    assert made.class_names == tuple(encoder.classes_)
    assert made.inferred == ("Targets are words, taken as 3 classes in alphabetical order: ant, bee, cat.",)


NAMED: dict[str, tuple[Any, list[str], list[int]]] = {
    "words": (WORDS, ["bee", "cat", "ant", "dog"], [1, 2, 0, 1, 2, 0]),
    "categories": (pd.Series(WORDS, dtype="category"), ["bee", "cat", "ant"], [1, 2, 0, 1, 2, 0]),
    "whole real numbers": (Y.astype(float), ["x", "y", "z"], Y.tolist()),
    "minus one and one": (np.where(Y > 0, 1, -1), ["no", "yes"], TRUTH[0]),
    "truth values": (Y > 0, ["no", "yes"], TRUTH[0]),
    "one-hot rows": (np.eye(3)[Y], ["x", "y", "z"], Y.tolist()),
}


@pytest.mark.parametrize("case", NAMED)
def test_class_names_that_are_given_number_the_classes(case: str) -> None:
    given, names, labels = NAMED[case]
    made = _made(given, class_names=names)
    assert made.labels is not None
    assert (made.labels.tolist(), list(made.class_names)) == (labels, names)


VALUES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "real numbers": (Y / 2, (6,)),
    "whole real numbers": (Y.astype(float), (6,)),
    "real signs": (np.where(Y > 0, 1.0, -1.0), (6,)),
    "a column vector": (Y[:, None] / 2, (6,)),
    "a table": (pd.DataFrame({"a": Y / 2, "b": pd.Series(Y, dtype="Int64")}), (6, 2)),
    "nullable real numbers": (pd.Series(Y / 2, dtype="Float32"), (6,)),
    "numbers of two types": ([1, 0.5, 2, 3, 4, 5], (6,)),
    "decimal numbers": ([Decimal(int(y)) / 2 for y in Y], (6,)),
    "several labels": (np.array([[1, 1, 0], [0, 0, 0]] * 3), (6, 3)),
    "several truth values": (np.array([[True, True], [False, True]] * 3), (6, 2)),
    "pictures": (np.arange(36.0).reshape(6, 2, 3), (6, 6)),
    "half precision": (torch.as_tensor(Y / 2).to(torch.bfloat16), (6,)),
}


@pytest.mark.parametrize("case", VALUES)
def test_all_other_numbers_are_real_values(case: str) -> None:
    given, shape = VALUES[case]
    made = _made(given)
    assert made.targets is not None
    assert (made.labels, made.targets.shape, made.n_classes) == (None, shape, 0)
    if case != "decimal numbers":
        wanted = given.to(torch.float64) if isinstance(given, torch.Tensor) else given
        np.testing.assert_array_equal(made.targets, np.asarray(wanted, dtype=float).reshape(shape))


IDS = list("abcdef")
REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "dates": (lambda: pd.date_range("2020", periods=6), {}, r"or a word for each example, but datetime64\[.s\] of shape"),
    "spans of time": (lambda: np.arange(6).astype("timedelta64[D]"), {}, r"but timedelta64\[D\] of shape \(6,\) came"),
    "months": (lambda: pd.period_range("2020-01", periods=6, freq="M"), {}, "of one type, .* objects of Period came"),
    "complex numbers": (lambda: Y + 1j, {}, r"but complex128 of shape \(6,\) came"),
    "a missing category": (lambda: pd.Categorical(WORDS).remove_categories("bee"), {}, r"2 of 6 are missing \(ids c, f\)"),
    "a missing nullable": (lambda: pd.Series([0, None, 1, 0, 1, 1], dtype="Int64"), {}, r"1 of 6 are missing \(ids b\)"),
    "a missing truth": (lambda: pd.array([True, None] * 3, dtype="boolean"), {}, r"3 of 6 are missing \(ids b, d, f\)"),
    "a missing word": (lambda: pd.Series([*WORDS[:5], None]), {}, r"1 of 6 are missing \(ids f\)"),
    "a word that is NaN": (lambda: [*WORDS[:5], float("nan")], {}, r"1 of 6 are missing \(ids f\)"),
    "nothing": (lambda: [0, 1, None, 0, 1, 1], {}, r"1 of 6 are missing \(ids c\)"),
    "a hole in a table": (
        lambda: pd.DataFrame({"a": Y, "b": pd.Series([0, 1, None, 0, 1, 1], dtype="Int64")}),
        {},
        r"1 of 6 are missing \(ids c\)",
    ),
    "words and numbers": (lambda: ["cat", 1, 2, 3, 4, 5], {}, "of one type, numbers or words, but objects of int and str"),
    "objects": (lambda: [object()] * 6, {}, "objects of object came; convert them first"),
    "rows of unequal length": (lambda: [[1, 2], [3]] * 3, {}, "targets must form one array, .*; give numbers or text of equal shapes"),
    "words in two columns": (lambda: np.array(WORDS * 2).reshape(6, 2), {}, r"but <U3 of shape \(6, 2\) came"),
    "too many categories": (lambda: pd.Categorical([*WORDS, "cat"]), {}, "one target for each of 6 examples, but 7 came"),
    "too large": (lambda: Y.astype(np.uint64) + np.uint64(2**63), {}, r"below 2\^63, but 9223372036854775810 came"),
    "much too large": (lambda: [0, 1, 2, 3, 4, 2**70], {}, r"below 2\^63, but 1180591620717411303424 came"),
    "a word without a name": (lambda: WORDS, {"class_names": ["cat", "ant"]}, r"2 are not \(such as 'bee' at id c\)"),
    "columns without a name": (lambda: np.eye(3)[Y], {"class_names": ["a"]}, "3 columns need a name .* but 1 class names"),
    "categories of one name": (lambda: pd.Categorical([1, "1"] * 3), {}, "'1' came more than once; give each class"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_targets_is_one_sentence(case: str) -> None:
    given, more, sentence = REFUSED[case]
    with pytest.raises(ExamplesError, match=sentence) as error:
        _made(given(), ids=IDS, **more)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_labels_of_data_sets_and_parts_of_them() -> None:
    words = list(zip(X, WORDS, strict=True))
    assert Examples.from_dataset(words).class_names == WORDED[1]
    hot = Examples.from_dataset(TensorDataset(torch.as_tensor(X), torch.eye(3)[torch.as_tensor(Y)]))
    assert (hot.n_classes, hot.class_names) == (3, HOT[1])
    part = _made(Y).on(np.array([0, 1]))
    assert part.labels is not None
    assert (part.labels.tolist(), part.n_classes) == ([0, 1], 3)  # a part knows of the classes of the whole
    assert _made(Y / 2).on(np.array([0])).n_classes == 0
