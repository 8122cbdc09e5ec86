"""Snapshots of a training as networks: one for every step, from the initial to the trained parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from feature_lens.errors import SettingsError
from feature_lens.networks import Network
from feature_lens.networks.checkpoints import SUFFIXES
from feature_lens.networks.states import Params, State


def steps_of(network: Network, snapshots: Mapping[int, State]) -> dict[int, Network]:
    """The network at every step, in their order: its initial parameters at step 0 where they are known, then the
    snapshots, state dicts or checkpoint files by step, of which the last holds the trained parameters.

    Steps count whatever the training counted, such as epochs. Buffers are those of the trained network at every step.
    Raises SettingsError for steps that are not whole numbers from 0, for fewer than two, and where the last is not the
    trained network or step 0 not the initial one; CheckpointError for a state of another architecture, NetworkError for
    numbers that are not finite.
    """
    for step in snapshots:
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 1 << 63:
            raise SettingsError(
                f"The step of a snapshot is a whole number from 0 to below 2^63, but {step!r} came; give its number."
            )
    found = {step: network.at_state(snapshots[step], f"snapshot {step}") for step in sorted(snapshots)}
    if network.initial is not None:
        start = network.at_state(network.initial, "initial")
        if 0 in found and not _same(found[0].trained, start.trained):
            raise SettingsError(
                "Step 0 is where training begins, but the snapshot of step 0 is not the initial parameters; give it "
                "another step, or leave the initial parameters out."
            )
        found = {0: start, **{step: one for step, one in found.items() if step > 0}}
    if len(found) < 2:
        raise SettingsError(
            "Training dynamics need parameters at two steps at least, but there are not as many; give snapshots, with "
            "the trained parameters as the last."
        )
    last = max(found)
    if not _same(found[last].trained, network.trained):
        raise SettingsError(
            f"The last snapshot must be the trained parameters, but that of step {last} is not; give these with the "
            "step at which training ended too."
        )
    return found


def parsed_snapshots(entries: Sequence[str]) -> dict[int, State]:
    """Checkpoint files by step, from entries STEP=PATH, or folders, of which every checkpoint whose name ends in a number
    is taken as the snapshot of that step.

    Raises SettingsError for entries that are neither, a folder without such files, and a step that comes twice.
    """
    found: dict[int, State] = {}
    for entry in entries:
        step, equals, path = entry.partition("=")
        if Path(entry).is_dir():
            given = list(_numbered(Path(entry)))
        elif equals and path and step.isascii() and step.isdigit():
            given = [(int(step), Path(path))]
        else:
            raise SettingsError(
                f"A snapshot is written STEP=PATH, or is a folder of such, but '{entry}' came; write for example "
                "10=epoch_000010.safetensors."
            )
        for number, file in given:
            if number in found:
                raise SettingsError(f"Two snapshots are of step {number}; give each step one.")
            found[number] = file
    return found


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    """Checkpoints of a folder whose names end in a number."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES]
    numbers = [(number, file) for file in files if (number := re.search(r"[0-9]+$", file.stem)) is not None]
    if not numbers:
        raise SettingsError(
            f"The folder '{folder}' holds no checkpoint whose name ends in the number of a step, such as "
            "epoch_000010.safetensors; give STEP=PATH for each instead."
        )
    yield from ((int(number.group()), file) for number, file in numbers)


def _same(one: Params, other: Params) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())
