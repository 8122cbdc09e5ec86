"""What a notebook shows of a run and of a feature."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import synthetic
from PIL import Image

from feature_lens.analysis import FeatureView, open_run, sheet_geometry, thumbnail_png
from feature_lens.store import write_run

MODALITIES = ("image", "rgb", "signal", "tokens", "vector", "pair", "text")


class Pictures(HTMLParser):
    """Collects the images of a page and refuses tags that are not expected there."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})


def parsed(html: str) -> Pictures:
    page = Pictures()
    page.feed(html)
    return page


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_feature_shows_its_true_extremes(modality: str) -> None:
    run = synthetic.contents(30, modality)
    page = parsed(FeatureView(run, "eigen", 2, "score")._repr_html_())
    assert [image["alt"].split(":")[0] for image in page.images] == ["Highest examples", "Lowest examples"]
    values = run.sets["eigen"].values(2, "score")
    for image, position in zip(page.images, (values.argmax(), values.argmin()), strict=True):
        head, _, data = image["src"].partition(",")
        assert head == "data:image/png;base64"
        sheet = Image.open(io.BytesIO(base64.b64decode(data)))
        first = sheet.crop(sheet_geometry(8, labelled=True).tile_box(0))
        tile = Image.open(io.BytesIO(thumbnail_png(run.examples, int(position))))
        np.testing.assert_array_equal(np.asarray(first), np.asarray(tile))
        assert f": {run.examples.ids[position]} (" in image["alt"]


def test_nothing_is_loaded_and_text_is_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    run = synthetic.contents(20)
    examples = replace(run.examples, class_names=(evil, "b", "c"))
    neurons = run.sets["neurons"]
    labelled = replace(neurons, columns={**neurons.columns, "labels": np.array([evil] * 5)})
    changed = replace(run, examples=examples, sets={"neurons": labelled})
    html = FeatureView(changed, "neurons", 0, "activation")._repr_html_()
    assert "script" not in parsed(html).tags
    assert evil not in html
    assert re.search("https?:", html) is None


def test_the_card_of_a_run(tmp_path: Path) -> None:
    made = synthetic.contents(20)
    named = replace(made, name="a<b>", network=replace(made.network, name="<i>net</i>"))
    with open_run(write_run(named, tmp_path / "r.h5")) as run:
        html = run._repr_html_()
        assert "a&lt;b&gt;" in html
        assert parsed(html).tags <= {"div", "h4", "table", "thead", "tbody", "tr", "th", "td"}
        for word in ("eigen", "weights", "80 parameters", "accuracy (held-out) 0.900", "image 1×3×4"):
            assert word in html
        assert "5 examples" not in repr(run)
        assert "20 examples" in repr(run)
        assert "<img" in run.feature("weights", 7)._repr_html_()


def test_a_feature_without_finite_values_still_shows() -> None:
    run = synthetic.contents(20)
    empty = synthetic._set("empty", np.full((1, 1, 20), np.nan), ("activation",), run.examples)
    html = FeatureView(replace(run, sets={"empty": empty}), "empty", 0, "activation")._repr_html_()
    assert "20 values are not finite" in html
    assert "no example" in html
