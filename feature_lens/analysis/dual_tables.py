"""The dual model of a run as tables and sentences: fidelities, contributions that close on an output, supports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd

from feature_lens.dual_record import KERNELS, DualRecord, Fidelity
from feature_lens.errors import SettingsError
from feature_lens.registry import unknown_name
from feature_lens.run_contents import RunContents

By = Literal["layer", "tensor", "unit"]
_ABSENT: Final = "This run holds no dual model; extract it again with --dual."


@dataclass(frozen=True)
class Closing:
    """An output before and after training, what all contributions add up to, and what they leave: the residual is
    no contribution, and belongs to no feature."""

    initial: float
    contributions: float
    residual: float
    output: float


def dual_of(run: RunContents) -> DualRecord:
    """The run's dual model; raises SettingsError where there is none."""
    if run.dual is None:
        raise SettingsError(_ABSENT)
    return run.dual


def fidelity_table(run: RunContents) -> pd.DataFrame:
    """One row per regression: the fields of Fidelity, and `words`, what its kernel is."""
    rows = [{**asdict(one), "words": KERNELS.get(one.kernel, one.kernel)} for one in dual_of(run).fidelities]
    return pd.DataFrame(rows)


def dual_headline(run: RunContents) -> str:
    """In one sentence whether the effective kernel says more than its controls, the better one first."""
    bare = {(one.kernel, one.target): one for one in dual_of(run).fidelities if _plain(one)}
    whole, last = bare.get(("effective", "labels")), bare.get(("last_layer", "labels"))
    if whole is None:
        return "There is no regression on labels to compare features by."
    if last is not None and last.r2 > whole.r2:
        return (
            f"From labels, the last layer alone says more of the network than all its effective features: "
            f"R2 {last.r2:.3f} to its outputs on held-out examples against {whole.r2:.3f}."
        )
    start = bare.get(("initial", "labels"))
    others = [(one, words) for one, words in ((last, "the last layer alone"), (start, "the initial features")) if one]
    beside = " and ".join(f"{one.r2:.3f} for {words}" for one, words in others)
    against = f", against {beside}" if beside else ""
    return (
        f"From labels, a regression on the effective features reaches R2 {whole.r2:.3f} to the network's outputs on "
        f"held-out examples{against}."
    )


def _plain(one: Fidelity) -> bool:
    return one.reduction == "trace" and one.form == "bare"


def ticket_table(run: RunContents) -> pd.DataFrame:
    """One row per lottery ticket: the fields of Ticket."""
    return pd.DataFrame([asdict(one) for one in dual_of(run).tickets])


def ticket_sentences(run: RunContents) -> list[str]:
    """For sums of contributions and for real networks, how few features agree with the network on 99 % of the training
    examples, and what that gives on held-out ones; beside them as many at random."""
    dual, p = dual_of(run), run.network.parameters.total
    said: list[str] = []
    if all(one.agreement is None for one in dual.tickets):
        return said  # a single output predicts no class
    for kind, what in (("sum", "As a sum of contributions"), ("network", "As a real network of these weights")):
        found = dual.smallest_faithful("contribution", kind)
        if found is None or found.agreement is None:
            said.append(f"{what}, no number of features short of all was tried that agrees on 99 % of the examples.")
            continue
        same = [one for one in dual.tickets if (one.order, one.kind, one.kept) == ("random", kind, found.kept)]
        beside = (
            "" if not same or same[0].agreement is None else f"; as many at random agree on {same[0].agreement:.1%}"
        )
        said.append(
            f"{what}, {found.kept:,} of {p:,} features agree with the network on {found.agreement:.1%} of held-out "
            f"examples, chosen by 99 % on the training ones{beside}."
        )
    return said


def interaction_table(run: RunContents) -> pd.DataFrame:
    """One row per pair of leading eigen features (flattened), each way: feature, other, mean, size, and whether it is
    an edge. Empty where there is none."""
    columns = dual_of(run).columns
    if "interaction/size" not in columns:
        return pd.DataFrame(columns=["feature", "other", "mean", "size", "edge"])
    mean, size = (np.asarray(columns[f"interaction/{name}"], dtype=np.float64) for name in ("mean", "size"))
    feature, other = (grid.ravel() for grid in np.indices(size.shape))
    edge = (size.ravel() > float(np.asarray(columns["interaction/threshold"])[0])) & (feature != other)
    return pd.DataFrame({"feature": feature, "other": other, "mean": mean.ravel(), "size": size.ravel(), "edge": edge})


def example_interactions(run: RunContents, example: int) -> pd.DataFrame:
    """Interactions in one example's largest output, one row per pair of leading eigen features, each way: feature,
    other, interaction. Empty where the run holds none."""
    dual = dual_of(run)
    _within(run, example, 0)
    if "interaction/predicted" not in dual.columns:
        return pd.DataFrame(columns=["feature", "other", "interaction"])
    values = np.asarray(dual.columns["interaction/predicted"][example], dtype=np.float64)
    feature, other = (grid.ravel() for grid in np.indices(values.shape))
    return pd.DataFrame({"feature": feature, "other": other, "interaction": values.ravel()})


