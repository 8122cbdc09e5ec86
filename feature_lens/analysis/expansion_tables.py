"""The expansion of a run about its initial parameters, in tables and plain words."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.dual_tables import dual_of
from feature_lens.dual_record import KERNELS, Expansion
from feature_lens.errors import SettingsError
from feature_lens.run_contents import RunContents

ORDER_NAMES: Final = {
    "leading": "leading order: the initial kernel",
    "next": "next-to-leading order: with dNTK and ddNTK",
    "squared": "and with terms of second order in dNTK",
}
LIMITS: Final = (
    "The expansion is of full-batch gradient descent or flow on the squared loss, without momentum or weight decay, about "
    "the initial parameters; a network trained otherwise is compared with that training, not with its own. "
    "Contributions, regressions and features need none of this."
)
_UP_TO: Final = {
    "leading": "to leading order",
    "next": "to next-to-leading order",
    "squared": "with second order in dNTK",
}
# Sizes of the terms after the leading one, relative to it, up to which the expansion is said to hold, and to break down;
# how much the network's kernel may have changed, and how much of its outputs the expansion must say, to hold for it too.
_HOLDS, _FAILS = 0.3, 1.0
_CHANGED, _SAID = 0.3, 0.9


def expansion_of(run: RunContents) -> Expansion:
    """The run's expansion; raises SettingsError where there is none."""
    if run.dual is None or run.dual.expansion is None:
        raise SettingsError(
            "This run holds no expansion about the initial parameters; extract it with --dual, --initial and targets."
        )
    return run.dual.expansion


def order_table(expansion: Expansion) -> pd.DataFrame:
    """One row per order: name, words, size, r2, agreement of the sum up to it."""
    rows = [
        {"order": one.name, "words": ORDER_NAMES[one.name], "size": one.size, "r2": one.r2, "agreement": one.agreement}
        for one in expansion.orders
    ]
    return pd.DataFrame(rows)


def verdict_on(expansion: Expansion) -> str:
    """In one sentence whether the expansion holds for the training it is of, and for the network, with the figures that
    say so."""
    leading, *others = (one.size for one in expansion.orders)
    ratios = [size / leading if leading else math.inf for size in others]
    figures = (
        f"the next-to-leading terms are {_times(ratios[0])} as large as the leading ones, those of second order in dNTK "
        f"{_times(ratios[1])}"
    )
    changed = f"its kernel changed by {_changed(expansion.kernel_change)} and its parameters moved by "
    changed += f"{expansion.displacement:.3g}, {expansion.relative_displacement:.2g} times their size"
    if max(ratios) >= _FAILS:
        return f"The network is far from where the expansion holds: {figures}; {changed}, so its features were learnt beyond it."
    reaches = "holds for" if max(ratios) <= _HOLDS else "is at the edge of where it holds for"
    best = max(one.r2 for one in expansion.orders)
    if expansion.kernel_change <= _CHANGED and best >= _SAID:
        return f"The expansion {reaches} this network: {figures}; {changed}."
    return (
        f"The expansion {reaches} the training it is of ({figures}), but the network is not what that training gives: "
        f"{changed}, and R2 to its outputs is {_r2(best)} at best."
    )


def _changed(share: float) -> str:
    return f"{share:.2g} times its size" if share >= 2 else f"{share:.0%}"


def training_of(expansion: Expansion) -> str:
    """The training that was expanded, in words."""
    if expansion.step:
        steps = f"{expansion.time:,.0f} steps" if math.isfinite(expansion.time) else "to the end, in steps"
        how = f"gradient descent, {steps} of {expansion.step:g}"
    else:
        how = "gradient flow " + (
            f"for a time of {expansion.time:.4g}" if math.isfinite(expansion.time) else "to the end"
        )
    fitted = ", after which the training loss to leading order is the network's own" if expansion.matched else ""
    return f"{how[0].upper()}{how[1:]} on {expansion.examples:,} training examples{fitted}."


def best_order(expansion: Expansion) -> str:
    """In one sentence which order says most of the network on held-out examples."""
    best = max(expansion.orders, key=lambda one: one.r2)
    others = ", ".join(f"{_r2(one.r2)} {_UP_TO[one.name]}" for one in expansion.orders if one is not best)
    return (
        f"Nearest to the network on held-out examples is the expansion {_UP_TO[best.name]}: R2 {_r2(best.r2)} to its "
        f"outputs, against {others}."
    )


def _r2(value: float) -> str:
    return f"{value:.3f}" if value >= -1 else "below -1"


def course_sentence(course: pd.DataFrame, matched: bool) -> str:
    """In one sentence up to when the expansion holds along a flow: the last time before its next-to-leading terms
    pass 0.3 of the leading ones, from the rows of a course; `matched` says that it ends at the network's own loss."""
    small = course["next"] <= _HOLDS * course["leading"]
    last = f"{course['loss'].iloc[-1]:.2g}"
    end = f"the network's own is {last}" if matched else f"at the end of the flow it is {last}"
    if small.all():
        return f"Its later terms stay small for all of the flow, whose training loss falls to {last} times the initial one."
    first = int((~small).to_numpy().argmax())
    at = max(first - 1, 0)
    when = f"a time of about {course['time'][at]:.3g}, when the training loss to leading order is {course['loss'][at]:.2g} times the initial one"
    if first == 0:
        return f"Its later terms are not small even at {when}; {end}."
    return f"Its later terms stay small up to {when}; {end}."


def _times(ratio: float) -> str:
    if ratio < 0.01:
        return "less than 0.01 times"
    return f"{ratio:.2g} times" if ratio < 10 else f"{ratio:,.0f} times"


def expansion_beside(run: RunContents) -> pd.DataFrame:
    """One row per way to the network's outputs, held out: words, r2, agreement. The orders of the expansion, and the
    regressions on labels of the initial and effective kernels, summed over outputs."""
    expansion = expansion_of(run)
    rows = [(ORDER_NAMES[one.name], one.r2, one.agreement) for one in expansion.orders]
    rows += [
        (
            f"regression: {KERNELS[one.kernel]}" + (", expanded about it" if one.form == "expanded" else ""),
            one.r2,
            one.agreement,
        )
        for one in dual_of(run).fidelities
        if one.target == "labels" and one.reduction == "trace" and one.kernel in ("initial", "effective")
    ]
    return pd.DataFrame(rows, columns=["words", "r2", "agreement"])


def expansion_points(run: RunContents, output: int, most: int = 400) -> pd.DataFrame:
    """Held-out examples (all where there are not two), at most `most` evenly spread: position, the network's output, and what the expansion says to
    each order, as running sums."""
    expansion_of(run)
    training = run.examples.training
    held = (
        np.arange(len(run.examples))
        if training is None or np.count_nonzero(~training) < 2
        else np.flatnonzero(~training)
    )
    held = held[np.linspace(0, len(held) - 1, min(most, len(held))).astype(np.int64)]
    table = pd.DataFrame({"position": held, "network": np.asarray(run.outputs[held, output], dtype=np.float64)})
    for name, values in zip(ORDER_NAMES, expansion_sums(run, held), strict=True):
        table[name] = values[:, output]
    return table


def expansion_sums(run: RunContents, positions: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Outputs (3, m, c) of some examples by the expansion, to each order."""
    expansion_of(run)
    columns = dual_of(run).columns
    parts = [np.asarray(columns[f"expansion/{name}"][positions], dtype=np.float64) for name in ORDER_NAMES]
    made: npt.NDArray[np.float64] = np.cumsum(parts, axis=0)
    return made
