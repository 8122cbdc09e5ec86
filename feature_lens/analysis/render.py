"""Pictures made of tiles: thumbnails, contact sheets with and without values, signed arrays, alternative texts.

Every picture is PNG bytes, the same on each call: no time stamps, one font. Geometry is data (`SheetGeometry`), so
that a tile can be found again in a sheet.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw

from feature_lens.analysis.example_table import predicted_classes
from feature_lens.analysis.tiles import (
    ACCENT,
    CLASS_COLOURS,
    INK,
    LINE,
    MUTED,
    NEGATIVE,
    NEUTRAL,
    PAPER,
    POSITIVE,
    RENDERERS,
    font,
    passage,
    render_tile,
    shorten,
)
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.modality import Kind
from feature_lens.run_contents import RunContents

__all__ = [
    "ACCENT",
    "CLASS_COLOURS",
    "NEGATIVE",
    "NEUTRAL",
    "POSITIVE",
    "RENDERERS",
    "SheetGeometry",
    "alt_text",
    "class_colour",
    "contact_sheet",
    "diverging_png",
    "format_value",
    "labelled_sheet",
    "render_tile",
    "thumbnail_png",
]

GAP = 8
FOOTER = 34
TILE = 96
_LINE_HEIGHT = 32
_LINE_FOOTER = 22
_LINE_TILES = 3  # a line of text is as wide as so many tiles
_MOST_COLUMNS = 8


@dataclass(frozen=True)
class SheetGeometry:
    """Where tiles lie in a sheet: `columns` per row, `size` px each, `gap` px around, `footer` px of text below each.
    Tiles are square, but for lines of text, which are `height` px high."""

    size: int
    columns: int
    gap: int = GAP
    footer: int = 0
    height: int | None = None

    @property
    def tile_height(self) -> int:
        """Height of a tile in pixels."""
        return self.size if self.height is None else self.height

    def tile_box(self, index: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of a tile in pixels, as Image.crop takes them."""
        row, column = divmod(index, self.columns)
        left = self.gap + column * (self.size + self.gap)
        top = self.gap + row * (self.tile_height + self.footer + self.gap)
        return left, top, left + self.size, top + self.tile_height

    def sheet_size(self, count: int) -> tuple[int, int]:
        """Width and height of a sheet of `count` tiles; one of no tile has the size of one."""
        rows = max(1, math.ceil(count / self.columns))
        width = self.gap + self.columns * (self.size + self.gap)
        return width, self.gap + rows * (self.tile_height + self.footer + self.gap)


def sheet_geometry(
    count: int, size: int = TILE, columns: int | None = None, labelled: bool = False, kind: Kind = "image"
) -> SheetGeometry:
    """Geometry of the sheet that `contact_sheet` or, with `labelled`, `labelled_sheet` makes of `count` tiles of
    examples of a kind. Passages are shown as lines, each in the place of three tiles."""
    if size < 8 or (columns is not None and columns < 1):
        raise SettingsError(
            f"A sheet needs tiles of at least 8 px in at least 1 column, but {size} px in {columns} came; ask for more."
        )
    across = columns if columns is not None else max(1, min(count, _MOST_COLUMNS))
    if kind == "passage":
        width = _LINE_TILES * size + (_LINE_TILES - 1) * GAP
        across = max(1, across // _LINE_TILES)
        return SheetGeometry(width, across, GAP, _LINE_FOOTER if labelled else 0, _LINE_HEIGHT)
    return SheetGeometry(size, across, GAP, FOOTER if labelled else 0)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def thumbnail_png(examples: Examples, position: int, size: int = TILE) -> bytes:
    """One example as a PNG of size x size pixels."""
    return _png(render_tile(examples, position, size))


def _sheet(
    examples: Examples, positions: Sequence[int] | npt.NDArray[np.integer], geometry: SheetGeometry
) -> Image.Image:
    sheet = Image.new("RGB", geometry.sheet_size(len(positions)), PAPER)
    for index, position in enumerate(positions):
        at, (left, top, right, bottom) = int(position), geometry.tile_box(index)
        line = geometry.height is not None
        tile = passage(examples, at, right - left, bottom - top) if line else render_tile(examples, at, geometry.size)
        sheet.paste(tile, (left, top))
    if len(positions) == 0:
        box = geometry.tile_box(0)
        draw = ImageDraw.Draw(sheet)
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=LINE)
        draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), "no example", fill=MUTED, font=font(12), anchor="mm")
    return sheet


def contact_sheet(
    examples: Examples,
    positions: Sequence[int] | npt.NDArray[np.integer],
    size: int = TILE,
    columns: int | None = None,
) -> bytes:
    """Tiles only, row by row; tile i is at `sheet_geometry(len(positions), size, columns, kind=...).tile_box(i)`.

    columns: None for one row of up to 8. Without positions the sheet says that there is no example.
    """
    geometry = sheet_geometry(len(positions), size, columns, kind=examples.modality.kind)
    return _png(_sheet(examples, positions, geometry))


