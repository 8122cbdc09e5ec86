"""The few style rules that Streamlit's theme has no setting for: one type scale, neutral greys, one accent."""

from __future__ import annotations

from typing import Final

import streamlit as st

ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#2F6DB5"/>'
    '<circle cx="14" cy="14" r="6.5" fill="none" stroke="#fff" stroke-width="3"/>'
    '<path d="M19 19l6 6" stroke="#fff" stroke-width="3.4" stroke-linecap="round"/></svg>'
)

# Greys and sizes are named once here; pages use the classes and set no style of their own.
RULES: Final = """
<style>
:root { --fl-ink: #222428; --fl-quiet: #6B6F76; --fl-line: #E2E3E6; --fl-accent: #2F6DB5; --fl-ground: #F5F5F6; }
[data-testid="stMainBlockContainer"] { max-width: 1240px; padding-left: 36px; padding-right: 36px; margin: 0; }
[data-testid="stSidebar"] { min-width: 208px; max-width: 208px; }
[data-testid="stHeader"] { background: transparent; height: 0; min-height: 0; }
[data-testid="stSidebarHeader"] { height: 24px; padding: 0 8px; min-height: 24px; margin-bottom: 0; }
.fl-name { font-size: 18px; font-weight: 600; padding: 0 8px; }
.fl-run { padding: 0 8px; margin-top: -12px; }
.fl-title { font-size: 24px; font-weight: 600; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
.fl-lead { font-size: 15px; line-height: 1.5; max-width: 860px; margin: 0; color: var(--fl-ink); }
.fl-quiet, .fl-note { font-size: 13px; line-height: 1.45; color: var(--fl-quiet); margin: 0; max-width: 1060px; overflow-wrap: anywhere; }
.fl-wide { max-width: none; }
.fl-head { font-size: 18px; font-weight: 600; margin: 18px 0 0; }
.fl-sub { font-size: 15px; font-weight: 600; margin: 0 0 4px; }
.fl-notes { margin: 0; padding: 8px 12px !important; list-style: none; background: var(--fl-ground); border-left: 3px solid #E69F00;
  border-radius: 4px; font-size: 13px; line-height: 1.5; }
.fl-figures { padding: 0 !important; display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 0; }
.fl-figures div { min-width: 0; }
.fl-figures dt { font-size: 12px; color: var(--fl-quiet); font-weight: 400; margin: 0; }
.fl-figures dd { font-size: 15px; margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.fl-figures.fl-small { gap: 2px 14px; }
.fl-figures.fl-small dt { font-size: 11px; } .fl-figures.fl-small dd { font-size: 13px; }
.fl-sheets { display: flex; flex-wrap: wrap; gap: 4px 28px; align-items: flex-start; }
.fl-sheet { margin: 0 0 0 -8px; min-width: 0; }
.fl-sheet img { display: block; max-width: 100%; height: auto; }
.fl-sheet figcaption { font-size: 12px; color: var(--fl-quiet); margin: 0 0 -4px 8px; }
.fl-pictures { display: flex; flex-wrap: wrap; gap: 16px 28px; align-items: flex-start; }
.fl-code { font-family: monospace; font-size: 12px; line-height: 1.4; color: var(--fl-quiet); background: none; padding: 0; margin: 10px 0 0;
  max-height: 150px; overflow: auto; white-space: pre-wrap; }
.fl-pictures .fl-sheet { margin-left: 0; }
.fl-pictures .fl-sheet figcaption { margin: 0 0 2px; }
.fl-pictures img { display: block; image-rendering: pixelated; border: 1px solid var(--fl-line); }
.fl-scale { display: inline-block; width: 180px; height: 10px; border: 1px solid var(--fl-line); vertical-align: -1px; margin: 0 6px;
  background: linear-gradient(to right, #2166AC, #F7F7F7, #B2182B); }
.fl-table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
.fl-table th { text-align: left; font-weight: 400; color: var(--fl-quiet); border: none; border-bottom: 1px solid var(--fl-line);
  padding: 4px 14px 4px 0; vertical-align: bottom; }
.fl-table td { border: none; border-bottom: 1px solid #F0F0F1; padding: 4px 14px 4px 0; overflow-wrap: anywhere; vertical-align: top; }
.fl-kind { display: inline-block; min-width: 190px; }
.fl-under { display: block; font-size: 11px; color: var(--fl-quiet); white-space: nowrap; }
.fl-table .fl-number { text-align: right; white-space: nowrap; }
.fl-table a, .fl-quiet a, .fl-lead a { color: var(--fl-accent); text-decoration: none; }
.fl-table a:hover, .fl-quiet a:hover, .fl-lead a:hover { text-decoration: underline; }
[class*="st-key-fl-turn"] a { background: transparent !important; border: 1px solid var(--fl-line); justify-content: center !important; padding: 4px 10px !important; margin: 0 !important; transform: translateY(-5px); }
[class*="st-key-fl-turn"] a p { font-weight: 400 !important; white-space: nowrap; }
[class*="st-key-fl-link"] a { padding-left: 0 !important; }
[class*="st-key-fl-link"] a span, [class*="st-key-fl-link"] a p { color: var(--fl-accent) !important; font-weight: 600; white-space: normal !important; }
</style>
"""


def apply_style() -> None:
    """Send the rules with the page."""
    st.html(RULES)
