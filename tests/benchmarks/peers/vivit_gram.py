"""Peer: full kernels of Sequential nets by ViViT on BackPACK.

The GGN of the squared loss summed over outputs has the square root sqrt(2) J, so its Gram matrix is twice the kernel.
"""

from __future__ import annotations

import torch
from backpack import backpack, extend
from nets import read_net
from protocol import Job, Request, serve
from vivit.extensions.secondorder.vivit import ViViTGGNExact


def full(request: Request) -> Job:
    plain, examples = read_net(request.path.parent, request.net, request.n)
    inputs = torch.as_tensor(examples)
    net, loss = extend(plain), extend(torch.nn.MSELoss(reduction="sum"))
    with torch.no_grad():
        targets = torch.zeros_like(plain(inputs))

    def run() -> torch.Tensor:
        kernels: list[torch.Tensor] = []

        def add(module: torch.nn.Module) -> None:
            for parameter in module.parameters(recurse=False):
                with torch.no_grad():
                    gram = parameter.vivit_ggn_exact["gram_mat"]()
                    kernels.append(kernels.pop().add_(gram) if kernels else gram)
                del parameter.vivit_ggn_exact

        with backpack(ViViTGGNExact(), extension_hook=add):
            loss(net(inputs), targets).backward()
        return kernels[0].div_(2)

    return Job(run, lambda kernel: kernel.numpy().transpose(1, 0, 3, 2))


if __name__ == "__main__":
    serve({"full": full})
