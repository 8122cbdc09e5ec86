"""Factors from which the value of any weight feature on any example follows, instead of the values themselves.

A linear map shared over t positions, with o outputs and i inputs, has for example n and quantity r the gradient
sqrt(lambda) sum_t g[o, n, r, t] a[i, n, t]. The factors g and a are t (o r + i) numbers per example, the gradient
o i r: hundreds of times more. Letters: n examples, k features, v views, r quantities per example (the outputs, or what
an output reduction made of them), o outputs, i inputs and t positions of one map, m features of one share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.examples import Column

Entries = npt.NDArray[np.int64]

# The views that follow from all quantities: the largest in magnitude, that of the example's class, of its prediction.
DERIVED: Final = ("largest", "own", "predicted")
# Numbers of g that are taken at a time.
_BLOCK: Final = 1 << 24


@dataclass(frozen=True)
class Inputs:
    """What came in, for one parameter tensor: `a` (i, n, t); or tokens (n, t) of `kinds` kinds, which stand for
    one-hot rows; or neither, for ones (a bias). entry (o * i) holds the numbers of the features, in the order (o, i);
    `scale` is sqrt(lambda)."""

    entry: Entries = field(repr=False)
    scale: float = 1.0
    a: Column | None = field(default=None, repr=False)
    token: Column | None = field(default=None, repr=False)
    kinds: int = 1

    @property
    def n_in(self) -> int:
        """i."""
        return self.kinds if self.a is None else int(self.a.shape[0])

    def of(self, place: int, at: slice) -> npt.NDArray[Any] | None:
        """Input number `place` of some examples (b, t): scaled numbers, or whether a token is of that kind; None: ones."""
        if self.a is not None:
            a: npt.NDArray[Any] = np.asarray(self.a[place, at])
            return a if self.scale == 1 else a * np.asarray(self.scale, dtype=a.dtype)
        return None if self.token is None else np.asarray(self.token[at]) == place


@dataclass(frozen=True)
class Share:
    """Features with common output gradients g (o, n, r, t), one `Inputs` for each parameter tensor; or, without that
    form, the gradients themselves (m, n, r) with sqrt(lambda), of the features `entry` (m)."""

    g: Column | None = field(default=None, repr=False)
    inputs: tuple[Inputs, ...] = ()
    gradient: Column | None = field(default=None, repr=False)
    entry: Entries | None = field(default=None, repr=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All that is held."""
        held = [self.g, self.gradient, self.entry]
        for inputs in self.inputs:
            held += [inputs.a, inputs.token, inputs.entry]
        return tuple(column for column in held if column is not None)

    def add(self, feature: int, total: npt.NDArray[np.float64]) -> None:
        """Add this share of a feature's value to `total` (r, n). Reads one o of g and one i of a."""
        if self.gradient is not None and self.entry is not None:
            for place in np.flatnonzero(self.entry == feature):
                total += np.asarray(self.gradient[int(place)]).T
        for inputs in self.inputs:
            for place in np.flatnonzero(inputs.entry == feature):
                self._add_product(inputs, *divmod(int(place), inputs.n_in), total)

    def _add_product(self, inputs: Inputs, out: int, place: int, total: npt.NDArray[np.float64]) -> None:
        if self.g is None:
            return
        _, n, r, t = self.g.shape
        for at in _blocks(n, r * t):
            g: npt.NDArray[Any] = np.asarray(self.g[out, at])
            came = inputs.of(place, at)
            if inputs.a is None:
                # Chosen, not multiplied by 0: a gradient that is not finite counts where it belongs only.
                g = g if came is None else np.where(came[:, None], g, 0)
                made = g.sum(axis=2, dtype=np.float64) * inputs.scale
            elif came is not None and t == 1:  # in the precision of the network, as features are ranked
                made = g[:, :, 0] * came
            elif came is not None:
                made = np.einsum("nrt,nt->nr", g, came, dtype=np.float64)
            total[:, at] += made.T


def _blocks(n: int, numbers: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(numbers, 1))
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


