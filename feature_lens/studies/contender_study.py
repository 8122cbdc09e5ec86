"""Feature sets of a network of the zoo held against each other: effective features, and all that they must beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_lens.analysis.measures.measured_kinds import MeasuredKind, MeasureSettings, measured_kinds, remember
from feature_lens.analysis.measures.set_measures import set_measures
from feature_lens.analysis.study.answer import answer
from feature_lens.analysis.study.families import (
    CONTROLS,
    EFFECTIVE,
    FAMILIES,
    LOGITS,
    NEURONS,
    OTHER,
    PCA,
    RANDOM,
    SHUFFLED,
    SPARSE,
    UNTRAINED,
)
from feature_lens.errors import SettingsError
from feature_lens.extract import ExtractSettings
from feature_lens.networks.zoo import ZOO, ZooNet
from feature_lens.run_contents import RunContents
from feature_lens.studies.contenders import Contender, families_of, seed_contents
from feature_lens.studies.study import Conclusion, Study


def baselines(outputs: str = "trace") -> tuple[Contender, ...]:
    """All that effective features must beat, those of the kernel by an output reduction. Sparse dictionaries take longer
    than all else together, and stand in no study on either side."""
    return (
        Contender("canonical/neurons", NEURONS),
        Contender("pca/neurons", PCA),
        Contender("nmf/neurons", OTHER),
        Contender("ica/neurons", OTHER),
        Contender("sae/neurons", SPARSE),
        Contender("directions/neurons", RANDOM),
        Contender("canonical/neurons@initial", UNTRAINED),
        Contender(f"eigen/{outputs}@initial", UNTRAINED),
        Contender("canonical/neurons", SHUFFLED),
        Contender(f"eigen/{outputs}", SHUFFLED),
    )


def effective(*specs: str) -> tuple[Contender, ...]:
    """Sets that compete as effective features."""
    return tuple(Contender(spec, EFFECTIVE) for spec in specs)


@dataclass(frozen=True, kw_only=True)
class ContenderStudy(Study):
    """A question put to one network of the zoo.

    recipe: what differs from the shipped recipe, as 'setting=value'. contenders: the sets compared; every one of
    `CONTROLS` must be among their families, but for logits, which are always compared: SettingsError otherwise.
    components: features that every set is given at most, the leading ones; sets that choose their own number by gaps have
    fewer, which measures that are means over features may favour. draws: of examples and seeds, for intervals. keep:
    examples kept at each end of a ranking. concepts: what else is known of the examples once the network is trained,
    from its run. tables: further tables of the run of a seed and its recipe, by name; words: sentences on the study's table
    and these, with a column for the seed.
    """

    net: str
    contenders: tuple[Contender, ...]
    recipe: tuple[str, ...] = ()
    components: int = 32
    draws: int = 200
    keep: int = 16
    concepts: Callable[[RunContents], Mapping[str, npt.NDArray[np.float64]]] | None = None
    tables: Mapping[str, Callable[[RunContents, ZooNet], pd.DataFrame]] = field(default_factory=dict)
    words: Callable[[pd.DataFrame, Mapping[str, pd.DataFrame]], list[str]] = lambda *_: []

    def __post_init__(self) -> None:
        super().__post_init__()
        held = {LOGITS, *(one.family for one in self.contenders)}
        if missing := [family for family in CONTROLS if family not in held]:
            raise SettingsError(
                f"The study of '{self.net}' is incomplete without {' and '.join(missing)}; add a set of each."
            )

    def plain(self) -> dict[str, Any]:
        kept = {"net", "contenders", "recipe", "components", "keep"}
        plain = {key: value for key, value in asdict(self).items() if key in kept}
        plain["concepts"] = None if self.concepts is None else self.concepts.__name__
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def contents(self, seed: int, progress: bool = False) -> RunContents:
        """Networks trained, or loaded where the recipe is the shipped one; every contender extracted."""
        made = seed_contents(
            self._recipe(seed), self.contenders, self.components, self._extraction, self.concepts, progress
        )
        settings = {**made.provenance.settings, "study": self.plain()}
        return replace(made, provenance=replace(made.provenance, settings=settings))

    @property
    def settings(self) -> MeasureSettings:
        """How the sets are measured."""
        return MeasureSettings(features=self.components, most=max(64, self.components), draws=self.draws, shuffles=50)

    def measured(self, run: RunContents) -> list[MeasuredKind]:
        """All sets by all measures. Cost: see `measured_kinds`."""
        return measured_kinds(run, self.settings)

    def remember(self, run: RunContents, measured: list[MeasuredKind]) -> None:
        remember(run, self.settings, measured)

    def concluded(self, runs: Sequence[RunContents]) -> Conclusion:
        """Table: the columns of `set_measures` over the runs of all seeds, sets that compete together beside each other,
        with what a set competes as for its family. Further tables: `seeds`, the figures of every seed, and the study's
        own, with a column for the seed."""
        table = set_measures(list(runs), self.settings)
        families = families_of(runs[0])
        table["family"] = [families.of(kind, name) for kind, name in zip(table["kind"], table["set"], strict=True)]
        place = table["family"].map(FAMILIES.index)
        table = table.iloc[place.argsort(kind="stable")].reset_index(drop=True)
        seeds = f"{len(self.seeds)} seed{'' if len(self.seeds) == 1 else 's'}"
        recipes = [self._recipe(seed) for seed in self.seeds]
        own = {name: self._of_seeds(list(map(make, runs, recipes))) for name, make in self.tables.items()}
        first, *rest = answer(table, f"{runs[0].network.name} ({seeds})")
        sentences = [first, *self.words(table, own), *rest, *self._left_out(runs, table)]
        return Conclusion(table, sentences, {"seeds": self._singles(runs), **own})

    @property
    def _extraction(self) -> ExtractSettings:
        # Seeds run side by side.
        return ExtractSettings(keep=self.keep, lenient=True, ablation=self.components, workers=1)

    def _recipe(self, seed: int) -> ZooNet:
        return ZOO[self.net].from_text((*self.recipe, f"seed={seed}"))

    def _of_seeds(self, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(
            [table.assign(seed=seed) for seed, table in zip(self.seeds, tables, strict=True)], ignore_index=True
        )

    def _singles(self, runs: Sequence[RunContents]) -> pd.DataFrame:
        rows = [
            [
                (one.kind.name, measure, found.value)
                for one in self.measured(run)
                for measure, found in one.figures.items()
            ]
            for run in runs
        ]
        return self._of_seeds([pd.DataFrame(of_seed, columns=["kind", "measure", "value"]) for of_seed in rows])

    def _left_out(self, runs: Sequence[RunContents], table: pd.DataFrame) -> list[str]:
        """Sentences on the sets that some seeds have not, which the table therefore lacks."""
        sentences = []
        kept = set(table["kind"])
        said: dict[str, tuple[str, list[int]]] = {}
        for seed, run in zip(self.seeds, runs, strict=True):
            missing = [one.kind.name for one in self.measured(run) if one.kind.name not in kept]
            sentences += [f"{name} could be made at seed {seed}, not at every other." for name in missing]
            for remark in run.provenance.remarks:
                if " is left out: " in remark:
                    what, why = remark.split(" is left out: ", 1)
                    said.setdefault(what, (why, []))[1].append(seed)
        for what, (why, seeds) in said.items():
            where = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            sentences.append(f"{what} is left out at {where}: {why}")
        if SHUFFLED not in set(table["family"]):
            sentences.append("Labels cannot be shuffled: this network learns none.")
        return list(dict.fromkeys(sentences))
