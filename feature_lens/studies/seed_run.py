"""One seed of a study: networks trained, every contender extracted, all of it in one run file.

A run file that is there already, and belongs to the very same study, is not made again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from feature_lens.analysis.study.families import FAMILIES, SHUFFLED
from feature_lens.concepts import as_concepts
from feature_lens.errors import CheckpointError, OutputError
from feature_lens.examples import Examples
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.feature_set import FeatureSet
from feature_lens.kept_table import KeptTable
from feature_lens.networks import Network
from feature_lens.networks.zoo import ZOO, ZooNet
from feature_lens.run_contents import RunContents
from feature_lens.store import RunFile, write_run
from feature_lens.studies.study import STUDIES, Study

COMPETES = "study_families"
# Directions in parameter space are kept up to this many numbers a set: measures do not need them.
_MOST_DIRECTIONS = 1 << 24


def seed_file(name: str, seed: int, folder: Path) -> Path:
    """Where a seed of a study is kept."""
    return folder / f"{name}_seed_{seed}.h5"


def seed_run(name: str, seed: int, folder: Path, overwrite: bool = False, progress: bool = False) -> Path:
    """Make the run of one seed, with a kept table of what its sets compete as; returns its path.

    Raises OutputError where the file is there and belongs to another study, unless `overwrite`, and what training and
    extraction raise.
    """
    study, path = STUDIES[name], seed_file(name, seed, folder)
    if path.exists() and not overwrite:
        with RunFile(path) as run:
            if run.provenance.settings.get("study") != study.plain():
                raise OutputError(
                    f"'{path}' was made by another version of the study '{name}'; remove it, or allow it to be replaced "
                    "with --overwrite."
                )
        return path
    contents = seed_contents(study, seed, progress)
    return write_run(replace(contents, name=f"{name} seed {seed}"), path, overwrite)


def seed_contents(study: Study, seed: int, progress: bool = False) -> RunContents:
    """The run of one seed in memory."""
    net = ZOO[study.net].from_text((*study.recipe, f"seed={seed}"))
    examples = net.examples()
    network = _network(net)
    parts: dict[str, RunContents] = {}
    for family in FAMILIES:
        specs = [one.spec for one in study.contenders if one.family == family]
        if not specs or (family == SHUFFLED and not net.classes):
            continue
        of = _network(replace(net, shuffled=1 + seed)) if family == SHUFFLED else network
        parts[family] = _extracted(of, examples, study, specs, progress)
    families: dict[str, str] = {}
    sets: dict[str, FeatureSet] = {}
    for family, part in parts.items():
        for feature_set in part.sets.values():
            kept = _of_shuffled(feature_set) if family == SHUFFLED else _light(feature_set)
            families[kept.name], sets[kept.name] = family, kept
    whole = next(iter(parts.values()))
    remarks = dict.fromkeys(remark for part in parts.values() for remark in part.provenance.remarks)
    settings = {**whole.provenance.settings, "study": study.plain()}
    if study.concepts is not None:
        known = {**{one.name: one for one in examples.concepts}, **study.concepts(whole)}
        examples = replace(examples, concepts=as_concepts(known, len(examples)))
    contents = replace(
        whole,
        examples=examples,
        sets=sets,
        provenance=replace(whole.provenance, settings=settings, remarks=tuple(remarks)),
    )
    columns = {"set": np.array(list(families)), "family": np.array(list(families.values()))}
    return replace(contents, tables={COMPETES: KeptTable("What the sets of a study compete as", columns)})


def families_of(run: RunContents) -> dict[str, str]:
    """What every set of a seed's run competes as, by its name."""
    columns = run.tables[COMPETES].arrays()
    return dict(zip(columns["set"].tolist(), columns["family"].tolist(), strict=True))


def _network(net: ZooNet) -> Network:
    """As shipped where the recipe is that of the shipped parameters, else trained."""
    try:
        return net.shipped()
    except CheckpointError:
        return net.network(net.train())


def _extracted(network: Network, examples: Examples, study: Study, specs: list[str], progress: bool) -> RunContents:
    sets = tuple(SetSettings.parsed(spec, n_components=study.components) for spec in specs)
    settings = ExtractSettings(sets=sets, neurons=(), keep=study.keep, lenient=True, ablation=True)
    return compute_run(network, examples, settings, progress=progress)


def _of_shuffled(feature_set: FeatureSet) -> FeatureSet:
    """A set of the network trained on shuffled labels, without what belongs to that network's parameters."""
    card = replace(
        feature_set.card,
        title=f"{feature_set.card.title}, shuffled labels",
        description=f"Of the same network trained on labels that were permuted. {feature_set.card.description}",
    )
    own = {"direction", "parameter_share"}
    columns = {
        name: column
        for name, column in feature_set.columns.items()
        if name not in own and not name.startswith("ablation/")
    }
    return replace(feature_set, name=f"shuffled_{feature_set.name}", card=card, columns=columns, parameters=None)


def _light(feature_set: FeatureSet) -> FeatureSet:
    direction = feature_set.columns.get("direction")
    if direction is None or np.prod(direction.shape) <= _MOST_DIRECTIONS:
        return feature_set
    columns = {name: column for name, column in feature_set.columns.items() if name != "direction"}
    return replace(feature_set, columns=columns)
