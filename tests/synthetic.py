"""Small runs made of random numbers, for tests of what reads a run; no torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from feature_lens.cards import NetworkCard, ParameterTable, Provenance
from feature_lens.examples import Column, Examples, Modality
from feature_lens.feature_set import Card, FeatureSet, ranking_columns
from feature_lens.kept_table import KeptTable
from feature_lens.ranking import rank_values
from feature_lens.run_contents import RunContents
from feature_lens.weight_factors import FactoredValues, Inputs, Share, WeightFactors

TABLE = ParameterTable(("0.weight", "0.bias", "2.weight"), ((5, 12), (5,), (3, 5)), (1.0, 1.0, 1.0))


def _set(name: str, values: np.ndarray, views: tuple[str, ...], examples: Examples, **more: Column) -> FeatureSet:
    labels = examples.labels
    assert labels is not None
    keep = bool(more.pop("keep_values", True))  # type: ignore[arg-type]  # a flag among columns, for brevity
    columns = ranking_columns(rank_values(values, examples.ids, 16, labels, 3))
    columns["order"] = np.arange(len(values), dtype=np.int32)
    if keep:
        columns["values"] = values.astype(np.float32)
    columns.update(more)
    card = Card(
        title=name.capitalize(),
        description="Random numbers in the shape of a real set.",
        design="effective features",
        basis=name,
        outputs="flattened",
        score="the view named score",
        fitted_on="training examples",
        n_fitted=40,
    )
    return FeatureSet(name, views, card, columns, TABLE)


def factors(n: int, r: int = 3, seed: int = 1) -> WeightFactors:
    """Factors of all weights of `TABLE`, every form among them: inputs and ones, gradients, tokens and no positions."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    tokens = rng.integers(0, 4, (n, 2)).astype(np.int32)
    shares = (
        Share(normal(5, n, r, 1), (Inputs(np.arange(60), 0.5, normal(12, n, 1)), Inputs(np.arange(60, 65), 2.0))),
        Share(gradient=normal(5, n, r), entry=np.arange(65, 70)),
        Share(normal(2, n, r, 2), (Inputs(np.arange(70, 78), 1.0, None, tokens, 4),)),
        Share(np.zeros((2, n, r, 0)), (Inputs(np.arange(78, 80)),)),
    )
    return WeightFactors(shares, TABLE.total, n, r)


def with_factors(made: RunContents) -> RunContents:
    """The run with a further set 'factored', the weights that `factors` are of."""
    values = FactoredValues(factors(len(made.examples)), made.sets["weights"].views)
    found = _set("factored", np.asarray(values), made.sets["weights"].views, made.examples, keep_values=False)  # type: ignore[arg-type]  # see _set
    found = replace(found, columns={**found.columns, "values": values})
    return replace(made, sets={**made.sets, "factored": found})


