"""The parts of a report card, each made of a run; one that has nothing to say is empty."""

from __future__ import annotations

import json
from typing import Final

import numpy as np

from feature_lens.analysis.dual_tables import (
    completeness_sentence,
    dual_headline,
    interaction_table,
    ticket_sentences,
    ticket_table,
)
from feature_lens.analysis.example_features import leading_set
from feature_lens.analysis.expansion_tables import LIMITS, order_table, training_of, verdict_on
from feature_lens.analysis.headline import class_figures, format_auroc, headline
from feature_lens.analysis.interaction_graph import interaction_graph
from feature_lens.analysis.orders import end_of
from feature_lens.analysis.render import alt_text, contact_sheet, format_value, labelled_sheet
from feature_lens.analysis.report import charts
from feature_lens.analysis.report.pieces import (
    Html,
    box,
    fidelity,
    figures,
    joined,
    number,
    picture,
    section,
    shorten,
    table,
    words,
)
from feature_lens.analysis.tiles import ACCENT
from feature_lens.dual_record import KERNELS
from feature_lens.feature_set import FeatureSet
from feature_lens.run_contents import RunContents

NOTHING: Final = Html("")
_FEATURES = 3
_TILES = 4
_TILE = 64
_REDUCTIONS: Final = {"trace": "summed over outputs", "flattened": "whole"}


def finding(run: RunContents) -> Html:
    """The sentences that the run comes down to."""
    said = [headline(run)]
    if run.dual is not None and run.dual.fidelities:
        said.append(dual_headline(run))
    return box("finding", *(words(sentence) for sentence in said))


