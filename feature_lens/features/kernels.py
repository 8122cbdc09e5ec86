"""Kernels of effective features by structured products, without the Jacobian: theory in the docstring of `plan.py`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from feature_lens.cards import ParameterTable
from feature_lens.errors import SettingsError
from feature_lens.features.compiled.pairs import add_scaled, transposed
from feature_lens.features.gathered import Gathered, Pairs, rows_of
from feature_lens.features.plan import Plan
from feature_lens.features.reductions import Reduction
from feature_lens.features.work import Scratch, cores, run_all

Array = npt.NDArray[Any]
By = Literal["whole", "layer", "tensor"]

# Kernel rows and columns of one piece of work: its buffers stay in a core's own cache.
_TILE_ROWS = 960
# Rows of products over several positions.
_TOGETHER = 1024
# Products that are made before they are summed, in one pass over the sum, and the bytes of all of them: rows of a tile
# are taken as few at a time as stay in a core's own cache.
_AT_ONCE = 4
_STRIP_BYTES = 2 << 20


class Source(Protocol):
    """What kernels are made of: effective features, seen as factors of their examples."""

    @property
    def examples(self) -> Sized:
        """What is between: as many as there are."""

    @property
    def reduction(self) -> Reduction:
        """Which quantities have rows."""

    @property
    def parameters(self) -> ParameterTable:
        """The tensors that take part."""

    @property
    def memory(self) -> int:
        """Bytes for blocks and tiles."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision of the kernel."""

    @property
    def tile_bytes(self) -> int:
        """Memory that gathering takes beside what is gathered."""

    def plan(self, n: int | None = None) -> Plan:
        """How each share is computed for n examples."""

    def gathered(self, first: int, stop: int, plan: Plan) -> Gathered:
        """Factors of a range of examples."""


@dataclass(frozen=True)
class KernelRequest:
    """What is computed in one pass: kernels of the whole, of every module ('layer') or of every tensor, between all
    rows or (each_output) between the rows of each output alone, as (c, n, n') arrays."""

    by: By = "whole"
    each_output: bool = False