def closing(run: RunContents, example: int, output: int) -> Closing:
    """How the contributions to one output of one example close. Raises SettingsError where there are none."""
    columns = shared_of(run, example, output).columns
    initial = float(columns["initial_output"][example, output])
    residual = float(columns["residual"][example, output])
    after = float(run.outputs[example, output])
    return Closing(initial, after - initial - residual, residual, after)


def completeness_sentence(run: RunContents) -> str:
    """How exactly contributions add up, relative to the largest change of an output; '' where there are none."""
    dual = dual_of(run)
    if not dual.has_contributions:
        return ""
    left = np.abs(np.asarray(dual.columns["residual"])).max()
    changed = np.abs(np.asarray(run.outputs) - np.asarray(dual.columns["initial_output"])).max()
    if changed == 0:
        return "Training changed no output of any example, so there is nothing to share out among features."
    return f"Contributions of all features add up to what training added, but for {left / changed:.1e}."


def output_table(run: RunContents, example: int) -> pd.DataFrame:
    """The outputs of one example: output, and before training ("initial"), by the dual model ("dual") and by the
    expansion to "leading" and to "next"-to-leading order where the run holds that."""
    _within(run, example, 0)
    table = pd.DataFrame({"output": np.asarray(run.outputs[example], dtype=np.float64)})
    for name, column in (("initial", "initial_output"), ("dual", "prediction")):
        if run.dual is not None and column in run.dual.columns:
            table[name] = np.asarray(run.dual.columns[column][example], dtype=np.float64)
    if run.dual is not None and run.dual.expansion is not None:
        parts = [
            np.asarray(run.dual.columns[f"expansion/{name}"][example], dtype=np.float64) for name in ("leading", "next")
        ]
        table["leading"], table["next"] = np.cumsum(parts, axis=0)
    return table


def contribution_table(
    run: RunContents, example: int, output: int, by: By = "layer", most: int | None = None
) -> pd.DataFrame:
    """Contributions of layers, tensors or units to one output of one example, of largest magnitude first: name,
    contribution, and `start` and `end` of its step from the initial output on. They add up to `closing`'s. Of more
    than `most` groups the smallest are summed in a last row, which says how many they are."""
    dual = shared_of(run, example, output)
    if by not in get_args(By):
        raise unknown_name("grouping of contributions", by, list(get_args(By)))
    values = np.asarray(dual.columns[f"{by}/contribution"][example, output], dtype=np.float64)
    names = run.network.parameters.names if by == "tensor" else [str(name) for name in dual.columns[f"{by}/name"][:]]
    order = np.argsort(-np.abs(values), kind="stable")
    end = closing(run, example, output).initial + np.cumsum(values[order])
    table = pd.DataFrame(
        {
            "name": [names[place] for place in order],
            "contribution": values[order],
            "start": end - values[order],
            "end": end,
        }
    )
    if most is None or len(table) <= most:
        return table
    rest = table.iloc[most - 1 :]
    summed = {
        "name": f"sum of the other {len(rest)}",
        "contribution": rest["contribution"].sum(),
        "start": rest["start"].iloc[0],
        "end": rest["end"].iloc[-1],
    }
    return pd.concat([table.iloc[: most - 1], pd.DataFrame([summed])], ignore_index=True)


def support_table(run: RunContents, example: int, output: int) -> pd.DataFrame:
    """The training examples that the dual model's output of one example rests on most: position, id, contribution."""
    dual = dual_of(run)
    if "support/position" not in dual.columns:
        raise SettingsError(
            "This run holds no fitted dual model; its remarks say what it lacks, such as a held-out split."
        )
    _within(run, example, output)
    positions = np.asarray(dual.columns["support/position"][example, output])
    return pd.DataFrame(
        {
            "position": positions,
            "id": [str(run.examples.ids[position]) for position in positions],
            "contribution": np.asarray(dual.columns["support/contribution"][example, output], dtype=np.float64),
        }
    )


def shared_of(run: RunContents, example: int, output: int) -> DualRecord:
    """The dual model of a run that shares out what training added; raises SettingsError where it does not, or where
    there is no such example or output."""
    dual = dual_of(run)
    if not dual.has_contributions:
        raise SettingsError(
            "What training added is not shared out among features here, because the initial parameters were not given; "
            "extract the run again with --initial."
        )
    _within(run, example, output)
    return dual


def _within(run: RunContents, example: int, output: int) -> None:
    n, c = len(run.examples), int(run.outputs.shape[1])
    if not 0 <= example < n or not 0 <= output < c:
        raise SettingsError(
            f"Examples are numbered 0 to {n - 1} and outputs 0 to {c - 1}, but example {example}, output {output} was "
            "asked for; choose one of them."
        )
