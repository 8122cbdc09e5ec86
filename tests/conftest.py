"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_lens.analysis import Run, open_run


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo run on the shipped parameters; tests that use it share an xdist group, so it is made once."""
    from feature_lens.extract import extract
    from feature_lens.networks.digits import digits_examples, shipped_digits

    path = tmp_path_factory.mktemp("demo") / "digits.h5"
    return extract(shipped_digits(), digits_examples(), path, name="digits", progress=False)


@pytest.fixture(scope="session")
def digits_run(digits_file: Path) -> Iterator[Run]:
    """The demo run, opened."""
    with open_run(digits_file) as run:
        yield run
