"""The design matrix: what each example does. One row per example and output, one column per feature coordinate.

A subclass says what its rows and columns are and yields them in tiles; everything else follows from that here,
and may be overridden by a faster rule that is tested to be equal.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.networks import Network
from feature_lens.networks.passes import one_pass

Matrix = npt.NDArray[np.float64]
D = TypeVar("D", bound="DesignMatrix")

# Working memory beside a result, and of it the rows held at once while a Gram matrix is made: enough for fast products, little beside the matrix itself.
MEMORY = 512 << 20
HELD_BYTES = 192 << 20
TILE = 32
_TILE_BYTES = 64 << 20


@cache
def _libraries() -> ThreadpoolController:
    """The libraries of linear algebra that are loaded; to look for them takes longer than a small product."""
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra in one thread: its results then do not depend on how many cores there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _libraries().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)


def tile_size(wanted: int | None, numbers_per_example: int) -> int:
    """Examples per tile: what was asked for, else 32, fewer where the rows of a tile would take more than 64 MiB.

    The activations of a forward pass come on top; for inputs that are large beside the rows give a smaller tile.
    Raises SettingsError below 1.
    """
    if wanted is not None and wanted < 1:
        raise SettingsError(f"The setting 'tile' must be at least 1, but {wanted} came; give a positive number.")
    if wanted is not None:
        return wanted
    return max(1, min(TILE, _TILE_BYTES // max(8 * numbers_per_example, 1)))


@dataclass(frozen=True)
class Tile:
    """Rows of examples start .. start+count-1. `values` (tile * rows_per_example, p) is padded to the full tile by
    repeating the last example, so that every tile is computed by the very same operations."""

    start: int
    count: int
    values: Matrix


class Operator(Protocol):
    """What solvers need of a matrix: its shape and its products, u and v of one or more columns."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def matmul(self, v: Matrix) -> Matrix:
        """Phi v."""

    def rmatmul(self, u: Matrix) -> Matrix:
        """Phi^T u."""


