"""What the overview is made of: the finding, the network, the data, a card per feature set, spectra, origin."""

from __future__ import annotations

import json

import altair as alt
import pandas as pd
import streamlit as st

from feature_lens.analysis.headline import class_figures, format_auroc, headline
from feature_lens.analysis.orders import default_view
from feature_lens.analysis.render import ACCENT, format_value
from feature_lens.analysis.report.page import report_html, report_name
from feature_lens.analysis.run import Run
from feature_lens.analysis.study.table import study_sentences
from feature_lens.feature_set import Card, FeatureSet
from feature_lens_app.charts import show_chart
from feature_lens_app.run_access import BY_KEY, Opened
from feature_lens_app.views import figures, head, link, quiet, table
from feature_lens_app.words import count_of, percent, plain, safe, shorten

DEGENERATE = "#E69F00"
MEASURING = "Measuring how well features tell classes apart …"


@st.cache_data(show_spinner=MEASURING, max_entries=16, hash_funcs=BY_KEY)
def _headline(opened: Opened) -> str:
    return headline(opened.run)


@st.cache_data(show_spinner=MEASURING, max_entries=16, hash_funcs=BY_KEY)
def _class_figures(opened: Opened) -> pd.DataFrame:
    return class_figures(opened.run)


def show_headline(opened: Opened) -> None:
    """What the study of the network found, where the run belongs to one, and what the run itself found, a sentence each."""
    for sentence in [*study_sentences(opened.run)[:1], _headline(opened)]:
        st.html(f'<p class="fl-lead">{safe(sentence)}</p>')


def show_network(run: Run) -> None:
    """The network: sizes, quality, architecture."""
    network = run.network
    pairs = [
        ("parameters p", f"{network.parameters.total:,}"),
        ("outputs c", f"{network.n_outputs:,}"),
        *((name, format_value(float(value), signed=False)) for name, value in network.metrics.items()),
    ]
    st.html(figures(pairs) + f'<pre class="fl-code">{safe(network.architecture[:4000])}</pre>')


def show_data(run: Run) -> None:
    """The examples: how many, how they are split, what they are."""
    examples = run.examples
    pairs = [("examples n", f"{len(examples):,}")]
    if examples.training is not None:
        training = int(examples.training.sum())
        pairs += [("training", f"{training:,}"), ("held out", f"{len(examples) - training:,}")]
    shape = " × ".join(map(str, examples.modality.shape))
    pairs.append((examples.modality.kind, shape))
    if examples.class_names:
        pairs.append(("classes", f"{len(examples.class_names):,}"))
        names = ", ".join(shorten(name, 24) for name in examples.class_names[:30])
        more = f" and {len(examples.class_names) - 30} more" if len(examples.class_names) > 30 else ""
        below = f'<p class="fl-quiet" style="margin-top:8px">{safe(names + more)}</p>'
    else:
        below = ""
    if examples.concepts:
        known = ", ".join(f"{shorten(one.name, 40)} ({len(one.labels):,})" for one in examples.concepts)
        below += f'<p class="fl-quiet" style="margin-top:8px">Known besides: {safe(known)}</p>'
    without = (
        "" if examples.training is not None else '<p class="fl-quiet">No split: features are fitted in sample.</p>'
    )
    read = "".join(f'<p class="fl-quiet" style="margin-top:8px">{safe(one)}</p>' for one in examples.inferred)
    st.html(figures(pairs) + below + read + without)


def show_set(feature_set: FeatureSet, run_key: str) -> None:
    """What a feature set is, what it equals, how much of the kernel it holds; a link to its features."""
    card = feature_set.card
    with st.container(border=True, key=f"fl-card-{feature_set.name}"):
        words, facts = st.columns([3, 2], gap="large")
        with words:
            link(
                "browse",
                f"{feature_set.name}: {shorten(card.title)} →" if card.title else f"{feature_set.name} →",
                {"run": run_key, "set": feature_set.name, "view": default_view(feature_set)},
                f"set-{feature_set.name}",
            )
            equals = f" <b>Equals</b> {safe(card.equals.strip())}" if card.equals else ""
            st.html(f'<p class="fl-quiet">{safe(card.description)}{equals}</p>')
        with facts:
            pairs = [("features", f"{len(feature_set):,}")]
            if card.kernel_share is not None:
                pairs.append(("share of the kernel", percent(card.kernel_share)))
            pairs.append(("fitted on", _fitted(card)))
            pairs.append(("views", count_of(len(feature_set.views), "view")))
            if not feature_set.stores_values:
                factors = ", factors" if feature_set.keeps_factors else ""
                pairs.append(("kept", f"both ends, moments, class means{factors}"))
            st.html(figures(pairs, small=True))


