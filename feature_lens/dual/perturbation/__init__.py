"""The trained function as an expansion about the initial parameters, to next-to-leading order in 1 / width.

Two ways, neither of which knows the other: `hierarchy` follows training in time, `closed_form` sums over the modes of
the initial kernel. Names: J, K, L are the first three derivatives of f at theta0; phi = J, psi = K are the features
and meta features of PDLT (Roberts, Yaida and Hanin, arXiv:2106.10165); dNTK = dH(x0; x1, x2) = K(x0)[phi(x1), phi(x2)];
ddNTK I = ddI(x0; x1, x2, x3) = L(x0)[phi(x1), phi(x2), phi(x3)]; ddNTK II = ddII(x1, x2; x3, x4) =
(psi(x1) phi(x3)) . (psi(x2) phi(x4)). Every argument is a row (example, output).
"""

from feature_lens.dual.perturbation.closed_form import ClosedForm, closed_form
from feature_lens.dual.perturbation.derivatives import Derivatives
from feature_lens.dual.perturbation.hierarchy import Displacement, displacement
from feature_lens.dual.perturbation.linearised import Linearised
from feature_lens.dual.perturbation.schedule import Schedule, outputs_after, train

__all__ = [
    "ClosedForm",
    "Derivatives",
    "Displacement",
    "Linearised",
    "Schedule",
    "closed_form",
    "displacement",
    "outputs_after",
    "train",
]