class DesignMatrix(ABC):
    """r x p matrix over the examples, r = n * rows_per_example; row = example * rows_per_example + output.

    Never held whole: `tiles` streams it. `views` names the rows of one example. Cost of every derived method is
    that of one stream, except `gram`, which streams r * p * 8 bytes / 192 MiB times. `watch`, if set, is called with
    the number of examples of every tile, for progress.
    """

    network: Network
    examples: Examples
    tile: int
    watch: Callable[[int], None] | None = None
    memory: int = MEMORY

    @property
    @abstractmethod
    def views(self) -> tuple[str, ...]:
        """Name of each row of one example."""

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """p, or c*p for the trace reduction, or the number of neurons."""

    @abstractmethod
    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        """Rows (tile * rows_per_example, n_columns) of a full tile of examples."""

    @property
    @abstractmethod
    def card(self) -> tuple[str, str]:
        """What the rows are and how outputs were reduced, in words."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the computation wants to be known, such as a fallback that was taken."""
        return ()

    @property
    def rows_per_example(self) -> int:
        return len(self.views)

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the precision that products have."""
        return 8

    @property
    def gram_cost(self) -> float:
        """Multiply-adds of `gram`."""
        rows, columns = self.shape
        return float(rows) ** 2 * columns / 2

    @property
    def product_cost(self) -> float:
        """Multiply-adds of `matmul` and `rmatmul` together, per column, by `held`."""
        rows, columns = self.shape
        return 2.0 * rows * columns

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.examples) * self.rows_per_example, self.n_columns

    @property
    def row_example(self) -> npt.NDArray[np.int64]:
        """(r,) position of the example of each row."""
        return np.repeat(np.arange(len(self.examples)), self.rows_per_example)

    @property
    def row_output(self) -> npt.NDArray[np.int64]:
        """(r,) place of each row among the rows of its example."""
        return np.tile(np.arange(self.rows_per_example), len(self.examples))

    def on(self: D, positions: npt.NDArray[np.int64]) -> D:
        """The same design over some of the examples."""
        chosen = copy.copy(self)
        chosen.examples = self.examples.on(positions)
        return chosen

    def tiles(self, first: int = 0) -> Iterator[Tile]:
        """Stream the rows of the examples from `first` (a multiple of the tile) on, tile by tile."""
        n = len(self.examples)
        for start in range(first, n, self.tile):
            positions = np.minimum(np.arange(start, start + self.tile), n - 1)
            inputs, count = self._padded(start)
            with one_pass():
                values = self._tile_values(inputs, positions)
            if self.watch is not None:
                self.watch(count)
            yield Tile(start, count, values)

    def _padded(self, start: int) -> tuple[torch.Tensor, int]:
        """Inputs of the tile at `start`, filled up with its last example, and how many of them count."""
        inputs = self.network.tensor(self.examples.inputs[start : start + self.tile])
        count = inputs.shape[0]
        if count < self.tile:
            inputs = torch.cat([inputs, inputs[-1:].expand(self.tile - count, *inputs.shape[1:])])
        return inputs, count

    def held(self) -> Operator:
        """The same matrix, for many products: with what makes it in memory, where that is less than the matrix."""
        return self

    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """Stream the matrix: row slices and their rows (b, p), without padding."""
        q = self.rows_per_example
        for tile in self.tiles():
            yield slice(tile.start * q, (tile.start + tile.count) * q), tile.values[: tile.count * q]

    def gram(self) -> Matrix:
        """Phi Phi^T (r, r): the kernel. Cost r^2 p."""
        rows, columns = self.shape
        kernel: Matrix = np.empty((rows, rows))
        q = self.rows_per_example
        held_tiles = max(1, HELD_BYTES // (8 * columns * q * self.tile))
        span = held_tiles * self.tile
        with one_thread():
            for first in range(0, len(self.examples), span):
                stream = self.tiles(first)
                left = np.concatenate([tile.values[: tile.count * q] for tile in islice(stream, held_tiles)])
                own = slice(first * q, first * q + len(left))
                kernel[own, own] = left @ left.T
                for tile in stream:
                    at = slice(tile.start * q, (tile.start + tile.count) * q)
                    kernel[own, at] = left @ tile.values[: tile.count * q].T
                    kernel[at, own] = kernel[own, at].T
        return kernel

    def cogram(self) -> Matrix:
        """Phi^T Phi (p, p). Cost r p^2."""
        total = np.zeros((self.n_columns, self.n_columns))
        with one_thread():
            for held in self._held_rows():
                total += held.T @ held
        return total

    def _held_rows(self) -> Iterator[Matrix]:
        """The matrix in as few pieces as may be held at once: products of large pieces cost far fewer additions."""
        q = self.rows_per_example
        together = max(1, HELD_BYTES // (8 * self.n_columns * q * self.tile))
        stream = self.tiles()
        while pieces := [tile.values[: tile.count * q] for tile in islice(stream, together)]:
            yield np.concatenate(pieces)

    def matmul(self, v: Matrix) -> Matrix:
        """Phi v: (p, k) or (p,) -> (r, k) or (r,)."""
        out = np.empty((self.shape[0], *v.shape[1:]))
        q = self.rows_per_example
        with one_thread():
            for tile in self.tiles():
                at = slice(tile.start * q, (tile.start + tile.count) * q)
                out[at] = (tile.values @ v)[: tile.count * q]
        return out

    def rmatmul(self, u: Matrix) -> Matrix:
        """Phi^T u: (r, k) or (r,) -> (p, k) or (p,)."""
        out = np.zeros((self.n_columns, *u.shape[1:]))
        with one_thread():
            for rows, block in self.blocks():
                out += block.T @ u[rows]
        return out

    def mean(self) -> Matrix:
        """Mean row of each output over the examples: (rows_per_example, p)."""
        q = self.rows_per_example
        total = np.zeros((q, self.n_columns))
        for _, block in self.blocks():
            total += block.reshape(-1, q, self.n_columns).sum(axis=0)
        return total / len(self.examples)

    def squared_norm(self) -> float:
        """Sum of squares of all entries: the trace of the kernel."""
        return float(sum(np.square(block).sum() for _, block in self.blocks()))

    @property
    def rank(self) -> int:
        """Numerical rank, from the smaller Gram matrix: eigenvalues above max * side * 2^-52."""
        rows, columns = self.shape
        side = self.gram() if rows <= columns else self.cogram()
        spectrum = np.linalg.eigvalsh(side)
        return int(np.count_nonzero(spectrum > spectrum[-1] * len(side) * np.finfo(np.float64).eps))


def as_matrix(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """A tensor as a float64 array."""
    return tensor.detach().cpu().to(torch.float64).numpy()
