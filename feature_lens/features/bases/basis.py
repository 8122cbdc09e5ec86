"""What a basis is: fitted on the training examples of a design matrix, applied to all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from feature_lens.cards import Provenance
from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.feature_set import Card, FeatureSet, ranking_columns
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.ranking import Ranking, rank_values
from feature_lens.registry import Registry

B = TypeVar("B", bound="Basis")

RankOutputs = Literal["auto", "all"]

# Means per class are kept up to this many classes: k * v * classes numbers.
MOST_CLASSES: Final = 256


@dataclass(frozen=True)
class BasisSettings:
    """What a feature set asks of whatever basis it has; None leaves it to the basis."""

    n_components: int | None = None
    centred: bool | None = None
    cosine: bool | None = None
    random_state: int = 0
    rank_outputs: RankOutputs = "auto"
    factors: bool = False


class Basis(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn ships no types
    """k combinations of the columns of a design matrix, with scikit-learn's habits.

    `fit(design)` learns on the training examples (all, where there is no split) and returns self; `transform(design)`
    gives activations (r, k), rows as in the design; `feature_set` ranks and describes them. What was learnt ends
    in an underscore. `y` is there for scikit-learn's pipelines and not used.
    """

    fitted_on_: str
    n_fitted_: int

    @classmethod
    def asked(cls: type[B], wanted: BasisSettings) -> B:
        """The basis with what a set asks for, as far as it has such settings; raises SettingsError for centring or a
        cosine where it has none."""
        made = cls()
        known = made.get_params()
        for option in ("centred", "cosine"):
            if option not in known and getattr(wanted, option) is not None:
                raise SettingsError(
                    f"The basis '{_registered_name(made)}' can be taken neither with nor without '{option}'; leave that out."
                )
        made.set_params(**{k: v for k, v in asdict(wanted).items() if k in known and v is not None})
        return made

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError where this basis cannot be fitted on a design, before anything is computed."""

    @abstractmethod
    def fit(self: B, design: DesignMatrix, y: None = None) -> B:
        """Learn the combinations; returns self."""

    @abstractmethod
    def transform(self, design: DesignMatrix) -> Matrix:
        """Activations (r, k) of every row of the design."""

    def fit_transform(self, design: DesignMatrix, y: None = None) -> Matrix:
        """`fit`, then `transform` of the same design."""
        return self.fit(design).transform(design)

    @abstractmethod
    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The ranked and described set of this fitted basis on a design, m = `keep` examples at each end.

        `batch_size` examples are taken together; it changes memory and time, never a value.
        """

    def _note_fit(self, design: DesignMatrix, fitting: npt.NDArray[np.int64]) -> None:
        self.fitted_on_ = "all examples (in sample)" if design.examples.training is None else "training examples"
        self.n_fitted_ = len(fitting)

    def _card(self, design: DesignMatrix, title: str, description: str, equals: str, score: str, **more: Any) -> Card:
        kind, outputs = design.card
        reads_labels = bool(getattr(getattr(design, "reduction", None), "needs_label", False))
        if reads_labels:
            description += (
                " Values are made with the example's own label, so the set takes no part in comparisons by class."
            )
        settings = {"basis": _registered_name(self), **self.get_params()}
        return Card(
            title=title,
            description=description,
            design=kind,
            basis=_registered_name(self),
            outputs=outputs,
            score=score,
            equals=equals,
            fitted_on=self.fitted_on_,
            n_fitted=self.n_fitted_,
            reads_labels=reads_labels,
            provenance=Provenance(settings=settings, remarks=design.remarks),
            **more,
        )


BASES: Final[Registry[type[Basis]]] = Registry("basis")


def _registered_name(basis: Basis) -> str:
    return next((name for name, kind in BASES.items() if kind is type(basis)), type(basis).__name__.lower())


def class_labels(design: DesignMatrix) -> tuple[npt.NDArray[np.int64] | None, int]:
    """Class labels and their number, for class means; (None, 0) where targets are no classes, or too many."""
    labels = design.examples.labels
    if labels is None:
        return None, 0
    classes = max(int(labels.max()) + 1, len(design.examples.class_names))
    return (labels, classes) if classes <= MOST_CLASSES else (None, 0)


def ranked(design: DesignMatrix, values: npt.NDArray[np.float32], keep: int, batch_size: int) -> Ranking:
    """Rank values (k, v, n) of a design's examples."""
    return rank_values(values, design.examples.ids, keep, *class_labels(design), buffer=batch_size)


def by_spread(ranking: Ranking) -> npt.NDArray[np.int32]:
    """Features by falling root mean square over views of their standard deviation, ties by number."""
    spread = np.sqrt(np.nan_to_num(np.square(ranking.std)).mean(axis=1))
    return np.argsort(-spread, kind="stable").astype(np.int32)


def stored_columns(
    ranking: Ranking, values: npt.NDArray[np.float32], order: npt.NDArray[np.int32]
) -> dict[str, Column]:
    """Columns of a set whose values are kept."""
    return {**ranking_columns(ranking), "values": values, "order": order}


def of_tensors(design: DesignMatrix) -> str:
    """A sentence on which parameters are looked at, where it is not all of them."""
    chosen = getattr(design, "parameters", None)
    if chosen is None or chosen.names == design.network.parameters.names:
        return ""
    return f" Only {', '.join(chosen.names)} are looked at; shares are of their part of the kernel."


def refuse_joined(design: DesignMatrix, basis: str) -> None:
    """Raise SettingsError for the trace reduction, whose columns are not parameters."""
    if getattr(getattr(design, "reduction", None), "joined", False):
        raise SettingsError(
            f"The basis '{basis}' needs one column per parameter, but the trace reduction joins the outputs; "
            f"choose flattened or a single output, as in {basis}/flattened or {basis}/output:0."
        )
