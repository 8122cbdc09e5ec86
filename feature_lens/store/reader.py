"""Reads a run file: checks it when it is opened, then reads only what is indexed, under one lock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.cards import NetworkCard, ParameterTable, Provenance
from feature_lens.errors import FeatureLensError, RunError
from feature_lens.examples import Column, Examples, Modality
from feature_lens.feature_set import Card, FeatureSet
from feature_lens.run_contents import RunContents
from feature_lens.store import schema
from feature_lens.store.lock import HDF5_LOCK
from feature_lens.store.writer import check_shape

T = TypeVar("T")


class StoredColumn:
    """A data set of an open run file that reads what is indexed; text comes back as str."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape)
        self._text = dataset.dtype.kind in "SO"
        self.dtype: np.dtype[Any] = np.dtype("U") if self._text else dataset.dtype

    def __getitem__(self, index: Any, /) -> Any:
        with HDF5_LOCK:
            try:
                found = self._dataset[index]
            except (OSError, RuntimeError) as error:
                raise RunError(
                    f"'{self._dataset.name}' cannot be read ({error}); the file is damaged: make the run again."
                ) from None
        if not self._text:
            return found
        return found.decode("utf-8") if isinstance(found, bytes) else np.char.decode(found, "utf-8")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)

    def __len__(self) -> int:
        return self.shape[0]


class RunFile(RunContents):
    """A run read from its file. Open until `close`, or used as a context manager; safe to share between threads.

    Raises RunError when the file is missing, no HDF5, truncated, not a run, incomplete, or of a newer major version.
    """

    def __init__(self, path: Path | str) -> None:
        located = Path(path)
        file = _open(located)
        try:
            contents = _read_contents(file)
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            _close(file)
            raise RunError(
                f"'{located}' is a damaged or foreign run file ({error}); make the run again with 'feature-lens extract'."
            ) from None
        except FeatureLensError as error:
            _close(file)
            raise RunError(f"'{located}' cannot be used: {error}") from None
        super().__init__(**{part.name: getattr(contents, part.name) for part in fields(contents)})
        object.__setattr__(self, "path", located)
        object.__setattr__(self, "_file", file)

    path: Path
    _file: h5py.File

    def close(self) -> None:
        """Close the file; columns can no longer be read afterwards."""
        _close(self._file)

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(file: h5py.File) -> None:
    with HDF5_LOCK:
        file.close()


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise RunError(f"There is no run file '{path}'; make one with 'feature-lens demo' or 'feature-lens extract'.")
    with HDF5_LOCK:
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise RunError(
                f"'{path}' is not a readable HDF5 file ({_brief(error)}); give a run file made by feature-lens."
            ) from None
        try:
            _check_header(file, path)
        except RunError:
            file.close()
            raise
    return file


def _brief(error: Exception) -> str:
    text = str(error)
    return text[text.find("(") + 1 : text.rfind(")")] if "(" in text else text


