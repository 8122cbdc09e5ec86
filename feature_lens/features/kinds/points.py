"""Features at one set of parameters: the trained ones (effective) or the initial ones."""

from __future__ import annotations

from feature_lens.features.factors import Factors
from feature_lens.features.kinds.kind import KINDS, Ask, Kind


def _effective(ask: Ask) -> Factors:
    return Factors(ask.network, ask.network.at("effective"), ask.reduction, ask.chosen)


def _initial(ask: Ask) -> Factors:
    return Factors(ask.network, ask.network.at("initial"), ask.reduction, ask.chosen)


KINDS.register("effective")(
    Kind("effective features", "d f / d theta at the trained parameters", _effective, "trained")
)
KINDS.register("initial")(Kind("initial features", "d f / d theta at the initial parameters", _initial, "initial"))
