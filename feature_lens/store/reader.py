"""Reads a run file: checks it when it is opened, then reads only what is indexed, under one lock."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import h5py
import numpy as np

from feature_lens.cards import NetworkCard, ParameterTable
from feature_lens.concepts import Concept
from feature_lens.errors import FeatureLensError, RunError, in_brief
from feature_lens.examples import Column, Examples, Modality
from feature_lens.feature_set import SET_NAME, FeatureSet
from feature_lens.run_contents import KEPT_KERNELS, KeptKernel, RunContents
from feature_lens.store import schema
from feature_lens.store.cards_reader import read_card, read_provenance
from feature_lens.store.columns import Letters
from feature_lens.store.dual_reader import read_dual
from feature_lens.store.factors_reader import read_factors
from feature_lens.store.hdf5_files import ReadFile
from feature_lens.store.lock import HDF5_LOCK
from feature_lens.store.seal import check_seal
from feature_lens.store.stored import (
    as_shape,
    check_different,
    columns_of,
    group_of,
    parsed,
    part_of,
    read_count,
    read_json,
    read_text,
    read_words,
)
from feature_lens.store.table_group import read_tables
from feature_lens.weight_factors import DERIVED, FactoredValues

T = TypeVar("T")

# What damaged or hostile bytes make h5py, json and the types of a run raise.
_DAMAGE: Final = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    OSError,
    RuntimeError,
    MemoryError,
)


class RunFile(RunContents):
    """A run read from its file. Open until `close`, or used as a context manager; safe to share between threads.

    Raises RunError when the file is missing, no HDF5, not a run, truncated or changed, incomplete, or of a newer
    major version. Opening reads the whole file once, for its checksum.
    """

    def __init__(self, path: Path | str) -> None:
        located = Path(path)
        file, disk = _open(located)
        try:
            _check_header(file, located)
            contents = _read_contents(file)
        except FeatureLensError as error:
            _close(file, disk)
            raise (error if str(located) in str(error) else RunError(f"'{located}' cannot be used: {error}")) from None
        except _DAMAGE as error:
            _close(file, disk)
            raise RunError(
                f"'{located}' is a damaged or foreign run file ({in_brief(error)}); "
                "make the run again with 'feature-lens extract'."
            ) from None
        super().__init__(**{part.name: getattr(contents, part.name) for part in fields(contents)})
        object.__setattr__(self, "path", located)
        object.__setattr__(self, "_file", file)
        object.__setattr__(self, "_disk", disk)

    path: Path
    _file: h5py.File
    _disk: ReadFile

    def close(self) -> None:
        """Close the file; columns can no longer be read afterwards."""
        _close(self._file, self._disk)

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(file: h5py.File, disk: ReadFile) -> None:
    with HDF5_LOCK:
        file.close()
        disk.close()


def _open(path: Path) -> tuple[h5py.File, ReadFile]:
    """The file as HDF5 and as the disk have it: what was held against the seal is what is read."""
    try:
        there = path.is_file()
    except OSError as error:
        raise RunError(f"'{path}' cannot be a run file ({error.strerror}); correct the path.") from None
    if not there:
        raise RunError(f"There is no run file '{path}'; make one with 'feature-lens demo' or 'feature-lens extract'.")
    try:
        disk = ReadFile(path)
    except OSError as error:
        raise RunError(f"'{path}' cannot be read ({error.strerror or error}).") from None
    try:
        check_seal(disk, path)
        with HDF5_LOCK:
            return h5py.File(disk, "r"), disk
    except BaseException as error:
        disk.close()
        if isinstance(error, _DAMAGE):
            raise RunError(
                f"'{path}' is not a readable HDF5 file ({_brief(error)}); give a run file made by feature-lens."
            ) from None
        raise


def _brief(error: BaseException) -> str:
    text = in_brief(error)
    return text[text.find("(") + 1 : text.rfind(")")] if "(" in text else text


def _check_header(file: h5py.File, path: Path) -> None:
    with HDF5_LOCK:
        shown, version, complete = (file.attrs.get(key) for key in ("format", "format_version", "complete"))
    if not isinstance(shown, str) or shown != schema.FORMAT:
        raise RunError(f"'{path}' is an HDF5 file, but not a feature_lens run; give one made by feature-lens.")
    number = re.fullmatch(r"([0-9]{1,9})\.[0-9]{1,9}", version) if isinstance(version, str) else None
    if number is None:
        raise RunError(f"'{path}' does not say its format version; make the run again.")
    if int(number[1]) > schema.MAJOR:
        raise RunError(
            f"'{path}' has format version {version}, but this program reads up to {schema.MAJOR}; install a newer feature_lens."
        )
    if not isinstance(complete, bool | np.bool_) or not complete:
        raise RunError(f"'{path}' was not finished; make the run again.")


def _read_contents(file: h5py.File) -> RunContents:
    with HDF5_LOCK:
        sizes = Letters(room=file.id.get_filesize())
        network = _read_network(group_of(file, "network"), sizes)
        examples, outputs = _read_examples(group_of(file, "examples"), sizes)
        if network.n_outputs != sizes["c"]:
            raise RunError(
                f"the network has {network.n_outputs} outputs, but {sizes['c']} are held; make the run again."
            )
        _check_some(sizes, "n c p l")
        groups = _in_order(group_of(file, "sets"))
        sets = [_read_set(group, network.parameters, sizes.own(), examples, outputs) for group in groups]
        provenance = read_provenance(
            "the run",
            {
                **{key: read_json(file, key, dict) for key in ("settings", "software")},
                "fingerprint": read_text(file, "fingerprint"),
                "remarks": read_json(file, "remarks", list),
            },
        )
        name = read_text(file, "name")
        kernel = None if part_of(file, "kernel") is None else _read_kernel(group_of(file, "kernel"), sizes.own())
        dual = None if part_of(file, "dual") is None else read_dual(group_of(file, "dual"), examples, sizes.own())
        tables = {} if part_of(file, "tables") is None else read_tables(group_of(file, "tables"), sizes)
    return RunContents(name, network, examples, outputs, {s.name: s for s in sets}, provenance, dual, kernel, tables)


def _check_some(sizes: Letters, letters: str) -> None:
    if missing := [letter for letter in letters.split() if sizes[letter] < 1]:
        raise RunError(f"a run has at least one of everything, but {missing[0]} = 0 came; make the run again.")


def _in_order(folder: h5py.Group) -> list[h5py.Group]:
    """The groups of a folder by their attribute `place`."""
    return sorted((group_of(folder, name) for name in folder), key=lambda group: read_count(group, "place"))


def _read_network(group: h5py.Group, sizes: Letters) -> NetworkCard:
    columns = columns_of(group, schema.NETWORK, sizes)
    check_different(group, "parameters/name", columns["parameters/name"])
    metrics = read_json(group, "metrics", dict)
    if not all(type(value) in (int, float) and math.isfinite(value) for value in metrics.values()):
        raise RunError(f"the metrics of '{group.name}' are not all finite numbers; make the run again.")
    table = ParameterTable(
        names=tuple(str(name) for name in np.asarray(columns["parameters/name"])),
        shapes=tuple(
            as_shape(parsed(str(shape), f"'{group.name}/parameters/shape'"), f"{group.name}/parameters/shape")
            for shape in np.asarray(columns["parameters/shape"])
        ),
        learning_rates=tuple(float(rate) for rate in np.asarray(columns["parameters/learning_rate"])),
    )
    if table.total != sizes["p"]:
        raise RunError(f"'{group.name}' names {table.total} parameters but holds {sizes['p']}; make the run again.")
    return NetworkCard(
        name=read_text(group, "name"),
        architecture=read_text(group, "architecture"),
        n_outputs=read_count(group, "n_outputs"),
        parameters=table,
        digest=read_text(group, "digest"),
        metrics={str(name): float(value) for name, value in metrics.items()},
        trained=columns["trained"],
        initial=columns.get("initial"),
    )


def _read_examples(group: h5py.Group, sizes: Letters) -> tuple[Examples, Column]:
    columns = columns_of(group, schema.EXAMPLES, sizes)
    check_different(group, "id", columns["id"])
    shown = read_json(group, "modality", dict)
    if missing := [key for key in ("kind", "shape", "low", "high") if key not in shown]:
        raise RunError(f"the modality of '{group.name}' does not say its {missing[0]}; make the run again.")
    inputs, training, targets = columns["input"], columns.get("training"), columns.get("target")
    shape, last = as_shape(shown["shape"], f"{group.name} modality"), shown.get("channels_last", False)
    if not isinstance(last, bool):
        raise RunError(f"channels come last or not, but '{group.name}' says {last!r}; make the run again.")
    for end in ("low", "high"):
        if shown[end] is not None and type(shown[end]) not in (int, float):
            raise RunError(f"'{end}' in the modality of '{group.name}' is no number; make the run again.")
    modality = Modality(shown["kind"], shape, shown["low"], shown["high"], last)
    if not modality.shows(inputs):
        raise RunError(f"inputs of shape {inputs.shape[1:]} cannot be shown as {modality.shape}; make the run again.")
    examples = Examples(
        ids=np.asarray(columns["id"]),
        inputs=inputs,
        modality=modality,
        targets=None if targets is None else np.asarray(targets),
        training=None if training is None else np.asarray(training) != 0,
        class_names=read_words(group, "class_names"),
        vocabulary=read_words(group, "vocabulary"),
        inferred=read_words(group, "inferred") if "inferred" in group.attrs else (),
        concepts=() if part_of(group, "concepts") is None else _read_concepts(group_of(group, "concepts"), sizes),
    )
    _check_labels(group, examples)
    if modality.kind == "pair" and inputs.dtype.kind in "iu":
        pairs = np.asarray(inputs[:]).reshape(len(examples), -1)[:, :2]
        if (pairs < 0).any() or (pairs >= np.array(modality.shape)).any():
            raise RunError(f"'{group.name}/input' holds pairs outside of {modality.shape}; make the run again.")
    first = np.asarray(columns["duplicate_group"])
    if (first > np.arange(len(first))).any() or (first[first] != first).any():
        raise RunError(f"'{group.name}/duplicate_group' does not name the first of equal inputs; make the run again.")
    # Known already: keeps the whole inputs from being read for it.
    examples.__dict__["duplicate_group"] = first
    return examples, columns["output"]


def _check_labels(group: h5py.Group, examples: Examples) -> None:
    """Raise RunError for labels that are of no class, names of classes that are not different, a split without training."""
    names, targets = examples.class_names, examples.targets
    if len(set(names)) < len(names):
        raise RunError(f"the class names of '{group.name}' are not all different; make the run again.")
    if examples.training is not None and not examples.training.any():
        raise RunError(f"'{group.name}/training' holds no training example; make the run again.")
    if targets is None or targets.ndim != 1 or targets.dtype.kind not in "iu":
        return
    most = len(names) or 1 << 63
    if int(targets.min()) < 0 or int(targets.max()) >= most:
        raise RunError(f"'{group.name}/target' does not hold classes from 0 to {most - 1}; make the run again.")


def _read_concepts(folder: h5py.Group, sizes: Letters) -> tuple[Concept, ...]:
    concepts = []
    for group in _in_order(folder):
        values = np.asarray(columns_of(group, schema.CONCEPT, sizes.own())["value"], dtype=np.float64)
        concepts.append(Concept(str(group.name).rsplit("/", 1)[-1], values, read_words(group, "labels")))
    return tuple(concepts)


def _read_kernel(group: h5py.Group, sizes: Letters) -> KeptKernel:
    outputs = read_text(group, "outputs")
    if outputs not in KEPT_KERNELS:
        raise RunError(f"the kernel of a run is {' or '.join(KEPT_KERNELS)}, not '{outputs}'; make the run again.")
    sizes["s"] = sizes["n"] * (sizes["c"] if outputs == "flattened" else 1)
    return KeptKernel(outputs, columns_of(group, schema.KERNEL, sizes)["value"])


def _read_set(
    group: h5py.Group, parameters: ParameterTable, sizes: Letters, examples: Examples, outputs: Column
) -> FeatureSet:
    name = str(group.name).rsplit("/", 1)[-1]
    if not SET_NAME.fullmatch(name):
        raise RunError(f"'{name}' cannot be the name of a feature set; make the run again.")
    views = read_words(group, "views")
    _check_views(name, views, sizes["c"])
    sizes["v"] = len(views)
    columns = columns_of(group, schema.SET, sizes)
    _check_some(sizes, "k v m")
    if "location" in columns:
        _check_places(group, columns)
    direction = columns.get("direction")
    if direction is not None and direction.shape[1:] not in ((sizes["p"],), (sizes["c"], sizes["p"])):
        raise RunError(f"'{group.name}/direction' is of another shape than parameters have; make the run again.")
    if part_of(group, "factors") is not None:
        if "values" in columns:
            raise RunError(f"'{group.name}' holds values and factors, where one would do; make the run again.")
        factors = read_factors(group_of(group, "factors"), sizes)
        columns["values"] = FactoredValues(factors, views, examples.labels, outputs)
    return FeatureSet(name, views, read_card(name, read_json(group, "card", dict)), columns, parameters)


def _check_places(group: h5py.Group, columns: Mapping[str, Column]) -> None:
    """Raise RunError where a location is none of the positions that it counts."""
    shape = columns.get("location_shape")
    if shape is None:
        raise RunError(f"'{group.name}' holds locations without their shape; make the run again.")
    sizes = np.asarray(shape, dtype=np.float64)  # products may be larger than whole numbers are
    most = np.where(sizes > 0, sizes, 1).prod(axis=1)
    for feature in range(shape.shape[0]):
        if columns["location"].shape[1] and np.asarray(columns["location"][feature]).max() >= most[feature]:
            raise RunError(f"'{group.name}/location' holds places outside of their shape; make the run again.")


def _check_views(name: str, views: tuple[str, ...], c: int) -> None:
    """Raise RunError for views that are not known, are of no output, or stand twice."""
    known = {"activation", "score", *DERIVED, *(f"output:{number}" for number in range(c))}
    if unknown := [view for view in views if view not in known]:
        raise RunError(f"the set '{name}' has a view '{unknown[0]}', which is none; make the run again.")
    if len(set(views)) < len(views):
        raise RunError(f"the set '{name}' has the same view twice; make the run again.")
