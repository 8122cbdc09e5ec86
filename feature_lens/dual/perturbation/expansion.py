"""A trained network beside the expansion about its initial parameters: what each order says of it, and how far it is
from where the expansion holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from sklearn.metrics import r2_score

from feature_lens.dual.perturbation.derivatives import Derivatives
from feature_lens.dual.perturbation.hierarchy import Displacement, displacement
from feature_lens.dual.perturbation.linearised import Linearised
from feature_lens.dual.perturbation.schedule import Schedule
from feature_lens.dual_record import Expansion, Order
from feature_lens.errors import ExamplesError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.design import one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.kernel_comparison import relative_change
from feature_lens.networks import Network
from feature_lens.networks.network import flat
from feature_lens.predictions import targets_as

Matrix = npt.NDArray[np.float64]

ORDERS: Final = ("leading", "next", "squared")
# Examples whose derivatives are taken together.
_TILE: Final = 256
# Times of a flow that are tried for one that fits the network, in units of 1 / h of the largest eigenvalue.
_SHORTEST, _LONGEST = 1e-3, 1e5


@dataclass(frozen=True)
class ExpansionSettings:
    """What is expanded: full-batch training on the squared loss, without weight decay.

    step: 0 for gradient flow, else of descent. time: T; None takes the time of a flow after which the training loss to
    leading order is the network's own. most_side: training examples are thinned until the smaller of rows and
    parameters is at most this, since an eigenproblem of that side is solved. stages: of every step in time.
    otherwise: how the network was trained where that is none of this, in words; it is then refused.
    """

    step: float = 0.0
    time: float | None = None
    most_side: int = 1024
    stages: int = 5
    otherwise: str = ""

    def __post_init__(self) -> None:
        if self.most_side < 1:
            raise SettingsError(f"At least one row is needed for an expansion, but a side of {self.most_side} came.")
        if self.otherwise and (self.step or self.time is not None):
            raise SettingsError(
                "A network was trained by descent with a step, or otherwise, but both were said; leave one of them out."
            )
        if self.time is not None:
            Schedule(self.step, self.time)  # which refuses what is no training
        elif self.step:
            raise SettingsError(
                f"Descent with step {self.step:g} needs its number of steps, since only a flow's time is matched to the "
                "network; give it, or leave the step out."
            )


def expansion(
    network: Network, examples: Examples, settings: ExpansionSettings = ExpansionSettings()
) -> tuple[Expansion, Matrix]:
    """How the expansion does, and its orders (3, n, c) on all examples: f at theta0 + J D1, what next-to-leading order in
    1 / width adds (e1 and the reduced e2 of `hierarchy`), and what is of second order in dNTK (the rest of e2).

    Class labels are taken as one-hot targets. Raises NetworkError where theta0 is not known or higher derivatives
    cannot be taken, ExamplesError without targets, SettingsError for a step that diverges or another kind of training.
    Cost: that of `displacement` on the thinned training set, and eight chains of derivatives of all examples.
    """
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told in a sentence
        return _expansion(network, examples, settings)


def _expansion(network: Network, examples: Examples, settings: ExpansionSettings) -> tuple[Expansion, Matrix]:
    begun = begin(network, examples, settings)
    own, schedule = begun.examples, begun.schedule
    moved = displacement(begun.start, schedule, stages=settings.stages)
    orders = orders_on(network, examples, moved)
    if not np.isfinite(orders).all():
        raise SettingsError(
            f"The expansion is not finite after T = {schedule.time:g}, so it says nothing; give a shorter time."
        )
    outputs, before = network.outputs(examples), network.outputs(examples, at="initial")
    held = judged(examples)
    sums = np.cumsum(orders, axis=0)
    rates = np.sqrt(np.repeat(network.parameters.learning_rates, network.parameters.sizes))
    initial, trained = flat(network.at("initial")) / rates, flat(network.trained) / rates
    kernels = [np.asarray(EffectiveFeatures(network, own, at, "trace").gram()) for at in ("initial", "effective")]
    found = Expansion(
        step=schedule.step,
        time=schedule.time,
        matched=begun.matched,
        examples=len(own),
        kernel_change=relative_change(kernels[1], kernels[0]),
        displacement=float(np.linalg.norm(trained - initial)),
        relative_displacement=float(np.linalg.norm(trained - initial) / np.linalg.norm(initial)),
        orders=tuple(
            Order(name, size, *_scores(outputs[held], total[held]))
            for name, size, total in zip(ORDERS, sizes(orders, before, held), sums, strict=True)
        ),
    )
    return found, orders


@dataclass(frozen=True)
class Begun:
    """What an expansion begins with: the thinned training examples, their targets (n, c), and the training, with whether
    its time was matched to the network's training loss."""

    examples: Examples
    targets: Matrix
    start: Linearised
    schedule: Schedule
    matched: bool


