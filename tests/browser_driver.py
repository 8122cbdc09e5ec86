"""Drives the app in a real headless Chromium: a server, a page that records what goes wrong, widgets by their label."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from feature_lens_app import launch
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Response, sync_playwright

EXPECTED = ("_stcore/health", "_stcore/host-config")
"""What Streamlit's page asks for below a deep link before it finds the root; these 404s are its own."""


def chromium_path() -> str:
    """Where Chromium is; without it the test is skipped, or fails where CI=true says that it must be there."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    reason = "Chromium is not installed: apt-get install chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def chromium() -> Iterator[Browser]:
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(
    paths: list[Path], folder: Path, base_path: str | None = None, host_names: Sequence[str] = ()
) -> Iterator[str]:
    """The app on a free port, started as the command line starts it, from a working directory of its own."""
    port = launch.free_port(8700)
    log = folder / f"server-{port}.log"
    with log.open("wb") as out:
        line = launch.command(paths, port, base_path, host_names)
        server = subprocess.Popen(line, cwd=folder, env=launch.environment(), stdout=out, stderr=out)
        try:
            address = launch.url(port, base_path)
            wait_for(address + "_stcore/health", log)
            yield address
        finally:
            server.terminate()
            assert server.wait(20) == 0
            assert "Traceback" not in log.read_text()


def wait_for(address: str, log: Path) -> None:
    for _ in range(150):
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"The server did not start: {log.read_text()}")


class Tab:
    """One page in a browser context of its own, with everything that went wrong in it."""

    def __init__(self, browser: Browser) -> None:
        self.context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        # What failed to load is judged by its address in _on_response.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    def _on_response(self, response: Response) -> None:
        path = urlsplit(response.url).path
        if response.status >= 400 and not (response.status == 404 and path.endswith(EXPECTED)):
            self.wrong.append(f"{response.status} {response.url}")

    def go(self, address: str) -> None:
        self.page.goto(address)
        self.settle()

    def settle(self) -> None:
        """Wait until the page is drawn and nothing of the last one is left."""
        self.page.wait_for_selector(".fl-title")
        self.page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
        self.page.wait_for_function("!document.querySelector('[data-stale=\"true\"]')")

    def fine(self) -> None:
        """Nothing went wrong, and no exception or error is shown."""
        assert self.wrong == []
        assert self.page.get_by_test_id("stException").count() == 0
        assert self.page.get_by_test_id("stAlert").count() == 0, self.page.get_by_test_id("stAlert").all_inner_texts()

    def follow(self, page: str) -> None:
        """Change the page by its entry in the sidebar."""
        self.page.get_by_test_id("stSidebar").get_by_role("link", name=page.capitalize(), exact=True).click()
        self.page.wait_for_url(f"**/{page}?*")
        self.settle()

    def parameter(self, name: str) -> str | None:
        found = parse_qs(urlsplit(self.page.url).query).get(name)
        return found[0] if found else None

    def wait_parameter(self, name: str, before: str | None = None) -> None:
        """Wait until a parameter of the address is another than before, and the page is drawn by it."""
        self.page.wait_for_function(
            "([name, before]) => new URLSearchParams(location.search).get(name) !== before", arg=[name, before]
        )
        self.settle()

    def close(self) -> None:
        self.context.close()

    def choose(self, kind: str, label: str, value: str) -> None:
        """Change a widget as a person would."""
        if kind == "select":
            self.page.get_by_role("combobox", name=label, exact=True).click()
            self.page.get_by_role("option", name=value, exact=True).click()
        elif kind == "segments":
            self._group(label).get_by_role("radio", name=value, exact=True).click()
        elif kind == "several":
            self.page.get_by_role("combobox", name=label, exact=True).click()
            self.page.get_by_role("option", name=value, exact=True).click()
            self.page.keyboard.press("Escape")
        elif kind == "page":
            self.page.get_by_role("button", name=f"Page {value}", exact=True).first.click()
        else:
            field = self.page.get_by_label(label, exact=True)
            field.fill(value)
            field.press("Enter")

    def shown(self, kind: str, label: str) -> str:
        """What a widget shows."""
        if kind == "segments":
            return self._group(label).locator('[aria-checked="true"]').inner_text().strip()
        if kind == "several":
            box = self.page.get_by_test_id("stMultiSelect").filter(has=self.page.get_by_label(label, exact=True))
            return ", ".join(box.locator("[data-tag]:visible").all_inner_texts())
        if kind == "page":
            return self.page.locator('[aria-current="page"][data-testid="stPaginationPageActive"]').first.inner_text()
        if kind == "select":
            return self.page.get_by_role("combobox", name=label, exact=True).input_value()
        return self.page.get_by_label(label, exact=True).input_value()

    def expect(self, kind: str, label: str, wanted: str) -> None:
        """A widget shows this, at the latest after the moment that it takes to fill a field."""
        for _ in range(30):
            if self.shown(kind, label) == wanted:
                return
            self.page.wait_for_timeout(100)
        assert self.shown(kind, label) == wanted

    def _group(self, label: str) -> Locator:
        return self.page.get_by_role("radiogroup", name=label, exact=True)

    def picture(self, begins: str) -> bytes:
        """The PNG that the browser received for the picture whose alternative text begins so."""
        image = self.page.locator(f'img[alt^="{begins}"]').first
        image.wait_for()
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
        source = image.get_attribute("src") or ""
        return base64.b64decode(source.removeprefix("data:image/png;base64,"))
