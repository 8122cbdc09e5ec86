"""Contestants as long-lived processes, and rounds between them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from environments import HERE, command

Reply = dict[str, Any]
# Beyond this many seconds a contestant is stopped, and its row says so.
PATIENCE = 900.0


class Failed(Exception):
    """What a contestant could not do, in one line."""


class Contestant:
    """A worker that answers one request after the other."""

    def __init__(self, name: str, line: list[str], errors: IO[str]) -> None:
        self.name, self._errors = name, errors
        self._process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE)},
        )

    def ask(self, task: str, net: str, n: int, folder: str, **options: Any) -> Reply:
        """The reply to one request; raises Failed for errors, a process that died, or one that took too long."""
        line = json.dumps({"task": task, "net": net, "n": n, "folder": folder, "options": options})
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        stop = threading.Timer(PATIENCE, self._process.kill)
        stop.start()
        try:
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            stop.cancel()
        if not answer:
            raise Failed(self._last_words())
        reply: Reply = json.loads(answer)
        if "error" in reply:
            raise Failed(f"{self.name}: {reply['error']}")
        return reply

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "nothing was said")
        return f"{self.name} ended with code {code}: {said}"


@contextmanager
def contestant(name: str) -> Iterator[Contestant]:
    """A running contestant; raises Failed where its environment cannot be made."""
    try:
        line = command(name)
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise Failed(f"{name} could not be installed: {said[-1]}") from error
    with tempfile.TemporaryFile("w+") as errors:
        running = Contestant(name, line, errors)
        try:
            yield running
        finally:
            running.close()
