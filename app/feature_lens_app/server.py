"""The app's server: Streamlit's, behind a guard that knows the app's own names. Started by launch.command.

python -P -m feature_lens_app.server --port 8501 [--base-path PATH] [--host-name NAME ...] -- RUN ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from feature_lens.processes import stopped_by_signals
from feature_lens_app.launch import MAIN, packaged_settings
from feature_lens_app.origins import OwnNames, OwnPagesOnly


def serve(port: int, base_path: str, host_names: Sequence[str], paths: Sequence[str]) -> None:
    """Serve the app on `paths` until a signal ends it."""
    import streamlit as st
    from starlette.middleware import Middleware

    names = OwnNames.of(port, host_names)
    # Streamlit's own guard of its websocket says the same again, as far as it can: it knows of no ports.
    settings: dict[str, object] = {
        **packaged_settings(),
        "server.port": port,
        "server.baseUrlPath": base_path,
        "server.allowedHosts": sorted(names.names),
        "server.corsAllowedOrigins": [],
    }
    app = st.App(MAIN, middleware=[Middleware(OwnPagesOnly, names=names)])
    sys.argv[1:] = paths  # what the app's pages take for the command line
    app.run(config=settings)


def main() -> None:
    """Entry of the process: parses the command line that launch.command wrote."""
    parser = argparse.ArgumentParser(prog="feature_lens_app.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base-path", default="")
    parser.add_argument("--host-name", action="append", default=[])
    parser.add_argument("paths", nargs="*")
    given = parser.parse_args()
    try:
        # On signals the server takes leave of its browsers, one of which may never answer; then it sends itself the signal.
        with stopped_by_signals(_say_nothing, patience=3.0):
            serve(given.port, given.base_path, given.host_name, given.paths)
    except KeyboardInterrupt:
        sys.exit(0)


def _say_nothing() -> None:
    """A server that was stopped has done all that it was to do."""


if __name__ == "__main__":
    main()
