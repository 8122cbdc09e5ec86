"""The transformer that adds: its forward pass, its draws, layer rules for all of it, and key frequencies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from feature_lens.analysis.key_frequencies import key_frequencies, leading_overlaps, separate_modes, sum_modes
from feature_lens.analysis.torus import modes
from feature_lens.errors import SettingsError
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks.zoo import ModularTransformer
from feature_lens.networks.zoo.residues import all_pairs

SMALL = ModularTransformer(modulus=5, width=8, heads=2, mlp=12, batch=4, epochs=3, validation=0.2)


def test_logits_are_those_of_a_transformer_that_computes_every_position() -> None:
    module = SMALL.module().double()
    tokens = torch.as_tensor(np.asarray(SMALL.examples().inputs))[:7]
    p = {name: value.detach().numpy() for name, value in module.named_parameters()}
    for row, found in zip(tokens.numpy(), module(tokens).detach().numpy(), strict=True):
        stream = p["embed.weight"][row] + p["positions"]
        heads = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            q, k, v = (stream @ p[f"{name}.weight"].T[:, part] for name in ("query", "key", "value"))
            scores = np.exp(q @ k.T / 2)
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ v)
        stream = stream + np.concatenate(heads, axis=1) @ p["attended.weight"].T
        stream = stream + np.maximum(stream @ p["mlp_in.weight"].T, 0) @ p["mlp_out.weight"].T
        np.testing.assert_allclose(found, (stream @ p["unembed.weight"].T)[-1], atol=1e-12)


def test_draws_have_the_variance_of_the_recipe_and_splits_do_not_overlap() -> None:
    net = ModularTransformer()
    for name, value in net.module().named_parameters():
        assert float(value.detach().std()) * value.shape[1] ** 0.5 == pytest.approx(1, abs=0.2), name
    examples = net.examples()
    assert int(examples.training.sum()) == 420
    assert int(net.tested.sum()) == 841 - 420 - 84
    assert not (net.tested & examples.training).any()
    np.testing.assert_array_equal(examples.pairs, net.pairs())
    assert examples.ids[32] == "1 + 3 = 4"
    values = {concept.name: concept.values for concept in examples.concepts}
    np.testing.assert_allclose(
        values["waves of a - b"] / np.linalg.norm(values["waves of a - b"], axis=0),
        modes(net.pairs(), 29, "a - b"),
        atol=1e-12,
    )


@pytest.mark.parametrize("batch", [0, 4])
def test_with_one_look_only_the_last_state_is_kept(batch: int) -> None:
    net = replace(SMALL, batch=batch)
    first, second = net.train(), net.train()
    last = replace(net, validation=0.0).train()
    for name, value in first.trained.items():
        assert torch.equal(value, second.trained[name])
        assert torch.equal(value, last.trained[name])


def test_the_state_that_did_best_on_validation_pairs_is_kept() -> None:
    first = SMALL.train()
    longer = replace(SMALL, batch=0, epochs=120, learning_rate=0.1)
    ends = {epochs: replace(longer, epochs=epochs, validation=0.0).train().trained for epochs in (50, 100, 120)}
    validation = ~(longer.tested | np.asarray(longer.examples().training))
    few = longer.examples().on(np.flatnonzero(validation))
    scores = {}
    for epochs, state in ends.items():
        logits = longer.network(replace(first, trained=state)).outputs(few)
        right = (logits.argmax(axis=1) == few.labels).mean()
        loss = -torch.log_softmax(torch.as_tensor(logits), 1)[np.arange(len(few)), few.labels].mean()
        scores[epochs] = right, -float(loss)
    best = max(scores, key=lambda epochs: scores[epochs])
    kept = longer.train().trained
    assert all(torch.equal(kept[name], ends[best][name]) for name in kept)


def test_every_parameter_has_a_layer_rule() -> None:
    design = EffectiveFeatures(SMALL.network(SMALL.train()), SMALL.examples(), outputs="sum")
    plan = str(design.plan())
    assert "vmap" not in plan
    assert "loop" not in plan
    assert all(name in plan for name, _ in SMALL.module().named_parameters())


def test_key_frequencies_are_read_from_outputs() -> None:
    pairs = all_pairs(13)
    rng = np.random.default_rng(0)
    waves = sum_modes(pairs, 13, (2, 5))
    outputs = waves @ rng.normal(size=(4, 13)) + 1e-3 * rng.normal(size=(169, 13)) + 7
    found = key_frequencies(outputs, pairs, 13)
    assert sorted(found.keys) == [2, 5]
    energy = np.square(outputs - outputs.mean(axis=0)).sum()
    by_hand = [np.square(sum_modes(pairs, 13, (k,)).T @ outputs).sum() / energy for k in range(1, 7)]
    np.testing.assert_allclose(found.share, by_hand, rtol=1e-10)
    with pytest.raises(SettingsError, match="outputs that differ"):
        key_frequencies(np.ones((169, 13)), pairs, 13)


def test_overlaps_of_leading_features_with_waves_of_key_frequencies() -> None:
    pairs = all_pairs(13)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    mean = np.full((169, 1), 1 / 13)
    features = np.hstack([mean, sum_modes(pairs, 13, (3, 4)) @ turn, separate_modes(pairs, 13, (3, 4)) @ turn])
    assert np.allclose(np.linalg.norm(features, axis=0), 1)
    found = leading_overlaps(features, pairs, 13, (3, 4))
    assert found["a + b in first"] == pytest.approx(1)
    assert found["f(a) + f(b) in next"] == pytest.approx(1)
    assert found["a + b in next"] == pytest.approx(0, abs=1e-12)
    assert found["f(a) + f(b) in both"] == pytest.approx(1)
    assert found["a - b in both"] == pytest.approx(0, abs=1e-12)
    angle = 2 * np.pi * 3 / 13
    np.testing.assert_allclose(
        separate_modes(pairs, 13, (3,))[:, 1] * 13,
        np.sin(angle * pairs[:, 0]) + np.sin(angle * pairs[:, 1]),
        atol=1e-12,
    )
    with pytest.raises(SettingsError, match="looked for in 9 features, but 8 came"):
        leading_overlaps(features[:, :8], pairs, 13, (3, 4))


def test_leading_eigenvectors_of_the_shipped_unembedding_hold_the_waves_of_its_key_frequencies() -> None:
    net = ModularTransformer()
    network, examples = net.shipped(), replace(net.examples(), training=None)
    outputs = network.outputs(examples)
    right = outputs.argmax(axis=1) == examples.labels
    assert right.all()
    keys = key_frequencies(outputs, net.pairs(), 29).keys
    assert sorted(keys) == [1, 7, 11]
    design = EffectiveFeatures(network, examples, outputs="sum", layers=["unembed"])
    vectors = np.linalg.eigh(np.asarray(design.gram(), dtype=np.float64))[1][:, ::-1]
    found = leading_overlaps(vectors, net.pairs(), 29, keys)
    assert found["a + b in first"] == pytest.approx(0.938, abs=2e-3)
    assert found["f(a) + f(b) in next"] == pytest.approx(0.940, abs=2e-3)


def test_heads_share_the_width() -> None:
    with pytest.raises(SettingsError, match="64 came for 5"):
        ModularTransformer(heads=5)
    with pytest.raises(SettingsError, match="training share times pairs"):
        ModularTransformer(training=0)
