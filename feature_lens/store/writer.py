"""Writes a run file: all of it or nothing, and never over an existing file unless asked to."""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from feature_lens.dual_record import DualRecord, Expansion
from feature_lens.errors import OutputError, RunError, in_brief
from feature_lens.feature_set import SET_NAME, FeatureSet
from feature_lens.run_contents import KEPT_KERNELS, Deferred, KeptKernel, RunContents
from feature_lens.store import schema
from feature_lens.store.blocks import add_matrix, check_room, stored_size
from feature_lens.store.columns import CHUNK_BYTES, Letters, json_text, write_columns
from feature_lens.store.hdf5_files import writing, written_hdf5
from feature_lens.store.lock import HDF5_LOCK
from feature_lens.store.placing import put_in_place, reason, tell_of_leftovers
from feature_lens.store.seal import seal, sealed
from feature_lens.store.table_group import write_tables
from feature_lens.weight_factors import FactoredValues, WeightFactors

_ROWS = 256  # of a kernel, copied at a time


def check_writable(path: Path | str, overwrite: bool = False) -> Path:
    """The path itself when a file can be put there; raises OutputError otherwise, before any work is done."""
    target = Path(path)
    try:
        target.name.encode("utf-8")  # the run is called after it
        found = target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise OutputError(f"'{target}' cannot be a file ({reason(error)}); choose another path.") from None
    else:
        if target.is_dir():
            raise OutputError(f"A file was wanted, but '{target}' is a folder; give a file name.")
        if not overwrite:
            raise OutputError(f"'{target}' exists already; choose another name or allow it with --overwrite.")
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            raise OutputError(f"'{target}' is not an ordinary file and is never replaced; choose another path.")
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"The folder '{folder}' does not exist; make it first or choose another path.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        tell_of_leftovers(folder)
    except OSError as error:
        raise OutputError(f"Nothing can be written in '{folder}' ({reason(error)}); choose another path.") from None
    return target


def check_apart(target: Path, read: Iterable[Path | str | None]) -> None:
    """Raises OutputError where the file to be written is one that is read for it, by whatever name: not even `overwrite`
    means that."""
    if target.exists() and any(
        given is not None and os.path.exists(given) and target.samefile(given) for given in read
    ):
        raise OutputError(f"'{target}' is read by this command and is never replaced by it; choose another path.")


