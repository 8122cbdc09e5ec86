"""Reads a run file: checks it when it is opened, then reads only what is indexed, under one lock."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import h5py
import numpy as np

from feature_lens.cards import NetworkCard, ParameterTable, Provenance
from feature_lens.concepts import Concept
from feature_lens.errors import FeatureLensError, RunError, in_brief
from feature_lens.examples import Column, Examples, Modality
from feature_lens.feature_set import SET_NAME, Card, FeatureSet
from feature_lens.run_contents import KEPT_KERNELS, KeptKernel, RunContents
from feature_lens.store import schema
from feature_lens.store.dual_reader import read_dual
from feature_lens.store.factors_reader import read_factors
from feature_lens.store.hdf5_files import ReadFile
from feature_lens.store.lock import HDF5_LOCK
from feature_lens.store.seal import check_seal
from feature_lens.store.stored import as_shape, columns_of, group_of, part_of, read_json, read_text, read_words
from feature_lens.store.table_group import read_tables
from feature_lens.weight_factors import FactoredValues

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
        sizes: dict[str, int] = {}
        network = _read_network(group_of(file, "network"), sizes)
        examples, outputs = _read_examples(group_of(file, "examples"), sizes)
        if network.n_outputs != sizes["c"]:
            raise RunError(
                f"the network has {network.n_outputs} outputs, but {sizes['c']} are held; make the run again."
            )
        folder = group_of(file, "sets")
        groups = sorted((group_of(folder, name) for name in folder), key=lambda group: int(group.attrs["place"]))
        sets = [_read_set(group, network.parameters, dict(sizes), examples, outputs) for group in groups]
        provenance = Provenance(
            settings=read_json(file, "settings", dict),
            software=read_json(file, "software", dict),
            fingerprint=read_text(file, "fingerprint"),
            remarks=read_words(file, "remarks"),
        )
        name = read_text(file, "name")
        kernel = None if part_of(file, "kernel") is None else _read_kernel(group_of(file, "kernel"), dict(sizes))
        dual = None if part_of(file, "dual") is None else read_dual(group_of(file, "dual"), examples, dict(sizes))
        tables = {} if part_of(file, "tables") is None else read_tables(group_of(file, "tables"))
    return RunContents(name, network, examples, outputs, {s.name: s for s in sets}, provenance, dual, kernel, tables)


def _read_network(group: h5py.Group, sizes: dict[str, int]) -> NetworkCard:
    columns = columns_of(group, schema.NETWORK, sizes)
    table = ParameterTable(
        names=tuple(str(name) for name in np.asarray(columns["parameters/name"])),
        shapes=tuple(
            as_shape(json.loads(shape), f"{group.name}/parameters/shape")
            for shape in np.asarray(columns["parameters/shape"])
        ),
        learning_rates=tuple(float(rate) for rate in np.asarray(columns["parameters/learning_rate"])),
    )
    if table.total != sizes["p"]:
        raise RunError(f"'{group.name}' names {table.total} parameters but holds {sizes['p']}; make the run again.")
    return NetworkCard(
        name=read_text(group, "name"),
        architecture=read_text(group, "architecture"),
        n_outputs=int(group.attrs["n_outputs"]),
        parameters=table,
        digest=read_text(group, "digest"),
        metrics={str(name): float(value) for name, value in read_json(group, "metrics", dict).items()},
        trained=columns["trained"],
        initial=columns.get("initial"),
    )


def _read_examples(group: h5py.Group, sizes: dict[str, int]) -> tuple[Examples, Column]:
    columns = columns_of(group, schema.EXAMPLES, sizes)
    shown = read_json(group, "modality", dict)
    inputs, training, targets = columns["input"], columns.get("training"), columns.get("target")
    shape, last = as_shape(shown["shape"], f"{group.name} modality"), shown.get("channels_last", False)
    if not isinstance(last, bool):
        raise RunError(f"channels come last or not, but '{group.name}' says {last!r}; make the run again.")
    modality = Modality(shown["kind"], shape, shown["low"], shown["high"], last)
    if not modality.shows(inputs):
        raise RunError(f"inputs of shape {inputs.shape[1:]} cannot be shown as {modality.shape}; make the run again.")
    examples = Examples(
        ids=np.asarray(columns["id"]),
        inputs=inputs,
        modality=modality,
        targets=None if targets is None else np.asarray(targets),
        training=None if training is None else np.asarray(training).astype(bool),
        class_names=read_words(group, "class_names"),
        vocabulary=read_words(group, "vocabulary"),
        inferred=read_words(group, "inferred") if "inferred" in group.attrs else (),
        concepts=() if part_of(group, "concepts") is None else _read_concepts(group_of(group, "concepts"), sizes),
    )
    # Known already: keeps the whole inputs from being read for it.
    examples.__dict__["duplicate_group"] = np.asarray(columns["duplicate_group"])
    return examples, columns["output"]


def _read_concepts(folder: h5py.Group, sizes: dict[str, int]) -> tuple[Concept, ...]:
    groups = sorted((group_of(folder, name) for name in folder), key=lambda group: int(group.attrs["place"]))
    concepts = []
    for group in groups:
        values = np.asarray(columns_of(group, schema.CONCEPT, dict(sizes))["value"], dtype=np.float64)
        concepts.append(Concept(str(group.name).rsplit("/", 1)[-1], values, read_words(group, "labels")))
    return tuple(concepts)


def _read_kernel(group: h5py.Group, sizes: dict[str, int]) -> KeptKernel:
    outputs = read_text(group, "outputs")
    if outputs not in KEPT_KERNELS:
        raise RunError(f"the kernel of a run is {' or '.join(KEPT_KERNELS)}, not '{outputs}'; make the run again.")
    sizes["s"] = sizes["n"] * (sizes["c"] if outputs == "flattened" else 1)
    return KeptKernel(outputs, columns_of(group, schema.KERNEL, sizes)["value"])


def _read_set(
    group: h5py.Group, parameters: ParameterTable, sizes: dict[str, int], examples: Examples, outputs: Column
) -> FeatureSet:
    name = str(group.name).rsplit("/", 1)[-1]
    if not SET_NAME.fullmatch(name):
        raise RunError(f"'{name}' cannot be the name of a feature set; make the run again.")
    views = read_words(group, "views")
    sizes["v"] = len(views)
    columns = columns_of(group, schema.SET, sizes)
    if part_of(group, "factors") is not None:
        if "values" in columns:
            raise RunError(f"'{group.name}' holds values and factors, where one would do; make the run again.")
        factors = read_factors(group_of(group, "factors"), sizes)
        columns["values"] = FactoredValues(factors, views, examples.labels, outputs)
    return FeatureSet(name, views, _card(read_json(group, "card", dict)), columns, parameters)


def _card(data: Mapping[str, Any]) -> Card:
    known = {part.name for part in fields(Card)} - {"provenance"}
    kept = {key: value for key, value in data.items() if key in known}
    shown = data["provenance"]
    provenance = Provenance(shown["settings"], shown["software"], shown["fingerprint"], tuple(shown["remarks"]))
    return Card(**kept, provenance=provenance)
