"""Output reductions: which function of the outputs a feature is the gradient of.

A reduction maps the outputs (c,) of one example, and its class label where it needs one, to the quantities whose
gradients are the rows of that example. `flattened`, `squares` and `trace` take all outputs; flattened keeps them as
separate rows, squares does so with f^2 / 2, whose gradient is f times that of f, so that silent outputs do not count,
trace joins their gradients into one long row, so that the kernel is the sum over outputs (theory: Lin,
arXiv:2510.00468, traced eNTK). To add one, decorate a function with `@REDUCTIONS.register(name)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch

from feature_lens.errors import SettingsError, in_brief
from feature_lens.registry import Registry

Reduce = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Reduction:
    """`reduce(outputs (c,), label ()) -> (q,)`; `joined` says that the q gradients form one row (trace), `linear`
    that the quantities are a linear function of the outputs."""

    name: str
    reduce: Reduce
    description: str
    joined: bool = False
    needs_label: bool = False
    all_outputs: bool = False
    linear: bool = False

    def quantities(self, n_outputs: int) -> int:
        """q: gradients per example."""
        return n_outputs if self.all_outputs else 1

    def views(self, n_outputs: int) -> tuple[str, ...]:
        """Names of the rows of one example."""
        if self.all_outputs and not self.joined:
            return tuple(f"output:{i}" for i in range(n_outputs))
        return ("score",)


REDUCTIONS: Final[Registry[Reduction]] = Registry("output reduction")


def _enter(reduction: Reduction) -> None:
    REDUCTIONS.register(reduction.name)(reduction)


def _margin(outputs: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    own = torch.nn.functional.one_hot(label, outputs.shape[0]).bool()
    others = torch.where(own, torch.full_like(outputs, -torch.inf), outputs)
    return (_own(outputs, label)[0] - others.max())[None]


def _own(outputs: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return outputs.gather(0, label[None])


_enter(Reduction("flattened", lambda f, _: f, "every output is a row of its own", all_outputs=True, linear=True))
_enter(
    Reduction("trace", lambda f, _: f, "the kernel is summed over outputs", joined=True, all_outputs=True, linear=True)
)
_enter(
    Reduction(
        "squares",
        lambda f, _: f.square() / 2,
        "half the square of every output is a row of its own, so rows are scaled by the outputs",
        all_outputs=True,
    )
)
_enter(Reduction("sum", lambda f, _: f.sum()[None], "the sum of the outputs", linear=True))
_enter(Reduction("target", _own, "the output of the example's own class", needs_label=True, linear=True))
_enter(Reduction("predicted", lambda f, _: f.gather(0, f.argmax()[None]), "the largest output"))
_enter(Reduction("margin", _margin, "the own class's output minus the largest other", needs_label=True))


def reduction(spec: str | Callable[[torch.Tensor], torch.Tensor], n_outputs: int) -> Reduction:
    """The reduction that a setting names: a registered name, 'output:i', or a callable of the outputs (c,) -> ().

    Raises SettingsError for an unknown name, an output that the network has not, or margin with one output.
    """
    if callable(spec):
        return _of_callable(spec, n_outputs)
    if spec.startswith("output:"):
        number = spec.removeprefix("output:")
        if not (number.isascii() and number.isdigit()) or int(number) >= n_outputs:
            raise SettingsError(f"Outputs are numbered 0 to {n_outputs - 1}, but '{spec}' came; choose one of them.")
        return _single(int(number))
    if spec in ("margin", "target") and n_outputs < 2:
        raise SettingsError(f"'{spec}' needs at least two outputs, but the network has one; choose 'output:0'.")
    return REDUCTIONS[spec]


@cache
def _single(index: int) -> Reduction:
    """One output alone; the same object each time, so that designs made apart are seen to have the same reduction."""
    return Reduction(f"output:{index}", lambda f, _: f[index : index + 1], f"output {index} alone", linear=True)


def _of_callable(function: Callable[[torch.Tensor], torch.Tensor], n_outputs: int) -> Reduction:
    """A reduction by a function of the outputs, tried once on outputs of no meaning."""
    name = getattr(function, "__name__", type(function).__name__)
    trial = torch.linspace(0.1, 1, n_outputs, dtype=torch.float64, requires_grad=True)
    try:
        found = function(trial)
    except Exception as error:  # the user's function may raise anything; told in one sentence
        raise SettingsError(
            f"The reduction '{name}' must take the outputs ({n_outputs},), but it raised {type(error).__name__}: "
            f"{in_brief(error)}; correct it."
        ) from error
    if not isinstance(found, torch.Tensor) or found.numel() != 1 or not found.requires_grad:
        raise SettingsError(
            f"The reduction '{name}' must return one number that depends on the outputs, but "
            f"{f'a tensor of shape {tuple(found.shape)}' if isinstance(found, torch.Tensor) else type(found).__name__} "
            "came; return a scalar tensor made from them."
        )
    return Reduction(f"callable:{name}", lambda f, _: function(f).reshape(1), f"{name}(outputs)")