def check_folder(path: Path | str, overwrite: bool = False) -> Path:
    """The path of a folder that files can be put into; raises OutputError where it is a file, or holds something and
    that was not allowed."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"A folder was wanted, but '{folder}' is a file; choose another name.")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise OutputError(
            f"The folder '{folder}' is not empty; choose another, or allow its files to be replaced with --overwrite."
        )
    return folder


def write_run(contents: RunContents, path: Path | str, overwrite: bool = False) -> Path:
    """Write a run atomically: a temporary file beside the target, fsync, then a rename.

    Raises OutputError when the path exists (unless `overwrite`) or cannot be written, RunError when the
    contents do not fit the schema. A failure leaves what was at `path` as it was. Memory: the size of the file but for
    its kernel, which goes to the disk block by block.
    """
    target = check_writable(path, overwrite)
    if contents.kernel is None:
        return write_bytes(sealed(_image(contents)), path, overwrite)
    side = len(contents.examples) * (contents.network.n_outputs if contents.kernel.outputs == "flattened" else 1)
    if contents.kernel.outputs not in KEPT_KERNELS or contents.kernel.value.shape != (side, side):
        raise RunError(
            f"The kernel of a run is {' or '.join(KEPT_KERNELS)} over its examples, but '{contents.kernel.outputs}' "
            f"of shape {contents.kernel.value.shape} came."
        )
    check_room(target.parent, side * side * contents.kernel.value.dtype.itemsize)
    with put_in_place(target, overwrite) as temporary:
        temporary.write_bytes(_image(contents))
        _add_kernel(temporary, contents.kernel)
        seal(temporary)
    return target


def _add_kernel(path: Path, kernel: KeptKernel) -> None:
    shape, dtype = kernel.value.shape, kernel.value.dtype
    with written_hdf5(path, "r+") as (file, disk):
        disk.reserve(stored_size(shape, dtype))
        with writing():
            group = file.create_group("kernel")
            group.attrs["outputs"] = kernel.outputs
        made = add_matrix(group, "value", shape, dtype, disk)
        if isinstance(kernel.value, Deferred):
            kernel.value.fill(made)
        else:
            for start in range(0, shape[0], _ROWS):
                made[start : start + _ROWS, :] = np.asarray(kernel.value[start : start + _ROWS])


def _image(contents: RunContents) -> bytes:
    """The bytes of the file, made in memory: HDF5 itself brings the process down when a disk is full."""
    try:
        with HDF5_LOCK, h5py.File("run.h5", "x", driver="core", backing_store=False, block_size=CHUNK_BYTES) as file:
            _write_contents(file, contents)
            file.attrs["complete"] = True
            file.flush()
            return bytes(file.id.get_file_image())
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise RunError(f"The run cannot be put into a file ({in_brief(error)}); nothing was changed.") from error


def write_bytes(content: bytes, path: Path | str, overwrite: bool = False) -> Path:
    """Write a file of any kind with the same care as a run; raises OutputError."""
    target = check_writable(path, overwrite)
    with put_in_place(target, overwrite) as temporary:
        temporary.write_bytes(content)
    return target


def _write_contents(file: h5py.File, contents: RunContents) -> None:
    provenance = contents.provenance
    file.attrs["format"] = schema.FORMAT
    file.attrs["format_version"] = schema.VERSION
    file.attrs["name"] = contents.name
    file.attrs["settings"] = json_text(dict(provenance.settings))
    file.attrs["software"] = json_text(dict(provenance.software))
    file.attrs["fingerprint"] = provenance.fingerprint
    file.attrs["remarks"] = json_text(list(provenance.remarks))
    sizes = Letters()
    _write_network(file.create_group("network"), contents, sizes)
    _write_examples(file.create_group("examples"), contents, sizes)
    sets = file.create_group("sets")
    for place, (name, feature_set) in enumerate(contents.sets.items()):
        if name != feature_set.name or not SET_NAME.fullmatch(name):
            raise RunError(
                f"A feature set is called by letters, digits, '_', '-' and '.', but '{name}' came; choose another name."
            )
        _write_set(sets.create_group(feature_set.name), feature_set, place, sizes.own())
    if contents.dual is not None:
        _write_dual(file.create_group("dual"), contents.dual, sizes.own())
    if contents.tables:
        write_tables(file.create_group("tables"), contents.tables)


def _write_network(group: h5py.Group, contents: RunContents, sizes: Letters) -> None:
    network = contents.network
    group.attrs["name"] = network.name
    group.attrs["architecture"] = network.architecture
    group.attrs["n_outputs"] = network.n_outputs
    group.attrs["digest"] = network.digest
    group.attrs["metrics"] = json_text(dict(network.metrics))
    table = network.parameters
    columns: dict[str, Any] = {
        "parameters/name": np.array(table.names),
        "parameters/shape": np.array([json_text(shape) for shape in table.shapes]),
        "parameters/learning_rate": np.array(table.learning_rates, dtype=np.float64),
        "trained": network.trained,
    }
    if network.initial is not None:
        columns["initial"] = network.initial
    write_columns(group, columns, schema.NETWORK, sizes)


def _write_examples(group: h5py.Group, contents: RunContents, sizes: Letters) -> None:
    examples = contents.examples
    group.attrs["modality"] = json_text(asdict(examples.modality))
    group.attrs["class_names"] = json_text(list(examples.class_names))
    group.attrs["vocabulary"] = json_text(list(examples.vocabulary))
    group.attrs["inferred"] = json_text(list(examples.inferred))
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
    write_columns(group, columns, schema.EXAMPLES, sizes)
    for place, concept in enumerate(examples.concepts):
        own = group.create_group(f"concepts/{concept.name}")
        own.attrs["place"] = place
        own.attrs["labels"] = json_text(list(concept.labels))
        write_columns(own, {"value": concept.values}, schema.CONCEPT, sizes.own())


def _write_set(group: h5py.Group, feature_set: FeatureSet, place: int, sizes: Letters) -> None:
    group.attrs["place"] = place
    group.attrs["views"] = json_text(list(feature_set.views))
    group.attrs["card"] = json_text(asdict(feature_set.card))
    sizes["v"] = len(feature_set.views)
    columns = dict(feature_set.columns)
    values = columns.get("values")
    if isinstance(values, FactoredValues):  # computed from what is written instead
        del columns["values"]
    write_columns(group, columns, schema.SET, sizes)
    if isinstance(values, FactoredValues):
        _write_factors(group.create_group("factors"), values.factors, sizes)


def _write_dual(group: h5py.Group, dual: DualRecord, sizes: Letters) -> None:
    group.attrs["fidelities"] = json_text([asdict(one) for one in dual.fidelities])
    group.attrs["fitted"] = json_text(None if dual.fitted is None else asdict(dual.fitted))
    group.attrs["notes"] = json_text(list(dual.notes))
    group.attrs["remarks"] = json_text(list(dual.remarks))
    group.attrs["expansion"] = json_text(None if dual.expansion is None else _expansion(dual.expansion))
    columns = dict(dual.columns)
    if dual.tickets:
        figures = [(one.r2, one.agreement, one.accuracy, one.training_agreement) for one in dual.tickets]
        columns |= {
            "ticket/order": np.array([one.order for one in dual.tickets]),
            "ticket/kind": np.array([one.kind for one in dual.tickets]),
            "ticket/kept": np.array([one.kept for one in dual.tickets]),
            "ticket/figure": np.array(figures, dtype=np.float64),
        }
    write_columns(group, columns, schema.DUAL, sizes)


def _expansion(expansion: Expansion) -> dict[str, Any]:
    """As plain data; an infinite time is none, since JSON has no infinity."""
    return asdict(expansion) | {"time": expansion.time if math.isfinite(expansion.time) else None}


def _write_factors(group: h5py.Group, factors: WeightFactors, sizes: Letters) -> None:
    common = sizes.own("n")
    common["r"] = factors.n_quantities
    for number, share in enumerate(factors.shares):
        place, own = group.create_group(str(number)), common.own()
        held = {"g": share.g, "gradient": share.gradient, "entry": share.entry}
        write_columns(place, _present(held), schema.FACTOR, own)
        own.pop("m", None)
        for index, inputs in enumerate(share.inputs):
            came = place.create_group(f"inputs/{index}")
            came.attrs["scale"] = inputs.scale
            came.attrs["kinds"] = 0 if inputs.token is None else inputs.kinds
            held = {"entry": inputs.entry, "a": inputs.a, "token": inputs.token}
            write_columns(came, _present(held), schema.INPUT, own.own())


def _present(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: column for name, column in columns.items() if column is not None}
