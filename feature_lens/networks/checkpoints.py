"""Checkpoint files, read without running anything that is in them."""

from __future__ import annotations

import pickle
import pickletools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from feature_lens.errors import CheckpointError, in_brief

# Under these keys training loops commonly keep the state dict beside optimiser state and step counts.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Put before every name by torch.compile and by data-parallel training.
_PREFIXES = ("_orig_mod.", "module.")
_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE"}


def load_checkpoint(path: Path | str) -> dict[str, torch.Tensor]:
    """The state dict in a .pt, .pth or .safetensors file, on the CPU.

    A state dict inside a dictionary ('state_dict', 'model_state_dict', 'model') is found, and the prefixes 'module.'
    and '_orig_mod.' of data-parallel training and torch.compile are taken off. Raises CheckpointError, in one sentence, for anything else; a pickle
    that would run code is refused before any of it runs.
    """
    source = Path(path)
    if not source.is_file():
        raise CheckpointError(f"There is no checkpoint '{source}'; give the path of a .pt, .pth or .safetensors file.")
    if source.suffix == ".safetensors":
        return _tensors(_read_safetensors(source), source)
    if source.suffix in (".pt", ".pth"):
        return _tensors(_read_pickle(source), source)
    raise CheckpointError(
        f"A checkpoint ends in .pt, .pth or .safetensors, but '{source.name}' came; convert it first."
    )


def _read_safetensors(source: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Not through a map of the file: parameters would change with it, and the process end where it is cut.
        return load(source.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"'{source}' is not a safetensors file ({in_brief(error)}); save the state dict again."
        ) from None


def _read_pickle(source: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of is told as one sentence here
            return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  # damaged bytes make torch raise anything; told in one sentence
        if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or _calls_something(source)):
            raise CheckpointError(
                f"'{source}' holds more than tensors and would run code when loaded; "
                "save module.state_dict() alone and give that."
            ) from None
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"'{source}' is a TorchScript program, not a checkpoint; save module.state_dict() and give that."
            ) from None
        raise CheckpointError(
            f"'{source}' is not a checkpoint ({_first_sentence(error)}); give a file saved by torch.save."
        ) from None


def _calls_something(source: Path) -> bool:
    """Whether a file is one pickle that names something to call; it is read, never run."""
    try:
        with source.open("rb") as file:
            codes = {code.name for code, _, _ in pickletools.genops(file)}
        return not codes.isdisjoint(_CALLS)
    except (ValueError, LookupError, OverflowError, MemoryError):  # no pickle at all
        return False


def _first_sentence(error: Exception) -> str:
    if isinstance(error, OSError | RuntimeError):
        return in_brief(error).partition(". ")[0]
    return "it ends too early" if isinstance(error, EOFError) else "it is no pickle of tensors"


def _tensors(found: Any, source: Path) -> dict[str, torch.Tensor]:
    state = found
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(
            f"'{source}' must hold tensors by name, but it holds {type(found).__name__}; save module.state_dict()."
        )
    named = {str(key): value for key, value in state.items()}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in named):
            named = {key.removeprefix(prefix): value for key, value in named.items()}
    return named
