"""One example drawn as one square tile, by a renderer per modality; a kind without one is printed as text.

A renderer takes the examples, a position and a size in pixels and gives an RGB image of size x size. A new modality
is one function registered here under its kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from feature_lens.examples import Examples
from feature_lens.registry import Registry

ACCENT: Final = "#2F6DB5"
NEGATIVE: Final = "#2166AC"
NEUTRAL: Final = "#F7F7F7"
POSITIVE: Final = "#B2182B"
INK: Final = "#24292F"
MUTED: Final = "#6B7280"
LINE: Final = "#D5D9DF"
PAPER: Final = "#FFFFFF"
MAT: Final = "#EEF0F3"
_LAST: Final = "#D9E4F2"
_FAINT: Final = "#B4BAC4"

_OKABE_ITO: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
# Those of tab20 that are unlike the eight before them come first, its own blue and orange late.
_TAB20: Final = (
    *("#8c564b", "#7f7f7f", "#9467bd", "#d62728", "#bcbd22", "#17becf", "#ff9896", "#c5b0d5", "#c49c94", "#98df8a"),
    *("#ffbb78", "#aec7e8", "#dbdb8d", "#c7c7c7", "#f7b6d2", "#9edae5", "#2ca02c", "#e377c2", "#1f77b4", "#ff7f0e"),
)
CLASS_COLOURS: Final = (*_OKABE_ITO, *_TAB20)

Renderer = Callable[[Examples, int, int], Image.Image]
Letters = ImageFont.FreeTypeFont | ImageFont.ImageFont
RENDERERS: Final[Registry[Renderer]] = Registry("renderer")

# Lines are drawn this many times larger and reduced, which smooths them; Pillow draws none smooth by itself.
_FINER = 4
_MOST_PIXELS: Final = 2048
# The font's own space is too narrow to keep words apart at small sizes.
_SPACE = "  "
# Whitespace and what cannot be printed, as a passage shows it.
_SEEN = {" ": "·", "\n": "↵", "\t": "→"}


def render_tile(examples: Examples, position: int, size: int = 96) -> Image.Image:
    """The example at `position` as an RGB image of size x size; text where its renderer is missing or fails."""
    try:
        tile = RENDERERS[examples.modality.kind](examples, position, size)
    except (ValueError, TypeError, ArithmeticError, LookupError):
        # An unknown kind is a SettingsError, which is a ValueError. A renderer of someone else's may meet a shape
        # it does not know; the page still shows what the input is.
        tile = draw_text(examples, position, size)
    return tile if tile.size == (size, size) else tile.resize((size, size), Image.Resampling.NEAREST)


@cache
def font(size: float) -> Letters:
    """The font that comes with Pillow, so that pictures are the same on every machine."""
    return ImageFont.load_default(size)


@cache
def fixed_font(size: int) -> Letters:
    """Letters of one width, from the font that comes with Matplotlib."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSansMono.ttf", size)


def natural_size(examples: Examples, least: int = 96) -> int:
    """Side of a tile that shows an image without uneven pixels: a multiple of its longer side, at least `least`. Of
    images that are longer than any screen, such as rows of a spectrogram, the most that is drawn."""
    modality = examples.modality
    if modality.kind != "image" or modality.shape[0] not in (1, 3):
        return least
    longest = max(modality.shape[1:])
    return min(longest * max(1, math.ceil(least / longest)), _MOST_PIXELS)


def _unit_range(values: npt.NDArray[np.float64], low: float | None, high: float | None) -> npt.NDArray[np.float64]:
    """Values moved to 0..1 by the given limits, else by their own; all one half where the limits are equal."""
    bottom = float(values.min()) if low is None else low
    top = float(values.max()) if high is None else high
    if not top > bottom:
        return np.full(values.shape, 0.5)
    return np.clip((values - bottom) / (top - bottom), 0.0, 1.0)


