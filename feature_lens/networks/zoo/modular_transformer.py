"""Addition modulo P by a transformer of one layer, which learns a few Fourier modes of a + b."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from feature_lens.errors import SettingsError
from feature_lens.examples import Examples, Modality
from feature_lens.networks.zoo.residues import all_pairs, named, wave_concepts
from feature_lens.networks.zoo.zoo_net import ZOO, ZooNet, at_least

# Epochs between looks at the validation pairs.
_LOOK = 50


class Transformer(nn.Module):
    """Tokens (b, t) to logits (b, P) at the last position, where alone queries and the MLP are needed.

    Embedding and learnt positions, one layer of attention and a ReLU MLP with residual connections, no norms, no biases.
    """

    def __init__(self, tokens: int, outputs: int, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(tokens, width)
        self.positions = nn.Parameter(torch.empty(3, width))
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.mlp_in = nn.Linear(width, mlp, bias=False)
        self.relu = nn.ReLU()
        self.mlp_out = nn.Linear(mlp, width, bias=False)
        self.stream = nn.Identity()  # what the unembedding reads, by a name, to be looked at
        self.unembed = nn.Linear(width, outputs, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        stream = self.embed(tokens) + self.positions
        last = stream[:, -1]
        b, t, width = stream.shape
        size = width // self.heads
        query = self.query(last).view(b, 1, self.heads, size)
        key, value = (part(stream).view(b, t, self.heads, size) for part in (self.key, self.value))
        pattern = torch.softmax((query * key).sum(dim=3) / math.sqrt(size), dim=1)
        last = last + self.attended((pattern[..., None] * value).sum(dim=1).reshape(b, width))
        last = self.stream(last + self.mlp_out(self.relu(self.mlp_in(last))))
        logits: torch.Tensor = self.unembed(last)
        return logits


@ZOO.register("modular_transformer")
@dataclass(frozen=True)
class ModularTransformer(ZooNet):
    """Tokens a, b and '=' to the sum of a and b modulo P, cross-entropy, AdamW with much weight decay, minibatches.

    The setting of Lin, arXiv:2510.00468, after Nanda et al., arXiv:2301.05217: width 64, 4 heads, 256 hidden units, half
    of the pairs. From the recipe's seed the order of the pairs is drawn, of which the first `training` share is trained on
    and the next `validation` share chooses the epoch that is kept, by accuracy, then loss, looked at every 50 epochs
    (without one the last is kept); then all parameters, from the embedding to the unembedding, normal with variance
    1 / fan_in, those of embedding and positions 1 / width; then the order of each epoch's batches, `batch` 0 taking all
    pairs at once. The rest is `tested`.
    Whether a net generalises depends on its seed: accuracy on tested pairs is .973 for seed 0, 1.000 for seed 1, which is
    shipped, and .184 for seed 2. Training takes about a minute.
    """

    data: ClassVar[str] = "all pairs of residues, made by the recipe"
    sets: ClassVar[tuple[str, ...]] = ("eigen/sum", "eigen/trace", "eigen/sum@initial", "unit/target")
    components: ClassVar[int] = 64
    dual: ClassVar[bool] = False  # attention has no exact path features; those by quadrature take many minutes
    first_snapshot: ClassVar[int] = 40

    modulus: int = 29
    width: int = 64
    heads: int = 4
    mlp: int = 256
    training: float = 0.5
    validation: float = 0.1
    batch: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 1.0
    second_moment: float = 0.98
    epochs: int = 4000
    seed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(3, modulus=self.modulus)
        at_least(1, width=self.width, heads=self.heads, mlp=self.mlp)
        at_least(0, batch=self.batch, validation=self.validation)
        at_least(1, **{"training share times pairs": int(self.training * self.modulus**2)})
        if self.width % self.heads:
            raise SettingsError(
                f"The width is shared out among the heads, but {self.width} came for {self.heads}; give a multiple."
            )

    @property
    def title(self) -> str:
        return f"addition modulo {self.modulus}, transformer of width {self.width}"

    def pairs(self) -> npt.NDArray[np.int64]:
        """(n, 2) a and b of every example, b running fastest."""
        return all_pairs(self.modulus)

    @property
    def tested(self) -> npt.NDArray[np.bool_]:
        """(n,) which pairs neither trained the network nor chose the epoch."""
        chosen = np.zeros(self.modulus**2, dtype=bool)
        chosen[self._order()[0][2]] = True
        return chosen

    def examples(self) -> Examples:
        """All P^2 pairs as tokens a, b and P, which stands for '=', called '3 + 17 = 20'; the label is the sum."""
        pairs = self.pairs()
        (training, _, _), _ = self._order()
        return Examples.from_arrays(
            np.column_stack([pairs, np.full(len(pairs), self.modulus)]),
            pairs.sum(axis=1) % self.modulus,
            ids=named(pairs, self.modulus),
            split=np.isin(np.arange(len(pairs)), training),
            modality=Modality("pair", (self.modulus, self.modulus)),
            class_names=[str(residue) for residue in range(self.modulus)],
            concepts=wave_concepts(pairs, self.modulus),
        )

    def module(self) -> Transformer:
        """The transformer with its parameters as drawn."""
        return self._drawn()[0]

    def course(self, module: nn.Module) -> Iterator[None]:
        """Minibatches of the training pairs; at the end the state that did best on the validation pairs."""
        (training, validation, _), generator = self._order()
        examples = self.examples()
        inputs, labels = torch.as_tensor(np.asarray(examples.inputs)), self.taught(examples)
        optimiser = torch.optim.AdamW(
            module.parameters(),
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            betas=(0.9, self.second_moment),
        )
        best, kept = (-1.0, 0.0), module.state_dict()
        chosen = torch.as_tensor(training)
        for epoch in range(1, self.epochs + 1):
            order = chosen[torch.randperm(len(chosen), generator=generator)] if self.batch else chosen
            size = self.batch or len(order)
            for batch in (order[first : first + size] for first in range(0, len(order), size)):
                optimiser.zero_grad()
                loss: Any = nn.functional.cross_entropy(module(inputs[batch]), labels[batch])
                loss.backward()
                optimiser.step()
            if len(validation) and (epoch % _LOOK == 0 or epoch == self.epochs):
                with torch.no_grad():
                    logits = module(inputs[validation])
                right = float((logits.argmax(dim=1) == labels[validation]).float().mean())
                found = right, -float(nn.functional.cross_entropy(logits, labels[validation]))
                if found > best:
                    best, kept = found, copy.deepcopy(module.state_dict())
            if epoch == self.epochs and len(validation):
                module.load_state_dict(kept)
            yield

    def _order(self) -> tuple[tuple[npt.NDArray[np.int64], ...], torch.Generator]:
        """Positions of the pairs for training, validation and test, and the generator after all that is drawn."""
        _, order, generator = self._drawn()
        n = self.modulus**2
        first, second = min(int(self.training * n), n), int(self.validation * n)
        return (order[:first], order[first : first + second], order[first + second :]), generator

    def _drawn(self) -> tuple[Transformer, npt.NDArray[np.int64], torch.Generator]:
        """The module, the order of the pairs, which is drawn before it, and the generator after both."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(self.modulus**2, generator=generator).numpy()
        with torch.random.fork_rng(devices=[]):  # torch draws parameters of its own, which are replaced
            module = Transformer(self.modulus + 1, self.modulus, self.width, self.heads, self.mlp)
        parts = (module.query, module.key, module.value, module.attended, module.mlp_in, module.mlp_out, module.unembed)
        with torch.no_grad():
            for parameter in (module.embed.weight, module.positions, *(part.weight for part in parts)):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
        return module, order, generator
