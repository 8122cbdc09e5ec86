"""The dual model of a network as a run keeps it: how well its regressions do, and who contributes to which output.

Letters: n examples, c outputs, p parameters, a training examples, m kept weights or supports. The columns, their shapes
and meaning are those of `feature_lens.store.schema`, under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.examples import Column

KERNELS: Final[Mapping[str, str]] = {
    "initial": "kernel of the initial features",
    "sharp": "kernel of the sharp features, the mean of initial and effective ones",
    "mean": "mean of the initial and the effective kernel",
    "effective": "kernel of the effective features",
    "last_layer": "effective kernel of the last linear layer alone",
    "without_last_layer": "effective kernel without the last linear layer",
}


@dataclass(frozen=True)
class Fidelity:
    """How well one regression does: R2 to the network's outputs (over all outputs together), agreement with its
    predicted class, and accuracy where there are class labels, all on held-out examples; `left_out_r2` is that to the
    target on training examples, each left out. `ridge` is relative to the kernel's mean diagonal.

    kernel: a name of `KERNELS`. reduction: trace or flattened. target:
    labels or distillation (the network's outputs). form: "bare", H (H + rho)^-1 t, or "expanded" about the parameters
    of the kernel, f + H (H + rho)^-1 (t - f).
    """

    kernel: str
    reduction: str
    target: str
    form: str
    ridge: float
    left_out_r2: float
    r2: float
    agreement: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Ticket:
    """What is left of a network when `kept` features of what training added are kept, in some `order`: as a sum of
    contributions (`kind` "sum") or as a real network whose other parameters are the initial ones ("network"). R2 to
    the network's outputs, agreement with its predictions and accuracy on held-out examples; training agreement."""

    order: str
    kind: str
    kept: int
    r2: float
    agreement: float | None
    accuracy: float | None
    training_agreement: float | None


@dataclass(frozen=True)
class Order:
    """One order of the expansion about theta0: "leading", the initial kernel; "next", the terms of relative order
    1 / width, in dNTK and ddNTK; "squared", those of second order in dNTK. `size`, the root of the mean square of what
    it adds to the outputs, and R2 to the network's outputs and agreement with its predicted class of the sum up to it,
    on held-out examples."""

    name: str
    size: float
    r2: float
    agreement: float | None


@dataclass(frozen=True)
class Expansion:
    """The training from theta0, on the squared loss and the full batch, that was expanded, and how far the network is
    from where the expansion holds.

    step: 0 for gradient flow, else of descent; time: T, infinite for training to the end; `matched` to the network's
    own training loss. examples: training examples it was made with. kernel_change: |H* - H0| / |H0| of kernels summed
    over outputs, on these. displacement: |theta* - theta0|, and relative to |theta0|, where the learning-rate tensor is
    one.
    """

    step: float
    time: float
    matched: bool
    examples: int
    kernel_change: float
    displacement: float
    relative_displacement: float
    orders: tuple[Order, ...]


@dataclass(frozen=True)
class DualRecord:
    """What a run holds of the dual model. `fitted` is the regression whose predictions and coefficients are kept;
    None, and no columns of it, where there is no held-out split. Contributions are there where theta0 is known.
    `tickets` need both, `expansion` theta0 and targets. `notes` stand beside any display of the fidelities."""

    fidelities: tuple[Fidelity, ...] = ()
    fitted: Fidelity | None = None
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    tickets: tuple[Ticket, ...] = ()
    columns: Mapping[str, Column] = field(default_factory=dict, repr=False)
    expansion: Expansion | None = None

    @property
    def has_contributions(self) -> bool:
        """Whether what training added is shared out among features."""
        return "residual" in self.columns

    def smallest_faithful(self, order: str, kind: str, agreement: float = 0.99) -> Ticket | None:
        """The ticket of fewest features that agrees with the network's predictions on that share of training examples,
        and so do all with more; None where none does. Its held-out figures had no part in the choice."""
        best = None
        own = [one for one in self.tickets if (one.order, one.kind) == (order, kind)]
        for one in sorted(own, key=lambda one: -one.kept):
            if one.training_agreement is None or one.training_agreement < agreement:
                break
            best = one
        return best

    def predict(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.float64]:
        """What the dual model says (m, c), from features alone: of the run's examples, or of effective-feature rows
        (m, c, p), times sqrt(lambda), of new inputs. Raises SettingsError where the run does not hold what is needed.
        """
        if "prediction" not in self.columns:
            raise SettingsError("This run holds no dual model; extract it again with --dual and a held-out split.")
        if rows is None:
            return np.asarray(self.columns["prediction"], dtype=np.float64)
        if "map" not in self.columns:
            raise SettingsError(
                "This run predicts its own examples only, because the map from features to outputs is too large to "
                "keep; use a network of fewer parameters or outputs."
            )
        weights, given = np.asarray(self.columns["map"], dtype=np.float64), np.asarray(rows, dtype=np.float64)
        if given.ndim != 3 or given.shape[1:] != weights.shape[:2]:
            raise SettingsError(
                f"Rows of effective features have the shape (m, {weights.shape[0]}, {weights.shape[1]}), but "
                f"{given.shape} came; reshape the rows of EffectiveFeatures by example."
            )
        made: npt.NDArray[np.float64] = given.reshape(len(given), -1) @ weights.reshape(-1, weights.shape[2])
        return made