def grid_of(pictures: npt.NDArray[Any], columns: int, gap: int, fill: float) -> npt.NDArray[Any]:
    """Pictures (s, h, w) laid out in rows of `columns` with `gap` cells of `fill` between them: (H, W)."""
    s, h, w = pictures.shape
    rows = math.ceil(s / columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap), fill, dtype=pictures.dtype)
    for place, picture in enumerate(pictures):
        top, left = (place // columns) * (h + gap), (place % columns) * (w + gap)
        sheet[top : top + h, left : left + w] = picture
    return sheet


def _fit(picture: Image.Image, size: int) -> Image.Image:
    """Enlarge by nearest neighbour, or reduce, into the middle of a size x size tile; proportions are kept, except of
    what would be a line too thin to see."""
    width, height = picture.size
    scale = size / max(width, height)
    # Whole multiples keep all pixels alike; not where that would leave a quarter of the tile empty.
    if math.floor(scale) * max(width, height) >= 0.75 * size:
        scale = math.floor(scale)
    thinnest = max(1, size // 16)
    shape = max(thinnest, round(width * scale)), max(thinnest, round(height * scale))
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (size, size), MAT)
    tile.paste(picture.resize(shape, way), ((size - shape[0]) // 2, (size - shape[1]) // 2))
    return tile


@RENDERERS.register("image")
def draw_image(examples: Examples, position: int, size: int) -> Image.Image:
    """One channel in grey, three as RGB, any other number as grey channels side by side, two in a row, more in a grid."""
    modality = examples.modality
    values = modality.arranged(np.asarray(examples.inputs[position], dtype=np.float64).ravel())
    shown = (_unit_range(values, modality.low, modality.high) * 255).round().astype(np.uint8)
    if shown.shape[0] == 3:
        return _fit(Image.fromarray(np.ascontiguousarray(shown.transpose(1, 2, 0))), size)
    if shown.shape[0] == 1:
        return _fit(Image.fromarray(shown[0]).convert("RGB"), size)
    return _channels(shown, size)


def _channels(shown: npt.NDArray[np.uint8], size: int) -> Image.Image:
    """Channels as a grid of small pictures, each fitted on its own so that gaps are a pixel or two at any size."""
    count = shown.shape[0]
    columns = count if count == 2 else math.ceil(math.sqrt(count))
    gap = 2 if size // columns > 12 else 1
    side = max(1, (size - (columns - 1) * gap) // columns)
    rows = math.ceil(count / columns)
    tile = Image.new("RGB", (size, size), MAT)
    left0 = (size - columns * side - (columns - 1) * gap) // 2
    top0 = (size - rows * side - (rows - 1) * gap) // 2
    for place in range(count):
        channel = _fit(Image.fromarray(shown[place]).convert("RGB"), side)
        tile.paste(channel, (left0 + (place % columns) * (side + gap), top0 + (place // columns) * (side + gap)))
    return tile


def _framed(size: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    tile = Image.new("RGB", (size, size), PAPER)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, 0, size - 1, size - 1), outline=LINE)
    return tile, draw


def _envelope(line: npt.NDArray[np.float64], columns: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Places 0..1 and values of a line; one longer than the picture is wide keeps the extremes of each column."""
    if len(line) <= 2 * columns:
        return np.linspace(0, 1, len(line)) if len(line) > 1 else np.array([0.5]), line
    parts = np.array_split(line, columns)
    low, high = [float(part.min()) for part in parts], [float(part.max()) for part in parts]
    return np.repeat(np.linspace(0, 1, columns), 2), np.column_stack([low, high]).ravel()


@RENDERERS.register("signal")
def draw_signal(examples: Examples, position: int, size: int) -> Image.Image:
    """One smooth line per channel, over each other on one scale, with a zero line where zero is in the range."""
    modality = examples.modality
    values = modality.arranged(np.asarray(examples.inputs[position], dtype=np.float64).ravel())
    low = float(values.min()) if modality.low is None else modality.low
    high = float(values.max()) if modality.high is None else modality.high
    big = size * _FINER
    tile = Image.new("RGB", (big, big), PAPER)
    draw = ImageDraw.Draw(tile)
    margin = 0.08 * big

    def across(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return margin + places * (big - 2 * margin)

    def down(heights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return big - margin - _unit_range(heights, low, high) * (big - 2 * margin)

    if low <= 0 <= high:
        zero = float(down(np.array([0.0]))[0])
        draw.line((margin, zero, big - margin, zero), fill=LINE, width=_FINER)
    width = round(_FINER * (2 if modality.shape[0] <= 2 else 1.5))
    for channel, line in enumerate(values):
        colour = ACCENT if channel == 0 else CLASS_COLOURS[channel % len(CLASS_COLOURS)]
        places, heights = _envelope(line, size)
        points = list(zip(across(places).tolist(), down(heights).tolist(), strict=True))
        if len(points) == 1:
            x, y = points[0]
            draw.ellipse((x - width, y - width, x + width, y + width), fill=colour)
        else:
            draw.line(points, fill=colour, width=width, joint="curve")
    small = tile.resize((size, size), Image.Resampling.LANCZOS)
    ImageDraw.Draw(small).rectangle((0, 0, size - 1, size - 1), outline=LINE)
    return small


@RENDERERS.register("vector")
def draw_vector(examples: Examples, position: int, size: int) -> Image.Image:
    """One bar per entry from a zero line, red upwards and blue downwards; more entries than pixels keep the largest."""
    modality = examples.modality
    values = np.asarray(examples.inputs[position], dtype=np.float64).ravel()
    tile, draw = _framed(size)
    margin = max(2, round(0.08 * size))
    room = size - 2 * margin
    if len(values) > room:
        parts = np.array_split(values, room)
        values = np.array([part[np.abs(part).argmax()] for part in parts])
    low = min(0.0, float(values.min()) if modality.low is None else modality.low)
    high = max(0.0, float(values.max()) if modality.high is None else modality.high)
    span = high - low if high > low else 1.0
    zero = round(margin + (high if high > low else 0.5) / span * room)
    edges = np.linspace(margin, size - margin, len(values) + 1)
    space = 2 if room / len(values) >= 6 else (1 if room / len(values) >= 3 else 0)
    for entry, value in enumerate(values):
        if value != 0:
            end = min(max(zero - value / span * room, margin), size - margin)
            left, right = round(edges[entry]), max(round(edges[entry]), round(edges[entry + 1]) - 1 - space)
            colour = POSITIVE if value > 0 else NEGATIVE
            draw.rectangle((left, min(round(end), zero), right, max(round(end), zero)), fill=colour)
    draw.line((margin, zero, size - margin - 1, zero), fill=MUTED)
    return tile


@RENDERERS.register("tokens")
def draw_tokens(examples: Examples, position: int, size: int) -> Image.Image:
    """The words of a sequence, or token numbers where there is no vocabulary, as large as they fit."""
    tokens = np.asarray(examples.inputs[position]).ravel().tolist()
    words = [_word(examples.vocabulary, token) for token in tokens]
    return _written(words, size)


@RENDERERS.register("pair")
def draw_pair(examples: Examples, position: int, size: int) -> Image.Image:
    """The example's id, with what follows an equals sign on a line of its own; both numbers where ids are numbers."""
    name = examples.ids[position]
    if not isinstance(name, str):
        return _written([str(one) for one in examples.pairs[position]], size)
    asked, _, answer = name.partition(" = ")
    lines = [asked, f"= {answer}"] if answer else [asked]
    tile, draw = _framed(size)
    room = 0.86 * size
    wanted = max(9, round(0.19 * size))  # the same for short and long ones, so that a sheet of them is even
    letters = font(min(wanted, wanted * room / max(font(wanted).getlength(line) for line in lines)))
    for place, line in enumerate(lines):
        height = size / 2 + (place - (len(lines) - 1) / 2) * 0.26 * size
        draw.text((size / 2, height), shorten(line, letters, room), fill=INK, font=letters, anchor="mm")
    return tile


@RENDERERS.register("passage")
def draw_passage(examples: Examples, position: int, size: int) -> Image.Image:
    """Running text in lines of one width, whitespace marked, the last token and, in the accent colour, the next one."""
    return passage(examples, position, size, size)


def passage(examples: Examples, position: int, width: int, height: int) -> Image.Image:
    """A passage of text as a picture of width x height, in the largest letters at which it fits; what does not at the
    smallest legible size is cut at its beginning. The next token is the label, where classes are the vocabulary."""
    words = [_piece(examples.vocabulary, token) for token in np.asarray(examples.inputs[position]).ravel().tolist()]
    labels = examples.labels
    known = labels is not None and len(examples.class_names) == len(examples.vocabulary) > 0
    following = _piece(examples.vocabulary, int(labels[position])) if known and labels is not None else ""
    text = "".join(words) + following
    margin = max(3, round(0.06 * min(width, height)))
    for letter_size in range(max(9, round(0.5 * height)), 8, -1):
        letters = fixed_font(letter_size)
        across, step = letters.getlength("m"), round(letter_size * 1.5)
        per_line, most = int((width - 2 * margin) / across), max(1, (height - 2 * margin) // step)
        if 0 < len(text) <= per_line * most:
            break
    room = max(1, per_line) * most
    shown = text if len(text) <= room else "…" + text[len(text) - room + 1 :]
    lines = [shown[start : start + per_line] for start in range(0, len(shown), max(1, per_line))]
    tile = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(tile)
    left, top = (width - min(len(shown), per_line) * across) / 2, (height - len(lines) * step) / 2
    marks = len(shown) - len(following) - len(words[-1]), len(shown) - len(following)
    for place, letter in enumerate(shown):
        x, y = left + place % per_line * across, top + place // per_line * step
        is_last, is_next = marks[0] <= place < marks[1], place >= marks[1]
        if is_last or is_next:
            draw.rectangle((x, y + 1, x + across - 1, y + step - 2), fill=ACCENT if is_next else _LAST)
        faint = LINE if is_next else (MUTED if is_last else _FAINT)
        colour = faint if letter in _SEEN else PAPER if is_next else INK
        drawn = _SEEN.get(letter, letter)
        draw.text((x + across / 2, y + step / 2), drawn, fill=colour, font=letters, anchor="mm")
    draw.rectangle((0, 0, width - 1, height - 1), outline=LINE)
    return tile


def _piece(vocabulary: Sequence[str], token: float) -> str:
    """A token as it stands in running text; its number and a space where the vocabulary has none."""
    place = int(token)
    return vocabulary[place] if place == token and 0 <= place < len(vocabulary) else f"{token:g} "


def _word(vocabulary: Sequence[str], token: float) -> str:
    place = int(token)
    if place == token and 0 <= place < len(vocabulary):
        return vocabulary[place].strip() or repr(vocabulary[place])
    return f"{token:g}"


@RENDERERS.register("text")
def draw_text(examples: Examples, position: int, size: int) -> Image.Image:
    """The shape of an input and its first entries, whatever it is."""
    values = np.asarray(examples.inputs[position])
    entries = values.ravel()[:64].tolist()
    words = [f"{entry:.3g}" if isinstance(entry, float) else str(entry) for entry in entries]
    shape = " x ".join(map(str, values.shape)) or "1"
    return _written(words, size, heading=shape, largest=0.13)


def _wrapped(words: Sequence[str], letters: Letters, room: float) -> list[str]:
    lines: list[str] = []
    for word in words:
        joined = f"{lines[-1]}{_SPACE}{word}" if lines else word
        if lines and letters.getlength(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _written(words: Sequence[str], size: int, heading: str = "", largest: float = 0.3) -> Image.Image:
    """Words in the largest letters at which all fit; at the smallest legible size the rest is cut with dots."""
    tile, draw = _framed(size)
    margin = max(3, round(0.07 * size))
    room = size - 2 * margin
    head = round(1.3 * _heading_size(size)) if heading else 0
    if heading:
        letters = font(_heading_size(size))
        draw.text((margin, margin - 1), shorten(heading, letters, room), fill=MUTED, font=letters)
    letter_size, lines = _arranged(words, size, room, room - head, largest)
    letters, step = font(letter_size), round(letter_size * 1.25)
    limit = max(1, (room - head) // step)
    if len(lines) > limit:
        lines = [*lines[: limit - 1], lines[limit - 1] + _SPACE + "..."]
    top = margin + head + (0 if heading else (room - len(lines) * step) / 2)
    for place, line in enumerate(lines):
        text = shorten(line, letters, room)
        left = margin if heading else margin + (room - letters.getlength(text)) / 2
        draw.text((left, top + place * step), text, fill=INK, font=letters)
    return tile


def _heading_size(size: int) -> int:
    return max(9, round(0.105 * size))


def _arranged(words: Sequence[str], size: int, width: float, height: float, largest: float) -> tuple[int, list[str]]:
    """Letter size and lines: one line if that leaves letters readable at a glance, else as many as it takes."""
    sizes = range(max(9, round(largest * size)), 8, -1)
    line = _SPACE.join(words)
    for letter_size in sizes:
        if letter_size >= 0.17 * size and font(letter_size).getlength(line) <= width:
            return letter_size, [line]
    for letter_size in sizes:
        letters = font(letter_size)
        lines = _wrapped(words, letters, width)
        if len(lines) * round(letter_size * 1.25) <= height and all(letters.getlength(x) <= width for x in lines):
            return letter_size, lines
    return sizes[-1], _wrapped(words, font(sizes[-1]), width)


def shorten(text: str, letters: Letters, room: float) -> str:
    """Text cut with dots so that it is at most `room` pixels wide."""
    if letters.getlength(text) <= room:
        return text
    while text and letters.getlength(text + "...") > room:
        text = text[:-1]
    return text + "..."
