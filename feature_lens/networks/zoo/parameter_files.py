"""Parameters of the zoo's networks in files: written with a recipe and checksums, and read only where they fit both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_lens.errors import CheckpointError
from feature_lens.networks.checkpoints import load_checkpoint
from feature_lens.networks.states import Params

CARD = "recipe.json"


def shipped_folder(name: str) -> Path:
    """Where a net's parameters are: beside this module in an installed package, under data/ in a checkout."""
    packaged = Path(__file__).parent / "shipped" / name
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "data" / name


def shipped_states(name: str, recipe: Mapping[str, Any]) -> dict[str, Params]:
    """Parameters that travel with the package, by file name without its ending: initial, trained, and epoch_000012 for
    those after 12 epochs. Raises CheckpointError where they were altered, are not there, or belong to another recipe."""
    folder = shipped_folder(name)
    if not (folder / CARD).is_file():
        raise CheckpointError(f"No parameters of '{name}' are shipped; train it with: feature-lens train {name}.")
    card = json.loads((folder / CARD).read_text())
    wanted = json.loads(json.dumps(recipe))  # tuples are lists there
    if card["recipe"] != wanted:
        unlike = next(key for key in wanted if card["recipe"].get(key) != wanted[key])
        raise CheckpointError(
            f"The shipped parameters of '{name}' have {unlike}={card['recipe'].get(unlike)}, but "
            f"{unlike}={wanted[unlike]} was asked for; train that with: feature-lens train {name} --recipe ..."
        )
    for file, checksum in card["sha256"].items():
        found = hashlib.sha256((folder / file).read_bytes()).hexdigest() if (folder / file).is_file() else "none"
        if found != checksum:
            raise CheckpointError(f"'{file}' of '{name}' is not the file that was shipped; install the package again.")
    return {Path(file).stem: load_checkpoint(folder / file) for file in card["sha256"]}


def packed(states: Mapping[str, Params], card: Mapping[str, Any]) -> dict[str, bytes]:
    """States as safetensors, and the card with their checksums, by file name."""
    from safetensors.torch import save

    files = {
        f"{name}.safetensors": save({key: value.contiguous() for key, value in state.items()})
        for name, state in states.items()
    }
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return files | {CARD: (json.dumps({**card, "sha256": sums}, indent=2) + "\n").encode()}
