"""What a run is to hold: its feature sets, and what shapes and what only speeds their computation."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace

from feature_lens.dual.perturbation.expansion import ExpansionSettings
from feature_lens.dual.record import DualSettings
from feature_lens.errors import SettingsError
from feature_lens.features.bases.basis import RankOutputs
from feature_lens.features.neurons import Reduce
from feature_lens.registry import unknown_name

_OPTIONS = ("centred", "uncentred", "cosine")
_BY_SPECTRUM = ("deflated", "unit_blocks")  # gaps tell how many features there are


@dataclass(frozen=True)
class SetSettings:
    """One feature set: a basis on a design matrix.

    basis: a registered basis. outputs: an output reduction by name, of whose derivatives the features are made; or
    "neurons:LAYER", the activations of a hidden layer, "neurons", those of every usable one, a set each, or "logits",
    the network's outputs. at: a feature kind; for neurons and logits "effective" or "initial", the trained or the
    untrained network. layers: parameter tensors or modules whose derivatives are looked at, all without.
    n_components (of unit_blocks for each block, of layerwise for each module), centred, cosine: for bases that have such
    settings, which decide for themselves where it is None.
    name: of the set in the run; made from the rest when empty.
    """

    basis: str = "eigen"
    outputs: str = "flattened"
    at: str = "effective"
    layers: tuple[str, ...] | None = None
    n_components: int | None = None
    centred: bool | None = None
    cosine: bool | None = None
    name: str = ""

    @classmethod
    def parsed(
        cls,
        text: str,
        *,
        layers: tuple[str, ...] | None = None,
        n_components: int | None = None,
        centred: bool = False,
    ) -> SetSettings:
        """From BASIS/OUTPUTS[+OPTION][@AT], such as eigen/trace+cosine@initial or pca/neurons:2; outputs are flattened
        and at is effective where left out. An option is centred, uncentred, cosine, or a number of features.

        What the text says itself comes before `n_components`, which does not count for bases that find their number by
        gaps of the spectrum, and `centred`, which counts for the eigen basis of effective features alone; `layers` for
        those that are made of derivatives. Raises SettingsError where no basis
        is named, or an option is not known.
        """
        rest, _, at = text.partition("@")
        design, *options = rest.split("+")
        basis, _, outputs = design.partition("/")
        if not basis:
            raise SettingsError(
                f"A set is written BASIS/OUTPUTS[+OPTION][@AT], but '{text}' came; write for example eigen/trace."
            )
        numbers = [int(option) for option in options if option.isascii() and option.isdigit()]
        unknown = [one for one in options if one not in _OPTIONS and not (one.isascii() and one.isdigit())]
        if unknown:
            raise unknown_name("option of a set", unknown[0], [*_OPTIONS, "or a number of features"])
        if len(numbers) > 1 or len(set(options)) < len(options) or {"centred", "uncentred"} <= set(options):
            raise SettingsError(
                f"A set has each option once, one number of features, and is centred or uncentred, but '{text}' came; leave "
                "one of the options out."
            )
        made = cls(basis, outputs or "flattened", at or "effective")
        derived = not made.of_activations
        said = True if "centred" in options else False if "uncentred" in options else None
        return replace(
            made,
            layers=layers if derived else None,
            n_components=numbers[0] if numbers else None if basis in _BY_SPECTRUM else n_components,
            centred=True if said is None and centred and basis == "eigen" and derived else said,
            cosine=True if "cosine" in options else None,
        )

    @property
    def of_activations(self) -> bool:
        """Whether the features are made of neurons or logits, not of derivatives by parameters."""
        return self.outputs == "logits" or self.outputs.partition(":")[0] == "neurons"

    def title(self) -> str:
        """The set's name in the run."""
        if self.name:
            return self.name
        plain = "" if self.of_activations else "weights"
        parts = [self.basis if self.basis != "canonical" else plain]
        parts += [as_name(self.outputs)] if self.outputs != "flattened" else []
        parts += [self.at] if self.at != "effective" else []
        parts += ["centred" if self.centred else "uncentred"] if self.centred is not None else []
        parts += ["cosine"] if self.cosine else []
        parts += [as_name(layer) for layer in self.layers or ()]
        return "_".join(part for part in parts if part)


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

    sets: feature sets; of the default ones those that do not apply are left out with a remark.
    neurons: hidden layers shown as ordinary neurons, all without, beside those that `sets` name. reduce: 'max', 'mean' or 'absmax', which one of a
    unit's many positions stands for it. keep: examples kept at each end of a ranking (m). rank_outputs: 'auto' or
    'all', for weight features. factors: keep activations and output gradients of weight features, from which every
    value follows. ablation: how many leading features and neurons of each set the network is also run without. lenient: leave a set out, with a
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
    ablation: int = 0
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
        """The settings that shape values, as plain data: all but batch_size and workers. JSON has no infinity, which is said
        in words."""
        return {
            key: f"{value}" if isinstance(value, float) and math.isinf(value) else value
            for key, value in asdict(self).items()
            if key not in ("batch_size", "workers")
        }
