"""Checkpoints: every file that holds the tensors of this network is taken, whatever it calls them; all others are refused
in a sentence, and nothing that is in them is ever run."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from feature_lens.errors import CheckpointError, FeatureLensError, NetworkError
from feature_lens.networks import Network, load_checkpoint
from feature_lens.networks.naming import Wanted, matched

State = dict[str, torch.Tensor]


def _said(error: pytest.ExceptionInfo[FeatureLensError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _normed() -> nn.Sequential:
    """With counters and running statistics as buffers, and a frozen bias."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    net[2].bias.requires_grad_(False)
    return net


def _renamed(state: State, before: str) -> State:
    return {f"{before}{key}": value for key, value in state.items()}


# States


def test_states_are_taken_over() -> None:
    module, other = _net(), _net()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    network = Network.from_module(module, trained=other.state_dict(), initial=module.state_dict())
    assert network.initial is not None
    for key, value in other.state_dict().items():
        assert torch.equal(network.trained[key], value.double())
        assert torch.equal(network.initial[key], module.state_dict()[key].double())


BAD_STATES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "missing": (
        lambda s: {k: v for k, v in s.items() if k != "2.bias"},
        r"'2.bias' is missing \(1 missing, 0 unknown\)",
    ),
    "unknown": (
        lambda s: s | {"4.bias": torch.ones(2)},
        "'4.bias' is not a part of the network .*0 missing, 1 unknown",
    ),
    "of another net": (
        lambda s: {k.replace("0.", "x."): v for k, v in s.items()},
        r"'0.weight' is missing and 'x.weight' is not a part of the network \(2 missing, 2 unknown\); give the checkpoint",
    ),
    "two networks": (
        lambda s: _renamed(s, "student.") | _renamed(s, "teacher."),
        r"\(4 missing, 8 unknown\); those below 'student.' would fit, so give these alone if they are meant",
    ),
    "others beside it": (
        lambda s: _renamed(s, "model.") | {"criterion.weight": torch.ones(2)},
        r"'criterion.weight' is not a part of the network \(\d missing, \d unknown\); those below 'model.' would fit",
    ),
    "a prefix and one missing": (
        lambda s: {k: v for k, v in _renamed(s, "module.").items() if k != "module.2.bias"},
        r"'2.bias' is missing \(1 missing, 0 unknown\)",
    ),
    "a prefix and another width": (
        lambda s: _renamed(s | {"0.weight": torch.ones(5, 3)}, "module."),
        r"'0.weight' .* shape \(4, 3\), but \(5, 3\) came",
    ),
    "one tensor twice": (
        lambda s: _renamed(s, "model.") | {"module.0.bias": s["0.bias"]},
        "must give each tensor once, but 'model.0.bias' and 'module.0.bias' are both '0.bias'; give one of them",
    ),
    "quantised": (
        lambda s: s | {"0.weight": s["0.weight"].to(torch.int8)},
        "'0.weight' of the .* state must hold real numbers, but torch.int8 came; give the state as it was before",
    ),
    "truth values": (lambda s: s | {"0.bias": s["0.bias"] > 0}, "must hold real numbers, but torch.bool came"),
    "complex": (lambda s: s | {"0.bias": s["0.bias"] + 1j}, "must hold real numbers, but torch.complex64 came"),
    "no data": (lambda s: s | {"0.bias": torch.empty(4, device="meta")}, "must hold real numbers, but no data came"),
    "nested": (
        lambda s: s | {"0.bias": torch.nested.as_nested_tensor([s["0.bias"]])},
        "one shape, but '0.bias' is nested",
    ),
    "never run": (lambda s: nn.Sequential(nn.LazyLinear(4)).state_dict(), "one shape, but '0.weight' is lazy; give"),
    "two in one": (
        lambda s: s | {"0.bias": TwoTensor(s["0.bias"], s["0.bias"])},
        "but a TwoTensor came, which keeps its numbers in other",
    ),
    "what is no tensor of it": (
        lambda s: s | {"_extra_state": {"scale": 2}},
        "'_extra_state' is not a part of it; leave it out",
    ),
    "empty": (lambda s: {}, "4 missing, 0 unknown"),
    "of another width": (
        lambda s: s | {"0.weight": torch.ones(5, 3)},
        r"must have the shape \(4, 3\), but \(5, 3\) came",
    ),
    "of one axis": (lambda s: s | {"0.weight": torch.ones(12)}, r"must have the shape \(4, 3\), but \(12,\) came"),
    "no tensors": (lambda s: s | {"0.bias": s["0.bias"].numpy()}, "hold tensors by name, but '0.bias' holds ndarray"),
    "nothing": (lambda s: s | {"0.bias": None}, "hold tensors by name, but '0.bias' holds NoneType"),
    "a list": (lambda s: list(s.values()), "a state dict or the path of a checkpoint, but list came"),
    "a module": (lambda s: _net(), "a state dict or the path of a checkpoint, but Sequential came"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("which", ["trained", "initial"])
@pytest.mark.parametrize("case", BAD_STATES)
def test_states_that_do_not_fit_are_refused(case: str, which: str) -> None:
    change, sentence = BAD_STATES[case]
    state = change(dict(_net().state_dict()))
    if case == "what is no tensor of it" and which == "initial":
        assert Network.from_module(_net(), initial=state).initial is not None  # buffers play no part there either
        return
    with pytest.raises(CheckpointError, match=sentence) as error:
        Network.from_module(_net(), **{which: state})
    assert which in _said(error)


@pytest.mark.parametrize("which", ["trained", "initial"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_refused(which: str, value: float) -> None:
    state = {key: tensor.clone() for key, tensor in _net().state_dict().items()}
    state["2.weight"][0, :2] = value
    with pytest.raises(
        NetworkError, match=f"The {which} parameters must be finite, but '2.weight' holds 2 NaN"
    ) as error:
        Network.from_module(_net(), **{which: state})
    _said(error)


def test_an_initial_state_may_leave_out_what_is_not_trained() -> None:
    module = _normed()
    theta = {key: value for key, value in module.named_parameters() if value.requires_grad}
    initial = Network.from_module(module, initial=theta).initial
    assert initial is not None
    assert list(initial) == list(theta)
    whole = Network.from_module(module, initial=module.state_dict()).initial
    assert whole is not None
    assert list(whole) == list(theta)


# Checkpoint files


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


class _Wrapped(nn.Module):
    """Its one part is called 'module', as in data-parallel training."""

    def __init__(self) -> None:
        super().__init__()
        self.module = _net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)


def _states_agree(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".safetensors"])
def test_checkpoints_are_read_by_what_is_in_them(suffix: str, kind: str, tmp_path: Path) -> None:
    state, path = _net().state_dict(), tmp_path / f"net{suffix}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    if (suffix, kind) == (".safetensors", "pickle"):
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            load_checkpoint(path)
        return
    assert _states_agree(load_checkpoint(path), state)
    assert _states_agree(load_checkpoint(str(path)), state)
    network = Network.from_module(_net(), trained=path, initial=str(path))
    assert _states_agree(network.trained, {key: value.double() for key, value in state.items()})


@pytest.mark.parametrize("wrap", ["state_dict", "model_state_dict", "model", "anything"])
def test_wrapped_states_and_data_parallel_names(wrap: str, tmp_path: Path) -> None:
    state, path = _net().state_dict(), tmp_path / "net.pt"
    parallel = {f"module.{key}": value for key, value in state.items()}
    compiled = {f"_orig_mod.{key}": value for key, value in parallel.items()}
    for saved in (
        {wrap: state, "epoch": 3, "optimiser": {"lr": 0.1, "state": {0: {"step": torch.ones(())}}}},
        {wrap: {"state_dict": parallel}},
        {wrap: parallel},
        parallel,
        compiled,
        {f"module.{key}": value for key, value in compiled.items()},
    ):
        torch.save(saved, path)
        assert _states_agree(load_checkpoint(path), state)


def test_names_that_a_file_leaves_out_or_renames_are_put_right(tmp_path: Path) -> None:
    tied = _Tied()
    save_model(tied, tmp_path / "tied.safetensors")
    network = Network.from_module(_Tied(), trained=tmp_path / "tied.safetensors", initial=tmp_path / "tied.safetensors")
    assert torch.equal(network.trained["a.weight"], tied.a.weight.detach().double())
    wrapped = _Wrapped()
    torch.save(wrapped.state_dict(), tmp_path / "wrapped.pt")
    network = Network.from_module(_Wrapped(), trained=tmp_path / "wrapped.pt")
    assert torch.equal(network.trained["module.2.bias"], wrapped.module[2].bias.detach().double())


class _Trap:
    """Runs code when it is loaded as a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "torch, old", "protocol 2", "protocol 4"])
def test_a_pickle_that_would_run_code_is_refused_before_it_does(how: str, tmp_path: Path) -> None:
    path, sprung = tmp_path / "net.pt", tmp_path / "sprung"
    trap = {"weight": _Trap(sprung)}
    if how.startswith("torch"):
        torch.save(trap, path, _use_new_zipfile_serialization=how == "torch")
    else:
        path.write_bytes(pickle.dumps(trap, protocol=int(how[-1])))
    with pytest.raises(
        CheckpointError, match=r"holds more than tensors( \([\w.]+\))? and would run code when loaded"
    ) as error:
        load_checkpoint(path)
    _said(error)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(trap))
    assert sprung.is_dir()  # the trap works, so it was really not sprung


def _bad_files(folder: Path) -> dict[str, str]:
    """Files that are no checkpoints, with a part of the sentence on each."""
    state = _net().state_dict()
    torch.save(state, folder / "whole.pt")
    save_file(state, folder / "whole.safetensors")
    whole, tensors = (folder / "whole.pt").read_bytes(), (folder / "whole.safetensors").read_bytes()
    for share in (0.01, 0.3, 0.6, 0.95):
        (folder / f"truncated {share}.pt").write_bytes(whole[: int(len(whole) * share)])
        (folder / f"truncated {share}.safetensors").write_bytes(tensors[: int(len(tensors) * share)])
    for kind in ("pt", "pth", "safetensors"):
        (folder / f"empty.{kind}").touch()
        (folder / f"text.{kind}").write_text("hello, this is not a checkpoint\n")
        (folder / f"code.{kind}").write_text("import torch\n")
        (folder / f"bytes.{kind}").write_bytes(bytes(range(256)) * 8)
    with zipfile.ZipFile(folder / "archive.pt", "w") as archive:
        archive.writestr("notes.txt", "nothing here")
    torch.jit.script(_net()).save(folder / "program.pt")
    torch.save(_net(), folder / "module.pt")
    torch.save({"epoch": 3, "weight": torch.ones(2)}, folder / "mixed.pt")
    for name, content in (("list", [torch.ones(2)]), ("tensor", torch.ones(2)), ("nothing", {}), ("number", 3)):
        torch.save(content, folder / f"{name}.pt")
    save_file({}, folder / "nothing.safetensors")
    (folder / "net.onnx").write_bytes(whole)
    torch.save({"generator": state, "discriminator": state}, folder / "pair.pt")
    torch.save({"state_dict": state, "options": argparse.Namespace(lr=0.1)}, folder / "options.ckpt")
    (folder / "folder.pt").mkdir()
    unnamed = "not a checkpoint|not a safetensors file"
    return {
        path.name: unnamed for path in folder.iterdir() if path.stem.split()[0] not in ("whole", "net", "folder")
    } | {
        "program.pt": "is a TorchScript program, not a checkpoint",
        "module.pt": "holds more than tensors",
        "mixed.pt": "must hold tensors by name, but it holds int under 'epoch'; save module.state_dict",
        "list.pt": "must hold tensors by name, but it holds one list",
        "tensor.pt": "must hold tensors by name, but it holds one Tensor",
        "nothing.pt": "must hold tensors by name, but it holds nothing",
        "number.pt": "must hold tensors by name, but it holds one int",
        "nothing.safetensors": "must hold tensors by name, but it holds nothing",
        "net.onnx": "ends in .pt, .pth, .ckpt, .bin or .safetensors, but 'net.onnx' came; convert it first",
        "pair.pt": "tensors of one network, but 'generator' and 'discriminator' hold some each; save one of them alone",
        "options.ckpt": r"holds more than tensors \(argparse.Namespace\) and would run code when loaded; save module.state_dict",
        "folder.pt": "There is no checkpoint",
        "missing.pt": "There is no checkpoint",
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    cases = _bad_files(tmp_path)
    assert len(cases) > 30
    for name, sentence in cases.items():
        with pytest.raises(CheckpointError, match=sentence) as error:
            load_checkpoint(tmp_path / name)
        assert name in _said(error)


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    rng = np.random.default_rng(0)
    torch.save(_net().state_dict(), path)
    whole = path.read_bytes()
    refused = 0
    for round_ in range(300):
        damaged = bytearray(whole if round_ % 2 else b"\x80\x02" + rng.bytes(40))
        for at in rng.integers(0, len(damaged), 4):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        with suppress(CheckpointError):
            load_checkpoint(path)
            continue
        refused += 1
    assert refused > 150


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


def test_no_bit_of_a_checkpoint_changes_its_numbers_unseen(tmp_path: Path) -> None:
    state, path = _net().state_dict(), tmp_path / "net.pt"
    torch.save(state, path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        numbers = archive.getinfo("net/data/0")
        start = whole.index(archive.read(numbers))
    damaged = 0
    rng = np.random.default_rng(0)
    within = start + rng.integers(0, numbers.file_size, 4)
    for at in [*within.tolist(), *rng.integers(0, len(whole), 60).tolist()]:
        path.write_bytes(_flipped(whole, at))
        try:
            assert _states_agree(load_checkpoint(path), state)  # a byte of a header that says nothing of the tensors
        except CheckpointError:
            damaged += 1
    assert damaged > 20
    path.write_bytes(_flipped(whole, start))
    with pytest.raises(
        CheckpointError, match=r"damaged, .* \(Bad CRC-32 for file 'net/data/0'\); copy it again or"
    ) as error:
        Network.from_module(_net(), trained=path)
    _said(error)


def _in_directory(whole: bytes, name: bytes) -> int:
    """Where the archive's directory begins to tell of a record."""
    return whole.rindex(b"PK\x01\x02", 0, whole.rindex(name))


@pytest.mark.parametrize(("place", "width"), [(24, 4), (38, 4)])
def test_what_an_archive_says_of_its_records_never_makes_numbers(place: int, width: int, tmp_path: Path) -> None:
    """The size of a record, and its attributes: of a folder torch takes whatever is in memory."""
    state, path = _net().state_dict(), tmp_path / "net.pt"
    torch.save(state, path)
    whole = path.read_bytes()
    at = _in_directory(whole, b"net/data/0") + place
    for byte in range(at, at + width):
        path.write_bytes(_flipped(whole, byte))
        with suppress(CheckpointError):
            assert _states_agree(load_checkpoint(path), state)


def test_archives_with_a_record_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(_net().state_dict(), path)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/0", bytes(48))
    with pytest.raises(CheckpointError, match="the record 'net/data/0' is of another size, or there twice"):
        load_checkpoint(path)


def test_archives_that_are_packed_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data/0", bytes(10**6))
    with pytest.raises(CheckpointError, match=r"the record 'net/data/0' is packed, as torch packs none\); copy it"):
        load_checkpoint(path)


def test_archives_without_checksums_are_taken(tmp_path: Path) -> None:
    kept = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(_net().state_dict(), tmp_path / "net.pt")
    finally:
        torch.serialization.set_crc32_options(kept)
    assert _states_agree(load_checkpoint(tmp_path / "net.pt"), _net().state_dict())


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt"
    torch.save(_net().state_dict(), path)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CheckpointError, match=r"net.pt' cannot be read \(Permission denied\); mend that"):
        load_checkpoint(path)


