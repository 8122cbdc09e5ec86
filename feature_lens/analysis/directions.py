"""Where in parameter space a feature lives: shares of the tensors, and its unit direction as pictures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.tiles import grid_of
from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.run_contents import RunContents

Picture = tuple[str, npt.NDArray[np.float64]]


def parameter_shares(feature_set: FeatureSet, feature: int) -> pd.DataFrame | None:
    """Columns parameter, share: how much of the squared unit direction lies in each parameter tensor.

    A weight feature lies in its own tensor alone. None where the set knows no directions.
    """
    feature_set.check(feature)
    table = feature_set.parameters
    if table is None:
        return None
    if "parameter_share" in feature_set:
        share = np.asarray(feature_set.columns["parameter_share"][feature], dtype=np.float64)
    elif feature_set.is_canonical:
        share = np.array([float(name == table.locate(feature)[0]) for name in table.names])
    else:
        return None
    return pd.DataFrame({"parameter": list(table.names), "share": share})


def direction_pictures(run: RunContents, set_name: str, feature: int, output: int | None = None) -> list[Picture]:
    """The unit direction cut into the parameter tensors, each as rows and columns to be drawn.

    A matrix is drawn as it is (a row per output unit), a vector as one row, convolution kernels as a grid with a row
    per output channel and a gap of one zero cell. A weight whose inputs are the entries of an image modality comes
    once more as one picture per unit, under its name followed by ' as images'. output: which (p,) part of a
    direction (c, p) of a trace set, 0 where None; SettingsError where there is no such output. [] without a direction.
    Reads one row, p or c p numbers.
    """
    feature_set = run.feature_set(set_name)
    feature_set.check(feature)
    table = run.network.parameters
    if "direction" not in feature_set:
        return []
    direction = np.asarray(feature_set.columns["direction"][feature], dtype=np.float64)
    outputs = direction.shape[0] if direction.ndim == 2 else run.network.n_outputs
    if output is not None and not 0 <= output < outputs:
        raise SettingsError(f"Outputs are numbered 0 to {outputs - 1}, but {output} was asked for; choose one of them.")
    if direction.ndim == 2:
        direction = direction[output or 0]
    pictures: list[Picture] = []
    for (name, place), shape in zip(table.slices, table.shapes, strict=True):
        tensor = direction[place].reshape(shape)
        pictures.append((name, tensor_picture(tensor)))
        if (units := _unit_pictures(run, tensor)) is not None:
            pictures.append((f"{name} as images", units))
    return pictures


def tensor_picture(tensor: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A tensor of any number of dimensions as (rows, columns); kernels of one input channel form a square grid."""
    if tensor.ndim <= 1:
        return tensor.reshape(1, -1)
    if tensor.ndim == 2:
        return tensor
    height = 1 if tensor.ndim == 3 else math.prod(tensor.shape[2:-1])
    kernels = tensor.reshape(tensor.shape[0] * tensor.shape[1], height, tensor.shape[-1])
    columns = tensor.shape[1] if tensor.shape[1] > 1 else math.ceil(math.sqrt(tensor.shape[0]))
    return grid_of(kernels, columns, 1, 0.0)


def _unit_pictures(run: RunContents, tensor: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    modality = run.examples.modality
    if modality.kind != "image" or tensor.ndim != 2 or tensor.shape[1] != math.prod(modality.shape):
        return None
    channels, height, width = modality.shape
    units = modality.arranged(tensor).reshape(len(tensor) * channels, height, width)
    # Channels of one unit stay side by side, so with several of them a row is one unit.
    columns = channels if channels > 1 else math.ceil(math.sqrt(len(tensor)))
    return grid_of(units, columns, 1, 0.0)
