"""State dicts made to fit a module: names as it has them, tied tensors under any of theirs, numbers of the right kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from feature_lens.errors import CheckpointError, NetworkError, in_brief
from feature_lens.networks.checkpoints import EXTRA, read_state
from feature_lens.networks.naming import Wanted, matched

Params = dict[str, torch.Tensor]
State = Mapping[str, torch.Tensor] | Path | str


def load_trained(module: torch.nn.Module, source: State) -> None:
    """Put a trained state into a module, which keeps its own buffers of whole numbers (how many batches were seen) where
    the state has none; raises CheckpointError where it is not one of this very architecture."""
    tensors = _tensors_of(module)
    needed = [
        key for key, value in tensors.items() if value.numel() and (value.is_floating_point() or value.is_complex())
    ]
    given, extra = _given(source, "trained")
    own = module.state_dict()
    if surplus := [key for key in extra if key not in own]:
        raise CheckpointError(
            f"The trained state must fit this network, but '{surplus[0]}' is not a part of it; leave it out of the state."
        )
    try:
        module.load_state_dict({**own, **_fitting(given, tensors, needed, "trained"), **extra})
    except CheckpointError:
        raise
    except Exception as error:  # a module may take its state in any way; told in one sentence
        raise CheckpointError(
            f"The module does not take the trained state ({in_brief(error)}); give the checkpoint of this very architecture."
        ) from error


def params_of(module: torch.nn.Module, source: State, trained: Params, what: str) -> Params:
    """The tensors of theta in another state, such as the 'initial' one, which may leave out all that is not trained.

    Raises CheckpointError for a state of another architecture, NetworkError for numbers that are not finite.
    """
    state = _fitting(_given(source, what)[0], _tensors_of(module), list(trained), what)
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


def _given(source: State, what: str) -> tuple[Params, dict[str, Any]]:
    """The tensors of a state by the names that it gives them, and the extra states of modules."""
    if not isinstance(source, Mapping | Path | str):
        raise CheckpointError(
            f"The {what} state is a state dict or the path of a checkpoint, but {type(source).__name__} came; "
            "give module.state_dict()."
        )
    state = read_state(source) if isinstance(source, Path | str) else {str(key): one for key, one in source.items()}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) and not key.endswith(EXTRA):
            raise CheckpointError(
                f"The {what} state must hold tensors by name, but '{key}' holds {type(value).__name__}; "
                "give module.state_dict()."
            )
        if isinstance(value, torch.Tensor) and (is_lazy(value) or value.is_nested):
            raise CheckpointError(
                f"The {what} state must hold tensors of one shape, but '{key}' is {'nested' if value.is_nested else 'lazy'}; "
                "give the state of a module that was run."
            )
    extra = {key: value for key, value in state.items() if not isinstance(value, torch.Tensor)}
    return {key: value for key, value in state.items() if key not in extra}, extra


def _fitting(given: Params, tensors: Params, needed: Sequence[str], what: str) -> Params:
    """A state by a module's own names, whatever a file calls them or leaves out."""
    names: dict[int, set[str]] = {}
    for key, value in tensors.items():
        names.setdefault(id(value), set()).add(key)
    groups = {id(tensors[key]): frozenset(names[id(tensors[key])]) for key in needed}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    counted = {key: value for key, value in given.items() if not _is_counter(key, value, shapes)}
    found = matched({k: tuple(v.shape) for k, v in counted.items()}, Wanted(shapes, list(groups.values())), what)
    state = {found[key]: _usable(value, tensors[found[key]], key, what) for key, value in counted.items()}
    first: dict[int, str] = {}
    for key in state:
        other = first.setdefault(id(tensors[key]), key)
        if other != key and not torch.equal(state[key], state[other]):
            raise CheckpointError(
                f"'{other}' and '{key}' are one tensor of this network, but in the {what} state they differ; give the "
                "checkpoint of this very architecture."
            )
    return state | {key: state[first[id(value)]] for key, value in tensors.items() if id(value) in first}


def _is_counter(key: str, value: torch.Tensor, shapes: Mapping[str, Any]) -> bool:
    """Whether this is one whole number that the module does not keep, such as how many states were averaged."""
    whole = not value.is_floating_point() and not value.is_complex()
    return whole and value.numel() == 1 and not any(own.rpartition(".")[2] == key.rpartition(".")[2] for own in shapes)


def _usable(value: torch.Tensor, wanted: torch.Tensor, key: str, what: str) -> torch.Tensor:
    """A tensor of a state as numbers of the kind that the module has there."""
    if value.layout != torch.strided:
        value = value.to_dense()
    real = wanted.is_floating_point()
    if is_traceable_wrapper_subclass(value):
        came = f"a {type(value).__name__} came, which keeps its numbers in other tensors"
    elif value.is_meta:
        came = "no data came (it is on 'meta')"
    elif value.is_quantized or (real and not value.is_floating_point()) or (value.is_complex() > wanted.is_complex()):
        came = f"{value.dtype} came"
    elif (
        value.is_floating_point()
        and not (real or wanted.is_complex())
        and not bool((value.to(wanted.dtype) == value).all())
    ):
        came = f"{value.dtype} with fractions came"
    else:
        return value
    raise CheckpointError(
        f"'{key}' of the {what} state must hold {'real' if real else str(wanted.dtype)} numbers, but {came}; give the state as it "
        "was before it was converted."
    )
