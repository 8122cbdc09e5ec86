"""Factories of next character, 1 layer of width 64, for `feature-lens extract`."""

from feature_lens.networks.zoo import ZOO

RECIPE = ZOO["language_model"]()
module, examples = RECIPE.module, RECIPE.examples
