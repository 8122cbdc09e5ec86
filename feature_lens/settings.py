"""What a run is to hold: its feature sets, and what shapes and what only speeds their computation."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from feature_lens.dual.perturbation.expansion import ExpansionSettings
from feature_lens.dual.record import DualSettings
from feature_lens.errors import SettingsError
from feature_lens.features.bases.canonical import RankOutputs
from feature_lens.features.neurons import Reduce


@dataclass(frozen=True)
class SetSettings:
    """One feature set of effective features: a basis on a design matrix.

    basis: a registered basis. outputs: an output reduction by name. at: a feature kind. layers:
    parameter tensors or modules, all without. n_components concerns the bases eigen and learnt, centred
    eigen alone; deflated and unit_blocks choose their dimensions by gaps. name: of the set in
    the run; made from the rest when empty.
    """

    basis: str = "eigen"
    outputs: str = "flattened"
    at: str = "effective"
    layers: tuple[str, ...] | None = None
    n_components: int = 64
    centred: bool = False
    name: str = ""

    @classmethod
    def parsed(
        cls, text: str, *, layers: tuple[str, ...] | None = None, n_components: int = 64, centred: bool = False
    ) -> SetSettings:
        """From BASIS/OUTPUTS@AT, such as eigen/trace@initial; outputs are flattened and at is effective where left out.

        `centred` counts for the eigen basis alone. Raises SettingsError where no basis is named.
        """
        rest, _, at = text.partition("@")
        basis, _, outputs = rest.partition("/")
        if not basis:
            raise SettingsError(
                f"A set is written BASIS/OUTPUTS[@AT], but '{text}' came; write for example eigen/trace."
            )
        return cls(
            basis,
            outputs or "flattened",
            at or "effective",
            layers=layers,
            n_components=n_components,
            centred=centred and basis == "eigen",
        )

    def title(self) -> str:
        """The set's name in the run."""
        if self.name:
            return self.name
        parts = [self.basis if self.basis != "canonical" else "weights"]
        parts += [as_name(self.outputs)] if self.outputs != "flattened" else []
        parts += [self.at] if self.at != "effective" else []
        parts += ["centred"] if self.centred else []
        parts += [as_name(layer) for layer in self.layers or ()]
        return "_".join(parts)


def as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


DEFAULT_SETS = (
    SetSettings("eigen", "flattened"),
    SetSettings("eigen", "trace"),
    SetSettings("unit", "flattened"),
    SetSettings("canonical", "flattened"),
)


@dataclass(frozen=True)
class ExtractSettings:
    """What a run holds.

    sets: feature sets of effective features; of the default ones those that do not apply are left out with a remark.
    neurons: hidden layers shown as ordinary neurons, all without. reduce: 'max', 'mean' or 'absmax', which one of a
    unit's many positions stands for it. keep: examples kept at each end of a ranking (m). rank_outputs: 'auto' or
    'all', for weight features. factors: keep activations and output gradients of weight features, from which every
    value follows. ablation: also run the network without each feature and neuron. lenient: leave a set out, with a
    remark, that cannot be made of this network, where otherwise nothing is made. dual: also fit the dual model, and
    share out what training added among features, with ablations; flattened: its
    regressions on whole kernels too; trained_step and trained_time: the step and number of steps of full-batch
    descent, or 0 and the time of a flow, that its expansion is of, a flow matched to the training loss without;
    trained_otherwise: how the network was trained where that is none of these, in words, and then there is no expansion.
    kernel: keep the kernel between all examples, summed over outputs ("trace") or of all rows ("flattened"); it goes
    to the file block by block. tile: examples per tile, chosen from the sizes without; it shapes rounding.
    batch_size: examples taken together; workers: sets computed at a time; neither changes a value. memory: MiB that
    kernels, eigen features and products of each set may take beside their results; it decides how sums are blocked.
    """

    sets: tuple[SetSettings, ...] = DEFAULT_SETS
    neurons: tuple[str, ...] | None = None
    reduce: Reduce = "max"
    keep: int = 16
    rank_outputs: RankOutputs = "auto"
    factors: bool = False
    dual: bool = False
    ablation: bool = False
    lenient: bool = False
    flattened: bool = False
    trained_step: float = 0.0
    trained_time: float | None = None
    trained_otherwise: str = ""
    kernel: str | None = None
    tile: int | None = None
    batch_size: int = 256
    workers: int = 2
    memory: int = 512
    random_state: int = 0

    def of_dual(self) -> DualSettings:
        """Those of the dual model; raises SettingsError for a training that is none."""
        wanted = ExpansionSettings(self.trained_step, self.trained_time, otherwise=self.trained_otherwise)
        return DualSettings(flattened=self.flattened, expansion=wanted)

    def shaping(self) -> dict[str, object]:
        """The settings that shape values, as plain data: all but batch_size and workers."""
        return {key: value for key, value in asdict(self).items() if key not in ("batch_size", "workers")}
