"""Whatever a run holds, held against a loop of autograd and passes of one example each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import Architecture
from oracles import dense_jacobian, with_initial
from torch import nn

from feature_lens.analysis import open_run
from feature_lens.errors import NetworkError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, extract_run
from feature_lens.networks import Network
from feature_lens.run_contents import RunContents

N, TILE = 21, 8
# Examples that go the rare way: none is among those of the first tile.
RARE = [13, 17, 18]
# What is said of every network without parameters from before and held-out examples.
USUAL = ("Initial parameters were not given", "There is no held-out split")


def made(case: Architecture) -> tuple[nn.Module, Network, Examples]:
    """A module, and the network and the examples that are made of it."""
    torch.manual_seed(0)
    module = case.make().double().eval()
    network, inputs = Network.from_module(module), case.inputs(N, RARE, 0)
    if not case.dual:
        return module, network, Examples.from_arrays(inputs)
    with torch.no_grad():
        outputs = module(torch.as_tensor(inputs))
    first = outputs.reshape(N, -1)[:, 0]
    targets = (first > first.median()).numpy().astype(int)
    return module, with_initial(network), Examples.from_arrays(inputs, targets, split=np.arange(N) % 4 != 0)


def goes_the_whole_way(case: Architecture, folder: Path) -> None:
    """A run with all default sets, neurons, the kernel and, where it is wanted, the dual model, read from its file; or
    the one sentence."""
    module, network, examples = made(case)
    settings = ExtractSettings(kernel="flattened", dual=case.dual, keep=N, tile=TILE)
    if case.refused:
        with pytest.raises(NetworkError, match=case.refused):
            extract_run(network, examples, folder / "run.h5", settings, progress=False)
        assert not list(folder.iterdir())
        return
    with open_run(extract_run(network, examples, folder / "run.h5", settings, progress=False)) as run:
        said = [remark for remark in run.provenance.remarks if not remark.startswith(USUAL)]
        assert not [remark for remark in said if not any(re.search(one, remark) for one in case.told)]
        assert not [one for one in case.told if not any(re.search(one, remark) for remark in said)]
        holds(run, module, examples)
        if case.dual:
            _dual(run, network, module, np.asarray(examples.inputs))


def holds(run: RunContents, module: nn.Module, examples: Examples) -> None:
    """Outputs, kernel, every set that a run has, and neurons are right."""
    inputs = np.asarray(examples.inputs)
    _close(np.asarray(run.outputs), _outputs(module, inputs), 1e-11)
    jacobian = dense_jacobian(module, inputs)
    rows = jacobian.reshape(-1, jacobian.shape[2])
    assert run.kernel is not None
    _close(np.asarray(run.kernel.value[:]), rows @ rows.T, 1e-10)
    _weights(run, jacobian)
    _units(run, jacobian, module)
    _eigen(run, jacobian, examples.fitting)
    _neurons(run, module, inputs)


def _outputs(module: nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.stack([module(torch.as_tensor(x)[None]).reshape(-1).numpy() for x in inputs])


def _close(found: Any, wanted: Any, tolerance: float) -> None:
    size = np.abs(wanted).max() if np.size(wanted) else 1.0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(float(size), 1e-300))


def _weights(run: RunContents, jacobian: np.ndarray) -> None:
    """All examples are kept, so a ranking holds every value; float32 is what it is written in."""
    weights, wanted = run.sets["weights"], jacobian.transpose(2, 1, 0)
    for end, sign in (("highest", -1), ("lowest", 1)):
        position, value = weights.read(f"{end}/position"), weights.read(f"{end}/value")
        size = np.abs(wanted).max()
        np.testing.assert_allclose(value, np.take_along_axis(wanted, position, axis=2), rtol=1e-6, atol=1e-13 * size)
        np.testing.assert_allclose(value, sign * np.sort(sign * wanted, axis=2), rtol=1e-6, atol=1e-13 * size)
        assert (np.sort(position, axis=2) == np.arange(wanted.shape[2])).all()
    _close(weights.read("mean"), wanted.mean(axis=2), 1e-6)
    _close(weights.read("std"), wanted.std(axis=2), 1e-6)


def _units(run: RunContents, jacobian: np.ndarray, module: nn.Module) -> None:
    wanted: list[np.ndarray] = []
    start = 0
    columns = (nn.Embedding, nn.EmbeddingBag, nn.ConvTranspose2d)
    turned = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, columns)}
    for name, value in ((name, value) for name, value in module.named_parameters() if value.requires_grad):
        part = jacobian[:, :, start : start + value.numel()] * value.detach().numpy().ravel()
        start += value.numel()
        if value.ndim > 1 and not name.endswith("original1"):
            axis = 1 if name in turned else 0
            by_unit = np.moveaxis(part.reshape(*jacobian.shape[:2], *value.shape), 2 + axis, 0)
            wanted.extend(by_unit.reshape(value.shape[axis], *jacobian.shape[:2], -1).sum(axis=3))
    _close(run.sets["unit"].read("values"), np.stack(wanted).transpose(0, 2, 1), 1e-6)


def _eigen(run: RunContents, jacobian: np.ndarray, fitted: np.ndarray) -> None:
    """Directions are orthonormal eigenvectors of the whole, and values the projections on them."""
    n, c, p = jacobian.shape
    for name, rows in (("eigen", jacobian), ("eigen_trace", jacobian.reshape(n, 1, c * p))):
        if name not in run.sets:
            assert c == 1
            continue
        found = run.sets[name]
        spectrum = found.read("spectrum")
        directions = found.read("direction").reshape(len(spectrum), -1).astype(float)
        of_fitted = rows[fitted].reshape(-1, rows.shape[2])
        wanted = np.linalg.eigvalsh(of_fitted @ of_fitted.T)[::-1]
        _close(spectrum, wanted[: len(spectrum)], 1e-10)
        assert len(spectrum) == 64 or (wanted[len(spectrum) :] < 1.1e-6 * wanted[0]).all()
        _close(directions @ directions.T, np.eye(len(directions)), 1e-5)
        _close(of_fitted.T @ (of_fitted @ directions.T), spectrum * directions.T, 1e-6)
        projected = np.einsum("ncp,kp->kcn", rows, directions)
        _close(found.read("values")[:, 1 if rows.shape[1] > 1 else 0 :], projected, 1e-5)


def _calls(module: nn.Module, inputs: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """What each layer returned in one pass, call by call."""
    made: dict[str, list[torch.Tensor]] = {}

    def noting(name: str) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            made.setdefault(name, []).append(output.detach().clone() if isinstance(output, torch.Tensor) else output)

        return note

    hooks = [part.register_forward_hook(noting(name)) for name, part in module.named_modules()]
    with torch.no_grad():
        module(inputs)
    for hook in hooks:
        hook.remove()
    return made


def _neurons(run: RunContents, module: nn.Module, inputs: np.ndarray) -> None:
    """Of units with many positions the largest value; NaN where an example does not reach a layer."""
    shown = [name for name in run.sets if name.startswith("neurons_")]
    alone = [_calls(module, torch.as_tensor(x)[None]) for x in inputs] if shown else []
    for name in shown:
        found = run.sets[name]
        (layer,) = set(found.read("layer").astype(str))
        wanted = np.full((len(inputs), len(found)), np.nan)
        for place, calls in enumerate(alone):
            for made in (one for one in calls.get(layer, []) if one.numel()):
                axis = 2 if made.ndim == 3 and not isinstance(module.get_submodule(layer), nn.Conv1d) else 1
                wanted[place] = made.moveaxis(axis, 1).reshape(len(found), -1).amax(dim=1)
        values = found.read("values")[:, 0].T
        np.testing.assert_allclose(values, wanted, rtol=1e-6, atol=1e-9 * np.nanmax(np.abs(wanted)), err_msg=layer)


def _dual(run: RunContents, network: Network, module: nn.Module, inputs: np.ndarray) -> None:
    """Contributions are integrals on the way between the parameters, and add up to what training changed."""
    assert run.dual is not None
    assert network.initial is not None
    columns = run.dual.columns
    outputs = _outputs(module, inputs)
    module.load_state_dict(dict(network.initial), strict=False)
    before = _outputs(module, inputs)
    _close(np.asarray(columns["initial_output"]), before, 1e-6)
    shared = np.asarray(columns["tensor/contribution"], dtype=float)
    _close(shared.sum(axis=2) + np.asarray(columns["residual"]), outputs - before, 1e-5)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    few = [0, 1, 13, 17]
    total: Any = 0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        way = {key: value + node * (network.trained[key] - value) for key, value in network.initial.items()}
        module.load_state_dict(way, strict=False)
        total = total + weight * dense_jacobian(module, inputs[few])
    moved = torch.cat([value.flatten() for value in network.displacement().values()]).numpy()
    sizes = [value.numel() for value in network.initial.values()]
    wanted = np.stack([part.sum(axis=2) for part in np.split(total * moved, np.cumsum(sizes)[:-1], axis=2)], axis=2)
    _close(shared[few], wanted, 1e-5)
