"""Whether a network is a frozen function of one example, looked for on every example that it is run on.

Every tile is run once without gradients, and its examples once more with gradients, in another order and beside other
examples. Outputs that differ by more than rounding are refused with their size, and so is a forward that writes over
the parameters.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.errors import NetworkError, in_brief
from feature_lens.examples import Examples
from feature_lens.networks.bounded import as_torch_does
from feature_lens.networks.passes import one_pass
from feature_lens.networks.states import Params

Array = npt.NDArray[np.float64]

# Outputs of one example in one company and in another may differ by rounding, never by more than this share of their size.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# Examples of a pass with gradients: as many as passes that make features take, where what they keep is not too much.
_MOST = 256
_KEPT_BYTES = 128 << 20
# Share by which parameters are moved to see what rounding may do, and how many times the unit of it that is.
_MOVED = 1e-2
_ROUNDED = 100
_TINY = float(torch.finfo(torch.float64).tiny)


_RANDOM = (
    "A network must give the same outputs for the same inputs, but two passes differed; "
    "remove the randomness or call module.eval() first."
)
_COMPANY = (
    "The output of {} must not depend on the batch it is in, but it differed by {:.3g}; use running statistics, a norm "
    "over each example, one length and no capacity for all, or precision float32 if the net computes in it."
)
_GRADIENTS = (
    "The output of {} must be the same with gradients as without, but it differed by {:.3g}; take out of the forward what "
    "asks whether gradients are wanted."
)


class Seen:
    """Examples on which a network was found to be a frozen function, with the number of its outputs, while they live."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Examples], int]] = {}

    def add(self, examples: Examples, n_outputs: int) -> None:
        """Remember these very examples, and forget those that are gone."""
        self._known = {key: known for key, known in self._known.items() if known[0]() is not None}
        self._known[id(examples)] = weakref.ref(examples), n_outputs

    def n_outputs(self, examples: Examples) -> int | None:
        """The number of outputs; None for examples that were not seen."""
        known = self._known.get(id(examples))
        return known[1] if known is not None and known[0]() is examples else None

    def __reduce__(self) -> tuple[type[Seen], tuple[()]]:
        return Seen, ()  # a copy of a network has seen nothing


