"""Digits: which features single out the ten classes, reproduce the outputs, and are found again."""

from feature_lens.analysis.study.families import EFFECTIVE
from feature_lens.studies.contender_study import BASELINES, ContenderStudy
from feature_lens.studies.contenders import Contender
from feature_lens.studies.study import STUDIES

STUDIES.register("digits")(
    ContenderStudy(
        question="Are effective features of a network that reads digits better things to look at than its neurons?",
        net="digits",
        contenders=(
            *(
                Contender(spec, EFFECTIVE)
                for spec in (
                    "eigen/flattened",
                    "eigen/trace",
                    "eigen/trace+centred",
                    "unit/flattened",
                    "learnt/trace",
                    "deflated/trace",
                    "unit_blocks/trace",
                )
            ),
            *BASELINES,
        ),
    )
)
