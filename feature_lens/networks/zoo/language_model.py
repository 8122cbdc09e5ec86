"""A small language model: the next character of English text, from those before it."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from feature_lens.concepts import Concept
from feature_lens.examples import Examples, Modality
from feature_lens.networks.zoo.zoo_net import ZOO, ZooNet, at_least

Codes = npt.NDArray[np.int64]

# Any other character is the last one. Fixed, since the text is that of the Python at hand.
CHARACTERS: Final = "\n" + "".join(map(chr, range(32, 127))) + "\N{REPLACEMENT CHARACTER}"
_NAMES: Final = {"\n": "new line", " ": "space", CHARACTERS[-1]: "other"}
_TRAINED_ON: Final = "d9dc35bce5ab1a24ed7f4c3c9b7c22450410e9d68279e3426db458c6be371621"

# The seed of a recipe draws parameters and batches; the windows that are shown are the same for every one.
_WINDOWS: Final = 0


class Block(nn.Module):
    """Causal attention, then two linear maps with a ReLU between them, each added to its input; norms come first."""

    mask: torch.Tensor

    def __init__(self, width: int, heads: int, hidden: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.relu = nn.ReLU()
        self.register_buffer("mask", torch.full((context, context), -math.inf).triu(1), persistent=False)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        z = self.norm1(h)
        q, k, v = (m(z).unflatten(2, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        attention = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3]) + self.mask).softmax(dim=3)
        h = h + self.out((attention @ v).transpose(1, 2).flatten(2))
        found: torch.Tensor = h + self.down(self.relu(self.up(self.norm2(h))))
        return found


class Decoder(nn.Module):
    """Characters (b, t) to logits of the next one (b, characters); `everywhere` gives those of every position."""

    def __init__(self, context: int, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), width)
        self.position = nn.Parameter(torch.randn(context, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden, context) for _ in range(layers)))
        self.norm, self.readout = nn.LayerNorm(width), nn.Linear(width, len(CHARACTERS))

    def states(self, characters: torch.Tensor) -> torch.Tensor:
        """(b, t, width) what the readout is given at every position."""
        found: torch.Tensor = self.norm(self.blocks(self.embedding(characters) + self.position))
        return found

    def everywhere(self, characters: torch.Tensor) -> torch.Tensor:
        """(b, t, characters) logits of the character after each position."""
        found: torch.Tensor = self.readout(self.states(characters))
        return found

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.readout(self.states(characters)[:, -1])
        return found


@ZOO.register("language_model")
@dataclass(frozen=True)
class LanguageModel(ZooNet):
    """One layer of causal attention, 32 characters of context, cross-entropy of the next character at every position,
    AdamW with warm-up and cosine decay. An epoch is 100 batches.

    The text is the reference of Python's language that the standard library keeps for `help()`, a book's worth of
    English. It differs between versions of Python; a paragraph is held out, or not, by its own checksum, so that no
    network is tested on what another version's was trained on. A run shows `shown` windows of it, the same for every
    seed: the label is the next character. Training takes some minutes.
    """

    data: ClassVar[str] = (
        f"pydoc_data.topics, the language reference that comes with Python 3.11.7 (PSF licence, sha256 {_TRAINED_ON})"
    )
    # Summed over 97 outputs a kernel would take a hundred times longer. The logit of what the network would choose, not
    # of the true next character: features of that one would know the label, and single it out by that alone.
    sets: ClassVar[tuple[str, ...]] = (
        *("eigen/predicted", "eigen/predicted@initial", "unit/predicted", "canonical/predicted"),
    )
    snapshots: ClassVar[int] = 6
    dual: ClassVar[bool] = False  # these too sum over outputs
    dynamics: ClassVar[bool] = False

    context: int = 32
    width: int = 64
    heads: int = 4
    hidden: int = 128
    layers: int = 1
    shown: int = 2000
    learning_rate: float = 0.003
    weight_decay: float = 0.05
    batch: int = 64
    epochs: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"context": self.context, "layers": self.layers, "hidden": self.hidden, "heads": self.heads}
        at_least(1, batch=self.batch, **sizes, **{"width over heads": self.width / self.heads})
        at_least(10, shown=self.shown)

    @property
    def title(self) -> str:
        return f"next character, {self.layers} layer{'s' * (self.layers > 1)} of width {self.width}"

    def examples(self) -> Examples:
        """Windows of text, four of five from training paragraphs, each of another place, and called by the place of
        the next character: in the training paragraphs one after the other, then in those held out."""
        training, held_out = (codes(part) for part in text_parts())
        generator = np.random.default_rng(_WINDOWS)
        n_training = round(0.8 * self.shown)
        starts = [
            np.sort(generator.choice(len(part) - self.context, n, replace=False))
            for part, n in ((training, n_training), (held_out, self.shown - n_training))
        ]
        both = [
            windows(part, start, self.context + 1) for part, start in zip((training, held_out), starts, strict=True)
        ]
        seen = np.concatenate(both)
        return Examples.from_arrays(
            seen[:, :-1],
            seen[:, -1],
            ids=np.concatenate([starts[0], len(training) + starts[1]]) + self.context,
            split=np.arange(self.shown) < n_training,
            modality=Modality("passage", (self.context,)),
            class_names=[_NAMES.get(character, character) for character in CHARACTERS],
            vocabulary=list(CHARACTERS),
            concepts={concept.name: concept for concept in concepts(seen)},
        )

    def module(self) -> Decoder:
        """Torch's own initial parameters, but for an embedding of standard deviation 0.3 and positions of 0.1."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            made = Decoder(self.context, self.width, self.heads, self.hidden, self.layers)
            with torch.no_grad():
                made.embedding.weight.mul_(0.3)
                made.position.mul_(0.1)
            return made

    def course(self, module: nn.Module) -> Iterator[None]:
        """Windows of the training paragraphs, drawn anew for every batch."""
        assert isinstance(module, Decoder)
        text = torch.as_tensor(codes(text_parts()[0]))
        after = text[1:]
        if self.shuffled:
            drawn = torch.as_tensor(np.random.default_rng(self.shuffled).permutation(len(after)))
            after = after[drawn]
        optimiser = torch.optim.AdamW(
            module.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, betas=(0.9, 0.98)
        )
        steps = 100 * self.epochs
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1.0, (step + 1) / 100) * (0.525 + 0.475 * math.cos(math.pi * step / steps))
        )
        generator = torch.Generator().manual_seed(self.seed)
        offsets = torch.arange(self.context)
        for _ in range(self.epochs):
            for _ in range(100):
                starts = torch.randint(len(after) - self.context, (self.batch,), generator=generator)
                at = starts[:, None] + offsets
                optimiser.zero_grad()
                logits = module.everywhere(text[at])
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), after[at].flatten())
                torch.autograd.backward(loss)
                optimiser.step()
                rate.step()
            yield

    def remarks(self) -> tuple[str, ...]:
        """Says where the text is not the one that the shipped network was trained on."""
        if hashlib.sha256(_text().encode()).hexdigest() == _TRAINED_ON:
            return ()
        return (
            f"The text is that of Python {platform.python_version()}, not the one that the shipped network was trained "
            "on; what is held out was held out there too.",
        )


