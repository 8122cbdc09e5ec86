"""Reads a run file: checks it when it is opened, then reads only what is indexed, under one lock."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from feature_lens.cards import NetworkCard, ParameterTable, Provenance
from feature_lens.errors import FeatureLensError, RunError, in_brief
from feature_lens.examples import Column, Examples, Modality
from feature_lens.feature_set import SET_NAME, Card, FeatureSet
from feature_lens.run_contents import RunContents
from feature_lens.store import schema
from feature_lens.store.lock import HDF5_LOCK
from feature_lens.store.seal import check_seal
from feature_lens.store.writer import PLAIN_BYTES, check_shape
from feature_lens.weight_factors import FactoredValues, Inputs, Share, WeightFactors

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

# Deflate makes nothing smaller than this, with some room.
_MOST_PACKED: Final = 1100


class StoredColumn:
    """A data set of an open run file that reads what is indexed; text comes back as str."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape)
        self._text = dataset.dtype.kind == "S"
        self.dtype: np.dtype[Any] = np.dtype("U") if self._text else dataset.dtype

    def __getitem__(self, index: Any, /) -> Any:
        with HDF5_LOCK:
            if not self._dataset:
                raise RunError("The run file is closed, so nothing can be read from it; open it again.")
            try:
                found = self._dataset[index]
                if not self._text:
                    return found
                return found.decode("utf-8") if isinstance(found, bytes) else np.char.decode(found, "utf-8")
            except (OSError, RuntimeError, UnicodeDecodeError, MemoryError) as error:
                raise RunError(
                    f"'{self._dataset.name}' cannot be read ({in_brief(error)}); the file is damaged: make the run again."
                ) from None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)

    def __len__(self) -> int:
        return self.shape[0]


class RunFile(RunContents):
    """A run read from its file. Open until `close`, or used as a context manager; safe to share between threads.

    Raises RunError when the file is missing, no HDF5, not a run, truncated or changed, incomplete, or of a newer
    major version. Opening reads the whole file once, for its checksum.
    """

    def __init__(self, path: Path | str) -> None:
        located = Path(path)
        file = _open(located)
        try:
            _check_header(file, located)
            contents = _read_contents(file)
        except FeatureLensError as error:
            _close(file)
            raise (error if str(located) in str(error) else RunError(f"'{located}' cannot be used: {error}")) from None
        except _DAMAGE as error:
            _close(file)
            raise RunError(
                f"'{located}' is a damaged or foreign run file ({in_brief(error)}); "
                "make the run again with 'feature-lens extract'."
            ) from None
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
    try:
        there = path.is_file()
    except OSError as error:
        raise RunError(f"'{path}' cannot be a run file ({error.strerror}); correct the path.") from None
    if not there:
        raise RunError(f"There is no run file '{path}'; make one with 'feature-lens demo' or 'feature-lens extract'.")
    check_seal(path)
    with HDF5_LOCK:
        try:
            return h5py.File(path, "r")
        except _DAMAGE as error:
            raise RunError(
                f"'{path}' is not a readable HDF5 file ({_brief(error)}); give a run file made by feature-lens."
            ) from None


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
        network = _read_network(_group(file, "network"), sizes)
        examples, outputs = _read_examples(_group(file, "examples"), sizes)
        if network.n_outputs != sizes["c"]:
            raise RunError(
                f"the network has {network.n_outputs} outputs, but {sizes['c']} are held; make the run again."
            )
        folder = _group(file, "sets")
        groups = sorted((_group(folder, name) for name in folder), key=lambda group: int(group.attrs["place"]))
        sets = [_read_set(group, network.parameters, dict(sizes), examples, outputs) for group in groups]
        provenance = Provenance(
            settings=_json(file, "settings", dict),
            software=_json(file, "software", dict),
            fingerprint=_text(file, "fingerprint"),
            remarks=_words(file, "remarks"),
        )
        name = _text(file, "name")
    return RunContents(name, network, examples, outputs, {s.name: s for s in sets}, provenance)


def _text(holder: h5py.Group, key: str) -> str:
    value = holder.attrs[key]
    if not isinstance(value, str):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is not text; make the run again.")
    return value


def _json(holder: h5py.Group, key: str, kind: type[T]) -> T:
    """A JSON attribute of the given kind: dict or list."""
    value = json.loads(_text(holder, key))
    if not isinstance(value, kind):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is no JSON {kind.__name__}; make the run again.")
    return value


