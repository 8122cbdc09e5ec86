"""Where passes run, the processor or an accelerator that torch reaches, and modules that are moved there."""

from __future__ import annotations

from typing import Any

import torch

from feature_lens.errors import SettingsError, in_brief


def usable_device(name: str | torch.device, dtype: torch.dtype) -> torch.device:
    """The device of that name, tried once with a number of the precision wanted; raises SettingsError where it is
    unknown, not on this machine, holds no numbers (meta), or has none of that precision."""
    try:
        device = torch.device(name)
        torch.ones((), dtype=dtype, device=device).item()
    except Exception as error:  # each back end refuses in its own way; told in one sentence
        raise SettingsError(
            f"The device '{name}' cannot be used for {str(dtype).removeprefix('torch.')} ({in_brief(error)}); "
            "choose another, such as cpu."
        ) from error
    return device


def converted(module: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """The module on one device in one precision, with the tensors that are its attributes; complex ones stay complex."""
    wide = torch.complex128 if dtype == torch.float64 else torch.complex64
    places = places_of(module)

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():
            return tensor.to(device, wide)
        return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)

    module._apply(convert)  # type: ignore[no-untyped-call]  # torch gives it no types
    for part in module.modules():
        for key, value in vars(
            part
        ).items():  # tensors that are neither parameters nor buffers, which torch leaves as they are
            if isinstance(value, torch.Tensor):
                vars(part)[key] = convert(value)
    for place, name in places:  # some devices are given new tensors, one for each place of a tied one
        (tensors, key), (firsts, first) = _holder(module, place), _holder(module, name)
        tensors[key] = firsts[first]
    return module


def places_of(module: torch.nn.Module) -> tuple[tuple[str, str], ...]:
    """Each place of a tensor in the module, once per module object, with the name of the tensor that belongs there.

    Tied tensors have several places under one name. A module object that is used under two names must be listed
    once: functional_call would otherwise restore the swapped-in tensor for good.
    """
    name_of: dict[int, str] = {}
    places: list[tuple[str, str]] = []
    for path, part in module.named_modules():
        for key, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None:
                place = f"{path}.{key}" if path else key
                places.append((place, name_of.setdefault(id(tensor), place)))
    return tuple(places)


def _holder(module: torch.nn.Module, place: str) -> tuple[dict[str, Any], str]:
    """Where a module keeps a tensor, and under which key."""
    path, _, key = place.rpartition(".")
    part = module.get_submodule(path)
    return (part._parameters if key in part._parameters else part._buffers), key
