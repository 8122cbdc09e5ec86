"""The report card as one HTML file: no scripts, nothing from outside, the same bytes for the same run."""

from __future__ import annotations

from typing import Final

from feature_lens.analysis.export import safe_name
from feature_lens.analysis.report import sections
from feature_lens.analysis.report.pieces import box, joined, words
from feature_lens.run_contents import RunContents

# One type scale in points, greys and the accent of the app; sheets of A4, on the screen one below the other.
STYLE: Final = """
@page { size: A4; margin: 15mm 14mm 17mm; @bottom-right { content: counter(page) " / " counter(pages); font: 7.5pt sans-serif; color: #6B6F76; } }
:root { --ink: #222428; --quiet: #6B6F76; --line: #E2E3E6; --accent: #2F6DB5; --ground: #F5F6F8; }
* { box-sizing: border-box; }
html { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { margin: 0 auto; padding: 12mm 0; width: 178mm; color: var(--ink); background: #fff; font: 8.5pt/1.45 "Source Sans 3", "Source Sans Pro", "Segoe UI", "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word; }
p, dl, dd, h1, h2, h3, ul { margin: 0; padding: 0; }
header { display: flex; justify-content: space-between; align-items: baseline; border-bottom: 1.5pt solid var(--accent); padding-bottom: 2mm; }
h1 { font-size: 20pt; line-height: 1.15; font-weight: 650; }
h2 { font-size: 11.5pt; font-weight: 650; margin-bottom: .6mm; break-after: avoid; }
h3 { font-size: 8.5pt; font-weight: 650; margin-bottom: 1mm; break-after: avoid; }
.kicker, .quiet, .note { color: var(--quiet); }
.kicker { white-space: nowrap; margin-left: 6mm; }
.quiet { font-size: 8pt; }
section { margin-top: 6.5mm; }
section > .quiet { margin-bottom: 2mm; break-after: avoid; }
.finding { margin: 4mm 0 5mm; padding: 3.2mm 4mm; background: var(--ground); border-left: 2.4pt solid var(--accent); font-size: 10.5pt; line-height: 1.42; }
.finding p + p { margin-top: 2mm; }
.columns { display: grid; gap: 5mm; align-items: start; }
.two { grid-template-columns: 1fr 1fr; } .three { grid-template-columns: repeat(3, 1fr); }
.card { border: .5pt solid var(--line); border-radius: 1.2mm; padding: 2.4mm 3mm; height: 100%; }
.figures { display: flex; flex-wrap: wrap; gap: 1.2mm 6mm; margin-top: 1.2mm; }
dt { font-size: 7.5pt; color: var(--quiet); } dd { font-size: 10.5pt; font-variant-numeric: tabular-nums; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 400; font-size: 7.5pt; color: var(--quiet); text-align: left; vertical-align: bottom; border-bottom: .6pt solid #C9CCD1; padding: .6mm 3mm .6mm 0; }
td { vertical-align: top; border-bottom: .4pt solid #ECEDEF; padding: .8mm 3mm .8mm 0; }
tr { break-inside: avoid; } thead { display: table-header-group; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
.name { font-weight: 600; } td .name { white-space: nowrap; }
.code { font: 7pt/1.4 ui-monospace, "DejaVu Sans Mono", monospace; color: var(--quiet); word-break: break-all; }
.note, .said { margin-top: 1.4mm; } .note { font-size: 8pt; }
.over { text-align: center; border-bottom: .6pt solid #C9CCD1; } .none { border-bottom: none; }
.regressions td:nth-child(6), .regressions th:nth-child(6), .regressions .over:last-child { padding-left: 6mm; }
.legend { display: flex; flex-wrap: wrap; gap: .5mm 5mm; margin-bottom: 1mm; font-size: 8pt; } .legend svg { display: inline-block; width: 7mm; height: 2mm; margin-right: 1.2mm; vertical-align: .3mm; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
.sheet { display: block; width: calc(100% + 3.2mm); margin: 0 -1.6mm; }
.wide { display: block; width: calc(100% + 2mm); margin: 2.4mm -1mm 0; }
.part, .card, .feature, svg, section { break-inside: avoid; }
.feature { margin-top: 1.6mm; padding-top: 1.2mm; border-top: .4pt solid var(--line); }
.remarks { padding-left: 4mm; } .remarks li + li { margin-top: .8mm; }
.origin td:first-child { white-space: nowrap; color: var(--quiet); } .origin thead { display: none; }
@media screen { html { background: #EBECEE; } body { width: 210mm; padding: 15mm 16mm; margin: 8mm auto; box-shadow: 0 1px 6px #0002; } }
@media print { body { padding: 0 2mm; width: auto; } }
"""


def report_html(run: RunContents) -> bytes:
    """The report card of a run, as a file in UTF-8. Cost: the headline, and pictures of a few features."""
    head = box("", words(run.name, tag="h1", longest=80), words("Feature Lens report card", "kicker"), tag="header")
    body = joined(
        head,
        sections.finding(run),
        sections.network_and_data(run),
        sections.feature_sets(run),
        sections.regressions(run),
        sections.expansion(run),
        sections.contributions(run),
        sections.tickets(run),
        sections.interactions(run),
        sections.top_examples(run),
        sections.remarks(run),
        sections.provenance(run),
    )
    title = words(f"{run.name}: report card", tag="title", longest=120)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f'<meta name="viewport" content="width=device-width">{title.text}<style>{STYLE}</style></head>\n'
        f"<body>{body.text}</body></html>\n"
    ).encode()


def report_name(run: RunContents) -> str:
    """File name of a run's report card."""
    return f"{safe_name(run.name)}-report.html"
