"""Peer: torch.func in the project's own environment, as a user would write it.

full: the Jacobian of chunks of examples by vmap(jacrev), one GEMM per parameter tensor. best_examples: gradients of
chunks by vmap(grad) or vmap(jacrev), and a running top-k of every weight. reference: eigenpairs in float64 by scipy's
Lanczos over products with the Jacobian, and kernels from a float64 Jacobian; both to judge others by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from nets import read_net
from protocol import Job, Request, serve
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.func import functional_call, jacrev, jvp, vjp, vmap

Params = dict[str, torch.Tensor]
_MOST_BYTES = 6 << 30
_CHUNK_BYTES = 512 << 20


def _read(request: Request, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, Params, torch.Tensor]:
    module, examples = read_net(request.path.parent, request.net, request.n)
    module = module.to(dtype)
    inputs = torch.as_tensor(examples)
    params = {name: value.detach() for name, value in module.named_parameters()}
    return module, params, inputs.to(dtype) if inputs.is_floating_point() else inputs


def _one(module: torch.nn.Module) -> Callable[[Params, torch.Tensor], torch.Tensor]:
    return lambda params, x: functional_call(module, params, (x[None],))[0]


def _jacobians(module: torch.nn.Module, params: Params, inputs: torch.Tensor) -> Iterator[tuple[slice, Params]]:
    """Jacobians (b, c, ...) by parameter of chunks of examples, about 512 MB each."""
    of_chunk = vmap(jacrev(_one(module)), in_dims=(None, 0))
    outputs = module(inputs[:1]).shape[1]
    each = outputs * sum(value.numel() * value.element_size() for value in params.values())
    chunk = max(1, _CHUNK_BYTES // each)
    for start in range(0, len(inputs), chunk):
        part = slice(start, min(start + chunk, len(inputs)))
        yield part, of_chunk(params, inputs[part])


def _kernel(request: Request, dtype: torch.dtype) -> Job:
    module, params, inputs = _read(request, dtype)
    with torch.no_grad():
        n, c = len(inputs), module(inputs[:1]).shape[1]
    if n * c * sum(value.numel() * value.element_size() for value in params.values()) > _MOST_BYTES:
        raise MemoryError("The whole Jacobian needs more than 6 GB.")

    def run() -> torch.Tensor:
        held = {name: torch.empty(n, c, value.numel(), dtype=dtype) for name, value in params.items()}
        for part, jacobian in _jacobians(module, params, inputs):
            for name, values in jacobian.items():
                held[name][part] = values.flatten(2)
        kernel = torch.zeros(n * c, n * c, dtype=dtype)
        for values in held.values():
            rows = values.flatten(0, 1)
            kernel.addmm_(rows, rows.T)
        return kernel

    return Job(run, lambda kernel: kernel.numpy().reshape(n, c, n, c))


def full(request: Request) -> Job:
    return _kernel(request, torch.float32)


def full_reference(request: Request) -> Job:
    return _kernel(request, torch.float64)


def best_examples(request: Request) -> Job:
    """The `keep` highest of every weight (p, keep), and with `ends` 2 the lowest too, as we rank them: of output 0, or of
    the value of largest magnitude over outputs."""
    module, params, inputs = _read(request)
    keep, output, ends = (request.options[name] for name in ("keep", "output", "ends"))
    choose = _of_output if output == "output:0" else _largest

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        best: dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]] = {}
        for start, gradients in choose(module, params, inputs):
            for name, values in gradients.items():
                columns = values.flatten(1).T
                where = torch.arange(start, start + columns.shape[1]).expand_as(columns)
                for end in range(ends):
                    kept = best.get((name, end))
                    every = columns if kept is None else torch.cat([kept[0], columns], 1)
                    of = where if kept is None else torch.cat([kept[1], where], 1)
                    top = every.topk(min(keep, every.shape[1]), dim=1, largest=end == 0)
                    best[name, end] = top.values, of.gather(1, top.indices)
        highest = [found for (_, end), found in best.items() if end == 0]
        return torch.cat([one[0] for one in highest]), torch.cat([one[1] for one in highest])

    return Job(run, lambda found: found[0].numpy())


def _of_output(module: torch.nn.Module, params: Params, inputs: torch.Tensor) -> Iterator[tuple[int, Params]]:
    one = _one(module)
    of_chunk = vmap(torch.func.grad(lambda params, x: one(params, x)[0]), in_dims=(None, 0))
    for start in range(0, len(inputs), 128):
        yield start, of_chunk(params, inputs[start : start + 128])


def _largest(module: torch.nn.Module, params: Params, inputs: torch.Tensor) -> Iterator[tuple[int, Params]]:
    for part, jacobian in _jacobians(module, params, inputs):
        chosen = {}
        for name, values in jacobian.items():
            # Several times as quick as argmax and gather.
            high, low = values.amax(dim=1), values.amin(dim=1)
            chosen[name] = torch.where(high >= -low, high, low)
        yield part.start, chosen


def leading_reference(request: Request) -> Job:
    """The leading eigenvalues of J J^T in float64, to 1e-12."""
    module, params, inputs = _read(request, torch.float64)

    def outputs(params: Params) -> torch.Tensor:
        return functional_call(module, params, (inputs,))

    def product(v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values, back = vjp(outputs, params)
        (tangent,) = back(torch.as_tensor(v.reshape(values.shape)))
        return jvp(outputs, (params,), (tangent,))[1].numpy().reshape(-1)

    with torch.no_grad():
        side = outputs(params).numel()
    operator = LinearOperator((side, side), matvec=product, dtype=np.float64)
    start = np.random.default_rng(1).standard_normal(side)
    return Job(
        lambda: eigsh(operator, k=request.options["k"], tol=1e-12, v0=start, return_eigenvectors=False),
        lambda values: np.sort(values)[::-1],
    )


if __name__ == "__main__":
    tasks = (full, full_reference, best_examples, leading_reference)
    serve({task.__name__: task for task in tasks})
