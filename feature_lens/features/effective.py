"""Effective features: the Jacobian of a network's outputs at its trained (or initial) parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.errors import ExamplesError
from feature_lens.examples import Examples
from feature_lens.features.design import MEMORY, DesignMatrix, Matrix, Operator, as_matrix, one_thread, tile_size
from feature_lens.features.forms import Form, FormChanged, SharedSource, form_of, until_kept
from feature_lens.features.gathered import Gathered
from feature_lens.features.grouped_check import grouped_differ
from feature_lens.features.kernels import By, KernelRequest, KernelWork
from feature_lens.features.kinds import KINDS, Ask, Source
from feature_lens.features.pieces import Piece, as_rows
from feature_lens.features.plan import Plan, make_plan
from feature_lens.features.probe import PROBED
from feature_lens.features.products import Held, Products
from feature_lens.features.reductions import reduction
from feature_lens.features.work import cores, together
from feature_lens.networks import Network
from feature_lens.networks.passes import one_pass

Array = npt.NDArray[Any]

T = TypeVar("T")

# Per-example gradients of the examples of one pass, and what backward takes beside the factors that come of a pass.
_TILE_BYTES = 64 << 20
_BACKWARD = 3


class EffectiveFeatures(DesignMatrix):
    """phi_i,mu(x) = sqrt(lambda_mu) d f_i(x) / d theta_mu, streamed in tiles.

    at: the feature kind. "effective": at the trained parameters theta*; "initial": at theta0; "sharp": the mean of
    both; "first_order": effective features to first order in theta* - theta0; "path": the mean along the straight
    line from theta0 to theta*, whose products with theta* - theta0 add up to f(theta*) - f(theta0), integrated to
    `tolerance` where that is not exact. All but the first need the initial parameters.

    Derived independently; intended to correspond to the random features, effective features and trained features
    ("sharp" here) of Roberts, Yaida and Hanin, The Principles of Deep Learning Theory, arXiv:2106.10165, ch. 11 and
    infinity. The kernel `gram()` is the neural tangent kernel at those parameters; that of a few tensors (`layers`)
    is their share of it, and the shares add up.

    outputs: flattened (rows example * c + output), trace (columns output * p + parameter), output:i, sum, target,
    predicted, margin, or a callable of the outputs (c,). layers: names of parameter tensors, or of modules holding
    them; all without. tile: examples per tile; it shapes rounding, so it belongs to the settings of a run.

    Raises NetworkError or ExamplesError for what `Network.check` refuses, SettingsError for unknown names.
    Cost of one stream: n*c backward passes, twice as many for sharp features, one for every node for path features.
    """

    def __init__(
        self,
        network: Network,
        examples: Examples,
        at: str = "effective",
        outputs: str | Callable[[torch.Tensor], torch.Tensor] = "flattened",
        *,
        layers: Sequence[str] | None = None,
        tile: int | None = None,
        memory: int = MEMORY,
        workers: int | None = None,
        tolerance: float = 1e-8,
    ) -> None:
        self.network = network
        self.examples = examples
        self.at = at
        self.kind = KINDS[at]
        self.n_outputs = network.check(examples)
        self.reduction = reduction(outputs, self.n_outputs)
        if self.reduction.needs_label:
            self._check_labels()
        self.parameters = network.parameters if layers is None else network.parameters.of(layers)
        self.n_parameters = self.parameters.total
        self.tile = tile_size(tile, self.reduction.quantities(self.n_outputs) * self.n_parameters)
        self._scale: npt.NDArray[np.float64] = np.sqrt(np.repeat(self.parameters.learning_rates, self.parameters.sizes))
        self._slices = dict(self.parameters.slices)
        self._plain = bool((self._scale == 1).all())
        self.memory, self.workers = memory, workers
        self._asked_tile = tile
        # Shared by the designs that `on` makes: the form of gradients belongs to it.
        self._source = SharedSource(self.kind.make(Ask(network, self.reduction, self.parameters.names, tolerance)))
        self._verified: set[tuple[int, int, int]] = set()

    def on(self, positions: npt.NDArray[np.int64]) -> EffectiveFeatures:
        """The same features of some of the examples, from the same source."""
        chosen = super().on(positions)
        chosen._verified = set()
        return chosen

    def _check_labels(self) -> None:
        labels, c = self.examples.labels, self.n_outputs
        if labels is None or int(labels.max()) >= c:
            came = (
                "there are none" if labels is None else f"{labels.max()} came (id {self.examples.ids[labels.argmax()]})"
            )
            raise ExamplesError(
                f"The reduction '{self.reduction.name}' needs a class label for each example, a number from 0 to {c - 1} of "
                f"the network's outputs, but {came}; give such targets or choose another reduction."
            )

    @property
    def views(self) -> tuple[str, ...]:
        return self.reduction.views(self.n_outputs)

    @property
    def n_columns(self) -> int:
        joined = self.reduction.quantities(self.n_outputs) if self.reduction.joined else 1
        return joined * self.n_parameters

    @property
    def card(self) -> tuple[str, str]:
        return self.kind.title, f"{self.reduction.name}: {self.reduction.description}"

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._source.remarks

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """sqrt(lambda) of each parameter (p,)."""
        return self._scale.copy()

    def weights(self) -> npt.NDArray[np.float64]:
        """What a unit's weight features are summed by (p,): the parameters at which the features are taken, or, for
        kinds between both ends, what training added to them; of the chosen tensors."""
        if self.kind.weights == "added":
            params = self.network.displacement()
        else:
            params = self.network.at("effective" if self.kind.weights == "trained" else "initial")
        weights: Matrix = np.concatenate([as_matrix(params[name]).reshape(-1) for name in self.parameters.names])
        return weights

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision of the network, and so of its kernels."""
        return np.dtype(str(self.network.dtype).removeprefix("torch."))

    def _tile_values(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> Matrix:
        q, at_once = self.reduction.quantities(self.n_outputs), self.factor_tile
        jacobian = np.zeros((len(positions), q, self.n_parameters))
        sizes = dict(zip(self.parameters.names, self.parameters.sizes, strict=True))
        for first in range(0, len(positions), at_once):
            part = slice(first, first + at_once)
            like = torch.zeros(len(positions[part]), q, dtype=self.network.dtype)
            jacobian[part] = as_matrix(as_rows(self._pieces(inputs[part], positions[part]), sizes, like))
        if not self._plain:
            jacobian *= self._scale
        return jacobian.reshape(len(positions) * self.rows_per_example, self.n_columns)

    def _labels(self, positions: npt.NDArray[np.int64]) -> torch.Tensor:
        labels = self.examples.labels
        chosen = np.zeros(len(positions), dtype=np.int64) if labels is None else labels[positions]
        return torch.as_tensor(chosen, device=self.network.device)

    def _pieces(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64]) -> list[Piece]:
        """Pieces of some successive examples, in whatever form they have now."""

        def attempt() -> list[Piece]:
            self._prepare()
            return self._tile_pieces(inputs, positions, None)

        return until_kept(lambda: self.form_version, attempt)

    def _tile_pieces(self, inputs: torch.Tensor, positions: npt.NDArray[np.int64], twin: Source | None) -> list[Piece]:
        """Pieces of a tile of successive examples, held against autograd when it is met first."""
        tile = int(positions[0]), len(positions), self.form_version
        made = self._source.pieces(inputs, self._labels(positions), tile not in self._verified, twin)
        self._verified.add(tile)
        return made

    def _prepare(self) -> list[Piece]:
        """Pieces of a few examples over the whole range, which say what forms there are."""
        with one_pass():
            if not self._source.is_prepared:
                n = len(self.examples)
                positions = np.unique(np.linspace(0, n - 1, min(n, PROBED)).astype(np.int64))
                inputs = self.network.tensor(np.asarray(self.examples.inputs[positions]))
                self._source.prepare(inputs, self._labels(positions))
            return self._source.few(
                lambda few: grouped_differ(few, self._plan_of(few, len(self.examples)), self.parameters, self.reduction)
            )

    @property
    def factor_tile(self) -> int:
        """Examples per pass when factors are gathered: what was asked for as `tile`, else up to 256, so that two passes
        take a quarter of the memory, and an even number of passes, which may run in pairs, takes all examples."""
        if self._asked_tile is not None:
            return self._asked_tile
        most = max(1, min(256, self.memory // 8 // self._pass_bytes))
        n = len(self.examples)
        pairs = -(-n // (2 * most))
        return -(-n // (2 * pairs)) if n > PROBED else n

    @property
    def _pass_bytes(self) -> int:
        """Bytes that a pass takes for each example."""
        return max(1, _BACKWARD * sum(piece.numbers for piece in self._prepare()) * self.dtype.itemsize)

    @property
    def _at_once(self) -> int:
        """Passes at once: one per core, as far as they take a quarter of the memory."""
        return max(1, min(self.workers or cores(), self.memory // 4 // (self.factor_tile * self._pass_bytes)))

    @property
    def tile_bytes(self) -> int:
        """Bytes that passes take."""
        return self._at_once * self.factor_tile * self._pass_bytes

    def plan(self, n: int | None = None) -> Plan:
        """How each layer's share of the kernel is computed, for n examples (as many as there are without)."""
        return self._plan_of(self._prepare(), n or len(self.examples))

    def _plan_of(self, few: list[Piece], n: int) -> Plan:
        q = self.reduction.quantities(self.n_outputs)
        return make_plan(few, n, q, self.reduction.joined, _TILE_BYTES // self.dtype.itemsize)

    def pieces(self) -> list[Piece]:
        """Factors of a few examples: their form is that of every block of `stream`."""
        return self._prepare()

    @property
    def form_version(self) -> int:
        """How often the form of the gradients has changed."""
        return self._source.version

    def stream(self, form: Form, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, list[Piece]]]:
        """Factors of the examples first .. stop-1, pass by pass: start, number of examples, and pieces of that form.

        Passes begin where they would begin in a stream of all examples and are padded, so that no range shapes
        rounding. Raises FormChanged where the network runs otherwise than on the examples before: begin again.
        """
        yield from self._passes(form, first, stop, lambda start, count, pieces: (start, count, pieces))

    def _passes(
        self, form: Form, first: int, stop: int | None, then: Callable[[int, int, list[Piece]], T]
    ) -> Iterator[T]:
        """What `then` makes of the start, count and pieces of every pass, in order; several at once in threads, each
        with a twin of the source, where there can be twins."""
        stop, tile = len(self.examples) if stop is None else stop, self.factor_tile
        starts = list(range(first // tile * tile, stop, tile))

        def run(twin: Source, start: int) -> T:
            skipped, end = max(first - start, 0), min(stop - start, tile)
            pieces = self._pass(twin, start, tile)
            if form_of(pieces) != form:
                raise FormChanged
            return then(start + skipped, end - skipped, [piece.take(slice(skipped, end)) for piece in pieces])

        self._prepare()
        twins = self._source.twins(min(self._at_once, len(starts)))
        for at in range(0, len(starts), len(twins)):
            some = starts[at : at + len(twins)]
            with one_pass(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
                made = together([partial(run, twin, start) for twin, start in zip(twins, some, strict=False)])
            if self.watch is not None:
                self.watch(min(some[-1] + tile, stop) - max(some[0], first))
            yield from made

    def _pass(self, twin: Source, start: int, tile: int) -> list[Piece]:
        """Pieces of a full tile of examples, the last of them repeated."""
        positions = np.minimum(np.arange(start, start + tile), len(self.examples) - 1)
        inputs = self.network.tensor(np.asarray(self.examples.inputs[start : start + tile]))
        if short := tile - len(inputs):
            inputs = torch.cat([inputs, inputs[-1:].expand(short, *inputs.shape[1:])])
        return self._tile_pieces(inputs, positions, twin)

    def gathered(self, first: int, stop: int, plan: Plan) -> Gathered:
        """Factors of the examples first .. stop-1 in the plan's forms. Cost: their forward and backward passes."""
        rates = dict(zip(self.parameters.names, self.parameters.learning_rates, strict=True))
        held = Gathered.room(plan, self._prepare(), stop - first, rates, self.dtype)

        def put(start: int, count: int, pieces: list[Piece]) -> None:
            held.put(plan, pieces, start - first, count)

        for _ in self._passes(plan.form, first, stop, put):
            pass
        return held

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def gram_cost(self) -> float:
        return self.plan().cost / 2

    @property
    def product_cost(self) -> float:
        return self.plan().product_cost

    def held(self) -> Operator:
        """Products with factors that stay in memory as long as the answer does, where `memory` allows it."""
        plan = self.plan()
        if len(self.examples) * plan.held * self.dtype.itemsize > self.memory // 4 * 3:
            return self
        with one_thread():
            try:
                held = self.gathered(0, len(self.examples), plan)
            except FormChanged:
                return self.held()  # by another plan: see `_passes`, which raises no oftener than tensors can fall
        return Held(self.shape, Products(held, self._slices, self.n_parameters, self.reduction.joined, self.workers))

    def matmul(self, v: Matrix) -> Matrix:
        """Phi v: (columns, k) or (columns,) -> (r, k) or (r,), from blocks of factors."""
        columns = v.reshape(len(v), -1)
        return np.concatenate(self._blockwise(lambda part, _: part.matmul(columns))).reshape(-1, *v.shape[1:])

    def rmatmul(self, u: Matrix) -> Matrix:
        """Phi^T u: (r, k) or (r,) -> (columns, k) or (columns,), from blocks of factors, added up in float64."""
        rows, q = u.reshape(len(u), -1), self.rows_per_example
        total: Matrix = np.zeros((self.n_columns, rows.shape[1]))
        for part in self._blockwise(lambda part, at: part.rmatmul(rows[at.start * q : at.stop * q])):
            total += part
        return total.reshape(-1, *u.shape[1:])

    def diagonal(self) -> Matrix:
        """Squares of the rows (r,): the diagonal of the kernel, in float64."""
        return np.concatenate(self._blockwise(lambda part, _: part.diagonal())).ravel()

    def squared_norm(self) -> float:
        """Sum of squares of all entries: the trace of the kernel."""
        return float(self.diagonal().sum())

    def mean(self) -> Matrix:
        """Mean row of each output over the examples: (rows_per_example, columns)."""
        n, q = len(self.examples), self.rows_per_example
        return self.rmatmul(np.tile(np.eye(q) / n, (n, 1))).T

    def _blockwise(self, compute: Callable[[Products, slice], Array]) -> list[Array]:
        """What is computed of each block of examples that fits in memory."""
        return until_kept(lambda: self.form_version, lambda: self._by_blocks(compute))

    def _by_blocks(self, compute: Callable[[Products, slice], Array]) -> list[Array]:
        n, plan, tile = len(self.examples), self.plan(), self.factor_tile
        # Passes may take a quarter; how many there are at once must not shape the sums.
        block = max(tile, int(self.memory // 4 * 3 // max(plan.held * self.dtype.itemsize, 1)) // tile * tile)
        found = []
        with one_thread():
            for first in range(0, n, block):
                at = slice(first, min(first + block, n))
                held = self.gathered(at.start, at.stop, plan)
                products = Products(held, self._slices, self.n_parameters, self.reduction.joined, self.workers)
                found.append(compute(products, at))
        return found

    def gram(self) -> Array:
        """The neural tangent kernel Phi Phi^T (r, r), in the network's precision, by the plan of `plan()`.

        Peak memory: the result and `memory`. Raises SettingsError where that is too little for a single block.
        """
        return self.kernels()[""]

    def kernel_shapes(
        self, by: By = "whole", each_output: bool = False, against: EffectiveFeatures | None = None
    ) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what `kernels` fills."""
        work = KernelWork(self, against, KernelRequest(by, each_output), self.workers)
        return dict.fromkeys(work.keys, work.shape)

    def kernels(
        self,
        against: EffectiveFeatures | None = None,
        *,
        by: By = "whole",
        each_output: bool = False,
        out: Mapping[str, Any] | None = None,
    ) -> dict[str, Array]:
        """Kernels in one pass, by name: {"": whole}, or one for every module ('layer') or tensor; they add up.

        against: the same design on other examples, for the kernel between both (r, r'). each_output: the kernels of
        each output alone, (c, n, n'), whose sum over c is the trace kernel. out: arrays or HDF5 data sets to fill
        instead of new memory, by name. Cost: see `plan()`.
        """
        designs = (self,) if against is None else (self, against)
        return until_kept(
            lambda: [design.form_version for design in designs], lambda: self._kernels(against, by, each_output, out)
        )

    def _kernels(
        self, against: EffectiveFeatures | None, by: By, each_output: bool, out: Mapping[str, Any] | None
    ) -> dict[str, Array]:
        if against is not None and against.parameters == self.parameters:
            self._source.make_alike(self.pieces(), against._source, against.pieces())
        work = KernelWork(self, against, KernelRequest(by, each_output), self.workers)
        filled = {key: np.empty(work.shape, self.dtype) if out is None else out[key] for key in work.keys}
        with one_thread():
            work.run(filled)
        return filled
