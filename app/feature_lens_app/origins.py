"""Who may ask the app's server for anything: browsers that show the app's own pages under the app's own names.

The server listens on this machine alone, but a browser on it also shows pages of others. One whose name is bound anew to
127.0.0.1 reaches the server under that name, which the Host header tells; one from another port or site is told by Origin,
or by Sec-Fetch-Site where a browser sends no Origin. Imports no Streamlit.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from feature_lens.errors import AppError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

OWN_HOSTS: Final = ("127.0.0.1", "localhost")
_HOST_NAME: Final = re.compile(r"([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = ("80", "443")


@dataclass(frozen=True)
class OwnNames:
    """The names that the app is reached by: as such, and what a Host and what an Origin header may say."""

    names: frozenset[str]
    hosts: frozenset[str]
    origins: frozenset[str]
    shown: str

    @classmethod
    def of(cls, port: int, host_names: Sequence[str] = ()) -> OwnNames:
        """The names of the server on a port of this machine, and of the proxies before it: NAME, which stands for the ports
        of HTTP and HTTPS, or NAME:PORT. Raises AppError for anything else."""
        own = [f"{name}:{port}" for name in OWN_HOSTS]
        names, hosts, origins = {*OWN_HOSTS}, {*own}, {f"http://{host}" for host in own}
        if port == 80:  # which browsers leave out
            hosts |= set(OWN_HOSTS)
            origins |= {f"http://{name}" for name in OWN_HOSTS}
        for given in host_names:
            name, behind = _parsed(given)
            names.add(name.strip("[]"))
            hosts |= {f"{name}:{behind}"} if behind else {name, *(f"{name}:{default}" for default in _DEFAULT_PORTS)}
            origins |= {f"{scheme}://{name}{f':{behind}' if behind else ''}" for scheme in ("http", "https")}
        shown = " or ".join([*own, *host_names])
        return cls(frozenset(names), frozenset(hosts), frozenset(origins), shown)

    def refusal(self, headers: Headers) -> str | None:
        """Why a request with these headers is refused, in one sentence; None where it is not."""
        sent: dict[str, list[str]] = {}
        for name, value in headers:
            sent.setdefault(name.lower().decode("latin-1"), []).append(value.decode("latin-1").strip().lower())
        host, origin = sent.get("host", []), sent.get("origin", [])
        if len(host) != 1 or host[0] not in self.hosts:
            return self._sentence("the request names the host", host, "start it with --host-name for another name")
        if origin and (len(origin) != 1 or origin[0] not in self.origins):
            return self._sentence("the request comes from a page of", origin, "open the app's own page")
        # Pictures and scripts are asked for without an Origin; a link from elsewhere that opens the app is no danger.
        site, mode = sent.get("sec-fetch-site", []), sent.get("sec-fetch-mode", [])
        if not {*site} <= {"same-origin", "none"} and mode != ["navigate"]:
            return self._sentence("the request comes from a page of", site, "open the app's own page")
        return None

    def _sentence(self, what: str, came: list[str], advice: str) -> str:
        said = ", ".join(f"'{one}'" for one in came) or "nothing"
        return f"The app answers pages of its own at {self.shown} alone, but {what} {said}; {advice}."


def _parsed(host_name: str) -> tuple[str, str | None]:
    found = _HOST_NAME.fullmatch(host_name.lower())
    if found is None or (found[2] is not None and not 0 < int(found[2]) < 65536):
        raise AppError(
            f"A host name is NAME or NAME:PORT as browsers send it, such as lens.example.org, but '{host_name}' came; "
            "correct --host-name."
        )
    return found[1], found[2]


class OwnPagesOnly:
    """ASGI middleware that lets requests and websockets through that the app's own pages make, and refuses the rest."""

    def __init__(self, app: Application, names: OwnNames) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = self._names.refusal(scope["headers"])
        if refused is None:
            # It was judged here. Streamlit would ask a server elsewhere for this machine's address to judge it again.
            kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"origin"]
            await self._app({**scope, "headers": kept}, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the server answers 403
        else:
            body = f"{refused}\n".encode()
            kinds = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
            length = (b"content-length", str(len(body)).encode())
            await send({"type": "http.response.start", "status": 403, "headers": [*kinds, length]})
            await send({"type": "http.response.body", "body": body})
