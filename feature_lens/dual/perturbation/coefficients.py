"""The numbers of the explicit formula: how much of each product of modes training has gathered, from their rates alone.

Everything is made of nested sums over the times of training. With u_a = 1 - eta h_a a mode's factor over one step,

    N(A, B, ..)(T) = eta^m sum over T > t1 > t2 > .. >= 0 of u_A^t1 u_B^t2 ..,    u_A = product over modes a in A of u_a,

and, for gradient flow, the limit eta -> 0, whose sums are integrals: the divided differences of exp at 0, -h_A T,
-(h_A + h_B) T, ... In PDLT's letters X, Y: Y_II(a,b) = N(a, b), Y_III(a,b,c) = N(a, b, c), Y_I(a,b,c) = N(ab, c),
Y_IV(a,b,c) = N(a, bc), and N(a) = 1 / h_a at T = infinity. Products of nested sums are sums of nested sums over all
ways to interleave their times, where times that coincide cost a factor eta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.dual.perturbation.schedule import Schedule

Array = npt.NDArray[np.float64]
Word = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Term:
    """factor * eta^coincidences * N(word); the letters of the word are slots of modes, the first is 0."""

    factor: float
    word: Word

    @property
    def coincidences(self) -> int:
        return sum(len(letter) - 1 for letter in self.word)


# Slots are those of dH(x0; x1, x2), ddI(x0; x1, x2, x3) and ddII(x0, x1; x2, x3) that hold training modes, in order;
# the slot left out is the point that is predicted.
Z_A: Final = (Term(1.0, ((0,), (1,))),)
Z_B: Final = (Term(0.5, ((0,), (1,))), Term(0.5, ((1,), (0,))), Term(0.5, ((0, 1),)))
Z_IA: Final = (
    Term(-0.5, ((0,), (1,), (2,))),
    Term(-0.5, ((0,), (2,), (1,))),
    Term(-0.5, ((0,), (1, 2))),
)
_ORDERS: Final = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
Z_IB: Final = (
    *(Term(-1 / 6, ((a,), (b,), (c,))) for a, b, c in _ORDERS),
    *(Term(-1 / 6, ((a,), (b, c))) for a, b, c in _ORDERS[::2]),
    *(Term(-1 / 6, ((b, c), (a,))) for a, b, c in _ORDERS[::2]),
    Term(-1 / 6, ((0, 1, 2),)),
)
Z_IIA: Final = (Term(-1.0, ((0,), (1,), (2,))),)
Z_IIB: Final = (
    Term(-1.0, ((0,), (1,), (2,))),
    Term(-1.0, ((0,), (2,), (1,))),
    Term(-1.0, ((1,), (0,), (2,))),
    Term(-1.0, ((0,), (1, 2))),
    Term(-1.0, ((0, 1), (2,))),
)


def coefficients(terms: Sequence[Term], rates: Array, training: Schedule) -> Array:
    """The tensor Z over modes of the given rates (R,), one axis for each slot: (R, R) or (R, R, R)."""
    return _summed(terms, rates, training, None)


def responses(terms: Sequence[Term], rates: Array, training: Schedule, answering: float) -> Array:
    """How much a training point's own residual, along a mode of rate h, has undone by T of what Z put there: the same
    sums with the times of that mode's answer, which lie after all others, in front. Z / h at T = infinity."""
    return _summed(terms, rates, training, answering)


def _summed(terms: Sequence[Term], rates: Array, training: Schedule, answering: float | None) -> Array:
    slots = 1 + max(slot for term in terms for letter in term.word for slot in letter)
    axes = [rates.reshape([-1 if axis == slot else 1 for axis in range(slots)]) for slot in range(slots)]
    total: Array = np.zeros([len(rates)] * slots)
    for term in terms:
        if term.coincidences and training.is_flow:
            continue
        letters = [[axes[slot] for slot in letter] for letter in term.word]
        weight = term.factor * training.step**term.coincidences
        total = total + weight * _nested(letters, training, answering)
    return total


def _nested(letters: Sequence[Sequence[Array]], training: Schedule, answering: float | None) -> Array:
    """N of a word, from the rates of its letters, which broadcast to the shape of the result."""
    own = [_joint(letter, training) for letter in letters]
    decays = [own[0]]
    for one in own[1:]:
        decays.append(decays[-1] + one if training.is_flow else decays[-1] * one)
    # From one sum to the next inside, times lie apart by at least a step; nothing decays before the outermost sum.
    gains: list[Array | float] = [1.0] * len(decays) if training.is_flow else [1.0, *decays[:-1]]
    if answering is not None:
        answer = np.asarray(_joint([np.asarray(answering)], training))
        # The answer runs beside no other mode: what it answers to happened before, and has stayed.
        return _chain([answer, *decays], [1.0, *gains], training)
    return _chain(decays, gains, training)


def _joint(letter: Sequence[Array], training: Schedule) -> Array:
    """The rate of modes that decay together, or their factor over one step."""
    if training.is_flow:
        return np.asarray(sum(letter))
    return np.asarray(math.prod(1 - training.step * rate for rate in letter))


def _chain(decays: Sequence[Array], gains: Sequence[Array | float], training: Schedule) -> Array:
    """The top right entry of the propagator of x_0' = g_1 x_1, x_1' = -decay_1 x_1 + g_2 x_2, .. after T."""
    if not training.ends:
        product: Array | float = 1.0
        for decay, gain in zip(decays, gains, strict=True):
            product = product * gain * (1 / decay if training.is_flow else training.step / (1 - decay))
        return np.asarray(product)
    shape = np.broadcast_shapes(*(np.shape(one) for one in (*decays, *gains)))
    size = len(decays) + 1
    matrix = np.zeros((*shape, size, size))
    if training.is_flow:
        for place, (decay, gain) in enumerate(zip(decays, gains, strict=True)):
            matrix[..., place + 1, place + 1] = -training.time * decay
            matrix[..., place, place + 1] = training.time * gain
        return _corner(torch.linalg.matrix_exp(torch.as_tensor(matrix)))
    matrix[..., 0, 0] = 1.0
    for place, (decay, gain) in enumerate(zip(decays, gains, strict=True)):
        matrix[..., place + 1, place + 1] = decay
        matrix[..., place, place + 1] = training.step * gain
    return _corner(torch.linalg.matrix_power(torch.as_tensor(matrix), int(training.time)))


def _corner(matrices: torch.Tensor) -> Array:
    made: Array = matrices[..., 0, -1].numpy()
    return made
