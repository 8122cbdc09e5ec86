"""The wheel holds all that a machine without the checkout needs: the demo's parameters, the app and its settings."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
        "feature_lens/networks/digits/trained.safetensors",
        "feature_lens/networks/digits/initial.safetensors",
        "feature_lens/networks/digits/recipe.json",
        "feature_lens_app/main.py",
        "feature_lens_app/.streamlit/config.toml",
    ):
        assert (installed / name).is_file(), name
    assert not list(installed.rglob("*cache*"))


def test_it_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = _run(
        installed,
        "import feature_lens.networks.digits as d; print(d.__file__); print(d.shipped_folder()); d.shipped_digits()",
        tmp_path,
    )
    assert where.split() == [str(installed / "feature_lens/networks" / part) for part in ("digits.py", "digits")]
    app = _run(installed, "from feature_lens_app import launch; print(launch.command([], 8501))", tmp_path)
    assert str(installed / "feature_lens_app" / "main.py") in app
