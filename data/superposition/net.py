"""Factories of superposition 50-10, for `feature-lens extract`."""

from feature_lens.networks.zoo import ZOO

RECIPE = ZOO["superposition"]()
module, examples = RECIPE.module, RECIPE.examples
