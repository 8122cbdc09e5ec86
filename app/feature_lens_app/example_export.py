"""Export of top-activating examples: of which features, in which views, in which format, with a preview of its first rows."""

from __future__ import annotations

import streamlit as st

from feature_lens.analysis.export import EXPORTERS, ExportRequest, export_bytes, export_name, rows
from feature_lens.analysis.run import Run
from feature_lens.errors import SettingsError
from feature_lens_app import address, choosers, views
from feature_lens_app.words import count_of, plain

PREVIEWED = 3
PREVIEW_ROWS = 12


def show(run: Run, format_words: dict[str, str]) -> None:
    """The choosers of an export, its button and the first rows; `format_words` are the names of the formats."""
    first, second, third = st.columns([2.4, 5, 1.8])
    with first:
        feature_set = choosers.choose_set(run, drops=("feature", "view", "views", "features", "count"))
    kept = int(feature_set.column("highest/position").shape[2])
    most = len(run.examples) if feature_set.gives_values else min(kept, len(run.examples))
    with second:
        chosen_views = address.several(
            "Views",
            "views",
            list(feature_set.views),
            [choosers.default_of(feature_set)],
            shown=lambda view: views.view_title(run, view),
        )
    with third:
        count = address.whole_number("Examples at each end", "count", 1, most, min(16, most))

    first, second, third, fourth = st.columns([2.4, 1.8, 2.2, 3.2])
    with first:
        which = address.segments(
            "Features",
            "which",
            ["all", "one", "list"],
            "all" if address.get("feature") is None else "one",
            shown=lambda w: {"all": f"all {len(feature_set):,}", "one": "one", "list": "a list"}.get(w, w),
        )
    features: tuple[int, ...] | None = None
    with second:
        if which == "one":
            order = int(feature_set.column("order")[0])
            features = (address.whole_number("Feature number", "feature", 0, len(feature_set) - 1, order),)
        elif which == "list":
            text = address.field("Feature numbers", "features", placeholder="such as 0, 3, 10-14")
            features = choosers.parse_features(text, len(feature_set))
    with third:
        ends = address.segments("Ends", "ends", ["both", "highest", "lowest"], "both")
    with fourth:
        format = address.segments("Format", "format", list(EXPORTERS), "csv", shown=lambda f: format_words.get(f, f))

    if features is not None and not features:
        st.info("Name the features to export by their numbers, such as 0, 3, 10-14.")
        return
    request = ExportRequest(
        feature_set.name,
        features,
        tuple(chosen_views),
        ("highest", "lowest") if ends == "both" else (ends,),
        count,
    )
    number = len(feature_set) if features is None else len(features)
    total = number * len(request.views or ()) * len(request.ends) * min(count, len(run.examples))
    some = features or tuple(int(f) for f in feature_set.column("order")[:PREVIEWED])
    try:
        preview = rows(run, ExportRequest(request.set_name, some[:PREVIEWED], request.views, request.ends, count))
    except SettingsError as error:
        st.warning(plain(str(error)))
    else:
        name = export_name(run, request, format)
        st.download_button(
            f"Download {name}".replace("_", r"\_"),
            data=lambda: export_bytes(run, request, format),
            file_name=name,
            mime=EXPORTERS[format].media_type,
            type="primary",
            on_click="ignore",
            key="fl-download",
        )
        views.quiet(
            f"{count_of(total, 'row')} at most: {count_of(number, 'feature')} × {count_of(len(request.views or ()), 'view')} × "
            f"{count_of(len(request.ends), 'end')} × {count_of(count, 'example')}. Rank 0 is the most extreme. "
            f"The first rows:"
        )
        st.dataframe(preview.head(PREVIEW_ROWS), hide_index=True, height="content", alt="First rows of the export")
