"""The app's server answers its own pages alone: raw requests over its port, with every header that tells who asks."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import streamlit as st
from browser_driver import served, wait_for
from feature_lens_app import launch
from feature_lens_app.origins import OwnNames
from synthetic import contents

from feature_lens.errors import AppError
from feature_lens.store import write_run

HTTP = ("", "overview", "_stcore/health", "_stcore/host-config", "_stcore/metrics", "media/a.png", "static/a.js", "x/y")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server below a path and behind two names, in a working directory whose settings would let everybody in."""
    folder = tmp_path_factory.mktemp("cwd")
    (folder / ".streamlit").mkdir()
    let_in = '[server]\nenableCORS = false\nallowedHosts = ["*"]\nenableAgentApi = true\nport = 1\n'
    (folder / ".streamlit" / "config.toml").write_text(let_in)
    run = write_run(contents(), folder / "run.h5")
    with served([run], folder, "lens", ["lens.example.org", "localhost:9000"]) as address:
        found = urlsplit(address).port
        assert found is not None
        yield found


UPGRADE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: streamlit"),
)


def _asked(port: int, path: str, *headers: str, method: str = "GET") -> tuple[int, str]:
    """Status and all that was answered to one raw request."""
    lines = [f"{method} /lens/{path} HTTP/1.1", *headers]
    lines += UPGRADE if path.endswith("stream") else ["Connection: close", "Content-Length: 0"]
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = connection.recv(65536)
        while path and not path.endswith("stream") and (more := connection.recv(65536)):
            answer += more
    return int(answer.split()[1]), answer.decode("utf-8", "replace")


