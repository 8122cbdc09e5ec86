"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from oracles import dense_jacobian, relu_net_jacobian

from feature_lens.analysis import Run, open_run


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo run on the shipped parameters; made once by every worker that needs it."""
    from feature_lens.extract import extract_run
    from feature_lens.networks.zoo import Digits

    path = tmp_path_factory.mktemp("demo") / "digits.h5"
    return extract_run(Digits().shipped(), Digits().examples(), path, name="digits", progress=False)


@pytest.fixture(scope="session")
def digits_run(digits_file: Path) -> Iterator[Run]:
    """The demo run, opened."""
    with open_run(digits_file) as run:
        yield run


@pytest.fixture(scope="session")
def digits_jacobian() -> np.ndarray:
    """(n, c, p) of the demo network, written out in numpy and checked against autograd on a few examples."""
    from feature_lens.networks.zoo import Digits

    module = Digits().shipped().module.requires_grad_(True)
    inputs = np.asarray(Digits().examples().inputs)
    jacobian = relu_net_jacobian(module, inputs)  # type: ignore[arg-type]  # the demo is a Sequential
    np.testing.assert_allclose(jacobian[::300], dense_jacobian(module, inputs[::300]), atol=1e-12)
    return jacobian
