"""The learning-rate tensor: one positive factor lambda per parameter tensor, 1 unless another choice is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch

from feature_lens.errors import SettingsError
from feature_lens.networks.states import Params
from feature_lens.registry import unknown_name

# Products of two features carry lambda, and are kept as float32 in places.
_LEAST, _MOST = 1e-30, 1e30


def rates_of(module: torch.nn.Module, params: Params, spec: Mapping[str, float] | str) -> tuple[float, ...]:
    """lambda of each tensor, by patterns of names (the first that matches counts), or by name of a choice.

    "pdlt": 1 / fan_in for weights, 1 for biases, gains and embeddings: intended to be the scaling of PDLT (2106.10165)
    that lets kernels of wide networks neither vanish nor explode. Raises SettingsError for an unknown choice, a
    pattern that names nothing, or a rate that is not positive.
    """
    if isinstance(spec, str):
        if spec != "pdlt":
            raise unknown_name("choice of learning rates", spec, ["pdlt"])
        return tuple(1 / fan for fan in _fans_in(module, params))
    for pattern, rate in spec.items():
        if not (isinstance(rate, int | float | np.number) and rate > 0 and np.isfinite(rate)):
            raise SettingsError(f"A learning rate must be positive, but {rate} came for '{pattern}'; give one above 0.")
        if not _LEAST <= rate <= _MOST:
            raise SettingsError(
                f"A learning rate must be between {_LEAST:g} and {_MOST:g}, but {rate} came for '{pattern}'; give one whose "
                "products with gradients are numbers still."
            )
        if not any(fnmatchcase(name, pattern) for name in params):
            raise SettingsError(f"The pattern '{pattern}' names no parameter; there is {', '.join(list(params)[:12])}.")
    return tuple(
        next((float(rate) for pattern, rate in spec.items() if fnmatchcase(name, pattern)), 1.0) for name in params
    )


def parsed_rates(entries: Sequence[str]) -> dict[str, float] | str:
    """What `rates_of` takes, from texts PATTERN=VALUE or "pdlt" alone; raises SettingsError for other texts."""
    if list(entries) == ["pdlt"]:
        return "pdlt"
    rates: dict[str, float] = {}
    for entry in entries:
        pattern, _, value = entry.rpartition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = None
        if not pattern or rate is None:
            raise SettingsError(
                f"A learning rate is written PATTERN=VALUE, but '{entry}' came; write it so, or pdlt alone."
            )
        if pattern in rates:
            raise SettingsError(
                f"The pattern '{pattern}' takes one learning rate, but was given two; give one of them."
            )
        rates[pattern] = rate
    return rates


def _fans_in(module: torch.nn.Module, params: Params) -> list[float]:
    """Inputs of each unit of a weight; 1 for tensors of one dimension and for embeddings, which read one row."""
    of: dict[str, torch.nn.Module] = {
        f"{name}.weight" if name else "weight": part for name, part in module.named_modules()
    }
    found: list[float] = []
    for name, value in params.items():
        part = of.get(name)
        if value.ndim < 2 or isinstance(part, torch.nn.Embedding | torch.nn.EmbeddingBag):
            found.append(1.0)
        elif isinstance(part, torch.nn.modules.conv._ConvTransposeNd):
            found.append(value.numel() / value.shape[1] / part.groups)
        else:
            found.append(value.numel() / value.shape[0])
    return found
