"""From what a run is to hold to what computes it: a design matrix and a basis for every set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from feature_lens.arrays import require_storable
from feature_lens.errors import NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.feature_set import SET_NAME
from feature_lens.features.bases import BASES, Basis
from feature_lens.features.bases.basis import BasisSettings
from feature_lens.features.design import DesignMatrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.neurons import Logits, NeuronActivations, hidden_layers
from feature_lens.networks import Network
from feature_lens.settings import DEFAULT_SETS, ExtractSettings, SetSettings, as_name

# Output reductions that are one and the same where there is one output.
_OF_ONE_OUTPUT = ("flattened", "trace", "sum", "output:0")


@dataclass(frozen=True)
class Job:
    """One set that is to be computed."""

    name: str
    design: DesignMatrix
    basis: Basis


def jobs_of(network: Network, examples: Examples, settings: ExtractSettings) -> tuple[list[Job], list[str]]:
    """What is to be computed, all of it checked, and remarks on what is left out because it does not apply here.

    Left out are sets among the default ones, layers where all were asked for, and with leniency any. Raises SettingsError for what does
    not apply otherwise, and for names that are given twice or are none.
    """
    jobs: list[Job] = []
    remarks: list[str] = []
    taken: dict[str, SetSettings] = {}
    seen: dict[SetSettings, str] = {}
    one_output = network.check(examples, settings.tile or 32) == 1
    for parts in _parts(network, examples, settings, remarks):
        refused: list[SettingsError] = []
        for part in parts:
            name = _free_name(part, taken)
            if one_output and part.outputs in _OF_ONE_OUTPUT and not part.name:
                same = seen.setdefault(replace(part, outputs="flattened"), name)
                if same != name:
                    remarks.append(f"The set '{name}' is not made: with one output it is '{same}'.")
                    continue
            job = _job(network, examples, part, settings, name)
            try:
                job.basis.check(job.design)
            except SettingsError as error:
                refused.append(error)
                remarks.append(f"The set '{job.name}' is left out: {error}")
                continue
            jobs.append(job)
        # What was asked for by name must be had; of all layers some may not fit.
        if refused and settings.sets != DEFAULT_SETS and not settings.lenient and len(refused) == len(parts):
            raise refused[0]
    names = [job.name for job in jobs]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"Two feature sets are called '{name}'; give one of them another name.")
        if not SET_NAME.fullmatch(name):
            raise SettingsError(f"The name of a set is made of letters, digits, '_', '-' and '.', but '{name}' came.")
    return jobs, list(dict.fromkeys(remarks))


def check_names(network: Network, name: str) -> None:
    """Refuse a run, network, parameter or layer whose name no file can hold; raises ExamplesError, before anything is
    computed."""
    parts = (part for part, _ in network.module.named_modules())
    named = {"as the name of a run": [name], "as the name of a network": [network.name]}
    for what, names in {
        **named,
        "in the names of layers": parts,
        "in the names of parameters": network.parameters.names,
    }.items():
        for one in names:
            require_storable(one, what)


def _free_name(wanted: SetSettings, taken: dict[str, SetSettings]) -> str:
    """The set's name, with a number where layers that are written alike, such as 'a/b' and 'a_b', would share it."""
    title = name = wanted.title()
    number = 1
    while name in taken and (taken[name].outputs, taken[name].layers) != (wanted.outputs, wanted.layers):
        number += 1
        name = f"{title}_{number}"
    taken.setdefault(name, wanted)
    return name


def effective(
    network: Network, examples: Examples, wanted: SetSettings, settings: ExtractSettings
) -> EffectiveFeatures:
    """The design matrix of a set of effective features."""
    return EffectiveFeatures(
        network,
        examples,
        wanted.at,
        wanted.outputs,
        layers=wanted.layers,
        tile=settings.tile,
        memory=settings.memory << 20,
    )


def _parts(
    network: Network, examples: Examples, settings: ExtractSettings, remarks: list[str]
) -> Iterator[list[SetSettings]]:
    """The sets, each as those that it is made of, and ordinary neurons as the settings say, but for layers that are
    among the sets."""
    for wanted in settings.sets:
        parts = list(_by_layer(network, examples, wanted, remarks))
        if not parts:
            raise SettingsError(
                f"The set '{wanted.title()}' is made of hidden layers, but the network has none that can be shown; leave it out."
            )
        yield parts
    asked = ["neurons"] if settings.neurons is None else [f"neurons:{layer}" for layer in settings.neurons]
    named = {"neurons"} | {one.outputs for one in settings.sets if (one.basis, one.at) == ("canonical", "effective")}
    if not any((one.basis, one.at, one.outputs) == ("canonical", "effective", "neurons") for one in settings.sets):
        for outputs in asked:
            parts = list(_by_layer(network, examples, SetSettings("canonical", outputs), remarks))
            yield [part for part in parts if part.outputs not in named]


def _by_layer(network: Network, examples: Examples, wanted: SetSettings, remarks: list[str]) -> Iterator[SetSettings]:
    """The set itself, or where it is of all neurons one for each layer that has some to show."""
    if wanted.outputs != "neurons":
        yield wanted
        return
    network.check(examples)
    try:
        known = hidden_layers(network, examples)
    except NetworkError as error:  # of a forward that cannot be followed, though it runs
        remarks.append(f"Hidden layers are not shown: {error}")
        return
    remarks += [f"Layer '{layer.name}' is not shown: {layer.remark}." for layer in known if not layer.usable]
    for layer in known:
        if layer.usable:
            part = replace(wanted, outputs=f"neurons:{layer.name}")
            yield replace(part, name=f"{wanted.name}_{as_name(layer.name)}" if wanted.name else "")


def _job(network: Network, examples: Examples, wanted: SetSettings, settings: ExtractSettings, name: str) -> Job:
    asked = BasisSettings(
        wanted.n_components,
        wanted.centred,
        wanted.cosine,
        settings.random_state,
        settings.rank_outputs,
        settings.factors,
    )
    return Job(name, _design(network, examples, wanted, settings), BASES[wanted.basis].asked(asked))


def _design(network: Network, examples: Examples, wanted: SetSettings, settings: ExtractSettings) -> DesignMatrix:
    if not wanted.of_activations:
        return effective(network, examples, wanted, settings)
    if wanted.layers is not None:
        raise SettingsError(
            "Layers are chosen among parameters, but neurons and logits are not made of these; name the layer as "
            "neurons:LAYER."
        )
    if wanted.outputs == "logits":
        return Logits(network, examples, at=wanted.at, tile=settings.tile)
    layer = wanted.outputs.partition(":")[2]
    return NeuronActivations(network, examples, layer, reduce=settings.reduce, at=wanted.at, tile=settings.tile)
