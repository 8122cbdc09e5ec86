"""What the feature sets of a study compete as."""

from __future__ import annotations

from typing import Final

EFFECTIVE: Final = "effective features"
NEURONS: Final = "neurons"
LOGITS: Final = "logits"
PCA: Final = "PCA of activations"
OTHER: Final = "other combinations of activations"
SPARSE: Final = "sparse autoencoder"
RANDOM: Final = "random directions"
UNTRAINED: Final = "untrained net"
SHUFFLED: Final = "shuffled labels"
FAMILIES: Final = (EFFECTIVE, NEURONS, LOGITS, PCA, OTHER, SPARSE, RANDOM, UNTRAINED, SHUFFLED)
# Without one of these a table says nothing of whether effective features are worth looking at.
CONTROLS: Final = (NEURONS, LOGITS, PCA, SPARSE, RANDOM, UNTRAINED, SHUFFLED)
# If one of these wins, the first sentence says so.
FIRST_NAMED: Final = (NEURONS, LOGITS, RANDOM)
# Effective features in the accent colour; what they are held against in black, greys and the colours of classes.
COLOURS: Final = dict(
    zip(
        FAMILIES,
        ("#2F6DB5", "#222428", "#D55E00", "#E69F00", "#B8BCC4", "#CC79A7", "#009E73", "#8A8F98", "#56B4E9"),
        strict=True,
    )
)
