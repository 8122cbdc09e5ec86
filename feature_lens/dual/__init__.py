"""The dual model: the trained network as a regression on its features, exactly (contributions) and as a kernel."""

from feature_lens.dual.contributions import (
    Contributions,
    EigenContributions,
    Grouped,
    contributions,
    eigen_contributions,
)
from feature_lens.dual.regression import Regressions, regressions
from feature_lens.dual.ridge import Ridge, Spectral, fit_ridge
from feature_lens.dual_record import Fidelity

__all__ = [
    "Contributions",
    "EigenContributions",
    "Fidelity",
    "Grouped",
    "Regressions",
    "Ridge",
    "Spectral",
    "contributions",
    "eigen_contributions",
    "fit_ridge",
    "regressions",
]
