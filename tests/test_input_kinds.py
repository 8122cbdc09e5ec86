"""Every kind of array: its numbers go in as they are, or one sentence names what came and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import nn
from torch.utils.data import Dataset

from feature_lens.errors import ExamplesError, NetworkError
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.networks.factories import make_examples

X = np.linspace(-2, 2, 24).reshape(6, 4)
N = np.arange(24).reshape(6, 4) % 7
T = torch.tensor(X)
MASK = X > 1.5


def _conjugated() -> torch.Tensor:
    """The negative imaginary part of conjugates, whose sign torch keeps as a bit."""
    return torch.complex(T, -T).conj().imag


class _Kept:
    """Has an array of its own, as data frames of other libraries have."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, *_: Any, **__: Any) -> Any:
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


class _Subclass(torch.Tensor):
    """As libraries of pictures have."""


# What is given, or a function that makes it, and the numbers that go in (of the type in which they are kept where that is another).
RIGHT: dict[str, tuple[Any, Any]] = {
    "big-endian": (X.astype(">f8"), X),
    "big-endian, single": (X.astype(">f4"), X.astype(np.float32)),
    "big-endian integers": (N.astype(">i2"), N.astype(np.int16)),
    "negative strides": (X[::-1, ::-1][::-1, ::-1], X),
    "every second": (np.repeat(X, 2, axis=1)[:, ::2], X),
    "columns first": (np.asfortranarray(X), X),
    "broadcast": (np.broadcast_to(X[:1], (6, 4)), np.repeat(X[:1], 6, axis=0)),
    "one entry": (X[:1, :1], X[:1, :1]),
    "no mask": (np.ma.masked_array(X), X),
    "a mask of nothing": (np.ma.masked_array(X, mask=np.zeros_like(MASK)), X),
    "half": (X.astype(np.float16), X.astype(np.float16)),
    "unsigned": (N.astype(np.uint16), N.astype(np.uint16)),
    "truth values": (X > 0, X > 0),
    "objects": (X.astype(object), X),
    "whole numbers as objects": (N.astype(object), N),
    "truth values as objects": ((X > 0).astype(object), X > 0),
    "decimals": (np.array([[Decimal("1.5"), Decimal(2)]]), np.array([[1.5, 2.0]])),
    "rows as objects": (pd.Series(list(X)), X),
    "a matrix": (lambda: np.matrix(X), X),
    "a buffer": (memoryview(X), X),
    "what has an array": (_Kept(X), X),
    "a list of arrays": (list(X), X),
    "a data frame": (pd.DataFrame(X), X),
    "columns of several types": (pd.DataFrame({"a": [1, 2], "b": [0.5, 1], "c": [True, False]}), [[1, 0.5, 1], [2, 1, 0]]),
    "nullable integers": (pd.DataFrame(N).astype("Int64"), N),
    "nullable numbers": (pd.DataFrame(X).astype("Float64"), X),
    "nullable truth values": (pd.DataFrame(X > 0).astype("boolean"), X > 0),
    "numbers as categories": (pd.DataFrame(N).astype("category"), N),
    "sparse columns": (pd.DataFrame(N).astype(pd.SparseDtype("int64", 0)), N),
    "a tensor": (T, X),
    "a list of tensors": (list(T), X),
    "a tensor that learns": (T.clone().requires_grad_(True), X),
    "a list that learns": ([row.clone().requires_grad_(True) for row in T], X),
    "a parameter": (nn.Parameter(T), X),
    "a computed tensor": (T.clone().requires_grad_(True) * 1, X),
    "a transposed tensor": (T.T.contiguous().T, X),
    "a negated tensor": (_conjugated(), X),
    "a subclass of tensors": (T.as_subclass(_Subclass), X),
    "bfloat16": (T.bfloat16(), T.bfloat16().float().numpy()),
    "a list of bfloat16": (list(T.bfloat16()), T.bfloat16().float().numpy()),
    "eight bits": (T.to(torch.float8_e5m2), T.to(torch.float8_e5m2).float().numpy()),
    "quantised": (lambda: torch.quantize_per_tensor(T.float(), 0.5, 0, torch.qint8), np.round(X * 2).astype(np.float32) / 2 + 0),
    "integers of torch": (torch.tensor(N).to(torch.uint16), N.astype(np.uint16)),
}  # fmt: skip

# What torch and numpy warn of where such things are made.
_NOVEL = [
    pytest.mark.filterwarnings(f"ignore:{what}")
    for what in ("torch.quantize_per_tensor", "Sparse CSR", "The PyTorch API of", "the matrix subclass")
]


def _made(given: Any) -> Any:
    return given() if isinstance(given, FunctionType) else given


def _novel(test: Any) -> Any:
    for mark in _NOVEL:
        test = mark(test)
    return test


