"""Example sets: what goes in comes out, and whatever does not fit together is one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from feature_lens.concepts import Concept
from feature_lens.errors import ExamplesError
from feature_lens.examples import Examples, Modality

X = np.arange(24.0).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_arrays_lists_and_tensors_give_the_same_examples() -> None:
    wanted = Examples.from_arrays(X, Y)
    for inputs, targets in ((X.tolist(), Y.tolist()), (torch.as_tensor(X), torch.as_tensor(Y))):
        made = Examples.from_arrays(inputs, targets)
        np.testing.assert_array_equal(made.inputs[:], X)
        assert made.digest() == wanted.digest()
    assert len(wanted) == 6
    assert wanted.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert wanted.training is None
    assert wanted.labels is not None
    assert wanted.labels.tolist() == Y.tolist()
    assert wanted.fitting.tolist() == [0, 1, 2, 3, 4, 5]
    assert [wanted.split_name(i) for i in range(6)] == [""] * 6


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan": (
        {"inputs": np.where(X == 9, np.nan, X), "ids": list("abcdef")},
        r"must be finite, but 1 of 6 examples hold NaN or infinity \(ids c\); fill or drop them first",
    ),
    "much nan": ({"inputs": np.where(X > 5, np.inf, X)}, r"5 of 6 examples .* \(ids 1, 2, 3, ...\)"),
    "half precision nan": ({"inputs": np.full((2, 2), np.nan, dtype=np.float16)}, r"2 of 2 examples .* \(ids 0, 1\)"),
    "ids of another length": ({"ids": [1, 2]}, r"one id for each of 6 examples, but the shape \(2,\) came"),
    "ids in two columns": ({"ids": np.zeros((6, 2), dtype=int)}, r"one id for each of 6 .* \(6, 2\) came"),
    "real ids": ({"ids": np.arange(6.0)}, "Ids are integers or strings, but float64 came; convert them first"),
    "boolean ids": ({"ids": np.arange(6) > 2}, "Ids are integers or strings, but bool came"),
    "objects as ids": ({"ids": [None] * 6}, "ids must form one array of numbers or text, but objects of NoneType came"),
    "duplicate ids": ({"ids": [1, 2, 3, 2, 1, 4]}, r"unique, but 2 occur more than once \(such as 1\); give each example its own"),
    "duplicate words": ({"ids": ["a", "b", "a", "c", "d", "e"]}, r"1 occur more than once \(such as a\)"),
    "ids beyond 2^63": ({"ids": np.arange(6, dtype=np.uint64) + np.uint64(2**63)}, r"below 2\^63, but 9223372036854775813"),
    "targets of another length": ({"targets": Y[:4]}, r"shape \(6,\) or \(6, c\), or a word .* but int64 of shape \(4,\) came"),
    "targets without entries": ({"targets": np.zeros((6, 0))}, r"but float64 of shape \(6, 0\) came"),
    "one target for all": ({"targets": 3}, r"int64 of shape \(\) came; give one label, or one row of values"),
    "targets with nan": (
        {"targets": [0.5, np.nan, 1, 2, np.inf, 3], "ids": list("abcdef")},
        r"Targets must be finite, but 2 of 6 are not \(ids b, e\)",
    ),
    "a negative label": (
        {"targets": Y - 1, "ids": list("abcdef")},
        r"labels must be 0 or more, but 2 are not \(such as -1 at id a\); relabel the data",
    ),
    "a label without a name": (
        {"targets": Y, "class_names": ["x", "y"]},
        r"labels must be 0 to 1, but 2 are not \(such as 2 at id 2\)",
    ),
    "class names in one word": ({"targets": Y, "class_names": "abc"}, "class names are a list of words, but the text 'abc'"),
    "a vocabulary in one word": ({"vocabulary": "abc"}, "vocabulary are a list of words, but the text 'abc'"),
    "a split of another length": ({"split": [True, False]}, r"one entry for each of 6 examples, but the shape \(2,\)"),
    "a split in unknown words": ({"split": ["train", "valid"] * 3}, "says 'train' or 'held-out' .* but 'valid' came"),
    "a split in numbers": ({"split": Y}, "says 'train' or 'held-out' .* but '0' came"),
    "a split without training": ({"split": [False] * 6}, "at least one training example, but it has none; leave"),
    "an unknown modality": ({"modality": "smell"}, "one of image, signal, tokens, passage, vector, pair, text, not 'smell'; choose"),
    "an image without shape": ({"modality": "image"}, r"'image' needs a shape \(channels, height, width\), but \(4,\) came"),
    "a modality that is too large": (
        {"modality": Modality("image", (1, 3, 2))},
        r"shape \(1, 3, 2\) shows 6 entries, but an input has 4; give the shape",
    ),
    "a concept of another length": ({"concepts": {"a": Y[:4]}}, "'a' needs a row for each of 6 examples, but 4 came"),
    "a concept of words": ({"concepts": {"a": list("abcdef")}}, r"'a' needs real values \(n, d\), but <U1 of shape \(6, 1\)"),
    "a concept of three axes": ({"concepts": {"a": np.zeros((6, 1, 1))}}, r"real values \(n, d\), but float64 of shape \(6, 1, 1\)"),
    "a concept without columns": ({"concepts": {"a": np.zeros((6, 0))}}, r"real values \(n, d\), but float64 of shape \(6, 0\)"),
    "a ragged concept": ({"concepts": {"a": [[1, 2], [3]]}}, "'a' must form one array, but list came, which forms none"),
    "a concept that is not known": ({"concepts": {"a": [1, np.nan, 2, np.inf, 3, 4]}}, "'a' must be known of every example, but 2 hold NaN"),
    "a concept that leaves its place": ({"concepts": {"a/b": Y}}, "without '/', .* but 'a/b' came; choose another name"),
    "a concept that hides": ({"concepts": {"..": Y}}, "does not begin with '.', but '..' came"),
    "a concept without a name": ({"concepts": {"": Y}}, "of 1 to 80 characters .* but '' came"),
    "a concept under another name": ({"concepts": {"a": Concept.of("b", Y)}}, "'b' was given under the name 'a'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_sentence(case: str) -> None:
    parts, sentence = BAD[case]
    with pytest.raises(ExamplesError, match=sentence) as error:
        Examples.from_arrays(**({"inputs": X} | parts))
    said = str(error.value)
    assert "\n" not in said
    assert said.endswith(".")


def test_ids_splits_and_names_as_tables_and_libraries_hold_them() -> None:
    table = pd.DataFrame({"name": list("abcdef"), "part": ["train", "held-out"] * 3})
    for ids, split in (
        (table["name"], table["part"]),
        (table["name"].to_numpy(dtype=object), table["part"].to_numpy(dtype=object)),
        (table["name"].astype("string"), table["part"].astype("string")),
        (list("abcdef"), ["training", "test"] * 3),
        (np.array(list("abcdef")), [True, False] * 3),
    ):
        made = Examples.from_arrays(X, Y, ids=ids, split=split, class_names=np.array(["x", "y", "z"]))
        assert made.ids.tolist() == list("abcdef")
        assert made.ids.dtype.kind == "U"
        assert made.training is not None
        assert made.training.tolist() == [True, False] * 3
        assert made.fitting.tolist() == [0, 2, 4]
        assert [made.split_name(i) for i in (0, 1)] == ["training", "held-out"]
        assert [made.class_name(i) for i in (0, 2, 7)] == ["x", "z", "7"]
    assert Examples.from_arrays(X, ids=np.arange(6, dtype=np.uint8)).ids.dtype == np.int64


class _Pairs(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class _Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(X[0], 0)])


class _SizedStream(_Stream):
    def __len__(self) -> int:
        return 1


def test_torch_data_sets() -> None:
    inputs, labels = torch.as_tensor(X), torch.as_tensor(Y)
    wanted = Examples.from_arrays(X, Y)
    assert Examples.from_dataset(TensorDataset(inputs, labels)).digest() == wanted.digest()
    assert Examples.from_dataset(list(zip(X, Y.tolist(), strict=True))).digest() == wanted.digest()
    alone = Examples.from_arrays(X)
    for dataset in (TensorDataset(inputs), _Pairs(list(inputs)), X):
        assert Examples.from_dataset(dataset).digest() == alone.digest()
    rows = Examples.from_dataset(TensorDataset(inputs, torch.eye(6) / 2), ids=list("abcdef"), class_names=["a"])
    assert rows.targets is not None
    assert rows.targets.shape == (6, 6)
    assert (rows.ids.tolist(), rows.class_names) == (list("abcdef"), ("a",))
    images = _Pairs([(torch.zeros(3, 5, 4), i) for i in range(2)])
    assert Examples.from_dataset(images).modality == Modality("image", (3, 5, 4))


BAD_SETS: dict[str, tuple[Any, str]] = {
    "empty": (_Pairs([]), "at least one example, but it is empty"),
    "ragged": (_Pairs([(X[0], 0), (X[0, :2], 1)]), r"All inputs need one shape, but 2 came \(\(2,\), \(4,\)\)"),
    "ragged targets": (_Pairs([(X[0], [0, 1]), (X[0], [1])]), "All targets need one shape, but 2 came"),
    "triples": (_Pairs([(X[0], 0, 1)]), "items of 3 parts came; wrap the data set so that it gives pairs"),
    "mixed": (_Pairs([(X[0], 0), X[1]]), "items of 1 and 2 parts came"),
    "a stream": (_Stream(), "needs a length and items by index, but _Stream has not .*; give a map-style"),
    "a stream with a length": (_SizedStream(), "needs a length and items by index, but _SizedStream has not"),
    "an iterator": (iter([1]), "needs a length and items by index, but list_iterator has not"),
    "a dictionary": ({"a": 1}, "needs a length and items by index, but dict has not"),
    "a number": (3, "needs a length and items by index, but int has not"),
}


@pytest.mark.parametrize("case", BAD_SETS)
def test_data_sets_that_cannot_be_used(case: str) -> None:
    dataset, sentence = BAD_SETS[case]
    with pytest.raises(ExamplesError, match=sentence) as error:
        Examples.from_dataset(dataset)
    assert "\n" not in str(error.value)


def test_modalities_are_inferred_from_shapes() -> None:
    cases: list[tuple[tuple[int, ...], type, Modality]] = [
        ((2, 7), float, Modality("vector", (7,))),
        ((2, 7), bool, Modality("vector", (7,))),
        ((2, 7), int, Modality("tokens", (7,))),
        ((2, 3, 9), float, Modality("signal", (3, 9))),
        ((2, 3, 9), int, Modality("signal", (3, 9))),
        ((2, 5, 8, 9), float, Modality("image", (5, 8, 9))),
        ((2, 1, 2, 3, 4), float, Modality("text", (1, 2, 3, 4))),
        ((2, 28, 28, 3), float, Modality("image", (3, 28, 28), channels_last=True)),
        ((2, 9, 8, 1), int, Modality("image", (1, 9, 8), channels_last=True)),
        ((2, 2, 2, 3), float, Modality("image", (3, 2, 2), channels_last=True)),
        ((2, 16, 16, 4), float, Modality("image", (4, 16, 16), channels_last=True)),
        ((2, 100, 2), float, Modality("signal", (2, 100), channels_last=True)),
        ((2, 3, 28, 28), float, Modality("image", (3, 28, 28))),
        ((2, 1, 7, 3), float, Modality("image", (1, 7, 3))),
        ((2, 3, 4, 3), float, Modality("image", (3, 4, 3))),
        ((2, 16, 4, 4), float, Modality("image", (16, 4, 4))),  # maps of a hidden layer
        ((2, 16, 3, 3), float, Modality("image", (16, 3, 3))),
        ((2, 64, 1, 1), float, Modality("image", (64, 1, 1))),
        ((2, 12, 3), float, Modality("signal", (12, 3))),
    ]
    for shape, kind, wanted in cases:
        made = Examples.from_arrays(np.zeros(shape, dtype=kind))
        assert made.modality == wanted
        said = [
            f"Inputs of shape {' x '.join(map(str, shape[1:]))} are taken as {wanted.kind}s with {wanted.shape[0]} channel"
        ]
        assert [one[: len(said[0])] for one in made.inferred] == (said if wanted.channels_last else [])


def test_where_channels_are_is_what_is_said() -> None:
    for shape, last, modality, wanted in (
        ((2, 9, 8, 3), False, None, Modality("image", (9, 8, 3))),
        ((2, 9, 8, 5), True, None, Modality("image", (5, 9, 8), channels_last=True)),
        ((2, 9, 8, 5), True, "image", Modality("image", (5, 9, 8), channels_last=True)),
        ((2, 9, 8), True, "image", Modality("image", (1, 9, 8))),
        ((2, 9, 5), True, "signal", Modality("signal", (5, 9), channels_last=True)),
        ((2, 60), None, Modality("image", (3, 5, 4)), Modality("image", (3, 5, 4))),
        ((2, 60), True, Modality("image", (3, 5, 4), 0, 1), Modality("image", (3, 5, 4), 0, 1, True)),
    ):
        made = Examples.from_arrays(np.zeros(shape), channels_last=last, modality=modality)
        assert (made.modality, made.inferred) == (wanted, ())
    for shape in ((2, 7), (2, 1, 2, 3, 4)):
        with pytest.raises(ExamplesError, match=r"Channels come last in images and signals, but '(vector|text)' came"):
            Examples.from_arrays(np.zeros(shape), channels_last=True)


def test_channels_come_first_in_what_is_arranged() -> None:
    pictures = np.arange(2 * 5 * 4 * 3).reshape(2, 5, 4, 3)
    last = Modality("image", (3, 5, 4), channels_last=True)
    np.testing.assert_array_equal(last.arranged(pictures.reshape(2, -1)), pictures.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(last.arranged(pictures[0].ravel()), pictures[0].transpose(2, 0, 1))
    first = Modality("image", (3, 5, 4))
    np.testing.assert_array_equal(first.arranged(pictures.reshape(2, -1)), pictures.reshape(2, 3, 5, 4))


def test_modalities_by_name_and_in_full() -> None:
    cases: list[tuple[tuple[int, ...], Any, Modality]] = [
        ((2, 8, 9), "image", Modality("image", (1, 8, 9))),
        ((2, 3, 8, 9), "image", Modality("image", (3, 8, 9))),
        ((2, 9), "signal", Modality("signal", (1, 9))),
        ((2, 2, 9), "signal", Modality("signal", (2, 9))),
        ((2, 9), "tokens", Modality("tokens", (9,))),
        ((2, 9), "vector", Modality("vector", (9,))),
        ((2, 9), "text", Modality("text", (9,))),
        ((2, 9), Modality("image", (1, 3, 3), 0, 1), Modality("image", (1, 3, 3), 0, 1)),
        ((2, 9), Modality("text", ()), Modality("text", ())),
    ]
    for shape, given, wanted in cases:
        assert Examples.from_arrays(np.zeros(shape), modality=given).modality == wanted
    for kind, shape in (("image", (3, 3)), ("signal", (9,)), ("tokens", (3, 3)), ("vector", ())):
        with pytest.raises(ExamplesError, match=f"'{kind}' needs a shape"):
            Modality(kind, shape)  # type: ignore[arg-type]  # the names come from a loop


def test_concepts_are_real_columns_with_names() -> None:
    given = {"parity": Y % 2, "a + b, é": np.eye(3)[Y], "size": Concept.of("size", X[:, :2], ["height", "width"])}
    examples = Examples.from_arrays(X, Y, concepts=given)
    assert [one.name for one in examples.concepts] == list(given)
    parity, waves, size = examples.concepts
    assert (parity.labels, size.labels) == (("parity",), ("height", "width"))
    assert waves.labels == ("a + b, é 0", "a + b, é 1", "a + b, é 2")
    assert parity.values.dtype == np.float64
    assert parity.values.tolist() == [[label % 2] for label in Y]
    some = examples.on(np.array([5, 0]))
    np.testing.assert_array_equal(some.concepts[2].values, X[[5, 0], :2])
    assert some.concepts[2].labels == size.labels
    for labels, sentence in (
        (["one"], "one label for each of its 2 columns, all different, but 1 came"),
        (["one", "one"], "but 2 came, 1 of them different; name each column"),
        ("ab", "a list of words, but the text 'ab' came"),
    ):
        with pytest.raises(ExamplesError, match=sentence):
            Concept.of("size", X[:, :2], labels)


def test_duplicates_are_grouped_by_their_first() -> None:
    inputs = np.array([[1.0, 2], [3, 4], [1, 2], [0.0, 0], [3, 4], [1, 2], [-0.0, 0]])
    assert Examples.from_arrays(inputs).duplicate_group.tolist() == [0, 1, 0, 3, 1, 0, 6]
    assert Examples.from_arrays(np.arange(4)[:, None]).duplicate_group.tolist() == [0, 1, 2, 3]


def test_some_of_the_examples() -> None:
    base = Examples.from_arrays(X, Y, ids=list("abcdef"), split=[True] * 5 + [False], class_names=["x", "y", "z"])
    some = base.on(np.array([5, 0]))
    assert some.ids.tolist() == ["f", "a"]
    np.testing.assert_array_equal(some.inputs[:], X[[5, 0]])
    assert some.targets is not None
    assert some.targets.tolist() == [2, 0]
    assert some.training is not None
    assert some.training.tolist() == [False, True]
    assert (some.modality, some.class_names) == (base.modality, base.class_names)
    assert Examples.from_arrays(X).on(np.array([1])).targets is None


def test_the_digest_changes_with_every_part() -> None:
    base = Examples.from_arrays(
        X, Y, ids=list("abcdef"), split=[True] * 5 + [False], class_names=("x", "y", "z"), vocabulary=("v",)
    )
    nudged = X.copy()
    nudged[3, 2] = np.nextafter(nudged[3, 2], 99)
    assert base.training is not None
    others = [
        replace(base, ids=np.array(list("abcdeg"))),
        replace(base, ids=np.arange(6)),
        replace(base, inputs=nudged),
        replace(base, inputs=X.astype(np.float32)),
        replace(base, inputs=X.reshape(6, 2, 2)),
        replace(base, targets=Y[::-1].copy()),
        replace(base, targets=Y.astype(float)),
        replace(base, targets=None),
        replace(base, training=~base.training),
        replace(base, training=None),
        replace(base, class_names=("x", "y", "w")),
        replace(base, vocabulary=()),
        replace(base, modality=Modality("image", (1, 2, 2))),
        replace(base, modality=Modality("vector", (4,), 0, 1)),
        replace(base, modality=Modality("image", (1, 2, 2), channels_last=True)),
        replace(base, concepts=(Concept.of("a", Y),)),
        replace(base, concepts=(Concept.of("b", Y),)),
        replace(base, concepts=(Concept.of("a", Y, ["b"]),)),
        replace(base, concepts=(Concept.of("a", Y + 1),)),
    ]
    digests = [example_set.digest() for example_set in [base, *others]]
    assert len(set(digests)) == len(digests)
    assert replace(base, inputs=np.asfortranarray(X)).digest() == base.digest()


def test_class_names_must_differ() -> None:
    with pytest.raises(ExamplesError, match="'cat' came more than once"):
        Examples.from_arrays(X, Y, class_names=["cat", "bee", "cat"])


@pytest.mark.parametrize("text", ["a\0", "a\0b", "\udcff", "half \ud800"])
def test_text_that_no_file_can_hold_is_refused_at_once(text: str) -> None:
    x, two = np.zeros((2, 3)) + np.arange(3), ["fine", text]
    settings: list[dict[str, Any]] = [
        {"ids": two},
        {"class_names": two, "targets": [0, 1]},
        *([{"vocabulary": two}] if "\0" not in text else []),
    ]
    for given in settings:
        with pytest.raises(ExamplesError, match="A file cannot hold the text"):
            Examples.from_arrays(x, **given)
    with pytest.raises(ExamplesError, match="A file cannot hold the text"):
        Concept.of("known", np.zeros((2, 2)), two)


def test_an_id_longer_than_a_file_takes_is_refused_at_once() -> None:
    assert Examples.from_arrays(X[:2], ids=["ß" * 32_768, "b"]).ids[1] == "b"
    with pytest.raises(
        ExamplesError, match=r"An id takes at most 65,536 bytes among 2, but 'ßßß.*' takes 65,538; shorten"
    ):
        Examples.from_arrays(X[:2], ids=["ß" * 32_769, "b"])
    many = ["a" * 1100, *map(str, range(70_000))]
    with pytest.raises(ExamplesError, match=r"at most 1,024 bytes among 70,001, but 'aaa.*' takes 1,100; shorten it"):
        Examples.from_arrays(np.zeros((len(many), 1)), ids=many)
