"""What a forward pass calls, in which order, and what really comes before and after each layer.

A pass is followed by hooks on the modules and by a function mode that sees every call of torch. A tensor is known by
its identity and its version, so that values written over in place are told apart from those before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from feature_lens.networks import Network


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NONLINEAR = _words(
    "relu relu6 leaky_relu prelu rrelu elu celu selu gelu glu silu mish tanh sigmoid expit special_expit logsigmoid "
    "log_sigmoid softplus softsign softmax softmin log_softmax gumbel_softmax hardtanh hardswish hardsigmoid hardshrink "
    "softshrink tanhshrink threshold clamp clamp_min clip"
)
# A non-linearity only where nothing else takes the tensor: a norm squares what it then divides.
_NONLINEAR_ALONE = _words("sin cos exp abs square pow maximum")
_ARITHMETIC = _words("mul rmul add radd sub rsub div neg")
# Between a layer and its non-linearity these change no meaning: the values are still before it, or still after it.
_SAME_NUMBERS = _words(
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout clone contiguous detach "
    "flatten unflatten reshape view squeeze unsqueeze permute transpose"
)
_POOLS = frozenset(
    f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg", "lp") for d in (1, 2, 3)
)
_TRANSPARENT = _SAME_NUMBERS | _POOLS | _words("batch_norm layer_norm group_norm instance_norm rms_norm")
_SAME_VALUES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
_CHANNELS_FIRST = _POOLS | _words(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d batch_norm group_norm instance_norm "
    "local_response_norm interpolate pixel_shuffle pixel_unshuffle"
)
_CHANNELS_LAST = _words(
    "linear bilinear embedding rms_norm glu multi_head_attention_forward scaled_dot_product_attention"
)
_MOVES = frozenset({"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis"})
_RESHAPES = frozenset({"flatten", "unflatten", "reshape", "view"})
_SIZES = (2, 3, 5, 7, 11, 13, 17, 19)
_DEPTH = 8

Key = tuple[int, int]


@dataclass(frozen=True)
class Step:
    """One call of a torch function: what it took and made, the innermost module it ran in, and, where it moves axes,
    which axis each axis of the result was before."""

    function: str
    taken: tuple[Key, ...]
    made: tuple[Key, ...]
    inside: str
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Call:
    """One call of a module, with the tensor it returned (or whatever else that was)."""

    name: str
    module: nn.Module
    output: Any
    key: Key


@dataclass
class Trace:
    """One forward pass. Tensors are kept, so that the identity of one is never used again by another."""

    calls: list[Call] = field(default_factory=list)
    takers: dict[Key, list[Step]] = field(default_factory=dict)
    makers: dict[Key, Step] = field(default_factory=dict)
    shapes: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    outputs: Key = (0, 0)
    leaves: set[str] = field(default_factory=set)
    open: list[str] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def keep(self, tensor: torch.Tensor) -> Key:
        """The key of a tensor as it is now."""
        self.kept.append(tensor)
        key = id(tensor), 0 if tensor.is_inference() else tensor._version
        self.shapes[key] = tuple(tensor.shape)
        return key


class _Functions(TorchFunctionMode):
    """Writes every function that takes and makes tensors into a trace."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        trace, named = self._trace, kwargs or {}
        # Before the call, because an in-place function gives its tensor a new version.
        taken = tuple(trace.keep(tensor) for tensor in _tensors([*args, *named.values()]))
        result = func(*args, **named)
        made = tuple(trace.keep(tensor) for tensor in _tensors([result]))
        if taken and made and not set(made) & set(taken):
            name = func.__name__.strip("_")
            axes = _moved_axes(func, args, named) if name in _MOVES else ()
            step = Step(name, taken, made, trace.open[-1] if trace.open else "", axes)
            for key in dict.fromkeys(taken):
                trace.takers.setdefault(key, []).append(step)
            trace.makers.update(dict.fromkeys(made, step))
        return result


def _moved_axes(func: Callable[..., Any], args: Any, named: dict[str, Any]) -> tuple[int, ...]:
    """Where the axes came from, seen on a tensor of no content whose sizes all differ."""
    if not args or not isinstance(args[0], torch.Tensor) or args[0].ndim > len(_SIZES):
        return ()
    sizes = _SIZES[: args[0].ndim]
    return tuple(sizes.index(size) for size in func(torch.empty(sizes, device="meta"), *args[1:], **named).shape)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among some values, also those one level down in a list or tuple."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (part for part in value if isinstance(part, torch.Tensor))


def traced(network: Network, inputs: torch.Tensor) -> Trace:
    """Follow one pass of f(x; theta*). The hooks sit on the network's private copy of the module, and are removed."""
    trace = Trace()

    def before(name: str) -> Callable[..., None]:
        def enter(_module: nn.Module, _args: Any) -> None:
            trace.open.append(name)

        return enter

    def after(name: str) -> Callable[..., None]:
        def leave(module: nn.Module, _args: Any, output: Any) -> None:
            while trace.open and trace.open.pop() != name:
                pass  # a module that raised inside a forward which goes on without it
            trace.kept.append(output)
            key = trace.keep(output) if isinstance(output, torch.Tensor) else (0, 0)
            trace.calls.append(Call(name, module, output, key))

        return leave

    hooks = []
    for name, part in network.module.named_modules():
        if name:
            hooks += [part.register_forward_pre_hook(before(name)), part.register_forward_hook(after(name))]
            if _is_leaf(part):
                trace.leaves.add(name)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            with _Functions(trace):
                outputs = network(network.trained, inputs)
            trace.outputs = trace.keep(outputs)
    finally:
        for hook in hooks:
            hook.remove()
    return trace


