"""The same network on the same data by several algorithms: which effective features come out alike, and which differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment

from feature_lens.dual.perturbation.derivatives import Derivatives
from feature_lens.dual.perturbation.hierarchy import displacement
from feature_lens.dual.perturbation.linearised import Linearised
from feature_lens.dual.perturbation.schedule import Schedule, thetahat_of
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.bases import Eigen
from feature_lens.features.design import one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network
from feature_lens.networks.network import Params

Matrix = npt.NDArray[np.float64]
Kind = Literal["descent", "sgd", "adamw"]

# A feature of one network is found again in another where its best match is this alike.
_ALIKE: Final = 0.9
BEFORE: Final = "before training"


@dataclass(frozen=True)
class Algorithm:
    """Full-batch descent, SGD on batches of a quarter of the data, or AdamW with torch's weight decay on the full batch,
    all with a `step` in the coordinates in which the learning-rate tensor is one."""

    kind: Kind
    step: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or not self.step > 0:
            raise SettingsError(
                f"An algorithm is descent, sgd or adamw with a step above 0, but {self.kind} with {self.step} came."
            )

    @property
    def name(self) -> str:
        return f"{self.kind} {self.step:.3g}"


_MOST_STEPS: Final = 10_000_000


@dataclass(frozen=True)
class AlgorithmSettings:
    """reached: every algorithm stops when its training loss is at most this share of the initial one, or after
    `most_steps`. features: leading eigen features (of the kernel summed over outputs) that are compared."""

    reached: float = 0.05
    most_steps: int = 2000
    features: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.most_steps > _MOST_STEPS:
            raise SettingsError(
                f"Algorithms take at most {_MOST_STEPS:,} steps, but {self.most_steps} came; give fewer."
            )
        if self.most_steps < 1 or self.features < 1:
            raise SettingsError(
                f"Algorithms take at least one step and have at least one feature compared, but {self.most_steps} and "
                f"{self.features} came; give numbers of at least 1."
            )


@dataclass(frozen=True)
class AlgorithmStudy:
    """trained: a row per algorithm, with the steps it took, its loss (share of the initial one), and the errors of what
    the expansion of full-batch descent of as many steps predicts of its outputs on the test points, to each order,
    relative to what training added; how far its outputs are from those of the first algorithm, in the same measure, and
    how far they are predicted to be. NaN for AdamW, whose step is not one of descent.
    pairs: a row per pair: mean squared cosine and largest of the principal angles between the spans of leading features,
    median correlation of features matched one to one, and how many are alike (0.9 or more).
    features: a row per feature of the first algorithm, with its correlation with its match in every other. networks: the
    network as each algorithm left it, by its name."""

    trained: pd.DataFrame
    pairs: pd.DataFrame
    features: pd.DataFrame
    networks: Mapping[str, Network] = field(repr=False)


def default_algorithms(largest: float) -> tuple[Algorithm, ...]:
    """Each algorithm with two steps, of descent relative to the kernel's largest eigenvalue."""
    return (
        Algorithm("descent", 0.5 / largest),
        Algorithm("descent", 0.125 / largest),
        Algorithm("sgd", 0.5 / largest),
        Algorithm("sgd", 0.125 / largest),
        Algorithm("adamw", 1e-2),
        Algorithm("adamw", 2.5e-3),
    )


def algorithm_study(
    network: Network,
    examples: Examples,
    targets: Matrix,
    test: Examples,
    algorithms: Sequence[Algorithm] | None = None,
    settings: AlgorithmSettings = AlgorithmSettings(),
    progress: Callable[[Iterable[Algorithm]], Iterable[Algorithm]] = lambda some: some,
) -> AlgorithmStudy:
    """Train one network from theta0 by every algorithm on examples with targets (n, c), and compare on test examples.

    Raises NetworkError where theta0 is not known. Cost: the steps of every algorithm, `displacement` for as many steps
    of descent, and an eigen basis each.
    """
    with one_thread():
        return _studied(network, examples, targets, test, algorithms, settings, progress)


def _studied(
    network: Network,
    examples: Examples,
    targets: Matrix,
    test: Examples,
    algorithms: Sequence[Algorithm] | None,
    settings: AlgorithmSettings,
    progress: Callable[[Iterable[Algorithm]], Iterable[Algorithm]],
) -> AlgorithmStudy:
    start = Linearised.of(network, examples, targets)
    test = replace(test, training=None)  # features are those of the test examples alone
    chosen = tuple(default_algorithms(float(start.rates[-1])) if algorithms is None else algorithms)
    k, names = settings.features, [one.name for one in chosen]
    if not names or len(set(names)) < len(names):
        raise SettingsError(
            f"Algorithms must differ, and there must be some, but {', '.join(names) or 'none'} came; change their steps."
        )
    before = _features(replace(network, trained=network.at("initial")), test, k)
    made = [_Made(*_trained(network, examples, targets, one, settings)) for one in progress(chosen)]
    networks = {one.name: replace(network, trained=own.params) for one, own in zip(chosen, made, strict=True)}
    found = {name: _features(trained, test, k) for name, trained in networks.items()}
    first, *others = found
    spans = found | {BEFORE: before}
    return AlgorithmStudy(
        _outputs(network, start, Derivatives(network, test), test, dict(zip(chosen, made, strict=True))),
        pd.DataFrame([_pair(a, b, spans[a], spans[b]) for a, b in itertools.combinations(spans, 2)]),
        pd.DataFrame({name: _matched(spans[first], spans[name]) for name in (*others, BEFORE)}).rename_axis("feature"),
        networks,
    )


