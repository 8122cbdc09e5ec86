"""Per-example gradients of a tile of examples as factors of a few small tensors, for every parameter.

One forward pass, one batched backward pass for all quantities, and the layer rules give what the rows of the
Jacobian are made of. A parameter with a use that no rule takes, or whose factors disagree with autograd, falls down
the ladder of `features/jacobian.py` by itself; the step is logged and kept as a remark of the run.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge
from torch.func import jacrev, vmap

from feature_lens.errors import NetworkError, in_brief
from feature_lens.features.jacobian import AGREEMENT, Jacobian, module_at, place, restore_buffers
from feature_lens.features.layouts import gradients_by_owner, layout_of
from feature_lens.features.pieces import Piece, composed, put_together, summed
from feature_lens.features.reductions import Reduction
from feature_lens.features.rules import RULES, Dense, Factor, Layout, NoRule, Outer, Use, contracted
from feature_lens.features.uses import SELECTS, Found, entries_of, find_uses, moved_shape
from feature_lens.networks import Network
from feature_lens.networks.network import Params

_LOG = logging.getLogger("feature_lens")
# A prime number of examples: few axes have a size that it divides by chance.
PROBED = 11


@dataclass(frozen=True)
class _Known:
    """What the first pass found out: uses by their signature with layout and gate, and nodes that only select."""

    signatures: tuple[tuple[object, ...], ...]
    layouts: tuple[Layout, ...]
    gates: tuple[int, ...]
    selecting: frozenset[int]


class FormChanged(Exception):
    """The network ran otherwise than on the first examples: what was gathered from rules is void, and all its
    parameters have fallen down the ladder. Whoever gathers pieces starts again; it never leaves the engine."""


class Along(Protocol):
    """What moves the parameters of a module from row to row while it runs."""

    def bind(self, module: torch.nn.Module) -> None:
        """Take the module."""

    def over(self, rows: int) -> AbstractContextManager[Any]:
        """The context of a pass of so many rows."""


class Factors:
    """Factors of d reduce(f(x; theta)) / d theta for tiles of examples, at fixed parameters.

    `chosen` names the tensors that are differentiated. `pieces` of the same design always come in the same number
    and order; those of a tensor add up to its gradient. `along` moves the parameters from row to row. Raises FormChanged, once, where that cannot be kept. Cost per tile: one forward and q backward passes, batched.
    """

    def __init__(
        self,
        network: Network,
        params: Params,
        reduction: Reduction,
        chosen: tuple[str, ...],
        along: Along | None = None,
    ) -> None:
        self._network, self._params, self._reduction, self._chosen = network, params, reduction, chosen
        self._along = along
        self._fallen: dict[str, str] = {}
        self._ladder: Jacobian | None = None
        self._module: torch.nn.Module | None = None
        self._leaves: dict[str, torch.nn.Parameter] = {}
        self._known: _Known | None = None
        self._known_form = False
        self._entries: dict[str, list[torch.Tensor | None]] = {}
        self._n_quantities = 1
        self._batched = True
        self._vectorised = True
        self._fused_recurrence = True
        self._is_twin = False

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which parameters fell down the ladder, and why."""
        return (*self._own_remarks(), *(self._ladder.remarks if self._ladder is not None else ()))

    def _own_remarks(self) -> list[str]:
        told: dict[str, list[str]] = {}
        for name, reason in self._fallen.items():
            told.setdefault(reason, []).append(name)
        return [f"Gradients without a layer rule for {_listed(names)}, because {why}." for why, names in told.items()]

    @property
    def fallen(self) -> tuple[str, ...]:
        """Names of the tensors without layer rules."""
        return tuple(name for name in self._chosen if name in self._fallen)

    def prepare(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        """Find out layouts on a few examples, hold every tensor against autograd on the first and the last of them,
        and return their pieces. Anything that fails lets parameters fall down the ladder."""
        pieces: list[Piece] = []
        try:
            self._known = self._probe(inputs)
            pieces = self._by_rules(inputs, labels)
        except NetworkError:
            raise
        except Exception as error:  # noqa: BLE001  # the ladder's whole point; the reason is recorded and logged
            self._fall(self._chosen, str(error) if isinstance(error, NoRule) else _told(error))
        if len(self._fallen) < len(self._chosen):
            self._verify(pieces, inputs, labels)
        pieces = [piece for piece in pieces if piece.name not in self._fallen]
        self._known_form = True
        for remark in self._own_remarks():
            _LOG.info(remark)
        return pieces + self._by_ladder(inputs, labels)

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        """(b, ...) inputs and (b,) labels -> the pieces of all chosen tensors, as `prepare` found them."""
        pieces: list[Piece] = []
        if len(self._fallen) < len(self._chosen):
            try:
                pieces = self._by_rules(inputs, labels)
            except NoRule as why:
                self._fall(self._chosen, str(why))
                self._ladder = None
                _LOG.info(self._own_remarks()[-1])
                raise FormChanged from None
        if self._is_twin and self._fallen:
            raise FormChanged  # another twin has met another form; the ladder is not for threads
        return pieces + self._by_ladder(inputs, labels)

    def move(self, params: Params) -> None:
        """Be at other parameters from now on."""
        self._params = params
        if self._module is not None:
            place(self._module, params)
        if self._ladder is not None:
            self._ladder.move(params)

    def twin(self) -> Factors | None:
        """Another that gives the same, prepared as far as this one, for passes in a thread of its own; whoever runs
        them holds warnings back. None where passes change what threads share."""
        if self._known is None or self._fallen or not self._fused_recurrence or self._along is not None:
            return None
        twin = copy.copy(self)
        twin._module, twin._leaves, twin._is_twin = None, {}, True
        return twin

    def _fall(self, names: tuple[str, ...], reason: str) -> None:
        for name in names:
            if name not in self._fallen:
                self._fallen[name] = reason

    def _by_ladder(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        if not self._fallen:
            return []
        if self._ladder is None:
            self._ladder = Jacobian(self._network, self._params, self._reduction, self.fallen)
        rows = self._ladder(inputs, labels)
        sizes = [self._params[name].numel() for name in self.fallen]
        parts = torch.split(rows, sizes, dim=2)
        return [Piece(name, Dense(part), None) for name, part in zip(self.fallen, parts, strict=True)]

    def _verify(self, pieces: list[Piece], inputs: torch.Tensor, labels: torch.Tensor) -> None:
        names = tuple(name for name in self._chosen if name not in self._fallen)
        ends = [0, len(inputs) - 1] if len(inputs) > 1 else [0]
        weights = torch.randn(self._n_quantities, generator=torch.Generator().manual_seed(1))
        ladder = Jacobian(self._network, self._params, self._reduction, names, self._module)
        exact = ladder.exact(inputs[ends], labels[ends], weights)
        sizes = [self._params[name].numel() for name in names]
        largest = float(exact.abs().nan_to_num().max()) if exact.numel() else 0.0
        for name, wanted in zip(names, torch.split(exact, sizes, dim=2), strict=True):
            own = [piece.take(ends) for piece in pieces if piece.name == name]
            found = torch.zeros_like(wanted)
            if own:
                weighted = [replace(piece, factor=contracted(piece.factor, weights)) for piece in own]
                found = summed(weighted, wanted.shape[2])
            scale = max(float(wanted.abs().nan_to_num().max()), 1e-6 * largest, 1e-30)
            apart = float((wanted - found).abs().nan_to_num().max())
            if apart > AGREEMENT[wanted.dtype] * scale:
                self._fall((name,), f"its layer rule differs from autograd by {apart:.2g}")

    def _probe(self, inputs: torch.Tensor) -> _Known:
        """What the first pass tells: uses, and where the examples are in what their nodes made."""
        inputs = inputs[torch.arange(PROBED) % len(inputs)]
        if self._fused_recurrence:
            with self._pass():
                fused = any("MkldnnRnn" in use.kind for use in self._uses(self._forward(inputs), frozenset()))
            self._fused_recurrence = not fused  # the fused recurrence hides its steps; the plain one shows them
        with self._pass():
            outputs = self._forward(inputs)
            self._fall_where_hidden(outputs)
            selecting: frozenset[int] = frozenset()
            while True:
                uses = self._uses(outputs, selecting)
                plain, owned = gradients_by_owner(outputs, [use.node for use in uses])
                found = [layout_of(one, other, PROBED) for one, other in zip(plain, owned, strict=True)]
                # A look-up that is the same for all examples only moves entries: the use is further on.
                pairs = zip(uses, found, strict=True)
                extended = {use.number for use, layout in pairs if layout is None and use.kind in SELECTS}
                if extended <= selecting:
                    break
                selecting |= extended
        for use, layout in zip(uses, found, strict=True):
            if not isinstance(layout, Layout):
                self._fall((use.name,), layout or f"its use in {use.kind} is the same for all examples")
            if use.kind not in RULES:
                self._fall((use.name,), f"there is no layer rule for {use.kind}")
        placed = zip(uses, found, _gates(plain), strict=True)
        kept = [
            (use.signature, layout, gate)
            for use, layout, gate in placed
            if isinstance(layout, Layout) and use.name not in self._fallen
        ]
        signatures, layouts, gates = zip(*kept, strict=True) if kept else ((), (), ())
        return _Known(signatures, layouts, gates, selecting)

    def _fall_where_hidden(self, outputs: torch.Tensor) -> None:
        if self._hides(outputs):
            seen = {use.name for use in self._uses(outputs, frozenset())}
            hidden = tuple(name for name in self._chosen if name not in seen)
            self._fall(hidden, "a function written in Python may hide where it is used")

    def _by_rules(self, inputs: torch.Tensor, labels: torch.Tensor) -> list[Piece]:
        known = self._known
        if known is None:
            raise NoRule("nothing is known of its layers")
        with self._pass():
            outputs = self._forward(inputs)
            cotangents = self._cotangents(outputs.detach(), labels)
            uses = [use for use in self._uses(outputs, known.selecting) if use.name not in self._fallen]
            names = set(self._fallen)
            expected = [k for k, signature in enumerate(known.signatures) if signature[0] not in names]
            if [use.signature for use in uses] != [known.signatures[k] for k in expected]:
                raise NoRule("its layers were run otherwise than before")
            self._n_quantities = len(cotangents)
            gradients = self._gradients(outputs, uses, cotangents)
            by_name: dict[str, list[tuple[Factor, Found]]] = {}
            for use, g, k in zip(uses, gradients, expected, strict=True):
                shape = moved_shape(use, tuple(self._params[use.name].shape))
                try:
                    made = RULES[use.kind](Use(use.node, use.slot, shape, known.layouts[k], known.gates[k]), g)
                    by_name.setdefault(use.name, []).extend((_detached(factor), use) for factor in made)
                except Exception as error:  # noqa: BLE001  # a rule that meets a form it does not know; recorded
                    self._refuse(use.name, error)
            pieces: list[Piece] = []
            for name, factors in by_name.items():
                try:
                    pieces += self._pieces(name, factors)
                except NoRule as error:
                    self._refuse(name, error)
        return [piece for piece in pieces if piece.name not in self._fallen]

    def _refuse(self, name: str, error: Exception) -> None:
        """A rule does not apply to a tensor: found out on the first tile, it falls; later, nothing gathered holds."""
        why = str(error) if isinstance(error, NoRule) else _told(error)
        if self._known_form:
            raise NoRule(why) from error
        self._fall((name,), why)

    def _pieces(self, name: str, factors: list[tuple[Factor, Found]]) -> list[Piece]:
        size = self._params[name].numel()
        if name not in self._entries:
            shape = tuple(self._params[name].shape)
            self._entries[name] = [self._entries_of(factor, use, shape, size) for factor, use in factors]
        return put_together(name, [factor for factor, _ in factors], self._entries[name], size)

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
            if self._is_twin:
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
                _LOG.info("The reduction is taken example by example, because examples do not go together (%s).", error)
        own = [derivative(row, label) for row, label in zip(outputs, labels, strict=True)]
        return torch.stack(own, dim=1)

    def _uses(self, outputs: torch.Tensor, selecting: frozenset[int]) -> list[Found]:
        return find_uses(outputs, {id(leaf): name for name, leaf in self._leaves.items()}, selecting)

    def _hides(self, outputs: torch.Tensor) -> bool:
        """Whether a function written in Python is in the graph, which may use parameters that autograd cannot see."""
        seen, stack = {outputs.grad_fn}, [outputs.grad_fn]
        while stack:
            node = stack.pop()
            if isinstance(node, BackwardCFunction):
                return True
            for above, _ in node.next_functions if node is not None else ():
                if above is not None and above not in seen:
                    seen.add(above)
                    stack.append(above)
        return False

    @contextmanager
    def _pass(self) -> Iterator[None]:
        if self._is_twin:
            with torch.enable_grad():
                yield
            return
        plain = nullcontext() if self._fused_recurrence else torch.backends.mkldnn.flags(enabled=False)
        with torch.enable_grad(), plain, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
            yield

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._module is None:
            self._module, self._leaves = module_at(self._network, self._params, self._chosen)
            if self._along is not None:
                self._along.bind(self._module)
        restore_buffers(self._network, self._module)
        inputs = inputs.clone()
        if inputs.is_floating_point():
            inputs.requires_grad_(True)  # a reentrant checkpoint passes gradients only if its input needs one
        with nullcontext() if self._along is None else self._along.over(len(inputs)):
            outputs: torch.Tensor = self._module(inputs)
        return outputs[:, None] if outputs.ndim == 1 else outputs


def _detached(factor: Factor) -> Factor:
    """The factor without its graph, on the CPU: all that follows passes is computed there."""
    if isinstance(factor, Dense):
        return Dense(factor.values.detach().cpu())
    return replace(factor, g=factor.g.detach().cpu(), a=None if factor.a is None else factor.a.detach().cpu())


def _gates(gradients: Sequence[torch.Tensor | None]) -> list[int]:
    """Equal numbers for equal tensors: autograd hands one tensor on where a node passes its gradient through."""
    numbers: dict[tuple[object, ...], int] = {}
    return [
        -1 - place if g is None else numbers.setdefault((g.data_ptr(), tuple(g.shape), g.stride()), len(numbers))
        for place, g in enumerate(gradients)
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {in_brief(error)}"
