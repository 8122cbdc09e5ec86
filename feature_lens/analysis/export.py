"""Top-activating examples as files that other programs read: CSV, Parquet, JSON Lines, a ZIP of pictures.

All formats hold the same rows. The bytes depend on the run and the request alone, so the app and the command line
give the same file.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.example_table import example_table
from feature_lens.analysis.feature_table import feature_labels
from feature_lens.analysis.formats import FORMATS, Format, json_lines, records
from feature_lens.analysis.orders import default_view, end_of
from feature_lens.analysis.render import thumbnail_png
from feature_lens.analysis.tiles import natural_size
from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.registry import Registry, unknown_name
from feature_lens.run_contents import RunContents

COLUMNS: Final = (
    *("set", "feature", "label", "view", "end", "rank", "example_id", "value", "split"),
    *("target", "target_name", "predicted", "predicted_name", "duplicate_of"),
)
_ENDS: Final = ("highest", "lowest")
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)
_FEW = 256


@dataclass(frozen=True)
class ExportRequest:
    """What is exported: features (None: all, in their default order), views (None: the default one), ends, how many."""

    set_name: str
    features: tuple[int, ...] | None = None
    views: tuple[str, ...] | None = None
    ends: tuple[str, ...] = _ENDS
    count: int = 16


@dataclass(frozen=True)
class Exporter:
    """One format: its file name extension, its media type, and what makes the bytes."""

    extension: str
    media_type: str
    write: Callable[[RunContents, ExportRequest], bytes]


EXPORTERS: Final[Registry[Exporter]] = Registry("export format")


def rows(run: RunContents, request: ExportRequest) -> pd.DataFrame:
    """One row per feature, view, end and example, in the order of the request; rank 0 is the most extreme.

    Columns: `COLUMNS`; those on examples are `example_table`'s, value is float32. Raises SettingsError for unknown
    names, repeated or empty parts, and a request that yields no row. Size features x views x ends x count.
    """
    table, _ = _rows_and_positions(run, request)
    return table


def _rows_and_positions(run: RunContents, request: ExportRequest) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    feature_set = run.feature_set(request.set_name)
    features, views = _checked(feature_set, request)
    shape = (len(features), len(views), len(request.ends), _width(run, feature_set, request))
    positions = np.full(shape, -1, dtype=np.int64)
    values = np.full(shape, np.nan, dtype=np.float32)
    for v, view in enumerate(views):
        for e, end in enumerate(request.ends):
            found = _ends(run, feature_set, features, view, end, shape[3])
            positions[:, v, e], values[:, v, e] = found
    feature_at, view_at, end_at, rank = np.nonzero(positions >= 0)
    if len(rank) == 0:
        raise SettingsError("The export would hold no row, since no value chosen is finite; choose other features.")
    chosen = positions[feature_at, view_at, end_at, rank]
    labels = _labels(feature_set, features)
    table = pd.DataFrame(
        {
            "set": request.set_name,
            "feature": features[feature_at],
            "label": labels[feature_at],
            "view": np.array(views, dtype=object)[view_at],
            "end": np.array(request.ends, dtype=object)[end_at],
            "rank": rank,
        }
    )
    shown, back = np.unique(chosen, return_inverse=True)
    facts = example_table(run, shown).take(back.ravel()).reset_index(drop=True)
    table = pd.concat([table, facts], axis=1)
    table["value"] = values[feature_at, view_at, end_at, rank]
    for column in ("set", "label", "view", "end"):
        table[column] = table[column].astype("string")
    return table[list(COLUMNS)], chosen


def _labels(feature_set: FeatureSet, features: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    if len(features) > _FEW:
        return np.array(feature_labels(feature_set), dtype=object)[features]
    return np.array([feature_set.label(int(feature)) for feature in features], dtype=object)


def _checked(feature_set: FeatureSet, request: ExportRequest) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    if request.count < 1:
        raise SettingsError(
            f"An export holds at least one example per end, but {request.count} came; ask for 1 or more."
        )
    views = (default_view(feature_set),) if request.views is None else request.views
    for view in views:
        feature_set.view_index(view)
    for end in request.ends:
        if end not in _ENDS:
            raise unknown_name("end of a ranking", end, list(_ENDS))
    if request.features is None:
        features = feature_set.read("order").astype(np.int64)
    else:
        features = np.array([feature_set.check(feature) for feature in request.features], dtype=np.int64)
    for what, parts in (("features", features.tolist()), ("views", views), ("ends", request.ends)):
        if len(parts) == 0:
            raise SettingsError(f"An export needs at least one of its {what}, but none was chosen; choose some.")
        if len(set(parts)) < len(parts):
            raise SettingsError(f"An export names each of its {what} once, but some came twice; leave the repeats out.")
    return features, views


def _width(run: RunContents, feature_set: FeatureSet, request: ExportRequest) -> int:
    kept = int(feature_set.columns["highest/position"].shape[2])
    if request.count > kept and not feature_set.gives_values and kept < len(run.examples):
        raise SettingsError(
            f"Feature set '{feature_set.name}' keeps {kept} examples at each end, but {request.count} were asked for; "
            f"ask for at most {kept}."
        )
    return min(request.count, len(run.examples))


def _ends(
    run: RunContents, feature_set: FeatureSet, features: npt.NDArray[np.int64], view: str, end: str, width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Positions and values (features, width) at one end, -1 and NaN where there are fewer."""
    positions = np.full((len(features), width), -1, dtype=np.int64)
    values = np.full((len(features), width), np.nan, dtype=np.float32)
    kept = int(feature_set.columns[f"{end}/position"].shape[2])
    if width <= kept and len(features) > _FEW:  # one read of the view instead of one per feature
        place = feature_set.view_index(view)
        positions[:] = np.asarray(feature_set.columns[f"{end}/position"][:, place])[features, :width]
        values[:] = np.asarray(feature_set.columns[f"{end}/value"][:, place])[features, :width]
        return positions, values
    for row, feature in enumerate(features):
        at, found = end_of(run, feature_set.name, int(feature), view, end, width)
        positions[row, : len(at)], values[row, : len(at)] = at, found
    return positions, values


