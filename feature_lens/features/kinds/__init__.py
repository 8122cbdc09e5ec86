"""Feature kinds: initial, effective, sharp, first_order, path; importing this package registers them all."""

# Each module registers its kinds when it is imported.
from feature_lens.features.kinds import first_order as first_order
from feature_lens.features.kinds import path as path
from feature_lens.features.kinds import points as points
from feature_lens.features.kinds import sharp as sharp
from feature_lens.features.kinds.kind import KINDS, Ask, Kind, Source

__all__ = ["KINDS", "Ask", "Kind", "Source"]
