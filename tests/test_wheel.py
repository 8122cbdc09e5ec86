"""The wheel holds all that a machine without the checkout needs: the demo's parameters, the app and its settings."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from feature_lens.distribution import DISTRIBUTION, VERSION, other_owners
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
        [sys.executable, "-P", "-W", "error::UserWarning", "-W", "error::RuntimeWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_in_it(installed: Path) -> None:
    records = f"{DISTRIBUTION.replace('-', '_')}-{VERSION}.dist-info"
    assert {entry.name for entry in installed.iterdir()} == {"feature_lens", "feature_lens_app", records}
    said = (installed / records / "METADATA").read_text(encoding="utf-8").splitlines()
    assert {f"Name: {DISTRIBUTION}", f"Version: {VERSION}"} <= set(said)
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
    app = _run(installed, "from feature_lens_app import launch; print(launch.MAIN, launch.command([], 8501))", tmp_path)
    assert app.startswith(str(installed / "feature_lens_app" / "main.py"))
    assert "feature_lens_app.server" in app


OWNERS: dict[str, tuple[str, str, list[str]]] = {
    "its own wheel": ("effective_feature_lens-9.dist-info", "RECORD: feature_lens/__init__.py,sha256=x,1", []),
    "the index's project": (
        "feature_lens-0.3.dist-info",
        "RECORD: feature_lens/__init__.py,sha256=x,1",
        ["feature-lens"],
    ),
    "one of any name": ("other.one-1.dist-info", "RECORD: a.py,,\r\nfeature_lens/__init__.py,,\r\n", ["other-one"]),
    "an egg": ("feature_lens-0.1-py3.11.egg-info", "top_level.txt: feature_lens\n", ["feature-lens"]),
    "one with an inner folder": ("other-1.dist-info", "RECORD: other/feature_lens/__init__.py,,", []),
    "one with a longer name": ("other-1.egg-info", "top_level.txt: feature_lens_more", []),
    "one that only points at a checkout": ("feature_lens-0.1.0.dist-info", "RECORD: _editable_impl.pth,,", []),
    "one without a list": ("feature_lens-0.3.dist-info", "METADATA: Name: feature-lens", []),
}


@pytest.mark.parametrize("case", OWNERS)
def test_who_else_owns_the_folder(case: str, tmp_path: Path) -> None:
    name, held, wanted = OWNERS[case]
    file, _, content = held.partition(": ")
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_text(content, encoding="utf-8", newline="")
    assert other_owners(str(tmp_path / "feature_lens")) == wanted
    assert other_owners(str(tmp_path / "packed.zip" / "feature_lens")) == []


def test_another_owner_of_the_folder_is_told_once_at_import(installed: Path, tmp_path: Path) -> None:
    theirs = installed / "feature_lens-0.3.dist-info"
    theirs.mkdir()
    (theirs / "RECORD").write_text("feature_lens/__init__.py,sha256=x,1\n", encoding="utf-8")
    try:
        code = (
            "import warnings\n"
            "with warnings.catch_warnings(record=True) as said:\n"
            "    warnings.simplefilter('always')\n"
            "    import feature_lens, feature_lens.examples\n"
            "(one,) = said\n"
            "print(one.category.__name__, one.filename, one.message)"
        )
        said = _run(installed, code, tmp_path)
    finally:
        (theirs / "RECORD").unlink()
        theirs.rmdir()
    assert said.startswith(
        f"RuntimeWarning <string> The folder '{installed / 'feature_lens'}' must belong to {DISTRIBUTION}"
    )
    assert "the distribution feature-lens installed it too" in said


def test_a_checkout_that_was_never_installed_knows_its_version() -> None:
    """Without site-packages, so without the record of any distribution."""
    line = [sys.executable, "-S", "-W", "error", "-c", "import feature_lens; print(feature_lens.__version__)"]
    done = subprocess.run(line, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (VERSION, "")
