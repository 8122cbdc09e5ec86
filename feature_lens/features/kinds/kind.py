"""The contract of a feature kind: where along training the derivatives of the outputs are taken, and how.

theta0 are the initial parameters, theta* the trained ones, d = theta* - theta0. A kind makes a *source*, which gives
the pieces of the Jacobian's rows for tiles of examples, as `features/factors.py` does at fixed parameters; every
product, kernel and ranking follows from those. To add one, register a `Kind` in a module of this folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from feature_lens.features.forms import Source as Source
from feature_lens.features.reductions import Reduction
from feature_lens.networks import Network
from feature_lens.registry import Registry


@dataclass(frozen=True)
class Ask:
    """What a source is made for: a network, an output reduction, the tensors that are looked at, and for kinds that
    integrate the tolerance, relative to the largest feature."""

    network: Network
    reduction: Reduction
    chosen: tuple[str, ...]
    tolerance: float


@dataclass(frozen=True)
class Kind:
    """A feature kind. `title` names its features; `weights` says by what a unit's weight features are summed: the
    trained or initial parameters, or what training added to them."""

    title: str
    description: str
    make: Callable[[Ask], Source]
    weights: Literal["trained", "initial", "added"]


KINDS: Final[Registry[Kind]] = Registry("feature kind")
