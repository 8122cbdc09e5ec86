"""The hall between the wings: a network and its examples go in, the contents of a run come out."""

from __future__ import annotations

import hashlib
import json
import platform
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, get_args

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from feature_lens.cards import Provenance
from feature_lens.distribution import VERSION
from feature_lens.dual.ablation import ablations
from feature_lens.dual.record import dual_record
from feature_lens.dual.regression import MOST_SIDE
from feature_lens.dual_record import DualRecord
from feature_lens.dynamics import FinalFeatures, dynamics_tables, steps_of
from feature_lens.errors import ExamplesError, FeatureLensError, SettingsError
from feature_lens.examples import Examples
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases import Eigen
from feature_lens.features.bases.basis import MOST_CLASSES, RankOutputs
from feature_lens.features.design import DesignMatrix, one_thread
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.kept_kernel import kept_kernel
from feature_lens.features.neurons import NeuronActivations, Reduce
from feature_lens.jobs import Job, check_names, effective, jobs_of
from feature_lens.kept_table import KeptTable
from feature_lens.networks import Network
from feature_lens.networks.states import State
from feature_lens.nonfinite import output_remarks, value_remarks
from feature_lens.predictions import Predictions
from feature_lens.registry import unknown_name
from feature_lens.run_contents import KEPT_KERNELS, RunContents
from feature_lens.settings import DEFAULT_SETS as DEFAULT_SETS
from feature_lens.settings import ExtractSettings as ExtractSettings
from feature_lens.settings import SetSettings as SetSettings
from feature_lens.store import check_writable, write_run

MOST_KEPT = 10_000
MOST_AT_ONCE = 65_536
_SOFTWARE = ("torch", "numpy", "scipy", "scikit-learn", "captum", "h5py")


def extract_run(
    network: Network,
    examples: Examples,
    out: Path | str,
    settings: ExtractSettings = ExtractSettings(),
    *,
    name: str = "",
    overwrite: bool = False,
    progress: bool = True,
    remarks: tuple[str, ...] = (),
    snapshots: Mapping[int, State] | None = None,
) -> Path:
    """Compute a run and write it to `out`; returns the path.

    snapshots: parameters of the network on the way, as `feature_lens.dynamics.steps_of` takes them, for its training
    dynamics. `remarks` of one's own are kept in the run. The path is tried before anything is computed. Raises OutputError, NetworkError, ExamplesError or SettingsError,
    each with one sentence; what was at `out` before stays on any failure.
    """
    target = check_writable(out, overwrite)
    contents = compute_run(
        network,
        examples,
        settings,
        name=name or target.stem,
        progress=progress,
        remarks=remarks,
        snapshots=snapshots,
    )
    return write_run(contents, target, overwrite)


def compute_run(
    network: Network,
    examples: Examples,
    settings: ExtractSettings = ExtractSettings(),
    *,
    name: str = "run",
    progress: bool = True,
    remarks: tuple[str, ...] = (),
    snapshots: Mapping[int, State] | None = None,
) -> RunContents:
    """Compute the contents of a run in memory, for those who do not want a file."""
    _check(examples, settings)
    check_names(network, name)
    steps = None if snapshots is None else steps_of(network, snapshots)
    n_outputs = network.check(examples, settings.tile or 32)
    jobs, left_out = jobs_of(network, examples, settings)
    sets, failed = _built(jobs, settings, progress)
    kernel = _kernel_design(network, examples, settings)
    outputs = network.outputs(examples, settings.tile or 32)
    predictions = Predictions.of(examples, outputs)
    dual, not_finite = _dual(network, examples, settings, outputs)
    weight = np.asarray(dual.columns["weight"]) if dual is not None and dual.has_contributions else None
    if settings.dual or settings.ablation:
        designs = {job.name: job.design for job in jobs}
        most = None if settings.dual else settings.ablation
        sets = {name: _with_effects(built, designs[name], weight, most) for name, built in sets.items()}
    tables, untold = ({}, ()) if steps is None else _dynamics(steps, examples, jobs, sets, settings, progress)
    of_sets = [remark for feature_set in sets.values() for remark in feature_set.card.provenance.remarks]
    return RunContents(
        name=name,
        network=network.card(n_outputs, predictions.figures(examples, outputs)),
        examples=replace(examples, inferred=(*examples.inferred, *predictions.sentences)),
        outputs=outputs,
        sets=sets,
        dual=dual,
        kernel=None if kernel is None else kept_kernel(kernel),
        tables=tables,
        provenance=Provenance(
            settings=settings.shaping(),
            software=software(),
            fingerprint=fingerprint(network, examples, settings, steps or {}),
            remarks=(
                *(*remarks, *not_finite, *dict.fromkeys(of_sets), *left_out, *failed, *untold),
                *_remarks(network, examples),
            ),
        ),
    )


