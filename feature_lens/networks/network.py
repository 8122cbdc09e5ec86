"""A trained network as a frozen pure function of its parameters and one input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.func import functional_call

from feature_lens.arrays import array_of
from feature_lens.cards import NetworkCard, ParameterTable
from feature_lens.errors import ExamplesError, NetworkError, SettingsError
from feature_lens.examples import Examples
from feature_lens.networks.bounded import has_bounded, leave_weights_alone
from feature_lens.networks.devices import converted, places_of, usable_device
from feature_lens.networks.held import Held
from feature_lens.networks.intake import copied as copied
from feature_lens.networks.intake import inner, private_copy
from feature_lens.networks.learning_rates import rates_of
from feature_lens.networks.passes import ONE_PASS
from feature_lens.networks.scrutiny import Scrutiny, Seen
from feature_lens.networks.states import Params as Params
from feature_lens.networks.states import State, load_trained, params_of, refuse_non_finite
from feature_lens.shown import shown as text_of

Precision = Literal["float64", "float32"]
At = Literal["effective", "initial"]


@dataclass(frozen=True)
class Network:
    """f(x; theta): a private copy of a module with its trained parameters, and its initial ones where known.

    `trained` and `initial` hold the trainable tensors by name, `constants` the frozen parameters and the buffers
    (always those of the trained network, also at theta0). `learning_rates` gives lambda per tensor (PDLT's
    learning-rate tensor, one positive factor per parameter group). Made by `Network.from_module`.
    """

    name: str
    module: torch.nn.Module
    trained: Params
    initial: Params | None
    constants: Params
    learning_rates: tuple[float, ...]
    digest: str
    places: tuple[tuple[str, str], ...]
    seen: Seen = field(init=False, default_factory=Seen, repr=False, compare=False)
    held: Held = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "held", Held(self.module))

    @classmethod
    def from_module(
        cls,
        module: torch.nn.Module,
        *,
        trained: Mapping[str, torch.Tensor] | Path | str | None = None,
        initial: Mapping[str, torch.Tensor] | Path | str | None = None,
        learning_rates: Mapping[str, float] | str | None = None,
        name: str | None = None,
        precision: Precision = "float64",
        device: str | torch.device = "cpu",
    ) -> Network:
        """Freeze a module.

        trained, initial: state dicts or checkpoint files, as `load_checkpoint` reads them, with whatever prefix before their
        names; without `trained` the module's own parameters are taken. learning_rates: pattern of parameter names (as in
        a shell, '*.bias') -> lambda; the first pattern that matches counts, 1 where none does; or "pdlt", see `rates_of`.
        The module given is never changed and its hooks stay; the copy has them too, because some (weight_norm) compute the
        weights, so they run in its passes; what compiles a module or spreads it over devices is taken off the copy.
        device: where parameters and inputs are kept and passes run, by torch's name for it; what follows the passes is
        computed on the CPU. Seen on the CPU and a pretend device alone: no accelerator was at hand.

        Raises NetworkError for dropout in training mode, batch statistics in use, no trainable or a non-finite
        parameter; CheckpointError for a state that does not fit; SettingsError for a device that cannot be used.
        """
        dtype = _dtype(precision)
        place = usable_device(device, dtype)
        own = private_copy(module)
        _refuse_training_behaviour(own)
        leave_weights_alone(own)
        # Converted first, so that a state of more digits than the module keeps them.
        own = converted(own, dtype, place)
        if trained is not None:
            load_trained(own, trained)
        # A parameter without entries, kept to know a device by, is a constant: theta has no part of it.
        parameters = {key: value for key, value in own.named_parameters() if value.requires_grad and value.numel()}
        if not parameters:
            raise NetworkError(
                "A network needs at least one trainable parameter, but none with entries has requires_grad; "
                "call requires_grad_(True) on those to be looked at."
            )
        params = {key: value.detach().clone() for key, value in parameters.items()}
        frozen = {key: value.detach().clone() for key, value in own.named_parameters() if key not in params}
        constants = frozen | {key: value.detach().clone() for key, value in own.named_buffers()}
        refuse_non_finite(params, "trained")
        refuse_non_finite(constants, "trained", masks=True)
        start = None if initial is None else params_of(own, initial, params, "initial")
        for parameter in own.parameters():
            parameter.requires_grad_(False)
        return cls(
            name=name or type(inner(module)).__name__,
            module=own,
            trained=params,
            initial=start,
            constants=constants,
            learning_rates=rates_of(own, params, learning_rates or {}),
            digest=_digest(own, params, start, constants),
            places=places_of(own),
        )

    @property
    def dtype(self) -> torch.dtype:
        """Precision of every computation with this network."""
        return next(iter(self.trained.values())).dtype

    @property
    def device(self) -> torch.device:
        """Where parameters are kept and passes run."""
        return next(iter(self.trained.values())).device

    def real(self, values: Any) -> torch.Tensor:
        """Real numbers as a tensor in the network's precision, on its device."""
        return torch.as_tensor(values, dtype=self.dtype, device=self.device)

    @property
    def parameters(self) -> ParameterTable:
        """Names, shapes and learning rates of the trainable tensors in the order of theta."""
        shapes = tuple(tuple(value.shape) for value in self.trained.values())
        return ParameterTable(tuple(self.trained), shapes, self.learning_rates)

    def at(self, where: str) -> Params:
        """theta* for 'effective', theta0 for 'initial'; raises SettingsError for another name, NetworkError where theta0 is
        not known."""
        if where == "effective":
            return self.trained
        if where != "initial":
            raise SettingsError(f"Features are taken at 'effective' or 'initial' parameters, not at '{where}'.")
        if self.initial is None:
            raise NetworkError(
                "These features need the parameters before training, but none were given; pass initial=... as well."
            )
        return self.initial

    def at_state(self, state: State, what: str) -> Network:
        """The same network with the trained parameters of another state, such as a snapshot's; frozen parameters and
        buffers stay those of this one. `what` names the state in errors: CheckpointError for one of another
        architecture, NetworkError for numbers that are not finite."""
        params = params_of(self.module, state, self.trained, what)
        digest = _digest(self.module, params, self.initial, self.constants)
        return replace(self, trained=params, digest=digest)

    def displacement(self) -> Params:
        """d = theta* - theta0 by tensor; raises NetworkError where theta0 is not known."""
        start = self.at("initial")
        return {name: value - start[name] for name, value in self.trained.items()}

    def tensor(self, inputs: Any) -> torch.Tensor:
        """Inputs as a tensor on the network's device: real numbers in its precision, integers as they are."""
        tensor = torch.tensor(array_of(inputs, "inputs"))  # a copy, which a forward may write over
        if not tensor.is_floating_point() and tensor.dtype != torch.bool:
            return tensor.to(self.device, torch.int64)
        made = tensor.to(self.device, self.dtype)
        if tensor.dtype == torch.float64 != self.dtype and bool((made.isinf() > tensor.isinf()).any()):
            raise NetworkError(
                f"Inputs must be within the range of {_word(self.dtype)}, but {float(tensor.abs().max()):.3g} came; "
                "scale them, or give precision float64."
            )
        return made

    def __call__(self, params: Params, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs (b, c) of inputs (b, ...) at the given parameters; a net of one output may give (b,)."""
        return self._passed(params, inputs)[0]

    def _passed(self, params: Params, inputs: torch.Tensor) -> tuple[torch.Tensor, Params]:
        """The same, and the parameters and constants as the pass left them."""
        # Clones, because a forward may write over inputs, buffers and parameters, and the function must stay the same.
        values = {key: value.clone() for key, value in (params | self.constants).items()}
        placed = {place: values[name] for place, name in self.places}
        with ONE_PASS:
            try:
                outputs = functional_call(self.module, placed, (inputs.clone(),), tie_weights=False)
            finally:
                self.held.put_back()
        if not isinstance(outputs, torch.Tensor):
            raise NetworkError(
                f"A network must return one tensor (b, c), but {type(outputs).__name__} came; "
                "wrap the module so that it returns its logits."
            )
        if not outputs.is_floating_point():
            raise NetworkError(
                f"A network must return real numbers, but {_word(outputs.dtype)} came; "
                "wrap the module so that it returns its logits."
            )
        if outputs.ndim == 1 and outputs.shape[0] == inputs.shape[0]:
            outputs = outputs[:, None]
        if outputs.ndim != 2 or outputs.shape[0] != inputs.shape[0] or outputs.shape[1] == 0:
            raise NetworkError(
                f"A network must return the shape (b, c), but {tuple(outputs.shape)} came for {inputs.shape[0]} "
                "examples; wrap the module so that it returns one row of outputs per example."
            )
        return outputs, values

    def _watched(self, params: Params, inputs: torch.Tensor) -> tuple[torch.Tensor, Params]:
        """The same; raises NetworkError where the forward puts another tensor in the place of a parameter, which a copy of
        the module would keep."""
        places = [
            (name, part._parameters, key) for name, part in self.module.named_modules() for key in part._parameters
        ]
        held: list[torch.Tensor | None] = []
        moved: list[str] = []

        def enter(*_: Any) -> None:
            held[:] = [tensors[key] for _, tensors, key in places]

        def leave(*_: Any) -> None:
            for (name, tensors, key), before in zip(places, held, strict=True):
                if tensors.get(key) is not before:
                    moved.append(f"{name}.{key}".removeprefix("."))

        with ONE_PASS:
            hooks = [self.module.register_forward_pre_hook(enter), self.module.register_forward_hook(leave)]
            try:
                found = self._passed(params, inputs)
            finally:
                for hook in hooks:
                    hook.remove()
        if moved:
            raise NetworkError(
                f"A forward must leave its parameters in place, but it puts another tensor in that of '{moved[0]}'; compute "
                "with a tensor of its own instead."
            )
        return found

    def check(self, examples: Examples, tile: int = 32) -> int:
        """Run the network on the examples and return c.

        Raises NetworkError where the forward fails, is not deterministic, writes over parameters, gives other outputs
        where gradients are wanted, or lets an example's output depend on the batch it is in, at the trained parameters
        or at the initial ones; ExamplesError where class labels count the outputs from 1. Cost: two forward passes of
        all examples at each, once for the same examples.
        """
        known = self.seen.n_outputs(examples)
        if known is not None:
            return known
        n_outputs = self._scrutiny(self.trained, examples, tile).probe()
        labels = examples.labels
        if labels is not None and n_outputs > 1 and (int(labels.min()), int(labels.max())) == (1, n_outputs):
            raise ExamplesError(
                f"Class labels must be 0 to {n_outputs - 1}, the outputs of the network, but 1 to {n_outputs} came; "
                "subtract 1 from all."
            )
        for params in (self.trained, self.initial):
            if params is not None:
                self._scrutiny(params, examples, tile).outputs()
        self.seen.add(examples, n_outputs)
        return n_outputs

    def _scrutiny(self, params: Params, examples: Examples, tile: int) -> Scrutiny:
        own = dict(self.module.named_parameters())
        frozen = {key: value for key, value in self.constants.items() if key in own}
        return Scrutiny(self._watched, self.tensor, params, frozen, has_bounded(self.module), examples, tile)

    def outputs(
        self, examples: Examples, tile: int = 32, at: At = "effective"
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """f(x; theta*), or at theta0 for 'initial', of all examples (n, c), in padded tiles so that an example's
        output never depends on n. Raises NetworkError as `check` does, for examples that it was not yet called with."""
        known = self.seen.n_outputs(examples) is not None
        return self._scrutiny(self.at(at), examples, tile).outputs(known=known)

    def outputs_at(self, params: Params, examples: Examples, tile: int = 32) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The same at any parameters. Raises NetworkError as `check` does, of all examples at these parameters."""
        return self._scrutiny(params, examples, tile).outputs()

    def card(self, n_outputs: int, metrics: Mapping[str, float]) -> NetworkCard:
        """What a run says of this network."""
        return NetworkCard(
            name=self.name,
            architecture=text_of(str(self.module)),  # a module may say anything of itself, such as what no file holds
            n_outputs=n_outputs,
            parameters=self.parameters,
            digest=self.digest,
            metrics=metrics,
            trained=flat(self.trained),
            initial=None if self.initial is None else flat(self.initial),
        )


def flat(params: Params) -> np.ndarray[Any, np.dtype[Any]]:
    """Parameters joined into theta (p,)."""
    return torch.cat([value.reshape(-1) for value in params.values()]).cpu().numpy()


def _refuse_training_behaviour(module: torch.nn.Module) -> None:
    for name, part in module.named_modules():
        shown = name or type(part).__name__
        dropout = isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0
        if part.training and (
            dropout or (isinstance(part, torch.nn.RNNBase) and part.dropout > 0 and part.num_layers > 1)
        ):
            raise NetworkError(
                f"Dropout must be off, but '{shown}' is in training mode; call module.eval() before handing it over."
            )
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and (part.training or part.running_mean is None):
            how = "is in training mode" if part.training else "keeps no running statistics"
            raise NetworkError(
                f"Batch statistics must not be in use, but '{shown}' {how}; "
                "call module.eval() first and use track_running_stats=True."
            )


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(precision: str) -> torch.dtype:
    known = {"float64": torch.float64, "float32": torch.float32}
    if precision not in known:
        raise SettingsError(f"The precision is float64 or float32, not '{precision}'; choose one of them.")
    return known[precision]


def _digest(module: torch.nn.Module, trained: Params, initial: Params | None, constants: Params) -> str:
    sha = hashlib.sha256(str(module).encode("utf-8", "backslashreplace"))
    for state in (trained, initial or {}, constants):
        for key, value in state.items():
            whole = value if value.layout == torch.strided else value.to_dense()
            sha.update(f"{key}{value.dtype}{tuple(value.shape)}".encode() + whole.contiguous().cpu().numpy().tobytes())
    return sha.hexdigest()