def contents(n: int = 60, modality: str = "image", seed: int = 0) -> RunContents:
    """A run with an eigen, a unit, a weight and a neuron set over n examples of the given modality."""
    rng = np.random.default_rng(seed)
    shown = {
        "image": ((12,), Modality("image", (1, 3, 4), 0.0, 1.0)),
        "rgb": ((3, 6, 5), Modality("image", (3, 6, 5))),
        "signal": ((2, 30), Modality("signal", (2, 30))),
        "tokens": ((4,), Modality("tokens", (4,))),
        "passage": ((9,), Modality("passage", (9,))),
        "vector": ((7,), Modality("vector", (7,))),
        "pair": ((18,), Modality("pair", (9, 9))),
        "text": ((2, 2, 2, 2), Modality("text", (2, 2, 2, 2))),
    }[modality]
    words = {"tokens": ("a", "b", "c", "d", "="), "passage": ("a", "the", " ", "\n", "ing")}.get(modality, ())
    inputs = rng.integers(0, 5, (n, *shown[0])) if words else rng.random((n, *shown[0]))
    if modality == "pair":
        inputs = np.eye(9)[np.stack(np.divmod(np.arange(n) % 81, 9), axis=1)].reshape(n, 18)
    labels = rng.integers(0, 3, n)
    examples = Examples.from_arrays(
        inputs,
        labels,
        split=rng.random(n) < 0.7,
        modality=shown[1],
        class_names=("ant", "bee", "cat"),
        vocabulary=words,
        concepts={"legs & wings": np.eye(3)[labels][:, :2], "a phase": np.sin(np.arange(n))},
    )
    examples = replace(examples, inferred=("Targets & outputs are <those> of three classes.",))
    outputs = np.eye(3)[labels] + 0.1 * rng.standard_normal((n, 3))
    views = ("score", "output:0", "output:1", "output:2")
    direction = rng.standard_normal((6, TABLE.total))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    share = np.stack([np.square(direction[:, s]).sum(axis=1) for _, s in TABLE.slices], axis=1)
    eigen = rng.standard_normal((6, 4, n)) + labels[None, None] * np.arange(6)[:, None, None] / 3
    sets = [
        _set(
            "eigen",
            eigen,
            views,
            examples,
            spectrum=np.array([9.0, 4.0, 3.999, 2.0, 1.0, 0.5]),
            group=np.array([0, 1, 1, 2, 3, 4], dtype=np.int32),
            stability=np.array([0.99, 0.9, 0.9, 0.8, 0.5, 0.2]),
            mean_share=np.array([0.9, 0.1, 0.1, 0, 0, 0.2]),
            profile=np.full((6, 3), 3**-0.5),
            energy=np.linspace(0.95, 0.4, 6),
            direction=direction.astype(np.float32),
            parameter_share=share,
        ),
        _set(
            "trace",
            eigen[:4, :1] + 1,
            ("score",),
            examples,
            spectrum=np.array([9.0, 4.0, 2.0, 1.0]),
            group=np.arange(4, dtype=np.int32),
            stability=np.ones(4),
        ),
        _set(
            "unit",
            rng.standard_normal((5, 3, n)),
            views[1:],
            examples,
            labels=np.array([f"0 unit {i}" for i in range(5)]),
            layer=np.array(["0"] * 5),
        ),
        _set(
            "weights",
            rng.standard_normal((TABLE.total, 3, n)) * rng.random((TABLE.total, 1, 1)),
            views[1:],
            examples,
            keep_values=False,  # type: ignore[arg-type]  # see _set
        ),
        _set(
            "neurons",
            np.maximum(rng.standard_normal((5, 1, n)), 0),
            ("activation",),
            examples,
            labels=np.array([f"1[{i}]" for i in range(5)]),
            layer=np.array(["1"] * 5),
        ),
    ]
    weights = sets[3]
    spread = np.asarray(weights.columns["std"]).max(axis=1)
    sets[3] = FeatureSet(
        weights.name,
        weights.views,
        weights.card,
        {**weights.columns, "order": np.argsort(-spread).astype(np.int32)},
        TABLE,
    )
    network = NetworkCard(
        name="toy",
        architecture="Sequential(Linear(12, 5), ReLU, Linear(5, 3))",
        n_outputs=3,
        parameters=TABLE,
        digest="0" * 64,
        metrics={"accuracy (training)": 1.0, "accuracy (held-out)": 0.9},
        trained=rng.standard_normal(TABLE.total),
        initial=rng.standard_normal(TABLE.total),
    )
    provenance = Provenance({"tile": 32}, {"feature_lens": "0.1.0"}, "f" * 64, ("vmap was used",))
    figures = {"step": np.arange(3), "loss": np.array([1.0, 0.5, np.nan]), "words": np.array(["ß", "", "x" * 300])}
    tables = {
        "figures": KeptTable("Figures", figures, "Some of every type."),
        "none": KeptTable("None", {"a": np.arange(0)}),
    }
    return RunContents("synthetic", network, examples, outputs, {s.name: s for s in sets}, provenance, tables=tables)
