"""The examples of a run: what went in, what it is called, which split it belongs to, how it is shown.

The same type is made from arrays or a torch data set before a run is computed, and read from the run file
afterwards; then `inputs` is a column that reads only the rows asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.arrays import MOST_TEXT, MOST_TEXTS, Array, array_of, finite_rows, require_storable, some_of, stacked
from feature_lens.concepts import Concept, as_concepts
from feature_lens.errors import ExamplesError, FeatureLensError, SettingsError, in_brief
from feature_lens.labels import read_targets
from feature_lens.modality import Column as Column
from feature_lens.modality import Kind, chosen_modality
from feature_lens.modality import Modality as Modality

# In a file every id takes the room of the longest; of so many bytes there may be any number.
_LONG_ID: Final = 1024


@dataclass(frozen=True)
class Examples:
    """n examples with ids, and with targets, a split, class names or a vocabulary where there are any.

    ids (n,) unique integers or strings; inputs (n, ...); targets (n,) integer class labels, or (n,) or (n, c)
    real values; training (n,) bool, or None where there is no split; concepts: what else is known of them, by which
    features are measured; inferred: sentences on how what was given is read. Made by `from_arrays` or `from_dataset`.
    """

    ids: Array = field(repr=False)
    inputs: Column = field(repr=False)
    modality: Modality
    targets: Array | None = field(default=None, repr=False)
    training: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    class_names: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    concepts: tuple[Concept, ...] = ()
    inferred: tuple[str, ...] = ()
    least_classes: int = 0  # of the whole set, for a part of it

    @classmethod
    def from_arrays(
        cls,
        inputs: Any,
        targets: Any = None,
        *,
        ids: Any = None,
        split: Any = None,
        modality: Modality | Kind | None = None,
        class_names: Sequence[str] = (),
        vocabulary: Sequence[str] = (),
        concepts: Mapping[str, Any] | None = None,
        channels_last: bool | None = None,
    ) -> Examples:
        """Check and gather arrays, tensors or tables of numbers into an example set.

        targets: class labels as whole numbers from 0, truth values, words, categories of pandas or one-hot rows; all
        other numbers are real values, (n,) or, flattened, (n, c). split: (n,) of bool, True for training, or of the
        words "train" and "held-out". concepts: arrays (n,) or (n, d), or Concepts, by name. channels_last: whether
        images are (n, height, width, channels) and signals (n, length, channels); told from the shape where None.
        Raises ExamplesError, in one sentence, for whatever does not fit.
        """
        array = array_of(inputs, "inputs")
        if array.dtype.kind not in "iufb" or array.dtype.itemsize > 8:
            raise ExamplesError(
                f"Inputs are real numbers of at most 64 bits, but {array.dtype} came; convert them first."
            )
        if array.ndim < 2 or array.shape[0] == 0 or array[0].size == 0:
            raise ExamplesError(
                f"Inputs need the shape (n, ...) with at least one example and one entry, but {array.shape} came; "
                "give one row per example."
            )
        n = array.shape[0]
        if array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
            raise ExamplesError(f"Whole numbers must be below 2^63, but {array.max()} came; give them as real numbers.")
        names = _different(_words(class_names, "class names"))
        id_array = np.arange(n) if ids is None else _ids(ids, n)
        if np.issubdtype(array.dtype, np.inexact):
            bad = ~finite_rows(array)
            if bad.any():
                raise ExamplesError(
                    f"Inputs must be finite, but {np.count_nonzero(bad)} of {n} examples hold NaN or infinity "
                    f"(ids {some_of(id_array, bad)}); fill or drop them first."
                )
        read = None if targets is None else read_targets(targets, id_array, names)
        shown = chosen_modality(modality, array, channels_last)
        guessed = channels_last is None and shown.channels_last and not isinstance(modality, Modality)
        return cls(
            ids=id_array,
            inputs=array,
            modality=shown,
            targets=None if read is None else read.values,
            training=None if split is None else _split(split, n),
            class_names=names if read is None else _different(read.class_names),
            vocabulary=_words(vocabulary, "vocabulary"),
            concepts=as_concepts(concepts or {}, n),
            inferred=(*([shown.layout()] if guessed else []), *(() if read is None else read.inferred)),
        )

    @classmethod
    def from_dataset(cls, dataset: Any, **settings: Any) -> Examples:
        """Gather a torch Dataset (anything with a length whose items are inputs, (input,) or (input, target)).

        `settings` are those of `from_arrays` other than inputs and targets.
        """
        try:
            items = [dataset[i] for i in range(len(dataset))]
        except FeatureLensError:
            raise
        except Exception as error:  # a data set of the user's own may raise anything; told in one sentence
            raise ExamplesError(
                f"A data set needs a length and items by index, but {type(dataset).__name__} has not "
                f"({type(error).__name__}: {in_brief(error)}); give a map-style data set or arrays."
            ) from error
        if not items:
            raise ExamplesError("A data set needs at least one example, but it is empty; give one that is not.")
        parts = {len(item) if isinstance(item, tuple | list) else 1 for item in items}
        if parts not in ({1}, {2}):
            raise ExamplesError(
                "Items of a data set are all inputs or all (input, target) pairs, but items of "
                f"{' and '.join(map(str, sorted(parts)))} parts came; wrap the data set so that it gives pairs."
            )
        inputs = stacked([item[0] if isinstance(item, tuple | list) else item for item in items], "inputs")
        targets = stacked([item[1] for item in items], "targets") if parts == {2} else None
        return cls.from_arrays(inputs, targets, **settings)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class labels (n,), or None where targets are absent or real values."""
        if self.targets is None or self.targets.ndim != 1 or not np.issubdtype(self.targets.dtype, np.integer):
            return None
        return self.targets.astype(np.int64)

    @property
    def n_classes(self) -> int:
        """How many classes there are: as many as have names, or as the labels tell; 0 without labels."""
        labels = self.labels
        if labels is None or len(labels) == 0:
            return self.least_classes
        return max(len(self.class_names), self.least_classes, int(labels.max()) + 1)

    @property
    def fitting(self) -> npt.NDArray[np.int64]:
        """Positions on which bases are fitted: the training examples, or all where there is no split."""
        return np.arange(len(self)) if self.training is None else np.flatnonzero(self.training)

    def part(self, name: str) -> npt.NDArray[np.int64]:
        """Positions of the 'training' or 'held-out' examples, or of 'all'.

        Raises SettingsError for another name, ExamplesError where there are no such examples.
        """
        if name not in ("all", "training", "held-out"):
            raise SettingsError(f"Examples are all, training or held-out, not '{name}'; choose one of them.")
        if name == "all":
            return np.arange(len(self))
        found = (
            np.empty(0, np.int64) if self.training is None else np.flatnonzero(self.training == (name == "training"))
        )
        if len(found) == 0:
            raise ExamplesError(f"There are no {name} examples; give the data with a split of both parts.")
        return found

    @cached_property
    def pairs(self) -> npt.NDArray[np.int64]:
        """(n, 2) which two things each example is made of; raises ExamplesError for other than pairs."""
        if self.modality.kind != "pair":
            raise ExamplesError(
                f"Examples of the modality 'pair' were wanted, but these are '{self.modality.kind}'; give that modality."
            )
        inputs = np.asarray(self.inputs[:]).reshape(len(self), -1)
        if np.issubdtype(inputs.dtype, np.integer):
            return inputs[:, :2].astype(np.int64)
        first = self.modality.shape[0]
        return np.stack([inputs[:, :first].argmax(axis=1), inputs[:, first:].argmax(axis=1)], axis=1)

    @cached_property
    def duplicate_group(self) -> npt.NDArray[np.int32]:
        """(n,) position of the first example with the very same input; its own position when there is none."""
        first: dict[bytes, int] = {}
        groups = np.empty(len(self), dtype=np.int32)
        for position in range(len(self)):
            digest = hashlib.sha256(np.ascontiguousarray(self.inputs[position]).tobytes()).digest()
            groups[position] = first.setdefault(digest, position)
        return groups

    def on(self, positions: npt.NDArray[np.int64]) -> Examples:
        """Some of the examples, in the order of the positions given, with their inputs in memory."""
        return replace(
            self,
            ids=self.ids[positions],
            inputs=np.asarray(self.inputs[positions]),
            targets=None if self.targets is None else self.targets[positions],
            training=None if self.training is None else self.training[positions],
            concepts=tuple(concept.on(positions) for concept in self.concepts),
            least_classes=self.n_classes,
        )

    def class_name(self, label: int) -> str:
        """Name of a class, or its number where classes have no names."""
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def output_name(self, output: int, c: int) -> str:
        """Name of one of the c outputs of a network: that of its class where there are as many, else its number."""
        return self.class_names[output] if len(self.class_names) == c else str(output)

    def split_name(self, position: int) -> str:
        """'training' or 'held-out', or '' where there is no split."""
        if self.training is None:
            return ""
        return "training" if self.training[position] else "held-out"

    def digest(self) -> str:
        """sha256 over everything that shapes a result: ids, inputs, targets, split, names, modality, concepts."""
        sha = hashlib.sha256()
        for array in (self.ids.astype(str).astype("U"), self.inputs, self.targets, self.training):
            if array is not None:
                data = np.ascontiguousarray(array)
                sha.update(f"{data.dtype.str}{data.shape}".encode() + data.tobytes())
        shown = asdict(self.modality)
        if not shown["channels_last"]:  # as it was before there was such a thing
            del shown["channels_last"]
        sha.update(repr((self.class_names, self.vocabulary, shown)).encode())
        for concept in self.concepts:
            sha.update(repr((concept.name, concept.labels)).encode() + np.ascontiguousarray(concept.values).tobytes())
        return sha.hexdigest()


