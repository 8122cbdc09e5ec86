"""Which hidden layers a forward pass reaches, and what really comes before and after each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from feature_lens.examples import Examples
from feature_lens.networks import Network
from feature_lens.networks.network import copied

_NONLINEAR = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "glu", "silu", "mish"),
        *("tanh", "sigmoid", "logsigmoid", "softplus", "softsign", "softmax", "log_softmax", "hardtanh", "hardswish"),
        *("hardsigmoid", "hardshrink", "softshrink", "tanhshrink", "threshold", "clamp", "clamp_min", "maximum"),
        *("sin", "cos", "exp", "abs", "square", "pow"),
    }
)
# Between a layer and its non-linearity these change no meaning: the values are still before it, or still after it.
_TRANSPARENT = frozenset(
    {
        *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "dropout", "feature_dropout"),
        *("flatten", "unflatten", "reshape", "view", "squeeze", "unsqueeze", "permute", "transpose", "contiguous"),
        *("clone", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d"),
    }
)
_SAME_VALUES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)
_DEPTH = 8


@dataclass(frozen=True)
class LayerInfo:
    """A hidden layer: its module path and class, whether its values are before or after a non-linearity, how many
    units it has along which axis, the shape it is reduced over, and why it cannot be shown where it cannot."""

    name: str
    kind: str
    label: str
    width: int
    unit_axis: int
    positions: tuple[int, ...]
    remark: str = ""
    usable: bool = True


@dataclass
class _Call:
    name: str
    module: nn.Module
    output: Any
    functions: list[str]


@dataclass
class _Trace:
    """One forward pass: calls of modules, and which function made and took each tensor. Tensors are kept, so that
    the identity of one is never reused by another."""

    calls: list[_Call] = field(default_factory=list)
    takers: dict[int, list[tuple[str, int]]] = field(default_factory=dict)
    makers: dict[int, tuple[str, list[int]]] = field(default_factory=dict)
    into_module: dict[int, set[str]] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    open: list[list[str]] = field(default_factory=list)


class _Functions(TorchFunctionMode):
    def __init__(self, trace: _Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        taken = [value for value in args if isinstance(value, torch.Tensor)]
        trace = self._trace
        if isinstance(made, torch.Tensor) and taken:
            trace.kept += [made, *taken]
            for tensor in taken:
                trace.takers.setdefault(id(tensor), []).append((name, id(made)))
            # In place, the tensor stays what its first maker made it; what was done to it is among its takers.
            trace.makers.setdefault(id(made), (name, [id(tensor) for tensor in taken]))
            for names in trace.open:
                names.append(name)
        return made


def trace_layers(network: Network, examples: Examples, every: bool = False) -> list[LayerInfo]:
    """Every hidden leaf layer that a forward pass reaches, in the order of its first call; `every` adds the rest.

    Left out: containers, layers that only reshape or drop, and the layer whose output is the network's own. A layer
    that is called more than once, returns more than one tensor, or does not put the batch first is listed as not
    usable with a remark. Cost: one forward pass of two examples.
    """
    trace, outputs = _traced(out_of_place(network.module), network.tensor(examples.inputs[: min(2, len(examples))]))
    by_name: dict[str, list[_Call]] = {}
    for call in trace.calls:
        by_name.setdefault(call.name, []).append(call)
    batch = outputs.shape[0]
    layers: list[LayerInfo] = []
    for name, calls in by_name.items():
        module, last = calls[-1].module, calls[-1]
        if every:
            layers.append(_described(name, calls, trace, batch))
            continue
        if any(True for _ in module.children()) and not isinstance(module, nn.MultiheadAttention):
            continue
        if isinstance(module, _SAME_VALUES) or _is_output(last.output, outputs):
            continue
        layers.append(_described(name, calls, trace, batch))
    return layers


def out_of_place(module: nn.Module) -> nn.Module:
    """A copy whose activation modules do not write into their inputs, which have yet to be looked at."""
    own = copied(module)
    for part in own.modules():
        if getattr(part, "inplace", False) is True:
            setattr(part, "inplace", False)  # noqa: B010  # nn.Module types its attributes as tensors
    return own


def _is_output(value: Any, outputs: torch.Tensor) -> bool:
    if not isinstance(value, torch.Tensor) or value.numel() != outputs.numel():
        return False
    return torch.equal(value.reshape(outputs.shape), outputs)


def _traced(module: nn.Module, inputs: torch.Tensor) -> tuple[_Trace, torch.Tensor]:
    trace = _Trace()

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        for value in args:
            if isinstance(value, torch.Tensor):
                trace.kept.append(value)
                trace.into_module.setdefault(id(value), set()).add(type(module).__name__.lower())
        trace.open.append([])

    def after(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: Any, output: Any) -> None:
            del args
            trace.kept.append(output)
            trace.calls.append(_Call(name, module, output, trace.open.pop()))

        return record

    hooks = []
    for name, part in module.named_modules():
        if name:
            hooks += [part.register_forward_pre_hook(before), part.register_forward_hook(after(name))]
    try:
        with torch.no_grad(), _Functions(trace):
            outputs = module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return trace, outputs


def _described(name: str, calls: list[_Call], trace: _Trace, batch: int) -> LayerInfo:
    call = calls[-1]
    kind = type(call.module).__name__
    if not isinstance(call.output, torch.Tensor):
        remark = f"it returns a {type(call.output).__name__}, not one tensor"
        return LayerInfo(name, kind, "activation", 0, 0, (), remark, usable=False)
    shape = tuple(call.output.shape)
    if len(shape) < 2 or shape[0] != batch:
        remark = f"its output of shape {shape} does not have one row per example"
        return LayerInfo(name, kind, "activation", 0, 0, (), remark, usable=False)
    label, remark = _label(call, trace)
    axis = _unit_axis(call, trace, {id(c.output): c for c in trace.calls})
    positions = tuple(size for place, size in enumerate(shape) if place not in (0, axis))
    if len(calls) > 1:
        remark = f"it is called {len(calls)} times in one pass, and only the last call could be shown"
    return LayerInfo(name, kind, label, shape[axis], axis, positions, remark, usable=len(calls) == 1)


def _label(call: _Call, trace: _Trace) -> tuple[str, str]:
    if any(function in _NONLINEAR for function in call.functions):
        return "post-activation", ""
    follower = _after(id(call.output), trace, 0)
    if follower is not None:
        function, tensor = follower
        if not any(function in module or module in function for module in trace.into_module.get(tensor, ())):
            return "pre-activation", f"a functional {function} follows, whose output has no layer of its own"
        return "pre-activation", ""
    if _before(id(call.output), trace, 0):
        return "post-activation", ""
    return "activation", "no non-linearity follows directly"


def _after(tensor: int, trace: _Trace, depth: int) -> tuple[str, int] | None:
    """The first non-linearity that takes a tensor, looking through what changes no meaning."""
    for function, made in trace.takers.get(tensor, []):
        if function in _NONLINEAR:
            return function, tensor
        if function in _TRANSPARENT and made != tensor and depth < _DEPTH:
            found = _after(made, trace, depth + 1)
            if found is not None:
                return found
    return None


def _before(tensor: int, trace: _Trace, depth: int) -> bool:
    """Whether a tensor comes from a non-linearity, looking through what changes no meaning."""
    if depth and any(name in _NONLINEAR and made == tensor for name, made in trace.takers.get(tensor, [])):
        return True  # applied in place
    function, taken = trace.makers.get(tensor, ("", []))
    if function in _NONLINEAR:
        return True
    return function in _TRANSPARENT and depth < _DEPTH and any(_before(one, trace, depth + 1) for one in taken[:1])


def _unit_axis(call: _Call, trace: _Trace, calls: dict[int, _Call]) -> int:
    """Axis of the units: channels come first in convolutions and what follows them, else units come last."""
    output = call.output
    if output.ndim == 2 or isinstance(call.module, _CHANNELS_FIRST):
        return 1
    if output.ndim > 3:
        return 1
    if isinstance(call.module, nn.Linear | nn.LayerNorm | nn.Embedding | nn.RMSNorm):
        return 2
    tensor = id(output)
    for _ in range(_DEPTH):
        function, taken = trace.makers.get(tensor, ("", []))
        if not taken or (function not in _NONLINEAR and function not in _TRANSPARENT):
            break
        tensor = taken[0]
        source = calls.get(tensor)
        if source is not None and isinstance(source.module, _CHANNELS_FIRST):
            return 1
    return 2