def _words(holder: h5py.Group, key: str) -> tuple[str, ...]:
    words = _json(holder, key, list)
    if not all(isinstance(word, str) for word in words):
        raise RunError(f"the attribute '{key}' of '{holder.name}' is no list of words; make the run again.")
    return tuple(words)


def _shape(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(size) is int and size >= 0 for size in value):
        raise RunError(f"'{where}' holds no shape; make the run again.")
    return tuple(value)


def _part(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """What lies at a path in a group, None where nothing does; a link at any step is refused: it may leave the file."""
    part: h5py.Group | h5py.Dataset = group
    for step in path.split("/"):
        link = part.get(step, getlink=True) if isinstance(part, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise RunError(f"'{group.name}/{path}' is a link; a run holds its own data: make the run again.")
        part = part[step]
    return part


def _group(group: h5py.Group, name: str) -> h5py.Group:
    part = _part(group, name)
    if not isinstance(part, h5py.Group):
        raise RunError(f"the group '{group.name.rstrip('/')}/{name}' is missing; make the run again.")
    return part


def _columns(group: h5py.Group, elements: tuple[schema.Element, ...], sizes: dict[str, int]) -> dict[str, Column]:
    """The known data sets of a group, each checked against its letters and its type; links are refused."""
    columns: dict[str, Column] = {}
    for element in elements:
        where = f"{group.name}/{element.name}"
        dataset = _part(group, element.name)
        if dataset is None:
            if element.optional:
                continue
            raise RunError(f"the data set '{where}' is missing; make the run again.")
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external or dataset.shape is None:
            raise RunError(f"'{where}' does not hold data of its own; make the run again.")
        if dataset.dtype.kind not in element.kinds:
            raise RunError(f"'{where}' holds {dataset.dtype}, but the schema says {element.kinds}; make the run again.")
        check_shape(where, tuple(dataset.shape), element.dims, sizes)
        columns[element.name] = StoredColumn(dataset)
    return columns


def _read_network(group: h5py.Group, sizes: dict[str, int]) -> NetworkCard:
    columns = _columns(group, schema.NETWORK, sizes)
    table = ParameterTable(
        names=tuple(str(name) for name in np.asarray(columns["parameters/name"])),
        shapes=tuple(
            _shape(json.loads(shape), f"{group.name}/parameters/shape")
            for shape in np.asarray(columns["parameters/shape"])
        ),
        learning_rates=tuple(float(rate) for rate in np.asarray(columns["parameters/learning_rate"])),
    )
    if table.total != sizes["p"]:
        raise RunError(f"'{group.name}' names {table.total} parameters but holds {sizes['p']}; make the run again.")
    return NetworkCard(
        name=_text(group, "name"),
        architecture=_text(group, "architecture"),
        n_outputs=int(group.attrs["n_outputs"]),
        parameters=table,
        digest=_text(group, "digest"),
        metrics={str(name): float(value) for name, value in _json(group, "metrics", dict).items()},
        trained=columns["trained"],
        initial=columns.get("initial"),
    )


def _read_examples(group: h5py.Group, sizes: dict[str, int]) -> tuple[Examples, Column]:
    columns = _columns(group, schema.EXAMPLES, sizes)
    shown = _json(group, "modality", dict)
    inputs, training, targets = columns["input"], columns.get("training"), columns.get("target")
    modality = Modality(shown["kind"], _shape(shown["shape"], f"{group.name} modality"), shown["low"], shown["high"])
    if modality.kind != "text" and math.prod(modality.shape) != math.prod(inputs.shape[1:]):
        raise RunError(f"inputs of shape {inputs.shape[1:]} cannot be shown as {modality.shape}; make the run again.")
    examples = Examples(
        ids=np.asarray(columns["id"]),
        inputs=inputs,
        modality=modality,
        targets=None if targets is None else np.asarray(targets),
        training=None if training is None else np.asarray(training).astype(bool),
        class_names=_words(group, "class_names"),
        vocabulary=_words(group, "vocabulary"),
    )
    # Known already: keeps the whole inputs from being read for it.
    examples.__dict__["duplicate_group"] = np.asarray(columns["duplicate_group"])
    return examples, columns["output"]


def _read_set(
    group: h5py.Group, parameters: ParameterTable, sizes: dict[str, int], examples: Examples, outputs: Column
) -> FeatureSet:
    name = str(group.name).rsplit("/", 1)[-1]
    if not SET_NAME.fullmatch(name):
        raise RunError(f"'{name}' cannot be the name of a feature set; make the run again.")
    views = _words(group, "views")
    sizes["v"] = len(views)
    columns = _columns(group, schema.SET, sizes)
    if _part(group, "factors") is not None:
        if "values" in columns:
            raise RunError(f"'{group.name}' holds values and factors, where one would do; make the run again.")
        factors = _read_factors(_group(group, "factors"), sizes)
        columns["values"] = FactoredValues(factors, views, examples.labels, outputs)
    return FeatureSet(name, views, _card(_json(group, "card", dict)), columns, parameters)


def _read_factors(group: h5py.Group, sizes: dict[str, int]) -> WeightFactors:
    common = {"n": sizes["n"]}
    shares: list[Share] = []
    entries: list[npt.NDArray[np.int64]] = []
    for place in _numbered(group):
        shares.append(_read_share(place, common, sizes["k"]))
        entries += [inputs.entry for inputs in shares[-1].inputs]
        entries += [entry for entry in (shares[-1].entry,) if entry is not None]
    if sum(map(len, entries)) < sizes["k"] or len(np.unique(np.concatenate([np.arange(0), *entries]))) < sizes["k"]:
        raise RunError(f"'{group.name}' leaves out some of {sizes['k']} features; make the run again.")
    return WeightFactors(tuple(shares), sizes["k"], sizes["n"], common["r"])


def _numbered(group: h5py.Group) -> Iterator[h5py.Group]:
    """The groups called 0, 1, 2 ... of a group."""
    number = 0
    while _part(group, str(number)) is not None:
        yield _group(group, str(number))
        number += 1


def _read_share(group: h5py.Group, common: dict[str, int], k: int) -> Share:
    """One share; `common` are the sizes n and r that all have, r from the first of them."""
    own = dict(common)
    columns = _packed(group, schema.FACTOR, own)
    by_map = "inputs" in group
    if columns.keys() != ({"g"} if by_map else {"gradient", "entry"}):
        raise RunError(f"'{group.name}' needs g and inputs, or gradient and entry; make the run again.")
    common["r"] = own["r"]
    if not by_map:
        return Share(gradient=columns["gradient"], entry=_entry(group, columns["entry"], k))
    found = [_read_inputs(place, dict(own), k) for place in _numbered(_group(group, "inputs"))]
    return Share(columns["g"], tuple(found))


def _read_inputs(group: h5py.Group, sizes: dict[str, int], k: int) -> Inputs:
    columns = _packed(group, schema.INPUT, sizes)
    scale, kinds = float(group.attrs["scale"]), int(group.attrs["kinds"])
    if not 0 < scale < math.inf or kinds < 0 or ("token" in columns) != (kinds > 0) or {"a", "token"} <= set(columns):
        raise RunError(f"'{group.name}' needs a finite scale, and inputs or tokens of some kinds; make the run again.")
    entry = _entry(group, columns["entry"], k)
    inputs = Inputs(entry, scale, columns.get("a"), columns.get("token"), max(kinds, 1))
    if sizes["o"] * inputs.n_in != len(entry):
        raise RunError(f"'{group.name}/entry' needs {sizes['o']} x {inputs.n_in} features; make the run again.")
    return inputs


def _packed(group: h5py.Group, elements: tuple[schema.Element, ...], sizes: dict[str, int]) -> dict[str, Column]:
    """`_columns` that hold no more than gzip can have packed into the room they take: sizes that a file only claims
    would be asked of memory."""
    columns = _columns(group, elements, sizes)
    for name in columns:
        dataset = group[name]
        if dataset.nbytes > PLAIN_BYTES + _MOST_PACKED * dataset.id.get_storage_size():
            raise RunError(f"'{group.name}/{name}' claims more numbers than it holds; make the run again.")
    return columns


def _entry(group: h5py.Group, column: Column, k: int) -> npt.NDArray[np.int64]:
    """Numbers of features, all below k."""
    entry = np.asarray(column) if column.shape[0] <= k else np.full(1, k)
    if len(entry) and not 0 <= int(entry.min()) <= int(entry.max()) < k:
        raise RunError(f"'{group.name}/entry' does not hold features from 0 to {k - 1}; make the run again.")
    return entry.astype(np.int64)


def _card(data: Mapping[str, Any]) -> Card:
    known = {part.name for part in fields(Card)} - {"provenance"}
    kept = {key: value for key, value in data.items() if key in known}
    shown = data["provenance"]
    provenance = Provenance(shown["settings"], shown["software"], shown["fingerprint"], tuple(shown["remarks"]))
    return Card(**kept, provenance=provenance)