@dataclass(frozen=True)
class Scrutiny:
    """A network at some parameters, over examples in tiles.

    forward: outputs (b, c) of parameters and inputs, and the parameters as the pass left them. tensor: inputs as the
    network takes them. frozen: parameters that are not trained, which a pass must leave alone as well. bounded: whether
    embeddings would write over their weights if they were let.
    """

    forward: Callable[[Params, torch.Tensor], tuple[torch.Tensor, Params]]
    tensor: Callable[[Any], torch.Tensor]
    params: Params
    frozen: Params
    bounded: bool
    examples: Examples
    tile: int

    def probe(self) -> int:
        """Number of outputs. Raises NetworkError where a few examples over the whole range cannot be run, give other
        outputs when run again, or as many of them as there are examples."""
        few = _different(self.tensor(np.asarray(self.examples.inputs[_spread(len(self.examples))])))
        with one_pass(), torch.random.fork_rng(devices=[]):
            first = self._run(few)
            if not torch.equal(first.nan_to_num(), self._run(few).nan_to_num()):
                raise NetworkError(_RANDOM)
            alone = torch.cat([self._run(few[i : i + 1]) for i in range(len(few))])
        if alone.shape != first.shape:
            raise NetworkError(
                f"The number of outputs must not depend on the batch, but {alone.shape[1]} came for one example and "
                f"{first.shape[1]} in a batch of {len(few)}; wrap the module so that it is always the same."
            )
        far, excess = self._apart(as_float64(first), as_float64(alone), first.dtype, few)
        if (excess > 0).any():
            raise NetworkError(_COMPANY.format("an example", far.max()))
        return int(first.shape[1])

    def outputs(self, known: bool = False) -> Array:
        """Outputs (n, c) of all examples, in padded tiles so that an example's output never depends on n.

        Raises NetworkError where the output of some example depends on those beside it, on whether gradients are
        wanted, or on chance, or where the forward writes over parameters; these are not looked for where they are
        `known` not to be so. Cost: two forward passes of all examples, or one.
        """
        n = len(self.examples)
        with one_pass(), torch.random.fork_rng(devices=[]):
            tiles = [self._tile(start) for start in range(0, n, self.tile)]
            dtype = tiles[0].dtype
            outputs = np.concatenate([as_float64(tile) for tile in tiles])
            if known:
                return outputs
            # A fixed order of chance: data are often sorted, and neighbours alike.
            order = np.random.default_rng(0).permutation(n)
            size = self._size(self._inputs(order[:1]))
            for start in range(0, n, size):
                chosen = np.sort(order[start : start + size])  # in order, as files want to be read
                inputs = self._inputs(chosen).flip(0)
                again = self._with_gradients(inputs)
                again = self._run(inputs) if again is None else again
                far, excess = self._apart(outputs[chosen], as_float64(again.flip(0)), dtype, inputs.flip(0))
                if (excess > 0).any():
                    worst = int(np.argmax(excess))
                    raise NetworkError(self._reason(outputs, chosen, worst, far[worst], dtype))
        return outputs

    def _inputs(self, positions: npt.NDArray[np.int64]) -> torch.Tensor:
        return self.tensor(np.asarray(self.examples.inputs[positions]))

    def _tile(self, start: int) -> torch.Tensor:
        """Outputs of the tile at `start`."""
        inputs, count = padded(self.tensor(self.examples.inputs[start : start + self.tile]), self.tile)
        found = self._run(inputs)
        if self.bounded:
            with as_torch_does(), torch.no_grad():
                written, _ = self.forward(self.params, inputs)
            far, excess = self._apart(as_float64(found), as_float64(written), found.dtype, inputs)
            if (excess > 0).any():
                raise NetworkError(
                    "The weight of an embedding that max_norm writes over must not be used elsewhere, but outputs differed by "
                    f"{far.max():.3g} where it was not written over; give the weight as the writing leaves it, and "
                    "max_norm=None."
                )
        return found[:count]

    def _run(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs of a pass without gradients; the reason in one sentence where there are none."""
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
                outputs, left = self.forward(self.params, inputs)
        except NetworkError:
            raise
        except Exception as error:  # the user's forward may raise anything; told in one sentence
            advice = (
                "check the shapes of the data, or set precision to float32"
                if inputs.is_floating_point()
                else "integers are passed as they are, so convert them to real numbers unless they are tokens"
            )
            precision = str(next(iter(self.params.values())).dtype).removeprefix("torch.")
            raise NetworkError(
                f"The network does not take inputs of shape {tuple(inputs.shape)} in {precision} "
                f"({type(error).__name__}: {in_brief(error)}); {advice}."
            ) from error
        refuse_written(self.params | self.frozen, left)
        return outputs.detach()

    def _with_gradients(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Outputs of a pass with gradients; None where there is none: whoever needs the gradients says why, outputs and
        neurons can do without."""
        leaves = {key: value.detach().requires_grad_(True) for key, value in self.params.items()}
        try:
            with warnings.catch_warnings(), torch.enable_grad():
                warnings.simplefilter("ignore")  # what the user's forward warns of is not about this call
                outputs, left = self.forward(leaves, inputs)
        except NetworkError:
            raise
        except Exception:  # noqa: BLE001  # the user's forward may raise anything
            return None
        refuse_written(self.params | self.frozen, left)
        return outputs.detach()

    def _size(self, one: torch.Tensor) -> int:
        """Examples of a pass with gradients. Never the company in which outputs are first taken."""
        kept: dict[int, int] = {}

        def note(saved: torch.Tensor) -> torch.Tensor:
            if saved.layout is torch.strided:
                kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            self._with_gradients(one)
        # What is kept of the parameters themselves is not kept once more for every example.
        own = sum(kept.values()) - sum(value.nbytes for value in self.params.values())
        most, n = min(_MOST, max(1, _KEPT_BYTES // max(own, 1))), len(self.examples)
        return min(most, -(-n // 2)) if n <= self.tile else most

    def _apart(self, first: Array, second: Array, dtype: torch.dtype, inputs: torch.Tensor) -> tuple[Array, Array]:
        """How far apart the outputs of some inputs are (b,), and how much of it is more than rounding."""
        far, excess = apart(first, second, self._dtype, dtype)
        if (excess > 0).any():
            # Outputs may be what is left of large numbers that cancel, as those of a network that begins at zero by
            # antisymmetry: rounding is then measured by how much outputs change where the parameters do.
            signs = np.random.default_rng(0)
            moved = {
                key: value * (1 + _MOVED * torch.as_tensor(signs.choice([-1.0, 1.0], value.shape)).to(value))
                for key, value in self.params.items()
            }
            with np.errstate(invalid="ignore"):
                change = np.abs(as_float64(replace(self, params=moved)._run(inputs)) - first).max(axis=1) / _MOVED
            eps = max(torch.finfo(kind).eps for kind in (self._dtype, dtype))
            change = np.nan_to_num(change, posinf=0.0)
            excess = np.minimum(excess, far - _ROUNDED * eps * np.maximum(change, np.quantile(change, 0.9)))
        return far, excess

    @property
    def _dtype(self) -> torch.dtype:
        return next(iter(self.params.values())).dtype

    def _reason(self, outputs: Array, chosen: npt.NDArray[np.int64], worst: int, far: float, dtype: torch.dtype) -> str:
        """Why outputs differed: chance, the company of the example, or gradients."""
        example = int(chosen[worst])
        who = f"example {self.examples.ids[example]}"
        start = example // self.tile * self.tile
        again = as_float64(self._tile(start))
        if (apart(outputs[start : start + len(again)], again, self._dtype, dtype)[1] > 0).any():
            return _RANDOM
        beside = as_float64(self._run(self._inputs(chosen).flip(0)).flip(0))
        _, excess = apart(outputs[chosen], beside, self._dtype, dtype)
        return (_COMPANY if excess[worst] > 0 else _GRADIENTS).format(who, far)


def apart(first: Array, second: Array, *kinds: torch.dtype) -> tuple[Array, Array]:
    """How far apart two arrays (b, k) are in each row (b,), and how much of it is more than rounding in the coarsest of
    some precisions. What is not finite differs from what is, and from nothing else."""
    finite = np.isfinite(first), np.isfinite(second)
    with np.errstate(invalid="ignore"):
        between = np.where(finite[0] & finite[1], np.abs(first - second), np.where(finite[0] == finite[1], 0, np.inf))
    sizes = np.where(finite[0], np.abs(first), 0).max(axis=1)
    # A forward may compute in float32 inside, whatever its parameters are. Small numbers may be differences of large
    # ones, so that the size of most others counts too.
    share = max(_TOLERANCE.get(kind, _TOLERANCE[torch.float32]) for kind in kinds)
    largest = between.max(axis=1)
    return largest, largest - share * np.maximum(np.maximum(sizes, np.quantile(sizes, 0.9)), _TINY)


def refuse_written(given: Params, left: Params) -> None:
    """Raise NetworkError where a pass left other parameters than it was given."""
    for key, value in given.items():
        now = left[key].detach()
        if value.layout is torch.strided and torch.equal(value, now):
            continue
        before, after = _wide(value), _wide(now)
        if before.shape != after.shape:
            what = f"had the shape {tuple(after.shape)}"
        elif not torch.equal(before, after):
            what = f"differed by {float((before - after).abs().max()):.3g}"
        else:
            continue
        raise NetworkError(
            f"A forward must leave the parameters as they are, but '{key}' {what} after a pass; give it as passes over all "
            "examples leave it, or take out of the forward what writes over it."
        )


def _wide(value: torch.Tensor) -> torch.Tensor:
    """Numbers of any kind, of which differences can be taken."""
    dense = value if value.layout is torch.strided else value.to_dense()
    return dense.to(torch.complex128 if value.is_complex() else torch.float64).nan_to_num()


def padded(inputs: torch.Tensor, tile: int) -> tuple[torch.Tensor, int]:
    """Inputs filled up to a full tile with the last of them, and how many of them count."""
    count = len(inputs)
    if count == tile:
        return inputs, count
    return torch.cat([inputs, inputs[-1:].expand(tile - count, *inputs.shape[1:])]), count


def as_float64(tensor: torch.Tensor) -> Array:
    """A tensor as an array of float64."""
    made: Array = tensor.detach().cpu().to(torch.float64).numpy()
    return made


def _spread(n: int) -> npt.NDArray[np.int64]:
    """Up to eight positions over the whole range: data are often sorted, or begin with blank examples."""
    return np.unique(np.linspace(0, n - 1, min(n, 8)).astype(np.int64))


def _different(inputs: torch.Tensor) -> torch.Tensor:
    """The inputs without repetitions, which would hide that an output depends on its batch."""
    kept: list[int] = []
    for place, one in enumerate(inputs):
        if not any(torch.equal(one, inputs[other]) for other in kept):
            kept.append(place)
    return inputs[kept]