@dataclass(frozen=True)
class WeightFactors:
    """Shares that together hold k features of n examples in r quantities."""

    shares: tuple[Share, ...]
    n_features: int
    n_examples: int
    n_quantities: int

    @property
    def nbytes(self) -> int:
        """Bytes that the factors take in memory."""
        return sum(
            int(np.prod(column.shape)) * column.dtype.itemsize for share in self.shares for column in share.columns
        )

    def values(self, feature: int) -> npt.NDArray[np.float64]:
        """Values (r, n) of one feature: the sum over the shares that hold it. Cost k + n r t.

        Raises SettingsError when there is no such feature.
        """
        if not 0 <= feature < self.n_features:
            raise SettingsError(
                f"There are features 0 to {self.n_features - 1}, but {feature} was asked for; choose one of them."
            )
        total = np.zeros((self.n_quantities, self.n_examples))
        for share in self.shares:
            share.add(feature, total)
        return total


class FactoredValues:
    """The column `values` (k, v, n) of a set that keeps factors: what is indexed is computed from them.

    The first index is one feature (cost of `WeightFactors.values`), or several, which are computed one by one. Views
    are the quantities themselves, or those of `DERIVED`: labels (n,) are needed for 'own', the network's outputs (n, c)
    for 'predicted'. The feature asked for last is kept.
    """

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(
        self,
        factors: WeightFactors,
        views: Sequence[str],
        labels: npt.NDArray[np.int64] | None = None,
        outputs: Column | None = None,
    ) -> None:
        self.factors = factors
        self.shape: tuple[int, ...] = (factors.n_features, len(views), factors.n_examples)
        self._views, self._labels, self._outputs = tuple(views), labels, outputs
        self._predicted: npt.NDArray[np.int64] | None = None
        # Replaced whole, so that threads see one feature's number with its own values.
        self._last: tuple[int, npt.NDArray[np.float32]] | None = None
        self._check()

    def _check(self) -> None:
        """Raise SettingsError where the views do not follow from the quantities."""
        r, labels, outputs = self.factors.n_quantities, self._labels, self._outputs
        if "largest" not in self._views:
            if len(self._views) != r:
                raise SettingsError(
                    f"Factors of {r} quantities came with {len(self._views)} views; give one view each."
                )
            return
        if unknown := [view for view in self._views if view not in DERIVED]:
            raise SettingsError(f"The view '{unknown[0]}' does not follow from factors; leave the factors out.")
        if "own" in self._views and (labels is None or (len(labels) and not 0 <= labels.min() <= labels.max() < r)):
            raise SettingsError(f"The view 'own' needs labels from 0 to {r - 1}, but there are others or none.")
        if "predicted" in self._views and (outputs is None or tuple(outputs.shape) != (self.factors.n_examples, r)):
            raise SettingsError(
                f"The view 'predicted' needs {r} outputs of each example, but there are others or none."
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> Any:
        first, rest = (index[:1], index[1:]) if isinstance(index, tuple) else ((index,), ())
        if first and isinstance(first[0], int | np.integer):
            return self._feature(int(first[0]))[rest]
        return np.array([self._feature(int(number))[rest] for number in np.arange(len(self))[first]], dtype=self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)

    def _feature(self, feature: int) -> npt.NDArray[np.float32]:
        last = self._last
        if last is not None and last[0] == feature:
            return last[1]
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told as such
            made = self._in_views(self.factors.values(feature)).astype(np.float32)
        made.flags.writeable = False
        self._last = feature, made
        return made

    def _in_views(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if "largest" not in self._views:
            return values
        at = np.arange(values.shape[1])
        rows = []
        for view in self._views:
            if view == "own" and self._labels is not None:
                rows.append(values[self._labels, at])
            elif view == "predicted" and self._outputs is not None:
                if self._predicted is None:
                    self._predicted = np.asarray(self._outputs[:]).argmax(axis=1)
                rows.append(values[self._predicted, at])
            else:
                rows.append(values[np.abs(values).argmax(axis=0), at])
        return np.stack(rows)