def _words(names: Sequence[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ExamplesError(f"The {what} are a list of words, but the text '{names}' came; put it into a list.")
    words = tuple(str(name) for name in names)
    for word in words:
        require_storable(word.replace("\0", ""), f"of the {what}")  # byte-level vocabularies have NUL, which JSON holds
    return words


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        require_storable(name, "of the class names")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ExamplesError(f"Class names must differ, but '{twice}' came more than once; give each class its own.")
    return names


def _ids(ids: Any, n: int) -> Array:
    for one in ids if isinstance(ids, list | tuple) else ():  # an array of text drops what ends it
        if isinstance(one, str):
            require_storable(one, "of the ids")
    array = array_of(ids, "ids")
    if not (np.issubdtype(array.dtype, np.integer) or array.dtype.kind == "U"):
        raise ExamplesError(f"Ids are integers or strings, but {array.dtype} came; convert them first.")
    if array.shape != (n,):
        raise ExamplesError(f"There must be one id for each of {n} examples, but the shape {array.shape} came.")
    if array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
        raise ExamplesError(f"Integer ids must be below 2^63, but {array.max()} came; give them as text.")
    if array.dtype.kind == "U":
        for text in array.tolist():
            require_storable(text, "of the ids")
        longest = max((text.encode() for text in array.tolist()), key=len)
        most = MOST_TEXT if len(longest) * n <= MOST_TEXTS else _LONG_ID
        if len(longest) > most:
            raise ExamplesError(
                f"An id takes at most {most:,} bytes among {n:,}, but '{longest[:20].decode(errors='ignore')}...' takes "
                f"{len(longest):,}; shorten it."
            )
    unique, counts = np.unique(array, return_counts=True)
    if len(unique) < n:
        raise ExamplesError(
            f"Ids must be unique, but {np.count_nonzero(counts > 1)} occur more than once "
            f"(such as {unique[counts > 1][0]}); give each example its own."
        )
    return array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array


def _split(split: Any, n: int) -> npt.NDArray[np.bool_]:
    array = array_of(split, "split")
    if array.shape != (n,):
        raise ExamplesError(f"The split needs one entry for each of {n} examples, but the shape {array.shape} came.")
    if array.dtype == bool:
        training = array
    else:
        words = {str(word) for word in np.unique(array)}
        if unknown := sorted(words - {"train", "training", "held-out", "test"}):
            raise ExamplesError(f"A split says 'train' or 'held-out' (or is boolean), but '{unknown[0]}' came.")
        training = np.isin(array.astype(str), ["train", "training"])
    if not training.any():
        raise ExamplesError(
            "A split needs at least one training example, but it has none; leave the split out instead."
        )
    return training
