"""feature_lens against its peers on the same nets, in turns, and against its own bounds; printed as one table.

Nothing is asserted but that we finish: a peer that fails is one line. A single row: pytest tests/benchmarks -n 0 -s
-k full-mlp-2000-vivit. Times are medians over rounds of ours, peer, ours, peer; memory is that of a fresh process
after its first request. The first run makes the peers' environments.

Where we are slower than `asked`, and what profiles showed and was tried:
- digits, whole kernel, at some hours: .22 of .6 s is the first touch of 1.3 GB, .15 the mirror half; products of depth 10 and
  32 take a quarter of the rest. Kernel tiles of 960 rows instead of 320, products summed strip by strip where the kernel
  is, and the mirror written in long rows took .95 s into touched memory down to .5.
- mlp 200 against torch.func: .02 of .07 s is preparation (graph, rules, verification on two examples), which each new
  design pays once; the rest is the GEMM bound of a small kernel.
- summed over outputs, decoder: two thirds are the backward passes of 113 outputs x 80 examples, at two dead positions of
  three: autograd runs them too, live positions are skipped after it. An orthogonal basis of the unembedding's rows in place
  of the outputs saves nothing, as there are 113 of them in 128 dimensions.
- summed over outputs, cnn: per-example gradients of the first layers, whose kernels at 196 positions cost more by pairs.
- best examples: a panel of products takes 10 % to multiply, 10 % for moments, 17 % for the largest of each lane, 40 % to
  insert what may be kept, at both ends; the peer that gives the highest alone does half of that and no moments. Against
  one that gives both ends 12 and 26 times (15 and 50 asked); more only where another process takes a core.
- the rate of symmetric GEMM: .45 to .69 of it in touched memory, the less the faster the processor, by tiles whose products
  have depth 256 and 784; the rest is the scaled sum, a third as long as the products, and the mirror. To sum within the
  compiled loop that multiplies was slower.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contestants import Contestant, Failed, Reply, contestant
from environments import CACHE
from nets import write_digits, write_nets
from protocol import difference
from rows import AGREEMENT, HEADS, ROWS, Line, Row, ratio, seconds, text

# A peer that needs longer than this is measured once.
_SLOW = 60.0
_ROUNDS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("nets")
    write_nets(path)
    write_digits(path)
    return str(path)


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest) -> Callable[[Line], None]:
    """Prints a line of the table; the first brings the heads with it."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def tell(line: Line) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{text(line)}", end="", flush=True)

    tell(HEADS)
    return tell


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_against_a_peer(row: Row, folder: str, told: Callable[[Line], None]) -> None:
    try:
        with contestant(row.peer) as peer, contestant("ours") as we:
            ours, theirs = _rounds(we, peer, row, folder)
    except Failed as failure:
        told(Line(row.name, peer=row.peer, asked=row.asked, agreement=str(failure)))
        return
    told(_line(row, ours, theirs, _agreement(row, ours[0], theirs[0], folder)))


@pytest.mark.parametrize("row", AGREEMENT, ids=lambda row: row.id)
def test_agreement(row: Row, folder: str, told: Callable[[Line], None], tmp_path: Path) -> None:
    """Every entry of a kernel against that of a Jacobian in float64."""
    with contestant("ours") as we, contestant(row.peer) as peer:
        ours = _ask(we, row, row.task, folder, {"save": str(tmp_path / "ours.npy")})
        theirs = _ask(peer, row, row.theirs, folder, {"save": str(tmp_path / "theirs.npy")})
    a, b = (np.load(tmp_path / name).astype(np.float64) for name in ("ours.npy", "theirs.npy"))
    told(_line(row, [ours], [theirs], f"{np.abs(a - b).max() / np.abs(b).max():.1e}", timed=False))


def test_one_core_busy(folder: str, told: Callable[[Line], None]) -> None:
    row = Row("full", "mlp", 1000, "ours, one core busy", "<= 1.5")
    with contestant("ours") as we:
        _warmed(we, row, row.task, folder, {})
        quiet, busy = [], []
        for _ in range(_ROUNDS):
            quiet.append(_ask(we, row, row.task, folder, {}))
            with _busy():
                busy.append(_ask(we, row, row.task, folder, {}))
    told(_line(row, quiet, busy, ""))


@pytest.mark.parametrize(
    ("what", "net", "n"), [("n", "mlp", 2000), ("c", "mlp_outputs", 1000), ("p", "mlp_width", 1000)]
)
def test_growth(what: str, net: str, n: int, folder: str, told: Callable[[Line], None]) -> None:
    small, large = Row("full", "mlp", 1000, f"ours, {what} doubled"), Row("full", net, n, "ours")
    with contestant("ours") as we:
        _warmed(we, small, small.task, folder, {})
        _warmed(we, large, large.task, folder, {})
        pairs = [[_ask(we, row, row.task, folder, {}) for row in (small, large)] for _ in range(_ROUNDS)]
    told(_line(small, [pair[0] for pair in pairs], [pair[1] for pair in pairs], ""))


