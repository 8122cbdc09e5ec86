"""Every way from one page of the app to another: what is opened is what the link's address says, without a browser."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
import synthetic
import torch
from feature_lens_app import launch
from feature_lens_app.views import view_title
from streamlit.testing.v1 import AppTest
from torch import nn

from feature_lens.analysis.orders import default_view, end_of
from feature_lens.analysis.render import alt_text
from feature_lens.analysis.run import Run, open_run
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.kept_table import KeptTable
from feature_lens.networks.network import Network
from feature_lens.store import write_run

PAGES = ("overview", "browse", "feature", "example", "dual", "dynamics", "compare", "study", "export", "learn")
PLACE = {"run": "second", "set": "unit", "feature": "4", "view": "output:2"}
"""None of it is what the app shows unasked."""
LABELS = {
    "browse": {"set": "Feature set", "view": "View"},
    "feature": {"set": "Feature set", "view": "View", "feature": "Feature number"},
    "compare": {"set": "Feature set A", "view": "View A", "feature": "Feature A"}
    | {"set_b": "Feature set B", "view_b": "View B", "feature_b": "Feature B"},
    "export": {"set": "Feature set", "view": "Views", "feature": "Feature number"},
    "example": {"example": "Example", "output": "Output"},
}


@dataclass(frozen=True)
class Link:
    """A link of a page: `kept` where the session goes on, as Streamlit's own links do, and not where it starts anew."""

    page: str
    address: Mapping[str, str]
    kept: bool


def links_of(test: AppTest, sidebar: bool) -> list[Link]:
    """The links of the sidebar or those of the page, of Streamlit, of HTML and of charts."""
    of = test.sidebar if sidebar else test.main
    found = [
        Link(element.proto.page, dict(parse_qsl(element.proto.query_string)), True)
        for element in of.get("page_link")
        if not element.proto.disabled
    ]
    shown = "\n".join(element.proto.body for element in of.get("html"))
    hrefs = [html.unescape(href) for href in re.findall(r'href="([^"]*)"', shown)]
    for chart in of.get("vega_lite_chart"):
        hrefs += re.findall(r'[a-z]+\?run=[^"]*', chart.proto.spec)
    for href in hrefs:
        page, _, query = href.partition("?")
        found.append(Link(page, dict(parse_qsl(query)), False))
    return found


def shown_by(test: AppTest, label: str) -> str:
    """What a browser shows that sees a chooser for the first time: the value sent along, else the default."""
    for element in (*test.selectbox, *test.number_input, *test.multiselect):
        proto = element.proto
        if proto.label == label:
            if element.type == "selectbox":
                return str(proto.raw_value if proto.set_value else proto.options[proto.default])
            if element.type == "multiselect":
                return ",".join(proto.raw_values if proto.set_value else [proto.options[at] for at in proto.default])
            return f"{proto.value if proto.set_value else proto.default:.0f}"
    raise AssertionError(f"There is no '{label}'.")


def agrees(test: AppTest, run: Run, page: str, address: Mapping[str, str]) -> None:
    """The address, the choosers, the title and the pictures of a page are of the same run, set, feature and view."""
    assert not test.exception, test.exception
    assert [one.value for one in (*test.error, *test.warning)] == []
    assert test.query_params == dict(address)
    assert test.sidebar.selectbox[0].value == address["run"]
    shown = html.unescape("\n".join(element.proto.body for element in test.get("html")))
    for suffix in ("", "_b"):
        if f"set{suffix}" in address:
            of_side(test, run, page, suffix, address, shown)
    if page == "example":
        for name, label in LABELS[page].items():
            if name in address:
                wanted = view_title(run, f"output:{address[name]}") if name == "output" else address[name]
                assert shown_by(test, label) == wanted
        if "example" in address:
            assert f'alt="The example: {run.examples.ids[int(address["example"])]} ' in shown


