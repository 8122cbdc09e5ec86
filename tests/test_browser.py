"""The app in a real headless Chromium: every page, every widget as a link, pictures, downloads, a path prefix."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
from browser_driver import Tab, chromium, served
from PIL import Image, ImageChops
from playwright.sync_api import Browser

from feature_lens.analysis.export import EXPORTERS, ExportRequest, export_bytes, export_name
from feature_lens.analysis.render import render_tile, sheet_geometry
from feature_lens.analysis.report.page import report_html, report_name
from feature_lens.analysis.run import open_run
from feature_lens.analysis.tables import TableRequest, table_bytes, table_name
from feature_lens.feature_set import FeatureSet, ranking_columns
from feature_lens.ranking import rank_values
from feature_lens.run_contents import RunContents
from feature_lens.store import write_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

HOSTILE = '<img src=x onerror="document.title=1">'
FORMATS = {"csv": "CSV", "parquet": "Parquet", "jsonl": "JSON Lines", "zip": "ZIP of pictures"}
PAGES = ("overview", "browse", "feature", "example", "dual", "dynamics", "compare", "study", "export", "learn")


def with_many(made: RunContents) -> RunContents:
    """The run with a set of sixty stored features more, enough for pages to turn."""
    labels = made.examples.labels
    assert labels is not None
    values = np.random.default_rng(1).standard_normal((60, 1, len(made.examples)))
    columns = ranking_columns(rank_values(values, made.examples.ids, 16, labels, 3))
    columns |= {
        "order": np.arange(60, dtype=np.int32),
        "values": values.astype(np.float32),
        "labels": np.array([f"{2 + i % 2}[{i}]" for i in range(60)]),
        "layer": np.array([str(2 + i % 2) for i in range(60)]),
    }
    many = FeatureSet("many", ("activation",), made.sets["neurons"].card, columns, None)
    return replace(made, sets={**made.sets, "many": many})


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(with_many(synthetic.contents()), tmp_path_factory.mktemp("run") / "first.h5")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def hostile() -> RunContents:
    """A run whose names would do something if they were not escaped."""
    made = synthetic.contents()
    neurons = made.sets["neurons"]
    named = replace(
        neurons,
        columns={**neurons.columns, "labels": np.array([HOSTILE] * 5)},
        card=replace(neurons.card, title=HOSTILE, description=HOSTILE, equals=HOSTILE),
    )
    examples = replace(made.examples, class_names=(HOSTILE, "bee", "cat"))
    return replace(made, name=HOSTILE, examples=examples, sets={"neurons": named})


@pytest.fixture(scope="module")
def app(browser: Browser, run_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("folder")
    second = write_run(synthetic.contents(modality="tokens"), run_path.with_name("second.h5"))
    write_run(hostile(), folder / "hostile.h5")
    with served([run_path, second, folder], tmp_path_factory.mktemp("cwd")) as address:
        yield address


@pytest.fixture(scope="module")
def windows(browser: Browser) -> Iterator[tuple[Tab, Tab]]:
    """Two that share nothing, for all tests, since a new one loads the whole of Streamlit again."""
    opened = Tab(browser), Tab(browser)
    yield opened
    for window in opened:
        window.close()


@pytest.fixture
def tab(windows: tuple[Tab, Tab]) -> Tab:
    windows[0].wrong.clear()
    return windows[0]


@pytest.fixture
def elsewhere(windows: tuple[Tab, Tab]) -> Tab:
    """Where copies of links are opened."""
    windows[1].wrong.clear()
    return windows[1]


@pytest.mark.parametrize("run", ["first", "hostile"])
def test_every_page_of_every_run_is_reached_and_nothing_goes_wrong(tab: Tab, app: str, run: str) -> None:
    tab.go(app)
    if run != "first":
        tab.choose("select", "Run", run)
        tab.wait_parameter("run")
    for page in (*PAGES[1:], PAGES[0]):
        tab.follow(page)
        tab.fine()
        assert tab.parameter("run") == run
        tab.expect("select", "Run", run)
        assert tab.page.locator('img[src="x"]').count() == 0


# Widgets of one view together: kind, label, value, parameter. Each is changed, then one copied address restores all.
VIEWS = {
    "browse": [
        ("select", "Run", "second", "run"),
        ("select", "Feature set", "trace (4)", "set"),
        ("select", "Filter", "live ones", "keep"),
        ("select", "Sort by", "standard deviation", "sort"),
        ("segments", "Direction", "rising", "dir"),
        ("text", "Search names", "2", "q"),
    ],
    "browse?set=many": [("select", "Layer", "3", "layer"), ("page", "", "2", "page")],
    "feature?set=eigen": [
        ("select", "View", "output 2: cat", "view"),
        ("segments", "Examples at each end", "20", "show"),
        ("segments", "Quantile groups", "10", "groups"),
        ("number", "Jump to rank", "7", "rank"),
    ],
    "compare?set=unit": [
        ("select", "View A", "output 1: bee", "view"),
        ("number", "Feature A", "2", "feature"),
        ("select", "Feature set B", "many (60)", "set_b"),
        ("segments", "Match", "each of B in A", "way"),
        ("segments", "Order", "by feature number", "by"),
        ("page", "", "3", "page"),
    ],
    "export?set=unit&which=list": [
        ("several", "Views", "output 1: bee", "views"),
        ("number", "Examples at each end", "3", "count"),
        ("segments", "Ends", "lowest", "ends"),
        ("segments", "Format", "JSON Lines", "format"),
        ("text", "Feature numbers", "1, 3-4", "features"),
    ],
    "export?set=unit": [
        ("segments", "What", "a table", "what"),
        ("segments", "Examples", "one", "of"),
        ("number", "Example", "4", "example"),
        ("select", "Output", "output 1: bee", "output"),
    ],
}


@pytest.mark.parametrize("address", list(VIEWS))
def test_a_copied_address_restores_what_every_widget_shows(tab: Tab, elsewhere: Tab, app: str, address: str) -> None:
    tab.go(app + address)
    for kind, label, value, parameter in VIEWS[address]:
        before = tab.parameter(parameter)
        tab.choose(kind, label, value)
        tab.wait_parameter(parameter, before)
    tab.fine()
    elsewhere.go(tab.page.url)
    elsewhere.fine()
    assert elsewhere.page.url == tab.page.url
    for kind, label, value in {
        (kind, label): (kind, label, value) for kind, label, value, _ in VIEWS[address]
    }.values():
        wanted = f"output 0: ant, {value}" if kind == "several" else value
        tab.expect(kind, label, wanted)
        elsewhere.expect(kind, label, wanted)


def test_the_first_tile_the_browser_received_is_the_maximum(tab: Tab, app: str, run_path: Path) -> None:
    tab.go(f"{app}feature?set=eigen&feature=2&view=output:1")
    with open_run(run_path) as run:
        values = run.sets["eigen"].values(2, "output:1")
        for end, best in (("Highest", int(values.argmax())), ("Lowest", int(values.argmin()))):
            with Image.open(io.BytesIO(tab.picture(f"{end} examples"))) as sheet:
                tile = sheet.convert("RGB").crop(sheet_geometry(10, columns=10, labelled=True).tile_box(0))
            assert ImageChops.difference(tile, render_tile(run.examples, best, 96)).getbbox() is None
            words = tab.page.locator(f'img[alt^="{end} examples"]').get_attribute("alt")
            assert str(words).startswith(f"{end} examples: {best} (")


def test_a_feature_opens_from_browse_by_its_picture_as_by_its_name(tab: Tab, app: str) -> None:
    tab.go(f"{app}browse?run=first&set=eigen&view=output:2&sort=std")
    name = tab.page.get_by_test_id("stMain").get_by_role("link", name="eigen 4", exact=True)
    link = tab.page.locator('a:has(img[alt^="eigen 4, highest"])')
    wanted = str(link.evaluate("link => link.href"))
    assert str(name.evaluate("link => link.href")) == wanted
    link.click()
    tab.page.wait_for_url("**/feature?*")
    tab.settle()
    tab.fine()
    tab.expect("number", "Feature number", "4")
    assert (tab.parameter("view"), tab.parameter("sort")) == ("output:2", "std")
    opened = tab.page.url
    tab.go(wanted)
    assert tab.page.url == opened


def test_next_and_previous_walk_in_the_order_browsed(tab: Tab, app: str) -> None:
    tab.go(f"{app}feature?set=eigen&sort=label&dir=falling&feature=5&view=score&rank=3")
    tab.page.get_by_role("link", name="Next →").click()
    tab.page.wait_for_url("**feature=4*")
    tab.settle()
    assert tab.parameter("sort") == "label"
    tab.page.get_by_role("link", name="← Previous").click()
    tab.page.wait_for_url("**feature=5*")
    tab.settle()
    tab.fine()


def test_going_back_restores_the_page_before(tab: Tab, app: str) -> None:
    tab.go(f"{app}browse?run=first&set=neurons")
    tab.follow("compare")
    tab.page.go_back()
    tab.page.wait_for_url("**/browse?*")
    tab.settle()
    tab.fine()
    tab.expect("select", "Feature set", "neurons (5)")


def test_downloads_are_what_the_library_gives(tab: Tab, app: str, run_path: Path) -> None:
    tab.go(f"{app}export?run=first&set=unit&views=output:1,output:2&which=list&features=1,3&count=4")
    request = ExportRequest("unit", (1, 3), ("output:1", "output:2"), count=4)
    with open_run(run_path) as run:
        for format, words in FORMATS.items():
            if tab.shown("segments", "Format") != words:
                before = tab.parameter("format")
                tab.choose("segments", "Format", words)
                tab.wait_parameter("format", before)  # a click on a page about to be drawn again would be lost
                tab.settle()
            name = export_name(run, request, format)
            with tab.page.expect_download() as waiting:
                tab.page.get_by_role("button", name=f"Download {name}", exact=True).click()
            assert waiting.value.suggested_filename == name
            assert Path(waiting.value.path()).read_bytes() == export_bytes(run, request, format)
    assert set(FORMATS) == set(EXPORTERS)
    tab.go(f"{app}export?run=first&what=table&table=outputs&output=1&format=parquet")
    table = TableRequest("outputs", output=1)
    with open_run(run_path) as run, tab.page.expect_download() as waiting:
        tab.page.get_by_role("button", name=f"Download {table_name(run, table, 'parquet')}", exact=True).click()
        assert Path(waiting.value.path()).read_bytes() == table_bytes(run, table, "parquet")
    tab.go(f"{app}overview?run=first")
    with open_run(run_path) as run, tab.page.expect_download() as waiting:
        tab.page.get_by_role("button", name=f"Download {report_name(run)}", exact=True).click()
        assert Path(waiting.value.path()).read_bytes() == report_html(run)
    tab.fine()


def test_behind_a_path_prefix(elsewhere: Tab, run_path: Path, tmp_path: Path) -> None:
    with served([run_path], tmp_path, "lens/deep") as address:
        elsewhere.go(address.rstrip("/"))
        for page in ("browse", "overview"):
            entry = elsewhere.page.get_by_test_id("stSidebar").get_by_role("link", name=page.capitalize(), exact=True)
            assert str(entry.evaluate("link => link.href")).startswith(f"{address}{page}?")
            elsewhere.follow(page)
            assert elsewhere.page.url.startswith(f"{address}{page}?")
            elsewhere.fine()
        elsewhere.go(f"{address}feature?set=eigen&feature=2")
        elsewhere.expect("number", "Feature number", "2")