def begin(network: Network, examples: Examples, settings: ExpansionSettings) -> Begun:
    """The training that is to be expanded; raises what `expansion` raises."""
    if settings.otherwise:
        raise SettingsError(
            "The expansion is of full-batch gradient descent or flow on the squared loss without momentum or weight decay, "
            f"but this network was trained otherwise ({settings.otherwise}); contributions, regressions and features need "
            "none of this."
        )
    n_outputs = network.check(examples)
    targets = targets_of(examples, n_outputs)
    chosen = thinned(examples.fitting, n_outputs, network.parameters.total, settings.most_side)
    own = examples.on(chosen)
    start = Linearised.of(network, own, targets[chosen])
    reached = network.outputs(own) - targets[chosen]
    if settings.time is not None:
        return Begun(own, targets[chosen], start, Schedule(settings.step, settings.time), False)
    loss = float(np.square(reached).sum() / 2)
    schedule = Schedule(time=matched_time(start, loss))
    left = float(np.square(start.left(schedule)).sum() / 2)
    return Begun(own, targets[chosen], start, schedule, math.isclose(left, loss, rel_tol=1e-3))


def sizes(orders: Matrix, before: Matrix, chosen: npt.NDArray[np.int64]) -> list[float]:
    """Root of the mean square of what each of the orders (3, n, c) adds to the outputs before training (n, c)."""
    parts = (orders[0] - before, orders[1], orders[2])
    return [float(np.sqrt(np.mean(np.square(part[chosen])))) for part in parts]


def orders_on(network: Network, examples: Examples, moved: Displacement) -> Matrix:
    """The orders of `expansion` (3, n, c) on any number of examples, some at a time."""
    parts = []
    for at in range(0, len(examples), _TILE):
        points = Derivatives(network, examples.on(np.arange(at, min(at + _TILE, len(examples)))))
        leading, first, second = moved.orders(points)
        squared = moved.squared(points)
        parts.append(np.stack([leading, first + second - squared, squared]).reshape(3, -1, points.n_outputs))
    return np.concatenate(parts, axis=1)


def thinned(positions: npt.NDArray[np.int64], c: int, p: int, most_side: int) -> npt.NDArray[np.int64]:
    """As many of the positions, evenly spread, as keep the smaller of rows and parameters at most `most_side`."""
    most = len(positions) if p <= most_side else max(1, most_side // c)
    if most >= len(positions):
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).astype(np.int64)]


def targets_of(examples: Examples, c: int) -> Matrix:
    """(n, c): one-hot labels, or real targets; raises ExamplesError where there are none."""
    made = targets_as(examples, c)
    if made is None:
        raise ExamplesError(
            f"An expansion needs targets, class labels or {c} real numbers for each example, but there are none; give "
            "them with the examples."
        )
    return made


def matched_time(start: Linearised, loss: float) -> float:
    """The time of a flow after which its training loss, 1/2 sum of squares, is `loss` to leading order; the longest
    that is tried, 1e5 / h, where that never comes down so far, and the shortest where it begins below."""
    along, rest = start.modes.T @ start.residual, float(np.square(start.outside).sum())

    def above(log_time: float) -> float:
        left = Schedule(time=math.exp(log_time)).left(start.rates) * along
        return float(np.square(left).sum() + rest) / 2 - loss

    first, last = (math.log(share / float(start.rates[-1])) for share in (_SHORTEST, _LONGEST))
    if above(first) <= 0:
        return math.exp(first)
    if above(last) >= 0:
        return math.exp(last)
    return math.exp(float(brentq(above, first, last)))


def judged(examples: Examples) -> npt.NDArray[np.int64]:
    """Held-out examples, all where there are not two."""
    training = examples.training
    if training is None or np.count_nonzero(~training) < 2:
        return np.arange(len(examples))
    return np.flatnonzero(~training)


def _scores(outputs: Matrix, made: Matrix) -> tuple[float, float | None]:
    r2 = float(r2_score(outputs, made, multioutput="variance_weighted"))
    several = outputs.shape[1] > 1
    return r2, float((outputs.argmax(axis=1) == made.argmax(axis=1)).mean()) if several else None
