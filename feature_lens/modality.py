"""How inputs are shown: the kind and shape that are given, or inferred from the shape of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from feature_lens.errors import ExamplesError

Kind = Literal["image", "signal", "tokens", "passage", "vector", "pair", "text"]


class Column(Protocol):
    """An array, or a data set of a file that reads what is indexed: all that a reader needs of either."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True)
class Modality:
    """How one input is shown.

    `kind` is image (`shape` = channels, height, width), signal (channels, length), tokens (positions,), passage
    (positions,), which is tokens that make running text, of which a label is the next one where classes are the vocabulary,
    vector (entries,), pair (how many there are of each of two things) or text, which prints whatever it is. `shape`
    may differ from the shape the network takes as long as the number of entries agrees: a flat vector of 64 can be
    shown as an image (1, 8, 8). A pair is two one-hot vectors, one after the other, or a sequence that begins with two
    tokens; it is written as the example's id, and what a feature does with all pairs is drawn as one picture.
    `low` and `high` are the values drawn as black and white, for images and signals; None takes each example's own.
    """

    kind: Kind
    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ExamplesError(
                f"A modality is one of {', '.join(get_args(Kind))}, not '{self.kind}'; choose one of them."
            )
        wanted = {"image": 3, "signal": 2, "tokens": 1, "passage": 1, "vector": 1, "pair": 2}.get(self.kind)
        if wanted is not None and len(self.shape) != wanted:
            names = {3: "(channels, height, width)", 2: "(channels, length)", 1: "(entries,)"}[wanted]
            names = "(number of the first, of the second)" if self.kind == "pair" else names
            raise ExamplesError(
                f"A modality '{self.kind}' needs a shape {names}, but {self.shape} came; give it in full."
            )

    def shows(self, inputs: Column) -> bool:
        """Whether inputs (n, ...) have the number of entries that this shape draws."""
        entries = int(np.prod(inputs.shape[1:], dtype=np.int64))
        if self.kind == "pair":
            return entries >= 2 if np.issubdtype(inputs.dtype, np.integer) else entries == sum(self.shape)
        return self.kind == "text" or entries == int(np.prod(self.shape, dtype=np.int64))

    @staticmethod
    def infer(inputs: Column) -> Modality:
        """The modality that the shape of the inputs suggests: (n, C, H, W) image, (n, C, L) signal,
        (n, T) of integers tokens, (n, d) vector, anything else text."""
        shape = tuple(int(size) for size in inputs.shape[1:])
        if np.issubdtype(inputs.dtype, np.integer) and len(shape) == 1:
            return Modality("tokens", shape)
        kinds: dict[int, Kind] = {3: "image", 2: "signal", 1: "vector"}
        return Modality(kinds.get(len(shape), "text"), shape)


def chosen_modality(modality: Modality | Kind | None, inputs: Column) -> Modality:
    """The modality given, in full or by its kind, else the one inferred; raises ExamplesError for one that does not fit."""
    inferred = Modality.infer(inputs)
    if modality is None:
        return inferred
    if isinstance(modality, str):
        shape = tuple(int(size) for size in inputs.shape[1:])
        if modality == "image" and len(shape) == 2:
            shape = (1, *shape)
        if modality == "signal" and len(shape) == 1:
            shape = (1, *shape)
        return Modality(modality, shape)
    if not modality.shows(inputs):
        drawn = sum(modality.shape) if modality.kind == "pair" else int(np.prod(modality.shape))
        raise ExamplesError(
            f"A modality of shape {modality.shape} shows {drawn} entries, but an input has {inputs[0].size}; "
            "give the shape in which one input is drawn."
        )
    return modality
