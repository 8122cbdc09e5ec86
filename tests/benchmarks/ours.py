"""The contestant of the comparison that is feature_lens itself, in the project's own environment."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from nets import read_net
from protocol import Job, Request, serve
from threadpoolctl import threadpool_limits

from feature_lens import EffectiveFeatures, Examples, Network
from feature_lens.features.design import MEMORY, one_thread
from feature_lens.features.eigen_solvers import Eigenpairs, leading_eigenpairs
from feature_lens.features.weight_ranking import Wanted, rank_weights

Array = np.ndarray[Any, Any]
# Shape of the products that the machine's rate is measured with: rows, columns, inner side.
_TILE = (640, 640, 256)


def _design(request: Request, outputs: str = "flattened") -> EffectiveFeatures:
    module, inputs = read_net(request.path.parent, request.net, request.n)
    network = Network.from_module(module, precision=request.options.get("precision", "float32"))
    memory = request.options.get("memory", MEMORY >> 20) << 20
    return EffectiveFeatures(network, Examples.from_arrays(inputs), outputs=outputs, memory=memory)


def full(request: Request) -> Job:
    """`touched`: into memory that was written to before, as where a kernel is computed again."""
    design = _design(request)
    n = request.n
    out = None
    if request.options.get("touched"):
        out = {"": np.ones(design.kernel_shapes()[""], design.dtype)}
    return Job(
        lambda: design.kernels(out=out)[""], lambda kernel: kernel.reshape(n, len(kernel) // n, n, len(kernel) // n)
    )


def trace(request: Request) -> Job:
    return Job(_design(request, "trace").gram, lambda kernel: kernel[:, None, :, None])


def leading(request: Request) -> Job:
    """The k leading eigenvalues of the full kernel, falling, by products on the smaller side in float32, which are
    added up in float64."""
    design, k = _design(request), request.options["k"]
    rows, columns = design.shape

    def run() -> Eigenpairs:
        held = design.held()

        def of_rows(u: Array) -> Array:
            return held.matmul(held.rmatmul(u.astype(np.float32))).astype(np.float64)

        def of_columns(v: Array) -> Array:
            return held.rmatmul(held.matmul(v.astype(np.float32))).astype(np.float64)

        apply = of_rows if rows < columns else of_columns
        with one_thread():
            return leading_eigenpairs(
                apply,
                min(rows, columns),
                k,
                eigenvalue_tolerance=1e-6,
                relative_to="each",
                block=4,
            )

    return Job(run, lambda found: found.values)


def best_examples(request: Request) -> Job:
    """Values of the `keep` highest examples of every weight (p, keep), of one output or of the largest over outputs."""
    output, keep = request.options["output"], request.options["keep"]
    design = _design(request, "flattened" if output == "largest" else output)

    def largest(rows: Array, _start: int) -> Array:
        high, low = rows.max(axis=1, keepdims=True), rows.min(axis=1, keepdims=True)
        return np.where(high >= -low, high, low)

    def alone(rows: Array, _start: int) -> Array:
        return rows

    select = largest if output == "largest" else alone
    return Job(
        lambda: rank_weights(design, Wanted(1, select, keep, second=False)),
        lambda found: found.ranking.highest.value[:, 0],
    )


def gemm_rate(request: Request) -> Job:
    """Flops per second of tile products, two threads with one BLAS thread each, in buffers already touched."""
    rows, columns, inner = _TILE
    random = np.random.default_rng(0)
    tiles = [
        tuple(random.standard_normal(shape, dtype=np.float32) for shape in ((rows, inner), (inner, columns)))
        for _ in range(2)
    ]
    outs = [np.ones((rows, columns), np.float32) for _ in tiles]

    def multiply(worker: int) -> int:
        done, (a, b) = 0, tiles[worker]
        end = time.perf_counter() + 2
        while time.perf_counter() < end:
            np.matmul(a, b, out=outs[worker])
            done += 1
        return done

    def run() -> float:
        with threadpool_limits(1), ThreadPoolExecutor(2) as pool:
            start = time.perf_counter()
            done = sum(pool.map(multiply, range(2)))
            return done * 2 * rows * columns * inner / (time.perf_counter() - start)

    return Job(run, np.atleast_1d)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    tasks = (full, trace, leading, best_examples, gemm_rate)
    serve({task.__name__: task for task in tasks})
