"""How the app is started: the command line of its server and a port for it. Imports no Streamlit."""

from __future__ import annotations

import os
import re
import socket
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from feature_lens.errors import AppError
from feature_lens_app.origins import OwnNames

ADDRESS: Final = "127.0.0.1"
MAIN: Final = Path(__file__).with_name("main.py")
CONFIG: Final = Path(__file__).with_name(".streamlit") / "config.toml"
PORTS_TRIED: Final = 100
_PREFIX: Final = re.compile(r"(?:(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+(?:/(?!/|$)|$))*")


def command(
    paths: Iterable[Path | str], port: int, base_path: str | None = None, host_names: Sequence[str] = ()
) -> list[str]:
    """The command that serves the app on `paths` (run files or folders of them); meant for exec, so that a signal ends it.

    -P keeps the user's working directory from shadowing modules. Paths are made absolute: they mean what they
    meant to the user, and none can be taken for an option. Raises AppError for a host name or a path prefix that cannot be
    one.
    """
    OwnNames.of(port, host_names)
    if not _PREFIX.fullmatch(_trimmed(base_path)):
        raise AppError(
            f"A path prefix is made of letters, digits and -._~, with / between its parts, such as tools/lens, but "
            f"'{base_path}' came; correct --base-path."
        )
    return [
        *(sys.executable, "-P", "-m", "feature_lens_app.server"),
        *("--port", str(port)),
        f"--base-path={_trimmed(base_path)}",
        *(f"--host-name={name}" for name in host_names),
        "--",
        *(str(Path(path).absolute()) for path in paths),
    ]


def environment() -> dict[str, str]:
    """The environment to start the command in: the present one without the user's Streamlit settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}


def url(port: int, base_path: str | None = None) -> str:
    """Address of the app in a browser."""
    base = _trimmed(base_path)
    return f"http://{ADDRESS}:{port}/{base}{'/' if base else ''}"


def port_in_use(port: int) -> bool:
    """Whether something listens on this port already."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this a port whose last connection has just closed would count as busy for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return True
    return False


def free_port(start: int = 8501) -> int:
    """The first free port from `start` on; raises AppError when none of the next hundred is free."""
    for port in range(start, min(start + PORTS_TRIED, 65536)):
        if not port_in_use(port):
            return port
    raise AppError(f"None of the {PORTS_TRIED} ports from {start} on is free; choose another start with --port.")


def _trimmed(base_path: str | None) -> str:
    return (base_path or "").strip("/")


def packaged_settings() -> dict[str, object]:
    """The packaged settings of Streamlit by their dotted names, which outrank every settings file where the server is
    given them; the theme need not be given, it only comes last."""
    sections = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    return {
        f"{section}.{name}": value
        for section, options in sections.items()
        if section != "theme"
        for name, value in options.items()
    }
