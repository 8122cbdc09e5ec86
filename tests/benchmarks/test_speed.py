"""Times and ratios on this machine, medians of paired runs; printed, never asserted. Run with `make bench`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import read_net, write_digits, write_nets
from networks import mlp
from oracles import made

from feature_lens.analysis import feature_table, labelled_sheet, open_run
from feature_lens.analysis.measures.bootstrap import resampled, shuffled
from feature_lens.analysis.measures.selectivity import Halves, selectivity_curve
from feature_lens.analysis.measures.set_measures import set_measures
from feature_lens.examples import Examples
from feature_lens.extract import compute_run, extract_run
from feature_lens.features.bases import Canonical, Eigen
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.jacobian import Jacobian
from feature_lens.features.weight_ranking import Wanted, rank_weights
from feature_lens.networks import Network
from feature_lens.networks.zoo import Digits


def _paired(first: Callable[[], object], second: Callable[[], object], rounds: int = 5) -> tuple[float, float, float]:
    """Median seconds of each, and the median of the paired ratios second / first."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        pair = []
        for job in (first, second):
            start = time.perf_counter()
            job()
            pair.append(time.perf_counter() - start)
        times.append((pair[0], pair[1]))
    a, b = (statistics.median(t[i] for t in times) for i in (0, 1))
    return a, b, statistics.median(t[1] / t[0] for t in times)


def _told(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n  {line}")


def test_extract_of_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, examples = Digits().shipped(), Digits().examples()
    seconds = []
    for turn in range(3):
        start = time.perf_counter()
        path = extract_run(network, examples, tmp_path / f"{turn}.h5", progress=False)
        seconds.append(time.perf_counter() - start)
    _told(capsys, f"demo extract {statistics.median(seconds):.1f} s, file {path.stat().st_size / 1e6:.1f} MB")


def test_vmap_against_the_loop(capsys: pytest.CaptureFixture[str]) -> None:
    network, examples = Digits().shipped(), Digits().examples()
    features = EffectiveFeatures(network, examples)
    inputs = network.tensor(examples.inputs[:32])
    labels = torch.zeros(32, dtype=torch.long)
    by_vmap, by_loop = (
        Jacobian(network, network.trained, features.reduction, features.parameters.names) for _ in range(2)
    )
    by_loop.step = "loop"
    by_vmap(inputs, labels)
    fast, slow, ratio = _paired(lambda: by_vmap(inputs, labels), lambda: by_loop(inputs, labels))
    _told(capsys, f"Jacobian of 32 digits: vmap {fast * 1e3:.1f} ms, loop {slow * 1e3:.1f} ms, ratio {ratio:.1f}")


def test_sides_of_the_eigen_basis(capsys: pytest.CaptureFixture[str]) -> None:
    network, examples = made(mlp(), (5,), 2000, 3)
    design = EffectiveFeatures(network, examples)
    columns, products, ratio = _paired(
        lambda: Eigen(16, side="columns").fit(design), lambda: Eigen(16, side="matrix_free").fit(design), 3
    )
    _told(
        capsys, f"eigen, 2,000 x 3 rows, p = 111: columns {columns:.2f} s, matrix-free {products:.2f} s, x{ratio:.1f}"
    )


def test_weight_features(capsys: pytest.CaptureFixture[str]) -> None:
    network, examples = Digits().shipped(), Digits().examples()
    design = EffectiveFeatures(network, examples)
    basis = Canonical().fit(design)
    stream, rank, ratio = _paired(
        lambda: sum(1 for _ in design.blocks()), lambda: basis.feature_set(design, "weights"), 3
    )
    _told(capsys, f"weight features of the demo: one stream {stream:.2f} s, ranked {rank:.2f} s, x{ratio:.1f}")


def test_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = extract_run(Digits().shipped(), Digits().examples(), tmp_path / "digits.h5", progress=False)
    with open_run(path) as run:
        view = run.sets["weights"].views[0]
        first = time.perf_counter()
        feature_table(run, "weights", view)
        once = time.perf_counter() - first
        table, sheet, _ = _paired(
            lambda: feature_table(run, "weights", view, search="0.weight"),
            lambda: labelled_sheet(run, *run.sets["eigen"].extremes(0, "score", "highest")),
        )
    _told(
        capsys,
        f"table of 3,466 weights {once * 1e3:.0f} ms, then {table * 1e3:.0f} ms; sheet of 16 {sheet * 1e3:.0f} ms",
    )


def test_measures(capsys: pytest.CaptureFixture[str]) -> None:
    rng, (k, n, q) = np.random.default_rng(0), (100, 2000, 10)
    labels = rng.integers(0, q, n)
    values = rng.standard_normal((k, n)) + (np.arange(k)[:, None] % q == labels)
    halves = Halves(np.arange(1400), np.arange(1400, n), "the last 600")
    weights, shuffles = resampled(n, 200, 0)[:, 1400:], shuffled(n, 100, 1)
    counts = [1, 2, 4, 8, 16, 32, 64, 100]
    draws, both, _ = _paired(
        lambda: selectivity_curve(values, labels, halves, counts, weights, shuffles[:0]),
        lambda: selectivity_curve(values, labels, halves, counts, weights, shuffles),
    )
    _told(
        capsys,
        f"selectivity of 100 features, 2,000 examples, 10 classes: with 200 draws {draws:.2f} s, and 100 shuffles {both:.2f} s",
    )
    contents = compute_run(Digits().shipped(), Digits().examples(), progress=False)
    start = time.perf_counter()
    set_measures(contents)
    _told(capsys, f"all measures of the demo's kinds of features: {time.perf_counter() - start:.1f} s")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    line = [str(Path(sys.executable).with_name("feature-lens")), "--help"]
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run(line, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    _told(capsys, f"feature-lens --help: {np.median(seconds) * 1e3:.0f} ms")


class _Everything:
    """A memory of verified tiles in which all are."""

    def __contains__(self, tile: object) -> bool:
        return True

    def add(self, tile: object) -> None:
        pass


@pytest.mark.parametrize(
    ("task", "net", "n"),
    [
        *(("trace", net, n) for net, n in (("mlp", 2000), ("cnn", 200), ("decoder", 80))),
        *(("full", net, n) for net, n in (("mlp", 2000), ("digits", 1797), ("cnn", 300), ("decoder", 80))),
        *(("rankings", net, n) for net, n in (("mlp", 2000), ("cnn", 600))),
    ],
)
def test_what_holding_every_tile_against_autograd_costs(
    task: str, net: str, n: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nets(tmp_path)
    write_digits(tmp_path)
    module, inputs = read_net(tmp_path, net, n)
    network = Network.from_module(module, precision="float32")
    outputs = {"trace": "trace", "full": "flattened", "rankings": "output:0"}[task]
    design = EffectiveFeatures(network, Examples.from_arrays(inputs), outputs=outputs)

    def work() -> object:
        if task != "rankings":
            return design.gram()
        return rank_weights(design, Wanted(1, lambda rows, _: rows, 16))

    def with_memory(memory: object) -> Callable[[], object]:
        def run() -> object:
            monkeypatch.setattr(design, "_verified", memory() if isinstance(memory, type) else memory)
            return work()

        return run

    work()
    without, checked, ratio = _paired(with_memory(_Everything()), with_memory(set), 7)
    _told(capsys, f"{task} {net} {n}: {without:.2f} s, held against autograd {checked:.2f} s, x{ratio:.3f}")
