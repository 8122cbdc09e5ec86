"""The demo: its run against a dense Jacobian, in numbers and in a real browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg
from browser_driver import Tab, chromium, served
from oracles import dense_jacobian, relu_net_jacobian
from PIL import Image

from feature_lens.analysis import Run, format_value, open_run, sheet_geometry
from feature_lens.extract import extract_run
from feature_lens.networks.zoo import Digits


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo run on the shipped parameters."""
    path = tmp_path_factory.mktemp("demo") / "digits.h5"
    return extract_run(Digits().shipped(), Digits().examples(), path, name="digits", progress=False)


@pytest.fixture(scope="module")
def digits_run(digits_file: Path) -> Iterator[Run]:
    """The demo run, opened."""
    with open_run(digits_file) as run:
        yield run


@pytest.fixture(scope="module")
def digits_jacobian() -> np.ndarray:
    """(n, c, p) of the demo network, written out in numpy and checked against autograd on a few examples."""
    module = Digits().shipped().module.requires_grad_(True)
    inputs = np.asarray(Digits().examples().inputs)
    jacobian = relu_net_jacobian(module, inputs)  # type: ignore[arg-type]  # the demo is a Sequential
    np.testing.assert_allclose(jacobian[::300], dense_jacobian(module, inputs[::300]), atol=1e-12)
    return jacobian


def test_the_demo_net_is_accurate_on_held_out_digits(digits_run: Run) -> None:
    assert digits_run.network.metrics["accuracy (held-out)"] >= 0.97
    assert len(digits_run.examples) == 1797
    training = digits_run.examples.training
    assert training is not None
    assert (~training).sum() == 540
    assert digits_run.network.parameters.total == 3466
    assert digits_run.network.initial is not None


def test_the_demo_run_holds_its_default_sets(digits_run: Run) -> None:
    assert list(digits_run.sets)[:4] == ["eigen", "eigen_trace", "unit", "weights"]
    assert {"neurons_0", "neurons_1", "neurons_2", "neurons_3"} <= set(digits_run.sets)
    assert len(digits_run.sets["eigen"]) == len(digits_run.sets["eigen_trace"]) == 64
    assert len(digits_run.sets["unit"]) == 74
    assert len(digits_run.sets["weights"]) == 3466


def test_all_weight_features_are_ranked_as_a_float64_sort_says(digits_run: Run, digits_jacobian: np.ndarray) -> None:
    weights = digits_run.sets["weights"]
    for output in range(10):
        values = digits_jacobian[:, output].T
        for end, sign in (("highest", -1), ("lowest", 1)):
            positions = weights.read(f"{end}/position")[:, output]
            kept = np.take_along_axis(values, positions, axis=1)
            best = sign * np.sort(sign * values, axis=1)[:, :16]
            np.testing.assert_allclose(kept, best, rtol=1e-6, atol=1e-9)
            # Stored as float32: equal values there are ties, which the smaller id wins.
            stored = weights.read(f"{end}/value")[:, output]
            np.testing.assert_allclose(stored, best, rtol=1e-6, atol=1e-9)
            ties = np.diff(stored, axis=1) == 0
            assert (np.diff(positions, axis=1)[ties] > 0).all()
        np.testing.assert_allclose(weights.read("mean")[:, output], values.mean(axis=1), atol=1e-6)
        np.testing.assert_allclose(weights.read("std")[:, output], values.std(axis=1), rtol=1e-4, atol=1e-7)


def _assert_leading(phi: np.ndarray, directions: np.ndarray, spectrum: np.ndarray) -> None:
    """Directions are eigenvectors of phi^T phi with these eigenvalues, orthonormal, and none that is larger is missing.

    The missing one is looked for on the smaller side, in float32, which is far finer than the gaps.
    """
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-6)
    activations = phi @ directions.T
    products = (phi.T @ activations).T
    assert np.abs(products - spectrum[:, None] * directions).max() < 1e-5 * spectrum[0]
    narrow = phi.astype(np.float32)
    if len(phi) < phi.shape[1]:
        side, known = narrow @ narrow.T, (activations / np.sqrt(spectrum)).T
    else:
        side, known = narrow.T @ narrow, directions
    deflated = side.astype(float) - (known.T * spectrum) @ known
    (largest,) = scipy.sparse.linalg.eigsh(deflated, k=1, v0=np.ones(len(side)), return_eigenvectors=False, tol=1e-4)
    assert largest < spectrum[-1] * (1 + 1e-3)


