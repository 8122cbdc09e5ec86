"""Factories of linear 13-3, for `feature-lens extract`."""

from feature_lens.networks.zoo import ZOO

RECIPE = ZOO["linear"]()
module, examples = RECIPE.module, RECIPE.examples
