"""What a run keeps of the dual model: regressions, one fitted model with its supports, contributions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.arrays import narrowed
from feature_lens.dual.lottery import tickets
from feature_lens.dual.perturbation.expansion import ExpansionSettings, expansion
from feature_lens.dual.regression import can_judge, regressions
from feature_lens.dual.ridge import Spectral, fit_ridge
from feature_lens.dual.second_order import interactions
from feature_lens.dual.sharing import contributions
from feature_lens.dual_record import DualRecord, Expansion, Fidelity, Ticket
from feature_lens.errors import ExamplesError, NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.features.bases import Eigen
from feature_lens.features.design import MEMORY, one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network

Matrix = npt.NDArray[np.float64]
# Numbers of the map from features to outputs, c^2 p, that a run holds at most.
_MOST_MAP: Final = 20_000_000


@dataclass(frozen=True)
class DualSettings:
    """keep: weights and supporting training examples kept for each output of each example. directions: eigen features
    that tickets are made of, `interacting` of them in pairs. flattened: also fit whole
    kernels, which takes an eigenproblem of side p or n c. tolerance: of path features that are not exact. expansion: the
    training that is expanded about theta0."""

    keep: int = 16
    directions: int = 64
    interacting: int = 16
    flattened: bool = False
    tolerance: float = 1e-8
    expansion: ExpansionSettings = field(default_factory=ExpansionSettings)


def dual_record(
    network: Network, examples: Examples, settings: DualSettings = DualSettings(), memory: int = MEMORY
) -> DualRecord:
    """All that can be said of a network: regressions where there are held-out examples, contributions where the
    initial parameters are known. Cost: that of `regressions`, `contributions` and `tickets`, and
    of an eigen basis."""
    columns: dict[str, Any] = {}
    remarks: list[str] = []
    fidelities: tuple[Fidelity, ...] = ()
    fitted: Fidelity | None = None
    lottery: tuple[Ticket, ...] = ()
    notes: tuple[str, ...] = ()
    if not can_judge(examples):
        remarks.append(
            "There are no two training and two held-out examples, so there is no regression on features to judge."
        )
    else:
        reductions = ("trace", "flattened") if settings.flattened else ("trace",)
        found = regressions(network, examples, reductions=reductions, memory=memory)  # type: ignore[arg-type]  # literals
        fidelities, notes = found.fidelities, found.notes
        remarks += found.remarks
        own = ("effective", "trace", "distillation", "bare")
        fitted = next((one for one in fidelities if (one.kernel, one.reduction, one.target, one.form) == own), None)
        if found.kernel is not None and fitted is not None:
            columns |= _model(network, examples, found.kernel, fitted, settings.keep, memory)
    directions = Eigen(settings.directions).fit(EffectiveFeatures(network, examples, memory=memory)).directions_
    try:
        chosen = network.outputs(examples).argmax(axis=1)
        found_pairs = interactions(network, examples, directions[: settings.interacting])
        columns |= {
            "interaction/mean": found_pairs.mean,
            "interaction/size": found_pairs.size,
            "interaction/threshold": np.array([found_pairs.threshold()]),
            "interaction/predicted": narrowed(found_pairs.of_outputs(chosen)),
        }
    except NetworkError as error:
        remarks.append(str(error))
    if network.initial is None:
        remarks.append("Initial parameters were not given, so what training added cannot be shared out among features.")
    else:
        shared = contributions(
            network, examples, directions=directions, keep=settings.keep, tolerance=settings.tolerance
        )
        remarks += shared.remarks
        if can_judge(examples):
            lottery = tickets(network, examples, shared, tolerance=settings.tolerance)
        layer, unit = shared.groups["layer"], shared.groups["unit"]
        columns |= {
            "initial_output": network.outputs(examples, at="initial"),
            "residual": shared.residual,
            "tensor/contribution": shared.groups["tensor"].values,
            "layer/name": np.array(layer.names),
            "layer/contribution": layer.values,
            "unit/name": np.array(unit.names),
            "unit/contribution": narrowed(unit.values),
            "eigen/contribution": narrowed(shared.eigen.values),
            "weight": shared.weights,
            "strongest/weight": shared.strongest,
            "strongest/contribution": narrowed(shared.strength),
        }
    expanded, orders = _expanded(network, examples, settings.expansion, remarks)
    columns |= orders
    return DualRecord(fidelities, fitted, notes, tuple(dict.fromkeys(remarks)), lottery, columns, expanded)


def _expanded(
    network: Network, examples: Examples, settings: ExpansionSettings, remarks: list[str]
) -> tuple[Expansion | None, dict[str, Matrix]]:
    """The expansion about theta0 and its orders, or a remark that says why there is none."""
    if network.initial is None:
        return None, {}
    try:
        found, orders = expansion(network, examples, settings)
    except (NetworkError, ExamplesError, SettingsError) as error:
        remarks.append(str(error))
        return None, {}
    return found, {f"expansion/{order.name}": values for order, values in zip(found.orders, orders, strict=True)}


def _model(
    network: Network, examples: Examples, whole: Matrix, fitted: Fidelity, keep: int, memory: int
) -> dict[str, Any]:
    """The distillation by the effective kernel, summed over outputs: predictions, coefficients, supports, and the map
    from effective features to outputs where that is not too large."""
    design = EffectiveFeatures(network, examples, outputs="trace", memory=memory)
    train = examples.fitting
    with one_thread():
        kernel = whole[:, train]
        outputs = network.outputs(examples)
        fit = fit_ridge(Spectral.of_kernel(kernel[train]), outputs[train], ridges=[fitted.ridge])
        alpha = fit.coefficients
        n, c = outputs.shape
        most = min(keep, len(train))
        position, share = np.empty((n, c, most), dtype=np.int32), np.empty((n, c, most))
        for output in range(c):
            terms = kernel * alpha[:, output]
            best = np.argpartition(-np.abs(terms), most - 1, axis=1)[:, :most]
            order = np.argsort(-np.abs(np.take_along_axis(terms, best, axis=1)), axis=1, kind="stable")
            best = np.take_along_axis(best, order, axis=1)
            position[:, output], share[:, output] = train[best], np.take_along_axis(terms, best, axis=1)
        columns: dict[str, Any] = {
            "prediction": kernel @ alpha,
            "coefficient": alpha,
            "support/position": position,
            "support/contribution": narrowed(share),
        }
        if c * design.n_columns <= _MOST_MAP:
            weights = design.on(train).rmatmul(alpha)
            columns["map"] = narrowed(weights.reshape(c, -1, c))
    return columns
