"""Every page of the app on runs of every modality, with good, bad and hostile addresses, without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import streamlit as st
import synthetic
from feature_lens_app import address, direction, launch
from feature_lens_app.words import plain, safe, shorten
from streamlit.testing.v1 import AppTest

from feature_lens.analysis.entries import entry_correlations
from feature_lens.analysis.measures.set_measures import MeasureSettings, measures_sentence, set_measures
from feature_lens.analysis.render import format_value
from feature_lens.analysis.run import open_run
from feature_lens.analysis.study.answer import answer
from feature_lens.concepts import Concept
from feature_lens.errors import AppError
from feature_lens.examples import Examples
from feature_lens.feature_set import ranking_columns
from feature_lens.kept_table import KeptTable
from feature_lens.ranking import rank_values
from feature_lens.store import write_run

OF_SETS = ("overview", "browse", "feature", "compare", "export")
PAGES = (*OF_SETS, "example", "dual", "dynamics", "study", "learn")
MODALITIES = ("image", "rgb", "signal", "tokens", "vector", "pair", "text")
HOSTILE = '<img src=x onerror="alert(1)">[x](javascript:alert(1)) ![y](http://example.org/y.png) $x$ :red[z] `'

Opener = Callable[..., AppTest]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for modality in MODALITIES:
        write_run(synthetic.contents(modality=modality), folder / f"{modality}.h5")
    return folder


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    def opened(page: str, /, *paths: Path, **parameters: str) -> AppTest:
        monkeypatch.setattr("sys.argv", ["main.py", *map(str, paths)])
        test = AppTest.from_file(str(launch.MAIN), default_timeout=30).run()
        test.switch_page(f"screens/{page}.py")
        for name, value in parameters.items():
            test.query_params[name] = value
        return test.run()

    yield opened
    st.cache_resource.clear()
    st.cache_data.clear()


def texts(test: AppTest) -> str:
    """All HTML and Markdown that a page shows."""
    parts = [element.proto.body for element in test.html]
    return "\n".join([*parts, *(m.value for m in test.markdown), *(w.value for w in test.warning)])


def fine(test: AppTest) -> AppTest:
    assert not test.exception, test.exception
    assert not test.error, test.error
    return test


@pytest.mark.parametrize(
    ("page", "modality"),
    [
        *((page, modality) for page in (*OF_SETS, "example") for modality in MODALITIES),
        *((page, "image") for page in ("dual", "dynamics", "study", "learn")),  # they draw no examples
    ],
)
def test_every_page_draws_every_modality(app: Opener, runs: Path, page: str, modality: str) -> None:
    test = fine(app(page, runs / f"{modality}.h5"))
    assert not test.warning
    assert "fl-title" in texts(test)


def test_passages_are_drawn_as_lines(app: Opener, tmp_path: Path) -> None:
    run = write_run(synthetic.contents(modality="passage"), tmp_path / "passage.h5")
    for page in ("overview", "feature"):
        # Three lines in the places of nine tiles, 304 px each with gaps of 8.
        assert 'width="944"' in texts(fine(app(page, run)))


def test_pairs_and_vectors_are_drawn_as_one_picture_and_other_examples_are_not(
    app: Opener, runs: Path, tmp_path: Path
) -> None:
    assert "On all pairs" in texts(fine(app("feature", runs / "pair.h5")))
    assert "On all pairs" not in texts(fine(app("feature", runs / "vector.h5")))
    assert "On all pairs" not in texts(fine(app("feature", runs / "pair.h5", set="weights")))
    assert "By entry of the input" in texts(fine(app("feature", runs / "vector.h5")))
    assert "By entry of the input" not in texts(fine(app("feature", runs / "pair.h5")))
    write_run(synthetic.contents(81, "pair"), tmp_path / "all.h5")
    shown = texts(fine(app("feature", tmp_path / "all.h5")))
    assert "Its strongest wave is one of" in shown
    assert "modulo 9" in shown


def test_what_some_examples_have_no_value_of_is_told_of_those_that_have_one(app: Opener, tmp_path: Path) -> None:
    made = synthetic.contents(modality="vector")
    neurons, eigen, n = made.sets["neurons"], made.sets["eigen"], len(made.examples)
    values = np.array(neurons.columns["values"])
    values[:4, :, 13:], values[4, :, 1:] = np.nan, np.nan
    ranked = ranking_columns(rank_values(values, made.examples.ids, 16, made.examples.labels, 3))
    partial = replace(neurons, columns={**neurons.columns, **ranked, "values": values})
    cut = replace(eigen, columns={**eigen.columns, "stability": np.array([0.9, 0.9, 0.9, 0.8, 0.5, np.nan])})
    outputs = np.array(made.outputs)
    outputs[7] = np.nan
    sets = {**made.sets, "neurons": partial, "eigen": cut}
    remarks = ("A remark; of two parts.", "Another.")
    own = replace(made, sets=sets, outputs=outputs, provenance=replace(made.provenance, remarks=remarks))
    run = write_run(own, tmp_path / "partial.h5")

    shown = texts(fine(app("feature", run, set="neurons", feature="0")))
    table = entry_correlations(own, "neurons", 0, "activation")
    assert table is not None
    wanted = [np.corrcoef(values[0, 0, :13], np.asarray(made.examples.inputs)[:13, j])[0, 1] for j in range(7)]
    assert table["correlation"].tolist() == pytest.approx(wanted)
    strongest = int(np.abs(wanted).argmax())
    assert f"Most with entry {strongest}: {format_value(wanted[strongest])}." in shown
    assert "rank 1<" in texts(fine(app("feature", run, set="neurons", feature="4"))).replace("</p>", "<")

    pair = {"set": "neurons", "set_b": "eigen", "feature_b": "1", "view_b": "score"}
    assert f"over the 13 examples of {n} of which both have a value is" in texts(fine(app("compare", run, **pair)))
    assert "it takes two of them" in texts(fine(app("compare", run, feature="4", **pair)))
    for page in ("browse", "feature"):
        shown = texts(fine(app(page, run, set="eigen", feature="5")))
        assert "not known" in shown, page
        assert ">nan<" not in shown, page
    assert "nothing is predicted from outputs that are not finite" in texts(fine(app("example", run, example="7")))
    assert "what the predicted output" in texts(fine(app("example", run, example="8")))
    shown = texts(fine(app("overview", run)))
    assert all(f">{remark}<" in shown for remark in remarks)


def test_no_page_names_classes_that_no_example_has(
    app: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = synthetic.contents()
    targets = np.where(np.arange(len(made.examples)) == 3, 10**6, made.examples.targets)  # or any number of digits
    run = write_run(
        replace(made, examples=replace(made.examples, targets=targets, class_names=())), tmp_path / "many.h5"
    )
    asked: set[int] = set()
    name = Examples.class_name
    monkeypatch.setattr(Examples, "class_name", lambda self, label: asked.add(int(label)) or name(self, label))
    for page in ("compare", "overview", "example"):
        fine(app(page, run))
    assert asked <= {0, 1, 2, 10**6}


@pytest.mark.parametrize("set_name", ["eigen", "trace", "unit", "weights", "neurons"])
@pytest.mark.parametrize("page", OF_SETS)
def test_every_set_on_every_page(app: Opener, runs: Path, page: str, set_name: str) -> None:
    test = fine(app(page, runs / "image.h5", set=set_name))
    assert not test.warning


SHAPING = {
    "overview": ("run",),
    "browse": ("set", "view", "sort", "dir", "keep", "page"),
    "feature": ("set", "view", "feature", "rank", "groups", "show"),
    "compare": ("set_b", "feature_b", "view_b", "way", "by", "page", "what"),
    "export": ("views", "which", "count", "ends", "format", "what"),
    "example": ("example", "output"),
}


@pytest.mark.parametrize(
    ("page", "parameter", "value"),
    [
        *((page, name, HOSTILE) for page, names in SHAPING.items() for name in names),
        *(("feature", "feature", value) for value in ("-1", "9" * 30, "\u0663", "1.0", "é" * 5000)),
        ("browse", "set", "é" * 5000),
    ],
)
def test_an_unknown_value_is_answered_with_one_sentence_and_the_page_still_shows(
    app: Opener, runs: Path, page: str, parameter: str, value: str
) -> None:
    test = fine(app(page, runs / "image.h5", **{parameter: value}))
    assert len(test.warning) == 1
    said = test.warning[0].value
    assert "This address asks for" in said
    assert len(said) < 1200
    assert "](" not in re.sub(r"\\.", "", said)
    assert "<img" not in re.sub(r"\\.", "", said)


def test_free_text_in_an_address_is_searched_for_and_nothing_else(app: Opener, runs: Path) -> None:
    test = fine(app("browse", runs / "image.h5", q=HOSTILE[:90]))
    assert "No feature fits" in test.info[0].value
    assert HOSTILE[:20] not in texts(test)


def test_a_page_that_ends_early_still_tells_what_could_not_be_followed(app: Opener, runs: Path) -> None:
    browse = fine(app("browse", runs / "image.h5", set="eigne", q="nothing like it"))
    assert "No feature fits" in browse.info[0].value
    assert "asks for the feature set 'eigne'" in browse.warning[0].value.replace("\\", "")
    dual = fine(app("dual", runs / "image.h5", run="other"))
    assert "holds no dual model" in texts(dual)
    assert "asks for the run 'other'" in dual.warning[0].value.replace("\\", "")


def test_a_list_of_features_says_what_is_none(app: Opener, runs: Path) -> None:
    test = fine(app("export", runs / "image.h5", which="list", features="0, 2-4, 17, x"))
    assert [w.value for w in test.warning] == [
        plain("'17' is no feature of this set; features are numbered 0 to 5."),
        plain("'x' is no feature of this set; features are numbered 0 to 5."),
    ]
    assert set(test.dataframe[0].value["feature"]) <= {0, 2, 3, 4}


def test_nothing_to_open_says_what_to_do(app: Opener, tmp_path: Path) -> None:
    assert "feature-lens demo" in fine(app("overview")).code[0].value
    assert "feature-lens demo" in fine(app("browse", tmp_path)).code[0].value


@pytest.mark.parametrize("content", [b"", b"no run at all", None])
def test_a_file_that_is_no_run_is_one_sentence(app: Opener, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.h5"
    if content is not None:
        path.write_bytes(content)
    test = app("overview", path)
    assert not test.exception
    assert len(test.error) == 1
    assert "broken" in test.error[0].value


def test_a_replaced_file_is_opened_again(app: Opener, tmp_path: Path) -> None:
    path = write_run(synthetic.contents(n=60), tmp_path / "run.h5")
    assert "60 examples" in texts(fine(app("overview", path)))
    write_run(synthetic.contents(n=44), path, overwrite=True)
    assert "44 examples" in texts(fine(app("overview", path)))


def test_several_runs_and_a_folder(app: Opener, runs: Path) -> None:
    test = fine(app("overview", runs / "rgb.h5", runs))
    chooser = test.sidebar.selectbox[0]
    assert chooser.options == ["rgb", "image", "pair", "signal", "text", "tokens", "vector"]
    fine(chooser.set_value("tokens").run())
    assert test.query_params["run"] == "tokens"


def test_a_widget_writes_the_address_and_drops_what_no_longer_fits(app: Opener, runs: Path) -> None:
    test = fine(app("browse", runs / "image.h5", set="eigen", view="output:1", sort="std", page="1"))
    fine(test.selectbox(key="address browse set").set_value("neurons").run())
    assert test.query_params["set"] == "neurons"
    assert not {"view", "sort", "page"} & set(test.query_params)


class Query(dict[str, str]):
    """Stands for `st.query_params` and counts the steps that the browser's history takes."""

    steps = 0

    def to_dict(self) -> dict[str, str]:
        return dict(self)

    def from_dict(self, new: Mapping[str, str]) -> None:
        self.clear()
        self.update(new)
        self.steps += 1


