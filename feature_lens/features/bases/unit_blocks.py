"""Unit blocks: deflated features inside groups of hidden units that carry the same part of the kernel."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from feature_lens.errors import SettingsError
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, of_tensors
from feature_lens.features.bases.deflated import Deflated
from feature_lens.features.bases.gaps import count_by_difference
from feature_lens.features.bases.spectral import score_words
from feature_lens.features.design import DesignMatrix, Matrix, as_matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.known_methods import last_linear
from feature_lens.networks.passes import one_pass
from feature_lens.registry import unknown_name

Turn = Literal["outputs", "kernel"]

_TURNED: Final[dict[str, str]] = {
    "outputs": "Within a block, what reaches the outputs is parted from what cancels before them.",
    "kernel": "Within a block the kernel is diagonal.",
}
# Where the number of blocks is looked for among the eigenvalues of the affinity, counted from 0: the first is 1.
_BLOCKS = (2, 39)


@dataclass(frozen=True)
class Blocks:
    """Units grouped by which part of the deflated kernel they carry: label (units,), loads b (k, units), strength |W|
    of their outgoing weights (units,), eigenvalues of the normalised affinity (units,) falling."""

    label: npt.NDArray[np.int64]
    loads: Matrix
    strength: Matrix
    spectrum: Matrix


def group_units(vectors: Matrix, activations: Matrix, strength: Matrix, n_blocks: int | None, seed: int) -> Blocks:
    """Spectral clustering of units by their loads b_j = S^T a_j, S (n, k) orthonormal, a_j centred activations (n,).

    Affinity of two units: cos^2(b_i, b_j) sqrt(g_i g_j), g = |b| |W|, W outgoing weights. Without a number, as many
    blocks as the largest difference of successive eigenvalues of the normalised affinity says.
    """
    from sklearn.cluster import SpectralClustering

    loads = vectors.T @ (activations - activations.mean(axis=0))
    norms = np.linalg.norm(loads, axis=0)
    alive = norms * strength > 1e-12 * float((norms * strength).max(initial=0))
    if np.count_nonzero(alive) < 4:
        raise SettingsError(
            f"Unit blocks need at least four hidden units that carry the deflated features, but {np.count_nonzero(alive)} do; "
            "choose 'deflated'."
        )
    unit = loads[:, alive] / norms[alive]
    weight = np.sqrt(norms[alive] * strength[alive])
    affinity = np.square(unit.T @ unit) * weight[:, None] * weight
    np.fill_diagonal(affinity, 0)
    degree = np.sqrt(affinity.sum(axis=1))
    spectrum = np.linalg.eigvalsh(affinity / degree[:, None] / degree)[::-1]
    last = min(_BLOCKS[1], len(spectrum) - 2)
    blocks = count_by_difference(spectrum, min(_BLOCKS[0], last - 1), last) if n_blocks is None else n_blocks
    if not 1 <= blocks < len(spectrum):
        raise SettingsError(f"{len(spectrum)} units form 1 to {len(spectrum) - 1} blocks, but {blocks} were asked for.")
    clusters = SpectralClustering(blocks, affinity="precomputed", n_init=20, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a graph in several parts is what is hoped for
        found = clusters.fit_predict(affinity)
    label = np.full(len(alive), -1, dtype=np.int64)
    label[alive] = found
    return Blocks(label, loads, strength, spectrum)


@BASES.register("unit_blocks")
class UnitBlocks(Deflated):
    """Deflated features turned so that each belongs to one group of units of the last hidden layer: single features
    that need no group of eigenvectors to be read, where eigenvectors of near-degenerate eigenvalues are arbitrary.

    Units (inputs of the last linear layer) are grouped by `group_units`. For each block the loads of its units,
    weighted by their outgoing weights, span a few directions of the deflated basis. turn says how they are turned
    within that span: "outputs" makes the Gram matrix of the network's centred outputs diagonal among them, so that what
    reaches the outputs parts from what cancels before them; "kernel" makes the kernel diagonal. (On the net that adds
    modulo 29 the first finds all 28 waves on each of seven seeds, the second 18 to 26; on three of them, giving units to
    the block that holds most of their load, leaving doubtful ones out and weighing loads otherwise changed nothing.)
    n_components: features per block, the deflated dimension over the number of blocks without. n_blocks: number of
    blocks, chosen by the largest gap without. Needs one row per example. Derived independently. Cost: that of the deflated basis, units^2 numbers and an eigenproblem of that side.

    Learnt besides: blocks_ (label of every unit, their loads), block_ (k,) the block of each feature.
    """

    def __init__(
        self,
        n_components: int | None = None,
        n_removed: int | None = None,
        *,
        n_deflated: int | None = None,
        n_blocks: int | None = None,
        turn: Turn = "outputs",
        group_gap: float = 0.01,
        random_state: int = 0,
    ) -> None:
        super().__init__(n_components, n_removed, group_gap=group_gap, random_state=random_state)
        self.n_deflated, self.n_blocks, self.turn = n_deflated, n_blocks, turn

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError besides for several rows per example, or a network that does not end in a linear layer."""
        super().check(design)
        if self.turn not in get_args(Turn):
            raise unknown_name("way to turn unit blocks", self.turn, list(get_args(Turn)))
        if design.rows_per_example > 1:
            raise SettingsError(
                "Unit blocks need one row per example, because a unit has one activation; choose the trace reduction or "
                "a single output."
            )
        if last_linear(design.network, design.examples) is None:
            raise SettingsError(
                "Unit blocks group the units before a last linear layer, but there is none; choose 'deflated'."
            )

    def _coefficients(self, fitted: EffectiveFeatures, kernel: Matrix) -> None:
        wanted, self.n_components = self.n_components, self.n_deflated
        try:
            super()._coefficients(fitted, kernel)
        finally:
            self.n_components = wanted
        deflation = self.deflation_
        activations, weights = last_hidden(fitted)
        strength = np.linalg.norm(weights, axis=0)
        found = group_units(deflation.vectors, activations, strength, self.n_blocks, self.random_state)
        self.blocks_ = found
        outputs = fitted.network.outputs(fitted.examples, fitted.tile)
        carried = deflation.vectors.T @ (outputs - outputs.mean(axis=0))
        labels = np.unique(found.label[found.label >= 0])
        each = wanted or max(1, round(len(deflation.spectrum) / len(labels)))
        turned: list[tuple[float, int, Matrix]] = []
        for block in labels:
            loads = found.loads[:, found.label == block] * strength[found.label == block]
            span = np.linalg.svd(loads, full_matrices=False)[0][:, :each]
            inside = (span.T * deflation.spectrum) @ span
            reached = span.T @ carried
            turn = np.linalg.eigh(inside if self.turn == "kernel" else reached @ reached.T)[1]
            values = (turn * (inside @ turn)).sum(axis=0)
            turned += [(value, int(block), span @ turn[:, at]) for at, value in enumerate(values)]
        turned.sort(key=lambda one: -one[0])
        combination = np.stack([one[2] for one in turned], axis=1)
        self.spectrum_ = np.array([one[0] for one in turned])
        self.block_ = np.array([one[1] for one in turned], dtype=np.int32)
        # The direction of least norm in the span of the deflated ones whose activations are these combinations of U.
        inner = combination / np.sqrt(deflation.spectrum)[:, None]
        norms = np.linalg.norm(inner, axis=0)
        self.coefficients_ = deflation.coefficients @ (inner / norms)
        self.removed_ = deflation.removed(kernel, self.coefficients_)
        self.vectors_ = deflation.vectors @ combination

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set with its spectrum, and for each feature the block that it belongs to, in its label."""
        kind, outputs = design.card
        sizes = np.bincount(self.blocks_.label[self.blocks_.label >= 0])
        card = self._card(
            design,
            f"Unit blocks of the {kind}, {outputs.split(':')[0]}",
            f"The deflated features turned so that each belongs to one of {len(sizes)} groups of hidden units "
            f"({sizes.min()} to {sizes.max()} units each) that carry the same part of the kernel; {self.n_removed_} leading "
            f"eigenvectors of the initial kernel are projected out before. {_TURNED[self.turn]}{of_tensors(self.fitted_)}",
            "kernel PCA with the empirical NTK, inside clusters of hidden units",
            score_words(1) + "; the part that was there before training is taken off",
        )
        number = {block: place for place, block in enumerate(dict.fromkeys(self.block_.tolist()))}
        seen: dict[int, int] = {}
        labels = []
        for block in self.block_.tolist():
            seen[block] = seen.get(block, 0) + 1
            labels.append(f"block {number[block]}, feature {seen[block]}")
        return self._set(design, name, card, keep, batch_size, {"labels": np.array(labels)})


def last_hidden(design: EffectiveFeatures) -> tuple[Matrix, Matrix]:
    """Inputs (n, units) of the last linear layer on a design's examples, and its weights (c, units).

    Raises SettingsError where the network ends otherwise. Cost: a forward pass of all examples.
    """
    network, layer = design.network, last_linear(design.network, design.examples)
    if layer is None:
        raise SettingsError(
            "The network must end in a linear layer for its last hidden units to be read, but it does not."
        )
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((args[0].detach(), output))

    found: list[Any] = []
    part = network.module.get_submodule(layer.weight.removesuffix("weight").removesuffix("."))
    with one_pass(), torch.no_grad():
        hook = part.register_forward_hook(note)
        try:
            for start in range(0, len(design.examples), design.tile):
                inputs, count = design._padded(start)
                outputs = network(network.trained, inputs)
                # On every tile, because which examples take this way may depend on the data.
                if len(seen) != 1 or not torch.equal(seen[0][1], outputs):
                    raise SettingsError(
                        "The last linear layer must give the outputs of every example for its hidden units to be read, but "
                        "some examples go another way; choose 'deflated'."
                    )
                found.append(as_matrix(seen.pop()[0])[:count])
        finally:
            hook.remove()
    return np.concatenate(found), as_matrix(network.trained[layer.weight])