def network_and_data(run: RunContents) -> Html:
    """Two cards, and a sample of the examples."""
    network, examples = run.network, run.examples
    about = [
        ("parameters", f"{network.parameters.total:,}"),
        ("tensors", f"{len(network.parameters.names):,}"),
        ("outputs", f"{network.n_outputs:,}"),
        *((name, number(value)) for name, value in network.metrics.items()),
    ]
    data = [("examples", f"{len(examples):,}")]
    if examples.training is not None:
        training = int(np.asarray(examples.training).sum())
        data += [("training", f"{training:,}"), ("held out", f"{len(examples) - training:,}")]
    data.append((examples.modality.kind, " × ".join(map(str, examples.modality.shape))))
    if examples.class_names:
        data.append(("classes", f"{len(examples.class_names):,}"))
    sample = list(range(0, len(examples), max(1, len(examples) // 14)))[:14]
    sheet = picture(
        contact_sheet(examples, sample, size=_TILE, columns=len(sample)),
        "A sample of the examples: " + ", ".join(str(examples.ids[position]) for position in sample),
        "wide",
    )
    read = [words(sentence, "quiet") for sentence in examples.inferred]
    cards = box(
        "columns two",
        box("card", words("Network", tag="h3"), words(network.name, "quiet"), figures(about)),
        box("card", words("Examples", tag="h3"), words(_split_words(run), "quiet"), figures(data), *read),
    )
    return joined(cards, sheet)


def _split_words(run: RunContents) -> str:
    if run.examples.training is None:
        return "no held-out split: all is fitted in sample"
    return "features are fitted on the training examples"


def feature_sets(run: RunContents) -> Html:
    """What was extracted, and how well single features tell classes apart."""
    rows: list[list[str | Html]] = []
    for name, feature_set in run.sets.items():
        card = feature_set.card
        said = words(card.title or name, tag="span", longest=90)
        if card.equals:
            said = joined(said, words(f"equals {card.equals.strip()}", "quiet", "span"), by=" ")
        share = "–" if card.kernel_share is None else _share(card.kernel_share)
        rows.append([words(name, "name", "span", 28), said, f"{len(feature_set):,}", share])
    made = table(["set", "what it is", "features", "share of the kernel"], rows, numbers=[2, 3])
    found = class_figures(run)
    if not len(found):
        return section("Feature sets", "", made)
    measured = [
        [
            shorten(str(row["kind"])),
            f"{row['features']:,}",
            format_auroc(float(row["chosen_auroc"])),
            format_auroc(float(row["median_selectivity"])),
        ]
        for row in found.to_dict("records")
    ]
    apart = table(["kind of feature", "features", "chosen per class", "median feature"], measured, numbers=[1, 2, 3])
    lead = (
        f"Mean AUROC of the feature chosen for each class on training examples, and the median over features of their "
        f"best AUROC, on {found['measured_on'].iloc[0]}; 0.5 is chance."
    )
    return joined(
        section("Feature sets", "All ranked over the same examples.", made),
        section("How well single features tell classes apart", lead, apart),
    )


def _share(share: float) -> str:
    """Only the whole kernel reads as 100 %."""
    return "above 99.9 %" if 0.9995 <= share < 1 - 1e-9 else f"{share:.1%}"


def regressions(run: RunContents) -> Html:
    """How well linear models in the features do, each kernel beside its controls, both targets apart."""
    dual = run.dual
    if dual is None or not dual.fidelities:
        return NOTHING
    reductions = tuple(dict.fromkeys(one.reduction for one in dual.fidelities))
    known = {(one.kernel, one.reduction, one.target, one.form): one for one in dual.fidelities}
    rows: list[list[str]] = []
    for reduction in reductions:
        for kernel in dict.fromkeys(one.kernel for one in dual.fidelities if one.reduction == reduction):
            labels = known.get((kernel, reduction, "labels", "bare"))
            about = known.get((kernel, reduction, "labels", "expanded"))
            outputs = known.get((kernel, reduction, "distillation", "bare"))
            rows.append(
                [
                    KERNELS.get(kernel, kernel)
                    + ("" if len(reductions) == 1 else f", {_REDUCTIONS.get(reduction, reduction)}"),
                    *(fidelity(None if labels is None else value) for value in _three(labels)),
                    fidelity(None if about is None else about.r2),
                    fidelity(None if outputs is None else outputs.r2),
                    fidelity(None if outputs is None else outputs.agreement),
                ]
            )
    heads = ["kernel", "R2", "agreement", "accuracy", "R2 expanded", "R2", "agreement"]
    over = [("", 1), ("fitted to labels", 4), ("fitted to the outputs", 2)]
    return section(
        "The dual model: regressions on features",
        "Ridge regressions fitted on training examples, judged on held-out ones: R2 to the network's outputs, agreement "
        "with its predicted class. The last two kinds of kernel are controls.",
        box("regressions", table(heads, rows, numbers=[1, 2, 3, 4, 5, 6], over=over)),
        *(words(note, "note") for note in dual.notes),
    )


def _three(one: object) -> list[float | None]:
    return [getattr(one, name, None) for name in ("r2", "agreement", "accuracy")]


def expansion(run: RunContents) -> Html:
    """The expansion about the initial parameters, order by order."""
    if run.dual is None or run.dual.expansion is None:
        return NOTHING
    rows = [
        [str(row["words"]), number(row["size"]), fidelity(row["r2"]), fidelity(row["agreement"])]
        for row in order_table(run.dual.expansion).to_dict("records")
    ]
    return section(
        "The trained function in closed form",
        f"{verdict_on(run.dual.expansion)} {training_of(run.dual.expansion)}",
        table(["the expansion to", "what it adds", "R2", "agreement"], rows, numbers=[1, 2, 3]),
        words(LIMITS, "note"),
    )


def contributions(run: RunContents) -> Html:
    """Whether contributions add up, and which layers they come from."""
    dual = run.dual
    if dual is None or not dual.has_contributions:
        return NOTHING
    sizes = np.abs(np.asarray(dual.columns["tensor/contribution"], dtype=np.float64)).mean(axis=(0, 1))
    order = np.argsort(-sizes, kind="stable")[:8]
    names = [shorten(run.network.parameters.names[place], 20) for place in order]
    drawn = charts.bars(names, [float(sizes[place]) for place in order], [number(sizes[place]) for place in order])
    weights = np.asarray(dual.columns["weight"], dtype=np.float64)
    best = np.argsort(-weights, kind="stable")[: len(order) + 1]
    rows = [[run.network.parameters.label(int(weight)), number(weights[weight])] for weight in best]
    return section(
        "What training added, shared out",
        f"{completeness_sentence(run)} Means of the sizes of contributions, over examples and outputs:",
        box(
            "columns two",
            box("part", words("By parameter tensor", tag="h3"), drawn),
            box("part", words("Largest weights", tag="h3"), table(["weight", "mean size"], rows, numbers=[1])),
        ),
    )


def tickets(run: RunContents) -> Html:
    """How few features reproduce the network, beside as many at random."""
    dual = run.dual
    if dual is None or not dual.tickets:
        return NOTHING
    found = ticket_table(run)
    figure, name = ("agreement", "agreement") if found["agreement"].notna().any() else ("r2", "R2")
    drawn = []
    for order, kind, title, colour in (
        ("contribution", "sum", "largest first, summed", ACCENT),
        ("contribution", "network", "largest first, real network", ACCENT),
        ("random", "sum", "random, summed", "#8A8F98"),
        ("random", "network", "random, real network", "#8A8F98"),
        ("eigen", "sum", "eigen features, summed", "#CC79A7"),
    ):
        own = found[(found["order"] == order) & (found["kind"] == kind) & (found["kept"] > 0) & found[figure].notna()]
        own = own.sort_values("kept")
        points = list(zip(own["kept"].astype(float), own[figure].astype(float), strict=True))
        if points:
            drawn.append(charts.Curve(title, points, colour, kind == "network"))
    return section(
        "Lottery tickets among features",
        "What is left of the network when only some features of what training added are kept, on held-out examples.",
        charts.curves(drawn, "features kept", name) if drawn else NOTHING,
        *(words(sentence, "said") for sentence in ticket_sentences(run)),
    )


def interactions(run: RunContents) -> Html:
    """Which leading eigen features change with which: sizes, and those above the null."""
    if run.dual is None:
        return NOTHING
    pairs = interaction_table(run)
    if not len(pairs):
        return NOTHING
    drawing = interaction_graph(run)
    sizes = pairs.pivot(index="feature", columns="other", values="size").to_numpy(dtype=np.float64)
    largest = drawing.edges.head(12)
    rows = [
        [f"{one} with {other}", number(size), format_value(mean)]
        for one, other, size, mean in zip(
            *(largest[name] for name in ("feature", "other", "size", "mean")), strict=True
        )
    ]
    edges: Html = (
        table(["features", "size", "mean"], rows, numbers=[1, 2])
        if rows
        else words("No pair stands above directions turned at random within the same span.", "quiet")
    )
    return section(
        "Interactions of the leading eigen features",
        "How a step along one changes another: second derivatives at the trained parameters, as root mean square over "
        "examples and outputs. Edges are larger than 99 % of pairs of directions turned at random.",
        box(
            "columns three",
            box("part", words("Size of every pair", tag="h3"), charts.matrix(sizes)),
            box("part", words("Above the null", tag="h3"), charts.graph(drawing)),
            box("part", words("The largest", tag="h3"), edges),
        ),
    )


def top_examples(run: RunContents) -> Html:
    """The first features of the main sets beside the first neurons, both ends of each."""
    shown = _main_sets(run)
    if not shown:
        return NOTHING
    columns = []
    for feature_set in shown:
        order = feature_set.read("order")[:_FEATURES]
        cells = [_feature(run, feature_set, int(feature), _view(feature_set, int(feature))) for feature in order]
        title = words(feature_set.card.title.partition(":")[0] or feature_set.name, tag="h3", longest=60)
        columns.append(box("part", title, *cells))
    return section(
        "Top examples",
        "The highest examples above the lowest, with value and class; the first features of each kind in their own order.",
        box("columns three", *columns),
    )


def _main_sets(run: RunContents) -> list[FeatureSet]:
    """The leading eigen features, or the first eigen set; unit features; the last layer of neurons; or else what is there."""
    sets = list(run.sets.values())
    eigen = [one for one in sets if one.card.basis == "eigen"]
    neurons = [one for one in sets if one.is_neurons]
    leading = leading_set(run)
    chosen = [run.sets[leading]] if leading else eigen[:1]
    chosen += [one for one in sets if one.card.basis == "unit"][:1] + neurons[-1:]
    return (chosen or sets)[:3]


def _view(feature_set: FeatureSet, feature: int) -> str:
    """The score, or else the view in which the feature varies most."""
    if "score" in feature_set.views:
        return "score"
    spread = np.nan_to_num(np.asarray(feature_set.columns["std"][feature], dtype=np.float64))
    return feature_set.views[int(spread.argmax())]


def _feature(run: RunContents, feature_set: FeatureSet, feature: int, view: str) -> Html:
    head = words(feature_set.label(feature), "name", "span", 40)
    facts = [f"for {view}"] if view not in ("score", "activation") else []
    if "spectrum" in feature_set:
        facts.append(f"eigenvalue {number(float(feature_set.columns['spectrum'][feature]))}")
    if facts:
        head = joined(head, words(", ".join(facts), "quiet", "span", 60), by=" ")
    rows = []
    for end in ("highest", "lowest"):
        positions, values = end_of(run, feature_set.name, feature, view, end, _TILES)
        sheet = labelled_sheet(run, positions, values, columns=_TILES, size=_TILE)
        rows.append(picture(sheet, alt_text(run, positions, values, f"{end.capitalize()} examples")))
    return box("feature", head, *rows)


def remarks(run: RunContents) -> Html:
    """What the computation wants to be known."""
    said = dict.fromkeys([*run.provenance.remarks, *(run.dual.remarks if run.dual else ())])
    if not said:
        return NOTHING
    return section("Remarks", "", box("remarks", *(words(one, tag="li") for one in said), tag="ul"))


def provenance(run: RunContents) -> Html:
    """Where the figures come from."""
    origin = run.provenance
    software = ", ".join(f"{name} {version}" for name, version in origin.software.items())
    rows: list[list[str | Html]] = [
        ["fingerprint", words(origin.fingerprint, "code", "span")],
        ["network", words(run.network.digest, "code", "span")],
        ["software", words(software, tag="span")],
        ["settings", words(json.dumps(dict(origin.settings)), "code", "span", 4000)],
    ]
    return section("How this run was made", "", box("origin", table(["", ""], rows)))
