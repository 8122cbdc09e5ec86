"""A network along the straight line theta0 + s d, with a place s of its own for every row of a batch.

Where parameters enter through linear layers and convolutions alone, z = W0 a + b0 + s (dW a + db): the forward pass
takes rows at different places together, and the derivative with respect to W0 is that with respect to theta at s. The
pass also records what decides the pieces of a piecewise-linear network, such as the inputs of its ReLUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from feature_lens.networks.network import Params


class NotAPencil(Exception):
    """Why a network's parameters cannot be moved row by row, in words; never leaves the engine."""


# Maps that are linear in input and weight, and positions of (weight, bias) among their arguments.
_LINEAR: Final[frozenset[Any]] = frozenset((F.linear, F.conv1d, F.conv2d, F.conv3d))


Given = Mapping[str, Any]


@dataclass(frozen=True)
class _Kinked:
    """A function that is linear between the zeros of what `zeros` makes of its arguments; those have these names,
    and an argument of another name is a form that is not known."""

    zeros: Callable[[Given], list[torch.Tensor]]
    names: tuple[str, ...] = ("input", "inplace")

    def of(self, args: Sequence[Any], kwargs: Given) -> list[torch.Tensor]:
        given = dict(zip(self.names, args, strict=False)) | dict(kwargs)
        if len(args) > len(self.names) or set(given) - set(self.names):
            raise NotAPencil("a function with kinks has arguments of a form that is not known")
        return self.zeros(given)


def _input(given: Given) -> list[torch.Tensor]:
    return [given["input"]]


def _ends(given: Given) -> list[torch.Tensor]:
    return [given["input"] - given.get("min_val", -1.0), given["input"] - given.get("max_val", 1.0)]


def _bounds(given: Given) -> list[torch.Tensor]:
    return [given["input"] - given[name] for name in ("min", "max") if given.get(name) is not None]


def _windows(given: Given) -> list[torch.Tensor]:
    """Differences of every two entries that a maximum is taken over."""
    if given.get("ceil_mode") or given.get("return_indices"):
        raise NotAPencil("a maximum over windows is of a form that is not known")
    x, size = given["input"], given["kernel_size"]
    windows = F.unfold(x, size, given.get("dilation", 1), given.get("padding", 0), given.get("stride") or size)
    entries = windows.reshape(len(x), x.shape[1], windows.shape[1] // x.shape[1], -1)
    first, second = torch.triu_indices(entries.shape[2], entries.shape[2], 1)
    return [entries[:, :, first] - entries[:, :, second]]


# A transposed matrix is read as an attribute, and moves as its parameter does.
_TENSOR: Any = torch.Tensor
_TRANSPOSED: Final = (_TENSOR.T.__get__, _TENSOR.mT.__get__)
_RELUS = (F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, F.relu_, torch.abs, torch.Tensor.abs)
_KINKED: Final[Mapping[Any, _Kinked]] = {
    **dict.fromkeys(_RELUS, _Kinked(_input)),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _Kinked(_input, ("input", "negative_slope", "inplace"))),
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _Kinked(_ends, ("input", "min_val", "max_val", "inplace"))),
    F.relu6: _Kinked(lambda given: [given["input"], given["input"] - 6]),
    **dict.fromkeys((torch.clamp, torch.Tensor.clamp), _Kinked(_bounds, ("input", "min", "max"))),
    F.threshold: _Kinked(
        lambda given: [given["input"] - given["threshold"]], ("input", "threshold", "value", "inplace")
    ),
    F.max_pool2d: _Kinked(
        _windows, ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    ),
}


class Pencil(TorchFunctionMode):
    """While entered, passes of the module that it is bound to run at theta0 + s * `added`, s = `places` (b,).

    Afterwards `crossings` holds, call by call, what is zero at the kinks (b, units),
    and how many maps were moved before it, which bounds its degree in s. Raises NotAPencil where a parameter goes
    anywhere else.
    """

    def __init__(self, added: Params) -> None:
        super().__init__()
        self._added = added
        self._name_of: dict[int, str] = {}
        self._moving: dict[str, torch.Tensor] = dict(added)
        self._views: list[torch.Tensor] = []  # kept, because what is gone gives its id to another
        self._rows = torch.zeros(1)
        self.places = torch.zeros(1)
        self.crossings: list[tuple[int, torch.Tensor]] = []
        self.n_moved = 0

    def bind(self, module: torch.nn.Module) -> None:
        """Take a module whose parameters are at theta0."""
        self._name_of = {id(value): name for name, value in module.named_parameters() if name in self._added}

    def over(self, rows: int) -> Pencil:
        """The context of a pass of so many rows, at `places`, over and over where there are fewer of those."""
        self._rows = self.places[torch.arange(rows) % len(self.places)]
        self.crossings, self.n_moved = [], 0
        self._forget_views()
        return self

    def __torch_function__(
        self, function: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _LINEAR:
            return self._linear(function, args, kwargs)
        if function in _TRANSPOSED and args[0].ndim == 2 and id(args[0]) in self._name_of:
            return self._transposed(function, args[0])
        name = getattr(function, "__name__", str(function))
        if name != "__get__" and any(self._is_parameter(value) for value in (*args, *kwargs.values())):
            raise NotAPencil(f"a parameter goes into {name}")
        if function in _KINKED:
            found = _KINKED[function].of(args, kwargs)
            self.crossings += [(self.n_moved, values.detach().reshape(len(values), -1).clone()) for values in found]
        return function(*args, **kwargs)

    def _transposed(self, function: Any, value: torch.Tensor) -> Any:
        name = self._name_of[id(value)]
        view, along = function(value), f"{name} transposed"
        self._name_of[id(view)], self._moving[along] = along, self._moving[name].mT
        self._views.append(view)
        return view

    def _forget_views(self) -> None:
        for view in self._views:
            del self._name_of[id(view)]
        self._views = []

    def _is_parameter(self, value: Any) -> bool:
        if isinstance(value, list | tuple):
            return any(self._is_parameter(one) for one in value)
        return id(value) in self._name_of

    def _linear(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """f(x, W0, b0, ...) + s f(x, dW, db, ...)."""
        names = ("input", "weight", "bias")
        given = dict(zip(names, args, strict=False)) | {key: kwargs[key] for key in names if key in kwargs}
        others = args[3:], {key: value for key, value in kwargs.items() if key not in names}
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        if self._is_parameter(x):
            raise NotAPencil("a parameter is the input of a linear map")
        made = function(x, weight, bias, *others[0], **others[1])
        ours = [self._name_of.get(id(value)) for value in (weight, bias)]
        if ours == [None, None]:
            return made
        if len(x) != len(self._rows):
            raise NotAPencil("the first axis of a linear map's input is not that of the examples")
        self.n_moved += 1
        moved = [
            torch.zeros_like(value)
            if name is None and value is not None
            else None
            if name is None
            else self._moving[name]
            for name, value in zip(ours, (weight, bias), strict=True)
        ]
        along = function(x, *moved, *others[0], **others[1])
        return made + self._rows.reshape(-1, *[1] * (made.ndim - 1)) * along
