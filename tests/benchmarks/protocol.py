"""What a contestant and the harness say to each other: a JSON request per line in, a JSON reply per line out.

A contestant makes a `Job` of a `Request`; the clock runs over `Job.run` alone. Kernels of any layout are handed over as
views (n, c, n, c), so that a peer is not charged for an order of axes that it does not use. Needs numpy alone.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Request:
    """One task on the first n examples of a net; `folder` holds <net>.npz, `options` what else a task needs."""

    task: str
    net: str
    n: int
    folder: str
    options: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"{self.net}.npz"


@dataclass(frozen=True)
class Job:
    """A computation that is ready to start, and what makes an array of its result, as `numbers` takes it."""

    run: Callable[[], Any]
    array: Callable[[Any], np.ndarray[Any, Any]] = np.asarray


Prepare = Callable[[Request], Job]


def numbers(array: np.ndarray[Any, Any]) -> list[float]:
    """Up to 1,024 numbers that stand for a result: the trace and entries of a kernel (n, c, n, c), else entries."""
    if array.ndim != 4:
        return [float(value) for value in _spread(array.reshape(-1), 1024)]
    n, c = array.shape[:2]
    rows = np.unique(np.linspace(0, n * c - 1, 32).astype(int))
    example, output = np.divmod(rows, c)
    entries = array[example[:, None], output[:, None], example, output]
    diagonal = array[np.arange(n)[:, None], np.arange(c), np.arange(n)[:, None], np.arange(c)]
    return [float(diagonal.sum(dtype=np.float64)) / (n * c), *(float(value) for value in entries.reshape(-1))]


def difference(ours: list[float], theirs: list[float]) -> float:
    """max |difference| / max |value| of two lists of numbers."""
    a, b = np.array(ours), np.array(theirs)
    if a.shape != b.shape:
        return float("nan")
    return float(np.abs(a - b).max() / np.abs(a).max())


def peak_bytes(afresh: bool = False) -> int:
    """Peak resident memory of this process alone (getrusage counts that of the parent before exec); `afresh`: of now,
    from where peaks are counted again, where the system can."""
    status = Path("/proc/self/status")
    if status.exists():
        if afresh:
            Path("/proc/self/clear_refs").write_text("5")
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def serve(tasks: Mapping[str, Prepare]) -> None:
    """Answer requests until the input ends; anything else that is printed goes to stderr."""
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            reply = _answer(tasks, Request(**json.loads(line)))
        except Exception as error:  # noqa: BLE001  # a contestant that fails is a line in the table
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(reply), file=replies, flush=True)


def _answer(tasks: Mapping[str, Prepare], request: Request) -> dict[str, Any]:
    if request.task not in tasks:
        return {"error": f"has no task '{request.task}'"}
    job = tasks[request.task](request)
    before = peak_bytes(afresh=True)
    start = time.perf_counter()
    result = job.run()
    seconds = time.perf_counter() - start
    peak, array = peak_bytes(), job.array(result)
    if "save" in request.options:
        np.save(request.options["save"], array)
    return {"seconds": seconds, "rss": peak, "before": before, "numbers": numbers(array)}


def _spread(values: np.ndarray[Any, Any], most: int) -> np.ndarray[Any, Any]:
    return values[np.unique(np.linspace(0, len(values) - 1, most).astype(int))]
