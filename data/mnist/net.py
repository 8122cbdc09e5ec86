"""Factories of MNIST, convolutions 8-16-32, 64 units, ReLU, for `feature-lens extract`."""

from feature_lens.networks.zoo import ZOO

RECIPE = ZOO["mnist"]()
module, examples = RECIPE.module, RECIPE.examples
