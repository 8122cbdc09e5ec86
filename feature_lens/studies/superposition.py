"""Superposition: whether effective features show more features than there are hidden units."""

from feature_lens.studies.contender_study import ContenderStudy, baselines, effective
from feature_lens.studies.study import STUDIES

STUDIES.register("superposition")(
    ContenderStudy(
        question="Does the kernel of a network that squeezes 50 features through 10 units show them one by one?",
        net="superposition",
        components=50,
        contenders=(
            *effective(
                "eigen/squares",
                "eigen/flattened",
                "unit/flattened",
                "deflated/trace",
                "unit_blocks/trace",
                "varimax/trace",
            ),
            *baselines(),
        ),
    )
)