def of_side(test: AppTest, run: Run, page: str, suffix: str, address: Mapping[str, str], shown: str) -> None:
    feature_set = run.sets[address[f"set{suffix}"]]
    view = address.get(f"view{suffix}", default_view(feature_set))
    feature = int(address.get(f"feature{suffix}", 0))
    wanted = {
        f"set{suffix}": f"{feature_set.name} ({len(feature_set):,})",
        f"view{suffix}": view_title(run, view),
        f"feature{suffix}": str(feature),
    }
    if address.get("what") == "sets":
        return
    choosers = {name: label for name, label in LABELS.get(page, {}).items() if name in wanted and name in address}
    assert {name: shown_by(test, label) for name, label in choosers.items()} == {
        name: wanted[name] for name in choosers
    }
    name = feature_set.label(feature)

    def pictures(count: int, what: str, feature: int = feature) -> str:
        return alt_text(run, *end_of(run, feature_set.name, feature, view, "highest", count), what)

    if page == "browse":
        heads = {one: f"{feature_set.label(one)}, highest" for one in range(len(feature_set))}
        drawn = [one for one in heads if f'alt="{heads[one]}: ' in shown]
        assert drawn
        assert all(f'alt="{pictures(5, heads[one], one)}"' in shown for one in drawn)
    elif page == "feature":
        assert f">{name}</h1>" in shown
        assert f"feature {feature} · {view_title(run, view)} · " in shown
        assert f'alt="{pictures(10, "Highest examples")}"' in shown
    elif page == "compare":
        letter = "B" if suffix else "A"
        assert f"<b>{letter}, highest</b> · {name}<" in shown
        assert f'alt="{pictures(10, f"{letter}, highest examples")}"' in shown
    elif page == "export" and "feature" in address:
        rows = test.dataframe[0].value
        assert set(rows["label"]) == {name}
        assert set(rows["view"]) == {view}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of other sets first, then one that has something on every page."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    start, end = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double() for _ in range(2))
    rng = np.random.default_rng(0)
    examples = Examples.from_arrays(rng.standard_normal((30, 5)), np.arange(30) % 3, split=np.arange(30) % 4 != 0)
    sets = (SetSettings("eigen", n_components=4), SetSettings("unit"))
    settings = ExtractSettings(sets=sets, neurons=("1",), dual=True, keep=10)
    made = compute_run(Network.from_module(end, initial=start.state_dict()), examples, settings, name="second")
    figures = {f"class_auroc{end}": np.full(2, 0.5) for end in ("", "_low", "_high", "_null", "_null_99")}
    kinds = {
        "kind": np.array(["Units", "Neurons"]),
        "set": np.array(["unit", "neurons_1"]),
        "family": np.array(["effective features", "neurons"]),
        "features": np.array([9, 6]),
    }
    study = KeptTable("Is anything to be seen?", {**kinds, **figures}, "Little.")
    made = replace(made, tables={**made.tables, "study": study})
    return [write_run(synthetic.contents(), folder / "first.h5"), write_run(made, folder / "second.h5")]


@pytest.fixture(scope="module")
def run(paths: list[Path]) -> Iterator[Run]:
    with open_run(paths[1]) as opened:
        yield opened


@pytest.fixture
def started(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr("sys.argv", ["main.py", *map(str, paths)])
    return AppTest.from_file(str(launch.MAIN), default_timeout=30).run()


def opened(test: AppTest, page: str, address: Mapping[str, str]) -> AppTest:
    test.switch_page(f"screens/{page}.py")
    test.query_params = dict(address)
    return test.run()


def every_way(pages: tuple[str, ...]) -> list[str]:
    """A closed walk that goes from every page to every other once."""
    walk = [page for at, one in enumerate(pages) for other in pages[at + 1 :] for page in (one, other)]
    return [*walk, pages[0]]


def test_every_page_is_reached_from_every_other_without_losing_what_is_shown(started: AppTest, run: Run) -> None:
    walk = every_way(PAGES)
    assert len(set(pairwise(walk))) == len(PAGES) * (len(PAGES) - 1)
    opened(started, walk[0], PLACE)
    wrong = []
    for before, page in pairwise(walk):
        (link,) = [one for one in links_of(started, sidebar=True) if one.page.replace("home", "overview") == page]
        assert link.address == PLACE
        opened(started, page, link.address)
        try:
            agrees(started, run, page, PLACE)
        except AssertionError as error:
            wrong.append(f"{before} -> {page}: {error}")
    assert not wrong, "\n".join(wrong)


STARTS: list[tuple[str, dict[str, str]]] = [
    *((page, PLACE) for page in PAGES),
    ("browse", PLACE | {"sort": "std", "dir": "rising", "layer": "2", "keep": "live"}),
    ("feature", PLACE | {"sort": "std", "dir": "rising"}),
    ("feature", {"run": "second", "set": "neurons_1", "feature": "3", "view": "activation"}),
    ("example", PLACE | {"example": "11", "output": "1", "by": "unit"}),
    ("compare", PLACE | {"set_b": "eigen", "view_b": "output:1", "feature_b": "2", "way": "ba", "by": "feature"}),
    ("compare", PLACE | {"what": "sets", "budget": "8"}),
]


def test_every_kind_of_link_opens_what_it_says_and_going_back_restores(
    started: AppTest, run: Run, paths: list[Path]
) -> None:
    followed = set()
    for page, address in STARTS:
        agrees(opened(started, page, address), run, page, address)
        # Of each kind the last, which is less often what is shown unasked.
        kinds = {(one.page, one.kept, *sorted(one.address)): one for one in links_of(started, sidebar=False)}
        for kind, link in kinds.items():
            if (page, kind) in followed:
                continue
            followed.add((page, kind))
            session = started if link.kept else AppTest.from_file(str(launch.MAIN), default_timeout=30).run()
            agrees(opened(session, link.page, link.address), run, link.page, link.address)
            if link.kept:
                agrees(opened(started, page, address), run, page, address)
    ways = {(page, kind[0]) for page, kind in followed}
    assert ways >= {
        ("overview", "browse"),
        ("browse", "feature"),
        ("feature", "feature"),
        ("feature", "compare"),
        ("compare", "feature"),
        ("compare", "compare"),
        ("compare", "browse"),
        ("example", "feature"),
        ("example", "example"),
        ("dual", "feature"),
        ("study", "browse"),
        ("learn", "study"),
    }
