"""Networks of the zoo whose training takes minutes, trained again from their recipes."""

from __future__ import annotations

import numpy as np
import pytest

from feature_lens.networks.zoo import ZOO


@pytest.mark.parametrize(("name", "agreement"), [("mnist", 0.98), ("language_model", 0.85)])
def test_the_recipe_makes_a_network_as_good_that_answers_alike(name: str, agreement: float) -> None:
    net = ZOO[name]()
    examples, shipped = net.examples(), net.shipped_training()
    made = net.train(snapshots=net.snapshots)
    assert list(made.snapshots) == list(shipped.snapshots)
    said = [net.network(training).outputs(examples).argmax(axis=1) for training in (made, shipped)]
    # Training amplifies rounding, which differs between processors, and more so over thousands of steps.
    assert (said[0] == said[1]).mean() > agreement
    held_out = examples.part("held-out")
    right = [(one == examples.labels)[held_out].mean() for one in said]
    assert abs(right[0] - right[1]) < 0.03
    print(f"{name}: agreement {np.mean(said[0] == said[1]):.4f}, held out {right[0]:.3f} and {right[1]:.3f}")