def test_a_change_is_one_step_of_the_history_and_no_change_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, object] = {}
    query = Query(run="a", set="eigen", view="score", page="3")
    monkeypatch.setattr(address, "st", SimpleNamespace(session_state=state, query_params=query))

    def changed(value: object, name: str, default: object, *drops: str) -> None:
        state["key"] = value
        address._written("key", name, default, drops)

    # What Streamlit calls for widgets that nobody touched.
    for value, name, default in (
        ("eigen", "set", "unit"),
        (["a", "b"], "views", ["a", "b"]),
        ("", "q", ""),
        (3, "page", 1),
    ):
        changed(value, name, default, "view", "page")
    assert query.steps == 0
    changed("unit", "set", "unit", "view", "page")
    assert (query, query.steps) == ({"run": "a", "set": "unit"}, 1)
    changed("some", "q", "")
    changed("", "q", "")
    assert (query, query.steps) == ({"run": "a", "set": "unit"}, 3)


def test_the_first_tile_and_the_first_row_are_the_maximum(app: Opener, runs: Path) -> None:
    values = np.asarray(synthetic.contents().sets["eigen"].columns["values"])[3, 0]
    test = fine(app("feature", runs / "image.h5", set="eigen", feature="3", view="score"))
    best = int(values.argmax())
    assert f'alt="Highest examples: {best} (' in texts(test)
    table = fine(app("export", runs / "image.h5", set="eigen", feature="3", view="score")).dataframe[0].value
    assert table["example_id"].iloc[0] == best
    assert table["value"].iloc[0] == values.max()