def codes(text: str) -> Codes:
    """Characters as places in `CHARACTERS`."""
    places = {character: place for place, character in enumerate(CHARACTERS)}
    return np.array([places.get(character, len(CHARACTERS) - 1) for character in text], dtype=np.int64)


def windows(text: Codes, starts: Codes, length: int) -> Codes:
    """(n, length) parts of a text."""
    return np.asarray(text[starts[:, None] + np.arange(length)])


@cache
def text_parts() -> tuple[str, str]:
    """The training and the held-out paragraphs, about one in five, as a text each. A paragraph that comes twice is in
    one of them alone."""
    parts: tuple[list[str], list[str]] = ([], [])
    for paragraph in _text().split("\n\n"):
        parts[hashlib.sha256(paragraph.encode()).digest()[0] < 51].append(paragraph)
    return "\n\n".join(parts[0]), "\n\n".join(parts[1])


def _text() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip("\n") for name in sorted(topics))


def concepts(seen: Codes) -> list[Concept]:
    """What is known of windows (n, context + 1), the last character of which is the next one: the class of the last
    and of the next character, whether a word begins or ends between them, the place in the line, as far as the
    context tells, and which character comes next, for those that come in one of a hundred windows."""
    letters = np.array(list(CHARACTERS))[seen]
    last, following = letters[:, -2], letters[:, -1]
    word_before, word_after = _in_word(last), _in_word(following)
    breaks = letters[:, :-1] == "\n"
    since = np.where(breaks.any(axis=1), breaks[:, ::-1].argmax(axis=1), breaks.shape[1])
    counts = np.bincount(seen[:, -1], minlength=len(CHARACTERS))
    common = np.flatnonzero(counts >= len(seen) / 100)
    return [
        _kinds("kind of the last character", last),
        _kinds("kind of the next character", following),
        Concept.of(
            "word boundary",
            np.stack([~word_before & word_after, word_before & ~word_after, word_before & word_after], axis=1),
            ["a word begins", "a word ends", "within a word"],
        ),
        Concept.of(
            "place in the line",
            np.stack([since, since == 0], axis=1),
            ["characters since the line began", "at its beginning"],
        ),
        Concept.of(
            "next character", seen[:, -1:] == common, [_NAMES.get(CHARACTERS[at], CHARACTERS[at]) for at in common]
        ),
    ]


def _in_word(letters: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.char.isalnum(letters) | (letters == "_"))


def _kinds(name: str, letters: npt.NDArray[np.str_]) -> Concept:
    """Columns of 0 and 1, those left out that are the same for all windows."""
    kinds = {
        "small letter": np.char.islower(letters),
        "capital": np.char.isupper(letters),
        "digit": np.char.isdigit(letters),
        "space": letters == " ",
        "new line": letters == "\n",
    }
    kinds["punctuation"] = ~np.logical_or.reduce(list(kinds.values()))
    there = {kind: found for kind, found in kinds.items() if found.any() and not found.all()}
    return Concept.of(name, np.stack(list(there.values()), axis=1), list(there))
