"""The wheel holds all that a machine without the checkout needs: the demo's parameters, the app and its settings."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from feature_lens.networks.zoo import ZOO

ROOT = Path(__file__).parents[1]
FILES = ("initial.safetensors", "trained.safetensors", "recipe.json", "net.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _run(site: Path, code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error::UserWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_in_it(installed: Path) -> None:
    top = {entry.name for entry in installed.iterdir() if not entry.name.endswith(".dist-info")}
    assert top == {"feature_lens", "feature_lens_app"}
    for name in (
        "feature_lens/py.typed",
        *(f"feature_lens/networks/zoo/shipped/{net}/{file}" for net in ZOO for file in FILES),
        "feature_lens/networks/zoo/shipped/digits/epoch_000001.safetensors",
        "feature_lens_app/main.py",
        "feature_lens_app/.streamlit/config.toml",
    ):
        assert (installed / name).is_file(), name
    assert not list(installed.rglob("*cache*"))


def test_it_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = _run(
        installed,
        "from feature_lens.networks.zoo import ZOO, parameter_files as files\n"
        "print(files.__file__, *(files.shipped_folder(net) for net in ZOO))\n"
        "[ZOO[net]().shipped() for net in ZOO]",
        tmp_path,
    )
    zoo = installed / "feature_lens/networks/zoo"
    assert where.split() == [str(zoo / "parameter_files.py"), *(str(zoo / "shipped" / net) for net in ZOO)]
    app = _run(installed, "from feature_lens_app import launch; print(launch.command([], 8501))", tmp_path)
    assert str(installed / "feature_lens_app" / "main.py") in app
