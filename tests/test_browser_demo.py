"""The demo run in a real browser: what the first tile shows is the true maximum of a dense Jacobian."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser_driver import Tab, chromium, served
from PIL import Image

from feature_lens.analysis import Run, format_value, sheet_geometry
from feature_lens.networks.zoo import Digits

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def tab(digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium() as browser, served([digits_file], tmp_path_factory.mktemp("cwd")) as address:
        opened = Tab(browser)
        opened.go(address)
        yield opened
        opened.close()


def _picture_of(position: int) -> np.ndarray:
    """A digit as the page should show it: 96 x 96, nearest neighbour, 0 black and 1 white or the reverse."""
    image = np.asarray(Digits().examples().inputs[position]).reshape(8, 8)
    return np.kron(image, np.ones((12, 12))) * 255


def _first_tile(tab: Tab, end: str) -> np.ndarray:
    sheet = Image.open(io.BytesIO(tab.picture(f"{end} examples"))).convert("L")
    return np.asarray(sheet.crop(sheet_geometry(10, columns=10, labelled=True).tile_box(0)), dtype=float)


def test_every_page_of_the_demo_opens(tab: Tab) -> None:
    for page in ("browse", "feature", "compare", "export", "overview"):
        tab.follow(page)
        tab.fine()
    assert tab.page.get_by_text("mean AUROC").count() >= 1


@pytest.mark.parametrize("weight", [0, 3465])
def test_first_tiles_of_weight_features(tab: Tab, digits_jacobian: np.ndarray, weight: int) -> None:
    values = digits_jacobian[:, 3, weight]
    root = tab.page.url.rsplit("/", 1)[0]
    tab.go(f"{root}/feature?set=weights&view=output:3&feature={weight}")
    tab.fine()
    for end, best in (("Highest", values.max()), ("Lowest", values.min())):
        wanted = int(np.flatnonzero(values == best)[0])  # among equal values the smaller id comes first
        np.testing.assert_allclose(_first_tile(tab, end), _picture_of(wanted), atol=1)
        words = str(tab.page.locator(f'img[alt^="{end} examples"]').get_attribute("alt"))
        assert words.startswith(f"{end} examples: {wanted} (")
        assert format_value(float(best)) in words


@pytest.mark.parametrize("feature", [63])
def test_first_tiles_of_eigen_features(tab: Tab, digits_run: Run, digits_jacobian: np.ndarray, feature: int) -> None:
    direction = digits_run.sets["eigen"].read("direction")[feature].astype(float)
    root = tab.page.url.rsplit("/", 1)[0]
    for output in (0, 7):
        values = digits_jacobian[:, output] @ direction
        tab.go(f"{root}/feature?set=eigen&view=output:{output}&feature={feature}")
        tab.fine()
        for end, best in (("Highest", int(values.argmax())), ("Lowest", int(values.argmin()))):
            np.testing.assert_allclose(_first_tile(tab, end), _picture_of(best), atol=1)
