"""All pairs of residues modulo P, and the waves that a network which adds them may be made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_lens.concepts import Concept


def all_pairs(modulus: int) -> npt.NDArray[np.int64]:
    """(P^2, 2) a and b of every pair, b running fastest."""
    return np.stack(np.divmod(np.arange(modulus**2), modulus), axis=1)


def named(pairs: npt.NDArray[np.int64], modulus: int) -> list[str]:
    """What pairs are called: '3 + 17 = 20'."""
    return [f"{a} + {b} = {(a + b) % modulus}" for a, b in pairs]


def wave_concepts(pairs: npt.NDArray[np.int64], modulus: int) -> dict[str, Concept]:
    """The cosines and sines of 2 pi k / P times a, b, a + b and a - b, k = 1 .. (P-1)/2, one concept for each of these."""
    frequencies = np.arange(1, (modulus - 1) // 2 + 1)
    found = {}
    for name, of in {"a": (1, 0), "b": (0, 1), "a + b": (1, 1), "a - b": (1, -1)}.items():
        angles = 2 * np.pi / modulus * (pairs @ np.array(of))[:, None] * frequencies
        values = np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(len(pairs), -1)
        labels = [f"{wave} {k} ({name})" for k in frequencies for wave in ("cos", "sin")]
        found[f"waves of {name}"] = Concept.of(f"waves of {name}", values, labels)
    return found
