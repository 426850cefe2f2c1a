"""Chromium, a server to look at, and an eye on everything that a page must not do."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from tests.browser.servers import Server, make_versions

CHROMIUM = Path("/usr/bin/chromium")
_ARGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
# Other tests share the processors: a wait may be long, and ends as soon as it may.
_PATIENCE = 90_000  # milliseconds
expect.set_options(timeout=_PATIENCE)

Visit = Callable[..., "Visited"]
Serve = Callable[..., Server]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--screenshots docs`: `test_looks.py` keeps what it saw, for the README."""
    parser.addoption("--screenshots", type=Path, default=None, help="folder to write them to")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; of one module, for Playwright keeps an event loop in its thread."""
    if not CHROMIUM.exists():
        assert os.environ.get("CI") != "true", "continuous integration installs Chromium"
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGS.split())
        yield browser
        browser.close()


class Visited:
    """A page that was opened, and what went wrong on it.

    Attributes:
        page: to be looked at.
        faults: console errors, uncaught errors, requests to other hosts.
    """

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.faults: list[str] = []
        self._host = urlsplit(base).netloc
        page.set_default_timeout(_PATIENCE)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._see(request.url))

    def forgive(self, pattern: str) -> None:
        """Take out what a test has brought about on purpose; it must be there."""
        found = [fault for fault in self.faults if re.search(pattern, fault)]
        assert found, f"{pattern} is not among {self.faults}"
        self.faults = [fault for fault in self.faults if fault not in found]

    def _hear(self, message: ConsoleMessage) -> None:
        # Breaches of the Content-Security-Policy come here, too.
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    def _see(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self._host:
            self.faults.append(f"request to another host: {url}")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """`visit(url, "#models", color_scheme="dark")`: a page of its own; faults fail the test."""
    visited: list[Visited] = []

    def visit(url: str, part: str = "#try", **options: Any) -> Visited:
        options.setdefault("viewport", {"width": 1180, "height": 860})
        page = browser.new_context(**options).new_page()
        visited.append(Visited(page, url))
        page.goto(f"{url}/{part}")
        return visited[-1]

    yield visit
    for one in visited:
        one.page.context.close()
    assert [one.faults for one in visited] == [[]] * len(visited)


@pytest.fixture(scope="session")
def versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT with four versions of digits, and `many`; to be copied, made once for all."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, done = shared / "versions", shared / "versions.done"
    with (shared / "versions.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.copytree(trained, folder)
            make_versions(folder)
            done.touch()
    return folder


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """`serve(root, "--no-worker")`: a real server of a copy of this ROOT, until the module ends."""
    servers: list[Server] = []

    def serve(root: Path, *args: str, **env: str) -> Server:
        copy = tmp_path_factory.mktemp("served") / "root"
        shutil.copytree(root, copy)
        # Two models are registered: which one is served must be said.
        server = Server(copy, *args, env={"REGISTRY__MODEL_NAME": "digits", **env})
        servers.append(server)
        return server.start()

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(versions: Path, serve: Serve) -> Server:
    """A server of the four versions, shared by the tests of a module that change nothing."""
    return serve(versions)
