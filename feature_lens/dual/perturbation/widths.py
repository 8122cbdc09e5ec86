"""How the error of each order falls with the width of a network: networks trained for real, beside what is predicted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from feature_lens.dual.perturbation.derivatives import Derivatives
from feature_lens.dual.perturbation.hierarchy import displacement
from feature_lens.dual.perturbation.linearised import Linearised
from feature_lens.dual.perturbation.schedule import Schedule, outputs_after, train
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.design import one_thread
from feature_lens.networks import Network
from feature_lens.processes import WorkerProcesses

Matrix = npt.NDArray[np.float64]
Row = tuple[int, int, int, int, str, float]
Progress = Callable[[Iterable[list[Row]], int], Iterable[list[Row]]]

# What is predicted, and by which terms of the expansion.
PREDICTIONS: Final = {
    "initial": "the network before training",
    "leading": "kernel prediction: the initial kernel, as at infinite width",
    "dntk": "with dNTK to first order",
    "next": "next-to-leading order: with dNTK and ddNTK to first order, the closed form",
    "second": "all terms of second order in training's higher derivatives",
}
_INPUTS, _TRAIN, _TEST = 4, 6, 16
# Points in time of a flow's step, and the tolerance of the real one: both far below the errors that are measured.
_STAGES, _TOLERANCE = 5, 1e-9
# Beyond these a study takes more memory, or more days, than there are.
_WIDEST, _DEEPEST, _MOST_SEEDS, _LONGEST = 65_536, 100, 10_000, 1_000


@dataclass(frozen=True)
class WidthSettings:
    """depths: hidden layers; seeds: networks of each shape, initialised apart; time: T of gradient flow; workers: networks
    that are trained at a time, in processes of their own where there are several."""

    widths: tuple[int, ...] = (32, 128, 512, 2048)
    depths: tuple[int, ...] = (1, 2, 3)
    seeds: int = 3
    time: float = 3.0
    workers: int = 1

    def __post_init__(self) -> None:
        for what, values in (
            ("width", self.widths),
            ("depth", self.depths),
            ("number of seeds", (self.seeds,)),
            ("number of workers", (self.workers,)),
        ):
            if not values or min(values) < 1 or len(set(values)) < len(values):
                came = ", ".join(map(str, values)) or "none"
                raise SettingsError(f"Each {what} is a number of at least 1, and named once, but {came} came.")
        for what, most, value in (
            ("width", _WIDEST, max(self.widths)),
            ("depth", _DEEPEST, max(self.depths)),
            ("number of seeds", _MOST_SEEDS, self.seeds),
        ):
            if value > most:
                raise SettingsError(f"Each {what} is at most {most:,}, but {value} came; give a smaller one.")
        Schedule(time=self.time)
        if not 0 < self.time <= _LONGEST:
            raise SettingsError(
                f"Networks are trained for a time above 0, at most {_LONGEST:,} since each takes passes in proportion, but "
                f"{self.time} came; give such a time."
            )


def width_study(
    settings: WidthSettings = WidthSettings(), progress: Progress = lambda found, _total: found
) -> pd.DataFrame:
    """One row for each depth, width, seed and prediction: `error`, the root of the mean squared distance to the trained
    network's outputs on 16 test points, relative to what training added there; and `parameters`.

    The task: 6 training points on the sphere in 4 dimensions, one smooth target, tanh networks with weights of variance
    1 / fan_in and learning rates by PDLT's scaling, gradient flow for time T. Cost: that of `train` and `displacement`;
    some 90 vectors of length p for every worker (6 GB at three hidden layers of width 2,048, and minutes).
    """
    # The widest first, so that no worker is left alone with it.
    shapes = list(itertools.product(settings.depths, sorted(settings.widths, reverse=True), range(settings.seeds)))
    of_one = partial(_errors, time=settings.time)
    if settings.workers == 1:
        found = list(progress(map(of_one, shapes), len(shapes)))
    else:
        with WorkerProcesses(min(settings.workers, len(shapes)), lasting=True) as pool:
            found = list(progress(pool.map(of_one, shapes), len(shapes)))
    table = pd.DataFrame(
        itertools.chain.from_iterable(found),
        columns=["depth", "width", "seed", "parameters", "prediction", "error"],
    )
    return table.sort_values(["depth", "width", "seed"], kind="stable", ignore_index=True)


def slopes(errors: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds, and the slope of log error against log width: depth, prediction, slope, and an `error` for each width. A slope
    of -1 is an error that falls as 1 / width. NaN for a single width."""
    medians = errors.groupby(["depth", "prediction", "width"], sort=False)["error"].median().unstack("width")
    widths = np.log(medians.columns.to_numpy(dtype=float))
    table = medians.rename(columns=lambda width: f"error at {width}")
    fitted = [np.polyfit(widths, np.log(row), 1)[0] if len(widths) > 1 else np.nan for row in medians.to_numpy()]
    table.insert(0, "slope", fitted)
    return table.reset_index()


def network_of(depth: int, width: int, seed: int) -> Network:
    """An untrained tanh network of 4 inputs and one output, weights N(0, 1 / fan_in), biases zero, with PDLT's rates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[torch.nn.Module] = []
        sizes = [_INPUTS, *[width] * depth, 1]
        for fan_in, fan_out in itertools.pairwise(sizes):
            linear = torch.nn.Linear(fan_in, fan_out, dtype=torch.float64)
            torch.nn.init.normal_(linear.weight, std=fan_in**-0.5)
            torch.nn.init.zeros_(linear.bias)
            layers += [linear, torch.nn.Tanh()]
        module = torch.nn.Sequential(*layers[:-1])
    name = f"{depth} hidden layers of width {width}"
    return Network.from_module(module, initial=module.state_dict(), learning_rates="pdlt", name=name)


def task(n: int = _TRAIN, n_test: int = _TEST) -> tuple[Examples, Matrix, Examples]:
    """n training points, their targets (n, 1), and test points."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((n + n_test, _INPUTS))
    points *= np.sqrt(_INPUTS) / np.linalg.norm(points, axis=1, keepdims=True)
    targets = np.sin(2 * points[:, :1]) + points[:, 1:2] * points[:, 2:3] / 2
    return Examples.from_arrays(points[:n]), targets[:n], Examples.from_arrays(points[n:])


def _errors(shape: tuple[int, int, int], time: float) -> list[Row]:
    """The rows of one network, in one thread."""
    with one_thread():
        return list(_of_network(*shape, time))


def _of_network(depth: int, width: int, seed: int, time: float) -> Iterator[Row]:
    network, (examples, targets, test) = network_of(depth, width, seed), task()
    training = Schedule(time=time)
    params = train(network, examples, targets, training, tolerance=_TOLERANCE)
    real = outputs_after(network, params, test).ravel()
    points = Derivatives(network, test)
    moved = displacement(Linearised.of(network, examples, targets), training, stages=_STAGES)
    leading, first, second = moved.orders(points)
    made = {
        "initial": points.value,
        "leading": leading,
        "dntk": leading + first,
        "next": leading + first + second - moved.squared(points),
        "second": leading + first + second,
    }
    added = np.sqrt(np.mean((real - points.value) ** 2))
    for name in PREDICTIONS:
        yield depth, width, seed, points.p, name, float(np.sqrt(np.mean((made[name] - real) ** 2)) / added)
