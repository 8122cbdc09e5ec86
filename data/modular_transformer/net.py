"""Factories of addition modulo 29, transformer of width 64, for `feature-lens extract`."""

from feature_lens.networks.zoo import ZOO

RECIPE = ZOO["modular_transformer"]()
module, examples = RECIPE.module, RECIPE.examples
