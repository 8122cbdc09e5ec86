"""The report card: what it says, that it needs nothing from outside, and that names from a file stay text."""

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
import test_app
from PIL import Image
from test_app import HOSTILE, MODALITIES, Opener, fine
from test_interactions import _run as with_interactions

from feature_lens.analysis import headline, open_run, report_html, report_name
from feature_lens.analysis.dual_tables import dual_headline, ticket_sentences
from feature_lens.analysis.report import charts
from feature_lens.analysis.report.pieces import fidelity
from feature_lens.dual_record import DualRecord, Fidelity, Ticket
from feature_lens.run_contents import RunContents
from feature_lens.store import write_run

app = test_app.app  # a fixture
VOID = {"meta", "img", "rect", "line", "circle", "polyline"}


class _Reader(HTMLParser):
    """Tags, attributes and text, with every tag closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open and self.open[-1] != "style" else ""


def _read(run: RunContents) -> _Reader:
    found = _Reader(report_html(run).decode("utf-8"))
    assert {tag for tag, _ in found.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "section", "div", "span", "p", "h1", "h2", "h3"),
        *("dl", "dt", "dd", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "img"),
        *("svg", "text", "line", "rect", "circle", "polyline"),
    }
    for tag, attributes in found.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("href", "style")}
        if tag == "img":
            assert re.match(r"data:image/png;base64,[A-Za-z0-9+/=]+$", attributes["src"] or "")
            assert attributes["alt"]
    return found


def _with_dual(n: int = 40) -> RunContents:
    """A run with something for every section."""
    made = with_interactions(0.5)
    kernels = ("initial", "sharp", "mean", "effective", "last_layer", "without_last_layer")
    fidelities = tuple(
        Fidelity(kernel, reduction, target, form, 0.01, 0.8, 0.5 + place / 50, 0.9123, None)
        for place, (kernel, reduction, target, form) in enumerate(
            (kernel, reduction, *rest)
            for reduction in ("trace", "flattened")
            for kernel in kernels
            for rest in (("labels", "bare"), ("labels", "expanded"), ("distillation", "bare"))
        )
    )
    tickets = tuple(
        Ticket(order, kind, kept, kept / 80, kept / 80, 0.5, 0.995 if kept > 40 else 0.4)
        for order in ("contribution", "random", "eigen")
        for kind in ("sum", "network")
        for kept in (0, 1, 10, 60, 80)
    )
    rng = np.random.default_rng(0)
    assert made.dual is not None
    columns = {
        **made.dual.columns,
        "initial_output": np.zeros((n, 3)),
        "residual": np.full((n, 3), 1e-9),
        "tensor/contribution": rng.standard_normal((n, 3, 3)),
        "weight": rng.random(synthetic.TABLE.total),
    }
    return replace(made, dual=DualRecord(fidelities, None, ("A note <b>.",), ("A remark.",), tickets, columns))


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_modality_has_a_report(modality: str) -> None:
    run = synthetic.contents(40, modality)
    found = _read(run)
    assert headline(run) in found.text
    for name in run.sets:
        assert name in found.text
    assert "vmap was used" in found.text
    assert run.provenance.fingerprint in found.text
    for absent in ("dual model", "Lottery", "Interactions", "shared out"):
        assert absent not in found.text
    assert report_html(run) == report_html(run)


def test_the_report_tells_what_the_dual_model_says() -> None:
    run = _with_dual()
    found = _read(run)
    for sentence in (dual_headline(run), *ticket_sentences(run), "A note <b>.", "A remark."):
        assert sentence in found.text
    assert "3 with 5" not in found.text
    for pair in ("1 with 4", "2 with 5", "0 with 1"):
        assert pair in found.text
    assert f"what training added, but for {1e-9 / np.abs(np.asarray(run.outputs)).max():.1e}." in found.text
    # 'effective', whole: labels, agreement, expanded, outputs.
    one = {
        (f.target, f.form): f
        for f in run.dual.fidelities
        if (f.kernel, f.reduction) == ("effective", "flattened")  # type: ignore[union-attr]  # it has one
    }
    cells = [
        *(fidelity(one["labels", "bare"].r2), "0.912", "–", fidelity(one["labels", "expanded"].r2)),
        *(fidelity(one["distillation", "bare"].r2), "0.912"),
    ]
    assert "kernel of the effective features, whole" + "".join(cells) in found.text


def test_top_examples_are_those_of_the_run() -> None:
    run = synthetic.contents(40)
    alternatives = [attributes["alt"] or "" for tag, attributes in _read(run).tags if tag == "img"]
    eigen = run.sets["eigen"]
    for feature in eigen.read("order")[:3]:
        for end in ("highest", "lowest"):
            positions, _ = eigen.extremes(int(feature), "score", end)
            assert any(alt.startswith(f"{end.capitalize()} examples: {positions[0]} (") for alt in alternatives), (
                feature,
                end,
            )
    # Of unit features, which have no score, the output in which they vary most is shown.
    unit = run.sets["unit"]
    feature = int(unit.read("order")[0])
    view = unit.views[int(np.asarray(unit.columns["std"][feature]).argmax())]
    assert f"{unit.label(feature)} for {view}" in _read(run).text
    pictures = [attributes["src"] or "" for tag, attributes in _read(run).tags if tag == "img"]
    for source in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).width > 64


def test_names_from_a_file_stay_text() -> None:
    made = _with_dual()
    evil = HOSTILE + "</style></title><script>alert(1)</script>"
    examples = replace(made.examples, class_names=(evil, "bee", "cat"))
    neurons = made.sets["neurons"]
    named = replace(
        neurons,
        columns={**neurons.columns, "labels": np.array([evil] * 5)},
        card=replace(neurons.card, title=evil, description=evil, score=evil, equals=evil),
    )
    table = replace(made.network.parameters, names=(evil, "0.bias", "2.weight"))
    network = replace(made.network, name=evil, architecture=evil, metrics={evil: 1.0}, parameters=table)
    assert made.dual is not None
    fidelities = tuple(
        replace(one, kernel=evil, reduction=evil if one.reduction == "trace" else "flattened")
        for one in made.dual.fidelities
    )
    dual = replace(made.dual, fidelities=fidelities, notes=(evil,), remarks=(evil,))
    provenance = replace(made.provenance, settings={evil: evil}, software={evil: evil}, remarks=(evil,))
    run = replace(
        made, name=evil, examples=examples, network=network, dual=dual, provenance=provenance,
        sets={"neurons": named, "eigen": made.sets["eigen"]},
    )  # fmt: skip
    found = _read(run)  # knows no tag but those of the report itself
    assert "<script>alert(1)</script>" in found.text
    assert re.fullmatch(r"[A-Za-z0-9._-]+-report\.html", report_name(run))


def test_figures_that_are_not_there_are_dashes() -> None:
    assert [fidelity(value) for value in (None, float("nan"), 1.0, 0.99996, 0.9991, -0.5)] == [
        *("–", "–", "1.000", "> 0.999", "0.999", "-0.500"),
    ]


def test_a_curve_runs_from_one_to_the_last_and_is_cut_below() -> None:
    drawn = charts.curves([charts.Curve("a & b", [(1, -5.0), (10, 0.5), (100, 1.0)], "#000000")], "kept", "R2").text
    points = re.findall(r'<polyline points="([^"]+)"', drawn)
    across, up = zip(*(map(float, point.split(",")) for point in points[-1].split()), strict=True)
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.11)
    assert up[0] - up[1] == pytest.approx(0.6 / 1.1 * (up[0] - up[2]), abs=0.11)
    assert "a &amp; b" in drawn


def test_the_overview_gives_the_same_bytes(app: Opener, tmp_path: Path) -> None:
    path = write_run(synthetic.contents(40), tmp_path / "run.h5")
    (button,) = fine(app("overview", path)).get("download_button")
    with open_run(path) as run:
        assert report_name(run) in button.proto.label.replace("\\", "")
        assert report_html(run) == report_html(synthetic.contents(40))
