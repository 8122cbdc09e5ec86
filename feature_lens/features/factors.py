"""Per-example gradients of a tile of examples as factors of a few small tensors, for every parameter.

One forward pass, one batched backward pass for all quantities, and the layer rules give what the rows of the
Jacobian are made of. Every tile is held against autograd (`tile_check.py`). A parameter with a use that no rule takes,
or whose factors disagree with autograd in any tile, falls down the ladder of `features/jacobian.py` by itself; the
step is logged and kept as a remark of the run.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch.autograd.graph import GradientEdge
from torch.func import jacrev, vmap

from feature_lens.errors import NetworkError, in_brief, refuse_out_of_memory
from feature_lens.features.forms import Form, FormChanged, form_of
from feature_lens.features.jacobian import Jacobian
from feature_lens.features.own_module import Along, OwnModule
from feature_lens.features.pieces import Piece, composed, put_together
from feature_lens.features.probe import Probe, numbered, probe, uses_in
from feature_lens.features.reductions import Reduction
from feature_lens.features.rules import RULES, Dense, Factor, NoRule, Outer, Use
from feature_lens.features.tile_check import TileCheck
from feature_lens.features.uses import Found, entries_of, moved_shape
from feature_lens.networks import Network
from feature_lens.networks.network import Params

T = TypeVar("T")
_LOG = logging.getLogger("feature_lens")
_OTHERWISE = "its layers were run otherwise than before"


class _Falls(Exception):
    """Tensors that no rule takes any more, each with the reason; never leaves this module."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


@dataclass
class _Shared:
    """What a source and its twins know together: one memory, so that none of them believes what another has seen
    fail."""

    fallen: dict[str, str] = field(default_factory=dict)
    known: Probe = field(default_factory=Probe)
    entries: dict[str, list[torch.Tensor | None]] = field(default_factory=dict)
    forms: dict[int, Form] = field(default_factory=dict)
    changes: int = 0
    told: list[str] = field(default_factory=list)


