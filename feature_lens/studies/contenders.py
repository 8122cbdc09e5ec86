"""The feature sets of one seed: networks trained, every contender extracted, all of them in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_lens.analysis.kinds import LOGITS as OUTPUTS
from feature_lens.analysis.kinds import RANDOM as MIXTURE
from feature_lens.analysis.study.families import FAMILIES, LOGITS, RANDOM, SHUFFLED
from feature_lens.concepts import as_concepts
from feature_lens.errors import SettingsError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.feature_set import FeatureSet
from feature_lens.kept_table import KeptTable
from feature_lens.networks import Network
from feature_lens.networks.zoo import ZooNet
from feature_lens.networks.zoo.parameter_files import shipped_folder
from feature_lens.run_contents import RunContents

COMPETES: Final = "study_families"
# Directions in parameter space are kept up to this many numbers a set: measures do not need them.
_MOST_DIRECTIONS = 1 << 24


@dataclass(frozen=True)
class Contender:
    """One feature set of a study, as `--set` takes it, and what it competes as; those of `SHUFFLED` are made of a
    network trained on labels that were permuted."""

    spec: str
    family: str

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise SettingsError(
                f"A set competes as one of {', '.join(FAMILIES)}, but '{self.family}' came; choose one of them."
            )


@dataclass(frozen=True)
class Families:
    """What the sets of a run compete as, by their names."""

    by_set: Mapping[str, str]

    def of(self, kind: str, set_name: str) -> str:
        """That of a kind of features, which may be no set."""
        return {OUTPUTS: LOGITS, MIXTURE: RANDOM}.get(kind) or self.by_set[set_name]


def families_of(run: RunContents) -> Families:
    """What the sets of a seed's run compete as."""
    columns = run.tables[COMPETES].arrays()
    return Families(dict(zip(columns["set"].tolist(), columns["family"].tolist(), strict=True)))


def seed_contents(
    net: ZooNet,
    contenders: Sequence[Contender],
    components: int,
    settings: ExtractSettings,
    concepts: Callable[[RunContents], Mapping[str, npt.NDArray[np.float64]]] | None = None,
    progress: bool = False,
) -> RunContents:
    """The run of a network of the zoo with every contender's set, and a kept table of what they compete as.

    Contenders of shuffled labels are left out where the network learns none. concepts: what is known of the examples
    once the network is trained.
    """
    examples = net.examples()
    network = _network(net)
    families: dict[str, str] = {}
    sets: dict[str, FeatureSet] = {}
    parts: list[RunContents] = []
    for family in FAMILIES:
        specs = [one.spec for one in contenders if one.family == family]
        if not specs or (family == SHUFFLED and not net.classes):
            continue
        # Any permutation will do, but not the same for every seed.
        of = _network(replace(net, shuffled=1 + net.seed)) if family == SHUFFLED else network
        # Without a feature of the other network, this one is not run.
        own = replace(settings, ablation=0) if family == SHUFFLED else settings
        part = _extracted(of, examples, specs, components, own, progress)
        parts.append(part)
        for feature_set in part.sets.values():
            kept = _of_shuffled(feature_set) if family == SHUFFLED else _light(feature_set)
            families[kept.name], sets[kept.name] = family, kept
    remarks = dict.fromkeys(remark for part in parts for remark in part.provenance.remarks)
    whole = replace(parts[0], provenance=replace(parts[0].provenance, remarks=tuple(remarks)))
    if concepts is not None:
        known = {**{one.name: one for one in examples.concepts}, **concepts(whole)}
        whole = replace(whole, examples=replace(examples, concepts=as_concepts(known, len(examples))))
    columns = {"set": np.array(list(families)), "family": np.array(list(families.values()))}
    table = KeptTable("What the sets of a study compete as", columns)
    return replace(whole, sets=sets, tables={COMPETES: table})


def _network(net: ZooNet) -> Network:
    """As shipped where the recipe is that of the shipped parameters, else trained; raises CheckpointError where those were
    altered."""
    if net == type(net)() and shipped_folder(net.key()).is_dir():
        return net.shipped()
    return net.network(net.train())


def _extracted(
    network: Network, examples: Examples, specs: list[str], components: int, settings: ExtractSettings, progress: bool
) -> RunContents:
    sets = tuple(SetSettings.parsed(spec, n_components=_number(spec, components)) for spec in specs)
    return compute_run(network, examples, replace(settings, sets=sets, neurons=()), progress=progress)


def _number(spec: str, components: int) -> int | None:
    """How many features a set is asked for; those turned inside an eigenspace choose its dimension by a gap."""
    basis, _, outputs = spec.partition("/")
    return None if basis in ("varimax", "ica") and not outputs.startswith("neurons") else components


def _of_shuffled(feature_set: FeatureSet) -> FeatureSet:
    """A set of the network trained on shuffled labels, without what belongs to that network's parameters."""
    card = replace(
        feature_set.card,
        title=f"{feature_set.card.title}, shuffled labels",
        description=f"Of the same network trained on labels that were permuted. {feature_set.card.description}",
    )
    own = {"direction", "parameter_share"}
    columns = {name: column for name, column in feature_set.columns.items() if name not in own}
    return replace(feature_set, name=f"shuffled_{feature_set.name}", card=card, columns=columns, parameters=None)


def _light(feature_set: FeatureSet) -> FeatureSet:
    direction = feature_set.columns.get("direction")
    if direction is None or np.prod(direction.shape) <= _MOST_DIRECTIONS:
        return feature_set
    columns = {name: column for name, column in feature_set.columns.items() if name != "direction"}
    return replace(feature_set, columns=columns)
