"""A small language model: which features know of classes of characters, words, lines and the next character."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from feature_lens.analysis.measures.set_measures import measured_names
from feature_lens.studies.contender_study import ContenderStudy, baselines, effective
from feature_lens.studies.study import STUDIES


def concept_words(table: pd.DataFrame, _: Mapping[str, pd.DataFrame]) -> list[str]:
    """The best set of every family by its mean AUROC over the concepts of the text, beside what is published."""
    names = [name for name in measured_names(table) if name.startswith("auroc ")]
    if not names:
        return []
    means = table[["family", "kind"]].assign(mean=table[names].mean(axis=1))
    ordered = means.sort_values("mean", ascending=False, kind="stable")
    best = {str(row["family"]): row for row in ordered.drop_duplicates("family").to_dict("records")}
    figures = ", ".join(f"{family} {row['mean']:.3f} ({row['kind']})" for family, row in best.items())
    concepts = ", ".join(name.partition(" ")[2] for name in names)
    return [
        f"Mean AUROC over {len(names)} concepts ({concepts}) of the best set of each family, best first, for every property the best of "
        f"as many features, chosen on training windows and reported on held-out ones: {figures}. Published of a language "
        "model of 270M parameters, for its own concepts: .827 of kernel features, .745 of PCA of activations."
    ]


STUDIES.register("language-model")(
    ContenderStudy(
        question="Do effective features of a small language model know more of the text than its neurons do?",
        net="language_model",
        components=32,
        words=concept_words,
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