def test_names_from_a_file_are_shown_not_obeyed(app: Opener, tmp_path: Path) -> None:
    made = synthetic.contents()
    concepts = (Concept.of(HOSTILE.replace("/", "|")[:80], np.arange(60), [HOSTILE]),)
    examples = replace(made.examples, class_names=(HOSTILE, "bee", "cat"), concepts=concepts, inferred=(HOSTILE,))
    neurons = made.sets["neurons"]
    named = replace(
        neurons,
        columns={**neurons.columns, "labels": np.array([HOSTILE] * 5)},
        card=replace(neurons.card, title=HOSTILE, description=HOSTILE, score=HOSTILE, equals=HOSTILE),
    )
    network = replace(made.network, name=HOSTILE, architecture=HOSTILE)
    contents = replace(
        made, name=HOSTILE, examples=examples, network=network, sets={"neurons": named, "eigen": made.sets["eigen"]}
    )
    path = write_run(contents, tmp_path / "hostile.h5")
    for page in PAGES:
        test = fine(app(page, path))
        for body in (element.proto.body for element in test.html):
            assert "<img src=x" not in body
        for label in (element.proto.label for element in test.get("page_link")):
            assert "](" not in re.sub(r"\\.", "", label)


def test_the_overview_names_the_concepts_and_says_how_targets_were_read(app: Opener, runs: Path) -> None:
    shown = texts(fine(app("overview", runs / "image.h5")))
    assert "Known besides: legs &amp; wings (2), a phase (1)" in shown
    assert "Targets &amp; outputs are &lt;those&gt; of three classes." in shown