@pytest.mark.parametrize("memory", [64, 512])
@pytest.mark.parametrize(("net", "n"), [("mlp", 2000), ("digits", 1797), ("cnn", 300), ("decoder", 80)])
def test_working_memory(net: str, n: int, memory: int, folder: str, told: Callable[[Line], None]) -> None:
    """Peak of a process less what it had before and the kernel, beside what `--memory` allows."""
    row = Row("full", net, n, "", options={"memory": memory}, label=f"memory-{memory}", warm=4)
    c = {"decoder": 113}.get(net, 10)
    with contestant("ours") as we:
        _warmed(we, row, row.task, folder, {})
        reply = _ask(we, row, row.task, folder, {})
    beside = (reply["rss"] - reply["before"] - 4 * (n * c) ** 2) / 2**20
    told(Line(row.name, seconds([reply["seconds"]]), asked=f"<= {memory} MiB", memory=f"{beside:.0f} MiB beside"))


def test_bound_of_matrix_products(folder: str, told: Callable[[Line], None]) -> None:
    """sum over layers of r^2 d_out + n^2 d_in multiply-adds, the symmetric half of them, at the rate of sgemm; both in
    buffers already touched."""
    row = Row("full", "mlp", 2000, "bound by sgemm", ">= 0.7")
    n, c, sides = row.n, 10, ((784, 256), (256, 256), (256, 10))
    flops = sum((n * c) ** 2 * d_out + n**2 * d_in for d_in, d_out in sides)
    with contestant("ours") as we:
        _warmed(we, row, row.task, folder, {})
        ours, bounds = [], []
        for _ in range(_ROUNDS):
            ours.append(_ask(we, row, row.task, folder, {"touched": True}))
            rate = _ask(we, row, "gemm_rate", folder, {})
            bounds.append({**rate, "seconds": flops / rate["numbers"][0]})
    beside = (ours[0]["rss"] - 4 * (n * c) ** 2) / 1e9
    rates = [bound["numbers"][0] / 1e9 for bound in bounds]
    told(_line(row, ours, bounds, f"{seconds(rates)} GFLOPS; {beside:.2f} GB beside the kernel"))


def _rounds(we: Contestant, peer: Contestant, row: Row, folder: str) -> tuple[list[Reply], list[Reply]]:
    ours, theirs = [], []
    _warmed(we, row, row.task, folder, {})
    _warmed(peer, row, row.theirs or row.task, folder, row.their_options)
    for _ in range(_ROUNDS):
        ours.append(_ask(we, row, row.task, folder, {}))
        theirs.append(_ask(peer, row, row.theirs or row.task, folder, row.their_options))
        if theirs[0]["seconds"] > _SLOW:
            break
    return ours, theirs


def _ask(who: Contestant, row: Row, task: str, folder: str, more: Any, n: int | None = None) -> Reply:
    return who.ask(task, row.net, n or row.n, folder, **row.options, **more)


def _warmed(who: Contestant, row: Row, task: str, folder: str, more: Any) -> Reply:
    return _ask(who, row, task, folder, more, row.warm)


def _agreement(row: Row, ours: Reply, theirs: Reply, folder: str) -> str:
    if row.task != "leading":
        return f"{difference(ours['numbers'], theirs['numbers']):.1e}"
    exact = np.array(_exact(row, folder))
    errors = [np.abs(np.array(reply["numbers"]) / exact - 1).max() for reply in (ours, theirs)]
    return f"errors {errors[0]:.1e} / {errors[1]:.1e}"


def _exact(row: Row, folder: str) -> list[float]:
    """Eigenvalues in float64, computed once and kept beside the environments."""
    held = CACHE / f"{row.name}.json"
    if not held.exists():
        with contestant("torch.func") as judge:
            found = _ask(judge, row, "leading_reference", folder, {})["numbers"]
        CACHE.mkdir(parents=True, exist_ok=True)
        held.write_text(json.dumps(found))
    values: list[float] = json.loads(held.read_text())
    return values


def _line(row: Row, ours: list[Reply], theirs: list[Reply], agreement: str, timed: bool = True) -> Line:
    a, b = ([reply["seconds"] for reply in replies] for replies in (ours, theirs))
    memory = " / ".join(f"{replies[0]['rss'] / 1e9:.2f}" for replies in (ours, theirs)) + " GB"
    ratios = ratio(a, b) if timed else ""
    return Line(row.name, seconds(a), row.peer, seconds(b), ratios, row.asked, memory, agreement)


@contextmanager
def _busy() -> Iterator[None]:
    """One core kept busy by a process of its own."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()
