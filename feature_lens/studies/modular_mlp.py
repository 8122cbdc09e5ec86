"""Modular addition: which features are the waves of a + b and a - b that the network computes with."""

from feature_lens.studies.contender_study import ContenderStudy, baselines, effective
from feature_lens.studies.study import STUDIES
from feature_lens.studies.waves import wave_table

STUDIES.register("modular-mlp")(
    ContenderStudy(
        question="Does the kernel of a network that adds residues show the waves it computes with, and do neurons?",
        net="modular_addition",
        components=128,
        tables={"waves": lambda run, _: wave_table(run)},
        contenders=(
            *effective(
                "eigen/trace", "deflated/trace", "unit_blocks/trace", "learnt/trace", "varimax/trace", "ica/trace"
            ),
            *baselines(),
        ),
    )
)
