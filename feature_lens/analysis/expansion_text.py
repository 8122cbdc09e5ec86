"""The expansion about the initial parameters in plain words."""

from __future__ import annotations

from typing import Final

import pandas as pd

from feature_lens.dual_record import Expansion

ORDER_NAMES: Final = {
    "leading": "leading order: the initial kernel",
    "next": "and dNTK, to first order",
    "second": "and ddNTK and dNTK twice, to second order",
}
LIMITS: Final = (
    "The expansion is of full-batch gradient descent or flow on the squared loss, without momentum or weight decay, about "
    "the initial parameters; a network trained otherwise is compared with that training, not with its own. "
    "Contributions, regressions and features need none of this."
)
# Sizes of the terms after the leading one, relative to it, up to which the expansion is said to hold, and to break down.
_HOLDS, _FAILS = 0.3, 1.0


def order_table(expansion: Expansion) -> pd.DataFrame:
    """One row per order: name, words, size, r2, agreement of the sum up to it."""
    rows = [
        {"order": one.name, "words": ORDER_NAMES[one.name], "size": one.size, "r2": one.r2, "agreement": one.agreement}
        for one in expansion.orders
    ]
    return pd.DataFrame(rows)


def verdict_on(expansion: Expansion) -> str:
    """In one sentence whether the expansion holds for this network, with the figures that say so."""
    leading, *others = (one.size for one in expansion.orders)
    ratios = [size / leading if leading else 0.0 for size in others]
    figures = f"the terms of first and of second order are {_times(ratios[0])} and {_times(ratios[1])} as large as the leading one"
    changed = f"the kernel changed by {expansion.kernel_change:.0%} in training"
    if max(ratios) <= _HOLDS:
        return f"The network is where the expansion holds: {figures}, and {changed}."
    if max(ratios) < _FAILS:
        return f"The network is at the edge of where the expansion holds: {figures}, and {changed}."
    return f"The network is far from where the expansion holds: {figures}, and {changed}, so its features were learnt beyond it."


def training_of(expansion: Expansion) -> str:
    """The training that was expanded, in words."""
    if expansion.step:
        how = f"gradient descent, {expansion.time:,.0f} steps of {expansion.step:g}"
    else:
        how = f"gradient flow for a time of {expansion.time:.4g}"
    fitted = ", after which the training loss to leading order is the network's own" if expansion.matched else ""
    return f"{how[0].upper()}{how[1:]} on {expansion.examples:,} training examples{fitted}."


def best_order(expansion: Expansion) -> str:
    """In one sentence which order says most of the network on held-out examples."""
    best = max(expansion.orders, key=lambda one: one.r2)
    others = ", ".join(f"{_r2(one.r2)} to the {one.name}" for one in expansion.orders if one is not best)
    return (
        f"The sum up to the {best.name} order is nearest to the network on held-out examples: R2 {_r2(best.r2)} to its "
        f"outputs, against {others}."
    )


def _r2(value: float) -> str:
    return f"{value:.3f}" if value >= -1 else "below -1"


def _times(ratio: float) -> str:
    return f"{ratio:.2g} times" if ratio >= 0.01 else "less than 0.01 times"
