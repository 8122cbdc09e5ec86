"""Where a feature lives in the network: the layers that carry it and its direction drawn in weight space."""

from __future__ import annotations

from typing import Any

import altair as alt
import streamlit as st

from feature_lens.analysis.describe import direction_pictures, parameter_shares
from feature_lens.analysis.render import diverging_png, format_value
from feature_lens.analysis.run import Run
from feature_lens.feature_set import FeatureSet
from feature_lens_app import address
from feature_lens_app.charts import ACCENT, show_chart
from feature_lens_app.views import figures, head, image, view_title
from feature_lens_app.words import safe

WIDEST, TALLEST = 460, 260
MOST_PICTURES = 24
MOST_PIXELS, LEAST_PIXELS = 1100, 8


def show_place(run: Run, feature_set: FeatureSet, feature: int) -> None:
    """Shares of the layers and pictures of the direction, or the weight's own values; nothing for plain neurons."""
    shares = parameter_shares(feature_set, feature)
    drawn = "direction" in feature_set
    weight = feature_set.parameters is not None and len(feature_set) == feature_set.parameters.total
    if shares is None and not drawn and not weight:
        return
    head("Where in the network")
    if weight and not drawn:
        _show_weight(run, feature)
        return
    if shares is not None:
        st.html('<p class="fl-quiet">Share of the squared direction in each parameter tensor.</p>')
        chart = (
            alt.Chart(shares)
            .mark_bar(color=ACCENT, height={"band": 0.7})
            .encode(
                x=alt.X("share:Q", title=None, axis=alt.Axis(format="%", tickCount=6), scale=alt.Scale(domainMin=0)),
                y=alt.Y("parameter:N", title=None, sort=None, axis=alt.Axis(labelLimit=180, labelOverlap=False)),
                tooltip=["parameter:N", alt.Tooltip("share:Q", format=".3p")],
            )
        )
        with st.columns(2)[0]:
            show_chart(chart, 50 + 24 * len(shares), "Share of the squared direction in each parameter tensor")
    if drawn:
        _show_direction(run, feature_set, feature)


def _show_weight(run: Run, feature: int) -> None:
    network = run.network
    trained = float(network.trained[feature])
    pairs = [("trained value", format_value(trained))]
    if network.initial is not None:
        initial = float(network.initial[feature])
        pairs += [("initial value", format_value(initial)), ("moved by", format_value(trained - initial))]
    name, at = network.parameters.locate(feature)
    pairs += [("tensor", name), ("entry", ", ".join(map(str, at)) or "the only one")]
    st.html(figures(pairs))


def _largest(picture: Any) -> float:
    return max(abs(float(picture.min())), abs(float(picture.max())))


def _show_direction(run: Run, feature_set: FeatureSet, feature: int) -> None:
    output = 0
    per_output = len(feature_set.column("direction").shape) == 3
    if per_output:
        names = [str(i) for i in range(feature_set.column("direction").shape[1])]
        output = int(
            address.select("Direction of output", "output", names, "0", shown=lambda i: view_title(run, f"output:{i}"))
        )
    pictures = direction_pictures(run, feature_set.name, feature, output=output)
    limit = max((_largest(picture) for _, picture in pictures), default=0.0)
    scaled = any(max(picture.shape) > MOST_PIXELS for _, picture in pictures[:MOST_PICTURES])
    largest = " Of larger tensors each pixel is the largest entry in its place." if scaled else ""
    st.html(
        '<p class="fl-quiet fl-wide">The direction in weight space, one picture per tensor: rows are what a weight leads to, '
        f"columns what it comes from. All on one scale: {safe(format_value(-limit))}"
        f'<span class="fl-scale"></span>{safe(format_value(limit))}, zero in light grey.{largest}</p>'
    )
    parts = []
    for name, picture in pictures[:MOST_PICTURES]:
        height, width = picture.shape
        scale = max(1, min(WIDEST // width, TALLEST // height, 12))
        png = diverging_png(picture, limit, scale, most=MOST_PIXELS, least=LEAST_PIXELS)
        shown = "" if scale > 1 or (width <= WIDEST and height <= TALLEST) else ' style="max-width:100%"'
        parts.append(
            f'<figure class="fl-sheet"><figcaption>{safe(name)} · {height} × {width}</figcaption>'
            f"<div{shown}>{image(png, f'Direction in {name}')}</div></figure>"
        )
    st.html(f'<div class="fl-pictures">{"".join(parts)}</div>')
    if len(pictures) > MOST_PICTURES:
        st.html(f'<p class="fl-quiet">The first {MOST_PICTURES} of {len(pictures)} tensors are drawn.</p>')
