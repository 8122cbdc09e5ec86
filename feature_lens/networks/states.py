"""State dicts made to fit a module: tied tensors under any of their names, everything else under its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from feature_lens.errors import CheckpointError, NetworkError
from feature_lens.networks.checkpoints import load_checkpoint

Params = dict[str, torch.Tensor]
State = Mapping[str, torch.Tensor] | Path | str


def load_trained(module: torch.nn.Module, source: State) -> None:
    """Put a trained state into a module; raises CheckpointError where it is not one of this very architecture."""
    state = _state(source, module, "trained")
    wanted = _tensors_of(module)
    _refuse_misfit(state, {key: tuple(value.shape) for key, value in wanted.items()}, set(wanted), "trained")
    module.load_state_dict({**module.state_dict(), **state})


def params_of(module: torch.nn.Module, source: State, trained: Params, what: str) -> Params:
    """The tensors of theta in another state, such as the 'initial' one, which may leave out all that is not trained.

    Raises CheckpointError for a state of another architecture, NetworkError for numbers that are not finite.
    """
    state = _state(source, module, what)
    shapes = {key: tuple(value.shape) for key, value in trained.items()}
    _refuse_misfit(state, shapes, set(_tensors_of(module)), what)
    start = {
        key: state[key].detach().to(device=value.device, dtype=value.dtype).clone() for key, value in trained.items()
    }
    refuse_non_finite(start, what)
    return start


def refuse_non_finite(tensors: Params, what: str, *, masks: bool = False) -> None:
    """Raise NetworkError where a tensor holds NaN or infinity; with `masks` infinity is allowed: a buffer of -inf
    says which positions attention must not see."""
    for key, value in tensors.items():
        if value.layout != torch.strided:
            value = (value.coalesce() if value.layout == torch.sparse_coo else value).values()
        fine = ~torch.isnan(value) if masks else torch.isfinite(value)
        if not bool(fine.all()):
            bad = int((~fine).sum())
            raise NetworkError(
                f"The {what} parameters must be finite, but '{key}' holds {bad} NaN or infinite values; "
                "give a checkpoint from before training diverged."
            )


def _tensors_of(module: torch.nn.Module) -> Params:
    """The tensors in a module's state dict, themselves rather than detached copies, so that ties can be seen."""
    return {key: value for key, value in module.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}


def _state(source: State, module: torch.nn.Module, what: str) -> Params:
    """A state by name, with what a file may have left out or renamed put right: the second name of a tied tensor,
    and the first part of the names in a module that is itself called 'module'."""
    if not isinstance(source, Mapping | Path | str):
        raise CheckpointError(
            f"The {what} state is a state dict or the path of a checkpoint, but {type(source).__name__} came; "
            "give module.state_dict()."
        )
    state = dict(load_checkpoint(source) if isinstance(source, Path | str) else source)
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"The {what} state must hold tensors by name, but '{key}' holds {type(value).__name__}; "
                "give module.state_dict()."
            )
    wanted = _tensors_of(module)
    if isinstance(source, Path | str) and all(key.startswith("module.") for key in wanted):
        state = {key if key in wanted else f"module.{key}": value for key, value in state.items()}
    given = {id(wanted[key]): state[key] for key in wanted if key in state}
    for key, value in wanted.items():
        if key not in state and id(value) in given:
            state[key] = given[id(value)]
    return state


def _refuse_misfit(state: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]], known: set[str], what: str) -> None:
    missing = [key for key in wanted if key not in state]
    surplus = [key for key in state if key not in known]
    if missing or surplus:
        parts = [f"'{missing[0]}' is missing"] if missing else []
        parts += [f"'{surplus[0]}' is not a part of the network"] if surplus else []
        raise CheckpointError(
            f"The {what} state must name the parameters of this network, but {' and '.join(parts)} "
            f"({len(missing)} missing, {len(surplus)} unknown); give the checkpoint of this very architecture."
        )
    for key, shape in wanted.items():
        if tuple(state[key].shape) != shape:
            raise CheckpointError(
                f"'{key}' of the {what} state must have the shape {shape}, but {tuple(state[key].shape)} came; "
                "give the checkpoint of this very architecture."
            )