@_novel
@pytest.mark.parametrize("case", RIGHT)
def test_the_numbers_of_every_kind_of_array_go_in(case: str) -> None:
    given, wanted = _made(RIGHT[case][0]), RIGHT[case][1]
    wanted = np.asarray(wanted)
    examples = Examples.from_arrays(given)
    assert type(examples.inputs) is np.ndarray
    assert examples.inputs.dtype == wanted.dtype
    assert examples.inputs.dtype.isnative
    np.testing.assert_array_equal(examples.inputs, wanted)
    assert examples.digest() == Examples.from_arrays(np.ascontiguousarray(wanted)).digest()
    network = Network.from_module(nn.Linear(wanted.shape[1], 2))
    np.testing.assert_array_equal(network.tensor(given).numpy(), wanted)


NUMBERS = "must form one array of numbers or text, but objects of"
WRONG: dict[str, tuple[Any, str]] = {
    "one number": (3.0, r"shape \(n, ...\) with at least one example and one entry, but \(\) came"),
    "one row": (X[0], r"but \(4,\) came; give one row per example"),
    "no examples": (X[:0], r"at least one example and one entry, but \(0, 4\) came"),
    "nothing in a row": (X[:, :0], r"at least one example and one entry, but \(6, 0\) came"),
    "no columns": (pd.DataFrame(index=range(6)), r"at least one example and one entry, but \(6, 0\) came"),
    "ragged": ([[1.0, 2.0], [3.0]], "inputs must form one array, but list came, .*inhomogeneous.*; give .* equal shapes"),
    "ragged rows": (pd.Series([X[0], X[0, :2]]), "All inputs need one shape, but 2 came"),
    "masked": (np.ma.masked_array(X, mask=MASK), "inputs must be known in full, but 3 of 24 entries are masked; fill them"),
    "masked rows": ([np.ma.masked_array(x, mask=m) for x, m in zip(X, MASK, strict=True)], "3 of 4 entries are masked"),
    "a masked tensor": (lambda: torch.masked.masked_tensor(T, T > 0), "but a tensor that has a mask came; give an ordinary"),
    "missing": (pd.DataFrame(N).astype("Int64").mask(N > 5), "known in full, but 1 of 6 entries of a column are missing"),
    "none": (None, f"{NUMBERS} NoneType came; convert"),
    "gaps": (np.array([[1.0, None]]), f"{NUMBERS} NoneType and float came"),
    "any objects": ([[object()], [object()]], f"{NUMBERS} object came"),
    "a dictionary": ({"x": X}, f"{NUMBERS} dict came"),
    "a generator": ((row for row in X), f"{NUMBERS} generator came"),
    "a sparse matrix": (scipy.sparse.csr_matrix(X), "but a sparse csr_matrix came; give .toarray"),
    "a sparse array": (scipy.sparse.coo_array(X), "but a sparse coo_array came"),
    "a sparse tensor": (T.to_sparse(), r"but a sparse Tensor came; give .*\.to_dense\(\) of it"),
    "compressed rows": (lambda: T.to_sparse_csr(), "but a sparse Tensor came"),
    "nested": (lambda: torch.nested.nested_tensor([T[0], T[1]]), "but a tensor that is nested came"),
    "no data": (torch.empty(6, 4, device="meta"), "but a tensor that holds no data came"),
    "complex": (X + 1j, "real numbers of at most 64 bits, but complex128 came"),
    "complex conjugates": (torch.complex(T, T).conj(), "but complex128 came"),
    "dates": (N.astype("datetime64[D]"), r"but datetime64\[D\] came"),
    "spans": (N.astype("timedelta64[s]"), r"but timedelta64\[s\] came"),
    "too precise": (X.astype(np.longdouble), "at most 64 bits, but float128 came"),
    "too large": (N.astype(np.uint64) + np.uint64(2**63), "must be below 2.63, but 9223372036854775814 came; give them as real"),
    "far too large": ([[2**70, 1]], r"are numbers of at most 64 bits, but 1.181e\+21 came"),
    "words": ([["a"], ["b"]], "at most 64 bits, but <U1 came"),
    "words alone": (["a", "b"], "at most 64 bits, but <U1 came"),
    "bytes": (np.array([[b"a"]]), r"but \|S1 came"),
    "records": (np.zeros(3, dtype=[("a", "f4"), ("b", "f4")]), r"but \[\('a', '<f4'\), \('b', '<f4'\)\] came"),
    "raw bytes": (X.view("V8"), r"but \|V8 came"),
    "words among numbers": (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), "at most 64 bits, but <U21 came"),
    "categories of words": (pd.DataFrame({"a": ["x", "y"]}).astype("category"), "but <U1 came|objects of str came"),
    "an array that fails": (_Kept(KeyError("gone")), r"but _Kept came, which forms none \('gone'\)"),
}  # fmt: skip


