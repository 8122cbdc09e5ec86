"""Factories of addition modulo 29, 512 quadratic units, for `feature-lens extract`."""

from feature_lens.networks.zoo import ZOO

RECIPE = ZOO["modular_addition"]()
module, examples = RECIPE.module, RECIPE.examples
