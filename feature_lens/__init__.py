"""feature_lens: browse the effective features of a trained network beside its neurons.

Names are imported when they are first used, so that reading a run never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from os.path import dirname
from typing import TYPE_CHECKING, Any

from feature_lens.distribution import VERSION as __version__
from feature_lens.distribution import warn_of_other_owners

if TYPE_CHECKING:
    from feature_lens.analysis import Run, open_run
    from feature_lens.examples import Examples
    from feature_lens.extract import ExtractSettings, SetSettings, compute_run, extract_run
    from feature_lens.features.bases import Canonical, Eigen, Unit
    from feature_lens.features.effective import EffectiveFeatures
    from feature_lens.features.neurons import NeuronActivations
    from feature_lens.modality import Modality
    from feature_lens.networks import Network

_HOMES = {
    "Canonical": "feature_lens.features.bases",
    "EffectiveFeatures": "feature_lens.features.effective",
    "Eigen": "feature_lens.features.bases",
    "Examples": "feature_lens.examples",
    "ExtractSettings": "feature_lens.extract",
    "Modality": "feature_lens.modality",
    "Network": "feature_lens.networks",
    "NeuronActivations": "feature_lens.features.neurons",
    "Run": "feature_lens.analysis",
    "SetSettings": "feature_lens.extract",
    "Unit": "feature_lens.features.bases",
    "compute_run": "feature_lens.extract",
    "extract_run": "feature_lens.extract",
    "open_run": "feature_lens.analysis",
}

__all__ = [
    "Canonical",
    "EffectiveFeatures",
    "Eigen",
    "Examples",
    "ExtractSettings",
    "Modality",
    "Network",
    "NeuronActivations",
    "Run",
    "SetSettings",
    "Unit",
    "__version__",
    "compute_run",
    "extract_run",
    "open_run",
]


warn_of_other_owners(dirname(__file__))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'feature_lens' has no attribute '{name}'; it has {', '.join(sorted(_HOMES))}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
