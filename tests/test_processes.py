"""How processes end: by every signal in one sentence, with nothing left of files and of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feature_lens.errors import WorkerError
from feature_lens.processes import WorkerProcesses, stopped_by_signals

STOPPED = "Stopped; what was not finished was not written.\n"

TASKS = """
import functools, os, sys, time
from pathlib import Path
from feature_lens import cli, processes, reading_commands
from feature_lens.processes import WorkerProcesses
from feature_lens.store.placing import put_in_place

def write(target):
    with put_in_place(Path(target), False) as temporary:
        temporary.write_bytes(b"half")
        print("at work", os.getpid(), flush=True)
        time.sleep(100)

def alone(path):
    write("run.h5")

def in_threads(path):
    from concurrent.futures import ThreadPoolExecutor
    with put_in_place(Path("run.h5"), False), ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 100)
        print("at work", flush=True)

def in_processes(path):
    with WorkerProcesses(2) as pool:
        for future in [pool.submit(write, f"{number}.h5") for number in range(4)]:
            future.result()


if __name__ == "__main__":
    how = sys.argv.pop()
    if how == "in_threads":  # which nothing can stop
        cli.stopped_by_signals = functools.partial(processes.stopped_by_signals, patience=0.5)
    reading_commands.print_card = globals()[how]
    cli.main()
"""


@contextmanager
def _at_work(folder: Path, how: str, workers: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A command that computes in a process of its own, in a group as a terminal makes one, when all of it is at work."""
    (folder / "tasks.py").write_text(TASKS)
    line = [sys.executable, "tasks.py", "info", "run.h5", how]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, cwd=folder, env=environment, text=True, start_new_session=True, **pipes) as process:
        try:
            assert process.stdout is not None
            yield process, [process.stdout.readline() for _ in range(workers)]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"tasks.py", "__pycache__"}


@pytest.mark.parametrize("how", ["alone", "in_threads", "in_processes"])
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_signal_stops_a_command_as_the_user_does(sent: str, how: str, tmp_path: Path) -> None:
    with _at_work(tmp_path, how, 2 if how == "in_processes" else 1) as (process, _):
        if sent == "SIGINT":  # a terminal sends it to all of them
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(getattr(signal, sent))
        out, err = process.communicate(timeout=60)  # until the last process that could write there has ended
        assert (process.returncode, out, err) == (130, "", STOPPED)
    assert not _left(tmp_path)


def test_workers_of_a_killed_process_end_with_it(tmp_path: Path) -> None:
    with _at_work(tmp_path, "in_processes", 2) as (process, _):
        process.kill()
        out, err = process.communicate(timeout=60)
        assert (out, "Traceback" in err) == ("", False)  # Python tells of semaphores that the killed one had
    assert not _left(tmp_path)


def test_a_killed_worker_ends_the_others_and_is_one_sentence(tmp_path: Path) -> None:
    with _at_work(tmp_path, "in_processes", 2) as (process, said):
        os.kill(int(said[0].split()[-1]), signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, "")
        assert err == (
            "Error: A process that computed beside this one was ended from outside, often for want of memory; what was "
            "finished is kept: run it again, with fewer workers.\n"
        )
    assert len(_left(tmp_path)) == 1  # of the killed one, which the next command tells of


def test_a_pool_gives_what_its_workers_found_and_hands_on_their_errors() -> None:
    with WorkerProcesses(2, lasting=True) as pool:
        assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]
    with pytest.raises(ValueError, match="invalid literal"), WorkerProcesses(1) as pool:
        pool.submit(int, "x").result()
    with pytest.raises(WorkerError, match="was ended from outside"), WorkerProcesses(1) as pool:
        pool.submit(os.abort).result()


def test_a_command_that_goes_on_without_its_terminal_does_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals(lambda: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1
