"""The reading wing: what a run holds, described, measured, compared, drawn and exported; numpy, no torch.

run        a run opened for reading, with tables and notebook cards
describe   tables, figures and words on runs, sets and features
measures   what features are measured by, the same for every set, with intervals and nulls
compare    two feature sets on the same examples
render     examples, sheets of examples and signed arrays as PNG
export     top-activating examples as CSV, Parquet, JSON Lines or a ZIP of pictures
dynamics   training step by step, and whence a feature comes, in tables and words
tables     all other figures of a run, such as those of the dual model, as tables in the same formats
report     the report card: one HTML file for the screen and for paper
"""

# These enter their tables when they are imported.
from feature_lens.analysis import dual_exports as dual_exports
from feature_lens.analysis import dynamics as dynamics
from feature_lens.analysis import measure_exports as measure_exports
from feature_lens.analysis.card import run_card
from feature_lens.analysis.compare import (
    Matching,
    best_matches,
    jaccard_matrix,
    similar_features,
    spearman_matrix,
    verdict,
)
from feature_lens.analysis.describe import (
    QuantileRow,
    at_rank,
    class_figures,
    class_profile,
    direction_pictures,
    feature_histogram,
    feature_notes,
    feature_table,
    headline,
    histogram,
    parameter_shares,
    quantile_rows,
    range_row,
    rank_window,
    set_table,
)
from feature_lens.analysis.export import EXPORTERS, ExportRequest, export_bytes, export_name, rows
from feature_lens.analysis.measures.classes import Selectivity, selectivity
from feature_lens.analysis.measures.purity import top_purity
from feature_lens.analysis.render import (
    ACCENT,
    CLASS_COLOURS,
    RENDERERS,
    SheetGeometry,
    alt_text,
    class_colour,
    contact_sheet,
    diverging_png,
    format_value,
    labelled_sheet,
    sheet_geometry,
    thumbnail_png,
)
from feature_lens.analysis.report.page import report_html, report_name
from feature_lens.analysis.run import FeatureView, Run, default_view, find_runs, open_run
from feature_lens.analysis.study.table import study_sentences as study_sentences  # and this
from feature_lens.analysis.tables import TABLES, TableRequest, held_tables, table_bytes, table_name, table_rows

__all__ = [
    "ACCENT",
    "CLASS_COLOURS",
    "EXPORTERS",
    "RENDERERS",
    "TABLES",
    "ExportRequest",
    "FeatureView",
    "Matching",
    "QuantileRow",
    "Run",
    "Selectivity",
    "SheetGeometry",
    "TableRequest",
    "alt_text",
    "at_rank",
    "best_matches",
    "class_colour",
    "class_figures",
    "class_profile",
    "contact_sheet",
    "default_view",
    "direction_pictures",
    "diverging_png",
    "export_bytes",
    "export_name",
    "feature_histogram",
    "feature_notes",
    "feature_table",
    "find_runs",
    "format_value",
    "headline",
    "held_tables",
    "histogram",
    "jaccard_matrix",
    "labelled_sheet",
    "open_run",
    "parameter_shares",
    "quantile_rows",
    "range_row",
    "rank_window",
    "report_html",
    "report_name",
    "rows",
    "run_card",
    "selectivity",
    "set_table",
    "sheet_geometry",
    "similar_features",
    "spearman_matrix",
    "table_bytes",
    "table_name",
    "table_rows",
    "thumbnail_png",
    "top_purity",
    "verdict",
]