def _in_format(format: Format) -> Exporter:
    return Exporter(format.extension, format.media_type, lambda run, request: format.write(rows(run, request)))


def _zip(run: RunContents, request: ExportRequest) -> bytes:
    table, positions = _rows_and_positions(run, request)
    names = image_names(run, positions)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        about = {
            "run": run.name,
            "fingerprint": run.provenance.fingerprint,
            "set": request.set_name,
            "columns": [*COLUMNS, "image"],
            "rows": len(table),
            "images": len(names),
        }
        _put(archive, "manifest.json", (json.dumps(about, ensure_ascii=False, indent=1) + "\n").encode("utf-8"))
        images = [f"images/{names[int(position)]}" for position in positions]
        lines = ({**record, "image": image} for record, image in zip(records(table), images, strict=True))
        _put(archive, "manifest.jsonl", json_lines(lines))
        size = natural_size(run.examples)
        for position, name in names.items():
            _put(archive, f"images/{name}", thumbnail_png(run.examples, position, size))
    return buffer.getvalue()


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=_ZIP_DATE)
    entry.create_system = 3  # the same on every system, as the date is
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def image_names(run: RunContents, positions: npt.NDArray[np.integer]) -> dict[int, str]:
    """A file name for each distinct position, in order of position: the example's id where it is one, made safe else."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for position in np.unique(positions).tolist():
        plain = str(run.examples.ids[position])
        name = safe_name(plain)
        # Names that differ in case alone are one file on some systems.
        if name != plain or name.lower() in taken:
            name = f"{name}-at-{position}"
            while name.lower() in taken:
                name += "_"
        taken.add(name.lower())
        names[position] = f"{name}.png"
    return names


def safe_name(text: str) -> str:
    """Text as part of a file name on any system: letters, digits, '.', '_' and '-', at most 80, never reserved."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip(".")[:80].rstrip(".") or "_"
    return f"_{name}" if re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?|-.*", name) else name


for _name, _format in FORMATS.items():
    EXPORTERS.register(_name)(_in_format(_format))
EXPORTERS.register("zip")(Exporter("zip", "application/zip", _zip))


def export_bytes(run: RunContents, request: ExportRequest, format: str) -> bytes:
    """The file of an export; raises SettingsError for an unknown format and whatever `rows` refuses."""
    return EXPORTERS[format].write(run, request)


def export_name(run: RunContents, request: ExportRequest, format: str) -> str:
    """File name of an export: run, set, and feature where it is one only."""
    exporter = EXPORTERS[format]
    parts = [run.name, run.feature_set(request.set_name).name]
    if request.features is not None and len(request.features) == 1:
        parts.append(f"feature-{request.features[0]}")
    return "-".join(safe_name(part) for part in parts) + f".{exporter.extension}"
