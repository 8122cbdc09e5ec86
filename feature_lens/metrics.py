"""How well a network does on its examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_lens.examples import Examples


def metrics_of(examples: Examples, outputs: npt.NDArray[np.float64]) -> dict[str, float]:
    """Accuracy for class labels, R2 for real targets, per split."""
    if examples.targets is None:
        return {}
    labels = examples.labels
    splits = {"all": np.ones(len(examples), dtype=bool)}
    if examples.training is not None:
        splits = {"training": examples.training, "held-out": ~examples.training}
    metrics: dict[str, float] = {}
    for split, chosen in splits.items():
        if not chosen.any():
            continue
        if labels is not None and outputs.shape[1] > 1:
            metrics[f"accuracy ({split})"] = float((outputs[chosen].argmax(axis=1) == labels[chosen]).mean())
        elif examples.targets.reshape(len(examples), -1).shape == outputs.shape:
            residual = outputs[chosen] - examples.targets.reshape(outputs.shape)[chosen]
            spread = examples.targets[chosen] - examples.targets[chosen].mean(axis=0)
            total = float(np.square(spread).sum())
            score = 1 - float(np.square(residual).sum()) / total if total > 0 else float("nan")
            if np.isfinite(score):  # constant targets have no R2
                metrics[f"R2 ({split})"] = score
    return metrics