class KernelWork:
    """Computes kernels between the examples of a design and those of another (its own without).

    Blocks of examples are gathered as large as `memory` allows; tiles of pairs of examples, whose grid depends on
    sizes alone, go through a queue. The upper tiles of a symmetric kernel are computed and mirrored.
    """

    def __init__(self, design: Source, against: Source | None, request: KernelRequest, workers: int | None) -> None:
        self._left, self._right = design, against if against is not None else design
        self._symmetric = against is None
        self._request = request
        self._workers = workers or cores()
        if request.by not in ("whole", "layer", "tensor"):
            raise SettingsError(f"Kernels come by whole, layer or tensor, not by '{request.by}'; choose one of them.")
        if design.parameters != self._right.parameters or design.reduction != self._right.reduction:
            raise SettingsError(
                "Kernels are taken between designs of one network, reduction and layers, but two different ones came; "
                "use design.on(positions) or the same settings."
            )
        self._plan = design.plan(len(self._right.examples))
        q = self._plan.rows
        self._joined = design.reduction.joined
        # Rows of the kernel per example, and rows per example of each product.
        self._q = 1 if self._joined or request.each_output else q
        self._scratch = Scratch()
        self._lock = threading.Lock()
        self._dtype = design.dtype

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the kernels, in the order of theta."""
        names = self._left.parameters.names
        if self._request.by == "whole":
            return ("",)
        return tuple(dict.fromkeys(self._key(name) for name in names))

    def _key(self, name: str) -> str:
        if self._request.by == "whole":
            return ""
        return name if self._request.by == "tensor" else name.rpartition(".")[0] or name

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each kernel."""
        n, m = len(self._left.examples), len(self._right.examples)
        if self._request.each_output:
            return self._plan.rows, n, m
        return n * self._q, m * self._q

    def run(self, out: dict[str, Any]) -> None:
        """Fill the arrays (or HDF5 data sets) of `keys`."""
        n, m = len(self._left.examples), len(self._right.examples)
        span, block = self._sizes(n, m)
        for first in range(0, n, block):
            left = self._left.gathered(first, min(first + block, n), self._plan)
            if self._symmetric:
                self._between(left, first, left, first, span, out)
            for other in range(first + block if self._symmetric else 0, m, block):
                right = self._right.gathered(other, min(other + block, m), self._plan)
                self._between(left, first, right, other, span, out)

    def _sizes(self, n: int, m: int) -> tuple[int, int]:
        """Examples along one side of a tile, and of a block. The tile, which shapes rounding, follows from sizes and
        memory alone; a block from what is left beside the tiles and passes of as many workers as there are."""
        together, memory = n + (0 if self._symmetric else m), self._left.memory
        span = self._span(max(n, m))
        while span > 1 and (self._buffers(span) > memory // 8 or min(together, 2 * span) * self._held > memory // 2):
            span //= 2
        self._workers = max(1, min(self._workers, memory // 4 // self._buffers(span)))
        room = memory - self._workers * self._buffers(span) - self._left.tile_bytes
        if together * self._held <= room:
            return span, -(-together // span) * span
        if block := max(0, int(room / 2 // max(self._held, 1)) // span * span):
            return span, block
        least = (self._buffers(1) + self._left.tile_bytes + 2 * self._held) >> 20
        raise SettingsError(
            f"A kernel of this network needs a working memory of at least {least + 1:,} MiB, but "
            f"{memory >> 20:,} MiB were allowed; allow more."
        )

    @property
    def _held(self) -> int:
        """Bytes of the factors of an example."""
        return self._plan.held * self._dtype.itemsize

    def _buffers(self, span: int) -> int:
        """Bytes that a worker takes for a tile while it is computed."""
        at_once = min(_AT_ONCE, sum(share.positions**2 for share in self._plan.shares if share.how == "pairs"))
        side = span * self._q
        strip = _strip(at_once, side, self._q, self._dtype.itemsize)
        numbers = len(self.keys) * side**2 + at_once * (min(strip, side) * side + len(self.keys) * span**2)
        if self._q == 1 and any(share.positions > 1 for share in self._plan.shares if share.how == "pairs"):
            numbers += 3 * min(_TOGETHER, max(share.positions for share in self._plan.shares) * span) ** 2
        return numbers * self._dtype.itemsize

    def _span(self, n: int) -> int:
        """Examples along one side of a tile: enough rows for fast products, and several tiles for the workers."""
        per_example = self._q * (self._plan.rows if self._request.each_output else 1)
        most = max(1, _TILE_ROWS // per_example)
        if self._request.by != "whole":
            most = max(1, int(most / np.sqrt(len(self.keys))))
        return max(1, min(most, -(-n // 4)))

    def _outputs(self) -> int:
        return self._plan.rows if self._request.each_output else 1

    def _between(self, left: Gathered, first: int, right: Gathered, other: int, span: int, out: dict[str, Any]) -> None:
        same = left is right

        def task(i: int, j: int) -> Callable[[], None]:
            return lambda: self._tile(
                left, slice(i, min(i + span, left.n)), first, right, slice(j, min(j + span, right.n)), other, out
            )

        run_all(
            [task(i, j) for i in range(0, left.n, span) for j in range(i if same else 0, right.n, span)], self._workers
        )

    def _tile(
        self, left: Gathered, at: slice, first: int, right: Gathered, to: slice, other: int, out: dict[str, Any]
    ) -> None:
        q, keys = self._q, self.keys
        rows, columns = (
            slice((start + part.start) * q, (start + part.stop) * q) for start, part in ((first, at), (other, to))
        )
        place = {key: k for k, key in enumerate(keys)}
        # Many positions first: each adds little, and is lost less on a sum that is still small.
        pairs = sorted(zip(left.pairs, right.pairs, strict=True), key=lambda one: -len(one[0].positions()))
        for output in range(self._outputs()):
            targets = [self._target(out[key], output) for key in keys]
            if left.matrix.shape[2] == 0 and self._written_once(pairs, targets):
                total = [target[rows, columns] for target in targets]
            else:
                size = (len(keys), rows.stop - rows.start, columns.stop - columns.start)
                total = list(self._scratch.array("total", size, self._dtype))
            sums = _Sums(total, q, self._scratch)
            self._add_rows(sums, place, left, at, right, to, output)
            apart = []
            for mine, theirs in pairs:
                if q == 1 and mine.g.shape[0] > 1:
                    self._add_together(sums, place, mine, at, theirs, to, output)
                else:
                    apart.append((mine, theirs))
            for group in _groups(self._terms(apart, place, at, to, output)):
                sums.add_products(group)
            sums.finish()
            for target, tile in zip(targets, total, strict=True):
                self._put(target, tile, rows, columns, output)

    def _target(self, out: Any, output: int) -> Any:
        """Where a kernel goes: an array of its own (rows, columns), or the data set that it is in."""
        return out[output] if self._request.each_output and isinstance(out, np.ndarray) else out

    def _written_once(self, pairs: Sequence[tuple[Pairs, Pairs]], targets: Sequence[Any]) -> bool:
        """Whether a tile is summed in one pass, and so can be where it belongs from the beginning."""
        terms = sum(len(mine.positions()) * len(theirs.positions()) for mine, theirs in pairs)
        arrays = all(isinstance(target, np.ndarray) and target.dtype == self._dtype for target in targets)
        return self._request.by == "whole" and terms <= _AT_ONCE and arrays

    def _add_rows(
        self, sums: _Sums, place: dict[str, int], left: Gathered, at: slice, right: Gathered, to: slice, output: int
    ) -> None:
        """Products of per-example gradients."""
        mine, theirs = left.matrix[at], right.matrix[to]
        if mine.shape[2] == 0:
            return
        if self._request.by == "whole":
            sums.add(0, self._flat(mine, output), self._flat(theirs, output))
            return
        for rows in left.rows:
            a, b = mine[:, :, rows.columns], theirs[:, :, rows.columns]
            sums.add(place[self._key(rows.name)], self._flat(a, output), self._flat(b, output))

    def _flat(self, matrix: Array, output: int) -> Array:
        """(b, q, m) as the rows of the kernel: (b q, m), (b, q m) where outputs are joined, (b, m) of one output."""
        if self._request.each_output:
            return matrix[:, output]
        made: Array = matrix.reshape(len(matrix) * self._q, -1)
        return made

    def _terms(
        self, pairs: Sequence[tuple[Pairs, Pairs]], place: dict[str, int], at: slice, to: slice, output: int
    ) -> Iterator[_Term]:
        """What is multiplied and scaled for pairs of positions, one after the other."""
        for mine, theirs in pairs:
            shape = (-1, self._plan.rows, mine.n_out)
            for t in mine.positions():
                left = self._flat(mine.g[t, at].reshape(shape), output)
                for u in theirs.positions():
                    scales: dict[int, Any] = {}
                    for a, b in zip(mine.inputs, theirs.inputs, strict=True):
                        k = place[self._key(a.name)]
                        scales[k] = scales.get(k, 0.0) + a.gram(t, at, b, u, to)
                    yield _Term(left, self._flat(theirs.g[u, to].reshape(shape), output), scales)

    def _add_together(
        self, sums: _Sums, place: dict[str, int], mine: Pairs, at: slice, theirs: Pairs, to: slice, output: int
    ) -> None:
        """The same where an example has one row: some positions of both sides in one product, since those of single
        positions would be small."""
        b, c = at.stop - at.start, to.stop - to.start
        each = max(1, _TOGETHER // max(b, c))
        for ts in _some(mine.positions(), each):
            left = rows_of(self._of_output(mine.g, output), ts, at)
            for us in _some(theirs.positions(), each):
                product = left @ rows_of(self._of_output(theirs.g, output), us, to).T
                parts: dict[int, Any] = {}
                for x, y in zip(mine.inputs, theirs.inputs, strict=True):
                    k = place[self._key(x.name)]
                    parts[k] = parts.get(k, 0.0) + x.gram_over(ts, at, y, us, to)
                for k, scale in parts.items():
                    scaled = np.multiply(product, scale, out=product if len(parts) == 1 else None)
                    # One axis after the other: the sum over both at once takes twice as long.
                    sums.add_values(k, scaled.reshape(b, len(ts), -1).sum(axis=1).reshape(b, c, len(us)).sum(axis=2))

    def _of_output(self, g: Array, output: int) -> Array:
        """g (t, b, q o), or of one output alone (t, b, o)."""
        if not self._request.each_output:
            return g
        made: Array = g.reshape(*g.shape[:2], self._plan.rows, -1)[:, :, output]
        return made

    def _put(self, target: Any, tile: Array, rows: slice, columns: slice, output: int) -> None:
        mirror = self._symmetric and rows.start != columns.start
        if isinstance(target, np.ndarray):
            if not np.may_share_memory(target, tile):  # else it was summed where it belongs
                target[rows, columns] = tile
            if mirror:
                transposed(target[columns, rows], tile)
        else:
            lead = (output,) if self._request.each_output else ()
            with self._lock:
                target[(*lead, rows, columns)] = tile
                if mirror:
                    target[(*lead, columns, rows)] = tile.T


@dataclass(frozen=True)
class _Term:
    """left right^T, of which a multiple for every pair of examples goes to the kernel of each number in `scales`."""

    left: Array
    right: Array
    scales: dict[int, Any]


class _Sums:
    """Kernels of one tile by number (rows, columns), q rows per example: what comes first is written, the rest is
    added."""

    def __init__(self, total: Sequence[Array], q: int, scratch: Scratch) -> None:
        self._total, self._q, self._scratch = total, q, scratch
        self._started: set[int] = set()

    def add(self, k: int, left: Array, right: Array) -> None:
        """left right^T."""
        if k in self._started:
            self._total[k][...] += left @ right.T
        else:
            np.matmul(left, right.T, out=self._total[k])
        self._started.add(k)

    def add_values(self, k: int, values: Array) -> None:
        if k in self._started:
            self._total[k][...] += values
        else:
            self._total[k][...] = values
        self._started.add(k)

    def add_products(self, terms: Sequence[_Term]) -> None:
        """Terms that go to the same kernels, a strip of rows at a time."""
        (rows, columns), dtype, q = self._total[0].shape, self._total[0].dtype, self._q
        scales = {
            k: self._scratch.array(f"scales {k}", (len(terms), rows // q, columns // q), dtype) for k in terms[0].scales
        }
        for m, term in enumerate(terms):
            for k, scale in term.scales.items():
                scales[k][m] = scale
        step = _strip(len(terms), columns, q, dtype.itemsize)
        for first in range(0, rows, step):
            stop = min(first + step, rows)
            products = self._scratch.array("products", (len(terms), stop - first, columns), dtype)
            for product, term in zip(products, terms, strict=True):
                np.matmul(term.left[first:stop], term.right.T, out=product)
            for k, scale in scales.items():
                own = scale[:, first // q : stop // q]
                add_scaled(self._total[k][first:stop], products, own, q, k in self._started)
        self._started.update(scales)

    def finish(self) -> None:
        """Kernels that nothing went to are zero."""
        for k, total in enumerate(self._total):
            if k not in self._started:
                total[...] = 0


def _strip(count: int, columns: int, q: int, itemsize: int) -> int:
    """Rows of a tile that so many products are made of at a time: those of whole examples."""
    return max(1, _STRIP_BYTES // (max(count, 1) * columns * itemsize * q)) * q


def _groups(terms: Iterator[_Term]) -> Iterator[list[_Term]]:
    """Up to so many successive terms that go to the same kernels."""
    group: list[_Term] = []
    for term in terms:
        if group and (len(group) == _AT_ONCE or term.scales.keys() != group[0].scales.keys()):
            yield group
            group = []
        group.append(term)
    if group:
        yield group


def _some(positions: list[int], each: int) -> list[list[int]]:
    return [positions[first : first + each] for first in range(0, len(positions), each)]
