"""Networks that keep, change or look at more than their outputs: every pass is that of the same function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from feature_lens.errors import NetworkError
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.networks import Network

_INPUTS = np.random.default_rng(0).standard_normal((30, 4))
Pass = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor | None]


class _Keeping(nn.Module):
    """A small network that does something else with its input and its hidden values; what `then` returns is added."""

    def __init__(self, first: Pass | None = None, then: Pass | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.above = nn.Linear(4, 3), nn.Linear(3, 2)
        self.register_buffer("none", None)
        self.register_buffer("mean", torch.zeros(3))
        self.last: Any = torch.zeros(3, dtype=torch.float64)
        self.seen: list[torch.Tensor] = []
        self.nested: dict[str, list[torch.Tensor]] = {"hidden": []}
        self._first, self._then = first, then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed = None if self._first is None else self._first(self, x, x)
        x = x if changed is None else changed
        hidden = torch.tanh(self.below(x))
        added = None if self._then is None else self._then(self, x, hidden)
        outputs: torch.Tensor = self.above(hidden)
        return outputs if added is None else outputs + added


def _lists(module: Any, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    module.seen.append(hidden)
    module.nested["hidden"].append(x)
    return hidden[:, :2] * len(module.seen) * len(module.nested["hidden"])


def _attribute(module: Any, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    before = module.last
    module.last = 0.9 * module.last + hidden.sum(0)
    return hidden[:, :2] + before[:2]


def _buffer(module: Any, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    before = module.mean
    module.mean = 0.9 * module.mean + hidden.sum(0)
    return hidden[:, :2] + before[:2]


def _buffer_written(module: Any, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    added = hidden[:, :2] + module.mean[:2].clone()
    module.mean.add_(hidden.sum(0))
    return added


def _buffer_filled(module: Any, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    if module.none is None:
        module.none = torch.arange(2, dtype=x.dtype)
    added: torch.Tensor = hidden[:, :2] * module.none
    return added


def _buffer_made(module: Any, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    if not hasattr(module, "made"):
        module.register_buffer("made", torch.arange(2, dtype=x.dtype))
    added: torch.Tensor = hidden[:, :2] * module.made
    return added


def _of_a_transform(module: Any, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    module.last = hidden
    return torch.stack([module.below.bias[:2] * row[:2] for row in hidden])  # no rule takes it: the ladder runs


_AFTER: dict[str, Pass] = {
    "lists": _lists,
    "an attribute": _attribute,
    "a buffer replaced": _buffer,
    "a buffer written over": _buffer_written,
    "a buffer filled in": _buffer_filled,
    "a buffer made": _buffer_made,
    "a tensor of a transform": _of_a_transform,
}


def _written(_: nn.Module, x: torch.Tensor, __: torch.Tensor) -> None:
    x -= x.mean(dim=1, keepdim=True)
    x[:, 0] = 0


def _as_numpy(_: nn.Module, x: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.sort(x.numpy(), axis=1))


def _frozen(_: nn.Module, x: torch.Tensor, __: torch.Tensor) -> None:
    assert not x.requires_grad


def _unique(_: nn.Module, x: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
    values, back = torch.unique(x, dim=0, return_inverse=True)
    found: torch.Tensor = values[back]
    return found


_BEFORE: dict[str, Pass] = {
    "written over": _written,
    "as numpy": _as_numpy,
    "refused with gradients": _frozen,
    "without a derivative": _unique,
}


def _compared(make: Callable[[], nn.Module]) -> None:
    features = EffectiveFeatures(Network.from_module(make()), Examples.from_arrays(_INPUTS), tile=7)
    features.gram()
    found = np.concatenate([block for _, block in features.blocks()])
    wanted = np.concatenate([_row(make(), x) for x in _INPUTS])
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(features.gram(), wanted @ wanted.T, rtol=1e-9, atol=1e-12)


def _row(module: nn.Module, x: np.ndarray) -> np.ndarray:
    module = module.double()
    outputs = module(torch.as_tensor(x.copy())[None])[0]
    rows = [torch.autograd.grad(output, list(module.parameters()), retain_graph=True) for output in outputs]
    return np.stack([torch.cat([part.flatten() for part in row]).numpy() for row in rows])


@pytest.mark.parametrize("name", _AFTER)
def test_what_a_pass_leaves_behind_reaches_no_other(name: str) -> None:
    _compared(lambda: _Keeping(then=_AFTER[name]))


@pytest.mark.parametrize("name", _BEFORE)
def test_inputs_may_be_treated_as_where_no_gradient_of_them_is_wanted(name: str) -> None:
    _compared(lambda: _Keeping(first=_BEFORE[name]))


class _Spoilt(torch.autograd.Function):
    """Has no gradient for large numbers."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.large = bool((x.abs() > 50).any())
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        if ctx.large:
            raise ArithmeticError("too large")
        return gradients[0]


def _spoilt(module: Any, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    function: Any = _Spoilt.apply
    found: torch.Tensor = function(module.below(x))[:, :2]
    return found


def test_gradients_that_only_a_later_tile_has_not_are_told() -> None:
    inputs = _INPUTS.copy()
    inputs[20, 0] = 1000
    module = _Keeping(then=_spoilt)
    features = EffectiveFeatures(Network.from_module(module), Examples.from_arrays(inputs), tile=7)
    with pytest.raises(NetworkError, match=r"Gradients of the network could not be taken.*too large"):
        features.gram()
