"""Writes a run file: all of it or nothing, and never over an existing file unless asked to."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.errors import OutputError, RunError
from feature_lens.feature_set import FeatureSet
from feature_lens.run_contents import RunContents
from feature_lens.store import schema
from feature_lens.store.lock import HDF5_LOCK

CHUNK_BYTES = 1 << 20


def check_writable(path: Path | str, overwrite: bool = False) -> Path:
    """The path itself when a file can be put there; raises OutputError otherwise, before any work is done."""
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"A file was wanted, but '{target}' is a folder; give a file name.")
    if target.exists() and not overwrite:
        raise OutputError(f"'{target}' exists already; choose another name or allow it with --overwrite.")
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"The folder '{folder}' does not exist; make it first or choose another path.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"Nothing can be written in '{folder}' ({error.strerror}); choose another path.") from None
    return target


def write_run(contents: RunContents, path: Path | str, overwrite: bool = False) -> Path:
    """Write a run atomically: a temporary file beside the target, fsync, then a rename.

    Raises OutputError when the path exists (unless `overwrite`) or cannot be written, RunError when the
    contents do not fit the schema. A failure leaves what was at `path` as it was.
    """

    def write(temporary: Path) -> None:
        with HDF5_LOCK, h5py.File(temporary, "x") as file:
            _write_contents(file, contents)
            file.attrs["complete"] = True

    return _atomically(write, path, overwrite)


def write_bytes(content: bytes, path: Path | str, overwrite: bool = False) -> Path:
    """Write a file of any kind with the same care as a run; raises OutputError."""
    return _atomically(lambda temporary: _write_new(temporary, content), path, overwrite)


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)


def _atomically(write: Callable[[Path], None], path: Path | str, overwrite: bool) -> Path:
    target = check_writable(path, overwrite)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        write(temporary)
        _sync(temporary)
        if overwrite:
            os.replace(temporary, target)
        else:
            _place_new(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise OutputError(
            f"'{target}' could not be written ({error.strerror or error}); nothing was changed."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _place_new(temporary: Path, target: Path) -> None:
    """Link rather than rename, so that a file made meanwhile by someone else is not lost."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise OutputError(f"'{target}' appeared while the run was computed; choose another name.") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_contents(file: h5py.File, contents: RunContents) -> None:
    provenance = contents.provenance
    file.attrs["format"] = schema.FORMAT
    file.attrs["format_version"] = schema.VERSION
    file.attrs["name"] = contents.name
    file.attrs["settings"] = json.dumps(dict(provenance.settings))
    file.attrs["software"] = json.dumps(dict(provenance.software))
    file.attrs["fingerprint"] = provenance.fingerprint
    file.attrs["remarks"] = json.dumps(list(provenance.remarks))
    sizes: dict[str, int] = {}
    _write_network(file.create_group("network"), contents, sizes)
    _write_examples(file.create_group("examples"), contents, sizes)
    sets = file.create_group("sets")
    for place, feature_set in enumerate(contents.sets.values()):
        _write_set(sets.create_group(feature_set.name), feature_set, place, dict(sizes))


def _write_network(group: h5py.Group, contents: RunContents, sizes: dict[str, int]) -> None:
    network = contents.network
    group.attrs["name"] = network.name
    group.attrs["architecture"] = network.architecture
    group.attrs["n_outputs"] = network.n_outputs
    group.attrs["digest"] = network.digest
    group.attrs["metrics"] = json.dumps(dict(network.metrics))
    table = network.parameters
    columns: dict[str, Any] = {
        "parameters/name": np.array(table.names),
        "parameters/shape": np.array([json.dumps(shape) for shape in table.shapes]),
        "parameters/learning_rate": np.array(table.learning_rates, dtype=np.float64),
        "trained": network.trained,
    }
    if network.initial is not None:
        columns["initial"] = network.initial
    _write_columns(group, columns, schema.NETWORK, sizes)


def _write_examples(group: h5py.Group, contents: RunContents, sizes: dict[str, int]) -> None:
    examples = contents.examples
    group.attrs["modality"] = json.dumps(asdict(examples.modality))
    group.attrs["class_names"] = json.dumps(list(examples.class_names))
    group.attrs["vocabulary"] = json.dumps(list(examples.vocabulary))
    columns: dict[str, Any] = {
        "id": examples.ids,
        "input": examples.inputs,
        "output": contents.outputs,
        "duplicate_group": examples.duplicate_group,
    }
    if examples.targets is not None:
        columns["target"] = examples.targets
    if examples.training is not None:
        columns["training"] = examples.training
    _write_columns(group, columns, schema.EXAMPLES, sizes)


def _write_set(group: h5py.Group, feature_set: FeatureSet, place: int, sizes: dict[str, int]) -> None:
    group.attrs["place"] = place
    group.attrs["views"] = json.dumps(list(feature_set.views))
    group.attrs["card"] = json.dumps(asdict(feature_set.card))
    sizes["v"] = len(feature_set.views)
    _write_columns(group, feature_set.columns, schema.SET, sizes)


def _write_columns(
    group: h5py.Group, columns: Any, elements: tuple[schema.Element, ...], sizes: dict[str, int]
) -> None:
    known = {element.name for element in elements}
    if unknown := sorted(set(columns) - known):
        raise RunError(f"The schema has no data set '{group.name}/{unknown[0]}'; add it to the schema first.")
    for element in elements:
        if element.name not in columns:
            if not element.optional:
                raise RunError(f"A run needs the data set '{group.name}/{element.name}', but it is missing.")
            continue
        array = np.asarray(columns[element.name])
        schema_kind = "S" if array.dtype.kind == "U" else array.dtype.kind
        if schema_kind not in element.kinds:
            raise RunError(f"'{group.name}/{element.name}' holds {array.dtype}, but the schema says {element.kinds}.")
        check_shape(f"{group.name}/{element.name}", array.shape, element.dims, sizes)
        _write_array(group, element.name, array)


def check_shape(name: str, shape: tuple[int, ...], dims: str, sizes: dict[str, int]) -> None:
    """Raise RunError where a shape does not fit its letters; letters seen for the first time are remembered."""
    letters = dims.split()
    fixed = [letter for letter in letters if letter != "..."]
    if len(shape) < len(fixed) or (len(shape) > len(fixed) and "..." not in letters):
        raise RunError(f"'{name}' needs the dimensions ({dims}), but its shape is {shape}.")
    for letter, size in zip(fixed, shape, strict=False):
        if sizes.setdefault(letter, size) != size:
            raise RunError(
                f"'{name}' needs {letter} = {sizes[letter]} by the rest of the run, but its shape is {shape}."
            )


def _write_array(group: h5py.Group, name: str, array: npt.NDArray[Any]) -> None:
    if array.dtype.kind == "U":
        encoded = np.char.encode(array, "utf-8")
        width = max(encoded.dtype.itemsize, 1)
        array = encoded.astype(h5py.string_dtype("utf-8", width))
    if array.ndim == 0 or array.size == 0:
        group.create_dataset(name, data=array)
        return
    group.create_dataset(
        name,
        data=array,
        chunks=_chunks(array.shape, array.dtype.itemsize),
        compression="gzip",
        compression_opts=4,
        shuffle=True,
    )


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of whole trailing dimensions, at most 1 MiB: one feature, or a few, per chunk."""
    chunk = list(shape)
    for axis in range(len(shape)):
        rest = itemsize * int(np.prod(chunk[axis + 1 :], dtype=np.int64))
        chunk[axis] = max(1, min(shape[axis], CHUNK_BYTES // max(rest, 1)))
        if rest <= CHUNK_BYTES:
            break
    return tuple(chunk)
