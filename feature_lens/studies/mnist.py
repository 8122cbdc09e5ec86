"""Handwritten digits by a convolutional network: the question of `digits` at a size where layers differ."""

from feature_lens.studies.contender_study import ContenderStudy, baselines, effective
from feature_lens.studies.study import STUDIES

STUDIES.register("mnist")(
    ContenderStudy(
        question="Are effective features of a convolutional network better things to look at than its channels?",
        net="mnist",
        components=32,
        contenders=(
            *effective(
                "eigen/trace",
                "eigen/trace+cosine",
                "layerwise/trace",
                "learnt/trace",
                "deflated/trace",
                "unit_blocks/trace",
                "varimax/trace",
            ),
            *baselines(),
        ),
    )
)
