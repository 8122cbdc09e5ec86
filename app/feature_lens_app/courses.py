"""Charts of what changes over the steps of a training: courses of several figures on a shared axis of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd

from feature_lens_app.charts import ACCENT

# Neutral grey for what was trained on, the accent for what was not; then colours that are told apart by anyone.
QUIET: Final = "#8A8F98"
COLOURS: Final = (ACCENT, "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
AXES: Final = {"log": "logarithmic", "linear": "linear"}


def step_axis(steps: Sequence[int], axis: str, title: str = "step of training") -> alt.X:
    """The axis of steps that all charts of a page share; the logarithmic one has room for step 0."""
    low, high = min(steps), max(steps)
    if axis == "linear":
        return alt.X("step:Q", title=title, scale=alt.Scale(domain=[low, high], nice=False))
    ticks = [tick * 10**power for power in range(9) for tick in (1, 3) if low <= tick * 10**power <= high]
    scale = alt.Scale(type="symlog", constant=1, domain=[low, high], nice=False)
    return alt.X("step:Q", title=title, scale=scale, axis=alt.Axis(values=[*([0] if low == 0 else []), *ticks]))


def courses(
    table: pd.DataFrame,
    columns: Mapping[str, str],
    x: alt.X,
    title: str,
    *,
    colours: Mapping[str, str] | None = None,
    log: bool = False,
    domain: Sequence[float] | None = None,
    mark: tuple[int, int] | None = None,
) -> Any:
    """Lines of the columns that a table has, named in the legend by their words, with a point at every step.

    log: a logarithmic axis of values; domain: its ends; mark: two steps between which the chart is shaded.
    """
    held = {column: words for column, words in columns.items() if column in table and table[column].notna().any()}
    long = table[["step", *held]].rename(columns=held).melt("step", var_name="what", value_name="value").dropna()
    if log:
        long = long[long["value"] > 0]
    named = list(held.values())
    chosen = [(colours or {}).get(column, COLOURS[place % len(COLOURS)]) for place, column in enumerate(held)]
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False, **_ends(domain))
    values = _ticks(long["value"]) if log else alt.Axis(format=".3~g", tickCount=5)
    lines = (
        alt.Chart(long)
        .mark_line(point=alt.OverlayMarkDef(size=26), clip=True)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=title, scale=scale, axis=values),
            color=alt.Color(
                "what:N",
                scale=alt.Scale(domain=named, range=chosen),
                sort=None,
                legend=alt.Legend(title=None, orient="top", labelLimit=420, columns=2),
            ),
            tooltip=["what:N", "step:Q", alt.Tooltip("value:Q", format=".4~g")],
        )
    )
    return lines if mark is None else _shaded(mark, x) + lines


def spectra(table: pd.DataFrame, steps: Sequence[int]) -> Any:
    """Eigenvalues against their number, both logarithmic, a line for each step from the earliest to the latest."""
    order = {step: place for place, step in enumerate(steps)}
    shown = table[table["eigenvalue"] > 0].assign(
        number=table["number"] + 1, order=table["step"].map(order), name=table["step"].map("{:,}".format)
    )
    return (
        alt.Chart(shown)
        .mark_line(clip=True, strokeWidth=1.6)
        .encode(
            x=alt.X("number:Q", title="number of the eigenvalue", scale=alt.Scale(type="log", nice=False)),
            y=alt.Y(
                "eigenvalue:Q",
                title="eigenvalue",
                scale=alt.Scale(type="log", nice=False),
                axis=_ticks(shown["eigenvalue"]),
            ),
            color=alt.Color(
                "name:O",
                sort=[f"{step:,}" for step in steps],
                scale=alt.Scale(scheme="viridis", reverse=True),
                legend=alt.Legend(
                    title="step",
                    orient="right",
                    symbolType="stroke",
                    symbolStrokeWidth=3,
                    rowPadding=0,
                    labelFontSize=11,
                ),
            ),
            detail="order:O",
            tooltip=[
                alt.Tooltip("name:O", title="step"),
                alt.Tooltip("number:Q", title="number"),
                alt.Tooltip("eigenvalue:Q", format=".4~g"),
            ],
        )
    )


def _ticks(values: pd.Series) -> alt.Axis:
    """Ticks of a logarithmic axis: powers of ten where there are three or more, else 1, 2 and 5 of each, else a few."""
    low, high = float(values.min()), float(values.max())
    powers = [10.0**power for power in range(-30, 31) if low <= 10.0**power <= high]
    if len(powers) >= 3:
        return alt.Axis(format="~g", values=powers[:: -(-len(powers) // 7)])
    fine = [k * 10.0**power for power in range(-30, 31) for k in (1, 2, 5) if low <= k * 10.0**power <= high]
    few = [float(f"{low * (high / low) ** (place / 3):.2g}") for place in range(4)]
    return alt.Axis(format="~g", values=fine if len(fine) >= 3 else few)


def _ends(domain: Sequence[float] | None) -> dict[str, Any]:
    return {} if domain is None else {"domain": list(domain), "nice": False}


def _shaded(mark: tuple[int, int], x: alt.X) -> Any:
    band = pd.DataFrame({"step": [mark[0]], "end": [mark[1]]})
    return alt.Chart(band).mark_rect(color="#2F6DB5", opacity=0.09).encode(x=x, x2="end:Q")
