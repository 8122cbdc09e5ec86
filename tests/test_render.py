"""Pictures: every modality and odd shape is drawn, pixels are where geometry says, bytes are the same each time."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from feature_lens.analysis import tiles
from feature_lens.analysis.render import (
    CLASS_COLOURS,
    RENDERERS,
    alt_text,
    class_colour,
    contact_sheet,
    diverging_png,
    format_value,
    labelled_sheet,
    sheet_geometry,
    thumbnail_png,
)
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples, Modality

MODALITIES = ("image", "rgb", "signal", "tokens", "passage", "vector", "pair", "text")


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def drawn(inputs: Any, modality: Modality | None = None, size: int = 96, **more: Any) -> np.ndarray:
    return picture(thumbnail_png(Examples.from_arrays(inputs, modality=modality, **more), 0, size))


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_modality_is_drawn_the_same_each_time(modality: str) -> None:
    examples = synthetic.contents(5, modality).examples
    assert examples.modality.kind in RENDERERS
    first = thumbnail_png(examples, 2)
    assert first == thumbnail_png(examples, 2)
    assert picture(first).shape == (96, 96, 3)
    assert len(np.unique(picture(first).reshape(-1, 3), axis=0)) > 1
    assert first != thumbnail_png(examples, 3)
    assert b"tIME" not in first


def test_a_pair_is_written_as_its_id() -> None:
    pairs = np.array([[0, 1], [1, 0]])
    named, split = Modality("pair", (2, 2)), np.eye(2)[pairs].reshape(2, 4)
    sums, plain = (drawn(split, named, ids=ids) for ids in (["0 + 1 = 1", "1 + 0 = 1"], ["0 + 1", "1 + 0"]))
    half = sums[48:] < 128
    assert half.any()  # what follows the equals sign is on a line of its own
    assert (sums != plain).any()
    assert (drawn(pairs, named) != plain).any()
    wide = drawn(split, named, ids=["some very long name of a pair = 1", "other"])
    assert (wide[:, :6] > 200).all()


def test_a_grey_image_is_enlarged_by_whole_pixels() -> None:
    inputs = np.linspace(0, 16, 64).reshape(1, 64)
    found = drawn(inputs, Modality("image", (1, 8, 8), 0, 16))
    expected = np.repeat(np.repeat((inputs.reshape(8, 8) / 16 * 255).round(), 12, 0), 12, 1)
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, 2).astype(np.uint8))


def test_limits_are_those_of_the_modality_or_of_the_example() -> None:
    inputs = np.array([[[[2.0, 4.0]]]])
    assert drawn(inputs, Modality("image", (1, 1, 2), 0, 8), 16)[8, [2, 12], 0].tolist() == [64, 128]
    assert drawn(inputs, None, 16)[8, [2, 12], 0].tolist() == [0, 255]
    assert drawn(inputs, Modality("image", (1, 1, 2), 3, 3), 16)[8, [2, 12], 0].tolist() == [128, 128]


def test_three_channels_are_colours() -> None:
    inputs = np.zeros((1, 3, 4, 4))
    inputs[0, 1] = 1
    assert drawn(inputs)[48, 48].tolist() == [0, 255, 0]


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_other_numbers_of_channels_are_all_shown(channels: int) -> None:
    for lit in range(channels):
        inputs = np.zeros((1, channels, 6, 6))
        inputs[0, lit] = 1
        found = drawn(inputs, Modality("image", (channels, 6, 6), 0, 1))
        white = (found == 255).all(axis=2)
        assert 300 < white.sum() < 96 * 96 / channels * 1.6


@pytest.mark.parametrize(
    ("inputs", "modality"),
    [
        (np.ones((1, 1, 1, 40)), None),
        (np.ones((1, 1, 40, 1)), None),
        (np.full((1, 1, 5, 5), 7.0), None),
        (np.random.default_rng(0).random((1, 3, 300, 200)), None),
        (np.ones((1, 1, 1, 4000)), None),
        (np.zeros((1, 1, 1)), None),
        (np.ones((1, 2, 9)), None),
        (np.random.default_rng(0).random((1, 1, 5000)), None),
        (np.zeros((1, 3)), None),
        (np.random.default_rng(0).standard_normal((1, 1000)), None),
        (-np.ones((1, 1)), None),
        (np.arange(200)[None], None),
        (np.array([[1, -1, 10**9]]), None),
        (np.zeros((1, 1, 1, 1, 1)), None),
        (np.array([[True, False]]), None),
        (np.array([[3.5, 1.0]]), Modality("tokens", (2,))),
    ],
)
@pytest.mark.parametrize("size", [16, 96, 250])
def test_odd_shapes_are_drawn(inputs: np.ndarray, modality: Modality | None, size: int) -> None:
    assert drawn(inputs, modality, size).shape == (size, size, 3)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_row_or_column_of_60000_pixels_is_drawn_scaled(channels: int) -> None:
    line = (np.arange(60_000) >= 30_000).astype(float)
    inputs = np.broadcast_to(line, (1, channels, 1, 60_000))
    examples = Examples.from_arrays(inputs, modality=Modality("image", (channels, 1, 60_000)))
    assert tiles.natural_size(examples) <= 2048
    for size in (48, 96, tiles.natural_size(examples)):
        row = picture(thumbnail_png(examples, 0, size)).astype(int)
        white, black = ((row == value).all(axis=2) for value in (255, 0))
        # As many pixels of one end as of the other, in a strip that can be seen; two channels stand beside each other.
        side, strips = (size, 1) if channels != 2 else ((size - 2) // 2, 2)
        assert 0.4 * side * strips * (side // 16) < white.sum() <= 0.55 * side * strips * max(1, side // 16)
        assert abs(int(white.sum()) - int(black.sum())) < 0.1 * white.sum()
        modality = Modality("image", (channels, 60_000, 1))
        column = drawn(inputs.reshape(1, channels, 60_000, 1), modality, size).astype(int)
        if channels != 2:
            assert (np.swapaxes(column, 0, 1) == row).all()


def test_a_larger_array_is_drawn_scaled_by_what_is_largest_in_each_place() -> None:
    long = np.zeros((1, 60_000))
    long[0, 41_234], long[0, 41_235], long[0, 7] = -2.0, 1.0, np.nan
    found = picture(diverging_png(long, most=1000, least=8))
    assert found.shape == (8, 1000, 3)
    assert (found == found[:1]).all()
    assert found[0, 41_234 * 1000 // 60_000].tolist() == [33, 102, 172]
    assert (found[0] != 247).any(axis=1).sum() == 1
    assert (picture(diverging_png(long.T, most=1000, least=8)) == np.swapaxes(found, 0, 1)).all()
    assert picture(diverging_png(np.full((1, 3000), np.nan), most=1000))[0, 0].tolist() == [255, 255, 255]
    assert picture(diverging_png(np.zeros((3, 70)), scale=8)).shape == (24, 560, 3)
    assert picture(diverging_png(np.zeros((3, 300)), scale=8)).shape == (18, 1800, 3)
    assert picture(diverging_png(np.zeros((3, 70_000)), scale=8)).shape == (3, 2000, 3)


def test_bars_point_up_in_red_and_down_in_blue() -> None:
    found = drawn(np.array([[1.0, -1.0]]))
    assert found[20, 25].tolist() == [178, 24, 43]
    assert found[70, 70].tolist() == [33, 102, 172]
    assert found[70, 25].tolist() == [255, 255, 255]


def test_words_of_the_vocabulary_are_written() -> None:
    words = drawn(np.array([[0, 1]]), vocabulary=["aa", "b"])
    assert not np.array_equal(words, drawn(np.array([[0, 1]])))
    assert np.array_equal(words, drawn(np.array([[1, 0]]), vocabulary=["b", "aa"]))


def test_a_renderer_that_fails_or_is_missing_gives_text(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = synthetic.contents(3, "vector").examples
    text = np.asarray(tiles.draw_text(examples, 0, 96))

    def failing(examples: Examples, position: int, size: int) -> Image.Image:
        raise ValueError

    monkeypatch.setitem(RENDERERS._entries, "vector", failing)
    np.testing.assert_array_equal(picture(thumbnail_png(examples, 0)), text)
    monkeypatch.delitem(RENDERERS._entries, "vector")
    np.testing.assert_array_equal(picture(thumbnail_png(examples, 0)), text)


@pytest.mark.parametrize("modality", [one for one in MODALITIES if one != "passage"])
def test_tiles_are_where_geometry_says(modality: str) -> None:
    run = synthetic.contents(20, modality)
    positions = [4, 0, 19, 7, 7]
    plain = Image.open(io.BytesIO(contact_sheet(run.examples, positions, 48, 3)))
    geometry = sheet_geometry(5, 48, 3)
    assert plain.size == geometry.sheet_size(5) == (8 + 3 * 56, 8 + 2 * 56)
    assert geometry.tile_box(4) == (8 + 56, 8 + 56, 8 + 56 + 48, 8 + 56 + 48)
    labelled = Image.open(io.BytesIO(labelled_sheet(run, positions, [1.0] * 5, highlight=[4, 7])))
    wide = sheet_geometry(5, labelled=True)
    assert labelled.size == wide.sheet_size(5)
    for index, position in enumerate(positions):
        tile = picture(thumbnail_png(run.examples, position, 48))
        np.testing.assert_array_equal(np.asarray(plain.crop(geometry.tile_box(index))), tile)
        tile = picture(thumbnail_png(run.examples, position))
        np.testing.assert_array_equal(np.asarray(labelled.crop(wide.tile_box(index))), tile)


def test_passages_are_lines_of_a_sheet() -> None:
    run = synthetic.contents(20, "passage")
    positions = [4, 0, 19, 7, 7]
    geometry = sheet_geometry(5, columns=10, labelled=True, kind="passage")
    assert (geometry.size, geometry.tile_height, geometry.columns) == (3 * 96 + 2 * 8, 32, 3)
    # As wide as the tiles in whose place it is, for pages that are made for those.
    assert geometry.sheet_size(5)[0] <= sheet_geometry(5, columns=10).sheet_size(5)[0]
    labelled = Image.open(io.BytesIO(labelled_sheet(run, positions, [1.0] * 5, columns=10, highlight=[4])))
    assert labelled.size == geometry.sheet_size(5)
    plain = Image.open(io.BytesIO(contact_sheet(run.examples, positions, columns=1)))
    narrow = sheet_geometry(5, columns=1, kind="passage")
    assert plain.size == narrow.sheet_size(5) == (8 + 304 + 8, 8 + 5 * 40)
    for index, position in enumerate(positions):
        line = np.asarray(tiles.passage(run.examples, position, 304, 32))
        np.testing.assert_array_equal(np.asarray(labelled.crop(geometry.tile_box(index))), line)
        np.testing.assert_array_equal(np.asarray(plain.crop(narrow.tile_box(index))), line)


def test_a_passage_marks_its_last_token_and_the_next_one() -> None:
    words, passage = ["a", "the", " ", "\n"], Modality("passage", (4,))

    def shown(tokens: list[int], following: int | None, names: list[str] = words) -> np.ndarray:
        label = None if following is None else [following]
        classes = names if following is not None else ()
        examples = Examples.from_arrays(
            np.array([tokens]), label, modality=passage, class_names=classes, vocabulary=words
        )
        return np.asarray(tiles.passage(examples, 0, 300, 32)).astype(int)

    def coloured(tile: np.ndarray, colour: str) -> int:
        return int((tile == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=2).sum())

    without, short, long = (shown([0, 2, 3, 0], following) for following in (None, 0, 1))
    assert coloured(without, tiles.ACCENT) == coloured(shown([0, 2, 3, 0], 1, list("wxyz")[:3]), tiles.ACCENT) == 0
    assert 0 < 2 * coloured(short, tiles.ACCENT) < coloured(long, tiles.ACCENT)
    assert 0 < 2 * coloured(short, tiles._LAST) < coloured(shown([0, 2, 3, 1], 0), tiles._LAST)
    # Whitespace is seen, and told apart.
    assert (shown([0, 2, 2, 0], 0) != shown([0, 3, 3, 0], 0)).any()
    # A text that is too long loses its beginning, not what is marked.
    many = Examples.from_arrays(np.zeros((1, 4), int), modality=passage, vocabulary=["word, " * 30])
    cut = np.asarray(tiles.passage(many, 0, 300, 32)).astype(int)
    assert coloured(cut, tiles._LAST) > 0
    # Numbers stand for words that the vocabulary does not have.
    assert (
        np.asarray(tiles.passage(Examples.from_arrays(np.full((1, 4), 7), modality=passage), 0, 300, 32)) < 99
    ).any()


def test_sheets_show_frames_values_and_emptiness() -> None:
    run = synthetic.contents(10)
    plain = labelled_sheet(run, [1, 2], [1.0, 2.0])
    assert plain == labelled_sheet(run, np.array([1, 2]), np.array([1.0, 2.0], dtype=np.float32))
    assert plain != labelled_sheet(run, [1, 2], [1.0, 2.0], highlight={2})
    assert plain != labelled_sheet(run, [1, 2], [1.0, -2.0])
    assert Image.open(io.BytesIO(contact_sheet(run.examples, []))).size == (112, 112)
    assert Image.open(io.BytesIO(labelled_sheet(run, [], []))).size == (112, 146)
    with pytest.raises(SettingsError, match="one value per example"):
        labelled_sheet(run, [1], [])
    with pytest.raises(SettingsError, match="at least 8 px"):
        contact_sheet(run.examples, [1], size=4)


def test_alt_text_says_what_is_seen() -> None:
    run = synthetic.contents(10)
    assert run.examples.labels is not None
    name = run.examples.class_name(int(run.examples.labels[3]))
    assert alt_text(run, [3], [-1.5], "Lowest") == f"Lowest: 3 ({name}) -1.50"
    assert alt_text(run, [], []) == "Examples: no example"


def test_diverging_palette_has_a_neutral_zero_and_shared_limits() -> None:
    found = picture(diverging_png(np.array([[-2.0, 0.0, 1.0, np.nan]]), 2.0, 3))
    assert found.shape == (3, 12, 3)
    assert found[1, 1].tolist() == [33, 102, 172]
    assert found[1, 4].tolist() == [247, 247, 247]
    assert found[1, 7].tolist() == [212, 136, 145]
    assert found[1, 10].tolist() == [255, 255, 255]
    assert (picture(diverging_png(np.zeros((2, 2)))) == 247).all()
    assert picture(diverging_png(np.array([[9.0]]), 1.0, 1))[0, 0].tolist() == [178, 24, 43]
    with pytest.raises(SettingsError, match="two dimensions"):
        diverging_png(np.zeros(3))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.234, "+1.23"),
        (-0.004561, "-0.00456"),
        (999.7, "+1000"),
        (12345.0, "+12300"),
        (1.2e7, "+1.20e+07"),
        (-1e-9, "-1.00e-09"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.5, "+1.50"),
        (float("nan"), "nan"),
        (float("inf"), "+inf"),
        (float("-inf"), "-inf"),
        (1.797e308, "+1.80e+308"),
    ],
)
def test_values_have_three_digits_and_a_sign(value: float, text: str) -> None:
    assert format_value(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
@settings(deadline=None)
def test_a_formatted_value_is_within_half_a_percent(value: float) -> None:
    assert float(format_value(value)) == pytest.approx(value, rel=5.01e-3, abs=0)
    assert format_value(abs(value), signed=False).lstrip("-") == format_value(-abs(value)).lstrip("-")


def test_class_colours_differ_and_come_round() -> None:
    assert class_colour(0) == "#0072B2"
    assert len(set(CLASS_COLOURS)) == 28
    assert class_colour(29) == class_colour(1)


def test_pictures_and_signals_with_channels_last_look_like_those_with_channels_first() -> None:
    random = np.random.default_rng(0)
    for first, back in ((random.random((1, 3, 9, 7)), (0, 2, 3, 1)), (random.random((1, 2, 40)), (0, 2, 1))):
        assert np.array_equal(drawn(first.transpose(back)), drawn(first))
        assert not np.array_equal(drawn(first.transpose(back), channels_last=False), drawn(first))
