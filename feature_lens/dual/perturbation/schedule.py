"""The training that an expansion is of, and the same training carried out on the real network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import solve_ivp

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.networks import Network
from feature_lens.networks.network import Params
from feature_lens.networks.passes import one_pass

Vector = npt.NDArray[np.float64]

# A mode of the residual counts as trained when this is left of it.
_NOTHING: Final = 1e-17
_MOST_STEPS: Final = 1_000_000
# Times beyond it, and below its inverse, are told apart from infinity and 0 by no network in floating point.
_LONGEST: Final = 1e12


@dataclass(frozen=True)
class Schedule:
    """Full-batch training on 1/2 sum (f - y)^2, without weight decay or momentum.

    step: 0 for gradient flow, eta for gradient descent. time: T, the time of a flow or the number of steps of descent;
    infinity trains to the end. Raises SettingsError for what is neither.
    """

    step: float = 0.0
    time: float = math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step >= 0):
            raise SettingsError(f"A step is a positive number, or 0 for gradient flow, but {self.step} came.")
        if math.isnan(self.time) or self.time < 0:
            raise SettingsError(f"Training takes a time of 0 or more, but {self.time} came; give such a number.")
        if not (self.time in (0, math.inf) or 1 / _LONGEST <= self.time <= _LONGEST):
            raise SettingsError(
                f"A time is 0, infinite, or between {1 / _LONGEST:g} and {_LONGEST:g}, but {self.time} came; give one that "
                "is told apart from these."
            )
        if self.step and math.isfinite(self.time) and self.time != int(self.time):
            raise SettingsError(f"Descent takes a whole number of steps, but {self.time} came; round it.")
        if self.step and _MOST_STEPS < self.time < math.inf:
            raise SettingsError(
                f"Descent is followed for at most {_MOST_STEPS:,} steps, one by one, but {self.time:g} came; give a flow of the "
                "time that they take together, step 0."
            )

    @property
    def is_flow(self) -> bool:
        return self.step == 0

    @property
    def ends(self) -> bool:
        """Whether T is finite."""
        return math.isfinite(self.time)

    def left(self, rates: Vector, time: float | None = None) -> Vector:
        """What is left of modes of the residual, eigenvalues h of the kernel, after T to leading order."""
        t = self.time if time is None else time
        if self.is_flow:
            made: Vector = np.exp(-rates * t)
        else:
            made = np.asarray((1 - self.step * rates) ** t)
        return made

    def gone(self, rates: Vector, time: float | None = None) -> Vector:
        """The integral of what is left up to T: (1 - left) / h, T itself (or step T) where h is 0."""
        t = self.time if time is None else time
        if math.isinf(t):
            return 1 / rates
        if self.is_flow:
            whole, missing = t, -np.expm1(-rates * t)
        else:
            whole, missing = self.step * t, 1 - self.left(rates, t)
        tiny = np.abs(rates) * whole < 1e-12
        made: Vector = np.where(tiny, whole, missing / np.where(tiny, 1.0, rates))
        return made

    def finite(self, rates: Vector) -> float:
        """T, or one after which nothing is left of any mode. Raises SettingsError where that takes too long."""
        if self.ends:
            return self.time
        if self.is_flow:
            return float(-math.log(_NOTHING) / rates.min())
        slowest = float(np.abs(1 - self.step * rates).max())
        steps = 1.0 if slowest == 0 else math.ceil(math.log(_NOTHING) / math.log(slowest))
        if steps > _MOST_STEPS:
            raise SettingsError(
                f"Descent to the end takes {steps:,} steps of {self.step:g} here, above {_MOST_STEPS:,}; give a number "
                "of steps, a larger step, or gradient flow."
            )
        return float(steps)


def train(
    network: Network,
    examples: Examples,
    targets: Vector,
    training: Schedule,
    *,
    alpha: float = 1.0,
    tolerance: float = 1e-10,
) -> Params:
    """Parameters after a training that ends, from theta0, by the real network, in float64.

    targets (n, c). Flow by an explicit Runge-Kutta method of order 8 to the relative and absolute `tolerance`.
    alpha: trains f(theta0) + alpha (f(theta0 + (theta - theta0) / alpha) - f(theta0)) instead, whose derivatives of
    order k are alpha^(1-k) times those of f: a network as if it were wider. Cost: a forward and backward pass per
    step, or about 2 h T of them for a flow, h the largest eigenvalue of the kernel; some 20 p numbers.
    """
    if not training.ends:
        raise SettingsError("The real network is trained for a time that ends, but T is infinite; give a finite one.")
    gradient, split, start = _gradient(network, examples, targets, alpha)
    if training.time == 0:
        return split(start)
    with one_pass():
        if training.is_flow:
            found = solve_ivp(
                lambda _, theta: -gradient(theta),
                (0.0, training.time),
                start,
                method="DOP853",
                t_eval=[training.time],
                rtol=tolerance,
                atol=tolerance,
            )
            if not found.success:
                raise SettingsError(
                    f"The flow could not be followed to T = {training.time:g} ({found.message}); give a shorter time or a "
                    "larger tolerance."
                )
            theta = found.y[:, -1]
        else:
            theta = start
            for _ in range(int(training.time)):
                theta = theta - training.step * gradient(theta)
    if not np.isfinite(theta).all():
        raise SettingsError(f"The network diverged under descent with step {training.step:g}; give a smaller step.")
    return split(theta)


def outputs_after(network: Network, params: Params, examples: Examples, alpha: float = 1.0) -> npt.NDArray[np.float64]:
    """Outputs (n, c) of the network, or of its `alpha` version, at parameters that `train` gave."""
    start = network.at("initial")
    moved = {name: start[name] + (params[name] - start[name]) / alpha for name in params}
    before = network.outputs_at(start, examples)
    made: npt.NDArray[np.float64] = before + alpha * (network.outputs_at(moved, examples) - before)
    return made


def thetahat_of(network: Network) -> tuple[list[torch.Tensor], Callable[[], Params]]:
    """Leaves thetahat at theta0, tensor by tensor, and the parameters theta = sqrt(lambda) thetahat that they make."""
    initial, rates = network.at("initial"), network.parameters.learning_rates
    leaves = [
        (value / rate**0.5).clone().requires_grad_(True) for value, rate in zip(initial.values(), rates, strict=True)
    ]

    def params() -> Params:
        return {name: leaf * rate**0.5 for name, leaf, rate in zip(initial, leaves, rates, strict=True)}

    return leaves, params


def _gradient(
    network: Network, examples: Examples, targets: Vector, alpha: float
) -> tuple[Callable[[Vector], Vector], Callable[[Vector], Params], Vector]:
    """The gradient of the loss as a function of thetahat (p,), theta = sqrt(lambda) thetahat, how to read theta from
    it, and where it starts."""
    table = network.parameters
    scale = np.sqrt(np.repeat(table.learning_rates, table.sizes))
    initial = network.at("initial")
    start = np.concatenate([value.double().numpy().ravel() for value in initial.values()])
    inputs, wanted = network.tensor(np.asarray(examples.inputs[:])), torch.as_tensor(targets, dtype=network.dtype)
    with torch.no_grad():
        before = network(initial, inputs)

    def split(thetahat: Vector) -> Params:
        theta = torch.as_tensor(scale * thetahat, dtype=network.dtype)
        return {name: theta[at].reshape(shape) for (name, at), shape in zip(table.slices, table.shapes, strict=True)}

    def gradient(thetahat: Vector) -> Vector:
        moved = split(start / scale + (thetahat - start / scale) / alpha)
        leaves = {name: value.requires_grad_(True) for name, value in moved.items()}
        outputs = before + alpha * (network(leaves, inputs) - before)
        loss = (outputs - wanted.reshape(outputs.shape)).square().sum() / 2
        grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        # The point moves by 1 / alpha of what thetahat does.
        made: Vector = scale / alpha * np.concatenate([grad.double().numpy().ravel() for grad in grads])
        return made

    return gradient, split, start / scale
