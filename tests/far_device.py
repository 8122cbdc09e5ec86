"""A pretend accelerator: a device called 'far' whose tensors are ordinary ones out of reach.

Tensors of both devices in one operation are refused, as on a real accelerator, and numpy sees nothing of them. Import
it in a process of its own: torch then knows of the device for good.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

# Operations that take tensors of both devices on real accelerators, too: copies, and look-ups by indices of the CPU.
_BOTH = {"aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::index", "aten::index_put_"}


class Far(torch.Tensor):
    """A tensor on 'far' that holds one of the CPU."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Far:
        made: Far = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device="far:0"
        )
        made.held = held
        return made

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        made: torch.Tensor = Far(self.held.clone())
        made = torch.nn.Parameter(made, self.requires_grad) if isinstance(self, torch.nn.Parameter) else made
        memo[id(self)] = made
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: Any) -> Any:
    name = function._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    near = [tensor for tensor in tensors if not isinstance(tensor, Far) and tensor.ndim > 0]
    if 0 < len(near) < len(tensors) and name not in _BOTH:
        raise RuntimeError(f"{name} met tensors of two devices")
    target = kwargs.get("device")
    own, named = tree_map(lambda leaf: leaf.held if isinstance(leaf, Far) else leaf, (args, kwargs))
    if name == "aten::_copy_from":
        own[1].copy_(own[0])
        return args[1]
    made = function(*own, **named if target is None else {**named, "device": "cpu"})
    if target is not None and torch.device(target).type == "cpu":
        return made
    if name.endswith("_"):
        return args[0]
    return tree_map(lambda leaf: Far(leaf) if isinstance(leaf, torch.Tensor) else leaf, made)


_setup_privateuseone_for_python_backend("far")
_every = torch.library.Library("_", "IMPL")
_every.fallback(lambda function, *args, **kwargs: _run(function, args, kwargs), "PrivateUse1")
_aten = torch.library.Library("aten", "IMPL")
for _function in (
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten._copy_from.default,
    torch.ops.aten._to_copy.default,
    torch.ops.aten.copy_.default,
):
    _aten.impl(_function, lambda *args, _own=_function, **kwargs: _run(_own, args, kwargs), "PrivateUse1")