def _check_header(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != schema.FORMAT:
        raise RunError(f"'{path}' is an HDF5 file, but not a feature_lens run; give one made by feature-lens.")
    version = str(file.attrs.get("format_version", ""))
    major = version.split(".")[0]
    if not major.isdigit():
        raise RunError(f"'{path}' does not say its format version; make the run again.")
    if int(major) > schema.MAJOR:
        raise RunError(
            f"'{path}' has format version {version}, but this program reads up to {schema.MAJOR}; install a newer feature_lens."
        )
    if not file.attrs.get("complete", False):
        raise RunError(f"'{path}' was not finished; make the run again.")


def _read_contents(file: h5py.File) -> RunContents:
    with HDF5_LOCK:
        sizes: dict[str, int] = {}
        network = _read_network(file["network"], sizes)
        examples, outputs = _read_examples(file["examples"], sizes)
        groups = sorted(file["sets"].values(), key=lambda group: int(group.attrs["place"]))
        sets = [_read_set(group, network.parameters, dict(sizes)) for group in groups]
        provenance = Provenance(
            settings=json.loads(file.attrs["settings"]),
            software=json.loads(file.attrs["software"]),
            fingerprint=str(file.attrs["fingerprint"]),
            remarks=tuple(json.loads(file.attrs["remarks"])),
        )
        name = str(file.attrs["name"])
    return RunContents(name, network, examples, outputs, {s.name: s for s in sets}, provenance)


def _columns(group: h5py.Group, elements: tuple[schema.Element, ...], sizes: dict[str, int]) -> dict[str, Column]:
    """The known data sets of a group, each checked against its letters; links out of the file are refused."""
    columns: dict[str, Column] = {}
    for element in elements:
        if element.name not in group:
            if element.optional:
                continue
            raise RunError(f"the data set '{group.name}/{element.name}' is missing; make the run again.")
        if not isinstance(group.get(element.name, getlink=True), h5py.HardLink):
            raise RunError(f"'{group.name}/{element.name}' is a link; a run holds its own data: make the run again.")
        dataset = group[element.name]
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
            raise RunError(f"'{group.name}/{element.name}' does not hold data of its own; make the run again.")
        check_shape(f"{group.name}/{element.name}", tuple(dataset.shape), element.dims, sizes)
        columns[element.name] = StoredColumn(dataset)
    return columns


def _read_network(group: h5py.Group, sizes: dict[str, int]) -> NetworkCard:
    columns = _columns(group, schema.NETWORK, sizes)
    table = ParameterTable(
        names=tuple(str(name) for name in np.asarray(columns["parameters/name"])),
        shapes=tuple(tuple(json.loads(shape)) for shape in np.asarray(columns["parameters/shape"])),
        learning_rates=tuple(float(rate) for rate in np.asarray(columns["parameters/learning_rate"])),
    )
    if table.total != sizes["p"]:
        raise RunError(f"'{group.name}' names {table.total} parameters but holds {sizes['p']}; make the run again.")
    return NetworkCard(
        name=str(group.attrs["name"]),
        architecture=str(group.attrs["architecture"]),
        n_outputs=int(group.attrs["n_outputs"]),
        parameters=table,
        digest=str(group.attrs["digest"]),
        metrics=json.loads(group.attrs["metrics"]),
        trained=columns["trained"],
        initial=columns.get("initial"),
    )


def _read_examples(group: h5py.Group, sizes: dict[str, int]) -> tuple[Examples, Column]:
    columns = _columns(group, schema.EXAMPLES, sizes)
    shown = json.loads(group.attrs["modality"])
    training = columns.get("training")
    targets = columns.get("target")
    examples = Examples(
        ids=np.asarray(columns["id"]),
        inputs=columns["input"],
        modality=Modality(shown["kind"], tuple(shown["shape"]), shown["low"], shown["high"]),
        targets=None if targets is None else np.asarray(targets),
        training=None if training is None else np.asarray(training).astype(bool),
        class_names=tuple(json.loads(group.attrs["class_names"])),
        vocabulary=tuple(json.loads(group.attrs["vocabulary"])),
    )
    # Known already: keeps the whole inputs from being read for it.
    examples.__dict__["duplicate_group"] = np.asarray(columns["duplicate_group"])
    return examples, columns["output"]


def _read_set(group: h5py.Group, parameters: ParameterTable, sizes: dict[str, int]) -> FeatureSet:
    views = tuple(json.loads(group.attrs["views"]))
    sizes["v"] = len(views)
    columns = _columns(group, schema.SET, sizes)
    name = str(group.name).rsplit("/", 1)[-1]
    return FeatureSet(name, views, _card(json.loads(group.attrs["card"])), columns, parameters)


def _card(data: Mapping[str, Any]) -> Card:
    known = {part.name for part in fields(Card)} - {"provenance"}
    kept = {key: value for key, value in data.items() if key in known}
    shown = data["provenance"]
    provenance = Provenance(shown["settings"], shown["software"], shown["fingerprint"], tuple(shown["remarks"]))
    return Card(**kept, provenance=provenance)