def _dual(
    network: Network, examples: Examples, settings: ExtractSettings, outputs: npt.NDArray[np.float64]
) -> tuple[DualRecord | None, list[str]]:
    """The dual model, if it was asked for and outputs are finite, and remarks on outputs that are not."""
    told = output_remarks(examples, outputs)
    if not settings.dual:
        return None, told
    whole = np.isfinite(outputs).all()
    if network.initial is not None:
        before = network.outputs(examples, settings.tile or 32, at="initial")
        whole = whole and np.isfinite(before).all()
        told += output_remarks(examples, before, "outputs before training")
    if not whole:
        return None, [*told, "The dual model is left out, since it needs outputs that are finite on every example."]
    return dual_record(network, examples, settings.of_dual(), memory=settings.memory << 20), told


def _dynamics(
    steps: Mapping[int, Network],
    examples: Examples,
    jobs: list[Job],
    sets: Mapping[str, FeatureSet],
    settings: ExtractSettings,
    progress: bool,
) -> tuple[dict[str, KeptTable], tuple[str, ...]]:
    """Tables of the training, with the history of the sets that have one; none, and a remark, where a step has no features."""
    finals = [FinalFeatures.of_set(sets[job.name], job.design, job.basis) for job in jobs if job.name in sets]
    known = [final for final in finals if final is not None]
    with tqdm(total=len(steps), desc="training dynamics", disable=None if progress else True, unit="step") as bar:
        memory = settings.memory << 20
        try:
            return dynamics_tables(steps, examples, known, memory=memory, watch=lambda _: bar.update()), ()
        except SettingsError as error:
            return {}, (f"Training dynamics are left out. {error}",)


def _with_effects(
    feature_set: FeatureSet, design: DesignMatrix, weight: npt.NDArray[np.float64] | None, most: int | None
) -> FeatureSet:
    """A set with what the network does without each feature; weights in the order of their mean contribution."""
    columns = dict(feature_set.columns) | ablations(design, feature_set, weight, most)
    if weight is not None and feature_set.is_canonical:
        columns["order"] = np.argsort(-weight, kind="stable").astype(np.int32)
    return replace(feature_set, columns=columns)


def extraction_plan(
    network: Network,
    examples: Examples,
    settings: ExtractSettings = ExtractSettings(),
    snapshots: Mapping[int, State] | None = None,
) -> str:
    """How a run would be computed, in words and counts, without computing it: sizes, kernels by layer, the dual model.

    Raises what `compute_run` raises for settings that do not fit.
    """
    _check(examples, settings)
    c = network.check(examples, settings.tile or 32)
    jobs, left_out = jobs_of(network, examples, settings)
    n, p = len(examples), network.parameters.total
    lines: list[str] = []
    for job in jobs:
        rows, columns = job.design.shape
        lines.append(f"{job.name}: {rows:,} rows of {columns:,} {job.design.card[0]}")
        if isinstance(job.design, EffectiveFeatures) and isinstance(job.basis, Eigen):
            lines += [f"  {line}" for line in str(job.design.plan()).splitlines()]
    if settings.dual:
        training = len(examples.fitting)
        side = min(p, training * c)
        whole = f"  whole kernels: six eigenproblems of side {side:,}, or none above {MOST_SIDE:,}"
        lines += [
            "dual model",
            f"  regressions: kernels of {n:,} x {n:,} at three kinds, six eigenproblems of side {training:,}",
            f"  contributions and tickets: path features, {n:,} x {c:,} x {p:,} numbers, streamed twice in tiles",
            f"  interactions: 136 second derivatives of {n:,} x {c:,} outputs",
            f"  expansion: an eigenproblem of side {min(p, training * c, 1024):,}, some 1,500 chains of derivatives",
            f"  ablations: a pass of {n:,} examples for every eigen and unit feature and neuron, and 256 weights",
            *([whole] if settings.flattened else []),
        ]
    if snapshots is not None:
        lines.append(f"training dynamics: {len(steps_of(network, snapshots))} steps, a kernel and an eigenproblem each")
    if (kernel := _kernel_design(network, examples, settings)) is not None:
        plan = str(kernel.plan()).splitlines()
        lines += [f"kernel, {settings.kernel}, in the run", *(f"  {line}" for line in plan)]
    return "\n".join([*lines, *left_out])


