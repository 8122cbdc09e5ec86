"""Estimated spectra against the full ones of dense matrices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from feature_lens.errors import SettingsError
from feature_lens.features.spectrum import SpectrumEstimate, estimated_spectrum


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products in several threads of several workers only wait for each other."""
    with threadpool_limits(limits=1):
        yield


def _turned(spectrum: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix of that spectrum, and its eigenvectors."""
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(spectrum), len(spectrum))))[0]
    return (turn * spectrum) @ turn.T, turn


def _estimated(spectrum: np.ndarray, known: int = 0, **settings: object) -> SpectrumEstimate:
    matrix, turn = _turned(spectrum)
    leading = {"leading": spectrum[:known], "vectors": turn[:, :known]} if known else {}
    return estimated_spectrum(lambda b: matrix @ b, len(spectrum), float(spectrum.sum()), **leading, **settings)


def _entropy_rank(spectrum: np.ndarray) -> float:
    p = spectrum[spectrum > 0] / spectrum.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


SPECTRA = {
    "power": np.arange(1.0, 601) ** -1.5,
    "slow": np.arange(1.0, 601) ** -0.7,
    "ten copies": np.repeat(np.arange(1.0, 61) ** -1.5, 10),
    "few values": np.repeat([5.0, 1.0, 0.03], [7, 93, 500]),
    "low rank": np.concatenate([np.geomspace(3, 0.01, 25), np.zeros(575)]),
    "bulk": np.sort(np.random.default_rng(5).random(600))[::-1],
}


@pytest.mark.parametrize("known", [0, 16])
@pytest.mark.parametrize("name", SPECTRA)
def test_counts_sums_and_ranks_lie_within_their_errors(name: str, known: int) -> None:
    spectrum = SPECTRA[name]
    found = _estimated(spectrum, known, probes=20, steps=30, seed=1)
    tail = spectrum[known:]
    edges = 10**found.edges * (1 + 1e-9)
    counts = np.histogram(tail, edges)[0]
    allowed = 5 * found.count_errors + found.count_doubts + 1e-6
    assert (np.abs(found.counts - counts) <= allowed).all()
    sums = np.histogram(tail, edges, weights=tail)[0]
    assert (np.abs(found.sums - sums) <= 5 * found.sum_errors + found.sum_doubts + 1e-6).all()
    assert found.counts.sum() + found.below.value == pytest.approx(len(tail))
    for estimate, exact in (
        (found.estimated_tail, tail.sum()),
        (found.participation, spectrum.sum() ** 2 / np.square(spectrum).sum()),
        (found.entropy_rank, _entropy_rank(spectrum)),
    ):
        assert abs(estimate.value - exact) <= 5 * estimate.error + 1e-6 * exact
    for threshold in (0.5, 0.02, 0.002):
        number = found.count_above(threshold)
        exact = np.count_nonzero(spectrum > threshold)
        assert abs(number.value - exact) <= 5 * number.error + number.doubt + 1e-6
        share = found.share_above(threshold)
        exact = spectrum[spectrum > threshold].sum() / spectrum.sum()
        assert abs(share.value - exact) <= 5 * share.error + share.doubt + 1e-6


def test_bins_that_hold_several_nodes_are_close_without_their_doubt() -> None:
    spectrum = SPECTRA["bulk"]
    found = _estimated(spectrum, probes=20, steps=60)
    for threshold in (0.2, 0.4, 0.6, 0.8):
        assert found.count_above(threshold).value == pytest.approx(np.count_nonzero(spectrum > threshold), abs=15)


def test_known_leading_vectors_take_the_variance_off() -> None:
    whole, tail = (_estimated(SPECTRA["power"], known, probes=8, steps=20) for known in (0, 32))
    assert tail.entropy_rank.error < whole.entropy_rank.error / 3
    assert tail.leading_share == pytest.approx(SPECTRA["power"][:32].sum() / SPECTRA["power"].sum())
    assert tail.share_above(1e-5).value > tail.leading_share
    assert tail.tail_trace == pytest.approx(SPECTRA["power"][32:].sum())


def test_a_full_quadrature_of_few_values_is_exact_up_to_its_probes() -> None:
    found = _estimated(SPECTRA["few values"], probes=10, steps=12)
    assert found.settled[found.weights > 1e-9].all()
    assert found.count_doubts.max() == 0
    held = found.nodes[found.weights > 1]
    assert np.abs(held[:, None] - [5.0, 1.0, 0.03]).min(axis=1).max() < 1e-10


def test_zeros_are_counted_below() -> None:
    found = _estimated(SPECTRA["low rank"], probes=10, steps=40)
    assert found.below.value == pytest.approx(575, abs=5 * found.below.error + 1e-6)
    assert found.count_above(1e-6).value == pytest.approx(25, abs=5 * found.count_above(1e-6).error)


def test_the_zero_operator_and_a_tail_of_nothing() -> None:
    found = estimated_spectrum(np.zeros_like, 40, 0.0)
    assert len(found.counts) == 0
    assert found.below.value == 40
    assert (found.participation.value, found.entropy_rank.value, found.leading_share) == (0, 0, 0)
    assert found.tail_spread() is None
    with pytest.raises(SettingsError, match="zero"):
        found.share_above(0.1)
    spectrum = np.arange(5.0, 0, -1)
    whole = _estimated(spectrum, known=5)
    assert whole.applied_columns == 0
    assert whole.count_above(2.5).value == 3
    assert whole.participation.value == pytest.approx(15**2 / 55)
    assert whole.entropy_rank.value == pytest.approx(_entropy_rank(spectrum))
    assert whole.tail_spread() is None


def test_the_spread_of_the_tail() -> None:
    spectrum = SPECTRA["ten copies"]
    found = _estimated(spectrum, known=20, probes=20, steps=50)
    spread = found.tail_spread(0.8)
    assert spread is not None
    inside = spectrum[20:][(spectrum[20:] > spread.low) & (spectrum[20:] <= spread.high)]
    assert spread.share == pytest.approx(inside.sum() / spectrum.sum(), rel=0.05)
    assert abs(spread.number.value - len(inside)) <= 5 * spread.number.error + spread.number.doubt + 1
    with pytest.raises(SettingsError, match="between 0 and 1"):
        found.tail_spread(1.0)


def test_the_same_seed_gives_the_same_answer_and_another_another() -> None:
    first, again, other = (_estimated(SPECTRA["slow"], seed=seed, probes=4, steps=10) for seed in (1, 1, 2))
    assert first.nodes.tobytes() == again.nodes.tobytes()
    assert first.nodes.tobytes() != other.nodes.tobytes()
    assert first.applied_columns == 40


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_sides(side: int) -> None:
    spectrum = np.arange(side, 0, -1.0)
    found = _estimated(spectrum, probes=3)
    assert found.counts.sum() + found.below.value == pytest.approx(side)


def test_impossible_settings_and_products_are_told() -> None:
    for settings in ({"probes": 1}, {"steps": 0}, {"bins_per_decade": 0}, {"floor": 0.0}, {"leading": np.ones(2)}):
        with pytest.raises(SettingsError):
            estimated_spectrum(lambda b: b, 10, 10.0, **settings)
    with pytest.raises(SettingsError, match="trace"):
        estimated_spectrum(lambda b: b, 10, float("nan"))
    with pytest.raises(SettingsError, match="not finite"):
        estimated_spectrum(lambda b: b * np.inf, 10, 10.0)
    with pytest.raises(SettingsError, match="shape"):
        estimated_spectrum(lambda b: b[:3], 10, 10.0)
    with pytest.raises(SettingsError, match="threshold"):
        estimated_spectrum(lambda b: b, 10, 10.0).count_above(0.0)
