"""A small language model: which features know of classes of characters, words, lines and the next character."""

from feature_lens.analysis.study.families import EFFECTIVE
from feature_lens.studies.contender_study import BASELINES, ContenderStudy
from feature_lens.studies.contenders import Contender
from feature_lens.studies.study import STUDIES

STUDIES.register("language-model")(
    ContenderStudy(
        question="Do effective features of a small language model know more of the text than its neurons do?",
        net="language_model",
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