def test_eigen_features_are_singular_vectors_of_the_dense_jacobian(
    digits_run: Run, digits_jacobian: np.ndarray
) -> None:
    eigen = digits_run.sets["eigen"]
    fitted = digits_jacobian[digits_run.examples.fitting].reshape(-1, 3466)
    directions = eigen.read("direction").astype(float)
    _assert_leading(fitted, directions, eigen.read("spectrum"))
    np.testing.assert_allclose(
        eigen.card.kernel_share, eigen.read("spectrum").sum() / np.square(fitted).sum(), rtol=1e-9
    )
    activations = (digits_jacobian @ directions.T).transpose(2, 1, 0)
    np.testing.assert_allclose(eigen.read("values")[:, 1:], activations, atol=1e-4)
    score = np.einsum("kcn,kc->kn", activations, eigen.read("profile"))
    np.testing.assert_allclose(eigen.read("values")[:, 0], score, atol=1e-4)


def test_trace_features_are_singular_vectors_of_the_joined_jacobian(
    digits_run: Run, digits_jacobian: np.ndarray
) -> None:
    trace = digits_run.sets["eigen_trace"]
    joined = digits_jacobian.reshape(len(digits_jacobian), -1)
    directions = trace.read("direction").astype(float).reshape(64, -1)
    _assert_leading(joined[digits_run.examples.fitting], directions, trace.read("spectrum"))
    np.testing.assert_allclose(trace.read("values")[:, 0], directions @ joined.T, atol=1e-4)


@pytest.fixture(scope="module")
def tab(digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium() as browser, served([digits_file], tmp_path_factory.mktemp("cwd")) as address:
        opened = Tab(browser)
        opened.go(address)
        yield opened
        opened.close()


def _picture_of(position: int) -> np.ndarray:
    """A digit as the page should show it: 96 x 96, nearest neighbour, 0 black and 1 white or the reverse."""
    image = np.asarray(Digits().examples().inputs[position]).reshape(8, 8)
    return np.kron(image, np.ones((12, 12))) * 255


def _first_tile(tab: Tab, end: str) -> np.ndarray:
    sheet = Image.open(io.BytesIO(tab.picture(f"{end} examples"))).convert("L")
    return np.asarray(sheet.crop(sheet_geometry(10, columns=10, labelled=True).tile_box(0)), dtype=float)


@pytest.mark.browser
@pytest.mark.timeout(180)
def test_every_page_of_the_demo_opens(tab: Tab) -> None:
    for page in ("browse", "feature", "compare", "export", "overview"):
        tab.follow(page)
        tab.fine()
    assert tab.page.get_by_text("mean AUROC").count() >= 1


@pytest.mark.browser
@pytest.mark.timeout(180)
@pytest.mark.parametrize("weight", [0, 3465])
def test_first_tiles_of_weight_features(tab: Tab, digits_jacobian: np.ndarray, weight: int) -> None:
    values = digits_jacobian[:, 3, weight]
    root = tab.page.url.rsplit("/", 1)[0]
    tab.go(f"{root}/feature?set=weights&view=output:3&feature={weight}")
    tab.fine()
    for end, best in (("Highest", values.max()), ("Lowest", values.min())):
        wanted = int(np.flatnonzero(values == best)[0])  # among equal values the smaller id comes first
        np.testing.assert_allclose(_first_tile(tab, end), _picture_of(wanted), atol=1)
        words = str(tab.page.locator(f'img[alt^="{end} examples"]').get_attribute("alt"))
        assert words.startswith(f"{end} examples: {wanted} (")
        assert format_value(float(best)) in words


@pytest.mark.browser
@pytest.mark.timeout(180)
@pytest.mark.parametrize("feature", [63])
def test_first_tiles_of_eigen_features(tab: Tab, digits_run: Run, digits_jacobian: np.ndarray, feature: int) -> None:
    direction = digits_run.sets["eigen"].read("direction")[feature].astype(float)
    root = tab.page.url.rsplit("/", 1)[0]
    for output in (0, 7):
        values = digits_jacobian[:, output] @ direction
        tab.go(f"{root}/feature?set=eigen&view=output:{output}&feature={feature}")
        tab.fine()
        for end, best in (("Highest", int(values.argmax())), ("Lowest", int(values.argmin()))):
            np.testing.assert_allclose(_first_tile(tab, end), _picture_of(best), atol=1)
