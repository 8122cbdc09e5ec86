"""Charts of a report as SVG: curves over a logarithmic axis, a matrix of squares, a graph on a circle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.interaction_graph import Drawing
from feature_lens.analysis.report.pieces import Html, box, joined, words
from feature_lens.analysis.tiles import ACCENT, INK, LINE, MUTED

_GREY = "#8A8F98"


@dataclass(frozen=True)
class Curve:
    """Points (x, y) of one line, with its name, colour, and whether it is dashed."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False


def _svg(width: float, height: float, alternative: str, parts: Sequence[str]) -> Html:
    named = escape(alternative, quote=True)
    return Html(f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{named}">' + "".join(parts) + "</svg>")


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = MUTED, size: float = 9) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size:g}">{escape(text)}</text>'


def _line(x: float, y: float, x2: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:.2f}" '
        'stroke-linecap="round"/>'
    )


def curves(lines: Sequence[Curve], x_title: str, y_title: str, width: float = 680, height: float = 195) -> Html:
    """Curves over a logarithmic x axis from 1 and a y axis up to 1, cut off below -0.1, with a legend above."""
    left, right, top, bottom = 34.0, 8.0, 8.0, 30.0
    most = max(x for line in lines for x, _ in line.points)
    least = max(-0.1, min(0.0, *(y for line in lines for _, y in line.points)))
    inner, tall = width - left - right, height - top - bottom

    def across(x: float) -> float:
        return left + inner * math.log(x) / max(math.log(most), 1e-9)

    def up(y: float) -> float:
        return top + tall * (1 - (max(y, least) - least) / (1 - least))

    parts = []
    for step in range(6):
        y = up(step / 5)
        parts += [_line(left, y, width - right, y, LINE, 0.5), _text(left - 5, y + 3, f"{step / 5:.1f}", "end")]
    for power in range(int(math.log10(most)) + 1):
        x = across(10.0**power)
        parts += [_line(x, top, x, top + tall, LINE, 0.5), _text(x, top + tall + 12, f"{10**power:,}")]
    parts.append(_text(left + inner / 2, height - 5, x_title))
    parts.append(
        f'<text transform="rotate(-90)" x="{-(top + tall / 2):.1f}" y="9" text-anchor="middle" fill="{MUTED}" '
        f'font-size="9">{escape(y_title)}</text>'
    )
    legend = []
    for line in lines:
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{path}" {_stroke(line)}/>')
        key = f'<svg viewBox="0 0 28 8"><polyline points="0,4 28,4" {_stroke(line)}/></svg>'
        legend.append(box("key", Html(key), words(line.name, tag="span"), tag="span"))
    return joined(box("legend", *legend), _svg(width, height, f"{y_title} against {x_title}", parts))


def _stroke(line: Curve) -> str:
    dash = ' stroke-dasharray="5 3"' if line.dashed else ""
    return f'fill="none" stroke="{line.colour}" stroke-width="1.6" stroke-linejoin="round"{dash}'


def bars(names: Sequence[str], values: Sequence[float], texts: Sequence[str], width: float = 330) -> Html:
    """Horizontal bars from zero, each with its name before it and its figure behind."""
    step, before, after = 16.0, 110.0, 52.0
    most = max([*values, 0.0]) or 1.0
    parts = []
    for place, (name, value, text) in enumerate(zip(names, values, texts, strict=True)):
        y = place * step
        long = (width - before - after) * value / most
        parts.append(_text(before - 6, y + 11, name, "end", INK))
        parts.append(f'<rect x="{before:g}" y="{y + 3:.1f}" width="{long:.1f}" height="10" fill="{ACCENT}"/>')
        parts.append(_text(before + long + 5, y + 11, text, "start"))
    return _svg(width, step * len(names), "Bars: " + ", ".join(map(" ".join, zip(names, texts, strict=True))), parts)


def matrix(sizes: npt.NDArray[np.float64], width: float = 250) -> Html:
    """Squares of a symmetric matrix of sizes, white at zero and the accent colour at its largest entry."""
    k, left = len(sizes), 18.0
    side = (width - left) / k
    most = float(sizes.max()) or 1.0
    parts = []
    for row in range(k):
        parts.append(_text(left - 5, (row + 0.5) * side + 3, str(row), "end", size=7))
        parts.append(_text(left + (row + 0.5) * side, k * side + 9, str(row), size=7))
        parts += [
            f'<rect x="{left + column * side:.1f}" y="{row * side:.1f}" width="{side - 0.6:.1f}" '
            f'height="{side - 0.6:.1f}" fill="{ACCENT}" fill-opacity="{0.03 + 0.97 * sizes[row, column] / most:.3f}"/>'
            for column in range(k)
        ]
    return _svg(width, k * side + 12, f"Sizes of the interactions of {k} features", parts)


def graph(drawing: Drawing, width: float = 250) -> Html:
    """Nodes on a circle, and edges as wide as their size; nodes without an edge are grey."""
    middle, radius = width / 2, width / 2 - 14
    most = max([*drawing.edges["size"].tolist(), 1e-30])
    parts = []
    for x, y, x2, y2, size in drawing.edges[["x", "y", "x2", "y2", "size"]].to_numpy(dtype=np.float64).tolist():
        ends = (middle + radius * x, middle - radius * y, middle + radius * x2, middle - radius * y2)
        parts.append(_line(*ends, "#9DB9DC", 6 * size / most))
    for node, x, y, degree in drawing.nodes.itertuples(index=False, name=None):
        at = middle + radius * x, middle - radius * y
        parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="9" fill="{ACCENT if degree else _GREY}"/>')
        parts.append(_text(at[0], at[1] + 3, str(node), colour="#FFFFFF"))
    named = [f"{one} with {other}" for one, other in zip(drawing.edges["feature"], drawing.edges["other"], strict=True)]
    return _svg(width, width, "Interactions above the null: " + (", ".join(named) or "none"), parts)
