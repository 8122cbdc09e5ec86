"""One network by three optimisers on the same data: which effective features come out alike, and what was predicted.

Full-batch descent and SGD are what the expansion about the initial parameters speaks of; AdamW, whose step is not one of
descent, is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_lens.analysis.study.families import EFFECTIVE, UNTRAINED
from feature_lens.analysis.study.table import kept_frame
from feature_lens.dual.perturbation.algorithms import BEFORE, AlgorithmSettings, AlgorithmStudy, algorithm_study
from feature_lens.dual.perturbation.widths import network_of, task
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.feature_set import FeatureSet
from feature_lens.run_contents import RunContents
from feature_lens.studies.study import STUDIES, Conclusion, Study, kept

TRAINED: Final = "study_trained"
PAIRS: Final = "study_pairs"
_SAME: Final = 0.99  # least overlap of spans, over seeds and steps, that is called the same
_STEPS: Final = ("large step", "small step")


@dataclass(frozen=True, kw_only=True)
class OptimiserStudy(Study):
    """A tanh network of two hidden layers on a smooth task, trained by descent, SGD and AdamW with two steps each to the
    same training loss; the leading eigen features of every pair are compared on test points."""

    width: int = 64
    training: int = 16
    test: int = 64
    features: int = 8
    most_steps: int = 2000

    def plain(self) -> dict[str, Any]:
        """What shapes the runs of its seeds."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("question", "seeds")}
        return {**plain, "kind": "optimisers"}

    def contents(self, seed: int, progress: bool = False) -> RunContents:
        """Test points, the eigen features of every optimiser's network, and tables of what was compared.
        Names say which of two steps, not how large it is: that follows the kernel of the seed."""
        del progress
        network, (examples, targets, test) = network_of(2, self.width, seed), task(self.training, self.test)
        settings = AlgorithmSettings(most_steps=self.most_steps, features=self.features, seed=seed)
        found = algorithm_study(network, examples, targets, test, settings=settings)
        words = _words(found)
        sets: dict[str, FeatureSet] = {}
        wanted = ExtractSettings(sets=(SetSettings("eigen", "trace", n_components=self.features),), neurons=())
        runs = {name: compute_run(trained, test, wanted, progress=False) for name, trained in found.networks.items()}
        for name, run in runs.items():
            own = run.sets["eigen_trace"]
            card = replace(own.card, title=f"Eigen features, {words[name]}")
            columns = {
                key: column for key, column in own.columns.items() if key not in ("direction", "parameter_share")
            }
            title = "eigen_" + words[name].replace(", ", "_").replace(" ", "_")
            sets[title] = replace(own, name=title, card=card, columns=columns, parameters=None)
        first = next(iter(runs.values()))
        provenance = replace(first.provenance, settings={**first.provenance.settings, "study": self.plain()})
        trained = found.trained.replace({"algorithm": words}).rename(columns={"algorithm": "optimiser"})
        pairs = found.pairs.replace({"one": words, "other": words})
        tables = {
            TRAINED: kept(trained, "What each optimiser reached, and what the expansion predicts of its outputs"),
            PAIRS: kept(pairs, "Leading effective features of every pair"),
        }
        return replace(first, sets=sets, provenance=provenance, tables=tables)

    def concluded(self, runs: Sequence[RunContents]) -> Conclusion:
        """A row for every pair of optimisers, means over the seeds and the range over them. Further tables: `trained` and
        `pairs` of every seed."""
        pairs = pd.concat([_frame(run, PAIRS).assign(seed=seed) for seed, run in zip(self.seeds, runs, strict=True)])
        pairs["kind"] = pairs["one"] + " and " + pairs["other"]
        rows = []
        for kind, own in pairs.groupby("kind", sort=False):
            row: dict[str, Any] = {
                "kind": kind,
                "set": "",
                "family": _pair_family(own.iloc[0]),
                "features": self.features,
            }
            for measure, column in (("matched", "correlation"), ("span", "overlap")):
                values = own[column].to_numpy(dtype=np.float64)
                row |= {measure: values.mean(), f"{measure}_low": values.min(), f"{measure}_high": values.max()}
                row |= {f"{measure}_null": np.nan, f"{measure}_null_99": np.nan}
            rows.append(row)
        table = pd.DataFrame(rows)
        trained = pd.concat(
            [_frame(run, TRAINED).assign(seed=seed) for seed, run in zip(self.seeds, runs, strict=True)]
        )
        return Conclusion(table, _sentences(table, trained, len(runs)), {"trained": trained, "pairs": pairs})


def _words(found: AlgorithmStudy) -> dict[str, str]:
    """Readable names, the same for every seed."""
    seen: dict[str, int] = {}
    words = {BEFORE: BEFORE}
    for name in found.networks:
        kind = name.split(" ")[0]
        words[name] = f"{kind}, {_STEPS[seen.get(kind, 0)]}"
        seen[kind] = seen.get(kind, 0) + 1
    return words


def _pair_family(row: pd.Series) -> str:
    return UNTRAINED if BEFORE in (row["one"], row["other"]) else EFFECTIVE


def _sentences(table: pd.DataFrame, trained: pd.DataFrame, seeds: int) -> list[str]:
    def of(*names: str) -> tuple[float, float]:
        parts = table["kind"].str.split(" and ", expand=True)
        kinds = [parts[side].str.split(",").str[0] for side in (0, 1)]
        chosen = table[(kinds[0] == names[0]) & (kinds[1] == names[1])]
        return float(chosen["span_low"].min()), float(chosen["span_high"].max())

    descent, other = of("descent", "sgd"), of("descent", "adamw")
    untrained = of("descent", BEFORE)
    apart = (
        f"{'come out the same by descent and by SGD, and not' if descent[0] > _SAME else 'are more alike by descent and by SGD than'} by AdamW"
        if descent[0] > other[1]
        else "of AdamW are not told apart from those of descent and SGD"
    )
    errors = trained.dropna(subset=["leading"])
    return [
        f"On a tanh network of two hidden layers ({seeds} seeds), leading effective features {apart}.",
        f"Overlap of the spans of leading features: descent and SGD {_range(descent)}, descent and AdamW {_range(other)}, "
        f"descent and the untrained network {_range(untrained)} (least and largest over seeds and steps).",
        "What the expansion about the initial parameters predicts of the outputs of descent and SGD is wrong by "
        f"{errors['leading'].median():.2g} of what training added to leading order, {errors['next'].median():.2g} with "
        f"next-to-leading terms (medians); it says nothing of AdamW.",
    ]


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _frame(run: RunContents, name: str) -> pd.DataFrame:
    found = kept_frame(run, name)
    assert found is not None
    return found


STUDIES.register("optimisers")(
    OptimiserStudy(question="Do the effective features that are learnt depend on the optimiser?")
)
