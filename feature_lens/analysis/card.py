"""The card of a run as text, for the terminal."""

from __future__ import annotations

import textwrap

from feature_lens.analysis.dual_tables import completeness_sentence, dual_headline, ticket_sentences
from feature_lens.analysis.dynamics import dynamics_headline, dynamics_notes, held_dynamics
from feature_lens.analysis.expansion_tables import verdict_on
from feature_lens.analysis.headline import headline
from feature_lens.run_contents import RunContents

_WIDTH = 100


def run_card(run: RunContents) -> str:
    """What a run found and holds: one sentence, then network, examples and feature sets. Cost of the headline."""
    network, examples = run.network, run.examples
    training = examples.training
    split = "" if training is None else f", {int(training.sum()):,} training and {int((~training).sum()):,} held-out"
    lines = [
        *textwrap.wrap(headline(run), _WIDTH),
        "",
        f"run       {run.name}  (fingerprint {run.provenance.fingerprint[:12]})",
        f"network   {network.name}: {network.parameters.total:,} parameters in {len(network.parameters.names)} tensors, "
        f"{network.n_outputs} outputs",
        *(f"          {name} {value:.3g}" for name, value in network.metrics.items()),
        f"examples  {len(examples):,} {examples.modality.kind} of shape {'x'.join(map(str, examples.modality.shape))}{split}",
        *(line for sentence in examples.inferred for line in _indented(sentence)),
        "",
    ]
    for name, feature_set in run.sets.items():
        card = feature_set.card
        share = "" if card.kernel_share is None else f", {_share(card.kernel_share)} of the kernel"
        kept = "all values" if feature_set.stores_values else "extremes and moments"
        kept += ", factors of all values" if feature_set.keeps_factors else ""
        lines.append(f"set       {name}: {len(feature_set):,} features, {len(feature_set.views)} views, {kept}{share}")
        lines += _indented(card.title)
        if card.equals:
            lines += _indented(f"equals {card.equals}")
    if run.kernel is not None:
        side = run.kernel.value.shape[0]
        lines.append(f"kernel    {run.kernel.outputs}, {side:,} x {side:,} {run.kernel.value.dtype}")
    lines += _dual(run)
    lines += _dynamics(run)
    for remark in run.provenance.remarks:
        first, *rest = textwrap.wrap(remark, _WIDTH - 10)
        lines += ["", f"remark    {first}", *(f"          {line}" for line in rest)]
    return "\n".join(line.replace("\n", "\\n") for line in lines) + "\n"  # a name never makes a line of its own


def _dual(run: RunContents) -> list[str]:
    """What the dual model says, each sentence on lines of its own; nothing where there is none."""
    if run.dual is None:
        return []
    said = [dual_headline(run)] if run.dual.fidelities else []
    said += [sentence] if (sentence := completeness_sentence(run)) else []
    said += ticket_sentences(run) if run.dual.tickets else []
    said += [verdict_on(run.dual.expansion)] if run.dual.expansion is not None else []
    return _told("dual", [*said, *run.dual.remarks])


def _dynamics(run: RunContents) -> list[str]:
    """When the network came to do well and when its kernel changed; nothing where there are no snapshots."""
    return _told("training", [dynamics_headline(run), *dynamics_notes(run)]) if held_dynamics(run) else []


def _told(what: str, sentences: list[str]) -> list[str]:
    """Sentences on lines of their own below a blank one, the first beside what they are about."""
    lines: list[str] = []
    for sentence in sentences:
        first, *rest = textwrap.wrap(sentence, _WIDTH - 10)
        lines += [f"{what if not lines else '':10}{first}", *(f"          {line}" for line in rest)]
    return ["", *lines] if lines else []


def _share(share: float) -> str:
    """Only the whole kernel reads as 100 %; rounding left a share of it just beside 1."""
    return "above 99.9%" if 0.9995 <= share < 1 - 1e-9 else f"{share:.1%}"


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 10)
