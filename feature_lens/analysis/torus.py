"""Examples that are pairs of residues modulo P: pictures of features on the torus, their Fourier modes, their families.

Every function of a pair (a, b) is a sum of waves cos and sin of 2 pi (k a + l b) / P. Four families of waves are told
apart: those of a alone, of b alone, of the sum a + b and of the difference a - b, each with frequencies 1 .. (P-1)/2.
Letters: n examples, k features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.errors import SettingsError
from feature_lens.registry import unknown_name
from feature_lens.run_contents import RunContents

Matrix = npt.NDArray[np.float64]
Pairs = npt.NDArray[np.int64]

# Multiples of the frequency in (k, l) of each family.
FAMILIES: Final = {"a": (1, 0), "b": (0, 1), "a + b": (1, 1), "a - b": (1, -1)}


def modes(pairs: Pairs, modulus: int, family: str) -> Matrix:
    """(n, 2 (P-1)/2) waves of a family on the given pairs: cos and sin of each frequency 1 .. (P-1)/2 in turn, as
    columns of unit norm; on all P^2 pairs of an odd modulus they are orthogonal, and to the constant too.

    Raises SettingsError for an unknown family.
    """
    if family not in FAMILIES:
        raise unknown_name("family of waves", family, list(FAMILIES))
    phase = 2 * np.pi / modulus * (pairs @ np.array(FAMILIES[family]))
    angles = phase[:, None] * np.arange(1, (modulus - 1) // 2 + 1)
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(len(pairs), -1)
    return np.asarray(waves / np.linalg.norm(waves, axis=0))


def subspace_overlap(features: Matrix, known: Matrix) -> float:
    """Share of the span of known (n, m) columns that lies in the span of features (n, k): the sum of squared cosines
    of their principal angles over the dimension of the known span; m / n is what chance gives k = m random columns."""
    q, f = (np.linalg.qr(columns)[0] for columns in (features, known))
    return float(np.square(q.T @ f).sum() / f.shape[1])


def mode_correlations(features: Matrix, pairs: Pairs, modulus: int, family: str) -> Matrix:
    """(k, (P-1)/2) correlation of each feature (n, k) with each frequency of a family, whatever its phase: the root of
    the sum of squares of the correlations with its cosine and its sine."""
    centred = features - features.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    found = np.square((centred / np.where(norms > 0, norms, 1)).T @ modes(pairs, modulus, family))
    return np.asarray(np.sqrt(found.reshape(features.shape[1], -1, 2).sum(axis=2)))


def pictures(values: Matrix, pairs: Pairs, modulus: int) -> Matrix:
    """Values (k, n) of features on pairs as pictures (k, P, P), a downwards and b to the right; NaN where there is no
    such pair."""
    found = np.full((len(values), modulus, modulus), np.nan)
    found[:, pairs[:, 0], pairs[:, 1]] = values
    return found


@dataclass(frozen=True)
class Waves:
    """What waves features are made of. share (k, 4, (P-1)/2): share of the energy of each feature, its mean taken off,
    in each family (in the order of `FAMILIES`) and frequency; what is missing to 1 is in mixed waves."""

    share: Matrix

    @property
    def table(self) -> pd.DataFrame:
        """One row per feature: family and frequency of its strongest wave with its share, and `group`, the frequency
        that holds most of the feature over all families, with the share of that."""
        k, _, frequencies = self.share.shape
        flat = self.share.reshape(k, -1)
        family, frequency = np.divmod(flat.argmax(axis=1), frequencies)
        by_frequency = self.share.sum(axis=1)
        return pd.DataFrame(
            {
                "family": np.array(list(FAMILIES))[family],
                "frequency": frequency + 1,
                "share": flat.max(axis=1),
                "group": by_frequency.argmax(axis=1) + 1,
                "group_share": by_frequency.max(axis=1),
            }
        )


def waves(activations: Matrix, pairs: Pairs, modulus: int) -> Waves:
    """The waves of features with activations (k, n), or (k, c, n) for several outputs, whose energies are then added.

    Needs every one of the P^2 pairs once, and an odd modulus: SettingsError otherwise. Cost k c P^2 log P.
    """
    if len(pairs) != modulus**2 or len(np.unique(pairs @ np.array([modulus, 1]))) != modulus**2 or modulus % 2 == 0:
        raise SettingsError(
            f"Waves are told apart on all pairs of residues of an odd modulus, but {len(pairs)} pairs modulo {modulus} "
            "came; give the values of every pair once."
        )
    values = activations.reshape(len(activations), -1, activations.shape[-1])
    share = np.zeros((len(values), len(FAMILIES), (modulus - 1) // 2))
    frequency = np.arange(1, (modulus - 1) // 2 + 1)
    for place, feature in enumerate(values):
        power = np.square(np.abs(np.fft.fft2(pictures(feature, pairs, modulus)))).sum(axis=0)
        power[0, 0] = 0
        total = float(power.sum()) or 1.0
        for row, (of_a, of_b) in enumerate(FAMILIES.values()):
            share[place, row] = (
                power[of_a * frequency, of_b * frequency] + power[-of_a * frequency, -of_b * frequency]
            ) / total
    return Waves(share)


@dataclass(frozen=True)
class TorusView:
    """One feature on all pairs: picture (P, P'), a downwards, b to the right, NaN where there is no such pair; in a
    sentence which waves it is made of, empty where that cannot be told; and the picture with residues in `steps`, in
    which waves of its strongest frequency are seen to go round once, None where there is none such."""

    picture: Matrix
    sentence: str
    steps: int = 1
    in_steps: Matrix | None = None

    @property
    def limit(self) -> float:
        """The largest magnitude in the picture, to be drawn in full colour."""
        return float(np.nanmax(np.abs(self.picture)))


def torus_view(run: RunContents, set_name: str, feature: int, view: str) -> TorusView | None:
    """The picture of a feature of a run whose examples are pairs; None for other examples and where the value of
    every example is not kept. Raises SettingsError for an unknown set, feature or view."""
    feature_set = run.sets[set_name]
    if run.examples.modality.kind != "pair" or not feature_set.gives_values:
        return None
    values = np.asarray(feature_set.values(feature, view), dtype=np.float64)
    pairs, (rows, columns) = run.examples.pairs, run.examples.modality.shape
    picture = np.full((rows, columns), np.nan)
    picture[pairs[:, 0], pairs[:, 1]] = values
    whole = rows == columns and rows % 2 == 1 and rows > 2 and len(pairs) == np.isfinite(picture).sum() == rows**2
    if not whole or float(np.ptp(values)) == 0:
        return TorusView(picture, "")
    (row,) = waves(values[None], pairs, rows).table.to_dict("records")
    sentence = (
        f"Its strongest wave is one of {row['family']}, of frequency {row['frequency']} modulo {rows}, and holds "
        f"{row['share']:.0%} of its variation; waves of frequency {row['group']} in a, b, a + b and a - b together hold "
        f"{row['group_share']:.0%}."
    )
    frequency = int(row["group"])
    if frequency == 1 or math.gcd(frequency, rows) > 1:
        return TorusView(picture, sentence)
    steps = pow(frequency, -1, rows)
    order = np.arange(rows) * steps % rows
    return TorusView(picture, sentence, steps, picture[np.ix_(order, order)])