@_novel
@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_array_of_real_numbers_is_one_sentence(case: str) -> None:
    given, sentence = WRONG[case]
    with pytest.raises(ExamplesError, match=sentence) as error:
        Examples.from_arrays(_made(given))
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("what", ["targets", "ids", "concepts"])
def test_targets_ids_and_concepts_are_of_every_kind_too(what: str) -> None:
    def read(values: Any) -> Any:
        made = Examples.from_arrays(X, **{what: {"a": values} if what == "concepts" else values})
        return {"targets": made.targets, "ids": made.ids, "concepts": made.concepts and made.concepts[0].values[:, 0]}[
            what
        ]

    labels = np.arange(6)
    for given in (labels.astype(">i4"), labels[::-1][::-1], np.ma.masked_array(labels), list(torch.tensor(labels))):
        found = read(given)
        assert found.tolist() == labels.tolist()
        assert found.dtype.isnative
    masked = np.ma.masked_array(labels, mask=labels == 3)
    with pytest.raises(ExamplesError, match=r"1 of 6 (are missing \(ids 3\)|entries are masked); fill"):
        read(masked)
    for given, name in (
        (scipy.sparse.csr_matrix(labels), "a sparse csr_matrix"),
        ({0: 1}, "objects of dict"),
        (_Kept(ZeroDivisionError("no")), r"_Kept came, which forms none \(no\)"),
        (np.ma.masked, "1 of 1 entries are masked"),
    ):
        with pytest.raises(ExamplesError, match=name):
            read(given)


def test_kernels_do_not_depend_on_the_byte_order_or_on_what_may_be_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network.from_module(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
    wanted = EffectiveFeatures(network, Examples.from_arrays(X)).gram()
    fixed = X.copy()
    fixed.flags.writeable = False
    mapped = np.memmap(tmp_path / "x", dtype=">f8", mode="w+", shape=X.shape)
    mapped[:] = X
    for given in (X.astype(">f8"), fixed, mapped):
        np.testing.assert_array_equal(EffectiveFeatures(network, Examples.from_arrays(given)).gram(), wanted)


def test_a_forward_may_write_over_its_inputs() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    kept, changed = X.copy(), nn.Sequential(nn.ReLU(inplace=True), linear)
    examples = Examples.from_arrays(kept)
    network, other = Network.from_module(changed), Network.from_module(nn.Sequential(nn.ReLU(), linear))
    np.testing.assert_array_equal(network.outputs(examples, tile=3), other.outputs(examples, tile=3))
    np.testing.assert_array_equal(
        EffectiveFeatures(network, examples).gram(), EffectiveFeatures(other, examples).gram()
    )
    np.testing.assert_array_equal(kept, X)


def test_numbers_beyond_the_range_of_the_precision_are_refused() -> None:
    network = Network.from_module(nn.Linear(4, 2), precision="float32")
    with pytest.raises(
        NetworkError, match=r"within the range of float32, but 1e\+300 came; scale them, or give precision"
    ):
        network.tensor(np.where(MASK, 1e300, X))
    assert Network.from_module(nn.Linear(4, 2)).tensor(np.full((1, 4), 1e300)).isfinite().all()


# Data sets and factories


class _Items(Dataset[Any]):
    """A data set whose items come of any function."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


def _raise(error: Exception) -> Any:
    raise error


def test_data_sets_whose_items_fail_or_are_of_other_kinds() -> None:
    for item, sentence in (
        (lambda _: _raise(RuntimeError("no file")), r"but _Items has not \(RuntimeError: no file\); give a map-style"),
        (lambda _: _raise(ExamplesError("A sentence.")), r"^A sentence\.$"),
        (lambda _: _raise(ValueError("first\nsecond")), r"\(ValueError: first\)"),
        (lambda k: T[k].to_sparse(), "but a sparse Tensor came"),
        (lambda k: np.ma.masked_array(X[k], mask=MASK[-1]), "3 of 4 entries are masked"),
        (lambda k: {"x": X[k]}, "objects of dict came"),
        (lambda _: None, "objects of NoneType came"),
    ):
        with pytest.raises(ExamplesError, match=sentence):
            Examples.from_dataset(_Items(item))
    learning = Examples.from_dataset(
        _Items(lambda k: (T[k].clone().requires_grad_(True), torch.tensor(k).to(torch.int8)))
    )
    np.testing.assert_array_equal(learning.inputs, X[:3])
    assert learning.labels is not None


def test_factories_of_sparse_matrices_are_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sparse_factory.py").write_text("import scipy.sparse\ndef make(): return scipy.sparse.eye(3).tocsr()\n")
    with pytest.raises(ExamplesError, match=r"but a sparse csr_matrix came; give \.toarray"):
        make_examples(f"{tmp_path}/sparse_factory.py:make")
