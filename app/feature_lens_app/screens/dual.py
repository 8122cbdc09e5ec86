"""Dual: how well linear models in the network's features do, beside the controls that they are to be judged by."""

from __future__ import annotations

import streamlit as st

from feature_lens.analysis.dual_tables import dual_headline
from feature_lens.dual_record import KERNELS
from feature_lens_app import address, run_access, views
from feature_lens_app.words import figure, safe

opened = run_access.current()
run = opened.run

views.title("Dual model", "The trained network as a linear regression on its own features.")
if run.dual is None:
    views.quiet("This run holds no dual model. Extract it again with --dual; the demo has one.")
    st.stop()

if run.dual.fidelities:
    st.html(f'<p class="fl-lead">{safe(dual_headline(run))}</p>')
    targets = [name for name in ("labels", "distillation") if any(one.target == name for one in run.dual.fidelities)]
    words = {"labels": "labels", "distillation": "the network's outputs"}
    target = address.segments("Fitted to", "target", targets, targets[0], shown=lambda name: words[name])
    views.head(
        "Regressions on features",
        "Ridge regressions fitted on the training examples, their ridge chosen by leaving examples out. R2 is to the "
        "network's outputs on held-out examples, agreement is with its predicted class.",
    )
    names = ["kernel", "outputs", "form", "R2", "agreement", "accuracy", "left-out R2", "ridge"]
    rows = [
        [
            safe(KERNELS.get(one.kernel, one.kernel)),
            "summed" if one.reduction == "trace" else "each",
            "expanded about its parameters" if one.form == "expanded" else "from zero",
            *(
                "–" if value is None else figure(value)
                for value in (one.r2, one.agreement, one.accuracy, one.left_out_r2, one.ridge)
            ),
        ]
        for one in run.dual.fidelities
        if one.target == target
    ]
    st.html(views.table(names, rows, numbers=[3, 4, 5, 6, 7]))
    views.notes(run.dual.notes if target == "distillation" else ())
views.notes(run.dual.remarks)
