"""A small language model: which features know of classes of characters, words, lines and the next character."""

from feature_lens.studies.contender_study import ContenderStudy, baselines, effective
from feature_lens.studies.study import STUDIES

STUDIES.register("language-model")(
    ContenderStudy(
        question="Do effective features of a small language model know more of the text than its neurons do?",
        net="language_model",
        components=32,
        contenders=(
            *effective(
                "eigen/sum",
                "eigen/predicted",
                "eigen/sum+cosine",
                "layerwise/sum",
                "learnt/sum",
                "deflated/sum",
                "unit_blocks/sum",
                "varimax/sum",
            ),
            *baselines("sum"),
        ),
    )
)