@dataclass(frozen=True)
class _Made:
    params: Params
    steps: int
    loss: float


def _outputs(
    network: Network, start: Linearised, points: Derivatives, test: Examples, made: dict[Algorithm, _Made]
) -> pd.DataFrame:
    """The table `trained`."""
    real = {one: network.outputs_at(own.params, test).ravel() for one, own in made.items()}
    sums = {one: _predicted(start, points, one, own.steps) for one, own in made.items()}
    first = next(iter(made))
    rows = []
    for one, own in made.items():
        added = np.linalg.norm(real[one] - points.value)
        apart = (real[one] - real[first], sums[one][2] - sums[first][2])
        errors = [float(np.linalg.norm(difference) / added) for difference in (*(sums[one] - real[one]), *apart)]
        rows.append([one.name, own.steps, own.loss, *errors])
    columns = ["leading", "next", "second", "from_first", "predicted_from_first"]
    return pd.DataFrame(rows, columns=["algorithm", "steps", "loss", *columns])


def _predicted(start: Linearised, points: Derivatives, algorithm: Algorithm, steps: int) -> Matrix:
    """Outputs (3, r) to each order after as many steps of full-batch descent; NaN where the step is not one of it."""
    if algorithm.kind == "adamw":
        return np.full((3, points.r), np.nan)
    made: Matrix = np.cumsum(displacement(start, Schedule(algorithm.step, steps)).orders(points), axis=0)
    return made


def _trained(
    network: Network, examples: Examples, targets: Matrix, algorithm: Algorithm, settings: AlgorithmSettings
) -> tuple[Params, int, float]:
    """Parameters, steps taken, and the training loss as a share of the initial one."""
    leaves, params_of = thetahat_of(network)
    inputs = network.tensor(np.asarray(examples.inputs[:]))
    wanted = torch.as_tensor(np.asarray(targets), dtype=network.dtype)
    n = len(examples)
    batch = n if algorithm.kind != "sgd" else max(1, n // 4)
    make = torch.optim.AdamW if algorithm.kind == "adamw" else torch.optim.SGD
    optimiser = make(leaves, lr=algorithm.step)
    generator = torch.Generator().manual_seed(settings.seed)

    def loss_on(rows: torch.Tensor) -> torch.Tensor:
        return (network(params_of(), inputs[rows]) - wanted[rows]).square().sum() / 2

    every = torch.arange(n)
    with torch.no_grad():
        first = float(loss_on(every))
    steps, share = 0, 1.0
    while share > settings.reached and steps < settings.most_steps:
        order = torch.randperm(n, generator=generator) if batch < n else every
        for rows in torch.split(order, batch):
            optimiser.zero_grad()
            torch.autograd.backward([loss_on(rows) * (n / len(rows))])
            optimiser.step()
            steps += 1
        with torch.no_grad():
            share = float(loss_on(every)) / first
        if not np.isfinite(share):
            raise SettingsError(f"Training by {algorithm.name} diverged after {steps} steps; give a smaller step.")
    return {name: value.detach() for name, value in params_of().items()}, steps, share


def _features(network: Network, test: Examples, k: int) -> Matrix:
    """Activations (n, k) of the leading eigen features, unit columns."""
    design = EffectiveFeatures(network, test, outputs="trace")
    activations = Eigen(k).fit(design).transform(design)
    made: Matrix = activations / np.linalg.norm(activations, axis=0)
    return made


def _pair(a: str, b: str, one: Matrix, other: Matrix) -> dict[str, object]:
    angles = subspace_angles(one, other)
    alike = _matched(one, other)
    return {
        "one": a,
        "other": b,
        "overlap": float(np.square(np.cos(angles)).mean()),
        "largest_angle": float(np.degrees(angles.max())),
        "correlation": float(np.median(alike)),
        "alike": int((alike >= _ALIKE).sum()),
    }


def _matched(one: Matrix, other: Matrix) -> Matrix:
    """|correlation| of each feature of the one with its match in the other, matched one to one."""
    centred = [values - values.mean(axis=0) for values in (one, other)]
    sizes = [np.maximum(np.linalg.norm(values, axis=0), np.finfo(np.float64).tiny) for values in centred]
    alike = np.abs((centred[0] / sizes[0]).T @ (centred[1] / sizes[1]))
    rows, columns = linear_sum_assignment(-alike)
    made = np.zeros(one.shape[1])
    made[rows] = alike[rows, columns]
    return made
