"""The two ways to the trained function at 64 training points, 3 outputs and width 512; printed, never asserted."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from feature_lens.dual.perturbation import Derivatives, Linearised, Schedule, closed_form, displacement
from feature_lens.examples import Examples
from feature_lens.features.design import one_thread
from feature_lens.networks import Network


def _network() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 3)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 1.5 / parameter.shape[1] ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn_like(parameter) * scale)
    return Network.from_module(module, initial=module.state_dict(), learning_rates="pdlt")


@pytest.mark.parametrize("schedule", ["to the end", "for a time"])
def test_both_ways(schedule: str, capsys: pytest.CaptureFixture[str]) -> None:
    network, rng = _network(), np.random.default_rng(0)
    x = rng.standard_normal((80, 8))
    x *= np.sqrt(8) / np.linalg.norm(x, axis=1, keepdims=True)
    y = np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2], np.tanh(x[:, 3] - x[:, 4])], axis=1)
    with one_thread():
        start = Linearised.of(network, Examples.from_arrays(x[:64]), y[:64])
        points = Derivatives(network, Examples.from_arrays(x[64:]))
        wanted = Schedule() if schedule == "to the end" else Schedule(time=100 / start.rates[-1])
        begun = time.perf_counter()
        orders = displacement(start, wanted).orders(points, reduced=True)
        half = time.perf_counter()
        tolerance = 1e-10 if schedule == "to the end" else 1e-8
        found = closed_form(start, points, wanted, tolerance=tolerance)
        done = time.perf_counter()
    apart = np.abs(found.prediction - sum(orders)).max() / np.abs(found.prediction).max()
    with capsys.disabled():
        print(
            f"\n  expansion of p = {start.on.p:,}, 192 rows, trained {schedule}: in time {half - begun:.0f} s, closed form "
            f"{done - half:.0f} s with {found.modes} merged modes; apart by {apart:.1e}"
        )
