"""Example: one input in full, its outputs, who contributed to each of them, and the training examples behind it."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from feature_lens.analysis.dual_tables import closing, example_interactions, output_table, support_table
from feature_lens.analysis.example_features import leading_set, strongest_features, strongest_neurons
from feature_lens_app import address, interactions, run_access, views
from feature_lens_app.waterfall import show_waterfall
from feature_lens_app.words import figure, safe, shorten

KINDS = {"eigen": "eigen feature", "unit": "unit feature", "weight": "weight"}
NEURONS = {"activation": "activation", "effect": "effect on the output"}
MOST_PAIRS = 10

opened = run_access.current()
run = opened.run
key = run_access.run_key()
n, c = len(run.examples), int(run.outputs.shape[1])


def feature_rows(table: pd.DataFrame, value: str) -> list[list[str]]:
    """Name and value of each feature, a link where the run shows the feature."""
    rows = []
    for set_name, feature, name, number in zip(
        table["set"], table["feature"], table["name"], table[value], strict=True
    ):
        there = {"run": key, "set": str(set_name), "feature": str(feature)}
        named = views.anchor("feature", shorten(str(name), 40), there) if set_name else safe(shorten(str(name), 40))
        rows.append([named, figure(number, True)])
    return rows


views.title("Example", "What the network says of one input, and which features and training examples that comes from.")
left, middle, _ = st.columns([1, 2, 3], vertical_alignment="bottom")
with left:
    example = address.whole_number("Example", "example", 0, n - 1, 0, help="Its position in the run")
table = output_table(run, example)
values = table["output"].tolist()
predicted = values.index(max(values))
with middle:
    chosen = address.select(
        "Output",
        "output",
        [str(place) for place in range(c)],
        str(predicted),
        shown=lambda place: views.view_title(run, f"output:{place}"),
    )
output = int(chosen)
shown, told = st.columns([1, 3], gap="large")
with shown:
    views.sheets(views.sheet(opened, [example], [values[output]], 1, "The example"))
with told:
    heads = {
        "output": "value",
        "initial": "before training",
        "dual": "dual model",
        "leading": "leading order",
        "next": "next-to-leading order",
    }
    names = [safe(views.view_title(run, f"output:{place}")) for place in range(c)]
    columns = [[figure(value, True) for value in table[name]] for name in table.columns]
    outputs = list(zip(names, *columns, strict=True))
    st.html(views.table(["output", *(heads[name] for name in table.columns)], outputs, numbers=[1, 2, 3, 4, 5]))

dual = run.dual
if dual is None:
    views.quiet("This run holds no dual model, so nothing is said of where the outputs come from. Extract with --dual.")

if dual is not None and dual.has_contributions:
    sums = closing(run, example, output)
    views.head(
        "Contributions",
        f"What training added to this output, from {figure(sums.initial, True)} to {figure(sums.output, True)}, shared "
        f"out among features. Contributions add up to {figure(sums.contributions, True)}; they leave a residual of "
        f"{figure(sums.residual, True)}, which belongs to no feature.",
    )
    by = address.segments("By", "by", ["layer", "tensor", "unit"], "layer")
    show_waterfall(run, example, output, by, sums)  # type: ignore[arg-type]  # one of the three
    views.head(
        "Strongest features",
        "Those of largest contribution to this output. The three kinds share out the same sum, each in its own way; "
        "what training added need not lie within the leading eigen features alone.",
    )
    for place, (kind, words) in zip(st.columns(3, gap="large"), KINDS.items(), strict=True):
        with place:
            rows = feature_rows(strongest_features(run, example, output, kind), "contribution")
            st.html(views.table([words, "contribution"], rows, numbers=[1]))

if any(feature_set.is_neurons for feature_set in run.sets.values()):
    effects = (
        f"and by what the predicted output, {views.view_title(run, f'output:{predicted}')}, changes by in a run of the "
        "network with that neuron at zero. These changes do not add up."
        if all(map(math.isfinite, values))
        else "nothing is predicted from outputs that are not finite."
    )
    views.head("Strongest neurons", f"By activation, in the units of the network, all layers together; {effects}")
    for place, (by, words) in zip(st.columns(3, gap="large"), NEURONS.items(), strict=False):
        with place:
            neurons = strongest_neurons(run, example, by)
            if len(neurons):
                st.html(views.table(["neuron", words], feature_rows(neurons, by), numbers=[1]))
            else:
                views.quiet("Not measured: this run was extracted without --dual.")

pairs = example_interactions(run, example) if dual is not None else pd.DataFrame()
if len(pairs):
    views.head(
        "Interactions on this example",
        f"How a step along one leading eigen feature changes another, for {views.view_title(run, f'output:{predicted}')} "
        "of this example, at the trained parameters. The Dual page has the mean over examples.",
    )
    left, right = st.columns([3, 2], gap="large")
    with left:
        interactions.show_matrix(pairs, "interaction", True, "Interaction of every pair of features on this example")
    with right:
        once = pairs[pairs["feature"] < pairs["other"]]
        largest = once.sort_values("interaction", key=lambda column: -column.abs(), kind="stable").head(MOST_PAIRS)
        found = zip(largest["feature"], largest["other"], largest["interaction"], strict=True)
        interactions.show_pairs(run, leading_set(run), found, "interaction", True)

if dual is not None and dual.fitted is not None:
    support = support_table(run, example, output)
    views.head(
        "Supporting training examples",
        "The training examples that the dual model's output rests on most, with what each adds to it or takes from it.",
    )
    views.sheets(
        views.sheet(opened, support["position"], support["contribution"], views.COLUMNS, "Supporting training examples")
    )
    links = [
        views.anchor("example", str(name), {"run": key, "example": str(position), "output": str(output)})
        for position, name in zip(support["position"], support["id"], strict=True)
    ]
    st.html(f'<p class="fl-quiet">By id: {" · ".join(links)}</p>')
if dual is not None:
    views.notes(dual.remarks)
