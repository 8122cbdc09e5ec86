"""Handwritten digits by a convolutional network: the question of `digits` at a size where layers differ."""

from feature_lens.analysis.study.families import EFFECTIVE
from feature_lens.studies.contender_study import BASELINES, ContenderStudy
from feature_lens.studies.contenders import Contender
from feature_lens.studies.study import STUDIES

STUDIES.register("mnist")(
    ContenderStudy(
        question="Are effective features of a convolutional network better things to look at than its channels?",
        net="mnist",
        components=32,
        contenders=(
            *(
                Contender(spec, EFFECTIVE)
                for spec in (
                    "eigen/trace",
                    "eigen/trace+cosine",
                    "layerwise/trace",
                    "learnt/trace",
                    "deflated/trace",
                    "unit_blocks/trace",
                )
            ),
            *BASELINES,
        ),
    )
)
