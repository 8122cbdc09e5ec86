"""Eigen features of every module, or every parameter tensor, by itself: all of them in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from feature_lens.errors import SettingsError
from feature_lens.examples import Column
from feature_lens.feature_set import FeatureSet
from feature_lens.features.bases.basis import BASES, of_tensors
from feature_lens.features.bases.kernel_basis import KernelBasis
from feature_lens.features.bases.spectral import (
    Profiles,
    degenerate_groups,
    group_stability,
    score_words,
    tensor_shares,
)
from feature_lens.features.decompositions import leading_of_kernel
from feature_lens.features.design import DesignMatrix, Matrix
from feature_lens.features.effective import EffectiveFeatures
from feature_lens.features.known_methods import eigen_equals
from feature_lens.registry import unknown_name

Parts = Literal["layer", "tensor"]


@dataclass(frozen=True)
class _Part:
    """The eigen features of one module."""

    name: str
    spectrum: Matrix
    groups: npt.NDArray[np.int32]
    stability: Matrix
    profiles: Profiles
    shares: Matrix
    coefficients: Matrix


@BASES.register("layerwise")
class Layerwise(KernelBasis):
    """Eigen features of the share that each module has in the kernel, H = sum over modules: what `Eigen` finds with only
    that module's parameters, for all modules from one pass, in one set in the order of their eigenvalues.

    by: "layer" (modules) or "tensor". n_components: of each; fewer where an eigenvalue falls below 1e-6 of the module's
    first. group_gap: eigenvalues of a module closer than this, relatively, form one degenerate group. Derived
    independently, from the kernel's being a sum. Cost: one pass for kernels of r rows, one for every tensor, and an
    eigenproblem of side r for every module.

    Learnt: spectrum_ (k), part_ (k) module of each feature, coefficients_ C (r, k) with activations H_part(x, A) C,
    groups_, stability_ (as of `Eigen`), part_share_ of the kernel, and what `KernelBasis` has.
    """

    def __init__(
        self, n_components: int = 16, *, by: Parts = "layer", group_gap: float = 0.01, random_state: int = 0
    ) -> None:
        self.n_components, self.by = n_components, by
        self.group_gap, self.random_state = group_gap, random_state

    def check(self, design: DesignMatrix) -> None:
        """Raise SettingsError for designs that are not of effective features or whose kernels do not fit in memory, and
        for settings that are not known."""
        if self.by not in get_args(Parts):
            raise unknown_name("part of a network", self.by, list(get_args(Parts)))
        if self.n_components < 1:
            raise SettingsError(
                f"At least one feature of each module must be asked for, not {self.n_components}; ask for 1 or more."
            )
        super().check(design)

    def _part_of(self, tensor: str) -> str:
        return tensor if self.by == "tensor" else tensor.rpartition(".")[0] or tensor

    def _learn(self, kernels: dict[str, Matrix]) -> None:
        total = float(sum(np.trace(kernel) for kernel in kernels.values()))
        members: dict[str, dict[str, Matrix]] = {}
        for name, kernel in kernels.items():
            members.setdefault(self._part_of(name), {})[name] = kernel
        traces = {part: float(sum(np.trace(one) for one in own.values())) for part, own in members.items()}
        if not total > 0:
            raise SettingsError(
                "Eigen features need a design matrix that is not zero, but it is; look for dead outputs first."
            )
        self.part_share_ = {part: trace / total for part, trace in traces.items()}
        found = [self._of_part(part, own) for part, own in members.items() if traces[part] > 0]
        spectrum = np.concatenate([one.spectrum for one in found])
        order = np.argsort(-spectrum, kind="stable")
        self.spectrum_ = spectrum[order]
        self.part_ = np.concatenate([[one.name] * len(one.spectrum) for one in found])[order]
        starts = np.cumsum([0, *(one.groups[-1] + 1 for one in found[:-1])])
        groups = np.concatenate([one.groups + start for one, start in zip(found, starts, strict=True)])[order]
        self.groups_ = np.unique(groups, return_inverse=True)[1].astype(np.int32)
        self.stability_ = np.concatenate([one.stability for one in found])[order]
        self.profile_ = np.concatenate([one.profiles.profile for one in found])[order]
        self.energy_ = np.concatenate([one.profiles.energy for one in found])[order]
        self.mean_share_ = np.concatenate([one.profiles.mean_share for one in found])[order]
        self.parameter_share_ = np.concatenate([one.shares for one in found])[order]
        self.coefficients_ = np.concatenate([one.coefficients for one in found], axis=1)[:, order]
        self.kernel_share_ = float(spectrum.sum()) / total

    def _of_part(self, part: str, tensors: dict[str, Matrix]) -> _Part:
        """Eigen features of one module, of whose tensors these are the kernels."""
        kernel = np.sum(list(tensors.values()), axis=0)
        q, size = self.fitted_.rows_per_example, self.fitted_.itemsize
        # One more than is wanted tells whether the last group is whole.
        most = min(self.n_components + 1, len(kernel))
        values, left, overlap = leading_of_kernel(kernel, q, most, self.random_state, size)
        drop = 1e-6 if size == 8 else 1e-5
        k = min(self.n_components, int(np.count_nonzero(values > drop * values[0])))
        groups = degenerate_groups(values[: k + 1], self.group_gap)
        stability = group_stability(overlap, groups[:k])
        if len(groups) > k and groups[k] == groups[k - 1]:
            stability[groups[:k] == groups[k]] = np.nan
        coefficients = left[:, :k] / np.sqrt(values[:k])
        profiles = Profiles.of((kernel @ coefficients).reshape(-1, q, k))
        shares = tensor_shares(tensors, coefficients, self.fitted_.network.parameters.names)
        return _Part(part, values[:k], groups[:k], stability, profiles, shares, coefficients * profiles.signs)

    def _activations(self, design: EffectiveFeatures) -> Matrix:
        """From one pass."""
        made: Matrix = np.empty((design.shape[0], len(self.spectrum_)))
        for part, kernel in design.kernels(self.fitted_, by=self.by).items():
            own = self.part_ == part
            made[:, own] = np.asarray(kernel, dtype=np.float64) @ self.coefficients_[:, own]
        return made

    def directions(self) -> Matrix:
        """Unit directions v_k of thetahat (k, columns), zero outside their module. Cost: a stream of the fitted examples."""
        whole = super().directions().reshape(len(self.spectrum_), -1, self.fitted_.n_parameters)
        for name, at in self.fitted_.parameters.slices:
            whole[self.part_ != self._part_of(name), :, at] = 0
        return whole.reshape(len(whole), -1)

    def feature_set(self, design: DesignMatrix, name: str, keep: int = 16, batch_size: int = 256) -> FeatureSet:
        """The set, of features named after their module."""
        kind, outputs = design.card
        shares = sorted(self.part_share_.items(), key=lambda one: -one[1])
        held = ", ".join(f"'{part}' {share:.1%}" for part, share in shares[:8]) + (", ..." if len(shares) > 8 else "")
        card = self._card(
            design,
            f"Eigen features by {self.by} of the {kind}, {outputs.split(':')[0]}",
            f"For each of {len(shares)} {'modules' if self.by == 'layer' else 'tensors'} the directions among its own "
            f"parameters in which the {kind} of the fitted examples vary most, at most {self.n_components}, all in the order "
            f"of their eigenvalues. Shares of the kernel: {held}.{of_tensors(self.fitted_)}",
            self._equals(),
            score_words(design.rows_per_example),
            kernel_share=self.kernel_share_,
        )
        seen: dict[str, int] = {}
        labels = []
        for part in self.part_.tolist():
            labels.append(f"{part} feature {seen.get(part, 0)}")
            seen[part] = seen.get(part, 0) + 1
        columns: dict[str, Column] = {
            "labels": np.array(labels),
            "layer": self.part_,
            "group": self.groups_,
            "stability": self.stability_,
        }
        return self._set(design, name, card, keep, batch_size, columns)

    def _equals(self) -> str:
        """What the features of single modules are called elsewhere."""
        known = []
        for part in self.part_share_:
            names = tuple(name for name in self.fitted_.parameters.names if self._part_of(name) == part)
            words = eigen_equals(self.fitted_, centred=False, tensors=names)
            known += [] if words.startswith("kernel PCA") else [f"of '{part}' {words}"]
        return "; ".join(["kernel PCA with each module's share of the empirical NTK", *known])
