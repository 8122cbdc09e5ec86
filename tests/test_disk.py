"""What happens to files from outside: disks that fill at any write, processes that are killed, files that change while
they are open, links that lead nowhere. Each is one sentence; nothing is lost, and no process ends by it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
import streamlit as st
import torch
from feature_lens_app import launch
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest
from synthetic import contents

from feature_lens.analysis import find_runs
from feature_lens.errors import CheckpointError, OutputError, RunError
from feature_lens.features.compiled import compiled
from feature_lens.networks import load_checkpoint
from feature_lens.store import RunFile, check_writable, kernel_file, write_bytes, write_run
from feature_lens.store.hdf5_files import ReadFile, WrittenFile

# Disks

FILLS_UP = """
import os, resource, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from feature_lens.errors import OutputError
from feature_lens.run_contents import KeptKernel
from feature_lens.store import kernel_file, write_run
from synthetic import contents

if sys.argv[1] == "unforeseen":  # a system that cannot reserve room
    del os.posix_fallocate
folder = Path(sys.argv[2])
(folder / "there.h5").write_bytes(b"precious")
made = replace(contents(300), kernel=KeptKernel("trace", np.ones((300, 300))))
for size in (0, 50, 1000, 2500, 100_000, 700_000, 2_000_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        with kernel_file(folder / "kernel.h5", {"a": (512, 512), "b": (2, 300, 300)}, "f8", np.arange(512), {}) as parts:
            for at in range(0, 512, 64):
                parts["a"][at : at + 64] = np.ones((64, 512))
            parts["b"][:] = np.ones((2, 300, 300))
    except OutputError as error:
        assert "kernel.h5' could not be written (File too large); nothing was changed." in str(error), error
    else:
        raise AssertionError(size)
    if size < 700_000:
        try:
            write_run(made, folder / "there.h5", overwrite=True)
        except OutputError as error:
            assert "there.h5' could not be written (File too large); nothing was changed." in str(error), error
        else:
            raise AssertionError(size)
    assert os.listdir(folder) == ["there.h5"]
    assert (folder / "there.h5").read_bytes() == b"precious"
"""


@pytest.mark.parametrize("room", ["reserved", "unforeseen"])
def test_a_disk_that_fills_at_any_write_is_one_sentence(room: str, tmp_path: Path) -> None:
    """In a process of its own, which HDF5 brings down at its end where a write of it had failed."""
    line = [sys.executable, "-c", FILLS_UP, room, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_system_that_cannot_reserve_room_writes_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
    with kernel_file(tmp_path / "k.h5", {"": (3, 3)}, "f8", np.arange(3), {}) as parts:
        parts[""][:] = np.eye(3)
    assert (tmp_path / "k.h5").stat().st_size > 72


def test_a_signal_that_comes_while_hdf5_writes_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = WrittenFile.write, []

    def interrupted(disk: WrittenFile, data: bytes) -> int:
        calls.append(len(data))
        signal.raise_signal(signal.SIGINT)
        return write(disk, data)

    def write_kernel() -> None:
        with kernel_file(tmp_path / "k.h5", {"": (600, 600)}, "f8", np.arange(3), {}) as parts:
            monkeypatch.setattr(WrittenFile, "write", interrupted)
            for at in range(0, 600, 50):
                parts[""][at : at + 50] = np.ones((50, 600))

    with pytest.raises(KeyboardInterrupt):
        write_kernel()
    assert calls
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not list(tmp_path.iterdir())


def _twice(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("damage", ["cut", "other bytes", "a folder", "none"])
def test_compiled_functions_are_compiled_again_where_they_cannot_be_kept(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled(_twice)(3) == 6
    (index,), (data,) = tmp_path.rglob("*.nbi"), tmp_path.rglob("*.nbc")
    for file in (index, data):
        if damage == "a folder":
            file.unlink()
            file.mkdir()
        elif damage != "none":
            file.write_bytes(b"" if damage == "cut" else b"something else")
        assert compiled(_twice)(3) == 6
    again = compiled(_twice)
    assert again(3) == 6
    assert sum(again.stats.cache_hits.values()) == (0 if damage == "a folder" else 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    assert compiled(_twice)(0.5) == 1.0  # a type that was not yet compiled for


def test_parameters_stay_what_they_were_when_their_file_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "trained.safetensors"
    save_file({"weight": torch.ones(100_000)}, path)
    state = load_checkpoint(path)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(bytes(5000))
    os.truncate(path, 10_000)
    assert bool((state["weight"] == 1).all())
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        load_checkpoint(path)


# Processes

WRITES = """
import sys, time
from pathlib import Path
from feature_lens.store.placing import put_in_place
with put_in_place(Path(sys.argv[1]), False) as temporary:
    temporary.write_bytes(bytes(2_000_000))
    print("written", flush=True)
    time.sleep(100)
"""


def test_what_a_killed_process_left_is_told_of_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    target = tmp_path / "run.h5"
    (tmp_path / ".0123.part").write_bytes(b"somebody else's")
    line = [sys.executable, "-c", WRITES, str(target)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                check_writable(target)
        finally:
            writer.kill()
    (left,) = [path for path in tmp_path.iterdir() if path.name != ".0123.part"]
    with pytest.warns(UserWarning, match="were killed") as told:
        write_bytes(b"new", target)
    assert str(told[0].message) == (
        f"Processes that were killed left 1 unfinished file(s) of 2.0 MB in '{tmp_path}', such as '{left.name}'; nothing "
        "uses them, so remove them."
    )
    assert left.exists()
    assert target.read_bytes() == b"new"


# Open files


def _cut(path: Path) -> None:
    os.truncate(path, 3000)


def _overwritten(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [_cut, _overwritten, _longer])
def test_a_file_that_changes_while_it_is_open_is_no_longer_read(change: Callable[[Path], None], tmp_path: Path) -> None:
    path = write_run(contents(200), tmp_path / "run.h5")
    with RunFile(path) as run, RunFile(write_run(contents(), tmp_path / "other.h5")) as other:
        change(path)
        with pytest.raises(RunError) as error:
            run.sets["eigen"].columns["values"][:]
        assert str(error.value) == f"'{path}' was changed by another program while it was open; open it again."
        assert len(other.sets["eigen"].columns["values"][:])
    with pytest.raises(RunError):
        RunFile(path)


def test_a_file_that_is_replaced_or_removed_while_it_is_open_is_read_to_the_end(tmp_path: Path) -> None:
    path = write_run(contents(200), tmp_path / "run.h5")
    wanted = contents(200).sets["eigen"].columns["values"]
    with RunFile(path) as run:
        write_run(contents(50), path, overwrite=True)
        path.unlink()
        np.testing.assert_array_equal(run.sets["eigen"].columns["values"][:], wanted)


def test_a_file_that_is_cut_while_its_seal_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(contents(), tmp_path / "run.h5")
    check, calls = ReadFile.check, []

    def cutting(file: ReadFile) -> None:
        calls.append(file)
        if len(calls) == 3:
            os.truncate(path, 100)
        check(file)

    monkeypatch.setattr(ReadFile, "check", cutting)
    with pytest.raises(RunError, match="was changed by another program while it was open"):
        RunFile(path)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with one good run among files that are none."""
    write_run(contents(), tmp_path / "good.h5")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    (tmp_path / "nowhere.h5").symlink_to("gone.h5")
    (tmp_path / "zero.h5").symlink_to("/dev/zero")
    (tmp_path / "again.h5").symlink_to("good.h5")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "folder.h5").mkdir()
    os.mkfifo(tmp_path / "pipe.h5")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/half\xff.h5")).write_bytes(b"none")
    return tmp_path


