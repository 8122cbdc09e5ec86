"""Derivatives of a network's outputs at its initial parameters, contracted with directions as soon as they are taken."""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.errors import NetworkError, in_brief
from feature_lens.examples import Examples
from feature_lens.networks import Network
from feature_lens.networks.network import Params
from feature_lens.networks.passes import ONE_PASS

Vector = npt.NDArray[np.float64]

# Share to which two ways to the same derivative must agree.
_AGREEMENT: Final = 1e-8


class Derivatives:
    """f and its first three derivatives J, K, L at theta0, for fixed examples, in the coordinates thetahat of
    theta = sqrt(lambda) thetahat, in which the learning-rate tensor is one.

    Directions v are of length p, weights u of rows (example * c + output) of length r. Each call is a chain of vector
    products by autograd, each through the graph of those before it: about 3 times a backward pass for one direction,
    8 for two, 11 for three, and the activations of all examples as often. Nothing larger than p + r is kept. The
    Hessian of u . f times v, psi[u] v, is `gradient_along(u, v)`.

    Raises NetworkError where the initial parameters are not known, the network is not in float64, or has operations
    that cannot be derived more than once.
    """

    def __init__(self, network: Network, examples: Examples) -> None:
        self._start = network.at("initial")
        if network.dtype != torch.float64:
            raise NetworkError(
                "An expansion about the initial parameters needs precision float64, but the network is in "
                f"{str(network.dtype).removeprefix('torch.')}; make it with precision='float64'."
            )
        network.check(examples)
        self._network = network
        self._inputs = network.tensor(np.asarray(examples.inputs[:]))
        table = network.parameters
        self._places = [(at, shape) for (_, at), shape in zip(table.slices, table.shapes, strict=True)]
        self._scale = np.sqrt(np.repeat(table.learning_rates, table.sizes))
        self.p = table.total
        with torch.no_grad():
            value = network(self._start, self._inputs)
        self.r, self.n_outputs = value.numel(), value.shape[1]
        self._value: Vector = value.numpy().ravel()
        self._check()

    @property
    def value(self) -> Vector:
        """f at theta0 (r,)."""
        return self._value.copy()

    def along(self, *directions: Vector) -> Vector:
        """The derivative of f along one, two or three directions (r,): J v, K[v, w] or L[v, w, z].

        The derivative of u . f along them is linear in u; what it is linear by is the answer.
        """
        made: Vector = self._chain(torch.zeros(self.r, dtype=torch.float64, requires_grad=True), directions)
        return made

    def gradient_along(self, weights: Vector, *directions: Vector) -> Vector:
        """The derivative of the gradient of u . f along none, one or two directions (p,): J^T u, K[v]^T u or
        L[v, w]^T u."""
        made: Vector = self._scale * self._chain(torch.as_tensor(weights), directions)
        return made

    def _chain(self, u: torch.Tensor, directions: tuple[Vector, ...]) -> Vector:
        """The gradient of the derivative of u . f along the directions: with respect to u where that has one."""
        leaves = [value.clone().requires_grad_(True) for value in self._start.values()]
        try:
            with warnings.catch_warnings(), ONE_PASS:
                warnings.simplefilter("ignore")  # what torch and the user's forward warn of is not about this call
                params: Params = dict(zip(self._start, leaves, strict=True))
                derived = self._network(params, self._inputs).reshape(-1) @ u
                for direction in directions:
                    if derived.requires_grad:
                        grads = torch.autograd.grad(derived, leaves, create_graph=True, materialize_grads=True)
                        derived = torch.stack(
                            [(g * d).sum() for g, d in zip(grads, self._tensors(direction), strict=True)]
                        ).sum()
                wanted = [u] if u.requires_grad else leaves
                if not derived.requires_grad:  # nothing depends on the parameters any more
                    return np.zeros(sum(one.numel() for one in wanted))
                found = torch.autograd.grad(derived, wanted, materialize_grads=True)
        except NetworkError:
            raise
        except Exception as error:  # the user's forward may hold anything that cannot be derived again; one sentence
            raise NetworkError(
                f"An expansion needs higher derivatives of the network, but they could not be taken "
                f"({type(error).__name__}: {in_brief(error)}); regressions and contributions do not need them."
            ) from error
        made: Vector = np.concatenate([(one.to_dense() if one.is_sparse else one).numpy().ravel() for one in found])
        return made

    def _check(self) -> None:
        """Refuse operations whose derivative autograd takes for a constant: u . (J v) must be (J^T u) . v."""
        rng = np.random.default_rng(0)
        u, v = rng.standard_normal(self.r), rng.standard_normal(self.p)
        forward, backward = float(u @ self.along(v)), float(self.gradient_along(u) @ v)
        if not abs(forward - backward) <= _AGREEMENT * max(abs(forward), abs(backward)):
            raise NetworkError(
                f"An expansion needs higher derivatives of the network, but {forward:.6g} and {backward:.6g} came for the "
                "same one in two ways; an operation in it can be derived only once, so replace it."
            )

    def _tensors(self, direction: Vector) -> list[torch.Tensor]:
        scaled = torch.as_tensor(self._scale * direction)
        return [scaled[at].reshape(shape) for at, shape in self._places]
