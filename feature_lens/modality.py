"""How inputs are shown: the kind and shape that are given, or inferred from the shape of the inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from feature_lens.errors import ExamplesError

Kind = Literal["image", "signal", "tokens", "passage", "vector", "pair", "text"]
_CHANNELS = {"image": 3, "signal": 2}  # kinds that have channels, with their number of axes


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
    `channels_last`: inputs are (height, width, channels) or (length, channels); `shape` names channels first all the same.
    """

    kind: Kind
    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    channels_last: bool = False

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

        if self.channels_last and self.kind not in _CHANNELS:
            raise ExamplesError(
                f"Channels come last in images and signals, but '{self.kind}' came; leave channels_last out, or give "
                "modality='image'."
            )

    def arranged(self, values: Any) -> npt.NDArray[Any]:
        """What belongs to the entries of one input or of several, (..., entries), as (..., *shape), channels first."""
        array = np.asarray(values)
        before = array.shape[:-1]
        if not self.channels_last:
            return array.reshape(*before, *self.shape)
        return np.moveaxis(array.reshape(*before, *self.shape[1:], self.shape[0]), -1, len(before))

    def layout(self) -> str:
        """How the axes of inputs are read where channels come last, in a sentence."""
        sizes = " x ".join(map(str, (*self.shape[1:], self.shape[0])))
        return (
            f"Inputs of shape {sizes} are taken as {self.kind}s with {self.shape[0]} channel{'s' * (self.shape[0] > 1)}, "
            "channels last (channels_last=False says otherwise)."
        )

    def shows(self, inputs: Column) -> bool:
        """Whether inputs (n, ...) have the number of entries that this shape draws."""
        entries = int(np.prod(inputs.shape[1:], dtype=np.int64))
        if self.kind == "pair":
            return entries >= 2 if np.issubdtype(inputs.dtype, np.integer) else entries == sum(self.shape)
        return self.kind == "text" or entries == int(np.prod(self.shape, dtype=np.int64))

    @staticmethod
    def infer(inputs: Column, channels_last: bool | None = None) -> Modality:
        """The modality that the shape of the inputs suggests: (n, C, H, W) image, (n, C, L) signal,
        (n, T) of integers tokens, (n, d) vector, anything else text. Channels come last where that is said, or where
        the last axis looks like channels and the first does not."""
        shape = tuple(int(size) for size in inputs.shape[1:])
        if np.issubdtype(inputs.dtype, np.integer) and len(shape) == 1:
            return Modality("tokens", shape, channels_last=bool(channels_last))
        kinds: dict[int, Kind] = {3: "image", 2: "signal", 1: "vector"}
        return _of_kind(kinds.get(len(shape), "text"), shape, channels_last)


def _of_kind(kind: Kind, shape: tuple[int, ...], channels_last: bool | None) -> Modality:
    axes = _CHANNELS.get(kind)
    last = _looks_last(shape) if channels_last is None and axes == len(shape) else bool(channels_last)
    if axes is not None and len(shape) == axes - 1:
        shape, last = (1, *shape), False  # a single channel without an axis of its own
    elif last and len(shape) > 1:
        shape = (shape[-1], *shape[:-1])
    return Modality(kind, shape, channels_last=last)


def _looks_last(shape: tuple[int, ...]) -> bool:
    """Whether channels come last: a picture's last axis is 1 or 3 (4 of large ones), its first one is not, and the others
    are more like its sides; a signal of at least 16 steps has at most 4 channels."""
    first, *sides, last = shape
    if not sides:
        return last <= 4 and first >= 16
    if first in (1, 3):
        return False
    square = first == sides[0]
    return (last in (1, 3) and (square or min(first, sides[0]) > 4)) or (last == 4 and min(first, sides[0]) >= 16)


def chosen_modality(modality: Modality | Kind | None, inputs: Column, channels_last: bool | None = None) -> Modality:
    """The modality given, in full or by its kind, else the one inferred; raises ExamplesError for one that does not fit."""
    if modality is None:
        return Modality.infer(inputs, channels_last)
    if isinstance(modality, str):
        return _of_kind(modality, tuple(int(size) for size in inputs.shape[1:]), channels_last)
    if not modality.shows(inputs):
        drawn = sum(modality.shape) if modality.kind == "pair" else int(np.prod(modality.shape))
        entries = int(np.prod(inputs.shape[1:], dtype=np.int64))
        raise ExamplesError(
            f"A modality of shape {modality.shape} shows {drawn} entries, but an input has {entries}; "
            "give the shape in which one input is drawn."
        )
    if channels_last is not None and channels_last != modality.channels_last:
        return replace(modality, channels_last=channels_last)
    return modality