def labelled_sheet(
    run: RunContents,
    positions: Sequence[int] | npt.NDArray[np.integer],
    values: Sequence[float] | npt.NDArray[np.floating],
    columns: int | None = None,
    highlight: Collection[int] | None = None,
    size: int = TILE,
) -> bytes:
    """Tiles with the value (3 significant digits, signed) and the class under each, in the colour of the class.

    Where the network's choice differs from the class, both are named. highlight: positions of examples that get a
    frame in the accent colour, drawn in the gap so that the tile itself stays whole. Tile i is at
    `sheet_geometry(len(positions), size, columns, labelled=True, kind=...).tile_box(i)`.
    """
    if len(values) != len(positions):
        raise SettingsError(
            f"A sheet needs one value per example, but {len(values)} came for {len(positions)}; give as many."
        )
    geometry = sheet_geometry(len(positions), size, columns, labelled=True, kind=run.examples.modality.kind)
    sheet = _sheet(run.examples, positions, geometry)
    draw = ImageDraw.Draw(sheet)
    marked = set(highlight or ())
    guesses = predicted_classes(run, np.asarray(positions)) if len(positions) else None
    for index, (position, value) in enumerate(zip(positions, values, strict=True)):
        left, top, right, bottom = geometry.tile_box(index)
        if int(position) in marked:
            draw.rectangle((left - 4, top - 4, right + 3, bottom + 3), outline=ACCENT, width=3)
        draw.text((left, bottom + 5), format_value(float(value)), fill=INK, font=font(13))
        guess = None if guesses is None else int(guesses[index])
        words, colour = _caption(run.examples, int(position), guess)
        # Below the value, or beside it where the tile is a line.
        start, base = (left, bottom + 20) if geometry.height is None else (left + 60, bottom + 6)
        if colour:
            draw.ellipse((start, base + 3, start + 7, base + 10), fill=colour)
            start += 12
        draw.text((start, base), shorten(words, font(11.5), right - start), fill=MUTED, font=font(11.5))
    return _png(sheet)


def class_colour(label: int) -> str:
    """Colour of a class, the same on every page; colours repeat after 28 classes."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def _caption(examples: Examples, position: int, guess: int | None) -> tuple[str, str]:
    labels = examples.labels
    if labels is not None:
        label = int(labels[position])
        wrong = guess is not None and guess != label
        name = examples.class_name(label)
        return (f"{name}, taken for {examples.class_name(guess)}" if wrong and guess is not None else name), (
            class_colour(label)
        )
    if examples.targets is not None and examples.targets.ndim == 1:
        return f"target {format_value(float(examples.targets[position]))}", ""
    return f"id {examples.ids[position]}", ""


def alt_text(
    run: RunContents,
    positions: Sequence[int] | npt.NDArray[np.integer],
    values: Sequence[float] | npt.NDArray[np.floating],
    what: str = "Examples",
) -> str:
    """A sheet in words: ids, classes and values of its examples in order. what: the words it begins with."""
    if len(positions) == 0:
        return f"{what}: no example"
    labels = run.examples.labels
    parts = []
    for position, value in zip(positions, values, strict=True):
        name = "" if labels is None else f" ({run.examples.class_name(int(labels[int(position)]))})"
        parts.append(f"{run.examples.ids[int(position)]}{name} {format_value(float(value))}")
    return f"{what}: " + ", ".join(parts)


def diverging_png(
    array: npt.NDArray[np.floating], limit: float | None = None, scale: int = 8, most: int = 2000, least: int = 1
) -> bytes:
    """A signed array (h, w) as a picture of h*scale x w*scale px: blue below zero, red above, light grey at zero.

    limit: the magnitude drawn in full colour, the array's own largest where None; give one limit to all pictures that
    are compared. What is not finite is white. most, least: longest and shortest a side may be in px. Where one would
    be longer the scale is smaller, and below 1 each pixel is the entry of largest magnitude in its place, since a mean
    would hide single ones; a shorter one is stretched. Raises SettingsError for other than two dimensions.
    """
    values = np.asarray(array, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or scale < 1 or not 1 <= least <= most:
        raise SettingsError(
            "A picture needs an array (rows, columns), a scale of 1 or more and sides from 1 px on, the least up to the "
            f"most, but {values.shape}, {scale} and {least} to {most} px came; cut the array into two dimensions first."
        )
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0)) if limit is None else float(limit)
    scale = max(1, min(scale, most // max(values.shape)))
    values = _thinned(_thinned(values, most).T, most).T
    finite = np.isfinite(values)
    clean = np.where(finite, values, 0.0)
    place = np.clip(clean / largest, -1, 1) if largest > 0 else np.zeros_like(clean)
    zero = np.array(ImageColor.getrgb(NEUTRAL), dtype=np.float64)
    ends = np.where(
        place[..., None] < 0, np.array(ImageColor.getrgb(NEGATIVE)), np.array(ImageColor.getrgb(POSITIVE))
    ).astype(np.float64)
    colours = zero + np.abs(place)[..., None] * (ends - zero)
    colours[~finite] = 255
    picture = Image.fromarray(colours.round().astype(np.uint8))
    height, width = (max(least, side * scale) for side in values.shape)
    return _png(picture.resize((width, height), Image.Resampling.NEAREST))


def _thinned(values: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    """At most so many rows, each the entries of largest magnitude of those in its place; NaN where all are."""
    if len(values) <= most:
        return values
    starts = np.arange(most) * len(values) // most
    high, low = np.fmax.reduceat(values, starts), np.fmin.reduceat(values, starts)
    return np.where(high >= -low, high, low)


def format_value(value: float, signed: bool = True) -> str:
    """Three significant digits, with a sign where wanted: '+1.23', '-0.00456', '+1.20e+07', '0', 'nan', '+inf'."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("-inf" if value < 0 else ("+inf" if signed else "inf"))
    if value == 0:
        return "0"
    sign = "+" if signed else ""
    short = f"{value:{sign}.2e}"
    exponent = int(short.rpartition("e")[2])
    if -4 <= exponent <= 4:
        return f"{float(short):{sign}.{max(0, 2 - exponent)}f}"
    return short
