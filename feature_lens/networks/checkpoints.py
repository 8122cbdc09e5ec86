"""Checkpoint files, read without running anything that is in them."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from feature_lens.errors import CheckpointError, in_brief

# Each is read by what is in it: some write safetensors or a pickle under any of these.
SUFFIXES: Final = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
# Under these keys training loops commonly keep the state dict beside optimiser state and step counts.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Put before every name by torch.compile and by data-parallel training.
_PREFIXES = ("_orig_mod.", "module.")
_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE"}
_ZIP = b"PK\x03\x04"
EXTRA: Final = "_extra_state"  # the end of the name of what a module keeps beside its tensors, which may be anything


def load_checkpoint(path: Path | str) -> dict[str, torch.Tensor]:
    """The tensors by name in a .pt, .pth, .ckpt, .bin or .safetensors file, on the CPU.

    A state dict inside a dictionary ('state_dict', 'model_state_dict', 'model', or the only one there) is found, and the
    prefixes 'module.' and '_orig_mod.' of data-parallel training and torch.compile are taken off. Raises
    CheckpointError, in one sentence, for anything else, and where the file's own checksums do not fit; a pickle that
    would run code is refused before any of it runs.
    """
    named = {key: value for key, value in read_state(path).items() if isinstance(value, torch.Tensor)}
    while len(firsts := {key.partition(".")[0] + "." for key in named}) == 1 and firsts <= set(_PREFIXES):
        named = {key.partition(".")[2]: value for key, value in named.items()}
    return named


def read_state(path: Path | str) -> dict[str, Any]:
    """The same with the names as they are in the file, and with the extra states of modules."""
    source = Path(path)
    listed = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    if not source.is_file():
        raise CheckpointError(f"There is no checkpoint '{source}'; give the path of a {listed} file.")
    if source.suffix not in SUFFIXES:
        raise CheckpointError(f"A checkpoint ends in {listed}, but '{source.name}' came; convert it first.")
    try:
        # Read once: what is checked is what is taken, whatever happens to the file.
        content = source.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"'{source}' cannot be read ({error.strerror}); mend that, or give another file."
        ) from error
    if content.startswith(_ZIP):
        content = _checked(content, source)
    elif content[8:9] == b"{" or source.suffix == ".safetensors":  # after the length of a header of JSON
        return _state_in(_read_safetensors(content, source), source)
    return _state_in(_read_pickle(content, source), source)


def _read_safetensors(content: bytes, source: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Not through a map of the file: parameters would change with it, and the process end where it is cut.
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"'{source}' is not a safetensors file ({in_brief(error)}); save the state dict again."
        ) from None


def _checked(content: bytes, source: Path) -> bytes:
    """An archive with the very records of this one; raises CheckpointError where one has not the checksum and size that the
    archive says it has. torch compares neither, and goes by bits of the directory that say nothing of the numbers."""
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(made, "w") as anew:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise CheckpointError(
                    f"'{source}' is a TorchScript program, not a checkpoint; save module.state_dict() and give that."
                )
            summed = any(record.CRC for record in archive.infolist())
            for record in archive.infolist():
                if not summed:
                    del record.CRC  # torch may be told to leave all of them out; zipfile then compares none
                if record.compress_type != zipfile.ZIP_STORED:  # a small file could fill the memory
                    raise ValueError(f"the record '{record.filename}' is packed, as torch packs none")
                data = archive.read(record)
                if len(data) != record.file_size or record.filename in anew.NameToInfo:
                    raise ValueError(f"the record '{record.filename}' is of another size, or there twice")
                anew.writestr(record.filename, data)
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes make zipfile raise anything; told in one sentence
        raise CheckpointError(
            f"'{source}' is damaged, or not a checkpoint ({in_brief(error)}); copy it again or save it again."
        ) from error
    return made.getvalue()


def _read_pickle(content: bytes, source: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of is told as one sentence here
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  # damaged bytes make torch raise anything; told in one sentence
        if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or _calls_something(content)):
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({named[1]})" if named else ""
            raise CheckpointError(
                f"'{source}' holds more than tensors{what} and would run code when loaded; "
                "save module.state_dict() alone and give that."
            ) from None
        raise CheckpointError(
            f"'{source}' is not a checkpoint ({_first_sentence(error)}); give a file saved by torch.save."
        ) from None


def _calls_something(content: bytes) -> bool:
    """Whether this is one pickle that names something to call; it is read, never run."""
    try:
        codes = {code.name for code, _, _ in pickletools.genops(content)}
        return not codes.isdisjoint(_CALLS)
    except (ValueError, LookupError, OverflowError, MemoryError):  # no pickle at all
        return False


def _first_sentence(error: Exception) -> str:
    if isinstance(error, OSError | RuntimeError):
        return in_brief(error).partition(". ")[0]
    return "it ends too early" if isinstance(error, EOFError) else "it is no pickle of tensors"


def _state_in(found: Any, source: Path) -> dict[str, Any]:
    """The state dict that a file holds, wherever in its dictionaries."""
    state = found
    while isinstance(state, Mapping) and not _is_state(state):
        inside = _wrappers(state)[:1]
        # Under another name as well, where only one could be meant; what optimisers keep is never a whole state.
        inside = inside or [
            key for key, value in state.items() if isinstance(value, Mapping) and (_is_state(value) or _wrappers(value))
        ]
        if len(inside) > 1:
            shown = " and ".join(f"'{key}'" for key in inside[:3])
            raise CheckpointError(
                f"'{source}' must hold the tensors of one network, but {shown} hold some each; save one of them alone."
            )
        if not inside:
            break
        state = state[inside[0]]
    if isinstance(state, Mapping) and _is_state(state):
        return {str(key): value for key, value in state.items()}
    raise CheckpointError(
        f"'{source}' must hold tensors by name, but it holds {_described(state)}; save module.state_dict()."
    )


def _wrappers(found: Mapping[Any, Any]) -> list[str]:
    return [key for key in _WRAPPERS if isinstance(found.get(key), Mapping)]


def _is_state(found: Mapping[Any, Any]) -> bool:
    """Whether all that is there are tensors, and extra states beside them."""
    others = [key for key, value in found.items() if not isinstance(value, torch.Tensor)]
    return len(others) < len(found) and all(str(key).endswith(EXTRA) for key in others)


def _described(state: Any) -> str:
    if not isinstance(state, Mapping):
        return f"one {type(state).__name__}"
    key = next((key for key, value in state.items() if not isinstance(value, torch.Tensor)), None)
    return "nothing" if key is None else f"{type(state[key]).__name__} under '{key}'"