# Names


class _Around(nn.Module):
    """A network inside another module, under any name."""

    def __init__(self, name: str, net: nn.Module) -> None:
        super().__init__()
        self.add_module(name, net)
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = getattr(self, self.name)(x)
        return found


# What is put before the names that are given, and what around the network.
PREFIXES = [
    *[(before, "") for before in ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.", "0.")],
    *[
        (before, "")
        for before in ("model.module.", "module._orig_mod.model.", "network._orig_mod.module.model.", "lit.net.")
    ],
    *[("", around) for around in ("module", "model", "network", "net", "_orig_mod", "anything")],
    *[("model.", "network"), ("module.model.", "module"), ("_orig_mod.net.", "net"), ("net.module.", "net")],
]


@pytest.mark.parametrize(("before", "around"), PREFIXES)
def test_prefixes_in_any_order_and_nesting(before: str, around: str, tmp_path: Path) -> None:
    module = _Around(around, _net()) if around else _net()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    state = _renamed(_net().state_dict(), before)
    torch.save(state, tmp_path / "net.ckpt")
    for source in (state, tmp_path / "net.ckpt"):
        network = Network.from_module(module, trained=source, initial=source)
        for found in (network.trained, network.initial or {}):
            own = {key.removeprefix(f"{around}."): value.float() for key, value in found.items()}
            assert _states_agree(own, _net().state_dict())


def test_parts_that_were_wrapped_inside_a_network() -> None:
    state = _net().state_dict()
    inside = {key.replace("0.", "0.module.").replace("2.", "2._orig_mod."): value for key, value in state.items()}
    network = Network.from_module(_net(), trained=_renamed(inside, "model."))
    assert _states_agree({key: value.float() for key, value in network.trained.items()}, state)
    # A part that is called so itself is not taken away.
    own: Any = nn.ModuleDict({"model": nn.Linear(3, 2), "network": nn.Linear(3, 2)})
    known = {f"module.{key}": torch.full_like(value, k) for k, (key, value) in enumerate(own.state_dict().items())}
    found = Network.from_module(own, trained=known).trained
    assert [float(value.flatten()[0]) for value in found.values()] == [0, 1, 2, 3]


def test_names_that_fit_in_several_ways_are_refused() -> None:
    wanted = Wanted({"a.w": (2,), "a.a.w": (2,), "w": (2,)}, [frozenset({"a.w"})])
    assert matched({"x.a.w": (2,)}, wanted, "trained") == {"x.a.w": "a.w"}
    both = Wanted({"a.w": (2,), "b.a.w": (2,)}, [frozenset({"a.w", "b.a.w"})])
    with pytest.raises(
        CheckpointError,
        match=r"trained state fit this network in 2 ways \('x.b.a.w' as 'b.a.w' or 'a.w'\); give it with",
    ) as error:
        matched({"x.b.a.w": (2,)}, both, "trained")
    _said(error)


def test_counters_may_be_missing_or_left_over(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    module[1].running_mean.normal_()
    module[1].num_batches_tracked.fill_(7)
    module.register_buffer("order", torch.arange(4))
    old = {key: value for key, value in module.state_dict().items() if value.is_floating_point()}
    averaged = torch.optim.swa_utils.AveragedModel(module).state_dict()
    half = module.state_dict() | {"1.num_batches_tracked": torch.tensor(3.0)}
    torch.save(old, tmp_path / "old.pt")
    for state in (old, tmp_path / "old.pt", averaged, half, _renamed(old, "model.")):
        fresh: Any = _normed()
        fresh.register_parameter("nothing", nn.Parameter(torch.empty(0)))
        fresh.register_buffer("order", torch.tensor([3, 2, 1, 0]))
        network = Network.from_module(fresh, trained=state, initial=state)
        assert torch.equal(network.constants["1.running_mean"], module[1].running_mean.double())
        assert torch.equal(network.trained["0.weight"], module[0].weight.detach().double())
        counts, order = network.constants["1.num_batches_tracked"], network.constants["order"]
        assert int(counts) == (7 if state is averaged else 3 if state is half else 0)
        assert order.tolist() == ([0, 1, 2, 3] if state is averaged or state is half else [3, 2, 1, 0])
    for wrong, sentence in (
        ({key: value for key, value in old.items() if "running_var" not in key}, "'1.running_var' is missing"),
        (
            half | {"1.num_batches_tracked": torch.tensor(0.5)},
            "must hold torch.int64 numbers, but torch.float32 with fractions",
        ),
        (old | {"extra": torch.arange(2)}, "'extra' is not a part of the network"),
    ):
        with pytest.raises(CheckpointError, match=sentence):
            Network.from_module(_normed(), trained={key: value for key, value in wrong.items() if key != "order"})


def test_entries_of_other_kinds_that_hold_the_same_numbers() -> None:
    state = _net().state_dict()
    for change in (
        lambda v: v.double(),
        lambda v: nn.Parameter(v),
        lambda v: v.t().contiguous().t() if v.ndim == 2 else v,
        lambda v: v.to_sparse(),
        lambda v: v.clone().requires_grad_(True) * 1,
    ):
        network = Network.from_module(_net(), trained={key: change(value) for key, value in state.items()})
        assert _states_agree({key: value.float() for key, value in network.trained.items()}, state)


def test_tied_tensors_that_differ_in_a_state_are_refused() -> None:
    state = {key: value.clone() for key, value in _Tied().state_dict().items()}
    assert Network.from_module(_Tied(), trained=state).trained.keys() == {"a.weight", "a.bias", "b.bias"}
    for which in ("trained", "initial"):
        with pytest.raises(
            CheckpointError, match=f"'a.weight' and 'b.weight' are one tensor .* in the {which} state they differ"
        ):
            Network.from_module(_Tied(), **{which: state | {"b.weight": state["b.weight"] + 1}})
    one = {key: value for key, value in state.items() if key != "a.weight"}
    assert torch.equal(Network.from_module(_Tied(), trained=one).trained["a.weight"], state["b.weight"].double())


class _Scaled(nn.Linear):
    """Keeps a number beside its tensors, and takes no state of a version before."""

    scale = 1.0

    def get_extra_state(self) -> Any:
        return {"scale": self.scale}

    def set_extra_state(self, state: Any) -> None:
        if "scale" not in state:
            raise KeyError("the first version has no scale")
        self.scale = state["scale"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * super().forward(x)


def test_extra_states_of_modules_are_taken_over(tmp_path: Path) -> None:
    module = _Scaled(3, 2)
    module.scale = 2.0
    state: dict[str, Any] = module.state_dict()
    torch.save(state, tmp_path / "net.pt")
    assert set(load_checkpoint(tmp_path / "net.pt")) == {"weight", "bias"}
    for source in (state, tmp_path / "net.pt"):
        network = Network.from_module(_Scaled(3, 2), trained=source, initial=source)
        assert getattr(network.module, "scale", None) == 2.0
    with pytest.raises(
        CheckpointError, match=r"does not take the trained state .*first version has no scale.*; give the"
    ) as error:
        Network.from_module(_Scaled(3, 2), trained=state | {"_extra_state": {}})
    _said(error)


class _Refusing(nn.Linear):
    """Refuses any state, as torch says it: the reason in the second line."""

    def _load_from_state_dict(self, *args: Any) -> None:
        args[-1].append("weight was written by a later version")


def test_the_reason_that_torch_gives_is_kept() -> None:
    with pytest.raises(
        CheckpointError, match=r"loading state_dict for _Refusing: weight was written by a later version\)"
    ):
        Network.from_module(_Refusing(3, 2), trained=nn.Linear(3, 2).state_dict())
