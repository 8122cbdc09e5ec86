"""Peer: kernels by neural-tangents with structured derivatives, on JAX; compiled before the clock starts.

Its experimental part alone needs TensorFlow and is left out. Dense weights are held as (in, out): the rules of
structured derivatives look for that form, and are about ninety times slower without it.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from protocol import Job, Request, serve

sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")
nt = importlib.import_module("neural_tangents")

Params = dict[str, Any]


def _mlp(params: Params, x: Any) -> Any:
    last = max(int(name.split(".")[0]) for name in params)
    for layer in range(0, last + 1, 2):
        x = x @ params[f"{layer}.weight"] + params[f"{layer}.bias"]
        x = x if layer == last else jax.nn.relu(x)
    return x


def _cnn(params: Params, x: Any) -> Any:
    for layer in (0, 2, 4):
        x = lax.conv_general_dilated(
            x, params[f"{layer}.weight"], (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        x = jax.nn.relu(x + params[f"{layer}.bias"][:, None, None])
    return x.reshape(len(x), -1) @ params["7.weight"] + params["7.bias"]


def _decoder(params: Params, tokens: Any) -> Any:
    one_hot = jax.nn.one_hot(tokens, len(params["embed.weight"]))
    h = one_hot @ params["embed.weight"] + params["pos"]
    n, length, width = h.shape
    heads = 4
    q, k, v = (
        (h @ params[f"{name}.weight"]).reshape(n, length, heads, -1).transpose(0, 2, 1, 3) for name in ("q", "k", "v")
    )
    mask = jnp.triu(jnp.full((length, length), -jnp.inf), 1)
    scores = q @ k.transpose(0, 1, 3, 2) / (width // heads) ** 0.5 + mask
    mixed = (jax.nn.softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3).reshape(n, length, width)
    h = h + mixed @ params["o.weight"]
    h = h + jax.nn.relu(h @ params["up.weight"]) @ params["down.weight"]
    return h[:, -1] @ params["unembed.weight"]


_APPLY = {"mlp": _mlp, "digits": _mlp, "cnn": _cnn, "decoder": _decoder}


def _read(request: Request) -> tuple[Params, Any]:
    with np.load(request.path) as held:
        arrays = {name: held[name] for name in held.files}
    inputs = arrays.pop("inputs")[: request.n]
    dense = {
        name: value.T if value.ndim == 2 and name[:5] not in ("embed", "pos") else value
        for name, value in arrays.items()
    }
    return {name: jnp.asarray(value) for name, value in dense.items()}, jnp.asarray(inputs)


def _kernel(request: Request, trace_axes: tuple[int, ...]) -> Any:
    params, inputs = _read(request)
    ntk = nt.empirical_ntk_fn(
        _APPLY[request.net],
        trace_axes=trace_axes,
        vmap_axes=0,
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )
    compiled = jax.jit(lambda x, params: ntk(x, None, params)).lower(inputs, params).compile()
    return lambda: compiled(inputs, params).block_until_ready()


def full(request: Request) -> Job:
    job = _kernel(request, ())
    return Job(job, lambda kernel: np.asarray(kernel).transpose(0, 2, 1, 3))


def trace(request: Request) -> Job:
    """neural-tangents gives the mean over outputs where the others give the sum; the factor is put in afterwards."""
    job = _kernel(request, (-1,))
    params, inputs = _read(request)
    outputs = _APPLY[request.net](params, inputs[:1]).shape[1]
    return Job(job, lambda kernel: np.asarray(kernel)[:, None, :, None] * outputs)


if __name__ == "__main__":
    serve({"full": full, "trace": trace})