def test_all_sets_are_compared_by_the_same_measures(app: Opener, runs: Path, tmp_path: Path) -> None:
    test = fine(app("compare", runs / "image.h5", what="sets", budget="8"))
    assert not test.warning
    shown = texts(test)
    lead = re.search(r'fl-lead">(.*?)</p>', shown)
    assert lead
    with open_run(runs / "image.h5") as run:
        found = set_measures(run, MeasureSettings(features=8))
        assert lead[1] == safe(measures_sentence(found))
    for theme in ("Classes", "Examples shown", "Sparsity", "The network&#x27;s outputs", "Known concepts, in the span"):
        assert f">{theme}</h2>" in shown
    assert f"{found['hoyer'].iloc[0]:.3f}" in shown
    assert "Not measured: Weights; the network&#x27;s own logits. What it takes" in shown
    made = synthetic.contents()
    bare = replace(made, examples=replace(made.examples, targets=None, concepts=()))
    without = write_run(bare, tmp_path / "bare.h5")
    test = fine(app("compare", without, what="sets", budget="9", measure="class_auroc"))
    assert ["asks for the" in one.value for one in test.warning] == [True, True]
    shown = texts(test)
    assert ">Sparsity</h2>" in shown
    assert ">Classes</h2>" not in shown


def test_moments_alone_are_said_to_be_all(app: Opener, runs: Path) -> None:
    shown = texts(fine(app("feature", runs / "image.h5", set="weights")))
    assert "is kept for the smaller sets only" in shown
    assert "trained value" in shown
    assert "initial value" in shown
    compared = texts(fine(app("compare", runs / "image.h5", set="weights", set_b="eigen")))
    assert "choose two sets that store them" in compared


