"""Factories of digits 64-32-32-10 ReLU, for `feature-lens extract`."""

from feature_lens.networks.zoo import ZOO

RECIPE = ZOO["digits"]()
module, examples = RECIPE.module, RECIPE.examples
