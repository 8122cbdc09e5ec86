"""Digits: which features single out the ten classes, reproduce the outputs, and are found again."""

from feature_lens.studies.contender_study import ContenderStudy, baselines, effective
from feature_lens.studies.study import STUDIES

STUDIES.register("digits")(
    ContenderStudy(
        question="Are effective features of a network that reads digits better things to look at than its neurons?",
        net="digits",
        contenders=(
            *effective(
                "eigen/flattened",
                "eigen/trace",
                "eigen/trace+centred",
                "eigen/trace+cosine",
                "unit/flattened",
                "learnt/trace",
                "deflated/trace",
                "unit_blocks/trace",
                "varimax/trace",
                "ica/trace",
            ),
            *baselines(),
        ),
    )
)