def test_odd_files_are_listed_and_refused_in_one_sentence(odd: Path) -> None:
    found = find_runs([odd, odd / "loop.h5" / "below", odd / "gone"])
    assert sorted(found) == ["again", "below", "empty", "gone", "half\\xff", "loop", "nowhere", "pipe", "zero"]
    for name in set(found) - {"again"}:
        with pytest.raises(RunError) as error:
            RunFile(found[name])
        assert str(error.value).endswith(".")
        assert "\n" not in str(error.value)
    RunFile(found["again"]).close()


def test_a_folder_that_goes_while_it_is_looked_through_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.h5").touch()
    there = os.path.isdir

    def removed(path: Path) -> bool:
        found = there(path)
        if found and path == tmp_path / "a":
            shutil.rmtree(path)
        return found

    monkeypatch.setattr(os.path, "isdir", removed)
    assert list(find_runs([tmp_path])) == ["b"]


@pytest.fixture
def fresh() -> Iterator[None]:
    yield
    st.cache_resource.clear()
    st.cache_data.clear()


def test_odd_files_in_a_folder_harm_no_other_runs_page(odd: Path, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["main.py", str(odd)])
    app = AppTest.from_file(str(launch.MAIN), default_timeout=30)
    for name in ("again", "half\\xff", "loop", "pipe", "again", "zero", "nowhere", "again"):
        app.query_params["run"] = name
        app.run()
        assert not app.exception, app.exception
        assert [error.value.endswith(r"\.") for error in app.error] == ([] if name == "again" else [True]), name
    os.truncate(odd / "good.h5", 3000)  # under an app that has it open
    app.run()
    assert not app.exception
    assert "damaged" in app.error[0].value
    write_run(contents(), odd / "good.h5", overwrite=True)
    assert not app.run().error


def test_a_name_that_is_no_text_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be a file"):
        check_writable(tmp_path / os.fsdecode(b"half\xff.h5"))
