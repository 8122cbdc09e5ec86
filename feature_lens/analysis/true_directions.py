"""Directions in a weight matrix against features that are known to be its columns, as in the toy model of superposition.

Letters: k features, m rows of the matrix (hidden units), n columns (known features).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError

Matrix = npt.NDArray[np.float64]


def column_cosines(directions: Matrix, known: Matrix) -> Matrix:
    """(k, n) size of the cosine between column j of each direction (k, m, n) and column j of the known matrix (m, n).

    Whatever else a direction holds does not count; 0 where its column is zero. Its mean over j of the largest over
    features is what two parameter decomposition methods report as mean max cosine similarity (Braun et al.,
    Attribution-based Parameter Decomposition, and Bushnaq et al., Stochastic Parameter Decomposition,
    arXiv:2506.20790), as far as their text was at hand; they take it of components that they fit so as to add up to
    the matrix, not of directions. Raises SettingsError where shapes do not agree. Cost k m n.
    """
    return _cosines(directions, known, np.linalg.norm(directions, axis=1) if directions.ndim == 3 else directions)


def direction_cosines(directions: Matrix, known: Matrix) -> Matrix:
    """(k, n) the same between each whole direction and the matrix that has column j of the known one and zeros
    elsewhere, so that all else in a direction counts against it. Raises SettingsError where shapes do not agree."""
    whole = np.linalg.norm(directions.reshape(len(directions), -1), axis=1)
    return _cosines(directions, known, np.broadcast_to(whole[:, None], (len(directions), directions.shape[-1])))


def mean_max(cosines: Matrix) -> float:
    """Mean over known features of the largest cosine over features."""
    return float(cosines.max(axis=0).mean())


def _cosines(directions: Matrix, known: Matrix, lengths: Matrix) -> Matrix:
    if directions.ndim != 3 or directions.shape[1:] != known.shape:
        raise SettingsError(
            f"Directions in a matrix of shape {known.shape} are wanted as (features, *that), but {directions.shape} "
            "came; cut the tensor out of each direction and give it that shape."
        )
    products = np.abs((directions * known).sum(axis=1))
    size = lengths * np.linalg.norm(known, axis=0)
    return np.asarray(np.divide(products, size, out=np.zeros_like(products), where=size > 0))
