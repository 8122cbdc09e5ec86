"""Checkpoint files, read without running anything that is in them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from feature_lens.errors import CheckpointError

# Under these keys training loops commonly keep the state dict beside optimiser state and step counts.
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def load_checkpoint(path: Path | str) -> dict[str, torch.Tensor]:
    """The state dict in a .pt, .pth or .safetensors file, on the CPU.

    A state dict inside a dictionary ('state_dict', 'model_state_dict', 'model') is found, and the prefix 'module.'
    of data-parallel training is taken off. Raises CheckpointError, in one sentence, for anything else; a pickle
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
    from safetensors.torch import load_file

    try:
        return load_file(source)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"'{source}' is not a safetensors file ({error}); save the state dict again.") from None


def _read_pickle(source: Path) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        if "Unsupported" in str(error) or "GLOBAL" in str(error) or "unsupported" in str(error).lower():
            raise CheckpointError(
                f"'{source}' holds more than tensors and would run code when loaded; "
                "save module.state_dict() alone and give that."
            ) from None
        raise CheckpointError(f"'{source}' is not a checkpoint ({first}); give a file saved by torch.save.") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"'{source}' is not a checkpoint ({first}); give a file saved by torch.save.") from None


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
    if all(key.startswith("module.") for key in named):
        return {key.removeprefix("module."): value for key, value in named.items()}
    return named
