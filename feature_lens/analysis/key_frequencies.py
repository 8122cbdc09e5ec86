"""Which frequencies a network that adds residues is made of, and whether leading features hold their waves.

A network trained with much weight decay adds modulo P by a few frequencies only, the key frequencies (Nanda et al.,
arXiv:2301.05217). Letters: n examples, all P^2 pairs of residues; k features; c outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_lens.analysis.torus import Matrix, Pairs, modes, subspace_overlap
from feature_lens.errors import SettingsError


@dataclass(frozen=True)
class KeyFrequencies:
    """share ((P-1)/2,): of the energy of outputs about their means, what lies in waves of a + b of each frequency
    1 .. (P-1)/2; what is missing to 1 is in other waves. keys: the key frequencies, the strongest first."""

    share: Matrix
    keys: tuple[int, ...]


def key_frequencies(outputs: Matrix, pairs: Pairs, modulus: int) -> KeyFrequencies:
    """Of outputs (n, c) on all pairs. Key frequencies are those before the largest ratio of successive shares, the
    shares in falling order; shares below a millionth of the first do not count.

    Raises SettingsError where outputs do not differ, or there are fewer than two frequencies. Cost n c P.
    """
    centred = outputs - outputs.mean(axis=0)
    total = float(np.square(centred).sum())
    if total == 0 or modulus < 5:
        raise SettingsError(
            f"Key frequencies need outputs that differ and a modulus of 5 or more, but outputs with a variation of "
            f"{total:g} modulo {modulus} came; look at the network's outputs."
        )
    share = np.square(modes(pairs, modulus, "a + b").T @ centred).sum(axis=1).reshape(-1, 2).sum(axis=1) / total
    order = np.argsort(-share, kind="stable")
    falling = np.maximum(share[order], 1e-6 * share.max())
    count = 1 + int((falling[:-1] / falling[1:]).argmax())
    return KeyFrequencies(np.asarray(share), tuple(int(at) + 1 for at in order[:count]))


def sum_modes(pairs: Pairs, modulus: int, frequencies: tuple[int, ...]) -> Matrix:
    """(n, 2 k) cos and sin of 2 pi k (a + b) / P, columns of unit norm, of the given frequencies."""
    return _of(modes(pairs, modulus, "a + b"), frequencies)


def difference_modes(pairs: Pairs, modulus: int, frequencies: tuple[int, ...]) -> Matrix:
    """(n, 2 k) the same of a - b."""
    return _of(modes(pairs, modulus, "a - b"), frequencies)


def separate_modes(pairs: Pairs, modulus: int, frequencies: tuple[int, ...]) -> Matrix:
    """(n, 2 k) the same of f(a) + f(b): cos of a plus cos of b, and so for sin, columns of unit norm."""
    both = modes(pairs, modulus, "a") + modes(pairs, modulus, "b")
    return _of(both / np.linalg.norm(both, axis=0), frequencies)


def leading_overlaps(features: Matrix, pairs: Pairs, modulus: int, frequencies: tuple[int, ...]) -> dict[str, float]:
    """How far leading features (n, k), strongest first, hold the waves of K key frequencies, as Lin, arXiv:2510.00468,
    counts them: the first 1 + 2 K, of which one is mostly the mean, those of a + b, and the next 2 K those of
    f(a) + f(b). Beside them what the same groups hold of the other families, a - b among them, and what `both` together
    hold of each: 'a + b in first', 'a + b in next', 'a + b in both', 'a - b in first' ...

    Features are taken as they are, not centred. Raises SettingsError for fewer than 1 + 4 K features. Chance for q of n
    random features is q / n.
    """
    first, both = 1 + 2 * len(frequencies), 1 + 4 * len(frequencies)
    if features.shape[1] < both or not frequencies:
        raise SettingsError(
            f"Waves of {len(frequencies)} key frequencies are looked for in {both} features, but "
            f"{features.shape[1]} came; compute more of them."
        )
    known = {
        "a + b": sum_modes(pairs, modulus, frequencies),
        "a - b": difference_modes(pairs, modulus, frequencies),
        "f(a) + f(b)": separate_modes(pairs, modulus, frequencies),
    }
    groups = {"first": features[:, :first], "next": features[:, first:both], "both": features[:, :both]}
    return {
        f"{family} in {group}": subspace_overlap(columns, waves)
        for family, waves in known.items()
        for group, columns in groups.items()
    }


def _of(waves: Matrix, frequencies: tuple[int, ...]) -> Matrix:
    return waves.reshape(len(waves), -1, 2)[:, np.array(frequencies) - 1].reshape(len(waves), -1)