def software() -> dict[str, str]:
    """Versions of what computes a run, without local suffixes."""
    versions = {package: metadata.version(package).split("+")[0] for package in _SOFTWARE}
    return {"python": platform.python_version(), "feature_lens": VERSION, **versions}


def fingerprint(
    network: Network, examples: Examples, settings: ExtractSettings, steps: Mapping[int, Network] = MappingProxyType({})
) -> str:
    """sha256 over all that shapes the values of a run: network, learning rates, examples, settings, snapshots, version."""
    # The digest does not see what a forward does with its tensors; a few of its outputs tell.
    few = network.outputs(examples.on(np.arange(min(len(examples), 8))))
    parts = {
        "network": network.digest,
        "outputs": [[f"{value:.6e}" for value in row] for row in few],
        "learning_rates": network.learning_rates,
        "examples": examples.digest(),
        "settings": settings.shaping(),
        "version": VERSION,
        **({"snapshots": {step: one.digest for step, one in steps.items()}} if steps else {}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _kernel_design(network: Network, examples: Examples, settings: ExtractSettings) -> EffectiveFeatures | None:
    wanted = SetSettings(outputs=settings.kernel or "trace")
    return None if settings.kernel is None else effective(network, examples, wanted, settings)


def _built(jobs: list[Job], settings: ExtractSettings, progress: bool) -> tuple[dict[str, FeatureSet], list[str]]:
    """All sets, several at a time, and remarks on those that are left out; linear algebra runs in one thread
    each, so the result does not depend on how many there are."""
    stop = threading.Event()
    with (
        one_thread(),
        tqdm(total=len(jobs), disable=None if progress else True, unit="set") as bar,
        ThreadPoolExecutor(settings.workers) as pool,
    ):
        watch = _Watch(bar, stop)
        futures = {pool.submit(_build, job, settings, watch): job for job in jobs}
        left_out: dict[str, str] = {}
        try:
            for future in as_completed(futures):
                error, job = future.exception(), futures[future]
                if error is not None and not _may_be_left_out(error, job, settings):
                    raise error
                if error is not None:
                    left_out[job.name] = f"The set '{job.name}' is left out: {error}"
                bar.update()
            kept = {job.name: future.result() for future, job in futures.items() if job.name not in left_out}
            if not kept and not settings.lenient:
                next(iter(futures)).result()  # raises what it failed with
            return kept, [left_out[job.name] for job in futures.values() if job.name in left_out]
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _may_be_left_out(error: BaseException, job: Job, settings: ExtractSettings) -> bool:
    """Whether a run goes on without a set: a layer whose values cannot be had never ends it."""
    if isinstance(job.design, NeuronActivations):
        return isinstance(error, FeatureLensError)
    return settings.lenient and isinstance(error, SettingsError)


class _Stopped(Exception):
    """Ends a set that is still being computed when another has failed or the user has stopped the run."""


class _Watch:
    """Counts examples as they are streamed, for the progress bar, and ends streams that are no longer wanted."""

    def __init__(self, bar: tqdm[NoReturn], stop: threading.Event) -> None:
        self._bar, self._stop = bar, stop
        self._seen, self._shown = 0, time.monotonic()

    def __call__(self, count: int) -> None:
        if self._stop.is_set():
            raise _Stopped
        self._seen += count
        if time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            self._bar.set_postfix_str(f"{self._seen:,} examples streamed")


def _build(job: Job, settings: ExtractSettings, watch: Callable[[int], None]) -> FeatureSet:
    design = job.design
    design.watch = watch
    built = job.basis.fit(design).feature_set(design, job.name, settings.keep, settings.batch_size)
    # A fallback may be taken at any time, so remarks are collected after the last stream.
    unreached = design.unreached if isinstance(design, NeuronActivations) else ()
    told = value_remarks(design.examples, built, lambda rows: _finite(design.on(rows)), unreached)
    provenance = replace(built.card.provenance, remarks=(*design.remarks, *told))
    return replace(built, card=replace(built.card, provenance=provenance))


def _finite(design: DesignMatrix) -> bool:
    return all(np.isfinite(block).all() for _, block in design.blocks())


def _check(examples: Examples, settings: ExtractSettings) -> None:
    if len(examples) < 2:
        raise ExamplesError("A ranking needs at least two examples, but one came; give more examples.")
    for what, value in (
        ("keep", settings.keep),
        ("batch_size", settings.batch_size),
        ("workers", settings.workers),
        ("memory", settings.memory),
        ("tile", settings.tile if settings.tile is not None else 1),
    ):
        if value < 1:
            raise SettingsError(f"The setting '{what}' must be at least 1, but {value} came; give a positive number.")
    if settings.tile is not None and settings.tile > MOST_AT_ONCE:
        raise SettingsError(f"At most {MOST_AT_ONCE:,} examples make a tile, but {settings.tile} came; give fewer.")
    if settings.ablation < 0:
        raise SettingsError(
            f"The network is run without 0 or more features of each set, but ablation={settings.ablation} came; give such "
            "a number."
        )
    if settings.keep > MOST_KEPT:
        raise SettingsError(f"At most {MOST_KEPT:,} examples are kept at each end, but {settings.keep} came.")
    if settings.rank_outputs not in get_args(RankOutputs):
        raise SettingsError(f"Outputs are ranked 'auto' or 'all', not '{settings.rank_outputs}'; choose one of them.")
    if settings.kernel is not None and settings.kernel not in KEPT_KERNELS:
        raise unknown_name("kernel that a run keeps", settings.kernel, list(KEPT_KERNELS))
    if settings.reduce not in get_args(Reduce):
        raise unknown_name("reduction of positions", settings.reduce, list(get_args(Reduce)))
    settings.of_dual()
    if settings.factors and not any(one.basis == "canonical" and not one.of_activations for one in settings.sets):
        raise SettingsError(
            "Factors are kept of weight features, but no set of these was asked for; add --set canonical, or leave "
            "--factors out."
        )
    if not settings.dual and (settings.trained_step or settings.trained_time is not None or settings.trained_otherwise):
        raise SettingsError(
            "The training that is expanded is part of the dual model, which was not asked for; add --dual."
        )
    if settings.flattened and not settings.dual:
        raise SettingsError(
            "Regressions on whole kernels are part of the dual model, which was not asked for; add --dual."
        )
    if not settings.sets and settings.neurons == ():
        raise SettingsError("A run needs at least one feature set, but none was asked for; give a set or neurons.")


def _remarks(network: Network, examples: Examples) -> list[str]:
    remarks: list[str] = []
    labels = examples.labels
    if labels is not None and int(labels.max()) >= MOST_CLASSES:
        remarks.append(f"Means per class are kept for up to {MOST_CLASSES} classes only.")
    if labels is not None and len(np.unique(labels)) == 1:
        remarks.append(
            f"All examples are of one class ({examples.class_name(int(labels[0]))}), so class profiles say nothing."
        )
    if examples.training is None:
        remarks.append("There is no held-out split: all bases are fitted in sample.")
    if network.initial is None:
        remarks.append("Initial parameters were not given, so initial features cannot be shown.")
    if network.device.type != "cpu":
        remarks.append(f"Passes of the network ran on the device '{network.device}'.")
    return remarks
