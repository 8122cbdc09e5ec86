"""The runs in tests/frozen: every data set that a minor version of schema version 1 knows, made by formulas alone.

The files were written by `python tests/frozen_run.py tests/frozen/run_v1.h5`, `run_v1_1.h5 1`, `run_v1_2.h5 2` and
`run_v1_3.h5 3`, when that version was frozen, and are not to be written again: what is frozen is that a file of that day stays readable. A later schema version
adds a file of its own. One thing was mended in them since: whole numbers that no run ever held, such as an order of other
features than there are, were put into their bounds, in place.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from feature_lens.cards import NetworkCard, ParameterTable, Provenance
from feature_lens.concepts import Concept
from feature_lens.dual_record import DualRecord, Expansion, Fidelity, Order, Ticket
from feature_lens.examples import Column, Examples, Modality
from feature_lens.feature_set import Card, FeatureSet
from feature_lens.kept_table import KeptTable
from feature_lens.run_contents import KeptKernel, RunContents
from feature_lens.store import schema, write_run
from feature_lens.weight_factors import FactoredValues, Inputs, Share, WeightFactors

SIZES = {"n": 12, "k": 2, "v": 2, "m": 3, "q": 2, "c": 2, "p": 9, "l": 2, "b": 4, "s": 2, "...": 9}
SIZES |= {"a": 8, "g": 2, "u": 3, "e": 2, "f": 2, "z": 1}


def column(element: schema.Element, place: int) -> np.ndarray:
    """A column of the right shape and kind, each number of the run at one place only."""
    shape = tuple(SIZES[letter] for letter in element.dims.split())
    numbers = np.arange(np.prod(shape)).reshape(shape) + 100 * place
    if element.kinds == "S":
        return np.array([f"{element.name} é {number}" for number in numbers.ravel()]).reshape(shape)
    if element.bounds == "order":
        return np.arange(numbers.size, dtype=np.int32)[::-1]
    if element.kinds == "i":
        most = 2 if element.bounds.endswith("c") or element.name == "location" else 12
        return (numbers % most).astype(np.int32)
    return (numbers / 8).astype(np.float32 if place % 2 else np.float64)


def known(minor: int) -> list[schema.Element]:
    """The columns of a set that a minor version knows, in the order of the schema."""
    return [element for element in schema.SET if element.minor <= minor]


def factors() -> WeightFactors:
    """Two features as sums over positions of inputs, of ones and of tokens, one of them with gradients besides."""

    def numbers(*shape: int) -> np.ndarray:
        return ((np.arange(np.prod(shape)) % 11 - 5) / 4).reshape(shape).astype(np.float32)

    inputs = Inputs(np.array([1, 0]), 0.5, numbers(2, 12, 3))
    tokens = Inputs(np.array([0, 1]), 1.0, None, (np.arange(36) % 2).reshape(12, 3).astype(np.int32), 2)
    shares = (
        Share(numbers(1, 12, 2, 3), (inputs, tokens, Inputs(np.array([1]), 2.0))),
        Share(gradient=numbers(1, 12, 2), entry=np.array([1])),
    )
    return WeightFactors(shares, 2, 12, 2)


def dual() -> DualRecord:
    """A dual model with every column that version 1.2 knows, an expansion to the end, and figures that are not there."""
    columns: dict[str, Column] = {
        e.name: column(e, place) for place, e in enumerate(schema.DUAL) if not e.name.startswith("ticket/")
    }
    columns["strongest/weight"] = np.asarray(columns["strongest/weight"]) % 9
    fitted = Fidelity("effective", "trace", "distillation", "bare", 1e-8, 0.5, 0.75, None, 0.25)
    orders = tuple(Order(name, 0.5, -2.0, None) for name in ("leading", "next", "squared"))
    return DualRecord(
        (fitted, Fidelity("initial", "flattened", "labels", "expanded", 0.1, 0.0, 0.125, 0.5, None)),
        fitted,
        ("a note",),
        ("a remark on the dual model",),
        (Ticket("contribution", "sum", 4, 0.5, 0.75, None, 0.25), Ticket("eigen", "sum", 1, 0.125, None, None, None)),
        columns,
        Expansion(0.25, math.inf, False, 8, 0.5, 1.5, 0.125, orders),
    )


def concepts() -> dict[str, Concept]:
    """Two properties that are known of the examples."""
    one = Concept("legs & wings", np.arange(24).reshape(12, 2) / 2, ("legs", "wings é"))
    return {one.name: one, "size": Concept.of("size", np.arange(12) / 4)}


def figures() -> KeptTable:
    """A table with a column of every type."""
    columns = {"step": np.arange(3), "loss": np.array([1.5, np.nan, 0.25]), "kept": np.array([True, False, True])}
    return KeptTable("Figures", {**columns, "words": np.array(["é", "", "x"])}, "Made by formulas.")


def contents(minor: int = 0) -> RunContents:
    """The contents of the frozen run of a minor version."""
    table = ParameterTable(("0.weight", "0.bias"), ((2, 4), (1,)), (1.0, 0.25))
    columns: dict[str, Column] = {e.name: column(e, place) for place, e in enumerate(known(minor))}
    card = Card(
        title="Everything",
        description="Every column of version 1.",
        design="none",
        basis="none",
        outputs="flattened",
        score="formula",
        equals="nothing",
        kernel_share=0.5,
        fitted_on="training examples",
        n_fitted=8,
        reads_labels=minor >= 3,
        provenance=Provenance({"a": 1}, {"b": "2"}, "c", ("d",)),
    )
    examples = Examples.from_arrays(
        np.arange(48).reshape(12, 4) / 4,
        np.arange(12) % 2,
        ids=[f"ex-{i:02} ü" for i in range(12)],
        split=np.arange(12) < 8,
        modality=Modality("image", (1, 2, 2), 0.0, 12.0),
        class_names=("even", "odd"),
        vocabulary=("a", "b"),
        concepts=concepts() if minor >= 3 else {},
    )
    network = NetworkCard(
        name="frozen",
        architecture="Linear(4, 2)",
        n_outputs=2,
        parameters=table,
        digest="0" * 64,
        metrics={"accuracy (all)": 0.5},
        trained=np.arange(9) / 4,
        initial=np.arange(9) / 2,
    )
    views = ("score", "output:0")
    provenance = Provenance({"tile": 32}, {"feature_lens": "0.1.0"}, "f" * 64, ("a remark",))
    sets = {"all": FeatureSet("all", views, card, columns, table)}
    if minor >= 1:
        own = {**columns, "values": FactoredValues(factors(), views)}
        sets["factored"] = FeatureSet("factored", views, card, own, table)
    outputs = np.arange(24).reshape(12, 2) / 8
    if minor < 2:
        return RunContents("frozen", network, examples, outputs, sets, provenance)
    kernel = KeptKernel("trace", np.arange(144, dtype=np.float64).reshape(12, 12))
    tables = {"figures": figures()} if minor >= 3 else {}
    return RunContents("frozen", network, examples, outputs, sets, provenance, dual(), kernel, tables)


if __name__ == "__main__":
    write_run(contents(int("".join(sys.argv[2:]) or 0)), sys.argv[1])