def show_spectra(run: Run) -> None:
    """Eigenvalues on a logarithmic scale, near-degenerate groups marked, for every set that has them."""
    spectral = [feature_set for feature_set in run.sets.values() if "spectrum" in feature_set]
    if not spectral:
        return
    head(
        "Spectra",
        "Eigenvalues of the kernel on the fitted examples, logarithmic. Within a marked group only the subspace "
        "is determined, not the single feature.",
    )
    for start in range(0, len(spectral), 2):
        for column, feature_set in zip(st.columns(2, gap="large"), spectral[start : start + 2], strict=False):
            with column:
                quiet(f"{feature_set.name}: {shorten(feature_set.card.outputs, 100)}")
                _show_spectrum(feature_set)


def _show_spectrum(feature_set: FeatureSet) -> None:
    data = pd.DataFrame({"feature": range(len(feature_set)), "eigenvalue": feature_set.read("spectrum")})
    data["kind"] = "single"
    if "group" in feature_set:
        group = pd.Series(feature_set.read("group"))
        data.loc[group.duplicated(keep=False), "kind"] = "in a near-degenerate group"
    data = data[data["eigenvalue"] > 0]
    scale = alt.Scale(domain=["single", "in a near-degenerate group"], range=[ACCENT, DEGENERATE])
    chart = (
        alt.Chart(data)
        .mark_point(filled=True, size=44, opacity=1)
        .encode(
            x=alt.X("feature:Q", title="feature", axis=alt.Axis(format="d", tickMinStep=1, grid=False)),
            y=alt.Y("eigenvalue:Q", title="eigenvalue", scale=alt.Scale(type="log"), axis=alt.Axis(format="~g")),
            color=alt.Color("kind:N", scale=scale, legend=alt.Legend(title=None, orient="top")),
            tooltip=["feature:Q", alt.Tooltip("eigenvalue:Q", format=".3g"), "kind:N"],
        )
    )
    show_chart(chart, 260, f"Eigenvalues of {feature_set.name} on a logarithmic scale")


def _fitted(card: Card) -> str:
    """On how many examples, and which: '1,257 training examples', 'all 150 examples (in sample)'."""
    if not card.n_fitted:
        return card.fitted_on
    every = card.fitted_on.removeprefix("all ")
    return f"{'all ' if every != card.fitted_on else ''}{card.n_fitted:,} {every}"


def show_figures(opened: Opened) -> None:
    """The figures behind the finding; nothing without classes."""
    found = _class_figures(opened)
    if len(found) == 0:
        return
    head(
        "How well single features tell classes apart",
        f"Mean AUROC of the feature chosen for each class, and the median over features of their best AUROC, on "
        f"{found['measured_on'].iloc[0]}; .5 is chance.",
    )
    kinds = [safe(shorten(str(kind))) for kind in found["kind"]]
    counts = [f"{count:,}" for count in found["features"]]
    aurocs = [[format_auroc(figure) for figure in found[name]] for name in ("chosen_auroc", "median_selectivity")]
    rows = [list(row) for row in zip(kinds, counts, *aurocs, strict=True)]
    st.html(table(["kind", "features", "chosen per class", "median feature"], rows, numbers=[1, 2, 3]))


def show_report(run: Run) -> None:
    """A button for the report card."""
    head("Report card", "The figures that matter on a few pages, as one HTML file to read, print or send.")
    name = report_name(run)
    st.download_button(
        f"Download {name}".replace("_", r"\_"),
        data=lambda: report_html(run),
        file_name=name,
        mime="text/html",
        on_click="ignore",
        key="fl-download-report",
    )


def show_origin(run: Run) -> None:
    """Settings, software and fingerprint, folded away; remarks of the computation are always shown."""
    origin = run.provenance
    head("How this run was made")
    if origin.remarks:
        for remark in origin.remarks:
            quiet(shorten(remark, 300))
    with st.expander("Settings, software, fingerprint"):
        st.caption(plain(f"Fingerprint {origin.fingerprint}; network {run.network.digest}"))
        st.code(json.dumps({"settings": dict(origin.settings), "software": dict(origin.software)}, indent=1), "json")
