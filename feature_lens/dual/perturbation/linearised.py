"""What both ways to the trained function start from: the residual and the kernel of the training set at theta0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_lens.dual.perturbation.derivatives import Derivatives
from feature_lens.dual.perturbation.schedule import Schedule
from feature_lens.dual.ridge import Spectral
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Below this share of the largest eigenvalue a kernel counts as singular.
_SINGULAR: Final = 1e-10


@dataclass(frozen=True)
class Linearised:
    """A network about theta0 on its training set A, rows (example, output): derivatives there, the residual
    eps = f(A; theta0) - y (r,), and the kernel's eigenvalues h (k,), ascending, and eigenvectors (r, k), those of its
    range: k = r where it has full rank."""

    on: Derivatives
    residual: Vector
    rates: Vector
    modes: Matrix

    @classmethod
    def of(cls, network: Network, examples: Examples, targets: Matrix) -> Linearised:
        """From training examples and their targets (n, c). Cost: the kernel and r^3, or r p^2 + p^3 where p is less.

        Raises SettingsError for targets that do not fit or a kernel that is zero, NetworkError for a network that
        `Derivatives` refuses.
        """
        on = Derivatives(network, examples)
        wanted = np.asarray(targets, dtype=np.float64).reshape(-1)
        if len(wanted) != on.r:
            raise SettingsError(
                f"An expansion needs a target for each of {on.r:,} outputs of the training examples, but "
                f"{len(wanted):,} came; give them as (n, c)."
            )
        if not np.isfinite(wanted).all():
            raise SettingsError(
                "An expansion needs finite targets, but NaN or infinity came; leave those examples out."
            )
        design = EffectiveFeatures(network, examples, "initial")
        found = Spectral.of_kernel(design.gram()) if on.r <= on.p else Spectral.of_columns(design)[0]
        return cls(on, on.value - wanted, found.values, found.vectors)

    def check(self, training: Schedule) -> None:
        """Raises SettingsError for a training that leads nowhere: to the end with a kernel that is singular, or descent
        whose step is too large for its largest eigenvalue."""
        largest, smallest = float(self.rates[-1]), float(self.rates[0])
        if training.step * largest >= 2:
            raise SettingsError(
                f"Descent with step {training.step:g} diverges, since the kernel's largest eigenvalue is {largest:.4g}; "
                f"give a step below {2 / largest:.4g}."
            )
        missing = self.on.r - len(self.rates)
        if not training.ends and (missing or smallest <= _SINGULAR * largest):
            raise SettingsError(
                f"Training to the end needs a kernel of full rank, but its eigenvalues go from {largest:.4g} down to "
                f"{0 if missing else smallest:.4g} on {self.on.r:,} rows; give a finite time, leave out repeated "
                "examples, or take a wider network."
            )

    @property
    def outside(self) -> Vector:
        """The part of the residual (r,) that no change of the parameters reaches to leading order."""
        return self.residual - self.modes @ (self.modes.T @ self.residual)

    def left(self, training: Schedule, time: float | None = None) -> Vector:
        """The residual (r,) at T, or at a time, to leading order."""
        along: Vector = self.modes.T @ self.residual
        return self.residual - self.modes @ ((1 - training.left(self.rates, time)) * along)

    def displacement(self, training: Schedule, time: float | None = None) -> Vector:
        """theta - theta0 at T, or at a time, to leading order (p,): one backward pass."""
        along = training.gone(self.rates, time) * (self.modes.T @ self.residual)
        return -self.on.gradient_along(self.modes @ along)
