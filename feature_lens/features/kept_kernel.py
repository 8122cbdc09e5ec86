"""The kernel that a run keeps, not computed before it is indexed or written."""

from __future__ import annotations

from functools import partial
from typing import Any

from feature_lens.features.effective import EffectiveFeatures
from feature_lens.run_contents import Deferred, KeptKernel


def kept_kernel(design: EffectiveFeatures) -> KeptKernel:
    """The kernel of a design, for a run: into memory when it is first indexed, or block by block into a file."""
    shape = design.kernel_shapes()[""]
    return KeptKernel(design.reduction.name, Deferred(shape, design.dtype, partial(_fill, design)))


def _fill(design: EffectiveFeatures, target: Any) -> None:
    design.kernels(out={"": target})
