"""Layer rules, one file per family; importing this package registers them all."""

# Each module registers its rules when it is imported.
from feature_lens.features.rules import arithmetic as arithmetic
from feature_lens.features.rules import convolution as convolution
from feature_lens.features.rules import embedding as embedding
from feature_lens.features.rules import linear as linear
from feature_lens.features.rules import norms as norms
from feature_lens.features.rules.rule import (
    RULES,
    Dense,
    Factor,
    GradientId,
    Layout,
    NoRule,
    Outer,
    Rule,
    Use,
    contracted,
    scaled,
)

__all__ = ["RULES", "Dense", "Factor", "GradientId", "Layout", "NoRule", "Outer", "Rule", "Use", "contracted", "scaled"]
