"""Architectures whose graph is the same whatever comes, the whole way into a run file."""

from __future__ import annotations

from pathlib import Path

import pytest
from architectures import PLAIN
from whole_way import goes_the_whole_way


@pytest.mark.parametrize("name", PLAIN)
def test_a_run_holds_what_autograd_says(name: str, tmp_path: Path) -> None:
    goes_the_whole_way(PLAIN[name], tmp_path)
