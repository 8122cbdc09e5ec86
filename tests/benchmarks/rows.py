"""The rows of the comparison, and the table that they make."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One task for us and one peer. `theirs` where the peer's task has another name; `options` go to both.

    asked: what is aimed at, times faster and eigenvalue error. warm: examples of the first, untimed request.
    """

    task: str
    net: str
    n: int
    peer: str
    asked: str = ""
    theirs: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    their_options: Mapping[str, Any] = field(default_factory=dict)
    warm: int = 16
    label: str = ""

    @property
    def name(self) -> str:
        return "-".join((self.task, self.net, str(self.n), *([self.label] if self.label else [])))

    @property
    def id(self) -> str:
        return f"{self.name}-{self.peer}"


_EIGEN = {"k": 32}
# Products in float32 and Lanczos in float64: the quickest way to the accuracy asked for; 1e-2 misses it by far, and
# Lanczos in float32 gets no further than 2e-6.
_ARPACK = {"tolerance": 1e-3, "batch": 2000, "products": "float32"}
# We give both ends; the peer gives the highest alone, or both.
_BEST = {"keep": 16, "ends": 1}
_BOTH = {"keep": 16, "ends": 2}

ROWS = [
    *(Row("full", "mlp", 2000, peer, ">= 5") for peer in ("neural-tangents", "vivit")),
    *(Row("full", "digits", 1797, peer, ">= 9") for peer in ("neural-tangents", "vivit")),
    *(Row("full", "cnn", 300, peer, ">= 2.5") for peer in ("neural-tangents", "vivit")),
    Row("full", "decoder", 80, "neural-tangents", ">= 4", warm=4),
    Row("full", "mlp", 200, "torch.func", ">= 500"),
    Row("trace", "mlp", 2000, "neural-tangents", ">= 2.5"),
    Row("trace", "cnn", 200, "neural-tangents", ">= 2.5"),
    Row("trace", "decoder", 80, "neural-tangents", ">= 2.5", warm=4),
    Row(
        "leading",
        "mlp",
        2000,
        "curvlinops",
        ">= 2, <= 1e-6",
        options=_EIGEN,
        their_options=_ARPACK,
    ),
    Row(
        "leading",
        "digits",
        1797,
        "curvlinops",
        ">= 1.2, <= 1e-6",
        options=_EIGEN,
        their_options=_ARPACK,
    ),
    *(
        Row("best_examples", "mlp", 2000, "torch.func", asked, options={**ends, "output": output}, label=label)
        for output, asked, words in (("output:0", ">= 15", "one"), ("largest", ">= 50", "largest"))
        for ends, label in ((_BEST, words), (_BOTH, f"{words}-both-ends"))
    ),
]
# Kernels whole, against a float64 Jacobian, in both precisions.
AGREEMENT = [
    Row(
        "full", net, n, "torch.func", theirs="full_reference", options={"precision": precision}, label=precision, warm=4
    )
    for net, n in (("mlp", 60), ("digits", 200), ("cnn", 40), ("decoder", 6))
    for precision in ("float32", "float64")
]


@dataclass(frozen=True)
class Line:
    """One line of the table; what a contestant could not do stands in `agreement`."""

    task: str
    ours: str = ""
    peer: str = ""
    theirs: str = ""
    ratio: str = ""
    asked: str = ""
    memory: str = ""
    agreement: str = ""


HEADS = Line("task", "ours s", "peer", "peer s", "ratio", "asked", "peak RSS, ours / peer", "agreement")
_WIDTHS = (30, 7, 19, 7, 7, 16, 22, 0)


def seconds(times: list[float]) -> str:
    return f"{statistics.median(times):.3g}"


def ratio(ours: list[float], theirs: list[float]) -> str:
    """The median of the ratios of pairs: how many times longer the peer takes."""
    return f"{statistics.median(b / a for a, b in zip(ours, theirs, strict=True)):.3g}"


def text(line: Line) -> str:
    """One line in columns of fixed widths, so that each can be printed as soon as it is known."""
    return " ".join(cell.ljust(width) for cell, width in zip(vars(line).values(), _WIDTHS, strict=True)).rstrip()