def test_tensors_wider_than_a_page_are_said_to_be_scaled(
    app: Opener, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Of larger tensors each pixel is the largest entry in its place."
    assert said not in texts(fine(app("feature", runs / "image.h5")))
    monkeypatch.setattr(direction, "MOST_PIXELS", 10)
    assert said in texts(fine(app("feature", runs / "image.h5")))


def test_factors_show_what_lies_between_the_ends(app: Opener, tmp_path: Path) -> None:
    path = write_run(synthetic.with_factors(synthetic.contents()), tmp_path / "run.h5")
    test = fine(app("feature", path, set="factored", feature="70", rank="31", show="20"))
    assert not test.warning
    shown = texts(test)
    for part in ("Between the ends", "Whole range, highest to lowest", "highest 20 %", "Ranks "):
        assert part in shown
    assert "is kept for the smaller sets only" not in shown
    for page in OF_SETS:
        assert not fine(app(page, path, set="factored", set_b="eigen")).warning
    compared = texts(fine(app("compare", path, set="factored", set_b="eigen")))
    assert "Spearman correlation over all examples" in compared
    assert "choose two sets that store them" in compared
    assert "moments, class means, factors" in texts(fine(app("overview", path)))


def test_text_is_made_safe() -> None:
    assert plain("a*b_[c](d)") == r"a\*b\_\[c\]\(d\)"
    assert safe('<b a="\'">') == "&lt;b a=&quot;&#x27;&quot;&gt;"
    assert shorten("a\n\tb" + "c" * 100, 8) == "a bcccc…"


def test_the_command_keeps_to_this_machine_and_the_packaged_settings() -> None:
    words = launch.command(["a run.h5", "--help"], 8600, "/behind/a/", ["lens.example.org"])
    assert words[1:6] == ["-P", "-m", "feature_lens_app.server", "--port", "8600"]
    assert words[6:8] == ["--base-path=behind/a", "--host-name=lens.example.org"]
    settings = launch.packaged_settings()
    assert settings["server.address"] == "127.0.0.1"
    assert settings["server.fileWatcherType"] == "none"
    assert settings["browser.gatherUsageStats"] is False
    assert settings["global.developmentMode"] is False
    assert not [name for name in settings if name.startswith("theme")]
    files = words[words.index("--") + 1 :]
    assert [Path(file).name for file in files] == ["a run.h5", "--help"]
    assert all(Path(file).is_absolute() for file in files)
    assert launch.url(8600, "/behind/a/") == "http://127.0.0.1:8600/behind/a/"


def test_settings_of_the_user_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    assert "STREAMLIT_SERVER_ADDRESS" not in launch.environment()


def test_a_busy_port_is_seen_and_the_next_is_taken() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind((launch.ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert launch.port_in_use(port)
        assert launch.free_port(port) > port
    with pytest.raises(AppError, match="is free"):
        launch.free_port(65536)


def test_links_carry_the_view_and_leave_out_what_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "get", {"run": "a", "set": "eigen", "feature": None, "view": "score"}.get)
    assert address.here(feature=3, view=None) == {"run": "a", "set": "eigen", "feature": "3"}


# Study


def _figures(name: str, *of_sets: tuple[float, float, float]) -> dict[str, list[float]]:
    value, low, high = (list(column) for column in zip(*of_sets, strict=True))
    return {
        name: value,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_null": [0.5] * 3,
        f"{name}_null_99": [0.6] * 3,
    }


@pytest.fixture(scope="module")
def study(runs: Path) -> Path:
    """A run that belongs to a study, in which neurons win by one measure and eigen features by the other."""
    table = pd.DataFrame(
        {
            "kind": ["Eigen features", "Neurons", "the network's own logits"],
            "set": ["eigen", "neurons", ""],
            "family": ["effective features", "neurons", "logits"],
            "features": [4, 4, 3],
            **_figures("class_auroc", (0.8, 0.75, 0.85), (0.9, 0.88, 0.92), (0.7, 0.6, 0.8)),
            **_figures("hoyer", (0.5, 0.45, 0.55), (0.3, 0.25, 0.35), (0.2, 0.1, 0.3)),
        }
    )
    text = "\n".join(answer(table, f"{HOSTILE} toys"))
    columns = {name: column.to_numpy(np.str_ if column.dtype.kind in "OU" else None) for name, column in table.items()}
    made = synthetic.contents()
    kept = {**made.tables, "study": KeptTable("Is anything to be seen?", columns, text)}
    return write_run(replace(made, tables=kept), runs.parent / "study.h5")


def test_the_study_page_shows_the_answer_and_every_figure(app: Opener, study: Path) -> None:
    shown = texts(fine(app("study", study)))
    assert "of 2 measures the best effective features are beaten by neurons on 1 (AUROC by class)" in shown
    assert "they are ahead of every other set on 1" in shown
    assert "<img src=x" not in shown
    assert ">0.75 to 0.85<" in shown
    other = fine(app("study", study, measure="hoyer"))
    assert ">0.45 to 0.55<" in texts(other)
    assert ">0.75 to 0.85<" not in texts(other)
    assert "set=eigen" in texts(other)


@pytest.mark.parametrize(
    "columns",
    [
        {"kind": np.array(["x"]), "set": np.array([""]), "family": np.array(["neurons"]), "features": np.arange(1)},
        {"class_auroc": np.arange(3.0)},
        {
            "kind": np.array(["x"]),
            "set": np.array([""]),
            "family": np.array(["neurons"]),
            "features": np.arange(1),
            **{f"unknown{end}": np.ones(1) for end in ("", "_low", "_high", "_null", "_null_99")},
        },
        {
            "kind": np.array(["x"]),
            "set": np.array([""]),
            "family": np.array(["neurons"]),
            "features": np.arange(1),
            **{f"hoyer{end}": np.array(["1"]) for end in ("", "_low", "_high", "_null", "_null_99")},
        },
    ],
)
def test_a_table_that_is_none_of_a_study_is_answered_with_one_sentence(
    app: Opener, tmp_path: Path, columns: dict[str, np.ndarray]
) -> None:
    made = synthetic.contents()
    run = write_run(replace(made, tables={"study": KeptTable("Is it?", columns, "So.")}), tmp_path / "other.h5")
    test = app("study", run)
    assert not test.exception
    (said,) = test.error
    assert "A study's table has feature sets by measures with intervals, but" in said.value


def test_learn_tells_of_every_study_that_the_app_was_started_on(app: Opener, runs: Path, study: Path) -> None:
    other = study.with_name("other_study.h5")
    with open_run(study) as run:
        kept = replace(run.tables["study"], title="Is there more?", text="There is no more.")
        write_run(replace(synthetic.contents(), tables={"study": kept}), other)
    broken = study.with_name("broken.h5")
    broken.write_bytes(b"no run")
    shown = texts(fine(app("learn", runs / "image.h5", study, other, broken)))
    assert "Is anything to be seen?" in shown
    assert "Is there more?</a> There is no more." in shown
    assert "run=other_study" in shown


def test_the_overview_and_learn_begin_with_the_answer_of_the_study(app: Opener, study: Path) -> None:
    for page in ("overview", "learn"):
        shown = texts(fine(app(page, study)))
        assert "the best effective features are beaten by neurons" in shown, page
        assert "<img src=x" not in shown, page