# Headers as a browser sends them; PORT is the server's.
OWN = {
    "by number": ["Host: 127.0.0.1:PORT", "Origin: http://127.0.0.1:PORT"],
    "by name": ["Host: LOCALHOST:PORT", "Origin: http://localhost:PORT", "Sec-Fetch-Site: same-origin"],
    "typed": ["Host: 127.0.0.1:PORT", "Sec-Fetch-Site: none"],
    "no browser": ["Host: 127.0.0.1:PORT"],
    "a link from elsewhere": ["Host: 127.0.0.1:PORT", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"],
    "a proxy": ["Host: lens.example.org", "Origin: https://lens.example.org"],
    "a proxy that names its port": ["Host: lens.example.org:443", "Origin: https://lens.example.org"],
    "a proxy with a host of its own": ["Host: 127.0.0.1:PORT", "Origin: https://lens.example.org"],
    "a tunnel": ["Host: localhost:9000", "Origin: http://localhost:9000"],
}
FOREIGN = {
    "a name bound anew": ["Host: evil.example:PORT", "Origin: http://evil.example:PORT"],
    "a name bound anew, without Origin": ["Host: evil.example:PORT"],
    "one that ends as ours": ["Host: evil-lens.example.org"],
    "one that begins as ours": ["Host: 127.0.0.1:PORT.evil.example"],
    "one below ours": ["Host: a.lens.example.org"],
    "another port as host": ["Host: 127.0.0.1:1"],
    "no port": ["Host: localhost"],
    "another port of a name": ["Host: lens.example.org:8080"],
    "any address": ["Host: 0.0.0.0:PORT"],
    "two hosts": ["Host: 127.0.0.1:PORT", "Host: evil.example"],
    "another port": ["Host: 127.0.0.1:PORT", "Origin: http://127.0.0.1:1"],
    "another port by name": ["Host: localhost:PORT", "Origin: http://localhost:3000"],
    "another scheme": ["Host: 127.0.0.1:PORT", "Origin: https://127.0.0.1:PORT"],
    "another site": ["Host: 127.0.0.1:PORT", "Origin: https://evil.example"],
    "a file or a sandbox": ["Host: 127.0.0.1:PORT", "Origin: null"],
    "an empty origin": ["Host: 127.0.0.1:PORT", "Origin:"],
    "two origins": ["Host: 127.0.0.1:PORT", "Origin: http://127.0.0.1:PORT", "Origin: https://evil.example"],
    "a picture of another port": ["Host: 127.0.0.1:PORT", "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"],
    "a script of another site": ["Host: 127.0.0.1:PORT", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"],
}


def _sent(case: list[str], port: int) -> list[str]:
    return [line.replace("PORT", str(port)) for line in case]


@pytest.mark.parametrize("case", OWN)
def test_pages_of_its_own_are_answered(case: str, port: int) -> None:
    headers = _sent(OWN[case], port)
    assert {path: _asked(port, path, *headers)[0] for path in ("", "overview", "_stcore/health")} == {
        "": 200,
        "overview": 200,
        "_stcore/health": 200,
    }
    assert _asked(port, "_stcore/stream", *headers)[0] == 101


@pytest.mark.parametrize("case", FOREIGN)
def test_pages_of_others_are_refused_on_every_route(case: str, port: int) -> None:
    headers = _sent(FOREIGN[case], port)
    wanted = 400 if case == "two hosts" else 403  # which no HTTP request may bear
    for path in HTTP:
        status, answer = _asked(port, path, *headers)
        assert status == wanted, (path, answer)
        assert "access-control-allow-origin" not in answer.lower()
        if path and wanted == 403:
            body = answer.partition("\r\n\r\n")[2]
            assert re.fullmatch(r"The app answers pages of its own at .*, but the request .*; .*\.\n", body), body
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert _asked(port, "_stcore/upload_file/a/b", *headers, method=method)[0] == wanted
    # Neither is a header that a websocket may bear twice.
    assert _asked(port, "_stcore/stream", *headers)[0] == (400 if case.startswith("two") else 403)


def test_no_settings_of_the_working_directory_let_anybody_in(port: int) -> None:
    host = f"Host: 127.0.0.1:{port}"
    status, answer = _asked(port, "_stcore/health", host, f"Origin: http://127.0.0.1:{port}")
    assert status == 200
    assert "access-control-allow-origin: *" not in answer.lower()
    status, answer = _asked(port, "_stcore/agent/interact", host, method="POST")
    assert (status, "not_available" in answer) == (403, True), answer


def test_port_80_is_left_out_by_browsers() -> None:
    names = OwnNames.of(80, ["[::1]:81"])
    assert names.refusal([(b"host", b"localhost"), (b"origin", b"http://localhost")]) is None
    assert names.refusal([(b"Host", b"[::1]:81"), (b"Origin", b"http://[::1]:81")]) is None
    assert names.refusal([]) == (
        "The app answers pages of its own at 127.0.0.1:80 or localhost:80 or [::1]:81 alone, but the request names the host "
        "nothing; start it with --host-name for another name."
    )
    with pytest.raises(AppError, match="but 'a:0' came"):
        OwnNames.of(80, ["a:0"])


LARGEST = max(Path(st.__file__).with_name("static").glob("static/js/*.js"), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_signal_ends_the_server_whatever_its_browsers_do(stubborn: bool, tmp_path: Path) -> None:
    run = write_run(contents(), tmp_path / "run.h5")
    port = launch.free_port(8800)
    own = f"127.0.0.1:{port}"
    log = tmp_path / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(launch.command([run], port), env=launch.environment(), stdout=out, stderr=out) as server,
    ):
        try:
            wait_for(f"http://{own}/_stcore/health", log)
            with socket.socket() as page, socket.socket() as silent:
                page.connect(("127.0.0.1", port))
                page.sendall("\r\n".join(["GET /_stcore/stream HTTP/1.1", f"Host: {own}", *UPGRADE, "", ""]).encode())
                assert b" 101 " in page.recv(100)
                silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                silent.connect(("127.0.0.1", port))
                if stubborn:  # it asks for more than it takes
                    silent.sendall(f"GET /static/js/{LARGEST.name} HTTP/1.1\r\nHost: {own}\r\n\r\n".encode())
                    assert b" 200 " in silent.recv(100)
                server.terminate()
                assert server.wait(20) == (130 if stubborn else 0)
        finally:
            server.kill()
    assert "Traceback" not in log.read_text()
