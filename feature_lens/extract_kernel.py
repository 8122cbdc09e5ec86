"""The hall for a kernel alone: a network and its examples go in, a file of kernels comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from feature_lens.examples import Examples
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.kernels import By
from feature_lens.networks import Network
from feature_lens.nonfinite import nonfinite_outputs
from feature_lens.store import check_writable, kernel_file


@dataclass(frozen=True)
class KernelSettings:
    """Which kernel.

    at: a feature kind. outputs: an output reduction by name. between: the examples of its rows and of its columns,
    each all, training or held-out. by: whole, or its parts by layer or tensor. each_output: a kernel for each output
    alone. layers: parameter tensors or modules, all without. memory: MiB beside what is written.
    """

    at: str = "effective"
    outputs: str = "flattened"
    between: tuple[str, str] = ("all", "all")
    by: By = "whole"
    each_output: bool = False
    layers: tuple[str, ...] | None = None
    memory: int = 512


def extract_kernel(
    network: Network,
    examples: Examples,
    out: Path | str,
    settings: KernelSettings = KernelSettings(),
    *,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Compute kernels into a file (see `store/kernel_file.py`), block by block; returns the path. Outputs that are not
    finite are kept in the file's settings as "remarks", and `tell` is given each of them.

    Raises OutputError, NetworkError, ExamplesError or SettingsError, each with one sentence; what was at `out` before
    stays on any failure. Cost: see `kernel_plan`.
    """
    target = check_writable(out, overwrite)
    rows, columns = _designs(network, examples, settings)
    against = None if settings.between[0] == settings.between[1] else columns
    shapes = rows.kernel_shapes(settings.by, settings.each_output, against)
    remarks = nonfinite_outputs(examples, network.outputs(examples))
    told = asdict(settings) | {"learning_rates": network.learning_rates, "network": network.digest, "remarks": remarks}
    others = None if against is None else against.examples.ids
    with kernel_file(target, shapes, rows.dtype, rows.examples.ids, told, overwrite, column_ids=others) as made:
        rows.kernels(against, by=settings.by, each_output=settings.each_output, out=made)
    for remark in remarks:
        tell(remark)
    return target


def kernel_plan(network: Network, examples: Examples, settings: KernelSettings = KernelSettings()) -> str:
    """How each layer's share would be computed, as a table. Raises what `extract_kernel` does for its settings."""
    rows, columns = _designs(network, examples, settings)
    said = f"between {len(rows.examples):,} and {len(columns.examples):,} examples; counted for a square "
    return said + str(rows.plan(len(columns.examples)))


def _designs(
    network: Network, examples: Examples, settings: KernelSettings
) -> tuple[EffectiveFeatures, EffectiveFeatures]:
    """Those of the rows and of the columns."""
    layers, memory = settings.layers, settings.memory << 20
    design = EffectiveFeatures(network, examples, settings.at, settings.outputs, layers=layers, memory=memory)
    first, second = (design.on(examples.part(name)) for name in settings.between)
    return first, second
