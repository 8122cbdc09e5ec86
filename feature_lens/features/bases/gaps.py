"""How many leading eigenvalues belong together, read from the largest gap in a falling spectrum."""

from __future__ import annotations

import numpy as np

from feature_lens.errors import SettingsError
from feature_lens.features.design import Matrix


def count_by_ratio(spectrum: Matrix, first: int, last: int, floor: float) -> int:
    """How many leading eigenvalues lie before the largest ratio w_i / w_i+1, i from `first` to `last`, counted from 0.

    Eigenvalues up to `floor` are rounding, of which every ratio is noise, and left out. Raises SettingsError where
    fewer than two ratios remain.
    """
    real = spectrum[spectrum > floor]
    part = real[first : last + 2]
    return first + 1 + _largest(part[:-1] / part[1:], len(real), first)


def count_by_difference(spectrum: Matrix, first: int, last: int) -> int:
    """The same by the largest difference w_i - w_i+1."""
    return first + 1 + _largest(-np.diff(spectrum[first : last + 2]), len(spectrum), first)


def _largest(gaps: Matrix, n: int, first: int) -> int:
    if len(gaps) < 2:
        raise SettingsError(
            f"A gap is looked for after the first {first + 1} eigenvalues, but there are {n}; give the number instead."
        )
    return int(gaps.argmax())
