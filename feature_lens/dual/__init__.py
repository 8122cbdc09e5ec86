"""The dual model: the trained network as a regression on its features, exactly (contributions) and as a kernel."""

from feature_lens.dual.lottery import tickets
from feature_lens.dual.regression import Regressions, regressions
from feature_lens.dual.ridge import Ridge, Spectral, fit_ridge
from feature_lens.dual.second_order import Interactions, interactions
from feature_lens.dual.sharing import (
    Contributions,
    EigenContributions,
    Grouped,
    contributions,
)
from feature_lens.dual_record import Fidelity, Ticket

__all__ = [
    "Contributions",
    "EigenContributions",
    "Fidelity",
    "Grouped",
    "Interactions",
    "Regressions",
    "Ridge",
    "Spectral",
    "Ticket",
    "contributions",
    "fit_ridge",
    "interactions",
    "regressions",
    "tickets",
]