def _is_leaf(module: nn.Module) -> bool:
    children = [name for name, _ in module.named_children() if name != "parametrizations"]
    return not children or isinstance(module, nn.MultiheadAttention)


def weight_modules(module: nn.Module) -> set[int]:
    """Modules that compute a weight from parameters, not values from inputs."""
    lists = (part for part in module.modules() if isinstance(part, parametrize.ParametrizationList))
    return {id(part) for one in lists for part in one.modules()}


def is_hidden_leaf(call: Call, trace: Trace, weights: set[int]) -> bool:
    """Whether a layer's values are neither the network's outputs nor weights (modules of `weights`), nor another's."""
    if not _is_leaf(call.module) or id(call.module) in weights:
        return False
    if isinstance(call.module, _SAME_VALUES) and not _names_values(call, trace):
        return False
    # Back from the network's outputs through what leaves the numbers as they are, also [:, 0] of one column.
    key = trace.outputs
    while key != call.key:
        step = trace.makers.get(key)
        picked = step is not None and step.function == "getitem"
        if step is None or not (step.function in _SAME_NUMBERS or picked):
            return True
        if picked and _count(trace.shapes[key]) != _count(trace.shapes[step.taken[0]]):
            return True
        key = step.taken[0]
    return False


def _names_values(call: Call, trace: Trace) -> bool:
    """Whether an nn.Identity stands where values are that no other layer gives, such as a residual stream's."""
    step = trace.makers.get(call.key)
    own = step is not None and step.inside not in trace.leaves and step.function not in _SAME_NUMBERS
    return isinstance(call.module, nn.Identity) and own


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def label_of(call: Call, trace: Trace) -> tuple[str, str]:
    """Whether a layer's values are before or after a non-linearity, and a remark where that needs one."""
    if _made_nonlinear(call.key, call.name, trace, 0):
        return "post-activation", ""
    follower = _after(call.key, trace, 0)
    if follower is not None:
        # Run by a leaf module of its own, such as nn.ReLU, its output can be shown; called as a function it cannot.
        if follower.inside in trace.leaves and follower.inside != call.name:
            return "pre-activation", ""
        return "pre-activation", f"a functional {follower.function} follows, whose output has no layer of its own"
    if _before(call.key, trace, 0):
        return "post-activation", ""
    return "activation", "no non-linearity follows directly"


def _made_nonlinear(key: Key, layer: str, trace: Trace, depth: int) -> bool:
    """Whether a layer's own last function is a non-linearity, or arithmetic on one, such as x * sigmoid(x)."""
    step = trace.makers.get(key)
    if step is None or (step.inside != layer and depth):
        return False
    if step.function in _NONLINEAR or (step.function in _NONLINEAR_ALONE and not depth):
        return True
    arithmetic = step.inside == layer and step.function in _ARITHMETIC and depth < _DEPTH
    return arithmetic and any(_made_nonlinear(one, layer, trace, depth + 1) for one in step.taken)


def _after(key: Key, trace: Trace, depth: int) -> Step | None:
    """The first non-linearity that takes a tensor, looking through what changes no meaning."""
    takers = trace.takers.get(key, [])
    for step in takers:
        if step.function in _NONLINEAR or (step.function in _NONLINEAR_ALONE and len(takers) == 1):
            return step
        if step.function in _TRANSPARENT and depth < _DEPTH:
            found = _after(step.made[0], trace, depth + 1)
            if found is not None:
                return found
    return None


def _before(key: Key, trace: Trace, depth: int) -> bool:
    """Whether a tensor comes from a non-linearity, looking through what changes no meaning."""
    step = trace.makers.get(key)
    if step is None:
        return False
    if step.function in _NONLINEAR | _NONLINEAR_ALONE:
        return True
    return step.function in _TRANSPARENT and depth < _DEPTH and _before(step.taken[0], trace, depth + 1)


def unit_axis(call: Call, trace: Trace) -> int:
    """Axis of the units. The function that made the values says so: channels come first in convolutions, pools and
    norms of maps, and last in linear layers, embeddings and attention; elementwise functions keep the axis. Where
    nothing says so, a sequence (b, t, d) has its units last and a map (b, ch, h, w) first."""
    ndim = call.output.ndim
    found = _axis_from(call.key, trace, 0) if ndim > 2 else 1
    return found or (1 if ndim > 3 else ndim - 1)


def _axis_from(key: Key, trace: Trace, depth: int) -> int | None:
    step, shape = trace.makers.get(key), trace.shapes[key]
    if step is None or depth > _DEPTH or len(shape) < 3:
        return None
    last = len(shape) - 1
    if step.function in _CHANNELS_FIRST:
        return 1
    # A layer norm over one axis is over units; over several, what it is given says which they are.
    over_units = step.function == "layer_norm" and any(len(trace.shapes[weight]) == 1 for weight in step.taken[1:])
    if step.function in _CHANNELS_LAST or over_units:
        return last
    source = trace.shapes[step.taken[0]]
    if step.axes or step.function in _RESHAPES:
        before = _axis_from(step.taken[0], trace, depth + 1)
        if before is None or step.axes:
            return before and step.axes.index(before)
        if before == 1 and source[1] == shape[1]:
            return 1
        return last if before == len(source) - 1 and source[-1] == shape[-1] else None
    same = (one for one in step.taken if trace.shapes[one] == shape)
    return next((axis for one in same if (axis := _axis_from(one, trace, depth + 1)) is not None), None)