class Factors:
    """Factors of d reduce(f(x; theta)) / d theta for tiles of examples, at fixed parameters.

    `chosen` names the tensors that are differentiated. `pieces` always come in the form of `prepare`, and those of a
    tensor add up to its gradient. `along` moves the parameters from row to row. Raises FormChanged where that cannot
    be kept; `version` has risen then. Cost per tile: one forward and q backward passes, batched, and the check.
    """

    def __init__(
        self,
        network: Network,
        params: Params,
        reduction: Reduction,
        chosen: tuple[str, ...],
        along: Along | None = None,
    ) -> None:
        self._network, self._reduction, self._chosen = network, reduction, chosen
        self._own = OwnModule(network, params, chosen, along)
        self._check = TileCheck(self._own, reduction, self._cotangents)
        self._shared = _Shared()
        self._ladder: Jacobian | None = None
        self._batched = True
        self._vectorised = True

    @property
    def version(self) -> int:
        return self._shared.changes

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which parameters fell down the ladder, and why."""
        return (*self._own_remarks(), *(self._ladder.remarks if self._ladder is not None else ()))

    def _own_remarks(self) -> list[str]:
        told: dict[str, list[str]] = {}
        for name in self.fallen:
            told.setdefault(self._shared.fallen[name], []).append(name)
        return [f"Gradients without a layer rule for {_listed(names)}, because {why}." for why, names in told.items()]

    @property
    def fallen(self) -> tuple[str, ...]:
        """Names of the tensors without layer rules."""
        return tuple(name for name in self._chosen if name in self._shared.fallen)

    @property
    def _ruled(self) -> tuple[str, ...]:
        return tuple(name for name in self._chosen if name not in self._shared.fallen)

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        """Find out layouts on a few examples, hold every tensor against autograd on the first and the last of them,
        and return their pieces. Anything that fails lets parameters fall down the ladder."""
        shared = self._shared
        known = self._tried(lambda: probe(self._own, inputs))
        if known is not None:
            shared.known = known
            self._fallen(known.fallen)
        found = None
        while found is None:
            found = self._tried(lambda: self._by_rules(inputs, labels))
        if self._ruled:
            self._check.learn_sizes(found)
            n_rows = self._reduction.quantities(self._own.n_outputs)
            self._fallen(self._check.against_loop(found, self._ruled, n_rows, inputs, labels))
        self._tell()
        pieces = [piece for piece in found if piece.name not in shared.fallen] + self._by_ladder(inputs, labels)
        self._check.learn_sizes(pieces)
        shared.forms[self.version] = form_of(pieces)
        return self._verified(pieces, inputs, labels)

    def _tried(self, work: Callable[[], T]) -> T | None:
        """What is found out of some examples; None where tensors have fallen instead."""
        try:
            return work()
        except NetworkError:
            raise
        except _Falls as falling:
            self._fallen(falling.reasons)
        except Exception as error:  # noqa: BLE001  # the ladder's whole point; the reason is recorded and logged
            refuse_out_of_memory(error)
            self._fallen(dict.fromkeys(self._ruled, _told(error)))
        return None

    def _tell(self) -> None:
        for remark in self._own_remarks():
            if remark not in self._shared.told:
                self._shared.told.append(remark)
                _LOG.info(remark)

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, verify: bool = True) -> list[Piece]:
        """(b, ...) inputs and (b,) labels -> the pieces of all chosen tensors, in the form that was known."""
        version = self.version
        pieces = self._tried(lambda: self._by_rules(inputs, labels))
        if pieces is None:
            self._changed()
            raise FormChanged
        if version != self.version or (self._own.is_twin and self._shared.fallen):
            raise FormChanged  # another twin has met another form; the ladder is not for threads
        pieces += self._by_ladder(inputs, labels)
        self._require_form(pieces, version)
        return self._verified(pieces, inputs, labels) if verify else pieces

    def fall(self, names: tuple[str, ...], reason: str) -> None:
        """Take no layer rules for some tensors from now on."""
        self._fallen(dict.fromkeys(names, reason))
        self._changed()

    def _changed(self) -> None:
        self._shared.changes += 1
        self._tell()

    def _lose(self, reasons: dict[str, str]) -> None:
        for reason in dict.fromkeys(reasons.values()):
            self.fall(tuple(name for name in reasons if reasons[name] == reason), reason)
        raise FormChanged

    def _fallen(self, reasons: dict[str, str]) -> None:
        for name, reason in reasons.items():
            self._shared.fallen.setdefault(name, reason)

    def _require_form(self, pieces: list[Piece], version: int) -> None:
        found = form_of(pieces)
        if found != self._shared.forms.setdefault(version, found):
            self._lose(dict.fromkeys(self._ruled or self._chosen, _OTHERWISE))

    def _verified(self, pieces: list[Piece], inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        """The pieces, if they are right: vmap descends to a loop where it gave wrong ones, rules fall for good."""
        ladder = self._ladder
        exact = self.fallen if ladder is not None and ladder.step == "loop" else ()
        wrong = self._check(pieces, exact, inputs, labels)
        ruled = {name: reason for name, reason in wrong.items() if name not in self._shared.fallen}
        if ruled:
            self._lose(ruled)
        if wrong and ladder is not None:
            ladder.descend("it differs from autograd on a tile")
            kept = [piece for piece in pieces if piece.name not in self._shared.fallen]
            return self._verified(kept + self._by_ladder(inputs, labels), inputs, labels)
        return pieces

    def move(self, params: Params) -> None:
        """Be at other parameters from now on."""
        self._own.move(params)
        if self._ladder is not None:
            self._ladder.move(params)

    def twin(self) -> Factors | None:
        """Another that gives the same, prepared as far as this one, for passes in a thread of its own; whoever runs
        them holds warnings back. None where passes change what threads share."""
        if self.version not in self._shared.forms or self._shared.fallen or not self._own.fused_recurrence:
            return None
        if self._own.along is not None:
            return None
        twin = copy.copy(self)
        twin._own = self._own.twin()
        twin._check = self._check.of(twin._own)
        return twin

    def _by_ladder(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        fallen = self.fallen
        if not fallen:
            return []
        if self._ladder is None or self._ladder.chosen != fallen:
            self._ladder = Jacobian(self._network, self._own.params, self._reduction, fallen)
        rows = self._ladder(inputs, labels)
        sizes = [self._own.params[name].numel() for name in fallen]
        parts = torch.split(rows, sizes, dim=2)
        return [Piece(name, Dense(part), None) for name, part in zip(fallen, parts, strict=True)]

    def _by_rules(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        """Pieces of the tensors that rules take; raises _Falls with those that they do not take here."""
        ruled = self._ruled
        if not ruled:
            return []
        known = [use for use in self._shared.known.uses if use.name in ruled]
        with self._own.passing():
            outputs = self._own.outputs(inputs)
            uses = [use for use in uses_in(self._own, outputs, self._shared.known.selecting) if use.name in ruled]
            if [use.signature for use in uses] != [use.signature for use in known]:
                raise _Falls(dict.fromkeys(ruled, _OTHERWISE))
            gradients = self._gradients(outputs, uses, self._cotangents(outputs.detach(), labels))
            shared_as_before = _shared_as(gradients, [use.gradient for use in known])
            factors: dict[str, list[tuple[Factor, Found]]] = {}
            falling: dict[str, str] = {}
            for use, before, g, is_shared in zip(uses, known, gradients, shared_as_before, strict=True):
                layout, shape = before.layout, moved_shape(use, tuple(self._own.params[use.name].shape))
                try:
                    if use.output_shape[layout.axis] != len(inputs) * layout.positions or not is_shared:
                        raise NoRule(_OTHERWISE)
                    asked = Use(use.node, use.slot, shape, layout, use.number, before.gradient)
                    made = RULES[use.kind](asked, g)
                    factors.setdefault(use.name, []).extend((_detached(factor), use) for factor in made)
                except Exception as error:  # noqa: BLE001  # a rule that meets a form it does not know; recorded
                    falling.setdefault(use.name, str(error) if isinstance(error, NoRule) else _told(error))
            pieces: list[Piece] = []
            for name, own in factors.items():
                try:
                    pieces += self._pieces(name, own)
                except NoRule as error:
                    falling.setdefault(name, str(error))
        if falling:
            raise _Falls(falling)
        return pieces

    def _pieces(self, name: str, factors: list[tuple[Factor, Found]]) -> list[Piece]:
        size = self._own.params[name].numel()
        if name not in self._shared.entries:
            shape = tuple(self._own.params[name].shape)
            self._shared.entries[name] = [self._entries_of(factor, use, shape, size) for factor, use in factors]
        return put_together(name, [factor for factor, _ in factors], self._shared.entries[name], size)

    def _entries_of(self, factor: Factor, use: Found, shape: tuple[int, ...], size: int) -> torch.Tensor | None:
        """As `composed`. A matrix that is transposed and whose factor is of the transposed one is all in order: by far
        the most frequent case, which needs no look at every entry."""
        whole = isinstance(factor, Outer) and factor.transposed and not factor.offset
        if whole and [str(node.name()) for node, _ in use.moves] == ["TBackward0"]:
            return None
        return composed(factor, entries_of(use, shape, self._network.device), size)

    def _gradients(self, outputs: torch.Tensor, uses: list[Found], cotangents: torch.Tensor) -> list[torch.Tensor]:
        """(q, *shape) for what each use's node made: all quantities in one batched backward pass where that works."""
        if not uses:
            return []
        edges = [GradientEdge(use.node, 0) for use in uses]
        if self._batched and len(cotangents) > 1:
            if self._own.is_twin:
                return list(torch.autograd.grad(outputs, edges, cotangents, retain_graph=True, is_grads_batched=True))
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    found = torch.autograd.grad(outputs, edges, cotangents, retain_graph=True, is_grads_batched=True)
                self._batched = not any("batching rule" in str(warning.message) for warning in caught)
                return list(found)
            except RuntimeError as error:
                self._batched = False
                _LOG.info("One backward pass per output, because they do not go together (%s).", in_brief(error))
        each = [torch.autograd.grad(outputs, edges, one, retain_graph=True) for one in cotangents]
        return [torch.stack(parts) for parts in zip(*each, strict=True)]

    def _cotangents(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(q, b, c): derivatives of each quantity of an example with respect to its outputs."""
        b, c = outputs.shape
        if self._reduction.all_outputs and self._reduction.linear:
            return torch.eye(c, dtype=outputs.dtype, device=outputs.device)[:, None].expand(c, b, c)
        derivative = jacrev(self._reduction.reduce)
        if self._vectorised:
            try:
                together: torch.Tensor = vmap(derivative)(outputs, labels)
                return together.transpose(0, 1)
            except Exception as error:  # noqa: BLE001  # a reduction of one's own may do anything; then one by one
                self._vectorised = False
                _LOG.info(
                    "The reduction is taken example by example, because examples do not go together (%s).",
                    in_brief(error),
                )
        own = [derivative(row, label) for row, label in zip(outputs, labels, strict=True)]
        return torch.stack(own, dim=1)


def _shared_as(gradients: Sequence[torch.Tensor], known: Sequence[int]) -> list[bool]:
    """Whether each gradient is the same as the first that had the same number before."""
    now = numbered(gradients)
    first: dict[int, int] = {}
    same: list[bool] = []
    for at, number in enumerate(known):
        other = first.setdefault(number, at)
        same.append(now[at] == now[other] or _equal(gradients[at], gradients[other]))
    return same


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two gradients are the same numbers, not counting those that are none."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _detached(factor: Factor) -> Factor:
    """The factor without its graph, on the CPU: all that follows passes is computed there."""
    if isinstance(factor, Dense):
        return Dense(factor.values.detach().cpu())
    return replace(factor, g=factor.g.detach().cpu(), a=None if factor.a is None else factor.a.detach().cpu())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {in_brief(error)}"
