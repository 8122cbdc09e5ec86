"""Every kind of module, parameter and buffer: its features are those of the function, or one sentence names what came."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import OldWeightNorm, new_weight_norm
from oracles import dense_jacobian
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.testing._internal.two_tensor import TwoTensor

from feature_lens.errors import FeatureLensError, NetworkError, in_brief, is_out_of_memory
from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.jacobian import Jacobian
from feature_lens.features.neurons import NeuronActivations
from feature_lens.features.reductions import reduction
from feature_lens.networks import Network
from feature_lens.networks.intake import inner

X = np.random.default_rng(0).standard_normal((7, 3))


def _stack(*first: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(first or (nn.Linear(3, 4),)), nn.Tanh(), nn.Linear(4, 2))


def _used(module: nn.Module) -> nn.Module:
    """After a pass, as modules come from training."""
    module(torch.ones(5, 3))
    return module.eval()


class _Holding(nn.Module):
    """A linear layer, whatever else it is to hold, and any forward."""

    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor], **held: Any) -> None:
        super().__init__()
        self.a, self.run = nn.Linear(3, 2), run
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


def _linear(module: Any, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = module.a(x)
    return found


def _with(tensor: torch.Tensor) -> nn.Module:
    """A buffer that inputs are multiplied by."""
    return _Holding(lambda m, x: m.a(x * m.w.to(x.dtype)), w=nn.Buffer(tensor))


def _keeping(keep: Callable[[Any, torch.Tensor], object], **held: Any) -> nn.Module:
    """Keeps what it computed on the way, as much code that looks inside networks does; some of it by no layer rule."""

    def run(module: Any, x: torch.Tensor) -> torch.Tensor:
        hidden = module.bend(module.a(x))
        keep(module, hidden)
        found: torch.Tensor = module.b(hidden)
        return found

    return _Holding(run, bend=nn.PReLU(), b=nn.Linear(2, 2), **held)


def _hooked() -> nn.Module:
    module: Any = _stack()
    seen: list[torch.Tensor] = []
    module[0].register_forward_hook(lambda _m, _i, made: seen.append(made))
    module.seen = seen
    return _used(module)


def _pruned() -> nn.Module:
    module = _stack()
    prune.l1_unstructured(module[0], "weight", 0.5)
    return module


def _shared() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(3, 2))


def _unfilled() -> nn.Module:
    module = _Holding(_linear)
    module.register_buffer("w", None)
    return module


def _tied() -> nn.Module:
    module: Any = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 2))
    module[2].weight = module[0].weight
    return _used(module)


def _in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return _stack()


class _Subclass(torch.Tensor):
    """A tensor in another class, as libraries of pictures have."""


def _mm(module: Any, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = module.a(torch.mm(module.w, x.T).T)
    return found


SPARSE = torch.tensor([[2.0, 0, 0], [0, 0, 1], [0, -1, 0]])
# Modules of 3 inputs and 2 outputs, of which every number is right.
RIGHT: dict[str, Callable[[], Any]] = {
    # modules
    "compiled": lambda: torch.compile(_stack(), backend="eager"),
    "compiled in part": lambda: _stack(torch.compile(nn.Linear(3, 4), backend="eager")),
    "data parallel": lambda: nn.DataParallel(_stack()),
    "wrapped twice, in part": lambda: nn.DataParallel(_stack(nn.DataParallel(nn.DataParallel(nn.Linear(3, 4))))),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(_stack()),
    "traced by fx": lambda: torch.fx.symbolic_trace(_stack()),
    "lazy, once run": lambda: _used(_stack(nn.LazyLinear(4))),
    "made in inference mode": _in_inference_mode,
    "half": lambda: _stack().half(),
    "bfloat16": lambda: _stack().bfloat16(),
    "a layer used twice": _shared,
    # what passes leave on a module
    "keeps a tensor": lambda: _keeping(lambda m, h: setattr(m, "seen", h)),
    "kept a tensor": lambda: _used(_keeping(lambda m, h: setattr(m, "seen", h))),
    "kept in a dictionary": lambda: _used(_keeping(lambda m, h: m.seen.update(h=h), seen={})),
    "kept in lists of lists": lambda: _used(_keeping(lambda m, h: m.seen.append([(h,)]), seen=[])),
    "keeps as a buffer": lambda: _keeping(lambda m, h: m.register_buffer("seen", h)),
    "kept as a buffer": lambda: _used(_keeping(lambda m, h: m.register_buffer("seen", h))),
    "kept by hooks": _hooked,
    "weight norm by hooks": lambda: _used(OldWeightNorm()),
    "weight norm, parametrised": lambda: _used(new_weight_norm()),
    "spectral norm by hooks": lambda: _used(_stack(nn.utils.spectral_norm(nn.Linear(3, 4)))),
    "spectral norm, parametrised": lambda: _used(_stack(parametrizations.spectral_norm(nn.Linear(3, 4)))),
    "orthogonal": lambda: _stack(nn.Linear(3, 3), parametrizations.orthogonal(nn.Linear(3, 4))),
    "pruned": lambda: _used(_pruned()),
    # parameters
    "an empty parameter": lambda: _Holding(lambda m, x: m.a(x.to(m.w.device)), w=nn.Parameter(torch.empty(0))),
    "a parameter of no rows": lambda: _Holding(_linear, w=nn.Parameter(torch.empty(0, 3))),
    "a number": lambda: _Holding(lambda m, x: m.a(x) * m.w, w=nn.Parameter(torch.tensor(2.0))),
    "transposed": lambda: _Holding(lambda m, x: m.a(x @ m.w), w=nn.Parameter(torch.randn(3, 3).T)),
    "expanded": lambda: _Holding(lambda m, x: m.a(x * m.w), w=nn.Parameter(torch.randn(1).expand(3))),
    "tied": _tied,
    "in lists": lambda: _Holding(lambda m, x: m.a(x * m.w[0]), w=nn.ParameterList([nn.Parameter(torch.randn(3))])),
    "a subclass": lambda: _Holding(lambda m, x: m.a(x * m.w), w=nn.Parameter(torch.randn(3).as_subclass(_Subclass))),
    "frozen integers": lambda: _Holding(lambda m, x: m.a(x[:, m.w]), w=nn.Parameter(torch.tensor([2, 0, 1]), False)),
    "frozen truth values": lambda: _Holding(
        lambda m, x: m.a(x.where(m.w, 0)), w=nn.Parameter(torch.tensor([True, False, True]), False)
    ),
    "frozen complex": lambda: _Holding(lambda m, x: m.a((x * m.w).imag), w=nn.Parameter(torch.randn(3) * 1j, False)),
    # buffers
    "complex": lambda: _Holding(lambda m, x: m.a((x * m.w).imag), w=nn.Buffer(torch.randn(3) * 1j)),
    "integers": lambda: _with(torch.arange(3)),
    "not persistent": lambda: _Holding(lambda m, x: m.a(x * m.w), w=nn.Buffer(torch.ones(3), persistent=False)),
    "eight bits": lambda: _with(torch.ones(3).to(torch.float8_e4m3fn)),
    "a buffer of a subclass": lambda: _with(torch.randn(3).as_subclass(_Subclass)),
    "neither parameter nor buffer": lambda: _Holding(lambda m, x: m.a(x @ m.w), w=torch.randn(3, 3)),
    "an empty buffer": lambda: _Holding(_linear, w=nn.Buffer(torch.empty(0))),
    "a place that is not filled": _unfilled,
    "sparse": lambda: _Holding(_mm, w=nn.Buffer(SPARSE.to_sparse())),
    "compressed rows": lambda: _Holding(_mm, w=nn.Buffer(SPARSE.to_sparse_csr())),
}  # fmt: skip
# Made otherwise where autograd cannot follow the module itself.
REFERENCE: dict[str, Callable[[], nn.Module]] = {
    "made in inference mode": _stack,
    "neither parameter nor buffer": lambda: _Holding(lambda m, x: m.a(x @ m.w), w=torch.randn(3, 3).double()),
}


@pytest.mark.parametrize("case", RIGHT)
def test_features_of_every_kind_of_module_are_those_of_its_function(case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns of where such things are made
        torch.manual_seed(0)
        module = RIGHT[case]().eval()
        torch.manual_seed(0)
        reference = inner(REFERENCE.get(case, RIGHT[case])()).eval().double()
    network = Network.from_module(module)
    examples = Examples.from_arrays(X)
    wanted = dense_jacobian(reference, X).reshape(14, -1)
    features = EffectiveFeatures(network, examples)
    np.testing.assert_allclose(features.gram(), wanted @ wanted.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.concatenate([rows for _, rows in features.blocks()]), wanted, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        np.testing.assert_allclose(network.outputs(examples), reference(torch.tensor(X)).numpy(), rtol=1e-12)
    assert not any("_orig_mod" in name or name.startswith("module.module") for name in network.trained)


def _script_inside() -> nn.Module:
    return _stack(torch.jit.script(nn.Linear(3, 4)))


def _quantised() -> nn.Module:
    made: nn.Module = torch.ao.quantization.quantize_dynamic(_stack(), {nn.Linear}, dtype=torch.qint8)
    return made


def _holding(**held: Any) -> nn.Module:
    return _Holding(_linear, **held)


def _all_empty() -> nn.Module:
    module = _holding(w=nn.Parameter(torch.empty(0)))
    module.a.requires_grad_(False)
    return module


class _NoCopies(nn.Linear):
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise RuntimeError("no copies\nof me")


QINT8 = "is quantised .torch.qint8., but one array of real numbers is needed"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no module": (lambda: 3, "made from a torch.nn.Module, but int came; give a module"),
    "a class": (lambda: nn.Linear, "made from a torch.nn.Module, but type came"),
    "scripted": (lambda: torch.jit.script(_stack()), "run by Python, but 'RecursiveScriptModule' is a program of torch.jit; give"),
    "traced": (lambda: torch.jit.trace(_stack(), torch.ones(2, 3)), "'TopLevelTracedModule' is a program of torch.jit"),
    "frozen script": (lambda: torch.jit.freeze(torch.jit.script(_stack().eval())), "is a program of torch.jit"),
    "scripted in part": (_script_inside, "but '0' is a program of torch.jit; give the module that it was made from"),
    "quantised": (_quantised, r"compute in real numbers, but '0' is quantised \(Linear\); give the module from before"),
    "a lazy parameter": (lambda: nn.LazyLinear(3), "Parameter 'weight' has no shape yet; run the module once"),
    "a lazy buffer": (lambda: nn.LazyBatchNorm1d(affine=False), "Buffer 'running_mean' has no shape yet"),
    "a meta parameter": (lambda: nn.Linear(3, 2, device="meta"), "Parameter 'weight' holds no data .*; load the"),
    "a meta buffer": (lambda: _holding(w=nn.Buffer(torch.ones(3, device="meta"))), "Buffer 'w' holds no data"),
    "complex": (lambda: nn.Linear(3, 2, dtype=torch.complex64), "'weight' holds torch.complex64, but real .*; convert or freeze"),
    "sparse": (lambda: _holding(w=nn.Parameter(SPARSE.to_sparse())), r"Parameter 'w' is sparse, .*; give \.to_dense\(\)"),
    "a quantised buffer": (
        lambda: _holding(w=nn.Buffer(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))), f"Buffer 'w' {QINT8}"
    ),
    "nested": (
        lambda: _holding(w=nn.Buffer(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))), "Buffer 'w' is nested"
    ),
    "two tensors in one": (
        lambda: _holding(w=nn.Parameter(TwoTensor(torch.ones(3), torch.ones(3)))),
        "Parameter 'w' is a TwoTensor, which keeps its numbers in other tensors; give",
    ),
    "all empty": (_all_empty, "at least one trainable parameter, but none with entries has requires_grad; call"),
    "nan in a sparse buffer": (
        lambda: _holding(w=nn.Buffer((SPARSE * torch.nan).to_sparse())), "must be finite, but 'w' holds 9 NaN"
    ),
    "nan in a complex buffer": (lambda: _holding(w=nn.Buffer(torch.tensor([1j, torch.nan]))), "but 'w' holds 1 NaN"),
    "a lock": (lambda: _holding(lock=threading.Lock()), r"but 'lock' \(lock\) cannot be copied \(cannot pickle .*; take it off"),
    "a generator": (lambda: nn.Sequential(_holding(rows=(i for i in X))), r"but '0.rows' \(generator\) cannot be copied"),
    "a file": (lambda: _holding(log={"file": [io.TextIOWrapper(io.BytesIO())]}), r"but 'log' \(dict\) cannot be copied .*TextIO"),
    "no copies": (lambda: _NoCopies(3, 2), r"but it cannot be copied \(no copies\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_modules_that_cannot_be_looked_at_are_named(case: str) -> None:
    make, sentence = REFUSED[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns of where such things are made
        given = make()
    with pytest.raises(NetworkError, match=sentence) as error:
        Network.from_module(given)
    _said(error)


def _said(error: pytest.ExceptionInfo[FeatureLensError]) -> None:
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_modules_spread_over_processes_are_taken_for_what_they_are() -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        layer = nn.Linear(3, 2)
        network = Network.from_module(nn.parallel.DistributedDataParallel(layer))
    finally:
        torch.distributed.destroy_process_group()
    assert (network.name, network.parameters.names) == ("Linear", ("weight", "bias"))
    assert network.digest == Network.from_module(layer).digest


@pytest.mark.parametrize("wrap", ["compiled", "data parallel"])
def test_hooks_of_a_wrapper_are_not_lost(wrap: str) -> None:
    wrapper: Any = RIGHT[wrap]()
    wrapper.register_forward_hook(lambda _m, _i, made: 2 * made)
    with pytest.raises(
        NetworkError, match=r"^A .* is taken for the module inside, but this one has hooks of its own; register"
    ) as error:
        Network.from_module(nn.Sequential(wrapper))
    _said(error)


# What passes do to buffers and inputs


class _Remembering(nn.Module):
    """Adds to its outputs what a buffer remembers of the rows of this pass, with the graph that it came of."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)
        self.memory = nn.Buffer(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = torch.tanh(self.a(x))
        before, self.memory = self.memory, self.memory + made.mean(dim=0)
        found: torch.Tensor = made + before
        return found


def test_rows_do_not_hang_on_what_buffers_held_of_those_before() -> None:
    torch.manual_seed(0)
    module = _Remembering()
    network = Network.from_module(module)
    wanted = np.concatenate([dense_jacobian(_Remembering.double(_copy_of(module)), x[None]) for x in X])
    loop = Jacobian(network, network.trained, reduction("flattened", 2), tuple(network.trained))
    inputs = network.tensor(X)
    found = loop.exact(inputs, torch.zeros(len(X), dtype=torch.long))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


def _copy_of(module: nn.Module) -> Any:
    made = _Remembering()
    made.load_state_dict(module.state_dict())
    return made


def test_neurons_of_layers_that_keep_or_write_over_what_passes_them() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    kept: list[torch.Tensor] = []
    module[1].register_forward_hook(lambda _m, _i, made: kept.append(made))
    network, examples = Network.from_module(module), Examples.from_arrays(X)
    values, _ = NeuronActivations(network, examples, "2", tile=3).activations()
    with torch.no_grad():
        linear = module[1].double()
        wanted = torch.relu(linear(torch.relu(torch.tensor(X)))).numpy()
    np.testing.assert_allclose(values, wanted, rtol=1e-12)


# Memory


def _allocate_too_much() -> None:
    torch.empty(10**15)


def _say_so() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def _numpy_too() -> None:
    np.empty(10**15)


class _Back(torch.autograd.Function):
    """Does something in its backward alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, work: Callable[[], None]) -> torch.Tensor:
        ctx.work = work
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        ctx.work()
        return gradient, None


@pytest.mark.parametrize("work", [_allocate_too_much, _say_so, _numpy_too])
@pytest.mark.parametrize("when", ["forward", "backward", "backward of some"])
def test_memory_that_runs_out_is_told_as_such(work: Callable[[], None], when: str) -> None:
    def run(module: Any, x: torch.Tensor) -> torch.Tensor:
        if when == "forward":
            work()
        made: torch.Tensor = module.a(x)
        hurt = when == "backward" or (len(x) == 1 and bool((x == x.new_tensor(X[-1])).any()))
        found: torch.Tensor = _Back.apply(made, work) if hurt else made
        return found

    network = Network.from_module(_Holding(run))
    with pytest.raises(
        NetworkError, match=r"^Memory ran out in a pass of the network \(\w+: .*\); give a smaller"
    ) as error:
        EffectiveFeatures(network, Examples.from_arrays(X)).gram()
    _said(error)
    assert is_out_of_memory(error.value.__cause__ or ValueError())


def test_what_says_that_memory_ran_out() -> None:
    for said in (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB)"),
    ):
        assert is_out_of_memory(said)
    for other in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        KeyError("x"),
    ):
        assert not is_out_of_memory(other)


LONG = "Could not run 'aten::x' with arguments from the 'SparseCPU' backend. " * 20


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("", "RuntimeError"),
        ("\n  the reason  \nmore", "the reason"),
        ("Error(s) in loading state_dict for Linear:\n\tsize mismatch for weight: copying\n\tsize mismatch for bias: b",
         "Error(s) in loading state_dict for Linear: size mismatch for weight: copying"),
        ("backend='inductor' raised:\nInvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1",
         "backend='inductor' raised: InvalidCxxCompiler: No working C++ compiler found"),
        ("The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript (most recent call last):\n"
         "  File \"x.py\", line 1\n    return F.linear(x)\nRuntimeError: mat1 and mat2 shapes", "RuntimeError: mat1 and mat2 shapes"),
        ("Caught ValueError in replica 0 on device 0.\nOriginal Traceback (most recent call last):\n  File\nValueError: no",
         "ValueError: no"),
        ("Weights only load failed. This file can still be loaded, to do so you have two options.\n\t(1) In PyTorch 2.6\n"
         "\tWeightsUnpickler error: Unsupported global: GLOBAL a.B was not an allowed global by default. Please\n\nCheck",
         "WeightsUnpickler error: Unsupported global: GLOBAL a.B was not an allowed global by default. Please"),
        ("first\nValueError: only mentioned", "first"),
        (LONG, LONG.strip()[:300] + "..."),
        ("ends with a colon:", "ends with a colon:"),
    ],
)  # fmt: skip
def test_the_reason_inside_errors_of_many_lines_is_kept(said: str, wanted: str) -> None:
    assert in_brief(RuntimeError(said)) == wanted
