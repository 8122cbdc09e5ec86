"""Learn: what the pages show, in the order in which one meets it; the figures are those of the run that is open."""

from __future__ import annotations

import streamlit as st

from feature_lens.analysis.dual_tables import dual_headline
from feature_lens.analysis.dynamics import dynamics_headline, held_dynamics
from feature_lens.analysis.expansion_tables import LIMITS, best_order, training_of, verdict_on
from feature_lens_app import run_access, views
from feature_lens_app.words import safe

run = run_access.current().run

views.title("Learn", "What is shown on the other pages, and what it does and does not say.")

views.head("Effective features")
st.markdown(
    "A trained network is, to the order that matters, a regression whose features adapt to the data: the derivatives of "
    "its outputs with respect to its parameters, taken at the *trained* parameters (*The Principles of Deep Learning "
    "Theory*, arXiv:2106.10165). There is one for every output and weight:"
)
st.latex(r"\phi_{i,\mu}(x) = \sqrt{\lambda_\mu}\;\frac{\partial f_i(x)}{\partial \theta_\mu}\Big|_{\theta^\star}")
st.markdown(
    "Browse and Feature show single ones (weight features), sums over the weights into a unit (unit features), and "
    "directions in the space of all of them (eigen features, the principal components of the kernel "
    "$H(x, x') = \\sum_\\mu \\phi_\\mu(x)\\,\\phi_\\mu(x')$). Every feature is ranked at both ends over the same examples as "
    "ordinary neurons; the Overview page says first which kind singles out the classes best, whichever that is."
)

if studies := run_access.answers_of_studies():
    views.head("What the studies found")
    for key, (question, sentence) in studies.items():
        st.html(f'<p class="fl-lead">{views.anchor("study", question, {"run": key})} {safe(sentence)}</p>')
    views.quiet(
        "Of every measure the best set of each kind is compared with the best set of effective features, over all seeds; one "
        "beats another where their intervals lie apart. The best is chosen on the examples that it is reported on, which favours "
        "kinds of many sets. The Study page has every figure."
    )

views.head("The dual model")
st.markdown(
    "With $d = \\theta^\\star - \\theta_0$ what training moved, each weight contributes $d_\\mu$ times the mean of its derivative "
    "along the straight line from $\\theta_0$ to $\\theta^\\star$, and contributions add up to what training added, with nothing "
    "left over:"
)
st.latex(
    r"f(x;\theta^\star) - f(x;\theta_0) = \sum_\mu d_\mu \int_0^1 \frac{\partial f(x;\theta_0 + s d)}{\partial\theta_\mu}\, ds"
)
st.markdown(
    "The Dual page also fits ridge regressions on these features, to labels and, apart from that, to the network's own "
    "outputs. The last layer alone must always do well at the second, since the outputs are linear in its features; it "
    "stands in the table for that reason."
)
if run.dual is not None and run.dual.fidelities:
    views.quiet(f"This run: {dual_headline(run)}")

views.head("Training dynamics")
st.markdown(
    "From snapshots of the parameters the Dynamics page takes the kernel at every step, and sets when its features change "
    "beside when the network comes to do well. The leading eigenspace of a step is compared with the final one, and with "
    "known concepts where examples carry any: the share of the one that lies in the span of the other, which chance makes "
    "the ratio of dimension and examples. A feature is followed backwards on its own page: successive steps are matched "
    "feature by feature so that the sum of correlations is largest. Where eigenvalues lie close a single feature is "
    "arbitrary, so the span of its group, and what all leading features hold of it, stand beside it. A half-way point "
    "is known only between two snapshots, and that one thing comes first does not say that it causes the other."
)
if held_dynamics(run):
    views.quiet(f"This run: {dynamics_headline(run)}")

views.head("The trained function in closed form")
st.markdown(
    "At the *initial* parameters $\\theta_0$ the same derivatives, and the next two, decide what full-batch gradient descent "
    "on the squared loss will do. With $H$ the initial kernel on the training set, $h_a$ its eigenvalues, "
    "$\\epsilon = f(A;\\theta_0) - y$, training to the end gives"
)
st.latex(
    r"""\begin{aligned} f_d ={}& f_d(0) - H_{dA} H^{-1}\epsilon && \text{leading order}\\
    &+ P\big[dH\, Z\, \epsilon\epsilon\big] + P\big[(ddI + ddII)\, Z\, \epsilon\epsilon\epsilon\big] && \text{next-to-leading order in } 1/\text{width} \\
    &+ O\big(dH^2\big) && \text{order } 1/\text{width}^2 \end{aligned}"""
)
st.markdown(
    "*Leading order* is kernel regression with features that stay as they were: an infinitely wide network. The "
    "*next-to-leading* terms hold how features turn while they are learnt: $dH$ (dNTK) is the first change of the kernel "
    "along training, $ddI$ and $ddII$ (ddNTK) the second; $Z$ are numbers made of the eigenvalues alone, in which the "
    "algorithm and its step size enter; $P$ keeps training points where they are. The formula is derived independently "
    "and intended to correspond to eq. (∞.154) of the book."
)
st.markdown(
    "**How to read the table.** Each row adds one more order. R2 is to the network's outputs on held-out examples. Where "
    "later terms are small beside the leading one, the network is wide enough for what it learnt, and the expansion "
    "explains it; where they grow beyond it, the sum means nothing any more, and the features were learnt in a regime "
    "that no expansion about $\\theta_0$ reaches. On tanh networks of one to three hidden layers `feature-lens theory` "
    "shows the error of leading order fall about as 1 / width, that of next-to-leading order about as 1 / width squared."
)
if run.dual is not None and run.dual.expansion is not None:
    expansion = run.dual.expansion
    views.notes([verdict_on(expansion), f"{training_of(expansion)} {best_order(expansion)}"])
views.quiet(LIMITS)
