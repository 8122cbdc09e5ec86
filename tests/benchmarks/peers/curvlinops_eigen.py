"""Peer: leading eigenpairs by scipy's Lanczos over the Jacobian operators of curvlinops.

J J^T or J^T J, whichever side is smaller, in the precision of the net; `tolerance` is that of scipy's eigsh.
"""

from __future__ import annotations

import numpy as np
import torch
from curvlinops import JacobianLinearOperator
from nets import read_net
from protocol import Job, Request, serve
from scipy.sparse.linalg import LinearOperator, eigsh


def leading(request: Request) -> Job:
    module, examples = read_net(request.path.parent, request.net, request.n)
    dtype = getattr(torch, request.options["products"])
    module, inputs = module.to(dtype), torch.as_tensor(examples).to(dtype)
    batch = request.options["batch"]
    k, tolerance = request.options["k"], request.options["tolerance"]
    data = [(part, torch.zeros(len(part), 1)) for part in inputs.split(batch)]

    def run() -> np.ndarray:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        jacobian = JacobianLinearOperator(module, parameters, data, check_deterministic=False)
        forward, backward = jacobian.to_scipy(), jacobian.adjoint().to_scipy()
        rows, columns = forward.shape
        first, second = (backward, forward) if rows <= columns else (forward, backward)
        side = min(rows, columns)
        start = np.random.default_rng(0).standard_normal(side)
        product = LinearOperator((side, side), matvec=lambda v: second @ (first @ v), dtype=np.float64)
        values, _ = eigsh(product, k=k, tol=tolerance, v0=start)
        return np.sort(values)[::-1]

    return Job(run)


if __name__ == "__main__":
    serve({"leading": leading})
