"""What outputs say of targets: classes, yes or no, values or nothing, with the figures that follow and what is said of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from feature_lens_app.views import view_title
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, r2_score
from torch import nn

from feature_lens.analysis import open_run, run_card
from feature_lens.analysis.example_table import example_table
from feature_lens.dynamics.step_figures import fit_figures
from feature_lens.errors import ExamplesError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extract_run
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.predictions import Predictions, class_labels_of, targets_as

N = 40
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.standard_normal((N, 3)) * 3
CLASSES = np.where(RANDOM.random(N) < 0.8, LOGITS.argmax(axis=1), RANDOM.integers(3, size=N))
CLASSES[:3] = 0, 1, 2
LOGIT = RANDOM.standard_normal((N, 1)) * 3
SIDE = (LOGIT[:, 0] + RANDOM.standard_normal(N) > 0).astype(int)
MANY = (LOGITS + RANDOM.standard_normal((N, 3)) > 0).astype(int)
MANY[0] = 1
RIGHT = accuracy_score(CLASSES, LOGITS.argmax(axis=1))
SIDES = accuracy_score(SIDE, LOGIT[:, 0] > 0)
EACH = float(((LOGITS > 0) == MANY).mean())
NEAR = LOGITS + RANDOM.standard_normal((N, 3))

# Outputs, targets, further settings of the examples; kind, threshold, probabilities, figures, words that are said.
Reading = tuple[Any, Any, dict[str, Any], str, float | None, str, dict[str, float], str]
READINGS: dict[str, Reading] = {
    "scores of classes": (LOGITS, CLASSES, {}, "classes", None, "", {"accuracy": RIGHT}, "3 outputs are scores, one for each"),
    "probabilities of classes": (
        *(softmax(LOGITS, axis=1), CLASSES, {}, "classes", None, "together", {"accuracy": RIGHT}),
        "3 outputs are probabilities, which sum to 1, one for each class; the largest is the class predicted.",
    ),
    "classes one by one": (
        *(expit(LOGITS), CLASSES, {}, "classes", None, "each", {"accuracy": RIGHT}),
        "3 outputs are probabilities, each by itself, one for each class",
    ),
    "words": (LOGITS, np.array(["a", "b", "c"])[CLASSES], {}, "classes", None, "", {"accuracy": RIGHT}, "are scores"),
    "one-hot rows": (LOGITS, np.eye(3)[CLASSES], {}, "classes", None, "", {"accuracy": RIGHT}, "are scores"),
    "a class that no example has": (
        *(LOGITS, CLASSES % 2, {"class_names": ["a", "b", "c"]}, "classes", None, ""),
        *({"accuracy": accuracy_score(CLASSES % 2, LOGITS.argmax(axis=1))}, "are scores"),
    ),
    "words of a vocabulary": (
        *(LOGITS, CLASSES % 2, {"vocabulary": ["a", "b", "c"]}, "classes", None, ""),
        *({"accuracy": accuracy_score(CLASSES % 2, LOGITS.argmax(axis=1))}, "are scores"),
    ),
    "one logit": (LOGIT, SIDE, {}, "yes or no", 0, "", {"accuracy": SIDES}, "a logit of two classes; above 0 it predicts '1'."),
    "one logit, named": (LOGIT, SIDE, {"class_names": ["no", "yes"]}, "yes or no", 0, "", {"accuracy": SIDES}, "predicts 'yes'"),
    "one logit, real labels": (LOGIT, SIDE.astype(np.float32), {}, "yes or no", 0, "", {"accuracy": SIDES}, "above 0 it"),
    "one logit, truth": (LOGIT, SIDE > 0, {}, "yes or no", 0, "", {"accuracy": SIDES}, "above 0 it predicts 'True'"),
    "one logit, column": (LOGIT, SIDE[:, None], {}, "yes or no", 0, "", {"accuracy": SIDES}, "above 0 it predicts '1'"),
    "one logit, real signs": (LOGIT, SIDE * 2.0 - 1, {}, "yes or no", 0, "", {"accuracy": SIDES}, "above 0 it predicts '1'"),
    "one probability": (expit(LOGIT), SIDE, {}, "yes or no", 0.5, "each", {"accuracy": SIDES}, "a probability of two .* above 0.5"),
    "several logits": (
        *(LOGITS, MANY, {}, "yes or no", 0, "", {"accuracy": EACH}),
        "The 3 outputs are logits of yes or no, each by itself; above 0 is yes.",
    ),
    "several probabilities": (expit(LOGITS), MANY, {}, "yes or no", 0.5, "each", {"accuracy": EACH}, "above 0.5 is yes"),
    "values near 0 and 1": (
        *(MANY * 1.2 - 0.1, MANY, {}, "values", None, ""),
        *({"R2": r2_score(MANY, MANY * 1.2 - 0.1, multioutput="variance_weighted")}, "Targets are real values, one for each"),
    ),
    "values": (
        *(LOGITS, NEAR, {}, "values", None, "", {"R2": r2_score(NEAR, LOGITS, multioutput="variance_weighted")}),
        "one for each of the 3 outputs",
    ),
    "pictures": (
        *(LOGITS, NEAR[:, None, :, None], {}, "values", None, ""),
        *({"R2": r2_score(NEAR, LOGITS, multioutput="variance_weighted")}, "real values"),
    ),
    "one value": (LOGIT, LOGIT[:, 0] / 2, {}, "values", None, "", {"R2": r2_score(LOGIT / 2, LOGIT)}, "for the one output"),
    "counts": (LOGIT, CLASSES, {}, "values", None, "", {"R2": r2_score(CLASSES, LOGIT[:, 0])}, "whole numbers"),
    "an embedding": (
        *(np.tile(LOGITS, (1, 20)), CLASSES, {}, "none", None, "", {}),
        "Labels are of 3 classes, and the network's 60 outputs are not their scores, so there is no accuracy; if they are",
    ),
    "an embedding of fewer": (LOGITS[:, :2], CLASSES, {}, "none", None, "", {}, "3 classes, and the network's 2 outputs are not"),
    "classes of one output": (LOGIT, CLASSES, {"class_names": list("abc")}, "none", None, "", {}, "one output are not their"),
    "names of nothing": (LOGITS, NEAR[:, 0], {"class_names": ["a", "b"]}, "none", None, "", {}, "The 2 class names are of neither"),
    "names of outputs": (LOGITS, None, {"class_names": list("abc")}, "none", None, "", {}, "^$"),
    "other values": (LOGITS, NEAR[:, :2], {}, "none", None, "", {}, "2 real values for each .* 3 outputs cannot be held"),
    "one value for three": (LOGITS, NEAR[:, 0], {}, "none", None, "", {}, "1 real value for each example, .* no R2"),
    "shares of something": (softmax(LOGITS, axis=1), None, {}, "none", None, "together", {}, "outputs are probabilities, which"),
    "no targets": (LOGITS, None, {}, "none", None, "", {}, "^$"),
}  # fmt: skip


@pytest.mark.parametrize("case", READINGS)
def test_how_outputs_are_read(case: str) -> None:
    outputs, targets, more, kind, threshold, probabilities, figures, words = READINGS[case]
    examples = Examples.from_arrays(np.arange(N * 2.0).reshape(N, 2), targets, **more)
    found = Predictions.of(examples, outputs)
    assert (found.kind, found.threshold, found.probabilities) == (kind, threshold, probabilities)
    assert found.figures(examples, outputs) == pytest.approx(
        {f"{name} (all)": value for name, value in figures.items()}
    )
    said = " ".join(found.sentences)
    assert all(one.endswith(".") for one in found.sentences)
    assert re.search(words, said)
    chosen = found.chosen(outputs)
    assert (chosen is None) == (kind not in ("classes", "yes or no") or (kind == "yes or no" and outputs.shape[1] > 1))
    if chosen is not None and "accuracy" in figures:
        wanted = examples.labels if examples.labels is not None else examples.targets > 0
        assert accuracy_score(wanted, chosen) == pytest.approx(figures["accuracy"])


def test_outputs_that_are_not_finite_take_no_part() -> None:
    outputs = LOGITS.copy()
    outputs[[1, 5]] = np.nan, np.inf, 0
    examples = Examples.from_arrays(np.zeros((N, 2)), CLASSES)
    kept = np.delete(np.arange(N), [1, 5])
    found = Predictions.of(examples, outputs)
    assert found.figures(examples, outputs) == {
        "accuracy (all)": pytest.approx(accuracy_score(CLASSES[kept], LOGITS[kept].argmax(axis=1)))
    }
    right = found.right(examples, outputs)
    assert right is not None
    assert np.flatnonzero(np.isnan(right)).tolist() == [1, 5]
    assert found.figures(examples, np.full_like(LOGITS, np.nan)) == {}
    values = Examples.from_arrays(np.zeros((N, 2)), NEAR)
    assert Predictions.of(values, outputs).figures(values, outputs)["R2 (all)"] == pytest.approx(
        r2_score(NEAR[kept], LOGITS[kept], multioutput="variance_weighted")
    )
    assert Predictions.of(values, np.full_like(LOGITS, np.inf)).figures(values, LOGITS * np.inf) == {}


def test_cross_entropy_is_of_scores_or_of_probabilities() -> None:
    examples = Examples.from_arrays(np.zeros((N, 2)), CLASSES)
    given = torch.nn.functional.cross_entropy(torch.as_tensor(LOGITS), torch.as_tensor(CLASSES)).item()
    for outputs in (LOGITS, softmax(LOGITS, axis=1)):
        figures = fit_figures(examples, outputs, Predictions.of(examples, outputs))
        assert figures["cross_entropy_all"] == pytest.approx(given)
        assert figures["accuracy_all"] == pytest.approx(RIGHT)
    assert "cross_entropy_all" not in fit_figures(examples, expit(LOGITS), Predictions.of(examples, expit(LOGITS)))


def _classifier() -> tuple[Network, Examples]:
    torch.manual_seed(0)
    inputs = RANDOM.standard_normal((N, 3))
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    x, y = torch.as_tensor(inputs).float(), torch.as_tensor(inputs[:, 0] > 0).float()
    optimiser = torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(module(x)[:, 0], y).backward()
        optimiser.step()
    network = Network.from_module(module, initial=initial)
    return network, Examples.from_arrays(inputs, inputs[:, 0] > 0, split=np.arange(N) < 30)


def test_a_binary_classifier_of_one_logit_through_a_whole_run(tmp_path: Any) -> None:
    network, examples = _classifier()
    settings = ExtractSettings(sets=(SetSettings("eigen", "trace", n_components=2),), neurons=(), ablation=2)
    with open_run(extract_run(network, examples, tmp_path / "run.h5", settings, progress=False)) as run:
        right = (run.outputs[:][:, 0] > 0) == examples.labels
        assert dict(run.network.metrics) == {
            "accuracy (training)": pytest.approx(right[:30].mean()),
            "accuracy (held-out)": pytest.approx(right[30:].mean()),
        }
        said = "The one output is a logit of two classes; above 0 it predicts 'True'."
        assert run.examples.inferred == (said,)
        assert said in run_card(run)
        table = example_table(run)
        assert table["predicted"].tolist() == (run.outputs[:][:, 0] > 0).astype(int).tolist()
        assert set(table["predicted_name"]) == {"False", "True"}
        assert view_title(run, "output:0") == "output 0"  # it stands for neither class
        assert np.isfinite(run.sets["eigen_trace"].columns["ablation/accuracy"][:]).all()


def test_outputs_are_called_what_they_are() -> None:
    torch.manual_seed(0)
    named = {"class_names": ["ant", "bee", "cat"]}
    for last, targets, more, title, labels in (
        (
            nn.Softmax(1),
            CLASSES,
            named,
            "Probabilities",
            ["probability of ant", "probability of bee", "probability of cat"],
        ),
        (nn.Identity(), CLASSES, named, "Logits", ["logit of ant", "logit of bee", "logit of cat"]),
        (nn.Identity(), NEAR, {}, "Logits", ["output 0", "output 1", "output 2"]),
        (nn.Sigmoid(), SIDE, {"class_names": ["no", "yes"]}, "Probabilities", ["probability of yes"]),
    ):
        module = nn.Sequential(nn.Linear(2, len(labels)), last).eval()
        examples = Examples.from_arrays(RANDOM.standard_normal((N, 2)), targets, **more)
        settings = ExtractSettings(sets=(SetSettings("canonical", "logits"),), neurons=())
        run = compute_run(Network.from_module(module), examples, settings, progress=False)
        logits = run.sets["logits"]
        assert logits.card.title == title
        assert [logits.label(output) for output in range(len(logits))] == labels
    assert [examples.output_name(output, 2) for output in (0, 1)] == ["no", "yes"]
    assert examples.output_name(0, 1) == "0"


def test_labels_that_are_not_the_outputs_are_not_looked_up_among_them() -> None:
    """An embedding: no view of the own output, no loss, no predicted class; a reduction by class is refused."""
    torch.manual_seed(0)
    network = Network.from_module(nn.Linear(2, 20), initial=nn.Linear(2, 20).state_dict())
    examples = Examples.from_arrays(
        RANDOM.standard_normal((N, 2)), CLASSES + 18, class_names=[str(i) for i in range(21)]
    )
    assert class_labels_of(examples, 20) is None
    assert targets_as(examples, 20) is None
    settings = ExtractSettings(sets=(SetSettings("canonical"),), neurons=(), ablation=1)
    run = compute_run(network, examples, settings, progress=False)
    assert run.sets["weights"].views == ("largest", "predicted")
    assert run.network.metrics == {}
    assert run.examples.inferred[0].startswith("Labels are of 21 classes, and the network's 20 outputs are not")
    assert example_table(run)["predicted"].isna().all()
    assert view_title(run, "output:3") == "output 3"
    with pytest.raises(ExamplesError, match=r"a number from 0 to 19 of the network's outputs, but 20 came \(id"):
        EffectiveFeatures(network, examples, outputs="target")
