"""Entry of the app: page frame, navigation, run chooser; each page draws itself below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import Page

from feature_lens.errors import FeatureLensError
from feature_lens_app import address, run_access
from feature_lens_app.style import ICON, apply_style
from feature_lens_app.words import plain, safe, shorten

# Not "pages": Streamlit would run a page of a folder of that name without this file on the first deep link.
PAGES = Path(__file__).with_name("screens")
NAMES = {
    "overview": "Overview",
    "browse": "Browse",
    "feature": "Feature",
    "example": "Example",
    "dual": "Dual",
    "dynamics": "Dynamics",
    "compare": "Compare",
    "study": "Study",
    "export": "Export",
    "learn": "Learn",
}


def _sidebar(runs: dict[str, str], pages: Mapping[str, Page]) -> None:
    with st.sidebar:
        st.html('<div class="fl-name">Feature Lens</div>')
        if len(runs) > 1:
            address.select(
                "Run", "run", list(runs), next(iter(runs)), drops=[name for name in st.query_params if name != "run"]
            )
        else:
            st.html(f'<p class="fl-quiet fl-run">{safe(shorten(next(iter(runs)), 30))}</p>')
        key = run_access.run_key()
        with st.container(gap="xxsmall"):
            for name, page in pages.items():
                st.page_link(page, label=NAMES[name], query_params=address.here(run=key))


def _empty(paths: tuple[str, ...]) -> None:
    st.title("No run to show yet")
    if paths:
        st.markdown(
            "There is no run file in " + ", ".join(f"*{plain(shorten(path, 200))}*" for path in paths) + ". "
            "Make one, then open it:"
        )
    else:
        st.markdown("A run file holds a trained network's features, ranked over its examples. Make one, then open it:")
    st.code(
        "feature-lens demo                   # trains a small network on digits and opens it here\n"
        "feature-lens extract --help         # for a network and data of your own\n"
        "feature-lens app digits.h5          # opens a run file, several, or a folder of them",
        language="bash",
    )


def _frame() -> None:
    st.set_page_config(page_title="Feature Lens", page_icon=ICON, layout="wide", initial_sidebar_state="expanded")
    home = st.Page(PAGES / "overview.py", title="Feature Lens", default=True, url_path="home")
    named = {
        name: st.Page(PAGES / f"{name}.py", title=f"{title} · Feature Lens", url_path=name)
        for name, title in NAMES.items()
    }
    page = st.navigation([home, *named.values()], position="hidden")
    address.begin(page.url_path)
    apply_style()
    try:
        runs = run_access.known_runs()
        if not runs:
            _empty(run_access.started_on())
            return
        if page == home:
            # The start page is the overview under another address; its entry is then marked as the current one.
            named["overview"] = home
        _sidebar(runs, named)
        notices = st.container()
        try:
            page.run()
        except address.PageEnd:
            pass
        finally:
            with notices:
                address.show_notices()
    except FeatureLensError as error:
        st.error(plain(str(error)))


_frame()
