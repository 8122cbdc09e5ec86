"""A sparse autoencoder: activations as sparse, non-negative sums of more directions than there are units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from feature_lens.features.design import Matrix

_BATCH = 256
_RATE = 3e-3


@dataclass(frozen=True)
class SparseAutoencoder:
    """codes = ReLU((x - shift) / scale E^T + b), of which the `active` largest of a row are kept where that is given;
    x = scale codes D + shift. Encoder E (k, m), bias b (k,), decoder D (k, m) of unit rows."""

    encoder: Matrix
    bias: Matrix
    decoder: Matrix
    shift: Matrix
    scale: float
    active: int | None = None

    def codes(self, rows: Matrix) -> Matrix:
        """(r, m) -> (r, k), in the units of the rows."""
        found = np.maximum((rows - self.shift) / self.scale @ self.encoder.T + self.bias, 0)
        if self.active is not None and self.active < found.shape[1]:
            kept = np.argpartition(-found, self.active - 1, axis=1)[:, : self.active]
            sparse = np.zeros_like(found)
            np.put_along_axis(sparse, kept, np.take_along_axis(found, kept, axis=1), axis=1)
            found = sparse
        made: Matrix = self.scale * found
        return made

    def rebuilt(self, rows: Matrix) -> Matrix:
        """What the codes give back of rows (r, m)."""
        made: Matrix = self.codes(rows) @ self.decoder + self.shift
        return made


def train(rows: Matrix, k: int, penalty: float, active: int | None, steps: int, seed: int) -> SparseAutoencoder:
    """Minimise the mean of |x - x'|^2 + penalty |codes|_1 over rows (r, m) by Adam in batches of 256, the decoder's rows
    kept at length 1; with `active` the sparsity is that of the codes kept, and there is no penalty.

    After Cunningham et al., arXiv:2309.08600, and for `active` Gao et al., arXiv:2406.04093, without their means
    against dead features. The same seed gives the same numbers. Cost: 6 * 256 k m multiply-adds a step.
    """
    shift = rows.mean(axis=0)
    scale = float(np.sqrt(np.square(rows - shift).mean()))
    x = torch.as_tensor((rows - shift) / scale, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(k, x.shape[1], generator=generator), dim=1)
    encoder, bias = decoder.clone(), torch.zeros(k)
    weights = [part.requires_grad_() for part in (encoder, bias, decoder)]
    optimiser = torch.optim.Adam(weights, lr=_RATE)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, 2 * (1 - step / steps))
        batch = x[torch.randint(len(x), (_BATCH,), generator=generator)]
        codes = torch.relu(batch @ encoder.T + bias)
        if active is not None and active < k:
            top = codes.topk(active, dim=1)
            codes = torch.zeros_like(codes).scatter(1, top.indices, top.values)
        loss = (codes @ decoder - batch).square().sum(dim=1).mean()
        if active is None:
            loss = loss + penalty * codes.sum(dim=1).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
    found = [part.detach().to(torch.float64).numpy() for part in weights]
    return SparseAutoencoder(found[0], found[1], found[2], shift, scale, active)
