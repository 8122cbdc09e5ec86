"""The README's code does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_quickstart_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block, measures, dual, expanded, zoo = re.findall(
        r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    kernel = names["kernel"]
    assert isinstance(kernel, np.ndarray)
    assert kernel.shape == (150, 150)
    assert (tmp_path / "iris.h5").is_file()
    assert "versicolor" in capsys.readouterr().out
    run = names["run"]
    assert "data:image/png" in run.feature("eigen", 0)._repr_html_()  # type: ignore[attr-defined]  # made by exec
    exec(compile(measures, "README.md", "exec"), names)
    assert "Of 8 measures, " in capsys.readouterr().out
    run.close()  # type: ignore[attr-defined]  # made by exec
    exec(compile(dual, "README.md", "exec"), names)
    assert float(capsys.readouterr().out.split()[0]) < 1e-10
    exec(compile(expanded, "README.md", "exec"), names)
    leading, dntk, apart = map(float, capsys.readouterr().out.split())
    assert leading > dntk > 1e4 * apart
    exec(compile(zoo, "README.md", "exec"), names)
    assert "Agreement(index=" in capsys.readouterr().out


def test_the_folder_map_names_what_there_is() -> None:
    text = README.read_text(encoding="utf-8")
    for path in ("feature_lens/features/effective.py", "feature_lens/analysis/tiles.py", "feature_lens/examples.py"):
        assert path in text
        assert (README.parent / path).is_file()
    for folder in ("networks", "features", "dual", "store", "analysis"):
        assert (README.parent / "feature_lens" / folder).is_dir()
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (README.parent / picture).is_file()
