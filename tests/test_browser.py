"""The app in a real headless Chromium: every page, every widget as a link, pictures, downloads, a path prefix."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
import synthetic
from browser_driver import Tab, chromium, served
from feature_lens_app.views import view_title
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Locator
from test_app_pages import every_way

from feature_lens.analysis.export import EXPORTERS, ExportRequest, export_bytes, export_name
from feature_lens.analysis.orders import default_view, end_of
from feature_lens.analysis.render import alt_text, render_tile, sheet_geometry
from feature_lens.analysis.report.page import report_html, report_name
from feature_lens.analysis.run import Run, open_run
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
def second(app: str, run_path: Path) -> Iterator[Run]:
    with open_run(run_path.with_name("second.h5")) as opened:
        yield opened


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


def test_every_page_of_a_run_is_reached_and_nothing_goes_wrong(tab: Tab, app: str) -> None:
    tab.go(app)
    tab.choose("select", "Run", "hostile")
    tab.wait_parameter("run")
    for page in (*PAGES[1:], PAGES[0]):
        tab.follow(page)
        tab.fine()
        assert tab.parameter("run") == "hostile"
        tab.expect("select", "Run", "hostile")
        assert tab.page.locator('img[src="x"]').count() == 0


# None of it is what a page shows unasked.
PLACE = {"run": "second", "set": "unit", "view": "output:2", "feature": "4"}
ENDS = {"feature": ("Highest examples", 10), "compare": ("A, highest examples", 10)}


def arrived(tab: Tab, run: Run, page: str, place: dict[str, str]) -> None:
    """The page is open, and its address, choosers, title and pictures are of the run, set, view and feature wanted."""
    tab.page.wait_for_url(f"**/{page}?*")
    tab.settle()
    tab.fine()
    assert {name: tab.parameter(name) for name in place} == place
    feature_set, feature = run.sets[place["set"]], int(place.get("feature", 0))
    view = place.get("view", default_view(feature_set))
    side = " A" if page == "compare" else ""
    tab.expect("select", "Run", place["run"])
    tab.expect("select", f"Feature set{side}", f"{feature_set.name} ({len(feature_set)})")
    kind, label = ("several", "Views") if page == "export" else ("select", f"View{side}")
    tab.expect(kind, label, view_title(run, view))
    if page != "browse":
        tab.expect("number", "Feature A" if side else "Feature number", str(feature))
    if page == "feature":
        assert tab.page.locator("h1.fl-title").inner_text() == feature_set.label(feature)
    if page != "export":
        name = feature_set.label(feature)
        what, count = ENDS.get(page, (f"{name}, highest", 5))
        wanted = alt_text(run, *end_of(run, feature_set.name, feature, view, "highest", count), what)
        assert tab.page.locator(f'img[alt^="{what}"]').first.get_attribute("alt") == wanted


def test_a_page_shows_what_its_address_says_whatever_page_one_comes_from(tab: Tab, app: str, second: Run) -> None:
    walk = every_way(("browse", "feature", "compare", "export"))
    tab.go(f"{app}{walk[0]}?{urlencode(PLACE)}")
    for page in walk[1:]:
        tab.follow(page)
        arrived(tab, second, page, PLACE)


def test_links_open_what_they_say_and_back_restores_in_one_step(tab: Tab, app: str, second: Run) -> None:
    main = tab.page.get_by_test_id("stMain")
    unit, trace = PLACE, {"run": "second", "set": "trace", "view": "score"}
    # From where, by which link, to where.
    ways: list[tuple[str, dict[str, str], Locator, str, dict[str, str]]] = [
        (
            "browse",
            unit | {"sort": "std", "dir": "rising"},
            main.get_by_role("link", name="0 unit 2", exact=True),
            "feature",
            unit | {"feature": "2", "sort": "std", "dir": "rising"},
        ),
        ("browse", unit, tab.page.locator('a:has(img[alt^="0 unit 3, lowest"])'), "feature", unit | {"feature": "3"}),
        (
            "feature",
            unit | {"sort": "label", "dir": "falling", "rank": "3"},
            main.get_by_role("link", name="Next →"),
            "feature",
            unit | {"feature": "3", "sort": "label"},
        ),
        ("compare", unit | {"set_b": "eigen"}, main.get_by_role("link", name="0 unit 4"), "feature", unit),
        ("feature", unit, main.get_by_role("link", name="compare", exact=True).first, "compare", unit),
    ]
    for start, address, link, page, place in ways:
        tab.go(f"{app}{start}?{urlencode(address)}")
        before = tab.page.url
        link.first.click()
        tab.page.wait_for_url(lambda url, before=before: url != before)
        arrived(tab, second, page, place)
        tab.page.go_back()
        arrived(tab, second, start, address)
        assert tab.page.url == before
    tab.go(f"{app}overview?run=second")
    main.get_by_role("link", name="trace", exact=False).first.click()
    arrived(tab, second, "browse", trace)
    # A widget is a step of the history as well.
    tab.choose("select", "Feature set", "unit (5)")
    tab.wait_parameter("set", "trace")
    arrived(tab, second, "browse", {"run": "second", "set": "unit"})
    tab.page.go_back()
    arrived(tab, second, "browse", trace)


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
