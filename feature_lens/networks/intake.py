"""Modules as they are handed in, made into private copies; what cannot be looked at is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from feature_lens.errors import NetworkError, in_brief

# Each runs the module that it keeps under this name and changes nothing of what that computes.
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}

_NO_COPY = "A private copy of the module is needed, but {} cannot be copied ({}); take it off the module."


def private_copy(module: nn.Module) -> nn.Module:
    """A copy of a module, without what compiles it or spreads it over devices, and without gradients.

    Raises NetworkError for what is no module of real numbers that Python runs, and for what cannot be copied.
    """
    if not isinstance(module, nn.Module):
        raise NetworkError(
            f"A network is made from a torch.nn.Module, but {type(module).__name__} came; give a module."
        )
    _refuse_programs(module)
    for kind, name, tensor in _tensors(module):
        _refuse_tensor(kind, name, tensor)
    try:
        own = copied(module)
    except NetworkError:
        raise
    except Exception as error:  # a module may hold anything; told in one sentence
        _refuse_uncopyable(module)
        raise NetworkError(_NO_COPY.format("it", in_brief(error))) from error
    for parameter in own.parameters():
        parameter.grad = None
    return own


def inner(module: nn.Module) -> nn.Module:
    """The module inside those that compile it or spread it over devices; raises NetworkError where these have hooks, which
    are a part of what is computed."""
    while (key := _WRAPPERS.get(type(module).__name__)) is not None and isinstance(
        part := getattr(module, key), nn.Module
    ):
        if module._forward_hooks or module._forward_pre_hooks:
            raise NetworkError(
                f"A {type(module).__name__} is taken for the module inside, but this one has hooks of its own; register them on "
                "the module inside."
            )
        module = part
    return module


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, without wrappers, that also works where passes or hooks left computed tensors anywhere on a module."""
    memo: dict[int, Any] = {}
    with _ComputedTensors():
        # The innermost first, so that a wrapper is known by what is inside it before anything that holds it is copied.
        for part in reversed(list(module.modules())):
            if inner(part) is not part:
                memo[id(part)] = copy.deepcopy(inner(part), memo)
        made: nn.Module = copy.deepcopy(module, memo)
    return made


class _ComputedTensors(TorchFunctionMode):
    """Copies of tensors that torch itself does not copy: results of a computation, without what they were computed from,
    and tensors of some other kinds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not torch.Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        ordinary = type(tensor) is torch.Tensor and tensor.layout == torch.strided
        if id(tensor) not in memo and (is_functorch_wrapped_tensor(tensor) or not (tensor.is_leaf and ordinary)):
            memo[id(tensor)] = _as_given(_unwrapped(tensor).detach().clone(), tensor)
        return memo[id(tensor)] if id(tensor) in memo else func(*args, **(kwargs or {}))


def _unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor that a pass under vmap or jvp left behind, which can no longer be computed with."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor


def _as_given(made: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A clone that is a parameter where the tensor is one."""
    if getattr(tensor, "_is_param", False):
        made.__dict__["_is_param"] = True  # how torch marks parameters of other kinds of tensor
    return made.requires_grad_(tensor.requires_grad and tensor.is_leaf)


def _refuse_programs(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise NetworkError(
                f"A network must be run by Python, but '{name or type(part).__name__}' is a program of torch.jit; give the "
                "module that it was made from, with its state_dict()."
            )
        if ".quantized" in type(part).__module__:
            raise NetworkError(
                f"A network must compute in real numbers, but '{name or type(part).__name__}' is quantised "
                f"({type(part).__name__}); give the module from before."
            )


def _tensors(module: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    yield from (("Parameter", name, value) for name, value in module.named_parameters())
    yield from (("Buffer", name, value) for name, value in module.named_buffers())


def _refuse_tensor(kind: str, name: str, tensor: torch.Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise NetworkError(f"{kind} '{name}' has no shape yet; run the module once on an example first.")
    if tensor.is_meta:
        raise NetworkError(f"{kind} '{name}' holds no data (it is on 'meta'); load the module's weights first.")
    if is_traceable_wrapper_subclass(tensor):
        raise NetworkError(
            f"{kind} '{name}' is a {type(tensor).__name__}, which keeps its numbers in other tensors; give the module with "
            "ordinary ones."
        )
    if tensor.is_quantized or tensor.is_nested:
        what = f"is quantised ({tensor.dtype})" if tensor.is_quantized else "is nested"
        raise NetworkError(f"{kind} '{name}' {what}, but one array of real numbers is needed; convert it.")
    if kind == "Parameter" and tensor.layout != torch.strided:
        raise NetworkError(f"{kind} '{name}' is sparse, but every entry is needed; give .to_dense() of it.")
    if tensor.requires_grad and not tensor.is_floating_point() and tensor.is_leaf:
        raise NetworkError(f"{kind} '{name}' holds {tensor.dtype}, but real numbers are needed; convert or freeze it.")


def _refuse_uncopyable(module: nn.Module) -> None:
    """Raise NetworkError for the first thing on a module that cannot be copied by itself."""
    parts = list(module.modules())
    for path, part in module.named_modules():
        for key, value in [*vars(part).items(), *part._parameters.items(), *part._buffers.items()]:
            if key in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                with _ComputedTensors():
                    copy.deepcopy(value, {id(one): one for one in parts})
            except Exception as error:  # a module may hold anything; told in one sentence
                what = f"'{path}.{key}' ({type(value).__name__})".replace("'.", "'")
                raise NetworkError(_NO_COPY.format(what, in_brief(error))) from error
