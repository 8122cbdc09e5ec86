"""What a regression in place of the network is fitted to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_lens.examples import Examples


def label_targets(examples: Examples, c: int) -> npt.NDArray[np.float64] | None:
    """(n, c): class labels as one-hot rows where there are several outputs, else real targets; None where none fit."""
    if examples.labels is not None and c > 1:
        made: npt.NDArray[np.float64] = np.eye(c)[examples.labels]
        return made
    if examples.targets is None or examples.targets.size != len(examples) * c:
        return None
    return np.asarray(examples.targets, dtype=np.float64).reshape(len(examples), c)
