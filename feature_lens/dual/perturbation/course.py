"""How the expansion of one network fares as training goes on, beside the same training of the real network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from feature_lens.dual.perturbation.expansion import ORDERS, ExpansionSettings, begin, judged, orders_on, sizes
from feature_lens.dual.perturbation.hierarchy import displacement
from feature_lens.dual.perturbation.schedule import outputs_after, train
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.design import one_thread
from feature_lens.networks import Network

# The real flow is followed up to this many times 1 / h of the kernel's largest eigenvalue: it takes twice as many passes.
_FOLLOWED: Final = 300.0
_TOLERANCE: Final = 1e-4
_RATIO: Final = 4.0


def expansion_course(
    network: Network,
    examples: Examples,
    settings: ExpansionSettings | None = None,
    points: int = 8,
    progress: Callable[[Iterable[float]], Iterable[float]] = lambda times: times,
) -> pd.DataFrame:
    """One row for each of some times of a flow, each 4 times the one before, up to that of `settings`.

    time; loss, the training loss to leading order as a share of the initial one; size of what each order adds on
    held-out examples, "leading", "next", "squared"; and the error of the sum up to each against the real network after
    the same flow, "error_leading" and so on, relative to what that training added; NaN where the real flow would take
    too long. Raises what `expansion` raises. Cost: that of `displacement` for every time, and some 1,000 passes.
    """
    settings = settings or ExpansionSettings()
    with one_thread():
        begun = begin(network, examples, settings)
        if not begun.schedule.is_flow or not 0 < begun.schedule.time < math.inf:
            raise SettingsError(
                f"A course is that of a flow for a time above 0 that ends, but T = {begun.schedule.time:g} with step "
                f"{begun.schedule.step:g} came; leave the step out, or give another time."
            )
        held = judged(examples)
        shown = examples.on(held)
        before = network.outputs(shown, at="initial")
        first = float(np.square(begun.start.residual).sum())
        rows = []
        for time in progress([begun.schedule.time / _RATIO**back for back in reversed(range(points))]):
            schedule = replace(begun.schedule, time=time)
            orders = orders_on(network, shown, displacement(begun.start, schedule, stages=settings.stages))
            row = {"time": time, "loss": float(np.square(begun.start.left(schedule)).sum()) / first}
            row |= dict(zip(ORDERS, sizes(orders, before, np.arange(len(shown))), strict=True))
            errors = [float("nan")] * len(ORDERS)
            if time * float(begun.start.rates[-1]) <= _FOLLOWED:
                params = train(network, begun.examples, begun.targets, schedule, tolerance=_TOLERANCE)
                real = outputs_after(network, params, shown)
                added = np.linalg.norm(real - before)
                errors = [float(np.linalg.norm(total - real) / added) for total in np.cumsum(orders, axis=0)]
            rows.append(row | {f"error_{name}": error for name, error in zip(ORDERS, errors, strict=True)})
    return pd.DataFrame(rows)
