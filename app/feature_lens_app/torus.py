"""One feature on all pairs at once, for runs whose examples are pairs: a picture with a row and a column for each."""

from __future__ import annotations

import streamlit as st

from feature_lens.analysis.render import diverging_png, format_value
from feature_lens.analysis.run import Run
from feature_lens.analysis.torus import torus_view
from feature_lens.feature_set import FeatureSet
from feature_lens_app.views import head, image
from feature_lens_app.words import safe

WIDEST = 420


def show_torus(run: Run, feature_set: FeatureSet, feature: int, view: str) -> None:
    """The picture, its scale, and which waves it is made of; nothing for examples that are no pairs."""
    found = torus_view(run, feature_set.name, feature, view)
    if found is None:
        return
    limit = found.limit
    rows, columns = found.picture.shape
    scale = max(1, min(14, WIDEST // max(rows, columns)))
    head("On all pairs")
    st.html(
        '<p class="fl-quiet fl-wide">The first of each pair downwards from 0, the second to the right. '
        f'{safe(format_value(-limit))}<span class="fl-scale"></span>{safe(format_value(limit))}, zero in light grey.'
        f"<br>{safe(found.sentence)}</p>"
    )
    drawn = [("residues in their order", found.picture)]
    if found.in_steps is not None:
        drawn.append(
            (f"residues in steps of {found.steps}: 0, {found.steps}, {2 * found.steps % rows}, ...", found.in_steps)
        )
    parts = []
    for title, picture in drawn:
        png = diverging_png(picture, limit, scale)
        alt = f"Feature {feature} on all pairs, {title}. {found.sentence}"
        parts.append(f'<figure class="fl-sheet"><figcaption>{safe(title)}</figcaption>{image(png, alt)}</figure>')
    st.html(f'<div class="fl-pictures">{"".join(parts)}</div>')
